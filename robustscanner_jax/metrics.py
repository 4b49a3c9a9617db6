"""Word accuracy and its companions, as the published tables count them. Host side.

A protocol says how prediction and label are normalised before they are compared, and
what becomes of a label of which nothing is left: it is either scored as an empty word
or skipped, and a skipped one is always counted (`SetScore.skipped`).
"""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

# Two-sided 95 % quantile of the standard normal distribution.
_Z95 = 1.959963984540054
_NUM_CONFIDENCE_BINS = 15


class NothingToScore(ValueError):
    """The protocol leaves nothing to compare of every word of a set."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How two texts are compared.

    Attributes:
      description: one line for tables and reports.
      drop: matches the characters that are removed; None removes none.
      lower_case: whether both are lower-cased, before `drop`.
      skip_empty: whether a label of which nothing is left is skipped rather than
        scored as an empty word.
      prepare_label: applied to labels only, first of all.
      max_label_length: longer labels are skipped, counted after `prepare_label` and
        before `drop`; None for no limit.
    """

    description: str
    drop: re.Pattern[str] | None = None
    lower_case: bool = False
    skip_empty: bool = True
    prepare_label: Callable[[str], str] | None = None
    max_label_length: int | None = None


def to_ascii(text: str) -> str:
    """Returns a label as strhub (PARSeq) prepares it: no white space, NFKD, ASCII.

    `Ｃａｆé 7` becomes `Cafe7`: full-width letters turn into ASCII, accents are taken
    off, and what has no ASCII form disappears.
    """
    text = "".join(text.split())
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


PROTOCOLS: dict[str, Protocol] = {
    # The published tables. Skipping a label without letters or digits is strhub's rule:
    # an empty prediction would be counted as right.
    "36": Protocol(
        "case-insensitive, letters and digits only",
        drop=re.compile(r"[^0-9a-z]"),
        lower_case=True,
    ),
    "62": Protocol(
        "case-sensitive, letters and digits only", drop=re.compile(r"[^0-9A-Za-z]")
    ),
    "94": Protocol(
        "case-sensitive, printable ASCII without space", drop=re.compile(r"[^!-~]")
    ),
    "exact": Protocol("raw strings, nothing removed", skip_empty=False),
    # WordMetric, ignore_case_symbol. The pattern is MMOCR's, with its stray `^`: inside
    # the brackets it is one more character that stays. Empty labels are scored.
    "mmocr": Protocol(
        "MMOCR's ignore_case_symbol: as 36, but '^' and Chinese stay",
        drop=re.compile("[^A-Z^a-z^0-9^\u4e00-\u9fa5]"),
        lower_case=True,
        skip_empty=False,
    ),
    "strhub": Protocol(
        "strhub's (PARSeq): as 36, labels folded to ASCII, those over 25 skipped",
        drop=re.compile(r"[^0-9a-z]"),
        lower_case=True,
        prepare_label=to_ascii,
        max_label_length=25,
    ),
}


def get_protocol(name: str) -> Protocol:
    """Returns a protocol by name; `ValueError` lists the names for an unknown one."""
    if name not in PROTOCOLS:
        raise ValueError(f"protocol: expected one of {list(PROTOCOLS)}, got {name!r}")
    return PROTOCOLS[name]


def protocol_of(characters: str) -> str:
    """Returns the protocol that suits the words of a charset.

    The published "36", unless there are letters or digits that it would take away, or
    none at all.
    """
    alphanumeric = [c for c in characters if c.isalnum()]
    return "36" if alphanumeric and all(c.isascii() for c in alphanumeric) else "exact"


def normalise(text: str, protocol: str) -> str:
    """Returns a prediction as `protocol` compares it.

    Lower case comes before the removal, as in strhub and MMOCR, so that the Kelvin sign
    counts as `k`. For labels use `normalise_label`.
    """
    rule = get_protocol(protocol)
    if rule.lower_case:
        text = text.lower()
    return rule.drop.sub("", text) if rule.drop else text


def normalise_label(text: str, protocol: str) -> str | None:
    """Returns a label as `protocol` compares it, or None where it skips the label."""
    rule = get_protocol(protocol)
    if rule.prepare_label:
        text = rule.prepare_label(text)
    if rule.max_label_length is not None and len(text) > rule.max_label_length:
        return None
    text = normalise(text, protocol)
    return None if rule.skip_empty and not text else text


def word_correct(prediction: str, label: str, protocol: str) -> bool:
    """Returns whether the word counts as right; never for a skipped label."""
    return normalise(prediction, protocol) == normalise_label(label, protocol)


def one_ned(prediction: str, label: str) -> float:
    """Returns 1 - N.E.D. of two normalised texts, in [0, 1]; higher is better.

    The edit distance is divided by the longer length (ICDAR 2019). Two empty texts are
    equal: 1.
    """
    return Levenshtein.normalized_similarity(prediction, label)


def wilson_interval(correct: int, words: int) -> tuple[float, float]:
    """Returns the 95 % Wilson score interval of `correct` out of `words`, in [0, 1]."""
    if not 0 <= correct <= words or words < 1:
        raise ValueError(f"need 0 <= correct <= words, words > 0: {correct}, {words}")
    share, z2 = correct / words, _Z95 * _Z95
    centre = share + z2 / (2 * words)
    spread = _Z95 * math.sqrt(share * (1 - share) / words + z2 / (4 * words * words))
    scale = 1 + z2 / words
    # Rounding must not push the ends of 0 % and 100 % past them.
    low = 0.0 if correct == 0 else (centre - spread) / scale
    high = 1.0 if correct == words else (centre + spread) / scale
    return low, high


