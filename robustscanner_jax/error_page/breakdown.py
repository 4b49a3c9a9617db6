"""What kind of word is misread: accuracy by group, and confused characters."""

import bisect
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from robustscanner_jax.metrics import (
    normalise,
    normalise_label,
    one_ned,
    wilson_interval,
)
from robustscanner_jax.predictions import Prediction

# Of texts that have less in common, an alignment of the characters tells nothing.
LEAST_SIMILARITY = 0.5

_LONGEST = 10  # characters: longer labels share groups
_ASPECTS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
CASES = ("UPPER", "Title", "lower", "mIxed", "digits", "punctuation")


class Word(NamedTuple):
    """A word that counts in the accuracy.

    Attributes:
      label: in its original spelling.
      expected, read: label and prediction as the protocol compares them.
      size: height and width of the crop in pixels; None where it is unreadable.
    """

    label: str
    expected: str
    read: str
    size: tuple[int, int] | None


class Group(NamedTuple):
    """Words of one kind, and how many of them were read right."""

    name: str
    words: int
    correct: int

    @property
    def accuracy(self) -> float:
        """The share read right, in [0, 1]."""
        return self.correct / self.words

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the accuracy."""
        return wilson_interval(self.correct, self.words)


def scored_words(
    predictions: Iterable[Prediction],
    sizes: Iterable[tuple[int, int] | None],
    protocol: str,
) -> list[Word]:
    """Returns the words that the protocol does not skip."""
    words = []
    for prediction, size in zip(predictions, sizes, strict=True):
        expected = normalise_label(prediction.label, protocol)
        if expected is not None:
            read = normalise(prediction.prediction, protocol)
            words.append(Word(prediction.label, expected, read, size))
    return words


def _groups(
    words: Sequence[Word], kind: Callable[[Word], int], names: Sequence[str]
) -> list[Group]:
    total, correct = Counter[int](), Counter[int]()
    for word in words:
        total[kind(word)] += 1
        correct[kind(word)] += word.expected == word.read
    return [Group(names[i], total[i], correct[i]) for i in sorted(total)]


def by_length(words: Sequence[Word]) -> list[Group]:
    """Returns groups of words by the length of their labels, in characters."""
    starts = [*range(1, _LONGEST + 1), 11, 15, 20]
    names = ["0", *map(str, range(1, _LONGEST + 1)), "11-14", "15-19", "20 and more"]
    return _groups(words, lambda w: bisect.bisect(starts, len(w.label)), names)


def by_aspect(words: Sequence[Word]) -> list[Group]:
    """Returns groups of words by width over height of their crops, narrow first."""
    names = [f"under {_ASPECTS[0]:g}"]
    names += [f"{a:g}-{b:g}" for a, b in itertools.pairwise(_ASPECTS)]
    names += [f"{_ASPECTS[-1]:g} and more", "unreadable"]

    def kind(word: Word) -> int:
        if word.size is None:
            return len(names) - 1
        height, width = word.size
        return bisect.bisect(_ASPECTS, width / height)

    return _groups(words, kind, names)


def case_of(label: str) -> str:
    """Returns which of `CASES` a label is.

    Punctuation first: anything that is neither letter nor digit. A single capital is
    UPPER; digits beside letters change nothing.
    """
    letters = "".join(c for c in label if c.isalpha())
    if not label.isalnum():
        return "punctuation"
    if not letters:
        return "digits"
    if letters.isupper():
        return "UPPER"
    if letters.islower():
        return "lower"
    return "Title" if letters[0].isupper() and letters[1:].islower() else "mIxed"


def by_case(words: Sequence[Word]) -> list[Group]:
    """Returns groups of words by the kinds of characters in their labels."""
    return _groups(words, lambda w: CASES.index(case_of(w.label)), CASES)


@dataclasses.dataclass(frozen=True)
class Confusions:
    """What became of the characters of some words.

    Attributes:
      occurrences: of each character in the labels.
      substituted: (true, read) -> times.
      missed: characters of labels that were not read.
      added: characters read that no label has.
      words: that were compared.
      unlike: words left out for having too little in common with what was read.
    """

    occurrences: Counter[str]
    substituted: Counter[tuple[str, str]]
    missed: Counter[str]
    added: Counter[str]
    words: int
    unlike: int

    def right(self, character: str) -> int:
        """Returns how often a character of the labels was read as itself."""
        wrong = sum(n for (true, _), n in self.substituted.items() if true == character)
        return self.occurrences[character] - wrong - self.missed[character]

    def most_confused(self, count: int) -> list[str]:
        """Returns the characters with most errors in labels or readings, sorted."""
        errors = self.missed + self.added
        for (true, read), times in self.substituted.items():
            errors[true] += times
            errors[read] += times
        ranked = sorted(errors, key=lambda c: (-errors[c], c))
        return sorted(ranked[:count])


def confusions(pairs: Iterable[tuple[str, str]]) -> Confusions:
    """Aligns (true, read) texts by the fewest edits and counts what differs."""
    found = Confusions(Counter(), Counter(), Counter(), Counter(), 0, 0)
    words = unlike = 0
    for true, read in pairs:
        if one_ned(true, read) < LEAST_SIMILARITY:
            unlike += 1
            continue
        words += 1
        found.occurrences.update(true)
        for edit in Levenshtein.editops(true, read):
            if edit.tag == "replace":
                found.substituted[true[edit.src_pos], read[edit.dest_pos]] += 1
            elif edit.tag == "delete":
                found.missed[true[edit.src_pos]] += 1
            else:
                found.added[read[edit.dest_pos]] += 1
    return dataclasses.replace(found, words=words, unlike=unlike)
