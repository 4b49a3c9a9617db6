"""An element of a source becomes a row of a batch, whatever is wrong with it."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import CHARSET, MAX_LEN
from hypothesis import given
from hypothesis import strategies as st
from training import RULE, draw_word, encode

from robustscanner_jax.charset import Charset
from robustscanner_jax.data import transforms
from robustscanner_jax.data.augment import DISTORTION_NAMES, augment
from robustscanner_jax.data.transforms import (
    MAX_REPORTED,
    Prepare,
    Problem,
    pixels_of,
)
from robustscanner_jax.preprocessing import resize_and_pad

PREPARE = Prepare(CHARSET, RULE, MAX_LEN)
IMAGE = encode(draw_word("face"))


@pytest.fixture(autouse=True)
def nothing_reported_yet():
    transforms._reported.cache_clear()


def element(**changes):
    return {"id": "set/1", "image": IMAGE, "text": "face"} | changes


def prepared(prepare=PREPARE, seed=0, **changes):
    return prepare(element(**changes), np.random.default_rng(seed))


BAD = {
    "damaged record": ({"error": "shard 3: truncated"}, Problem.UNREADABLE),
    "zero bytes": ({"image": b""}, Problem.UNREADABLE),
    "half an image": ({"image": IMAGE[: len(IMAGE) // 2]}, Problem.UNREADABLE),
    "no pixels": ({"image": np.zeros((0, 4, 3), np.uint8)}, Problem.UNREADABLE),
    "grey pixels": ({"image": np.zeros((9, 9), np.uint8)}, Problem.UNREADABLE),
    "float pixels": ({"image": np.zeros((9, 9, 3))}, Problem.UNREADABLE),
    "empty label": ({"text": ""}, Problem.EMPTY_LABEL),
    "label too long": ({"text": "a" * MAX_LEN}, Problem.TOO_LONG),
    "label of a page": ({"text": "a" * 300}, Problem.TOO_LONG),
    "unknown character": ({"text": "façe"}, Problem.OUTSIDE_CHARSET),
    "NUL in the label": ({"text": "a\0"}, Problem.OUTSIDE_CHARSET),
    "lone surrogate": ({"text": "a\udcff"}, Problem.OUTSIDE_CHARSET),
}


def test_a_good_element_becomes_pixels_tokens_and_weight_one():
    (row,) = prepared()
    pixels, width = resize_and_pad(draw_word("face"), RULE)
    np.testing.assert_array_equal(row["image"], pixels)
    assert row["width"] == width and row["weight"] == 1
    assert row["problem"] == Problem.NONE and row["id"] == "set/1"
    assert row["tokens"].tolist() == CHARSET.to_tokens("face", MAX_LEN)


def test_the_longest_label_that_fits_is_kept_whole():
    (row,) = prepared(text="abcde")
    assert row["weight"] == 1
    assert CHARSET.to_text(row["tokens"][1:].tolist()) == "abcde"


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_bad_data_becomes_filler(case, strength):
    changes, problem = BAD[case]
    prepare = Prepare(CHARSET, RULE, MAX_LEN, strength)
    (row,) = prepared(prepare, **changes)
    assert Problem(int(row["problem"])) is problem
    assert row["weight"] == 0
    assert (row["tokens"] == CHARSET.pad_id).all() and row["tokens"].size == MAX_LEN + 1
    assert not row["image"].any() and row["width"] == RULE.min_width


@pytest.mark.parametrize("case", BAD)
def test_filler_has_the_shapes_and_types_of_a_good_row(case):
    (good,), (filler,) = prepared(), prepared(**BAD[case][0])
    assert filler.keys() == good.keys()
    for name in good.keys() - {"id"}:
        assert filler[name].shape == good[name].shape
        assert filler[name].dtype == good[name].dtype


def test_a_strip_that_opencv_cannot_process_is_left_out():
    prepare = Prepare(CHARSET, RULE, MAX_LEN, 1.0)
    strip = np.full((8, 70_000, 3), 128, np.uint8)
    problems = {int(prepared(prepare, s, image=strip)[0]["problem"]) for s in range(12)}
    assert problems <= {Problem.NONE, Problem.UNREADABLE}
    assert Problem.UNREADABLE in problems  # JPEG has no such width


def test_what_is_left_out_is_named_with_its_reason_at_most_max_reported_times(caplog):
    with caplog.at_level(logging.WARNING, transforms.__name__):
        for i in range(3 * MAX_REPORTED):
            prepared(id=f"long/{i}", text="a" * 30)
        prepared(id="empty/0", text="")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == MAX_REPORTED + 1
    assert lines[0] == (
        "record long/0 left out: the label has 30 characters, "
        f"at most {MAX_LEN - 1} fit"
    )
    assert lines[MAX_REPORTED - 1].endswith("further ones are only counted")
    assert lines[-1] == "record empty/0 left out: the label is empty"


def test_a_record_that_comes_again_is_named_once(caplog):
    with caplog.at_level(logging.WARNING, transforms.__name__):
        for _ in range(MAX_REPORTED):
            prepared(id="empty/0", text="")
        prepared(id="empty/1", text="")
    names = [record.getMessage().split()[1] for record in caplog.records]
    assert names == ["empty/0", "empty/1"]


def test_a_label_of_spaces_alone_is_empty_though_the_charset_has_one():
    spaced = Prepare(Charset.of(" ab"), RULE, MAX_LEN)
    for text in (" ", "  "):
        (row,) = prepared(spaced, text=text)
        assert row["problem"] == Problem.EMPTY_LABEL and row["weight"] == 0
    (row,) = prepared(spaced, text=" a b")
    assert row["problem"] == Problem.NONE


def test_what_the_augmentation_is_to_leave_out_never_happens():
    prepare = Prepare(CHARSET, RULE, MAX_LEN, 1.0, augment_without=DISTORTION_NAMES)
    (plain,) = prepared()
    for seed in range(20):
        (row,) = prepared(prepare, seed)
        np.testing.assert_array_equal(row["image"], plain["image"])


@given(st.integers(0, 1000), st.floats(0.1, 1.0))
def test_a_row_is_distorted_as_strongly_as_was_asked_for(seed, strength):
    (row,) = prepared(Prepare(CHARSET, RULE, MAX_LEN, strength), seed)
    pixels = augment(np.random.default_rng(seed), draw_word("face"), strength)
    np.testing.assert_array_equal(row["image"], resize_and_pad(pixels, RULE)[0])


def test_the_log_names_the_characters_that_are_unknown(caplog):
    with caplog.at_level(logging.WARNING, transforms.__name__):
        prepared(text="aß€a")
    assert "'aß€a' has unknown 'ß€'" in caplog.text


def test_variants_share_the_label_and_differ_in_the_distortion():
    prepare = Prepare(CHARSET, RULE, MAX_LEN, 1.0, variants=4)
    rows = prepared(prepare)
    assert len(rows) == 4
    assert len({row["image"].tobytes() for row in rows}) > 1
    assert len({row["tokens"].tobytes() for row in rows}) == 1
    assert {row["id"] for row in rows} == {"set/1"}
    assert [row["weight"] for row in prepared(prepare, text="")] == [0] * 4


@given(st.text(max_size=8), st.integers(0, 100))
def test_every_label_is_either_read_back_whole_or_counted_as_a_problem(text, seed):
    (row,) = prepared(Prepare(CHARSET, RULE, MAX_LEN, 1.0), seed, text=text)
    good = 0 < len(text) < MAX_LEN and set(text) <= set(CHARSET.characters)
    assert (row["problem"] == Problem.NONE) == good == bool(row["weight"])
    if good:
        assert CHARSET.to_text(row["tokens"][1:].tolist()) == text


def test_pixels_need_no_decoding():
    pixels = draw_word("a")
    assert pixels_of({"image": pixels}) is pixels
    np.testing.assert_array_equal(pixels_of({"image": encode(pixels)}), pixels)


def test_an_example_is_named_before_another_thread_goes_on_that_leaves_it_out(caplog):
    begun, end = threading.Event(), threading.Event()

    class Slow(logging.Handler):
        def emit(self, record):
            begun.set()
            assert end.wait(10)

    handler = Slow()
    transforms.logger.addHandler(handler)
    try:
        with ThreadPoolExecutor(2) as pool:
            naming = pool.submit(prepared, image=b"junk")
            assert begun.wait(10)
            other = pool.submit(prepared, image=b"junk")
            with pytest.raises(TimeoutError):
                other.result(timeout=0.1)
            end.set()
            assert len(naming.result(10)) == len(other.result(10)) == 1
    finally:
        end.set()
        transforms.logger.removeHandler(handler)
    assert caplog.text.count("record set/1 left out") == 1
