"""What the pictures say: words, numbers, and strings without any context."""

import math
import string
import zlib
from collections.abc import Callable
from types import SimpleNamespace

from data_prep.synthetic.dice import Dice
from data_prep.synthetic.vocabulary import Vocabulary, is_blocked
from robustscanner_jax.charset import DICT90

CHARACTERS = DICT90  # of the published models: no space, none of ^{|}
PUNCTUATION = "".join(c for c in CHARACTERS if not c.isalnum())
SPLITS = ("train", "heldout", "any")

_HELDOUT_PARTS = 20  # one part of these is held out
_EXEMPT_LENGTH = 2  # labels up to here are never held out
_UPPER_DIGITS = string.ascii_uppercase + string.digits
# Of random strings; named twice, an alphabet is drawn twice as often.
RANDOM_ALPHABETS = (
    string.ascii_uppercase,
    _UPPER_DIGITS,
    _UPPER_DIGITS,
    string.ascii_lowercase,
    string.ascii_uppercase,
    string.ascii_letters + string.digits,
    string.digits,
    CHARACTERS,
)
_UNITS = ("km", "kg", "g", "ml", "L", "cm", "m", "MHz", "GB", "x", "mm", "W", "V", "oz")
_DOMAINS = (".com", ".org", ".co.uk", ".net", ".de", ".fr", ".edu")
_ONSETS = (
    "b br c ch cl d dr f fl g gr h j k l m n p pr qu r s sh st t tr v w x z".split()
)
_NUCLEI = "a e i o u a e i o ai ea ee io oo ou".split()
_CODAS = " , , , n,r,s,l,t,x,m,nd,rt,ck,ng,st".replace(" ", "").split(",")


def is_heldout(label: str) -> bool:
    """Returns whether a spelling is kept out of training, for every kind of label.

    One spelling in twenty, by the CRC-32 of the case-folded label. Labels of one and
    two characters are never held out: there are too few of them to train without.
    """
    if len(label) <= _EXEMPT_LENGTH:
        return False
    return zlib.crc32(label.casefold().encode()) % _HELDOUT_PARTS == 0


