"""Rendered words by name: parsing, and the same words drawn on the fly or stored."""

import pytest
from synthetic_fonts import fonts_or_skip
from training import write_words

from robustscanner_jax.data.pipeline import evaluation_batches
from robustscanner_jax.data.rendered import RenderedSpec, open_named
from robustscanner_jax.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rendered:easy", RenderedSpec("easy", 0, 1_000_000, "train")),
        (
            "rendered:full?seed=3&count=20&split=heldout",
            RenderedSpec("full", 3, 20, "heldout"),
        ),
        ("rendered:full?count=7", RenderedSpec("full", count=7)),
    ],
)
def test_what_is_not_said_has_a_default(text, expected):
    assert RenderedSpec.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rendered:", "unknown preset"),
        ("rendered:?seed=1", "unknown preset"),
        ("rendered:easy?sead=1", r"unknown \['sead'\]"),
        ("rendered:easy?seed=one", "whole numbers"),
        ("rendered:easy?count=1.5", "whole numbers"),
        ("rendered:easy?seed=", "whole numbers"),
        ("rendered:easy?count=0", "1 <= count"),
        (f"rendered:easy?count={2**63}", "1 <= count <= "),
        ("rendered:easy?seed=-1", "seed >= 0"),
        ("rendered:easy?split=test", "expected a split of"),
    ],
)
def test_a_mistake_is_refused_with_the_text_that_has_it(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        RenderedSpec.parse(text)
    assert str(caught.value).startswith(f"{text}: ")


def test_different_words_have_different_names():
    texts = [
        "rendered:easy",
        "rendered:easy?seed=1",
        "rendered:easy?count=5",
        "rendered:easy?split=any",
        "rendered:full",
    ]
    assert len({RenderedSpec.parse(text).name for text in texts}) == len(texts)


def test_any_other_name_is_a_path(tmp_path):
    labels = write_words(tmp_path, ["ab", "cd"])
    assert [open_named(str(labels))[i]["text"] for i in (0, 1)] == ["ab", "cd"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_named(str(tmp_path / "nowhere"))


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match=r"preset: expected one of .*, got 'hard'"):
        open_named("rendered:hard?count=3")


def test_words_are_the_same_drawn_on_the_fly_and_stored(tmp_path):
    fonts_or_skip()
    name = "rendered:easy?seed=3&count=6&split=train"
    live, stored = open_named(name), open_named(name, store=tmp_path)
    assert (tmp_path / "easy-train-3-6").is_dir()
    assert len(live) == len(stored) == 6
    texts = [live[i]["text"] for i in range(6)]
    assert [stored[i]["text"] for i in range(6)] == texts
    rule = Preprocessing(height=16, min_width=16, max_width=32)
    drawn, kept = (
        next(iter(evaluation_batches(source, rule=rule, batch_size=6)))[0]
        for source in (live, stored)
    )
    assert drawn["weight"].all() and kept["weight"].all()
    assert (drawn["width"] == kept["width"]).all()
    # Stored images are files, perhaps compressed; the words on them are the same.
    difference = drawn["image"].astype(float) - kept["image"]
    assert abs(difference).mean() < 4


def test_stored_words_are_not_drawn_again(tmp_path):
    fonts_or_skip()
    name = "rendered:easy?seed=3&count=2"
    open_named(name, store=tmp_path)
    shards = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.array_record")}
    assert shards
    open_named(name, store=tmp_path)
    assert {p: p.stat().st_mtime_ns for p in shards} == shards
