"""Batches: order, sharding, resuming, mixture, and data that is damaged."""

import itertools
from collections import Counter

import numpy as np
import pytest
from helpers import CHARSET, MAX_LEN
from hypothesis import given, settings
from hypothesis import strategies as st
from training import RULE, ListSource, draw_word, encode, word_source

from robustscanner_jax.data import transforms
from robustscanner_jax.data.images import decode_image
from robustscanner_jax.data.pipeline import (
    DEVICE_KEYS,
    Share,
    evaluation_batches,
    fake_batch,
    training_batches,
)
from robustscanner_jax.data.transforms import Prepare, Problem
from robustscanner_jax.views import View

FEW = 16  # examples in the source of most tests


def many(count=FEW, name="words"):
    """Returns a source of `count` drawn words, no two alike."""
    letters = itertools.product("abcdefgh", repeat=2)
    return word_source(
        ["".join(pair) for pair in itertools.islice(letters, count)], name
    )


def batches(count, sources=None, *, augment=1.0, variants=1, **changes):
    arguments = dict(
        weights=[1.0] * len(sources or [0]),
        prepare=Prepare(CHARSET, RULE, MAX_LEN, augment, variants),
        batch_size=4,
        seed=5,
        num_workers=0,
    )
    dataset = training_batches(sources or [many()], **(arguments | changes))
    return list(itertools.islice(iter(dataset), count))


def ids(found):
    return [name for batch in found for name in batch["id"].tolist()]


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_a_batch_has_the_shapes_and_types_of_the_fake_one():
    (batch,) = batches(1)
    fake = fake_batch(4, charset=CHARSET, rule=RULE, max_len=MAX_LEN)
    assert batch.keys() == fake.keys() and set(DEVICE_KEYS) < batch.keys()
    for key in batch.keys() - {"id"}:
        assert batch[key].shape == fake[key].shape, key
        assert batch[key].dtype == fake[key].dtype, key


