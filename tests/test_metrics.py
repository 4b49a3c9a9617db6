"""Normalisation, word accuracy, 1-NED, intervals and calibration."""

import math
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.charset import DICT90
from robustscanner_jax.metrics import (
    PROTOCOLS,
    SetScore,
    expected_calibration_error,
    mean_over_sets,
    mean_over_words,
    normalise,
    normalise_label,
    one_ned,
    protocol_of,
    score_set,
    wilson_interval,
    word_correct,
)

protocols = st.sampled_from(sorted(PROTOCOLS))
# Letters and symbols that the rules tell apart, and anything else.
letters = st.sampled_from("aAzZ09^ -_.'éＡ中\u0301İK\u212a\u3000\t")
texts = st.text(st.one_of(letters, st.characters(exclude_categories=["Cs"])))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's", {"36": "its", "62": "Its", "94": "It's", "mmocr": "its"}),
        ("a b\tc", {"36": "abc", "62": "abc", "94": "abc", "mmocr": "abc"}),
        ("10^3", {"36": "103", "62": "103", "94": "10^3", "mmocr": "10^3"}),
        ("x_y", {"36": "xy", "62": "xy", "94": "x_y", "mmocr": "xy"}),
        ("中A1", {"36": "a1", "62": "A1", "94": "A1", "mmocr": "中a1"}),
        ("\uff211", {"36": "1", "62": "1", "94": "1", "mmocr": "1"}),  # full-width A
        ("café", {"36": "caf", "62": "caf", "94": "caf", "mmocr": "caf"}),
        ("cafe\u0301", {"36": "cafe", "62": "cafe", "94": "cafe", "mmocr": "cafe"}),
        # Lower case first, as in both toolkits: the Kelvin sign becomes a k.
        ("\u212a", {"36": "k", "62": "", "94": "", "mmocr": "k"}),
        ("İ", {"36": "i", "62": "", "94": "", "mmocr": "i"}),
        ("!?", {"36": "", "62": "", "94": "!?", "mmocr": ""}),
        ("~ ", {"36": "", "62": "", "94": "~", "mmocr": ""}),
        ("", {"36": "", "62": "", "94": "", "mmocr": ""}),
    ],
)
def test_each_protocol_keeps_what_it_says(text, expected):
    assert {name: normalise(text, name) for name in expected} == expected
    assert normalise(text, "exact") == text


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Ｃａｆé 7", "cafe7"),
        ("cafe\u0301", "cafe"),
        ("ﬁne", "fine"),  # one ligature
        ("a\u3000b\u00a0c", "abc"),
        ("中文", None),
        ("...", None),
        ("", None),
        ("x" * 25, "x" * 25),
        ("x" * 26, None),
        ("-" * 13 + "x" * 13, None),  # too long before symbols are removed
        ("x " * 20, "x" * 20),  # spaces do not count
        ("é" * 25, "e" * 25),
    ],
)
def test_strhub_labels_are_folded_to_ascii_and_measured_before_filtering(
    label, expected
):
    assert normalise_label(label, "strhub") == expected


def test_strhub_folds_labels_only():
    assert normalise("café", "strhub") == "caf"
    assert not word_correct("café", "café", "strhub")
    assert word_correct("Cafe!", "café", "strhub")


def test_a_label_of_which_nothing_is_left_is_skipped_or_scored_by_protocol():
    skipped = {name for name in PROTOCOLS if normalise_label("", name) is None}
    assert skipped == {"36", "62", "94", "strhub"}
    assert word_correct("?", "!", "mmocr")
    assert not word_correct("", "!", "36")
    assert word_correct("", "", "exact")


def mmocr_word_metric(prediction, label):
    """MMOCR's WordMetric in mode ignore_case_symbol, retold."""
    symbols = re.compile("[^A-Z^a-z^0-9^\u4e00-\u9fa5]")
    return symbols.sub("", prediction.lower()) == symbols.sub("", label.lower())


def strhub_label(label):
    """strhub's preparation of a test label for the 36 characters, retold."""
    label = "".join(label.split())
    label = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()
    if len(label) > 25:
        return None
    return re.sub("[^0123456789abcdefghijklmnopqrstuvwxyz]", "", label.lower()) or None


