"""Encoded images, good and bad, and lists of them. For tests of `data_prep`."""

import io
import struct
import zlib

import cv2
import lmdb
import numpy as np
from PIL import Image


def picture(seed: int, *, height: int = 12, width: int = 40) -> np.ndarray:
    """Returns pixels that differ for every seed, `[height, width, 3]` uint8."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (3, 5, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def written(seed: int) -> np.ndarray:
    """Returns the pixels of eight letters, as sharp as real print, `[32, 130, 3]`."""
    rng = np.random.default_rng(seed)
    text = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUXZ"), 8))
    image = np.full((32, 130, 3), 220, np.uint8)
    font = cv2.FONT_HERSHEY_DUPLEX
    return cv2.putText(image, text, (4, 24), font, 0.8, (40, 30, 60), 1, cv2.LINE_AA)


def png(seed: int, **size: int) -> bytes:
    return cv2.imencode(".png", picture(seed, **size))[1].tobytes()


def jpeg(seed: int, **size: int) -> bytes:
    return cv2.imencode(".jpg", picture(seed, **size))[1].tobytes()


def in_mode(mode: str, kind: str) -> bytes:
    """Returns an image of one of Pillow's modes, such as CMYK or I;16."""
    file = io.BytesIO()
    Image.new(mode, (40, 12)).save(file, kind)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Returns a PNG that promises pixels and holds next to none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data


def write_list(folder, records, *, name="labels.tsv"):
    """Writes (image, label) pairs as files and a list; labels may be bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (image, text) in enumerate(records):
        (folder / f"{number:04d}.img").write_bytes(image)
        raw = text if isinstance(text, bytes) else text.encode()
        lines.append(b"%04d.img\t%s\n" % (number, raw))
    (folder / name).write_bytes(b"".join(lines))
    return folder / name


def write_lmdb(folder, records):
    """Writes (image, label) pairs as clovaai's LMDB; labels may be bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=1 << 24) as environment:
        with environment.begin(write=True) as transaction:
            transaction.put(b"num-samples", b"%d" % len(records))
            for number, (image, text) in enumerate(records, 1):
                raw = text if isinstance(text, bytes) else text.encode()
                transaction.put(b"image-%09d" % number, image)
                transaction.put(b"label-%09d" % number, raw)
    return folder
