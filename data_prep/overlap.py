"""Which images are the same, to the byte or to the eye.

A picture's hash is 128 bits: which of its 128 lowest frequencies lie above their median
(pHash). It survives another size, quality and brightness. Short words in plain print
look alike, so two pictures count as the same only if their labels agree as well.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt64

# Of 128 bits. Measured on 1,162 real crops against 9,788 others: at 14 bits none is
# taken for another one of the same label, at 16 three are (docs/data.md has the rest).
NEAR_BITS = 14
_SIDE = 64  # pixels, of the picture whose frequencies are taken
_ROWS, _COLUMNS = 8, 16  # of the frequencies


def picture_hash(image: UInt8[np.ndarray, "h w 3"]) -> UInt64[np.ndarray, "2"]:
    """Returns 128 bits that similar pictures share."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    square = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(square)[:_ROWS, :_COLUMNS].reshape(-1)
    low[0] = 0.0  # the brightness
    return np.packbits(low > np.median(low)).view(np.uint64)


def differing_bits(
    one: UInt64[np.ndarray, "*n 2"], other: UInt64[np.ndarray, "*n 2"]
) -> Int[np.ndarray, "*n"]:
    """Returns in how many bits, of 128, the hashes differ."""
    return np.bitwise_count(one ^ other).sum(axis=-1, dtype=np.int64)


def repeats(keys: UInt64[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Returns for each row the number of the first row with its key.

    That is its own number for a row that repeats none.
    """
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)] if len(keys) else np.zeros(0, np.int64)


def mixed(*columns: UInt64[np.ndarray, "n"]) -> UInt64[np.ndarray, "n"]:
    """Returns one key of several columns, as good as equal only where all are."""
    key = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key


def find_known(
    wanted: np.ndarray, known: np.ndarray
) -> tuple[Bool[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Returns which of `wanted` occur in `known`, and where (first; else undefined)."""
    order = np.argsort(known, kind="stable")
    places = np.searchsorted(known[order], wanted)
    places = np.minimum(places, len(known) - 1)
    found = order[places]
    return known[found] == wanted, found


def find_similar(
    hashes: UInt64[np.ndarray, "n 2"],
    labels: UInt64[np.ndarray, "n"],
    known_hashes: UInt64[np.ndarray, "k 2"],
    known_labels: UInt64[np.ndarray, "k"],
    near_bits: int = NEAR_BITS,
) -> tuple[Bool[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Returns which pictures look like a known one of the same label, and like which.

    Compares each picture with the known ones of its label only, so a long list against
    a benchmark takes seconds.
    """
    order = np.argsort(known_labels, kind="stable")
    in_order = known_labels[order]
    starts = np.searchsorted(in_order, labels, side="left")
    ends = np.searchsorted(in_order, labels, side="right")
    similar = np.zeros(len(labels), bool)
    twin = np.zeros(len(labels), np.int64)
    best = np.full(len(labels), near_bits + 1)
    for offset in range(int((ends - starts).max(initial=0))):
        rows = np.flatnonzero(starts + offset < ends)
        candidates = order[starts[rows] + offset]
        bits = differing_bits(hashes[rows], known_hashes[candidates])
        better = bits < best[rows]
        rows, candidates = rows[better], candidates[better]
        best[rows], twin[rows], similar[rows] = bits[better], candidates, True
    return similar, twin
