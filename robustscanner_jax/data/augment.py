"""Random distortions of word crops for training, on OpenCV.

Each is a pure function of a random generator and BGR pixels, mild enough to leave the
label true. Rendered words carry their own degradation and need less of it.
"""

from collections.abc import Callable, Collection

import cv2
import numpy as np
from jaxtyping import UInt8

Image = UInt8[np.ndarray, "h w 3"]


def warp_perspective(rng: np.random.Generator, image: Image) -> Image:
    """Moves the corners by up to 10 % of the height."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + (rng.uniform(-0.1, 0.1, (4, 2)) * height).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(corners, moved)
    return cv2.warpPerspective(
        image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE
    )


def crop_loosely(rng: np.random.Generator, image: Image) -> Image:
    """Moves each side by -4 % to +8 % of the height, as detectors do."""
    height, width = image.shape[:2]
    out = np.round(rng.uniform(-0.04, 0.08, 4) * height).astype(int)
    left, right, top, bottom = out
    inner = image[max(0, -top) : height - max(0, -bottom)]
    inner = inner[:, max(0, -left) : width - max(0, -right)]
    pad = np.maximum([top, bottom, left, right], 0).tolist()
    return cv2.copyMakeBorder(inner, *pad, borderType=cv2.BORDER_REPLICATE)


def blur(rng: np.random.Generator, image: Image) -> Image:
    """Blurs by a Gaussian of up to 4 % of the height."""
    return cv2.GaussianBlur(image, (0, 0), 0.1 + rng.uniform(0, 0.04) * image.shape[0])


def lower_resolution(rng: np.random.Generator, image: Image) -> Image:
    """Scales down to 40 to 90 % and back up, never under 10 pixels of height."""
    height, width = image.shape[:2]
    factor = max(rng.uniform(0.4, 0.9), min(1.0, 10 / height))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def add_noise(rng: np.random.Generator, image: Image) -> Image:
    """Adds Gaussian noise with a deviation of up to 12 grey levels."""
    noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(1, 12)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def jitter_colour(rng: np.random.Generator, image: Image) -> Image:
    """Changes contrast, brightness and the balance of the channels."""
    gain = rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, 3)
    levels = np.arange(256, dtype=np.float32)[:, None] - 128
    table = np.clip(levels * gain + 128 + rng.uniform(-30, 30), 0, 255)
    return cv2.LUT(image, table.astype(np.uint8)[None])


def invert(rng: np.random.Generator, image: Image) -> Image:
    """Swaps light and dark."""
    del rng
    return 255 - image


def compress(rng: np.random.Generator, image: Image) -> Image:
    """Passes through JPEG of quality 25 to 90."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 91))]
    encoded = cv2.imencode(".jpg", image, quality)[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))


# Taller crops are scaled down first: the network sees less, and distorting costs by the
# pixel.
MAX_HEIGHT = 64

# In the order in which a camera would: geometry, optics, sensor, file. The number is
# the probability at full strength.
DISTORTIONS: tuple[tuple[Callable[[np.random.Generator, Image], Image], float], ...] = (
    (warp_perspective, 0.4),
    (crop_loosely, 0.4),
    (jitter_colour, 0.5),
    (invert, 0.1),
    (blur, 0.2),
    (lower_resolution, 0.2),
    (add_noise, 0.2),
    (compress, 0.2),
)
DISTORTION_NAMES = tuple(distort.__name__ for distort, _ in DISTORTIONS)


def augment(
    rng: np.random.Generator,
    image: Image,
    strength: float,
    without: Collection[str] = (),
) -> Image:
    """Applies each distortion with its probability times `strength`, in [0, 1].

    Crops under 8 pixels in a dimension stay as they are, and so does every crop under
    distortions that are named in `without`.
    """
    drawn = rng.random(len(DISTORTIONS)) < strength * np.array(
        [probability * (d.__name__ not in without) for d, probability in DISTORTIONS]
    )
    height, width = image.shape[:2]
    if min(height, width) < 8 or not drawn.any():
        return image
    if height > MAX_HEIGHT:
        size = max(8, round(width * MAX_HEIGHT / height)), MAX_HEIGHT
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    for (distort, _), chosen in zip(DISTORTIONS, drawn, strict=True):
        if chosen:
            image = distort(rng, image)
    return image
