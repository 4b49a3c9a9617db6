"""Every kind of bad record is counted under its own reason, and the run goes on."""

import collections
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from pictures import in_mode, jpeg, png, png_header, write_list, write_lmdb

from data_prep import conversion_report
from data_prep.checks import REASONS, Dropped
from data_prep.conversion_report import NUM_EXAMPLES
from data_prep.convert import convert
from data_prep.verify import verify
from robustscanner_jax.charset import Charset
from robustscanner_jax.data.label_lines import LINE_REASONS
from robustscanner_jax.data.pipeline import evaluation_batches, training_batches
from robustscanner_jax.data.records import Record, RecordWriter, shard_path
from robustscanner_jax.data.sources import open_source
from robustscanner_jax.data.transforms import Prepare, Problem
from robustscanner_jax.preprocessing import Preprocessing

REPOSITORY = Path(__file__).resolve().parent.parent
# What the records of `bad_records` come to, each as often as it stands there.
LONG = "x" * 300
BAD = {
    "image of zero bytes": [(b"", "zero")] * 2,
    "unreadable image": [(jpeg(1)[:-40], "cut"), (jpeg(2)[:20], "cut"), (b"GIF", "x")],
    "too many pixels": [(png_header(30_000, 30_000), "bomb")] * 4,
    "image too small": [(png(1, height=1, width=1), "dot")],
    "empty label": [(png(2), ""), (png(3), "  ")],
    "label too long": [(png(4), LONG)] * 3,
    "label not UTF-8": [(png(5), b"caf\xe9"), (png(6), b"\xff\xfe")],
    "NUL in label": [(png(7), "a\0b")],
}
GOOD = {
    "cmyk": in_mode("CMYK", "jpeg"),
    "16": in_mode("I;16", "png"),
    "rgba": in_mode("RGBA", "png"),
    "palette": in_mode("P", "png"),
    "255": png(9),
}


def records():
    good = [
        (image, "y" * 255 if text == "255" else text) for text, image in GOOD.items()
    ]
    bad = [record for kind in BAD.values() for record in kind]
    # Alternating, so that a bad one stands between good ones.
    return [record for pair in zip(bad, [*good] * 4, strict=False) for record in pair]


@pytest.mark.parametrize("write", [write_list, write_lmdb])
@pytest.mark.parametrize("processes", [1, 2])
def test_every_bad_record_is_counted_under_its_reason(tmp_path, write, processes):
    path = write(tmp_path / "in", records())
    report = convert(path, tmp_path / "out", processes=processes, shards=3)
    counts = {reason: entry["count"] for reason, entry in report["dropped"].items()}
    expected = {reason: len(bad) for reason, bad in BAD.items()}
    num_bad = sum(expected.values())
    assert counts == expected
    assert (report["in"], report["out"]) == (2 * num_bad, num_bad)
    assert all(entry["examples"][0]["detail"] for entry in report["dropped"].values())
    written = open_source(tmp_path / "out")
    kept = sorted(written[i]["text"] for i in range(len(written)))
    assert kept == sorted(text for image, text in records() if image in GOOD.values())


