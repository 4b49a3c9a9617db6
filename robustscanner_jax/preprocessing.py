"""From the pixels of a crop to the network's input, by the published rules.

The host's part, on uint8; `models.normalise` is the device's. No JAX in here: this runs
in the worker processes of the input pipeline.
"""

import dataclasses
import math
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8

# What `resize_and_pad` returns: padded pixels, and the width of the content in pixels.
Row = tuple[np.ndarray, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image is scaled, padded and normalised.

    A crop is scaled to `height`, keeping its aspect ratio, its width clamped to
    [`min_width`, `max_width`] and rounded to a multiple of `width_multiple`, then
    padded on the right with zeros to `max_width`.

    Attributes:
      height, min_width, max_width: pixels.
      width_multiple: pixels of a column of the feature map.
      clamp_first: clamp the width before rounding (MMOCR) or after (PaddleOCR).
      channel_order: of the network's input; files decode to BGR.
      mean, scale: the network sees (pixel - mean) / scale.
    """

    height: int = 48
    min_width: int = 48
    max_width: int = 160
    width_multiple: int = 4
    clamp_first: bool = True
    channel_order: Literal["BGR", "RGB"] = "BGR"
    mean: float = 127.0
    scale: float = 127.0

    def __post_init__(self):
        if self.height < 1 or not 0 < self.min_width <= self.max_width:
            raise ValueError(
                "preprocessing: expected height >= 1 and "
                f"0 < min_width <= max_width, got {self}"
            )
        if self.width_multiple < 1:
            raise ValueError(
                f"preprocessing: width_multiple must be at least 1 pixel, got "
                f"{self.width_multiple}"
            )
        if self.min_width % self.width_multiple or self.max_width % self.width_multiple:
            raise ValueError(
                f"preprocessing: widths must be multiples of {self.width_multiple} "
                f"pixels, got {self.min_width} and {self.max_width}"
            )
        if not self.scale > 0:
            raise ValueError(f"preprocessing: scale must be positive, got {self.scale}")
        if self.channel_order not in ("BGR", "RGB"):
            raise ValueError(
                f"preprocessing: channel_order must be BGR or RGB, "
                f"got {self.channel_order!r}"
            )


def content_width(height: int, width: int, rule: Preprocessing) -> int:
    """Returns the width in pixels to which a `height` x `width` crop is scaled."""
    scaled = math.ceil(rule.height / height * width)
    if rule.clamp_first:
        scaled = min(max(scaled, rule.min_width), rule.max_width)
    # Python rounds half to even, and so do the published implementations: 50 -> 48.
    scaled = round(scaled / rule.width_multiple) * rule.width_multiple
    return min(max(scaled, rule.min_width), rule.max_width)


def resize_and_pad(image: UInt8[np.ndarray, "h w 3"], rule: Preprocessing) -> Row:
    """Scales a BGR crop into the network's frame.

    Bilinear, by OpenCV: other resamplers differ by up to 68 grey levels.

    Returns the padded pixels `[height, max_width, 3]` uint8 and the content's width.

    Raises:
      ValueError: the image is not `[h, w, 3]` uint8, or has no pixels.
    """
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"expected [h, w, 3] pixels, got shape {image.shape}")
    if image.dtype != np.uint8:
        raise ValueError(f"expected uint8 pixels, got {image.dtype}")
    width = content_width(image.shape[0], image.shape[1], rule)
    scaled = cv2.resize(image, (width, rule.height), interpolation=cv2.INTER_LINEAR)
    if rule.channel_order == "RGB":
        scaled = scaled[..., ::-1]
    canvas = np.zeros((rule.height, rule.max_width, 3), np.uint8)
    canvas[:, :width] = scaled
    return canvas, width
