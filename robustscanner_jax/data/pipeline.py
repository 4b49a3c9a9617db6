"""Sources to host-local batches: mixture, order, sharding over processes, workers.

The batch is the contract between data and network; `fake_batch` makes one:

    image    [b, h, w, 3]  uint8, the rule's channel order, zeros right of the content
    width    [b]           int32, content pixels
    tokens   [b, t + 1]    int32: start, text, end, padding
    weight   [b]           float32, 0 for filler rows
    problem  [b]           int8, see `transforms.Problem`; stays on the host
    id       [b]           names of the records; stays on the host

No JAX in here: this runs in worker processes.
"""

import dataclasses
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np
from absl import flags

from robustscanner_jax import logs
from robustscanner_jax.charset import Charset
from robustscanner_jax.data.mixture import Reference, mixed_references
from robustscanner_jax.data.reads import Element, Lost, Source, read_elements
from robustscanner_jax.data.transforms import BatchRow, Prepare, pixels_of
from robustscanner_jax.preprocessing import Preprocessing, Row, resize_and_pad
from robustscanner_jax.views import View

Batch = dict[str, np.ndarray]
# Records of one call in evaluation: a few such calls, in threads, fill a batch.
_READ_TOGETHER = 32
_READING_THREADS = 8
DEVICE_KEYS = ("image", "width", "tokens", "weight")


@dataclasses.dataclass(frozen=True)
class Share:
    """This process among those that train together: its rows of every batch.

    Attributes:
      index: of the process, from 0.
      count: of all of them.
    """

    index: int = 0
    count: int = 1


_WHOLE_BATCH = Share()


def training_batches(
    sources: Sequence[Source],
    weights: Sequence[float],
    *,
    prepare: Prepare,
    batch_size: int,
    seed: int,
    num_workers: int,
    start: int = 0,
    share: Share = _WHOLE_BATCH,
) -> grain.IterDataset:
    """Returns an endless dataset of batches, the same for any number of workers.

    Every epoch of a source is a new permutation. Batch k of all processes together
    holds the same examples whatever their number is: each process takes every
    `share.count`-th of them. The sources of a mixture are shuffled within the batch,
    so that every process, and every micro-batch, has its share of each.

    Args:
      sources: what `data.sources.open_source` returns.
      weights: share of each source in the mixture; need not sum to 1.
      prepare: makes the rows of an example, `prepare.variants` of them.
      batch_size: rows over all processes.
      seed: of order and augmentation.
      num_workers: processes that prepare batches; 0 prepares in threads of this one.
      start: batches to leave out; batch k is the same whatever `start` is, so a run
        resumes by its number of updates.
      share: which rows are this process's.

    Raises:
      ValueError: no sources, an empty one, weights that do not fit, or a batch size
        that the processes cannot share evenly.
    """
    num_examples, rest = divmod(batch_size, share.count * prepare.variants)
    if rest:
        raise ValueError(
            f"batch_size {batch_size} cannot be split over {share.count} processes "
            f"with {prepare.variants} variants an example"
        )
    window = batch_size // prepare.variants
    references = mixed_references(sources, weights, seed=seed, window=window)
    # Batching before `to_iter_dataset` makes a batch one element for the workers: the
    # order does not depend on how many there are. And before reading, as records that
    # are asked for together come in a fraction of the time.
    mine = references[share.index :: share.count].batch(num_examples, batch_fn=list)
    return _prefetched(mine.map(ReadBatch(sources, prepare))[start:], num_workers)


def _prefetched(batches: grain.MapDataset, num_workers: int) -> grain.IterDataset:
    if num_workers == 0:
        return batches.to_iter_dataset(
            grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
        )
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads flags; in a notebook nobody parses
    return batches.to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    ).mp_prefetch(
        grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2),
        worker_init_fn=_live_as_long_as_the_parent,
    )


@dataclasses.dataclass(frozen=True)
class ReadBatch:
    """Turns the references of a batch into the batch: one read a source, then rows."""

    sources: Sequence[Source]
    prepare: Prepare

    def __call__(self, references: Sequence[Reference]) -> Batch:
        """Returns one array a key, rows in the order of the references."""
        elements: dict[tuple[int, int], Element | Lost] = {}
        for number, source in enumerate(self.sources):
            wanted = sorted(
                {index for owner, index, _ in references if owner == number}
            )
            if wanted:
                found = read_elements(source, wanted)
                keys = ((number, index) for index in wanted)
                elements |= zip(keys, found, strict=True)
        rng = np.random.Generator(np.random.Philox())  # as grain's own
        rows = []
        for number, index, state in references:
            rng.bit_generator.state = state
            rows += self.prepare(elements[number, index], rng)
        rows = _filled(rows)
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _filled(rows: Sequence[BatchRow]) -> list[BatchRow]:
    """Returns rows of weight 0 with the pixels of good ones, where there are any.

    Batch norm sees every row: black ones would move its mean and variance.
    """
    good = [row for row in rows if row["weight"]]
    if not good:
        return list(rows)
    fillers = itertools.cycle(good)
    return [
        row if row["weight"] else row | {key: filler[key] for key in ("image", "width")}
        for row, filler in zip(rows, fillers, strict=False)
    ]