def test_a_bomb_takes_no_memory(tmp_path):
    bombs = [(png_header(30_000, 30_000), "bomb")] * 50
    path = write_list(tmp_path / "in", [(png(1), "fine"), *bombs])
    tracemalloc.start()
    report = convert(path, tmp_path / "out", processes=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report["dropped"]["too many pixels"]["count"] == 50
    assert peak < 20e6


PEAK = """
import resource, sys
from data_prep.conversion import convert
report = convert(sys.argv[1], sys.argv[2], processes=1, shards=int(sys.argv[3]))
print(report["in"], report["out"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def converted_in_little_memory(folder, count):
    """Converts so many lines, every tenth of them bad; returns the peak in MB."""
    folder.mkdir()
    (folder / "good.png").write_bytes(png(0))
    (folder / "bomb.png").write_bytes(png_header(30_000, 30_000))
    good, bad = "good.png\tword\n", "no label\n" + "bomb.png\tword\n"
    (folder / "labels.tsv").write_text((good * 18 + bad) * (count // 20))
    arguments = [folder / "labels.tsv", folder / "out", count // 1000]
    command = [sys.executable, "-c", PEAK, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE)
    came, kept, kilobytes = map(int, done.stdout.split())
    assert (came, kept) == (count, count * 9 // 10)
    return kilobytes / 1000


def test_memory_stays_flat_however_long_the_list_and_its_bad_lines(tmp_path):
    short = converted_in_little_memory(tmp_path / "short", 1_000)
    long = converted_in_little_memory(tmp_path / "long", 20_000)
    # 19,000 records more: 0.3 MB of digests, and what the allocator keeps.
    assert long - short < 8


def test_limits_may_be_lifted(tmp_path):
    from data_prep.checks import Limits

    records = [(png(1), LONG), (png(2, height=1, width=1), "dot")]
    path = write_list(tmp_path / "in", records)
    limits = Limits(longest_label=0, smallest_side=1)
    assert convert(path, tmp_path / "out", limits=limits, processes=1)["out"] == 2
    with pytest.raises(ValueError, match="smallest_side of at least 1, got 255 and 0"):
        Limits(smallest_side=0)


def test_a_dataset_of_bad_records_alone_is_no_dataset(tmp_path):
    path = write_list(tmp_path / "in", [(b"", "a"), (b"", "b"), (png(1), "")])
    for _ in range(2):  # the second time from the shards that are there
        with pytest.raises(
            ValueError,
            match=r"not one of 3 records .*'empty label': 1, 'image of zero bytes': 2",
        ):
            convert(path, tmp_path / "out", processes=1)
    assert not (tmp_path / "out" / "index.json").exists()


# Lists in which the third label is good, and one line each goes wrong in another way.
GOOD_LINES = {
    "labels.tsv": b"{}\t{}",
    "label.txt": b'["{}"]\t{}',  # PaddleOCR's list of images
    "gt.txt": b'{}, "{}"',
    "old_label.txt": b"{} {}",  # MMOCR
    "old_label.jsonl": b'{{"filename": "{}", "text": "{}"}}',
    "labels.csv": b'{},"{}"',
}
BAD_LINES = {
    "labels.tsv": {
        b"0.png": "too few columns",
        b'0.png, "x"': "too few columns",
        b"0.png\tx\ty": "too many columns",
    },
    "gt.txt": {
        b"0.png": "too few columns",
        b"0.png, x": "missing or stray quote",
        b'0.png, "x': "missing or stray quote",
    },
    "old_label.txt": {b"0.png": "too few columns"},
    "old_label.jsonl": {
        b'{"filename": "0.png", "te': "line not JSON",
        b'{"filename": "0.png"}': "path or label missing",
        b'{"filename": "0.png", "text": null}': "path or label missing",
    },
    "labels.csv": {
        b"0.png": "too few columns",
        b"0.png,a,b": "too many columns",
        b'0.png,"a"b': "missing or stray quote",
        b'0.png,"a': "missing or stray quote",
    },
}
BAD_LINES["label.txt"] = BAD_LINES["labels.tsv"]
ANY_LABEL = {  # of every format; the keys are the labels
    b"": "empty label",
    b"  ": "empty label",
    b"caf\xe9": "label not UTF-8",
    b"x" * 300: "label too long",
}
NUL_LABEL = {b"a\0b": "NUL in label"}


def write_bad_list(folder, name):
    """Writes 40 good lines, then bad ones; returns the counts that must come out."""
    folder.mkdir()
    (folder / "0.png").write_bytes(png(0))

    def line(label: bytes) -> bytes:
        form = GOOD_LINES[name].replace(b"{{", b"{").replace(b"}}", b"}")
        return form.replace(b"{}", b"0.png", 1).replace(b"{}", label, 1)

    bad = {**BAD_LINES[name]}
    labels = ANY_LABEL | ({} if name.endswith("jsonl") else NUL_LABEL)
    bad |= {line(label): reason for label, reason in labels.items()}
    if name.endswith("jsonl"):
        bad[line(b"a\\u0000b")] = "NUL in label"
        bad[line(b"\\ud800")] = "label not UTF-8"
    lines = [*(line(b"good, \\\\ word") for _ in range(40)), *bad]
    lines[0], lines[-1] = lines[-1], lines[0]  # the first line is a bad one
    (folder / name).write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    return collections.Counter(bad.values())


@pytest.mark.parametrize("name", GOOD_LINES)
@pytest.mark.parametrize("processes", [1, 2])
def test_every_bad_line_of_a_list_is_counted_and_the_run_goes_on(
    tmp_path, name, processes
):
    expected = write_bad_list(tmp_path / "in", name)
    path = tmp_path / "in" / name
    report = convert(path, tmp_path / "out", processes=processes, shards=3)
    counts = {reason: entry["count"] for reason, entry in report["dropped"].items()}
    assert counts == expected
    assert (report["in"], report["out"]) == (40 + expected.total(), 40)
    for entry in report["dropped"].values():
        assert len(entry["examples"]) == min(entry["count"], NUM_EXAMPLES)
        assert all(example["detail"] for example in entry["examples"])


@pytest.mark.parametrize("name", GOOD_LINES)
def test_a_bad_line_is_a_lost_row_of_training_and_evaluation_not_a_lost_run(
    tmp_path, name
):
    expected = write_bad_list(tmp_path / "in", name)
    source = open_source(tmp_path / "in" / name)
    lines = sum(n for reason, n in expected.items() if reason in LINE_REASONS)
    assert len(source) == 40 + expected.total()
    batches = training_batches(
        [source], [1.0], batch_size=len(source), seed=0, num_workers=0,
        prepare=Prepare(Charset.of("god, \\wrx"), Preprocessing(), max_len=30),
    )  # fmt: skip
    problems = next(iter(batches))["problem"].tolist()
    assert problems.count(Problem.NONE) == 40
    lone = int(name.endswith("jsonl"))  # a lone surrogate, which no charset holds
    assert problems.count(Problem.UNREADABLE) == lines - lone
    ((batch, records),) = evaluation_batches(
        source, rule=Preprocessing(), batch_size=len(source)
    )
    errors = [record.error for record in records if record.error is not None]
    assert len(errors) == lines - lone == int((batch["weight"] == 0).sum())
    assert all(f"{name}, line " in error for error in errors)


def test_the_doctor_counts_a_bad_line_under_its_reason(tmp_path):
    expected = write_bad_list(tmp_path / "in", "labels.csv")
    (found,) = verify([tmp_path / "in" / "labels.csv"])
    counts = {reason: entry["count"] for reason, entry in found["dropped"].items()}
    # The doctor takes a record of any length.
    assert counts == expected


def test_a_name_that_no_file_can_have_does_not_stop_the_report(tmp_path):
    path = write_list(tmp_path / "in", [(png(1), "x")], name="labels.jsonl")
    lines = ['{"filename": "0000.img", "text": "x"}']
    lines += ['{"filename": "\\ud800.png", "text": "y"}'] * 2
    path.write_text("\n".join(lines))
    report = convert(path, tmp_path / "out", processes=1)
    assert report["dropped"]["unreadable record"]["count"] == 2
    assert "\\ud800.png" in (tmp_path / "out" / "report.json").read_text("utf-8")
    conversion_report.as_text(report).encode()


def test_a_list_in_another_encoding_is_refused(tmp_path):
    records = [(png(i), "naïve".encode("latin-1")) for i in range(4)]
    path = write_list(tmp_path / "in", [*records, (png(9), "ok")])
    with pytest.raises(ValueError, match=r"4 of 5 lines are not UTF-8.*line 1, "):
        convert(path, tmp_path / "out")


def test_a_truncated_array_record_is_refused_at_any_length(tmp_path):
    path = tmp_path / "in" / shard_path("", "in", 0, 1)
    with RecordWriter(path) as writer:
        for i in range(200):
            writer.write(Record(f"{i}", png(i), "word"))
    whole = path.read_bytes()
    for part in range(20):
        size = len(whole) * part // 20 + (part == 0)
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"{path.name}: .* of {size} bytes"):
            convert(path, tmp_path / "out", processes=1)
    assert not (tmp_path / "out").exists()


def test_a_truncated_lmdb_is_refused_at_any_length(tmp_path):
    folder = write_lmdb(tmp_path / "in", [(png(i), "word") for i in range(200)])
    data = folder / "data.mdb"
    whole = data.read_bytes()
    for part in range(20):
        data.write_bytes(whole[: len(whole) * part // 20 + (part == 0)])
        with pytest.raises(ValueError, match=r"(data\.mdb|in): .*broken LMDB"):
            convert(folder, tmp_path / "out", processes=1)
    assert not (tmp_path / "out").exists()


def test_a_shard_whose_middle_is_overwritten_loses_those_records_alone(tmp_path):
    path = tmp_path / "in" / shard_path("", "in", 0, 1)
    with RecordWriter(path) as writer:
        for i in range(200):
            writer.write(Record(f"{i}", png(i), "word"))
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 40] = b"\xaa" * 40
    path.write_bytes(damaged)
    report = convert(path, tmp_path / "out", processes=1)
    lost = report["dropped"]["unreadable record"]
    assert report["in"] == 200 and 1 <= lost["count"] <= 3
    assert report["out"] == 200 - lost["count"]
    assert "in-00000-of-00001.array_record, record " in lost["examples"][0]["detail"]


def test_an_icdar_list_keeps_every_mark_of_its_labels(tmp_path):
    labels = ['a,b', 'say \\"hi\\"', "c\\d", ', "', "ends\\", "  in  "]  # fmt: skip
    lines = [f'w{i}.png, "{label}"' for i, label in enumerate(labels)]
    for i in range(len(labels)):
        (tmp_path / f"w{i}.png").write_bytes(png(i))
    text = "\ufeff" + "\r\n".join(lines) + "\r\n"
    (tmp_path / "gt.txt").write_text(text, encoding="utf-8", newline="")
    report = convert(tmp_path, tmp_path / "out", from_format="icdar", processes=1)
    written = open_source(tmp_path / "out")
    expected = ["a,b", 'say "hi"', "c\\d", ', "', "ends\\", "  in  "]
    assert [written[i]["text"] for i in range(6)] == expected
    assert written[0]["id"] == "w0.png" and report["dropped"] == {}


def test_a_reason_that_no_report_knows_is_a_bug():
    assert set(BAD) < set(REASONS)
    with pytest.raises(ValueError, match="record a: expected one of"):
        Dropped("a", "whatever", "")
