"""Image files of all kinds to pixels, and what cannot be a word crop."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from robustscanner_jax.data.images import decode_image

# A ramp: smooth enough for JPEG, and no two corners alike.
RAMP = np.stack(
    np.broadcast_arrays(
        np.linspace(0, 255, 40)[:, None], np.linspace(0, 255, 90)[None], 90.0
    ),
    axis=-1,
).astype(np.uint8)  # RGB
PICTURE = Image.fromarray(RAMP)


def encoded(picture: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """Returns a PNG whose header announces a size that its data has not."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(50)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("form", "mode", "tolerance"),
    [
        ("PNG", "RGB", 0),
        ("PNG", "RGBA", 0),
        ("PNG", "P", 60),
        ("BMP", "RGB", 0),
        ("TIFF", "RGB", 0),
        ("JPEG", "RGB", 12),
        ("JPEG", "CMYK", 12),
        ("WEBP", "RGB", 30),
        ("GIF", "RGB", 40),
    ],
)
def test_every_kind_of_file_becomes_the_same_bgr_pixels(form, mode, tolerance):
    pixels = decode_image(encoded(PICTURE.convert(mode), form))
    assert pixels.shape == (40, 90, 3) and pixels.dtype == np.uint8
    difference = np.abs(pixels[..., ::-1].astype(int) - RAMP)
    assert difference.max() <= tolerance


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_files_without_colour_become_three_equal_channels(mode):
    grey = RAMP[..., 1]
    picture = (
        Image.fromarray(grey.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(grey).convert(mode)
    )
    pixels = decode_image(encoded(picture, "PNG"))
    assert pixels.shape == (40, 90, 3) and pixels.dtype == np.uint8
    assert (pixels == pixels[..., :1]).all()
    expected = np.asarray(picture.convert("L")) if mode == "1" else grey
    assert np.abs(pixels[..., 0].astype(int) - expected).max() <= 1


def test_one_pixel_is_an_image():
    pixels = decode_image(encoded(PICTURE.crop((89, 39, 90, 40)), "PNG"))
    assert pixels.tolist() == [[[90, 255, 255]]]


def test_the_rotation_in_the_file_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    pixels = decode_image(encoded(PICTURE, "JPEG", exif=exif))
    expected = np.rot90(RAMP, k=-1)[..., ::-1]
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= 12


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "zero bytes"),
        (b"hello, this is text", r"^not an image \(19 bytes\)$"),
        (png_of_size(30_000, 30_000), "pixels"),
        (png_of_size(9_000, 9_000), "9000 x 9000 pixels, expected at most 50,000,000"),
        (png_of_size(90, 40), "damaged image"),
    ],
    ids=["nothing", "text", "bomb", "huge", "cut"],
)
def test_what_is_no_image_gets_one_sentence(data, message):
    with pytest.raises(ValueError, match=message) as caught:
        decode_image(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@given(share=st.floats(0, 0.98))
def test_a_file_cut_short_anywhere_is_refused(form, share):
    noise = np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), form)
    with pytest.raises(ValueError):
        decode_image(whole[: int(share * len(whole))])


@pytest.mark.parametrize("form", ["AVIF", "DDS", "TGA", "ICO", "TIFF"])
@given(data=st.data())
def test_changed_bytes_are_pixels_or_a_value_error(form, data):
    """Pillow's readers of rare formats raise errors of many kinds."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8)
    whole = bytearray(encoded(Image.fromarray(noise), form))
    for _ in range(3):
        place = data.draw(st.integers(0, min(len(whole), 200) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        assert decode_image(bytes(whole)).dtype == np.uint8


PREFIXES = (
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"GIF89a",
    b"BM",
    b"DDS \x7c\x00\x00\x00",
)


@given(st.binary(max_size=160))
def test_bytes_of_any_kind_raise_nothing_but_a_value_error(data):
    for prefix in PREFIXES:
        with pytest.raises(ValueError):
            decode_image(prefix + data)