def test_every_example_comes_once_an_epoch_and_each_epoch_has_its_own_order():
    found = ids(batches(3 * FEW // 4))
    epochs = [found[i : i + FEW] for i in range(0, 3 * FEW, FEW)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(f"words/{i}" for i in range(FEW))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_an_epoch_that_no_batch_ends_still_has_every_example_once():
    found = ids(batches(7, [many(7)]))  # 28 examples
    for start in range(0, 28, 7):
        assert len(set(found[start : start + 7])) == 7


def test_a_seed_repeats_itself_and_another_seed_differs():
    assert_same(batches(4), batches(4))
    assert ids(batches(4)) != ids(batches(4, seed=6))


@settings(max_examples=8)
@given(st.integers(0, 20))
def test_a_start_leaves_out_exactly_so_many_batches(start):
    assert_same(batches(start + 3)[start:], batches(3, start=start))


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_workers_change_neither_order_nor_pixels(num_workers):
    assert_same(batches(9, start=2), batches(9, start=2, num_workers=num_workers))


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_each_global_batch_whatever_their_number(process_count):
    whole = batches(6, batch_size=8)
    parts = [
        batches(6, batch_size=8, share=Share(i, process_count))
        for i in range(process_count)
    ]
    for batch, *shares in zip(whole, *parts, strict=True):
        for key in batch:
            # Process i has rows i, i + n, i + 2n of the batch, distorted alike.
            for index, share in enumerate(shares):
                np.testing.assert_array_equal(
                    share[key], batch[key][index::process_count], err_msg=key
                )


def test_a_mixture_draws_from_its_sources_by_weight():
    sources = [many(5, "rare"), many(16, "often")]
    found = ids(batches(50, sources, weights=[1, 3]))
    count = Counter(name.split("/")[0] for name in found)
    assert count["rare"] == pytest.approx(50, abs=2)
    assert count["often"] == pytest.approx(150, abs=2)
    rare = [name for name in found if name.startswith("rare")]
    for start in range(0, 45, 5):  # the epochs of the small source
        assert len(set(rare[start : start + 5])) == 5


@pytest.mark.parametrize("weights", [(1, 1), (3, 1)])
@pytest.mark.parametrize("parts", [2, 4])
def test_every_process_and_micro_batch_has_its_share_of_each_source(weights, parts):
    """Grain alone deals one source to each of two processes."""
    sources = [many(40, "one"), many(40, "other")]
    changes = dict(weights=weights, batch_size=64, variants=2, augment=0.0)
    share = weights[0] / sum(weights)
    rows = Counter()
    for batch in batches(8, sources, **changes):
        for row, name in enumerate(batch["id"].tolist()):
            rows["part", row % parts, name.split("/")[0]] += 1
    for index in range(parts):
        share_of_one = Share(index, parts)
        for name in ids(batches(8, sources, **changes, share=share_of_one)):
            rows["process", index, name.split("/")[0]] += 1
    for kind, index, _ in list(rows):
        one, other = (rows[kind, index, name] for name in ("one", "other"))
        assert one / (one + other) == pytest.approx(share, abs=0.15)


@pytest.mark.parametrize("variants", [1, 2])
def test_a_mixture_has_the_same_examples_in_a_batch_as_grain_gives_it(variants):
    """Checkpoints of runs from before the shuffle go on where they were."""
    sources = [many(16, "one"), many(16, "other")]
    found = batches(12, sources, batch_size=8, variants=variants)
    for batch in found:
        count = Counter(name.split("/")[0] for name in batch["id"].tolist())
        assert count == {"one": 4, "other": 4}


def test_another_seed_distorts_an_example_otherwise():
    (one,), (other,) = (batches(1, [many(1)], seed=seed) for seed in (1, 2))
    assert ids([one]) == ids([other])
    assert (one["image"] != other["image"]).any()


def test_another_seed_mixes_the_sources_of_a_batch_in_another_order():
    sources = [many(1, "one"), many(1, "other")]
    (one,), (other,) = (
        batches(1, sources, batch_size=16, seed=seed) for seed in (1, 2)
    )
    assert sorted(ids([one])) == sorted(ids([other]))
    assert ids([one]) != ids([other])


def test_sources_of_equal_length_have_their_own_orders():
    sources = [many(16, "one"), many(16, "other")]
    found = batches(8, sources, batch_size=2)  # one of each
    places = [{name.split("/")[1] for name in ids([batch])} for batch in found]
    assert any(len(both) == 2 for both in places)


def test_only_the_ratio_of_the_weights_counts():
    sources = [many(5, "rare"), many(16, "often")]
    assert_same(
        batches(5, sources, weights=[0.25, 0.75]), batches(5, sources, weights=[2, 6])
    )


def test_variants_fill_a_batch_with_rows_of_the_same_examples():
    found = batches(8, variants=2)
    for batch in found:
        names = batch["id"].tolist()
        assert names[0::2] == names[1::2] and len(set(names)) == 2
    assert any((b["image"][0] != b["image"][1]).any() for b in found)
    assert len(set(ids(found))) == FEW  # 32 rows: each example twice


def test_damaged_examples_become_filler_and_are_named_once(caplog):
    transforms._reported.cache_clear()
    good = {"id": "good", "image": encode(draw_word("bad")), "text": "bad"}
    source = ListSource(
        [
            good,
            ValueError("record 1 is damaged"),
            good | {"id": "cut", "image": good["image"][:50]},
            good | {"id": "empty", "text": ""},
            good | {"id": "long", "text": "a" * 99},
            good | {"id": "unknown", "text": "Ω"},
            {"id": "error", "error": "shard lost"},
            good | {"id": "good2"},
        ],
        "mixed",
    )
    (batch,) = batches(1, [source], batch_size=8)
    expected = {
        "good": Problem.NONE,
        "good2": Problem.NONE,
        "mixed[1]": Problem.UNREADABLE,
        "cut": Problem.UNREADABLE,
        "error": Problem.UNREADABLE,
        "empty": Problem.EMPTY_LABEL,
        "long": Problem.TOO_LONG,
        "unknown": Problem.OUTSIDE_CHARSET,
    }
    problems = dict(zip(batch["id"].tolist(), batch["problem"].tolist(), strict=True))
    assert problems == expected
    bad = batch["problem"] != Problem.NONE
    np.testing.assert_array_equal(batch["weight"], ~bad)
    assert (batch["tokens"][bad] == CHARSET.pad_id).all()
    # Pixels of good rows: batch norm takes every row for data.
    pixels = [image.tobytes() for image in batch["image"]]
    assert set(pixels) == {pixels[i] for i in np.flatnonzero(~bad)}
    widths = dict(zip(pixels, batch["width"].tolist(), strict=True))
    assert [widths[p] for p in pixels] == batch["width"].tolist()
    for name in expected.keys() - {"good", "good2"}:
        assert f"record {name} left out" in caplog.text
    batches(20, [source], batch_size=8)
    named = Counter(record.getMessage().split()[1] for record in caplog.records)
    assert set(named.values()) == {1}


def test_every_good_example_fills_in_for_damaged_ones():
    """Batch norm would take one that did so alone for most of the data."""
    words = [{"id": w, "image": encode(draw_word(w)), "text": w} for w in ("a", "bad")]
    damaged = [ValueError("torn")] * 6
    (batch,) = batches(1, [ListSource(words + damaged)], batch_size=8, augment=0.0)
    times = Counter(image.tobytes() for image in batch["image"])
    assert len(times) == 2 and min(times.values()) >= 3


@pytest.mark.parametrize(
    ("sources", "changes", "message"),
    [
        ([], {"weights": []}, "at least one source"),
        ([many()], {"weights": [1, 1]}, "got 1 sources and weights \\[1, 1\\]"),
        ([many()], {"weights": [0]}, "a positive weight"),
        ([many(), many()], {"weights": [1, -1]}, "a positive weight"),
        ([ListSource([], "nothing")], {}, "source nothing: expected examples"),
        ([many()], {"share": Share(0, 3)}, "batch_size 4 .* 3 processes"),
        ([many()], {"variants": 3}, "with 3 variants"),
        (
            [many()],
            {"variants": 2, "share": Share(0, 4)},
            "4 processes with 2 variants",
        ),
    ],
)
def test_what_cannot_be_mixed_or_split_is_refused(sources, changes, message):
    arguments = {"weights": [1.0] * len(sources), **changes}
    variants = arguments.pop("variants", 1)
    prepare = Prepare(CHARSET, RULE, MAX_LEN, variants=variants)
    with pytest.raises(ValueError, match=message):
        training_batches(
            sources, prepare=prepare, batch_size=4, seed=0, num_workers=0, **arguments
        )


@pytest.mark.parametrize("count", [1, 4, 7, 8])
def test_evaluation_keeps_the_order_and_fills_up_the_last_batch(count):
    source = many(count)
    found = list(evaluation_batches(source, rule=RULE, batch_size=4))
    names = [record.id for _, records in found for record in records]
    assert names == [f"words/{i}" for i in range(count)]
    assert all(batch["image"].shape[0] == 4 for batch, _ in found)
    weights = np.concatenate([batch["weight"] for batch, _ in found])
    assert weights.tolist() == [1.0] * count + [0.0] * (-count % 4)
    for batch, records in found:
        for record in records:
            element = source[int(record.id.split("/")[1])]
            assert record.text == element["text"]
            assert record.size == decode_image(element["image"]).shape[:2]
        assert batch["width"].dtype == np.int32


def test_an_unreadable_image_keeps_its_place_in_the_evaluation():
    good = {"image": encode(draw_word("bad")), "text": "bad"}
    source = ListSource(
        [
            good | {"id": "0"},
            good | {"id": "1", "image": b""},
            ValueError("torn"),
            good | {"id": "3", "image": b"text"},
            good | {"id": "4"},
        ]
    )
    ((batch, records),) = evaluation_batches(source, rule=RULE, batch_size=8)
    assert [r.id for r in records] == ["0", "1", "list[2]", "3", "4"]
    assert [bool(r.error) for r in records] == [False, True, True, True, False]
    assert [r.text for r in records] == ["bad", "bad", "", "bad", "bad"]
    assert [r.size is None for r in records] == [False, True, True, True, False]
    assert batch["weight"].tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    black = ~batch["image"][:5].any(axis=(1, 2, 3))
    assert black.tolist() == [False, True, True, True, False]


def test_what_is_kept_beside_a_row_is_made_of_readable_pixels_alone():
    seen = []

    def more_views(pixels):
        if not seen:
            seen.append(pixels)
            raise ValueError("too odd")
        return [View((pixels, 7))]

    image = draw_word("bad")
    elements = [{"id": str(i), "image": encode(image), "text": "bad"} for i in range(3)]
    elements[1]["image"] = b""
    ((_, records),) = evaluation_batches(
        ListSource(elements), rule=RULE, batch_size=4, more_views=more_views
    )
    assert records[0].error == "too odd" and records[1].error
    assert not records[0].more_views and not records[1].more_views
    (((pixels, width), *_),) = records[2].more_views
    assert width == 7
    np.testing.assert_array_equal(pixels, image)


def test_fake_batches_have_zeros_right_of_the_content_and_depend_on_the_seed():
    make = dict(charset=CHARSET, rule=RULE, max_len=MAX_LEN)
    batch = fake_batch(32, **make)
    for image, width in zip(batch["image"], batch["width"], strict=True):
        assert image[:, :width].any() and not image[:, width:].any()
    assert len(set(batch["width"].tolist())) > 1
    assert_same([batch], [fake_batch(32, **make)])
    assert (fake_batch(32, seed=1, **make)["tokens"] != batch["tokens"]).any()