@given(texts, texts)
def test_mmocr_agrees_with_word_metric(prediction, label):
    expected = mmocr_word_metric(prediction, label)
    assert word_correct(prediction, label, "mmocr") == expected


@given(texts)
def test_strhub_labels_agree_with_strhub(label):
    assert normalise_label(label, "strhub") == strhub_label(label)


@given(texts, protocols)
def test_normalising_twice_changes_nothing_more(text, protocol):
    once = normalise(text, protocol)
    assert normalise(once, protocol) == once


@given(texts, protocols)
def test_a_word_read_as_its_normalised_label_is_right_unless_skipped(text, protocol):
    label = normalise_label(text, protocol)
    assert word_correct(label or "", text, protocol) == (label is not None)


@given(texts)
def test_the_protocols_are_ordered_by_strictness(text):
    assert normalise(normalise(text, "94"), "62") == normalise(text, "62")
    assert normalise(text, "62") == "".join(
        c for c in text if c.isascii() and c.isalnum()
    )


@pytest.mark.parametrize(
    ("characters", "protocol"),
    [
        (DICT90, "36"),
        ("0123", "36"),
        ("abcд7", "exact"),  # what 36 leaves of кот7 and дом7 is equal
        ("!?,.", "exact"),
    ],
)
def test_letters_of_other_scripts_are_not_taken_away(characters, protocol):
    assert protocol_of(characters) == protocol


def test_an_unknown_protocol_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"one of \['36', '62', '94', 'exact'.*'37'"):
        normalise("a", "37")


@pytest.mark.parametrize(
    ("prediction", "label", "expected"),
    [
        ("", "", 1.0),
        ("", "abc", 0.0),
        ("abc", "abc", 1.0),
        ("abd", "abc", 2 / 3),
        ("ab", "abcd", 0.5),
        ("kitten", "sitting", 1 - 3 / 7),
        ("ba", "ab", 0.0),
    ],
)
def test_one_ned_divides_by_the_longer_text(prediction, label, expected):
    assert one_ned(prediction, label) == pytest.approx(expected)


@given(texts, texts)
def test_one_ned_is_symmetric_within_bounds_and_one_only_for_equal_texts(a, b):
    value = one_ned(a, b)
    assert 0 <= value <= 1
    assert value == one_ned(b, a)
    assert (value == 1) == (a == b)


def test_wilson_intervals_match_hand_calculation():
    # 95 % Wilson for 8 of 10 and 0 of 10, as in any table of it.
    assert wilson_interval(8, 10) == pytest.approx((0.49016, 0.94331), abs=1e-5)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    for correct, words in [(0, 0), (3, 2), (-1, 5)]:
        with pytest.raises(ValueError, match="need 0 <= correct <= words"):
            wilson_interval(correct, words)


@given(st.integers(1, 10_000), st.data())
def test_wilson_intervals_hold_the_share_and_mirror(words, data):
    correct = data.draw(st.integers(0, words))
    low, high = wilson_interval(correct, words)
    assert 0 <= low <= correct / words <= high <= 1
    mirrored = wilson_interval(words - correct, words)
    assert (1 - high, 1 - low) == pytest.approx(mirrored)


def test_calibration_error_is_the_weighted_gap_of_fifteen_bins():
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0
    assert expected_calibration_error([1.0, 0.0], [False, True]) == 1
    # One bin: the last one holds its upper end.
    assert expected_calibration_error([0.95, 1.0], [True, False]) == pytest.approx(
        0.475
    )
    # Two bins: gap 0.1 with 10 words, gap 0.4 with 5 words.
    confidences = [0.9] * 10 + [0.6] * 5
    correct = [True] * 8 + [False] * 2 + [True] * 1 + [False] * 4
    expected = (10 * 0.1 + 5 * 0.4) / 15
    assert expected_calibration_error(confidences, correct) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_calibration_error_agrees_with_a_loop_over_bins(pairs):
    total = 0.0
    for k in range(15):
        inside = [p for p in pairs if min(int(p[0] * 15), 14) == k]
        total += abs(sum(hit - confidence for confidence, hit in inside))
    value = expected_calibration_error(*zip(*pairs, strict=True))
    assert value == pytest.approx(total / len(pairs))
    assert 0 <= value <= 1


