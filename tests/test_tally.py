"""What is kept of the words of a benchmark, however many there are and come when."""

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.reading import Reading
from robustscanner_jax.tally import NUM_MISTAKES, NUM_SAMPLES, Tally
from robustscanner_jax.views import View
from robustscanner_jax.word_stream import ReadWord

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def word(number, **changes) -> ReadWord:
    whole = ReadWord(
        number=number,
        id=f"set/{number}",
        label="ab",
        reading=Reading("ab", 0.5, (0.7, 0.7)),
        error=None,
        size=(8, 12),
        view=View((PIXELS, 4)),
        turned=False,
        looked_closer=False,
    )
    return dataclasses.replace(whole, **changes)


def tally_of(words, channel_order="BGR") -> Tally:
    tally = Tally("set", len(words), "36", channel_order)
    for one in words:
        tally.add(one)
    return tally


def misread(number, confidence=0.5):
    return word(number, reading=Reading("abc", confidence, (0.9,) * 3))


@given(st.integers(1, 300), st.randoms(use_true_random=False))
def test_words_are_kept_in_order_and_samples_from_all_over(count, random):
    words = [word(number, label=str(number)) for number in range(count)]
    random.shuffle(words)
    tally = tally_of(words)
    names = [prediction.id for prediction in tally.predictions]
    assert names == [f"set/{number}" for number in range(count)]
    shown = [int(sample.label) for sample in tally.samples]
    assert len(shown) == min(count, NUM_SAMPLES)
    assert shown == sorted(shown)
    if count > NUM_SAMPLES:
        assert len(set(np.diff([-1, *shown]))) == 1
    else:
        assert shown == list(range(count))


@given(
    st.lists(st.sampled_from([0.2, 0.5, 0.9]), min_size=1, max_size=80),
    st.randoms(use_true_random=False),
)
def test_the_surest_mistakes_are_kept_and_of_equal_ones_the_earlier(given, random):
    words = [misread(number, sure) for number, sure in enumerate(given)]
    expected = sorted(words, key=lambda one: (-one.reading.confidence, one.number))
    random.shuffle(words)
    found = [mistake.number for mistake in tally_of(words).mistakes]
    assert found == [one.number for one in expected[:NUM_MISTAKES]]


def test_what_is_right_damaged_or_skipped_is_no_mistake():
    damaged = dataclasses.replace(misread(1), error="torn")
    skipped = dataclasses.replace(misread(2), label="!?")
    tally = tally_of([word(0), damaged, skipped, misread(3)])
    assert [mistake.number for mistake in tally.mistakes] == [3]
    assert tally.unreadable == 1


def test_turned_words_are_counted_and_those_of_them_that_won():
    turned = View((PIXELS, 4), angle=270)
    words = [word(0), word(1, turned=True), word(2, turned=True, view=turned)]
    tally = tally_of(words)
    assert (tally.turned, tally.turned_won) == (2, 1)
    assert (tally.closer, tally.closer_won) == (0, 0)


def test_words_looked_at_closer_are_counted_and_those_of_them_that_won():
    closer = View((PIXELS, 4), closer=True)
    words = [word(i, looked_closer=True) for i in range(2)]
    words += [word(2), word(3, looked_closer=True, view=closer)]
    tally = tally_of(words)
    assert (tally.closer, tally.closer_won) == (3, 1)
    assert (tally.turned, tally.turned_won) == (0, 0)


def test_samples_show_the_content_in_rgb_whatever_the_network_sees():
    for order, pixels in (("BGR", PIXELS[..., ::-1]), ("RGB", PIXELS)):
        (sample,) = tally_of([word(0)], order).samples
        np.testing.assert_array_equal(sample.image, pixels[:, :4])
        assert sample.right
