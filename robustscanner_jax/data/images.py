"""Image files to pixels, refusing what cannot be a word crop."""

import io

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

# A page at 600 dpi has 35 million. Decoding is refused beyond, before memory is taken.
MAX_PIXELS = 50_000_000


class ImageFileError(ValueError):
    """What is no image, or damaged."""


class EmptyImageError(ImageFileError):
    """No bytes at all."""


class TooManyPixelsError(ImageFileError):
    """More pixels than are decoded."""


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the BGR pixels of an encoded image; EXIF rotation is applied.

    Grey, palette, CMYK, 16-bit and transparent images become 8-bit BGR.

    Raises:
      ImageFileError: not an image, or damaged; `EmptyImageError`: no bytes;
        `TooManyPixelsError`: more than `max_pixels`.
    """
    if not data:
        raise EmptyImageError("the image has zero bytes")
    try:
        # The header alone: the pixels are not decoded here.
        with Image.open(io.BytesIO(data)) as header:
            width, height = header.size
    except UnidentifiedImageError:
        raise ImageFileError(f"not an image ({len(data)} bytes)") from None
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(f"too many pixels: {error}") from None
    # Pillow's readers of rare formats also raise RuntimeError, NotImplementedError,
    # AttributeError and others for damaged bytes.
    except Exception as error:
        raise ImageFileError(f"not an image ({len(data)} bytes): {error}") from None
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"{width} x {height} pixels, expected at most {max_pixels:,} in all"
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageFileError(
            f"damaged image ({len(data)} bytes): {error.err}"
        ) from None
    if image is None:
        raise ImageFileError(f"damaged image: {len(data)} bytes, cannot be decoded")
    return image
