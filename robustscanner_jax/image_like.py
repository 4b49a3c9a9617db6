"""What a caller may give as an image, and its pixels.

No JAX in here: an exported network is read where JAX is not installed.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from robustscanner_jax.data.images import decode_image
from robustscanner_jax.regions import cut_out

# A path, the bytes of an image file, a PIL image, or a uint8 array: [h, w, 3] RGB,
# [h, w] or [h, w, 1] grey.
Whole = str | Path | bytes | Image.Image | np.ndarray


@dataclasses.dataclass(frozen=True)
class Region:
    """One word of a page, where a text detector found it: an image like any other.

    Attributes:
      page: a path, the bytes of an image file, a PIL image, or an array. Of many
        regions of a page, an array is decoded once.
      points: the word's outline in pixels of the page after EXIF rotation, see
        `regions`: two corners of a box, four corners clockwise from the text's top
        left, or more along its top and back along its bottom.
    """

    page: Whole
    points: Any


ImageLike = Whole | Region


class ImageError(ValueError):
    """One image that cannot be read.

    Attributes:
      name: its path, or `image 3`, counted from 0 in the order given.
      reason: what is wrong with it.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def is_image(value: Any) -> bool:
    """Returns whether this is one image: not a batch `[n, h, w, 3]`, nor a list."""
    if isinstance(value, np.ndarray):
        return value.ndim != 4
    return isinstance(value, str | Path | bytes | Image.Image | Region)


def file_of(image: ImageLike) -> Any:
    """Returns what an image is read from: itself, or the page of a region."""
    return image.page if isinstance(image, Region) else image


def to_bgr(image: ImageLike) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the BGR pixels of an image; EXIF rotation is applied.

    An array's type is not looked at here: `resize_and_pad` refuses all but uint8.

    Raises:
      TypeError: of no kind that `ImageLike` names.
      ValueError: not an image, damaged, an array of another shape, or a region that
        is none.
      OSError: its file cannot be read.
    """
    if isinstance(image, Region):
        return _cut_out(image)
    if isinstance(image, str | Path):
        return decode_image(Path(image).read_bytes())
    if isinstance(image, bytes):
        return decode_image(image)
    if isinstance(image, Image.Image):
        image = _pixels(image)
    if not isinstance(image, np.ndarray):
        raise TypeError(
            "expected a path, the bytes of an image file, a PIL image, a numpy array "
            f"or a Region, got {type(image).__name__}"
        )
    rgb = image[..., None] if image.ndim == 2 else image
    if rgb.ndim != 3 or rgb.shape[2] not in (1, 3):
        raise ValueError(
            "expected [h, w, 3] RGB or [h, w] grey pixels, "
            f"got an array of shape {image.shape}"
        )
    return np.ascontiguousarray(np.broadcast_to(rgb, (*rgb.shape[:2], 3))[..., ::-1])


def _cut_out(region: Region) -> UInt8[np.ndarray, "h w 3"]:
    page = region.page
    if isinstance(page, np.ndarray) and page.ndim == 3:
        # Cut before the channels are put in order, which copies.
        return to_bgr(cut_out(page, region.points))
    return np.ascontiguousarray(cut_out(to_bgr(page), region.points))


def _pixels(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the RGB pixels of a PIL image, turned as its EXIF data say, like a file.

    Raises:
      ValueError: its file is damaged, which may show only when its pixels are read.
    """
    try:
        turned = ImageOps.exif_transpose(image)
        return np.asarray(_eight_bits(turned).convert("RGB"))
    # Pillow's readers raise OSError, SyntaxError and others for damaged bytes.
    except Exception as error:
        raise ValueError(f"damaged image: {error}") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Returns an image of 16 bits a pixel scaled as a file is, any other as it is.

    Pillow's conversion cuts values off at 255.
    """
    values = np.asarray(image) if image.mode.startswith("I") else None
    if values is None or (image.mode == "I" and values.max() < 256):
        return image
    return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