def test_a_set_is_scored_with_its_skipped_labels_counted():
    score = score_set(
        "SVT",
        predictions=["the", "CAFE", "x", "abd"],
        labels=["The!", "cafe", "...", "abc"],
        confidences=[0.9, 0.8, 0.7, 0.4],
        protocol="36",
    )
    assert (score.name, score.words, score.skipped, score.size) == ("SVT", 3, 1, 4)
    assert score.accuracy == pytest.approx(2 / 3)
    assert (score.low, score.high) == wilson_interval(2, 3)
    assert score.one_ned == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert score.mean_confidence == pytest.approx(0.7)
    assert score.ece == pytest.approx((0.1 + 0.2 + 0.4) / 3)


@given(st.lists(st.tuples(texts, texts, st.floats(0, 1)), min_size=1), protocols)
def test_no_word_is_lost_and_every_share_is_a_share(words, protocol):
    predictions, labels, confidences = zip(*words, strict=True)
    if all(normalise_label(label, protocol) is None for label in labels):
        with pytest.raises(ValueError, match=f"skips all {len(words)} labels"):
            score_set("a", predictions, labels, confidences, protocol)
        return
    score = score_set("a", predictions, labels, confidences, protocol)
    assert score.words + score.skipped == len(words)
    right = sum(word_correct(p, y, protocol) for p, y, _ in words)
    assert score.accuracy == right / score.words
    assert score.low <= score.accuracy <= score.high
    assert score.accuracy <= score.one_ned + 1e-12
    for share in (score.one_ned, score.mean_confidence, score.ece):
        assert -1e-12 <= share <= 1 + 1e-12


@given(st.permutations(range(8)))
def test_the_order_of_the_words_does_not_matter(order):
    words = ["a", "bb", "ccc", "d", "e", "f", "g", "!"]
    labels = ["a", "b", "ccd", "D", "x", "f", "g", "!"]
    confidences = np.linspace(0.1, 0.9, 8)
    shuffled = ([values[i] for i in order] for values in (words, labels, confidences))
    first = score_set("s", words, labels, confidences, "36")
    again = score_set("s", *shuffled, "36")
    assert again.ece == pytest.approx(first.ece)
    assert (again.accuracy, again.one_ned) == (first.accuracy, first.one_ned)


@pytest.mark.parametrize("confidence", [-0.1, 1.1, math.nan, math.inf])
def test_a_confidence_outside_of_its_range_is_an_error(confidence):
    with pytest.raises(ValueError, match=r"SVT: expected confidences in \[0, 1\]"):
        score_set("SVT", ["a"], ["a"], [confidence], "36")


def test_unequal_lengths_and_empty_sets_are_errors():
    with pytest.raises(ValueError, match=r"as many predictions as labels.*\(1, 2, 1\)"):
        score_set("SVT", ["a"], ["a", "b"], [0.5], "36")
    with pytest.raises(ValueError, match="skips all 0 labels"):
        score_set("SVT", [], [], [], "36")
    for mean in (mean_over_sets, mean_over_words):
        with pytest.raises(ValueError, match="there are no scores"):
            mean([])


def of_accuracy(correct, words):
    counts = dict(words=words, skipped=0, accuracy=correct / words, low=0.0, high=1.0)
    return SetScore(name="x", one_ned=0.0, mean_confidence=0.0, ece=0.0, **counts)


def test_both_means_are_those_of_the_published_tables():
    # RobustScanner's paper: mean of six 87.52, over words 88.18.
    sizes = (3000, 647, 1015, 2077, 645, 288)
    accuracies = (95.3, 88.1, 94.8, 77.1, 79.5, 90.3)
    pairs = zip(accuracies, sizes, strict=True)
    scores = [of_accuracy(round(a * n / 100), n) for a, n in pairs]
    assert 100 * mean_over_sets(scores) == pytest.approx(87.52, abs=0.01)
    assert 100 * mean_over_words(scores) == pytest.approx(88.18, abs=0.01)


@given(
    st.lists(
        st.integers(1, 9999).flatmap(
            lambda n: st.tuples(st.integers(0, n), st.just(n))
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_mean_over_words_is_exact(pairs):
    scores = [of_accuracy(correct, words) for correct, words in pairs]
    correct, words = (sum(values) for values in zip(*pairs, strict=True))
    assert mean_over_words(scores) == correct / words
