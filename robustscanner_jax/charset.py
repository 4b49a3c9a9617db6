"""Characters and special tokens: text to ids and back. Plain Python, no arrays."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

# The dictionary of the published models, in their order (MMOCR and PaddleOCR).
DICT90 = (
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "!\"#$%&'()*+,-./:;<=>?@[\\]_`~"
)
# How the published implementations print a character that they do not know.
UNKNOWN_TEXT = "<UKN>"


@dataclasses.dataclass(frozen=True)
class Charset:
    """An ordered set of characters and the ids of the special tokens.

    Attributes:
      characters: each once; a character's id is its index.
      end_id: starts and ends a text, one id for both as in the published models.
      pad_id: fills a row after the end; never part of a text.
      unknown_id: stands for every character outside `characters`.
      num_classes: outputs of a classifier over this charset. With `pad_id` beyond it
        the padding token cannot be predicted.
    """

    characters: str
    end_id: int
    pad_id: int
    unknown_id: int
    num_classes: int

    def __post_init__(self):
        if not self.characters:
            raise ValueError("charset: expected at least one character, got none")
        repeated = sorted({c for c in self.characters if self.characters.count(c) > 1})
        if repeated:
            raise ValueError(f"charset: characters occur more than once: {repeated}")
        n = len(self.characters)
        specials = sorted((self.end_id, self.pad_id, self.unknown_id))
        if specials != [n, n + 1, n + 2]:
            raise ValueError(
                f"charset: special ids must be {n}, {n + 1} and {n + 2} in some order "
                f"after {n} characters, got end {self.end_id}, pad {self.pad_id}, "
                f"unknown {self.unknown_id}"
            )

    @classmethod
    def of(cls, characters: str) -> "Charset":
        """Returns the charset with this project's ids: end, pad, unknown (as MMOCR)."""
        n = len(characters)
        return cls(characters, n, n + 1, n + 2, num_classes=n + 3)

    @classmethod
    def from_file(cls, path: str | Path) -> "Charset":
        """Reads a dictionary: one character a line, UTF-8, in the order of the ids.

        Raises:
          ValueError: a line holds several characters or none, or one comes twice.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ValueError(f"charset file {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"charset file {path}: not UTF-8 ({error})") from error
        # Not `splitlines`: it also splits at characters that a dictionary may hold.
        lines = text.removesuffix("\n").split("\n") if text else []
        for number, line in enumerate(lines, start=1):
            if len(line) != 1:
                raise ValueError(
                    f"charset file {path}, line {number}: expected one character, "
                    f"got {line!r}"
                )
        try:
            return cls.of("".join(lines))
        except ValueError as error:
            raise ValueError(f"charset file {path}: {error}") from error

    @property
    def num_tokens(self) -> int:
        """All ids: characters, end, pad and unknown."""
        return len(self.characters) + 3

    def unknown_characters(self, text: str) -> str:
        """Returns the characters of `text` that have no id, each once, in order."""
        return "".join(dict.fromkeys(c for c in text if c not in self.characters))

    def encode(self, text: str) -> list[int]:
        """Returns an id for each character; `unknown_id` where there is none."""
        ids = (self.characters.find(c) for c in text)
        return [self.unknown_id if i < 0 else i for i in ids]

    def to_tokens(self, text: str, max_len: int) -> list[int]:
        """Returns `max_len + 1` ids: start, text, end, padding.

        Raises:
          ValueError: the text and its end token need more than `max_len` steps. It is
            never cut: a cut label teaches a word without an end.
        """
        if len(text) + 1 > max_len:
            raise ValueError(
                f"text {text!r}: expected at most {max_len - 1} characters, "
                f"got {len(text)}"
            )
        ids = [self.end_id, *self.encode(text), self.end_id]
        return ids + [self.pad_id] * (max_len + 1 - len(ids))

    def length(self, ids: Sequence[int]) -> int:
        """Returns how many ids come before the first end token."""
        ids = list(ids)
        return ids.index(self.end_id) if self.end_id in ids else len(ids)

    def characters_of(self, ids: Sequence[int]) -> list[tuple[int, str]]:
        """Returns the characters before the first end token, each after its step.

        Padding is left out, which a network may predict within a text: steps may be
        missing. The unknown token is one character, `UNKNOWN_TEXT`.
        """
        return [
            (step, UNKNOWN_TEXT if i == self.unknown_id else self.characters[i])
            for step, i in enumerate(ids[: self.length(ids)])
            if i != self.pad_id
        ]

    def to_text(self, ids: Sequence[int]) -> str:
        """Returns the text before the first end token; padding is left out."""
        return "".join(character for _, character in self.characters_of(ids))