def expected_calibration_error(
    confidences: Sequence[float], correct: Sequence[bool]
) -> float:
    """Returns how far confidence and accuracy lie apart, in [0, 1]; 0 is best.

    Fifteen bins of equal width over [0, 1]; the gaps are weighted by the bins' words.
    """
    confidence = np.asarray(confidences, np.float64)
    hit = np.asarray(correct, np.float64)
    bins = np.minimum(confidence * _NUM_CONFIDENCE_BINS, _NUM_CONFIDENCE_BINS - 1)
    gap = np.bincount(
        bins.astype(np.int64), weights=hit - confidence, minlength=_NUM_CONFIDENCE_BINS
    )
    return float(np.abs(gap).sum() / len(confidence))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetScore:
    """The result on one benchmark; shares are in [0, 1].

    Attributes:
      name: of the set.
      words: that were scored.
      skipped: labels of which the protocol leaves nothing, or that are too long for
        it; the set has `words + skipped` records.
      accuracy: share of words read right.
      low, high: 95 % Wilson interval of `accuracy`.
      one_ned: mean of 1 - N.E.D. (ICDAR 2019).
      mean_confidence: mean of the words' confidences.
      ece: expected calibration error, 15 bins.
      contextless: whether the texts are strings in which no letter helps with the next.
      turned: crops that were read at 90 and 270 degrees as well; None where that was
        not asked for.
      turned_won: of these, the crops for which a turned reading counts.
      closer: crops that were read again without their edges; None where that was not
        asked for.
      closer_won: of these, the crops for which such a reading counts.
    """

    name: str
    words: int
    skipped: int
    accuracy: float
    low: float
    high: float
    one_ned: float
    mean_confidence: float
    ece: float
    contextless: bool = False
    turned: int | None = None
    turned_won: int | None = None
    closer: int | None = None
    closer_won: int | None = None

    def of_views(self) -> dict[str, int]:
        """Returns how many crops were read in further views, by the names of columns.

        Of the views that were asked for.
        """
        counts = {
            "turned": self.turned,
            "turned won": self.turned_won,
            "closer": self.closer,
            "closer won": self.closer_won,
        }
        return {name: count for name, count in counts.items() if count is not None}

    @property
    def size(self) -> int:
        """Records in the set, scored or skipped; names the published split."""
        return self.words + self.skipped


def score_set(
    name: str,
    predictions: Sequence[str],
    labels: Sequence[str],
    confidences: Sequence[float],
    protocol: str,
) -> SetScore:
    """Scores one benchmark.

    Args:
      name: of the set, for tables and messages.
      predictions: the texts that were read.
      labels: the true texts, in their original spelling.
      confidences: of the words, in [0, 1].
      protocol: a key of `PROTOCOLS`.

    Raises `ValueError` for unequal lengths and a confidence outside of [0, 1], and
    `NothingToScore` for a set of which the protocol skips every word.
    """
    lengths = (len(predictions), len(labels), len(confidences))
    if len(set(lengths)) != 1:
        raise ValueError(
            f"{name}: expected as many predictions as labels and confidences, got "
            f"{lengths}"
        )
    correct, similarity, kept = [], [], []
    for prediction, label, confidence in zip(
        predictions, labels, confidences, strict=True
    ):
        if not 0.0 <= confidence <= 1.0:  # also catches NaN
            raise ValueError(
                f"{name}: expected confidences in [0, 1], got {confidence} for "
                f"{prediction!r}"
            )
        expected = normalise_label(label, protocol)
        if expected is None:
            continue
        read = normalise(prediction, protocol)
        correct.append(read == expected)
        similarity.append(one_ned(read, expected))
        kept.append(float(confidence))
    words = len(correct)
    if words == 0:
        raise NothingToScore(
            f"{name}: no words to score, protocol {protocol} "
            f"({get_protocol(protocol).description}) skips all {len(labels)} labels"
        )
    low, high = wilson_interval(sum(correct), words)
    return SetScore(
        name=name,
        words=words,
        skipped=len(labels) - words,
        accuracy=sum(correct) / words,
        low=low,
        high=high,
        one_ned=math.fsum(similarity) / words,
        mean_confidence=math.fsum(kept) / words,
        ece=expected_calibration_error(kept, correct),
    )


def columns_of_views(scores: Iterable[SetScore]) -> list[str]:
    """Returns the columns of `SetScore.of_views` that any of these has."""
    return list(dict.fromkeys(name for score in scores for name in score.of_views()))


def mean_over_sets(scores: Iterable[SetScore]) -> float:
    """Returns the unweighted mean accuracy: every set counts the same."""
    accuracies = [score.accuracy for score in scores]
    if not accuracies:
        raise ValueError("mean over sets: there are no scores")
    return math.fsum(accuracies) / len(accuracies)


def mean_over_words(scores: Iterable[SetScore]) -> float:
    """Returns the word-weighted mean accuracy: every scored word counts the same."""
    scores = list(scores)
    if not scores:
        raise ValueError("mean over words: there are no scores")
    correct = sum(round(score.accuracy * score.words) for score in scores)
    return correct / sum(score.words for score in scores)
