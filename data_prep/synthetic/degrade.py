"""What light, lens and camera do to a picture."""

import math
from types import SimpleNamespace

import cv2
import numpy as np

from data_prep.synthetic.dice import Dice
from data_prep.synthetic.fields import Fields

_SHARPEN = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32)


def apply_light(
    dice: Dice,
    planes: np.ndarray,
    contrast: float,
    fields: Fields,
    settings: SimpleNamespace,
) -> None:
    """Changes light, tone and noise of planes [3, h, w] float32, in place.

    Args:
      dice: where the numbers come from.
      planes: the picture, of 255; it may leave that range.
      contrast: grey difference of text and background, of 255. Faint text is spared.
      fields: noise and soft fields.
      settings: the section `degrade`.
    """
    _, height, width = planes.shape
    if dice.chance(settings.light_share):
        field = fields.soft(dice, height, width, (3, 6))
        planes *= 1 + field * np.float32(dice.uniform(*settings.light))
    if dice.chance(settings.glare_share):
        planes += _glare(dice, height, width)
    if dice.chance(settings.tone_share):
        low, high = settings.tone_contrast
        factor = dice.uniform(low if contrast > 90 else max(low, 0.9), high)
        limit = settings.tone_brightness * (1.0 if contrast > 90 else 0.4)
        planes *= np.float32(factor)
        planes += np.float32(128 * (1 - factor) + dice.uniform(-limit, limit))
    if dice.chance(settings.noise_share):
        noise = fields.noise(dice, height, width)
        if noise is not None:
            _add_noise(dice, planes, noise, settings.noise)


def _glare(dice: Dice, height: int, width: int) -> np.ndarray:
    x = (np.arange(width, dtype=np.float32) - dice.uniform(0, width)) / (
        height * dice.uniform(0.3, 1)
    )
    y = (np.arange(height, dtype=np.float32) - dice.uniform(0, height)) / (
        height * dice.uniform(0.2, 0.8)
    )
    spot = np.exp(-x * x)[None] * np.exp(-y * y)[:, None]
    return spot * np.float32(255 * dice.uniform(0.3, 0.8))


def _add_noise(
    dice: Dice, planes: np.ndarray, noise: np.ndarray, deviation: float
) -> None:
    strength = abs(dice.normal(0, deviation))
    if dice.chance(0.6):  # the same on all channels, as cameras keep it
        for plane in planes:
            cv2.scaleAdd(noise, strength, plane, plane)
        return
    turned = (noise, noise[::-1], noise[:, ::-1])
    for plane, one in zip(planes, turned, strict=True):
        plane += one * np.float32(strength)


def to_image(planes: np.ndarray) -> np.ndarray:
    """Returns the picture [h, w, 3] uint8 of planes [3, h, w] float32, clipped."""
    merged = cv2.merge([planes[0], planes[1], planes[2]])
    return cv2.convertScaleAbs(np.maximum(merged, 0, out=merged))


def apply_camera(
    dice: Dice,
    image: np.ndarray,
    *,
    enlarge: float,
    text_height: float,
    contrast: float,
    settings: SimpleNamespace,
) -> np.ndarray:
    """Returns the picture as a camera keeps it, [h, w, 3] uint8.

    Args:
      dice: where the numbers come from.
      image: [h, w, 3] uint8.
      enlarge: final size of the picture, of its present one.
      text_height: of the text in the final picture, pixels.
      contrast: grey difference of text and background, of 255. Faint text is spared.
      settings: the section `degrade`.
    """
    if dice.chance(settings.occluder_share):
        _draw_occluder(dice, image)
    if enlarge != 1.0:
        cubic = dice.chance(0.7)
        image = cv2.resize(
            image,
            None,
            fx=enlarge,
            fy=enlarge,
            interpolation=cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR,
        )
    image = _blur(dice, image, text_height, contrast, settings)
    if dice.chance(settings.grey_share):
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return image


def _blur(
    dice: Dice,
    image: np.ndarray,
    text_height: float,
    contrast: float,
    settings: SimpleNamespace,
) -> np.ndarray:
    height, width = image.shape[:2]
    kind = dice.kind(settings.blur_shares)
    spared = 1.0 if contrast > 60 and text_height > 16 else 0.6
    reach = min(height, 1.35 * text_height)  # a crop of curved text is much taller
    if kind == "gauss":
        radius = min(settings.blur_limit, abs(dice.normal(0, settings.blur)))
        radius *= spared * reach
        # Below a quarter of a pixel nothing would change.
        return cv2.GaussianBlur(image, (0, 0), radius) if radius > 0.25 else image
    if kind == "motion":
        length = int(reach * dice.uniform(*settings.motion) * spared)
        return _motion(dice, image, max(3, length) | 1)
    if kind == "small":
        scale = dice.uniform(*settings.small)
        if text_height * scale < settings.small_least:
            return image
        small = cv2.resize(
            image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
        back = dice.pick((cv2.INTER_LINEAR, cv2.INTER_CUBIC))
        return cv2.resize(small, (width, height), interpolation=back)
    if kind == "sharpen":
        sharp = cv2.filter2D(image, -1, _SHARPEN)
        amount = dice.uniform(0.2, 0.8)
        return cv2.addWeighted(image, 1 - amount, sharp, amount, 0)
    return image


def _motion(dice: Dice, image: np.ndarray, length: int) -> np.ndarray:
    kernel = np.zeros((length, length), np.float32)
    angle = dice.uniform(0, math.pi)
    middle = length // 2
    dx = round(middle * math.cos(angle))
    dy = round(middle * math.sin(angle))
    cv2.line(kernel, (middle - dx, middle - dy), (middle + dx, middle + dy), 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def _draw_occluder(dice: Dice, image: np.ndarray) -> None:
    """A wire, a twig or a scratch."""
    height, width = image.shape[:2]
    start = (dice.below(width), 0 if dice.chance(0.5) else height)
    end = (dice.below(width), dice.below(height))
    colour = dice.vector(0, 255).tolist()
    thick = max(1, int(height * 0.035))
    cv2.line(image, start, end, colour, thick, cv2.LINE_AA)


def draw_quality(dice: Dice, height: int, settings: SimpleNamespace) -> int | None:
    """Returns the JPEG quality of a picture of this height, or None for no JPEG."""
    if not dice.chance(settings.jpeg_share):
        return None
    low, high = settings.jpeg
    if height <= 20:
        low = max(low, settings.jpeg_small)
    return dice.integer(low, max(low, high))


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Returns the picture [h, w, 3] uint8 BGR as JPEG bytes."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()
