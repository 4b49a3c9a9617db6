"""Rows of many requests, computed together; admission, isolation and draining."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from robustscanner_jax.preprocessing import Row
from robustscanner_jax.reading import Reading
from robustscanner_jax.serving.measures import Measures

log = logging.getLogger(__name__)

ReadRows = Callable[[Sequence[Row]], list[Reading]]


class QueueFull(Exception):
    """More images are admitted than the queue takes."""


class _Job(NamedTuple):
    row: Row
    answer: asyncio.Future


class Batcher:
    """Collects rows into batches and computes them one batch at a time.

    A batch starts at once when `batch_size` rows wait, else `delay` seconds after its
    first row. While it computes, the next one fills.

    Args:
      read_rows: computes; called in a thread of its own, never twice at once.
      batch_size: most rows of a call.
      capacity: most crops admitted at once, waiting or computed.
      delay: seconds.
      measures: where batches and the queue's length are counted.
    """

    def __init__(
        self,
        read_rows: ReadRows,
        *,
        batch_size: int,
        capacity: int,
        delay: float,
        measures: Measures,
    ):
        self._read_rows = read_rows
        self._batch_size = batch_size
        self._capacity = capacity
        self._delay = delay
        self._measures = measures
        self._admitted = 0
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._worker: asyncio.Task | None = None
        measures.capacity.set(capacity)

    def start(self) -> None:
        """Begins to compute; from inside the event loop."""
        self._worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Waits for every admitted row, then stops."""
        while self._admitted:
            await asyncio.sleep(0.01)
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._thread.shutdown()

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        """Returns what something else gives that runs where batches are computed."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    @contextlib.contextmanager
    def admitted(self, count: int) -> Iterator[None]:
        """Holds places for `count` crops.

        Raises:
          QueueFull: so many more do not fit; at once, nothing waits for a place.
        """
        if self._admitted + count > self._capacity:
            raise QueueFull(
                f"{self._admitted} of {self._capacity} images are waiting already"
            )
        self._admitted += count
        self._measures.queue.set(self._admitted)
        try:
            yield
        finally:
            self._admitted -= count
            self._measures.queue.set(self._admitted)

    async def read(self, rows: Sequence[Row]) -> list[Reading | Exception]:
        """Returns a reading or an error for each row; the caller holds their places.

        A cancelled call's rows are dropped unless their batch has begun.
        """
        loop = asyncio.get_running_loop()
        jobs = [_Job(row, loop.create_future()) for row in rows]
        for job in jobs:
            self._jobs.put_nowait(job)
        try:
            return await asyncio.gather(*(job.answer for job in jobs))
        finally:
            for job in jobs:
                job.answer.cancel()

    async def _collect(self) -> list[_Job]:
        jobs = [await self._jobs.get()]
        end = time.monotonic() + self._delay
        while len(jobs) < self._batch_size:
            if self._jobs.empty():
                rest = end - time.monotonic()
                if rest <= 0:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest):
                        jobs.append(await self._jobs.get())
            else:
                jobs.append(self._jobs.get_nowait())
        return jobs

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            jobs = [job for job in await self._collect() if not job.answer.done()]
            if not jobs:
                continue
            rows = [job.row for job in jobs]
            answers = await loop.run_in_executor(self._thread, self._compute, rows)
            for job, answer in zip(jobs, answers, strict=True):
                if not job.answer.done():
                    job.answer.set_result(answer)

    def _compute(self, rows: list[Row]) -> list[Reading | Exception]:
        """Returns an answer for each row; one that breaks the batch fails alone."""
        start = time.perf_counter()
        try:
            return list(self._read_rows(rows))
        except Exception as error:
            log.exception("a batch of %d images failed", len(rows))
            if len(rows) == 1:
                return [error]
            return [answer for row in rows for answer in self._compute([row])]
        finally:
            self._measures.compute_seconds.observe(time.perf_counter() - start)
            self._measures.batch_images.observe(len(rows))