def belongs(label: str, split: str) -> bool:
    """Returns whether a split may show this label.

    `train` shows what is not held out, `heldout` what is, `any` everything.

    Raises:
      ValueError: there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    return split == "any" or is_heldout(label) == (split == "heldout")


def draw_text(
    dice: Dice,
    vocabulary: Vocabulary,
    settings: SimpleNamespace,
    split: str = "any",
    *,
    can_show: Callable[[str], bool] = bool,
) -> str:
    """Returns a label of a kind drawn from `settings.shares`.

    It has 1 to `settings.max_label` characters, all of `CHARACTERS`, and belongs to
    `split`. The kind is drawn once, so that a split keeps the mix of kinds; but for
    single characters, of which none is held out. `can_show` tells whether a font has
    all characters of a label.
    """
    shares = settings.shares
    if split == "heldout":
        shares = {k: s for k, s in shares.items() if k != "single"} or shares
    kind = dice.kind(shares)
    for attempt in range(2000):
        if attempt == 500:
            kind = "random"  # a tiny word list may hold nothing of this split
        label = _KINDS[kind](dice, vocabulary, settings)
        if not 0 < len(label) <= settings.max_label or not belongs(label, split):
            continue
        if not is_blocked(label) and can_show(label):
            return label
    raise ValueError(
        f"split {split!r}: no label found in 2000 draws that the fonts can show; see "
        "words.shares and fonts.families"
    )


def apply_case(dice: Dice, word: str, settings: SimpleNamespace) -> str:
    """Returns the word in a case drawn from `settings.case_shares`."""
    case = dice.kind(settings.case_shares)
    if case == "upper":
        return word.upper()
    if case == "title":
        return word[:1].upper() + word[1:].lower()
    if case == "lower":
        return word.lower()
    return "".join(c.upper() if dice.chance(0.5) else c for c in word)


def _digits(dice: Dice, count: int) -> str:
    return "".join(dice.pick(string.digits) for _ in range(count))


def _word(dice: Dice, vocabulary: Vocabulary, settings: SimpleNamespace) -> str:
    return apply_case(dice, vocabulary.draw(dice, settings), settings)


def _name(dice: Dice, vocabulary: Vocabulary, settings: SimpleNamespace) -> str:
    """A rare word or an invented one, as names of people and brands look."""
    if dice.chance(0.5):
        name = dice.pick(vocabulary.alphabetic)
    else:
        name = "".join(
            dice.pick(_ONSETS) + dice.pick(_NUCLEI) + dice.pick(_CODAS)
            for _ in range(dice.integer(1, 3))
        )
    return name.upper() if dice.chance(0.5) else name.capitalize()


def _number(dice: Dice, vocabulary: Vocabulary, settings: SimpleNamespace) -> str:
    """A number, price, share, time, date, telephone number, rank or measure."""
    kind = dice.below(15)
    if kind < 2:
        return _digits(dice, dice.integer(1, 4))
    if kind < 4:
        return _digits(dice, dice.integer(2, 8))
    if kind < 6:
        return str(dice.integer(1900, 2030))
    if kind == 6:
        cents = dice.pick(("", ".99", ".00", "." + _digits(dice, 2)))
        return "$" + _digits(dice, dice.integer(1, 3)) + cents
    if kind == 7:
        return _digits(dice, dice.integer(1, 2)) + "%"
    if kind == 8:
        hour = f"{dice.integer(0, 23)}:{dice.integer(0, 59):02d}"
        return hour + dice.pick(("", "", "am", "PM"))
    if kind == 9:
        mark = dice.pick("/-.")
        year = dice.pick(("", "20")) + _digits(dice, 2)
        return f"{dice.integer(1, 31)}{mark}{dice.integer(1, 12)}{mark}{year}"
    if kind == 10:
        area = dice.pick(("", "", f"({_digits(dice, 3)})"))
        return f"{area}{_digits(dice, 3)}-{_digits(dice, 4)}"
    if kind == 11:
        return _digits(dice, 1) + dice.pick(("st", "nd", "rd", "th", "ST", "TH"))
    if kind == 12:
        return "#" + _digits(dice, dice.integer(1, 3))
    if kind == 13:
        return _digits(dice, dice.integer(1, 3)) + dice.pick(_UNITS)
    letters = dice.pick(string.ascii_uppercase) * dice.integer(1, 2)
    return letters + _digits(dice, dice.integer(1, 4))


def _random(dice: Dice, vocabulary: Vocabulary, settings: SimpleNamespace) -> str:
    alphabet = dice.pick(settings.random_alphabets)
    tail = -settings.random_length * math.log1p(-dice.random())
    length = min(settings.random_shortest + int(tail), settings.random_longest)
    label = "".join(dice.pick(alphabet) for _ in range(length))
    if length > _EXEMPT_LENGTH and label.lower() in vocabulary.known:
        return ""  # drawn again: these strings are to have no context
    return label


def _cut(dice: Dice, vocabulary: Vocabulary, settings: SimpleNamespace) -> str:
    """Part of a word, as a crop that misses its ends shows."""
    word = _word(dice, vocabulary, settings)
    if len(word) < 4:
        return word
    start = dice.below(len(word) - 2)
    return word[start : start + dice.integer(2, len(word) - start)]


def _punctuated(dice: Dice, vocabulary: Vocabulary, settings: SimpleNamespace) -> str:
    word = _word(dice, vocabulary, settings)
    form = dice.random()
    if form < 0.55:
        return word + dice.pick(".,!?:;'\"-).,!")
    if form < 0.70:
        return dice.pick("('\"#@&*-") + word
    if form < 0.80:
        return word + ("'S" if word.isupper() else "'s")
    if form < 0.88:
        return f"({word})"
    if form < 0.94:
        return f'"{word}"'
    return word + "..."


def _joined(dice: Dice, vocabulary: Vocabulary, settings: SimpleNamespace) -> str:
    """Two words in one, or an address of the web."""
    first = _word(dice, vocabulary, settings)
    second = _word(dice, vocabulary, settings)
    form = dice.random()
    if form < 0.30:
        return f"{first}-{second}"
    if form < 0.52:
        return first + second
    if form < 0.62:
        return f"{first}&{second[:1]}"
    if form < 0.70:
        return f"{first}/{second}"
    if form < 0.80:
        return f"www.{first.lower()}.com"
    if form < 0.92:
        return first.lower() + dice.pick(_DOMAINS)
    return f"{first.lower()}@{second.lower()}.com"


def _single(dice: Dice, vocabulary: Vocabulary, settings: SimpleNamespace) -> str:
    return dice.pick(_UPPER_DIGITS + string.ascii_letters)


_KINDS = {
    "word": _word,
    "name": _name,
    "number": _number,
    "random": _random,
    "cut": _cut,
    "punctuated": _punctuated,
    "joined": _joined,
    "single": _single,
}
