"""The words that labels are made of, with their frequencies."""

import bisect
import codecs
import functools
import itertools
import logging
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

from data_prep.synthetic.dice import Dice
from robustscanner_jax.charset import DICT90
from robustscanner_jax.whole_file import write_whole

logger = logging.getLogger(__name__)

WORDS_VARIABLE = "ROBUSTSCANNER_WORDS"


class Vocabulary:
    """Words with frequencies, most frequent first, to draw from."""

    def __init__(self, words: Iterable[tuple[str, float]], settings: SimpleNamespace):
        shortest, longest = settings.lengths
        pairs = [(w.lower(), f) for w, f in words if w and not is_blocked(w)]
        if settings.most_frequent:
            pairs = pairs[: settings.most_frequent]
        pairs = [(w, f) for w, f in pairs if shortest <= len(w) <= longest]
        if not settings.marked:  # no "o'er", no "u.s."
            pairs = [(w, f) for w, f in pairs if w.isalpha()]
        if not pairs:
            raise ValueError(f"word list: no word has {shortest} to {longest} letters")
        self.words = [w for w, _ in pairs]
        self.alphabetic = [w for w in self.words if w.isalpha()] or self.words
        self.known = frozenset(self.words)
        self.frequencies = [f for _, f in pairs]
        weights = [f**settings.frequency_power for _, f in pairs]
        self._cumulative = list(itertools.accumulate(weights))

    def draw(self, dice: Dice, settings: SimpleNamespace) -> str:
        """Returns a word in lower case."""
        word = ""
        for _ in range(4):
            if dice.chance(settings.by_frequency):
                at = dice.random() * self._cumulative[-1]
                word = self.words[bisect.bisect_left(self._cumulative, at)]
            else:
                word = dice.pick(self.words)
            kept = settings.long_kept if len(word) > settings.long_over else 1.0
            if len(word) < 3:
                kept = settings.short_kept
            if not word.isalnum():
                kept *= settings.marked_kept
            if kept == 1.0 or dice.chance(kept):
                break
        return word


def load_vocabulary(settings: SimpleNamespace) -> Vocabulary:
    """Returns the words of `settings.file`, else of the environment, else of wordfreq.

    Raises:
      FileNotFoundError: the named file does not exist.
      ValueError: a frequency is none, or no word may be drawn.
      ModuleNotFoundError: no file is named and wordfreq is not installed.
    """
    named = settings.file or os.environ.get(WORDS_VARIABLE, "")
    path = Path(named) if named else _cache_path(settings.count)
    if named and not path.is_file():
        raise FileNotFoundError(f"word list: {path} does not exist")
    if not path.is_file():
        write_word_list(path, settings.count)
    return Vocabulary(_read_word_list(path), settings)


def _read_word_list(path: Path) -> list[tuple[str, float]]:
    """Returns (word, frequency) of each line whose word is of the charset alone."""
    pairs, dropped, known = [], [], frozenset(DICT90)
    # What is no UTF-8 becomes a character that no word may hold.
    with open(path, encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            word, _, frequency = line.rstrip("\n").partition("\t")
            if not known.issuperset(word):
                dropped.append(word)
                continue
            try:
                pairs.append((word, _frequency(frequency)))
            except ValueError:
                raise ValueError(
                    f"word list {path}, line {number}: expected a word, or a word, a "
                    f"tab and a frequency such as 0.5, got {line[:80]!r}"
                ) from None
    if dropped:
        _warn_of_dropped(path, len(dropped), dropped[0])
    return pairs


def _frequency(text: str) -> float:
    value = float(text or 1.0)
    if not 0.0 <= value < math.inf:
        raise ValueError(f"expected a number of 0 or more, got {text!r}")
    return value


@functools.cache  # one warning a process, however often the list is read
def _warn_of_dropped(path: Path, count: int, first: str) -> None:
    logger.warning(
        "word list %s: %d words left out that hold a character outside the charset, "
        "such as %r",
        *(path, count, first),
    )


def write_word_list(path: Path, count: int) -> None:
    """Writes the usable ones of wordfreq's `count` most frequent English words.

    One `word TAB frequency` a line. The file appears whole or not at all.
    """
    try:
        import wordfreq
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"word list: install wordfreq, or set {WORDS_VARIABLE} to a file of words "
            "(data_prep.synthetic.bundle writes one)"
        ) from error
    lines = []
    for word in wordfreq.top_n_list("en", count):
        if not set(word) <= set(DICT90) or not any(c.isalpha() for c in word):
            continue
        if is_blocked(word):
            continue
        lines.append(f"{word}\t{wordfreq.word_frequency(word, 'en'):.3g}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(lines))


def _cache_path(count: int) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "robustscanner_jax" / f"words_en_{count}.tsv"


@functools.lru_cache(maxsize=1)
def _blocklist() -> re.Pattern[str]:
    """Returns a pattern of stems that no label may hold, and of whole labels.

    The file is in ROT13, so that nobody meets its words by accident. A stem ends in
    an asterisk.
    """
    text = (Path(__file__).parent / "blocklist.rot13").read_text()
    entries = codecs.decode(text, "rot13").split()
    stems = [re.escape(entry[:-1]) for entry in entries if entry.endswith("*")]
    whole = [rf"^{re.escape(e)}$" for e in entries if not e.endswith("*")]
    return re.compile("|".join(stems + whole))


def is_blocked(label: str) -> bool:
    """Returns whether a label is a slur or obscene, by the block list."""
    return _blocklist().search(label.lower()) is not None