def _live_as_long_as_the_parent(worker: int, workers: int) -> None:
    """Prepares a worker process: its log, and that it leaves when its parent does.

    Not earlier, where Ctrl-C or a scheduler signals the whole group: the parent needs
    its batches to come to the step that it saves. Not later, where that is killed.
    """
    del worker, workers
    logs.show()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@dataclasses.dataclass(frozen=True)
class EvaluationRecord:
    """What is behind a row of an evaluation batch.

    Attributes:
      id: of the record.
      text: its label; empty where that is lost.
      error: what is damaged; None where nothing is.
      size: height and width of the crop in pixels; None where it is damaged.
      more_views: of its pixels, besides its row in the batch.
    """

    id: str
    text: str
    error: str | None = None
    size: tuple[int, int] | None = None
    more_views: Sequence[View] = ()


def evaluation_batches(
    source: Source,
    *,
    rule: Preprocessing,
    batch_size: int,
    more_views: Callable[[np.ndarray], Sequence[View]] | None = None,
) -> Iterator[tuple[Batch, list[EvaluationRecord]]]:
    """Yields a source once, in order: batches, and the records behind their rows.

    The last batch is filled up with rows of weight 0. An unreadable image keeps its
    place, black and of weight 0, and its record has an `error`: it counts as misread
    rather than vanishing.

    Args:
      source: what to read.
      rule: of the rows.
      batch_size: rows of every batch.
      more_views: made of a crop's BGR pixels, kept in its record; called in the threads
        that decode. A `ValueError` of it counts as an unreadable image.
    """

    def read(places: Sequence[int]) -> list[tuple[Row, EvaluationRecord]]:
        return [_as_row(e, rule, more_views) for e in read_elements(source, places)]

    chunks = grain.MapDataset.range(len(source)).batch(_READ_TOGETHER, batch_fn=list)
    ahead = max(_READING_THREADS, 2 * batch_size // _READ_TOGETHER)
    options = grain.ReadOptions(_READING_THREADS, prefetch_buffer_size=ahead)
    pending: list[tuple[Row, EvaluationRecord]] = []
    for prepared in chunks.map(read).to_iter_dataset(options):
        pending += prepared
        while len(pending) >= batch_size:
            yield _evaluation_batch(pending[:batch_size], batch_size)
            pending = pending[batch_size:]
    if pending:
        yield _evaluation_batch(pending, batch_size)


def _as_row(
    element: Element | Lost,
    rule: Preprocessing,
    more_views: Callable[[np.ndarray], Sequence[View]] | None,
) -> tuple[Row, EvaluationRecord]:
    if "error" in element:
        error = element["error"]
    else:
        try:
            pixels = pixels_of(element)
            row, size = resize_and_pad(pixels, rule), pixels.shape[:2]
            more = more_views(pixels) if more_views else ()
            record = EvaluationRecord(element["id"], element["text"], None, size, more)
            return row, record
        except ValueError as unreadable:
            error = str(unreadable)
    black = np.zeros((rule.height, rule.max_width, 3), np.uint8), rule.min_width
    return black, EvaluationRecord(element["id"], element.get("text", ""), error)


def _evaluation_batch(
    prepared: list[tuple[Row, EvaluationRecord]], batch_size: int
) -> tuple[Batch, list[EvaluationRecord]]:
    records = [record for _, record in prepared]
    rows = [row for row, _ in prepared]
    rows += [rows[0]] * (batch_size - len(rows))
    weight = np.zeros(batch_size, np.float32)
    weight[: len(records)] = [record.error is None for record in records]
    batch = {
        "image": np.stack([pixels for pixels, _ in rows]),
        "width": np.array([width for _, width in rows], np.int32),
        "weight": weight,
    }
    return batch, records


def fake_batch(
    batch_size: int,
    *,
    charset: Charset,
    rule: Preprocessing,
    max_len: int,
    seed: int = 0,
) -> Batch:
    """Returns a random batch of the right shapes, for tests and benchmarks."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (batch_size, rule.height, rule.max_width, 3), np.uint8)
    columns = np.arange(rule.min_width, rule.max_width + 1, rule.width_multiple)
    width = rng.choice(columns, batch_size).astype(np.int32)
    padding = np.arange(rule.max_width)[None, :] >= width[:, None]  # [b, w]
    image = np.where(padding[:, None, :, None], np.uint8(0), image)
    texts = [
        "".join(rng.choice(list(charset.characters), rng.integers(1, max_len)))
        for _ in range(batch_size)
    ]
    return {
        "id": np.array([f"fake/{i}" for i in range(batch_size)]),
        "image": image,
        "width": width,
        "tokens": np.array([charset.to_tokens(t, max_len) for t in texts], np.int32),
        "weight": np.ones(batch_size, np.float32),
        "problem": np.zeros(batch_size, np.int8),
    }
