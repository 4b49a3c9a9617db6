"""From the files of images to rows, in threads beside the event loop."""

import asyncio
import dataclasses
import functools
import itertools
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from robustscanner_jax.data.images import decode_image
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.regions import cut_out
from robustscanner_jax.serving.requests import Order
from robustscanner_jax.views import AS_IT_IS, View, Views

log = logging.getLogger(__name__)

T = TypeVar("T")

# A progressive JPEG has about ten. Each costs a pass over all pixels, and 36 bytes may
# be enough for one: of 20 million pixels, 300 take 3.6 s.
MAX_SCANS = 100
MAX_MARKERS = 10_000
# Words hardly overlap. Cutting out a page of 20 million pixels takes a second.
MOST_CUT = 4

_JPEG = b"\xff\xd8\xff"
# Neither a stuffed byte of coded pixels nor a restart within them.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_TEMPORARY, _START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0x01, 0xD8, 0xD9, 0xDA


def check_scans(data: bytes) -> None:
    """Counts the scans of a JPEG up to its end; other files pass.

    Metadata, such as a smaller picture, are passed over, and what follows the end, such
    as the film of a phone's photo, is not looked at: a decoder does neither.

    Raises:
      ValueError: more than `MAX_SCANS`, or than `MAX_MARKERS` of all kinds.
    """
    if not data.startswith(_JPEG):
        return
    scans, markers, place = 0, 0, 2
    while (found := _MARKER.search(data, place)) and found[1][0] != _END_OF_IMAGE:
        kind, place = found[1][0], found.end()
        markers += 1
        scans += kind == _START_OF_SCAN
        if scans > MAX_SCANS:
            raise ValueError(f"a JPEG of over {MAX_SCANS} scans")
        if markers > MAX_MARKERS:
            raise ValueError(f"a JPEG of over {MAX_MARKERS:,} markers")
        if kind not in (_TEMPORARY, _START_OF_IMAGE):
            place += int.from_bytes(data[place : place + 2])


@dataclasses.dataclass(frozen=True)
class Rule:
    """What becomes of an encoded image.

    Attributes:
      preprocessing: from its pixels to a row.
      max_pixels: more are not decoded.
      views: which there are of a crop.
    """

    preprocessing: Preprocessing
    max_pixels: int
    views: Views = AS_IT_IS


# The views to read of a crop, or in one sentence why there are none.
Crop = list[View] | str


def crops_of(data: bytes, regions: list | None, rule: Rule) -> list[Crop]:
    """Returns an encoded image as a whole, or each of its regions."""
    count = 1 if regions is None else len(regions)
    try:
        check_scans(data)
        page = decode_image(data, max_pixels=rule.max_pixels)
    except ValueError as error:
        return [str(error)] * count
    except Exception as error:  # a decoder's bug costs one image, not the request
        log.warning("an image could not be decoded: %r", error)
        return ["the image cannot be decoded"] * count
    if regions is None:
        return [_crop(page, rule)]
    return _crops_of_regions(page, regions, rule)


def _crop(image: np.ndarray, rule: Rule) -> Crop:
    try:
        return rule.views.of(image, rule.preprocessing)
    except ValueError as error:
        return str(error)


def _crops_of_regions(page: np.ndarray, regions: list, rule: Rule) -> list[Crop]:
    """Returns each region, as long as they do not cut the page too often."""
    crops: list[Crop] = []
    left = MOST_CUT * page.shape[0] * page.shape[1]
    for region in regions:
        if left < 0:
            crops.append(f"the regions before cover {MOST_CUT} times the page")
            continue
        try:
            pixels = cut_out(page, region)
        except ValueError as error:
            crops.append(str(error))
            continue
        left -= pixels.shape[0] * pixels.shape[1]
        crops.append(_crop(pixels, rule))
    return crops


class Decoders:
    """Two threads for what would hold up the event loop.

    Args:
      rule: what becomes of images.
    """

    def __init__(self, rule: Rule):
        self._rule = rule
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="decode")

    async def run(self, function: Callable[[], T]) -> T:
        """Returns what the function gives, called in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def crops(self, order: Order) -> list[Crop]:
        """Returns what an order asks to read."""
        waiting = [
            self.run(functools.partial(crops_of, data, order.regions, self._rule))
            for data in order.images
        ]
        return list(itertools.chain.from_iterable(await asyncio.gather(*waiting)))

    def close(self) -> None:
        """Begins nothing more; what nobody waits for is not waited for here either."""
        self._threads.shutdown(wait=False, cancel_futures=True)
