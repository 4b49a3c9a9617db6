"""From the files of images to rows, in threads beside the event loop."""

import asyncio
import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from robustscanner_jax.data.images import decode_image
from robustscanner_jax.preprocessing import Preprocessing, resize_and_pad
from robustscanner_jax.serving.batching import Row

log = logging.getLogger(__name__)

T = TypeVar("T")

JPEG = b"\xff\xd8\xff"
START_OF_SCAN = b"\xff\xda"
# A progressive JPEG has about ten. Each costs a pass over all pixels, and 36 bytes may
# be enough for one: of 20 million pixels, 300 take 3.6 s.
MAX_SCANS = 100


def check_scans(data: bytes) -> None:
    """Counts the scans of a JPEG by their marker; other files pass.

    Coded pixels hold no marker. Metadata may, by chance once in 65,536 bytes.

    Raises:
      ValueError: more than `MAX_SCANS`.
    """
    if data.startswith(JPEG) and (scans := data.count(START_OF_SCAN)) > MAX_SCANS:
        raise ValueError(f"a JPEG of {scans} scans, expected at most {MAX_SCANS}")


def as_row(data: bytes, *, rule: Preprocessing, max_pixels: int) -> Row | str:
    """Returns the row of an encoded image, or in one sentence why there is none."""
    try:
        check_scans(data)
        return resize_and_pad(decode_image(data, max_pixels=max_pixels), rule)
    except ValueError as error:
        return str(error)
    except Exception as error:  # a decoder's bug costs one image, not the request
        log.warning("an image could not be decoded: %r", error)
        return "the image cannot be decoded"


class Decoders:
    """Two threads for what would hold up the event loop.

    Args:
      rule: what becomes of the pixels.
      max_pixels: of one image.
    """

    def __init__(self, rule: Preprocessing, *, max_pixels: int):
        self._rule = rule
        self._max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="decode")

    async def run(self, function: Callable[[], T]) -> T:
        """Returns what the function gives, called in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def rows(self, images: list[bytes]) -> list[Row | str]:
        """Returns a row for each image, or in one sentence why there is none."""
        decode = functools.partial(as_row, rule=self._rule, max_pixels=self._max_pixels)
        waiting = [self.run(functools.partial(decode, data)) for data in images]
        return await asyncio.gather(*waiting)

    def close(self) -> None:
        """Begins nothing more; what nobody waits for is not waited for here either."""
        self._threads.shutdown(wait=False, cancel_futures=True)
