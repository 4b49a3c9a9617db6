"""The data doctor: what it finds, and when it says that training would suffer."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pictures import png, write_list, write_lmdb, written
from test_convert import REPOSITORY, alive, children

from data_prep import verify as command
from data_prep.diagnosis import Tolerance
from data_prep.examine import compared_label, examine
from data_prep.overlap import (
    NEAR_BITS,
    differing_bits,
    find_similar,
    mixed,
    picture_hash,
    repeats,
)
from data_prep.verify import verify


def clean(count=20, start=0):
    return [(as_png(written(i)), f"word{i}") for i in range(start, start + count)]


def as_png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def saved_again(seed):
    """Returns `written(seed)` at another size and as a JPEG."""
    larger = cv2.resize(written(seed), (160, 40), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", larger, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def test_a_clean_dataset_has_no_problem(tmp_path):
    path = write_list(tmp_path / "a", clean())
    (found,) = verify([path])
    assert (found["records"], found["usable"], found["problems"]) == (20, 20, [])
    assert found["dropped"] == {} and found["labels_outside_charset"] == 0
    assert found["label_lengths"] == {"5": 10, "6": 10}
    assert found["aspect_ratios"]["4-6"] == 20  # 130 x 32 pixels
    assert found["characters"]["w"] == 20 and found["characters"]["1"] == 11 + 1
    assert found["duplicates"] == {
        "same_bytes": 0,
        "same_bytes_other_label": 0,
        "same_picture_and_label": 0,
        "pairs": [],
    }
    assert min(found["reading_speed"].values()) > 100


def test_every_kind_of_trouble_is_counted_exactly(tmp_path):
    records = [
        *clean(20),
        (b"", "empty file"),
        (b"no image", "x"),
        (png(50), ""),
        (png(51), "n\0ul"),
        (png(52), "naïve €"),
        (png(53), "x" * 30),
        (png(54, height=30, width=10), "tall"),
        (as_png(written(0)), "word0"),  # again
        (as_png(written(1)), "other"),  # again, with another label
        (saved_again(2), "WORD2!"),  # again, saved differently
    ]
    (found,) = verify([write_lmdb(tmp_path / "a", records)])
    assert {reason: e["count"] for reason, e in found["dropped"].items()} == {
        "NUL in label": 1,
        "empty label": 1,
        "image of zero bytes": 1,
        "unreadable image": 1,
    }
    assert (found["records"], found["usable"]) == (30, 26)
    assert found["labels_outside_charset"] == 1
    assert found["characters_outside_charset"] == {"ï": 1, " ": 1, "€": 1}
    assert (found["labels_too_long"], found["tall"]) == (1, 1)
    twins = found["duplicates"]
    assert (twins["same_bytes"], twins["same_bytes_other_label"]) == (2, 1)
    assert twins["pairs"][0] == {"record": 28, "twin": 1, "differing_bits": 0}
    problems = "; ".join(found["problems"])
    assert "4 of 30 records (13.3%): unreadable, or without a label" in problems
    assert "1 of 30 records (3.3%): an image that is there with two labels" in problems
    assert "charset" not in problems  # 3.3 % are tolerated


def test_a_picture_of_the_same_label_is_found_however_it_was_saved(tmp_path):
    path = write_list(tmp_path / "a", [*clean(10), (saved_again(3), "WORD3!")])
    bench = write_list(
        tmp_path / "bench", [(as_png(written(7)), "word7"), (saved_again(5), "word5")]
    )
    other = write_list(tmp_path / "other", [(saved_again(5), "another word")])
    (found,) = verify([path], against=[bench, other])
    first, second = found["against"]
    assert (first["benchmark"], first["same_bytes"], first["same_picture"]) == (
        "bench",
        1,
        1,
    )
    assert first["benchmark_images"] == 2
    assert [(p["record"], p["twin"]) for p in first["pairs"]] == [(7, 0), (5, 1)]
    assert (second["same_bytes"], second["same_picture"]) == (0, 0)
    assert found["problems"] == [
        "2 of 11 records (18.2%): images of the benchmark bench"
    ]


def test_limits_decide_what_is_a_problem(tmp_path):
    path = write_list(tmp_path / "a", [*clean(9), (png(30), "€" * 12)])
    tolerances = {
        Tolerance(outside=0.1): 0,
        Tolerance(outside=0.05): 1,
        Tolerance(outside=0.05, max_len=12): 2,
        Tolerance(outside=0.1, max_len=13): 0,
    }
    for tolerance, expected in tolerances.items():
        (found,) = verify([path], tolerance=tolerance)
        assert len(found["problems"]) == expected, tolerance
    (found,) = verify([path], charset="word0123456789€")
    assert found["labels_outside_charset"] == 0


def test_workers_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.examine._CHUNK", 7)
    path = write_list(
        tmp_path / "a", [*clean(20), (as_png(written(3)), "x"), (b"", "y")]
    )
    found = [verify([path], processes=n)[0] for n in (1, 2)]
    for entry in found:
        entry.pop("reading_speed")
    assert found[0] == found[1]
    assert found[0]["duplicates"]["same_bytes"] == 1


class KillsItsReader:
    name = "deadly"

    def __len__(self):
        return 2

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_ends_the_look_with_one_sentence(monkeypatch):
    monkeypatch.setattr("data_prep.examine._CHUNK", 1)
    with pytest.raises(OSError, match=r"^deadly: a worker process was killed.*fewer"):
        examine(KillsItsReader(), charset="abc", processes=2)


def is_being_read(pipe):
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


ONE_RECORD_A_CHUNK = """
import sys
from data_prep import examine, verify
examine._CHUNK = 1
verify.main(sys.argv[1:])
"""


def test_a_command_that_is_ended_leaves_no_worker(tmp_path):
    path = write_list(tmp_path / "a", clean(3))
    pipe = tmp_path / "a" / "0001.img"  # which a worker waits for while it is empty
    pipe.unlink()
    os.mkfifo(pipe)
    run = [sys.executable, "-c", ONE_RECORD_A_CHUNK, str(path), "--processes=2"]
    process = subprocess.Popen(run, cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    while not is_being_read(pipe) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = children(process.pid)
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert len(workers) >= 2
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [worker for worker in workers if alive(worker)]
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def test_the_findings_may_lie_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    verify([write_list(tmp_path / "a", clean(1))], output="~/doctor")
    assert (tmp_path / "doctor" / "verify.json").is_file()


def test_names_that_are_no_utf8_are_escaped_in_the_findings(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    path = write_list(folder, clean(2))
    entry = {"filename": os.fsdecode(b"gone\xe9.png"), "text": "x"}
    found = {"filename": next(folder.glob("*.*g")).name, "text": "y"}
    listed = path.with_name("more.jsonl")
    listed.write_text("".join(json.dumps(one) + "\n" for one in (found, entry)))
    verify([path, listed], output=tmp_path / "doctor")
    findings = json.loads((tmp_path / "doctor" / "verify.json").read_text("utf-8"))
    assert [os.fsdecode(os.fsencode(f["path"])) for f in findings] == [
        *(str(path), str(listed))
    ]
    page = (tmp_path / "doctor" / "verify.html").read_text("utf-8")
    assert "\\udce9" in page


def test_the_command_ends_with_one_when_training_would_suffer(tmp_path, capsys):
    fine = write_list(tmp_path / "fine", clean(5))
    bad = write_list(tmp_path / "bad", [(b"", "x")])
    assert command.main([str(fine)]) == 0
    assert "fine: 5 of 5 records usable" in capsys.readouterr().out
    output = tmp_path / "out"
    paths = [str(bad), str(fine), str(tmp_path / "none")]
    assert command.main([*paths, f"--output={output}", "--against", str(fine)]) == 1
    printed = capsys.readouterr().out
    assert (
        "PROBLEM not one of 1 records can be used: {'image of zero bytes': 1}"
        in printed
    )
    assert "PROBLEM cannot be opened" in printed and "no such file" in printed
    assert "PROBLEM 5 of 5 records (100.0%): images of the benchmark fine" in printed
    found = json.loads((output / "verify.json").read_text(encoding="utf-8"))
    assert [len(entry["problems"]) for entry in found] == [1, 1, 1]
    with pytest.raises(SystemExit, match=r"verify: .*no such file"):
        command.main([str(fine), "--against", str(tmp_path / "none")])


def test_a_dictionary_file_is_the_charset(tmp_path, capsys):
    path = write_list(tmp_path / "a", clean(5))
    (tmp_path / "dict.txt").write_text("\n".join("word0123"), encoding="utf-8")
    assert command.main([str(path), f"--charset={tmp_path / 'dict.txt'}"]) == 1
    assert "characters outside the charset ('4')" in capsys.readouterr().out


def test_the_page_shows_every_image_and_escapes_labels(tmp_path):
    records = [(png(1), "<b>&x"), (png(2), "two"), (png(1), "again"), (b"", "<lost>")]
    path = write_list(tmp_path / "in", records)
    verify([path, tmp_path / "no<ne>"], against=[path], output=tmp_path / "out")
    page = (tmp_path / "out" / "verify.html").read_text(encoding="utf-8")
    assert "<b>&lt;b&gt;&amp;x</b>" in page and "no&lt;ne&gt;" in page
    assert "<b>&x" not in page and "<ne>" not in page
    assert page.count("Contact sheet") == 1
    assert "Repeated within" in page and "Also in in" in page
    assert "image of zero bytes" in page
    sources = re.findall(r'src="([^"]*)', page)
    assert sources and all(s.startswith("data:image/jpeg;base64,") for s in sources)
    assert "://" not in page  # nothing is fetched


def test_a_card_says_path_and_size_on_lines_of_their_own(tmp_path):
    path = write_list(tmp_path / "in", [(png(1, height=20, width=60), "one")])
    verify([path], output=tmp_path / "out")
    page = (tmp_path / "out" / "verify.html").read_text(encoding="utf-8")
    assert "<b>one</b><small>0000.img</small><small>60 x 20</small>" in page
    assert "figcaption small { display: block; }" in page


def test_labels_are_compared_without_case_and_marks():
    assert compared_label("Don't!") == compared_label("DONT") == "dont"
    assert compared_label("!?") == "!?" != compared_label("...")


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_hashes_of_a_picture_agree_and_of_others_do_not(one, other):
    image = written(one)
    dimmer = (image * 0.7 + 20).astype(np.uint8)
    assert differing_bits(picture_hash(image), picture_hash(dimmer)) <= NEAR_BITS
    if one != other:
        different = picture_hash(written(other))
        assert differing_bits(picture_hash(image), different) > NEAR_BITS


@given(st.data())
def test_similar_pictures_are_those_that_comparing_all_pairs_finds(data):
    small = st.integers(0, 3).map(np.uint64)
    hashes = arrays.arrays(np.uint64, (6, 2), elements=small)
    labels = arrays.arrays(np.uint64, (6,), elements=small)
    a, b = data.draw(hashes), data.draw(hashes)
    la, lb = data.draw(labels), data.draw(labels)
    similar, twin = find_similar(a, la, b, lb, near_bits=1)
    bits = differing_bits(a[:, None], b[None])
    allowed = (bits <= 1) & (la[:, None] == lb[None])
    np.testing.assert_array_equal(similar, allowed.any(axis=1))
    for row in np.flatnonzero(similar):
        assert allowed[row, twin[row]]
        assert bits[row, twin[row]] == bits[row, allowed[row]].min()


@given(st.lists(st.integers(0, 5)))
def test_repeats_name_the_first_equal_row(values):
    keys = np.array(values, np.uint64)
    expected = [values.index(value) for value in values]
    assert repeats(keys).tolist() == expected
    assert repeats(mixed(keys, keys)).tolist() == expected
    zeros = np.zeros_like(keys)
    assert repeats(mixed(zeros, keys)).tolist() == expected
