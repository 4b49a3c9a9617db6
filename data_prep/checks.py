"""What may enter a dataset: one record is checked, and a refused one has a reason.

Labels keep their spelling and images their bytes. Only what no reader could use is
refused; which characters and lengths to train on is the reader's choice.
"""

import dataclasses

import numpy as np
from jaxtyping import UInt8

from robustscanner_jax.data.images import (
    EmptyImageError,
    ImageFileError,
    TooManyPixelsError,
    decode_image,
)
from robustscanner_jax.data.label_lines import LINE_REASONS, NOT_UTF8, LineError
from robustscanner_jax.data.records import Record

# Why a record does not enter the dataset, in the order of the checks.
MISSING = "image missing"
UNREADABLE_RECORD = "unreadable record"
NUL = "NUL in label"
EMPTY_LABEL = "empty label"
LONG_LABEL = "label too long"
INVALID_BOX = "invalid box"
COUNT_MISMATCH = "count mismatch"
UNLABELLED = "not a labelled word"  # illegible, of another script, handwritten
NOT_IN_SUBSET = "not in this subset"
ZERO_BYTES = "image of zero bytes"
TOO_MANY_PIXELS = "too many pixels"
UNREADABLE_IMAGE = "unreadable image"
TOO_SMALL = "image too small"
REASONS = (
    *(MISSING, UNREADABLE_RECORD, *LINE_REASONS, NUL, EMPTY_LABEL, LONG_LABEL),
    *(INVALID_BOX, COUNT_MISMATCH, UNLABELLED, NOT_IN_SUBSET),
    *(ZERO_BYTES, TOO_MANY_PIXELS, UNREADABLE_IMAGE, TOO_SMALL),
)


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A record that does not enter the dataset.

    Attributes:
      id: names the record in the report; what UTF-8 cannot hold is escaped.
      reason: one of `REASONS`.
      detail: what came, for a person; escaped as well.
    """

    id: str
    reason: str
    detail: str

    def __post_init__(self):
        if self.reason not in REASONS:
            raise ValueError(
                f"record {self.id}: expected one of {REASONS}, got {self.reason!r}"
            )
        for name in ("id", "detail"):
            text = getattr(self, name).encode("utf-8", "backslashreplace")
            object.__setattr__(self, name, text.decode("utf-8"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused beyond the unreadable.

    Attributes:
      longest_label: in characters; a longer one is a row that swallowed others. 0 keeps
        any length.
      smallest_side: of an image, in pixels.
    """

    longest_label: int = 255
    smallest_side: int = 2

    def __post_init__(self):
        if self.longest_label < 0 or self.smallest_side < 1:
            raise ValueError(
                "limits: expected longest_label of at least 0 and smallest_side of at "
                f"least 1, got {self.longest_label} and {self.smallest_side}"
            )


def check_record(record: Record, limits: Limits) -> Dropped | tuple[int, int]:
    """Returns the (height, width) of a good record, or why it is refused.

    The image is decoded, once, as training decodes it.
    """
    return check_label(record, limits) or check_image(record, limits)


def check_label(record: Record, limits: Limits) -> Dropped | None:
    """Returns why a label is refused, or None."""
    text = record.text
    if not text.strip():
        return Dropped(record.id, EMPTY_LABEL, repr(text))
    if "\0" in text:
        return Dropped(record.id, NUL, repr(text[:80]))
    if limits.longest_label and len(text) > limits.longest_label:
        detail = f"{len(text)} characters: {text[:40]!r}..."
        return Dropped(record.id, LONG_LABEL, detail)
    try:
        (record.id + text).encode("utf-8")
    except UnicodeEncodeError:
        # JSON and file names may hold lone surrogates, which no record can.
        return Dropped(record.id, NOT_UTF8, repr(text[:80]))
    return None


def check_image(record: Record, limits: Limits) -> Dropped | tuple[int, int]:
    """Returns the (height, width) of the decoded image, or why it is refused."""
    pixels = decode_checked(record, limits)
    return pixels if isinstance(pixels, Dropped) else pixels.shape[:2]


def decode_checked(
    record: Record, limits: Limits
) -> Dropped | UInt8[np.ndarray, "h w 3"]:
    """Returns the BGR pixels of a record's image, or why it is refused."""
    try:
        pixels = decode_image(record.image)
    except ImageFileError as error:
        return Dropped(record.id, reason_of_image(error), str(error))
    height, width = pixels.shape[:2]
    if min(height, width) < limits.smallest_side:
        return Dropped(record.id, TOO_SMALL, f"{width} x {height} pixels")
    return pixels


def reason_of_image(error: ImageFileError) -> str:
    """Returns the reason for an image that could not be decoded."""
    kinds = {EmptyImageError: ZERO_BYTES, TooManyPixelsError: TOO_MANY_PIXELS}
    return kinds.get(type(error), UNREADABLE_IMAGE)


def reason_of(error: ValueError) -> str:
    """Returns the reason for a record that a source of the package refused to read."""
    if isinstance(error, LineError):
        return error.reason
    message = str(error)
    if "not UTF-8" in message or "codec can't decode" in message:
        return NOT_UTF8
    if "is missing" in message or "No such file" in message:
        return MISSING
    return UNREADABLE_RECORD
