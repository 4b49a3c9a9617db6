"""The launcher of Beam pipelines: its commands, and what it refuses to start."""

import re
import shlex
import sys

import pytest
from pictures import png, write_list

from launch import beam_pipeline

DATAFLOW = [
    *("dataflow", "--project=my-project", "--region=us-east5", "--bucket=words-1"),
    *("--image=registry/beam:1", "--workers=50"),
]
FLINK = ["flink", "--master=flink.example:8081", "--workers=64"]
SPARK = ["spark", "--master=spark://spark.example:7077"]
RENDER = ["--", "synthesize", "--count=1000", "--output=/bucket/sets/words"]
CONVERT = [
    "--",
    "convert",
    "--from=mjsynth",
    "--input=/shared/in",
    "--output=/shared/o",
]


def printed(arguments, capsys) -> list[str]:
    assert beam_pipeline.main(arguments) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"+ {shlex.quote(sys.executable)} -m data_prep.")
    return shlex.split(line)[3:]


def dry(arguments):
    return [arguments[0], "--dry-run", *arguments[1:]]


def test_dataflow_renders_into_the_bucket_behind_the_mount(capsys):
    module, *flags = printed([*dry(DATAFLOW), *RENDER], capsys)
    assert module == "data_prep.synthesize"
    assert flags[:2] == ["--count=1000", "--output=/bucket/sets/words"]
    assert flags[3:] == ["--beam_output=gs://words-1/sets/words"]
    assert shlex.split(flags[2].removeprefix("--beam=")) == [
        *("--runner=DataflowRunner", "--job_name=words", "--project=my-project"),
        *("--region=us-east5", "--temp_location=gs://words-1/beam"),
        "--sdk_container_image=registry/beam:1",
        *("--num_workers=50", "--max_num_workers=50"),
    ]


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        (
            FLINK,
            "--runner=FlinkRunner --flink_master=flink.example:8081 --parallelism=64",
        ),
        (SPARK, "--runner=SparkRunner --spark_master_url=spark://spark.example:7077"),
    ],
)
def test_flink_and_spark_hand_the_shards_to_the_pools_of_their_workers(
    capsys, cluster, expected
):
    module, *flags = printed([*dry(cluster), *CONVERT], capsys)
    assert module == "data_prep.convert" and flags[:3] == CONVERT[2:]
    pool = "--environment_type=EXTERNAL --environment_config=localhost:50000"
    assert flags[3:] == [f"--beam={expected} {pool}"]


def test_the_pipeline_options_are_those_that_beam_knows():
    options = pytest.importorskip("apache_beam.options.pipeline_options")
    for arguments in (DATAFLOW, FLINK, SPARK):
        parsed = beam_pipeline.parser().parse_args(arguments)
        given = beam_pipeline.pipeline_options(parsed)
        known = options.PipelineOptions(given).get_all_options(drop_default=True)
        assert len(known) == len(given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*FLINK], "after --: expected convert or synthesize"),
        ([*FLINK, "--", "verify"], "after --: expected convert or synthesize"),
        ([*FLINK, "--", "convert", "--output=/o"], "--input: expected --input=PATH"),
        ([*FLINK, "--", "synthesize", "--output=here"], "got 'here'"),
        ([*FLINK, *CONVERT, "--beam=x"], "--beam: the launcher decides it"),
        ([*FLINK, *CONVERT, "--processes=2"], "--processes: the launcher decides"),
        ([*FLINK, "--workers=0", *CONVERT], "--workers: expected at least 1, got 0"),
        ([*FLINK, "--master=flink", *CONVERT], "--master: expected .* got 'flink'"),
        ([*SPARK, "--master=host:7077", *CONVERT], "--master: expected spark://"),
        ([*SPARK, "--pool=localhost", *CONVERT], "--pool: expected HOST:PORT"),
        ([*DATAFLOW, *CONVERT], "its workers cannot mount the input"),
        (
            [*DATAFLOW, "--", "synthesize", "--output=/data/x"],
            "below /bucket/, where",
        ),
        ([*DATAFLOW, "--region=here", *RENDER], "--region: expected"),
        ([*DATAFLOW, "--bucket=gs://b", *RENDER], "--bucket: expected"),
        ([*DATAFLOW, "--project=P", *RENDER], "--project: expected"),
        ([*DATAFLOW, "--image=a b", *RENDER], "--image: expected"),
        ([*DATAFLOW, "--name=My Job", *RENDER], "--name: expected"),
    ],
)
def test_a_wrong_request_starts_nothing(capsys, arguments, message):
    assert beam_pipeline.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(message, said.err)


def test_the_command_is_run_here_and_its_failure_is_told(tmp_path, capfd):
    path = write_list(tmp_path / "in", [(png(1), "x")])
    output = tmp_path / "out"
    arguments = [f"--python={sys.executable}", "--", "convert", f"--input={path}"]
    arguments += [f"--output={output}", "--from=lmdb"]
    assert beam_pipeline.main([*SPARK, *arguments]) == 2
    said = capfd.readouterr().err
    assert "convert: " in said and "expected an LMDB" in said
    assert "ended with status 1" in said and not output.exists()
