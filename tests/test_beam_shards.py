"""Conversion and rendering in an Apache Beam pipeline: the bytes of a local run."""

import os
import sys
from pathlib import Path

import pytest
from pictures import png, write_list

from data_prep import sharding
from data_prep.beam_shards import write_shards_with_beam
from data_prep.convert import convert
from data_prep.convert import main as convert_command
from data_prep.synthesize import main as synthesize_command
from data_prep.synthetic.dataset import synthesize
from tests.synthetic_fonts import fonts_or_skip

REPOSITORY = Path(__file__).resolve().parent.parent

OPTIONS = ["--runner=DirectRunner", "--direct_num_workers=2"]
THREADS = [*OPTIONS, "--direct_running_mode=multi_threading"]
PROCESSES = [*OPTIONS, "--direct_running_mode=multi_processing"]


# Beam's own modules warn of names that it deprecated.
deprecated_names = pytest.mark.filterwarnings("ignore")


def shards(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.array_record")}


@pytest.fixture
def beam():
    pytest.importorskip("apache_beam", reason="needs the optional apache-beam")


@pytest.mark.usefixtures("beam")
@deprecated_names
@pytest.mark.slow
def test_a_pipeline_writes_the_shards_and_the_report_of_a_local_run(tmp_path):
    records = [*((png(i), f"w{i}") for i in range(30)), (b"", "x"), (png(3), "y")]
    path = write_list(tmp_path / "in", records)
    local = convert(path, tmp_path / "local", processes=1, shards=7)
    whole = convert(path, tmp_path / "whole", shards=7, beam=THREADS)
    # As a killed run leaves it: some shards are there, one is half written.
    half = tmp_path / "half"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.conversion._finish", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(path, half, processes=1, shards=7)
    (half / "in-00002-of-00007.array_record").unlink()
    (half / "in-00002-of-00007.array_record.99.tmp").write_bytes(b"half")
    taken_up = convert(path, half, shards=7, beam=THREADS)
    whole_folder = tmp_path / "whole"
    assert shards(whole_folder) == shards(tmp_path / "local")
    assert shards(half) == shards(tmp_path / "local") and len(shards(half)) == 7
    assert taken_up["run"]["entries"] in (4, 5)  # of one shard alone
    names = {file.name for file in whole_folder.iterdir()} - set(shards(whole_folder))
    assert names == {"index.json", "report.json", "request.json"}
    for report in (local, whole, taken_up):
        del report["run"]
    assert local == whole == taken_up


@pytest.mark.usefixtures("beam")
@deprecated_names
@pytest.mark.slow
@pytest.mark.parametrize("options", [THREADS, PROCESSES])
def test_a_pipeline_renders_the_shards_and_the_index_of_a_local_run(
    tmp_path, options, monkeypatch
):
    fonts_or_skip()
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # of Beam's worker processes
    request = dict(count=40, seed=3, preset="easy", shards=7)
    local, there = tmp_path / "local", tmp_path / "there"
    synthesize(local, **request, processes=2)
    synthesize(there, **request, beam=options)
    files = {file.name: file.read_bytes() for file in there.iterdir()}
    assert files == {file.name: file.read_bytes() for file in local.iterdir()}
    assert len(shards(there)) == 7 and "index.json" in files
    lost = min(there.glob("*.array_record"))
    (there / "index.json").unlink()
    lost.unlink()
    synthesize(there, **request, beam=options)
    assert {file.name: file.read_bytes() for file in there.iterdir()} == files


@pytest.mark.usefixtures("beam")
@deprecated_names
@pytest.mark.slow
def test_workers_that_mount_nothing_write_to_the_store_behind_the_folder(tmp_path):
    fonts_or_skip()
    request = dict(count=20, seed=3, preset="easy", shards=4)
    synthesize(tmp_path / "local", **request, processes=1)
    bucket, mounted = tmp_path / "bucket", tmp_path / "mounted"
    bucket.mkdir()
    mounted.symlink_to(bucket)
    synthesize(mounted, **request, beam=THREADS, beam_output=str(bucket))
    assert {file.name: file.read_bytes() for file in bucket.iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "local").iterdir()
    }
    elsewhere = str(tmp_path / "another-bucket")
    with pytest.raises(Exception, match="another-bucket"):
        synthesize(tmp_path / "x", **request, beam=THREADS, beam_output=elsewhere)


def test_a_store_without_a_pipeline_is_refused(tmp_path):
    with pytest.raises(ValueError, match="beam_output: expected options"):
        synthesize(tmp_path, count=1, beam_output="gs://bucket/words")


@pytest.mark.usefixtures("beam")
@deprecated_names
@pytest.mark.slow
def test_a_pipeline_that_fails_leaves_finished_shards_alone(tmp_path):
    wanted = sharding.Shards(folder=tmp_path, name="x", count=3)
    with pytest.raises(Exception, match="shard 2 fails"):
        write_shards_with_beam(wanted, [[0], [1], [2]], fails_late, THREADS)
    assert {path.name for path in tmp_path.iterdir()} <= {
        os.path.basename(wanted.path(shard)) for shard in range(2)
    }


def fails_late(shard, task, writer, tick):
    del task, writer, tick
    if shard == 2:
        raise ValueError("shard 2 fails")


def stop(*_):
    raise KeyboardInterrupt


def test_without_beam_there_is_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    path = write_list(tmp_path / "in", [(png(1), "x")])
    sentence = r"--beam needs a package: pip install apache-beam"
    with pytest.raises(SystemExit, match=f"convert: {sentence}"):
        convert_command([f"--input={path}", f"--output={tmp_path / 'a'}", "--beam="])
    fonts_or_skip()
    with pytest.raises(SystemExit, match=f"synthesize: {sentence}"):
        synthesize_command(["--count=2", f"--output={tmp_path / 'b'}", "--beam="])
