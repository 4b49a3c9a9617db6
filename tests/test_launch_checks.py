"""What the launchers of clusters let pass, and what they refuse, in one sentence."""

import pytest

from launch import beam_pipeline, commands, gke, slurm

RUN = ["--config=configs/small.py", "--workdir=/shared/runs/small"]


@pytest.mark.parametrize(
    "time",
    ["24:00:00", "120:00:00", "0:30:00", "5-00", "5-0", "1-12:30", "2-06:00:00"],
)
def test_a_time_that_slurm_reads_as_hours_and_days_passes(time):
    slurm.check(slurm.parser().parse_args([f"--time={time}"]), RUN)


@pytest.mark.parametrize(
    "time", ["24:00", "90", "24:00:00:00", "1:2:3", "24:60:00", "1-", "-1", "1-24:0"]
)
def test_a_time_that_could_be_read_otherwise_is_refused(time, capsys):
    assert slurm.main(["--dry-run", f"--time={time}", "--", *RUN]) == 2
    said = capsys.readouterr()
    expected = "--time: expected HOURS:MM:SS or DAYS-HH[:MM[:SS]]"
    assert said.out == "" and expected in said.err and said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["--config=c.py", "-workdir=/x"], "--workdir=... once"),
        ([*RUN, "--workdir=/x"], "--workdir=... once"),
        ([*RUN, "-workdir=/x"], "--workdir=... once"),
        ([*RUN, "--config=c.py"], "--config=... once"),
        (["--config=c.py", "--workdir", "/x"], "--workdir=... once"),
        ([], "--config=... and --workdir=... once"),
    ],
)
def test_flags_that_leave_a_doubt_are_refused(arguments, wrong, capsys):
    assert slurm.main(["--dry-run", "--", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and f"with {wrong}, got" in said.err


def test_flags_of_the_config_are_no_second_config():
    arguments = [*RUN, "--config.data.batch_size=8", "--config.name=a=b"]
    commands.check_arguments(arguments)
    assert commands.workdir_of(arguments) == "/shared/runs/small"


def launched_with(bucket: str) -> list[int]:
    """Returns the exit status of each launcher that is given a bucket."""
    image = "--image=registry/words:1"
    jobset = ["--name=words", "--accelerator=nvidia-h100-80gb", image]
    flags = ["--config=configs/small.py", "--workdir=/bucket/runs/small"]
    dataflow = ["--project=my-project", "--region=us-east5", "--workers=2", image]
    render = ["synthesize", "--count=8", "--output=/bucket/words"]
    taken = [f"--bucket={bucket}", "--dry-run", "--"]
    return [
        gke.main(["gpu", *jobset, *taken, *flags]),
        beam_pipeline.main(["dataflow", *dataflow, *taken, *render]),
    ]


@pytest.mark.parametrize("bucket", ["words-1", "my_bucket", "data.example.org", "123"])
def test_a_bucket_of_any_legal_name_passes_everywhere(bucket, capsys):
    assert launched_with(bucket) == [0, 0]
    printed = capsys.readouterr().out
    # A number without quotes would be no string in YAML.
    assert f'bucketName: "{bucket}"' in printed and f"gs://{bucket}/" in printed


@pytest.mark.parametrize("bucket", ["gs://b", "My-bucket", "b", "-words", "words_", ""])
def test_what_is_no_name_of_a_bucket_is_refused_everywhere(bucket, capsys):
    assert launched_with(bucket) == [2, 2]
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("--bucket: expected 3 to 63 of") == 2
