"""Conversion in an Apache Beam pipeline: the same bytes as in processes here."""

import sys

import pytest
from pictures import png, write_list

from data_prep.convert import convert
from data_prep.convert import main as convert_command

OPTIONS = [
    *("--runner=DirectRunner", "--direct_num_workers=2"),
    "--direct_running_mode=multi_threading",
]


def shards(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.array_record")}


# Beam's own modules warn of names that it deprecated.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_pipeline_writes_the_shards_and_the_report_of_a_local_run(tmp_path):
    pytest.importorskip("apache_beam", reason="needs the optional apache-beam")
    records = [*((png(i), f"w{i}") for i in range(30)), (b"", "x"), (png(3), "y")]
    path = write_list(tmp_path / "in", records)
    local = convert(path, tmp_path / "local", processes=1, shards=7)
    whole = convert(path, tmp_path / "whole", shards=7, beam=OPTIONS)
    # As a killed run leaves it: some shards are there, one is half written.
    half = tmp_path / "half"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.conversion._finish", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(path, half, processes=1, shards=7)
    (half / "in-00002-of-00007.array_record").unlink()
    (half / "in-00002-of-00007.array_record.99.tmp").write_bytes(b"half")
    taken_up = convert(path, half, shards=7, beam=OPTIONS)
    whole_folder = tmp_path / "whole"
    assert shards(whole_folder) == shards(tmp_path / "local")
    assert shards(half) == shards(tmp_path / "local") and len(shards(half)) == 7
    assert taken_up["run"]["entries"] in (4, 5)  # of one shard alone
    names = {file.name for file in whole_folder.iterdir()} - set(shards(whole_folder))
    assert names == {"index.json", "report.json", "request.json"}
    for report in (local, whole, taken_up):
        del report["run"]
    assert local == whole == taken_up


def stop(*_):
    raise KeyboardInterrupt


def test_without_beam_there_is_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    path = write_list(tmp_path / "in", [(png(1), "x")])
    arguments = [f"--input={path}", f"--output={tmp_path / 'out'}", "--beam="]
    with pytest.raises(SystemExit, match=r"--beam needs .*: pip install apache-beam"):
        convert_command(arguments)
