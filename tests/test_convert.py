"""Conversion: the same records come out, a killed run goes on, the counts add up."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import jpeg, png, write_list, write_lmdb

from data_prep import conversion, sharding
from data_prep import convert as command
from data_prep.convert import convert
from data_prep.inputs import FORMATS
from robustscanner_jax.data.sources import open_source

REPOSITORY = Path(__file__).resolve().parent.parent
WORDS = ["Hello", "two words", 'say "hi"', "a,b", "c\\d", "wörd", "7", "東京"]


def pairs(count=8):
    return [(png(i), WORDS[i % len(WORDS)]) for i in range(count)]


def elements(path):
    source = open_source(path)
    return [source[i] for i in range(len(source))]


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.array_record")}


def without_run(report):
    return {key: value for key, value in report.items() if key != "run"}


def test_a_converted_dataset_holds_the_source_s_elements_in_order(tmp_path):
    path = write_list(tmp_path / "in", pairs())
    report = convert(path, tmp_path / "out", processes=1, shards=3)
    assert elements(tmp_path / "out") == elements(path)
    assert (report["in"], report["out"], report["dropped"]) == (8, 8, {})
    assert report["label_lengths"] == {"1": 1, "2": 1, "3": 2, "4": 1, "5": 1} | {
        "8": 1,
        "9": 1,
    }
    assert report["characters"]["o"] == 3 and report["characters"]["東"] == 1
    assert report == json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    names = {path.suffix or path.name for path in (tmp_path / "out").iterdir()}
    assert names == {".array_record", ".json"}


def test_processes_do_not_change_a_byte_of_shards_or_report(tmp_path):
    path = write_list(tmp_path / "in", [*pairs(), (b"", "x"), (png(0), "again")])
    reports = [
        convert(path, tmp_path / f"out{n}", processes=n, shards=4) for n in (1, 2)
    ]
    assert shards(tmp_path / "out1") == shards(tmp_path / "out2")
    assert len(shards(tmp_path / "out1")) == 4
    assert without_run(reports[0]) == without_run(reports[1])


def test_a_run_of_any_length_of_life_ends_the_same(tmp_path, monkeypatch):
    path = write_list(tmp_path / "in", [*pairs(), (b"", "x"), (png(0), "again")])
    whole = convert(path, tmp_path / "whole", processes=1, shards=5)
    check_record, seen = conversion.check_record, []

    def stops(record, limits):
        seen.append(record.id)
        if len(seen) % 4 == 0:
            raise KeyboardInterrupt
        return check_record(record, limits)

    monkeypatch.setattr(conversion, "check_record", stops)
    stopped = 0
    while True:
        try:
            report = convert(path, tmp_path / "out", processes=1, shards=5)
            break
        except KeyboardInterrupt:
            stopped += 1
            half = tmp_path / "out" / "in-00004-of-00005.array_record.9.tmp"
            half.write_bytes(b"half a shard")
    assert stopped == 4  # each run finished one shard of two records
    assert shards(tmp_path / "out") == shards(tmp_path / "whole")
    assert without_run(report) == without_run(whole)
    assert not list((tmp_path / "out").glob("*.tmp"))
    seen.clear()
    again = convert(path, tmp_path / "out", processes=1, shards=5)
    assert without_run(again) == without_run(whole)
    assert not seen


def test_two_runs_do_not_write_one_folder(tmp_path, monkeypatch):
    path = write_list(tmp_path / "in", pairs())
    whole = convert(path, tmp_path / "whole", processes=1, shards=2)
    check_record, refused = conversion.check_record, []

    def begins_another(record, limits):
        if not refused:
            with pytest.raises(ValueError, match="another run is writing") as error:
                convert(path, tmp_path / "out", processes=1, shards=2)
            refused.append(error)
        return check_record(record, limits)

    monkeypatch.setattr(conversion, "check_record", begins_another)
    report = convert(path, tmp_path / "out", processes=1, shards=2)
    assert refused and without_run(report) == without_run(whole) | {
        "request": report["request"]
    }
    assert shards(tmp_path / "out") == shards(tmp_path / "whole")
    again = convert(path, tmp_path / "out", processes=1, shards=2)
    assert without_run(again) == without_run(report)


def test_a_split_is_of_published_datasets_alone(tmp_path):
    path = write_list(tmp_path / "in", pairs())
    with pytest.raises(ValueError, match=r"--split: of a published dataset alone"):
        convert(path, tmp_path / "out", split="test")
    assert not (tmp_path / "out").exists()
    report = convert(path, tmp_path / "out", processes=1)
    assert "split" not in report["request"]


def test_a_folder_whose_name_is_no_utf8_is_converted(tmp_path):
    path = write_list(tmp_path / os.fsdecode(b"caf\xe9"), pairs())
    report = convert(path, tmp_path / "out", processes=1)
    assert report["request"]["input"] == str(path)
    again = convert(path, tmp_path / "out", processes=1)
    assert again["run"]["workers"] == "the dataset was complete"


def test_a_killed_run_leaves_no_worker_and_goes_on(tmp_path):
    path = write_list(tmp_path / "in", pairs(3000))
    out = tmp_path / "out"
    arguments = ["--input", path, "--output", out, "--processes=2", "--shards=60"]
    run = [sys.executable, "-m", "data_prep.convert", *map(str, arguments)]
    process = subprocess.Popen(run, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(shards(out)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "index.json").exists() and len(workers) >= 2
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    kept = {file.name: file.stat().st_mtime_ns for file in out.glob("*.array_record")}
    report = convert(path, out, processes=2, shards=60)
    assert (report["in"], report["out"]) == (3000, 3000)
    assert report["run"]["entries"] == 3000 - 50 * len(kept)
    assert all((out / name).stat().st_mtime_ns == kept[name] for name in kept)
    assert elements(out) == elements(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing_outside_of_its_folder(tmp_path, number):
    path = write_list(tmp_path / "in", pairs(1))
    path.write_text("a line without a label\n" + "0000.img\tword\n" * 40_000)
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    arguments = ["--input", path, "--output", out, "--processes=1", "--shards=800"]
    run = [sys.executable, "-m", "data_prep.convert", *map(str, arguments)]
    process = subprocess.Popen(
        run,
        cwd=REPOSITORY,
        env=os.environ | {"TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(shards(out)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert not (out / "index.json").exists()
    assert not list(temporary.iterdir())
    if number != signal.SIGKILL:
        assert process.returncode == 1 and not list(out.glob("*.tmp"))
        assert said == "convert: stopped; the same command goes on from here\n"


def children(pid):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat[1]) == pid:
            found.append(int(folder.name))
    return found


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def kills_its_process(shard, task, writer, tick):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_ends_the_run_with_one_sentence(tmp_path):
    wanted = sharding.Shards(folder=tmp_path, name="x", count=2)
    with pytest.raises(OSError, match=r"worker process was killed.*goes on from here"):
        sharding.write_shards(
            wanted, [[1], [2]], kills_its_process, processes=2, total=2, unit="entry"
        )


def test_duplicates_are_counted_named_and_kept(tmp_path):
    records = [(png(1), "a"), (png(2), "b"), (png(1), "a"), (png(1), "B")]
    path = write_list(tmp_path / "in", records)
    report = convert(path, tmp_path / "out", processes=1, shards=2)
    assert report["out"] == 4
    assert report["duplicates"] == {
        "images": 2,
        "with_another_label": 1,
        "examples": [
            {"id": "0002.img", "repeats": "0000.img"},
            {"id": "0003.img", "repeats": "0000.img"},
        ],
    }


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\t\n\r\0", codec="utf-8"), max_size=9)
    )
)
@settings(max_examples=25)
def test_every_record_is_written_as_it_is_spelled_or_counted(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("labels")
    labels = ["first", *labels]
    path = write_list(folder / "in", [(png(i), t) for i, t in enumerate(labels)])
    report = convert(path, folder / "out", processes=1, shards=2)
    kept = [text for text in labels if text.strip()]
    assert [element["text"] for element in elements(folder / "out")] == kept
    empty = report["dropped"].get("empty label", {"count": 0})["count"]
    assert (report["in"], empty) == (len(labels), len(labels) - len(kept))
    assert sum(report["label_lengths"].values()) == report["out"] == len(kept)


def test_every_format_is_converted_by_its_name_and_by_auto(tmp_path):
    records = pairs()
    listed = write_list(tmp_path / "list", records)
    write_lmdb(tmp_path / "lmdb", records)
    convert(listed, tmp_path / "dataset", processes=1)
    inputs = {
        "tsv": listed,
        "lmdb": tmp_path / "lmdb",
        "array_record": tmp_path / "dataset",
    }
    for name, path in inputs.items():
        for given_name in ("auto", name):
            out = tmp_path / f"out-{name}-{given_name}"
            report = convert(path, out, from_format=given_name, processes=1)
            assert report["out"] == 8
            got = [(e["image"], e["text"]) for e in elements(out)]
            assert got == [(image, text) for image, text in records]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"from_format": "lmdb"},
            r"expected an LMDB \(--from=lmdb\), but this is path",
        ),
        ({"from_format": "lmbd"}, "--from: expected one of"),
        ({"processes": -1}, "processes: expected at least 0, got -1"),
        ({"images": "nowhere"}, "image '0000.img' not found in nowhere"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(
    tmp_path, changes, message
):
    path = write_list(tmp_path / "in", pairs(2))
    with pytest.raises(ValueError, match=message):
        convert(path, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_another_dataset_in_the_folder_is_not_overwritten(tmp_path):
    path = write_list(tmp_path / "in", pairs(2))
    convert(path, tmp_path / "out", processes=1)
    before = shards(tmp_path / "out")
    other = write_list(tmp_path / "other", pairs(3))
    with pytest.raises(ValueError, match="holds a dataset of other settings"):
        convert(other, tmp_path / "out", processes=1)
    with pytest.raises(ValueError, match="is not empty"):
        convert(other, tmp_path / "in", processes=1)
    assert shards(tmp_path / "out") == before


def test_an_unfinished_dataset_is_no_list(tmp_path):
    path = write_list(tmp_path / "in", pairs(2))
    convert(path, tmp_path / "out", processes=1)
    for name in ("index.json", "report.json"):
        (tmp_path / "out" / name).unlink()
    with pytest.raises(ValueError, match="never finished"):
        convert(tmp_path / "out", tmp_path / "again", processes=1)


def test_the_list_of_a_folder_may_have_any_name(tmp_path):
    path = Path(write_list(tmp_path / "in", pairs(2)))
    path.rename(path.with_name(f"train{path.suffix}"))
    report = convert(tmp_path / "in", tmp_path / "out", from_format="tsv", processes=1)
    assert report["out"] == 2


def test_a_missing_image_is_counted_even_if_it_is_the_first(tmp_path):
    path = write_list(tmp_path / "in", pairs(4))
    (tmp_path / "in" / "0000.img").unlink()
    report = convert(path, tmp_path / "out", processes=1)
    assert report["out"] == 3
    assert report["dropped"]["image missing"]["count"] == 1
    assert report["dropped"]["image missing"]["examples"][0]["id"] == "0000.img"


def test_the_command_prints_the_report_and_leaves_it_beside_the_shards(
    tmp_path, capsys
):
    path = write_list(tmp_path / "in", [*pairs(), (jpeg(1)[:100], "cut")])
    command.main([f"--input={path}", f"--output={tmp_path / 'out'}", "--processes=1"])
    printed = capsys.readouterr().out
    assert "in: 8 of 9 records" in printed
    assert "dropped, unreadable image: 1" in printed and "0008.img" in printed
    assert "label lengths:" in printed and "characters, " in printed
    with pytest.raises(SystemExit, match=r"convert: .*no such file"):
        command.main([f"--input={tmp_path / 'none'}", f"--output={tmp_path / 'x'}"])


def test_every_sample_of_a_foreign_format_is_converted(tmp_path, shared):
    samples = {
        "lmdb/imgs.lmdb": ("lmdb", None, 10, 10),
        "lmdb/label.lmdb": ("lmdb", "mmocr/imgs", 10, 10),
        "mmocr/labels.json": ("mmocr-json", None, 10, 10),
        "mmocr/old_label.jsonl": ("mmocr-jsonl", None, 10, 10),
        "mmocr/old_label.txt": ("mmocr-txt", None, 10, 10),
        "icdar2015/ch4_training_word_images_gt/gt.txt": ("icdar", None, 4468, 60),
    }
    for number, (path, expected) in enumerate(samples.items()):
        name, images, came, kept = expected
        assert name in FORMATS
        folder = images and shared(f"formats/{images}")
        out = tmp_path / str(number)
        source = shared(f"formats/{path}")
        report = convert(source, out, from_format=name, images=folder, processes=1)
        assert (report["in"], report["out"]) == (came, kept)
    with pytest.raises(ValueError, match=r"not one of 1 records.*unreadable image"):
        convert(shared("formats/lmdb/broken.lmdb"), tmp_path / "broken", processes=1)
