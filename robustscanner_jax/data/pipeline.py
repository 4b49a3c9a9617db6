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
import functools
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import grain.experimental
import numpy as np
from absl import flags

from robustscanner_jax.charset import Charset
from robustscanner_jax.data.reads import Element, read_elements
from robustscanner_jax.data.transforms import Prepare, pixels_of
from robustscanner_jax.preprocessing import Preprocessing, resize_and_pad

Batch = dict[str, np.ndarray]
# What stands for an example until its batch is read: the number of its source, its
# place there, and the state of the generator that drives its augmentation.
Reference = tuple[int, int, Any]
# Records of one call in evaluation: a few such calls, in threads, fill a batch.
_READ_TOGETHER = 32
DEVICE_KEYS = ("image", "width", "tokens", "weight")


def training_batches(
    sources: Sequence[Any],
    weights: Sequence[float],
    *,
    charset: Charset,
    rule: Preprocessing,
    max_len: int,
    augment_strength: float,
    batch_size: int,
    variants: int = 1,
    seed: int,
    num_workers: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset:
    """Returns an endless dataset of batches, the same for any number of workers.

    Every epoch of a source is a new permutation. Batch k of all processes together
    holds the same examples whatever `process_count` is: each process takes every
    `process_count`-th of them. The sources of a mixture are shuffled within the batch,
    so that every process, and every micro-batch, has its share of each.

    Args:
      sources: what `data.sources.open_source` returns.
      weights: share of each source in the mixture; need not sum to 1.
      charset, rule, max_len, augment_strength: see `transforms.Prepare`.
      batch_size: rows over all processes.
      variants: rows made of each example, differing in augmentation.
      seed: of order and augmentation.
      num_workers: processes that prepare batches; 0 prepares in threads of this one.
      start: batches to leave out; batch k is the same whatever `start` is, so a run
        resumes by its number of updates.
      process_index, process_count: this process among those that train together.

    Raises:
      ValueError: no sources, an empty one, weights that do not fit, or a batch size
        that the processes cannot share evenly.
    """
    if not sources or len(sources) != len(weights) or min(weights) <= 0:
        raise ValueError(
            "expected at least one source and a positive weight for each, "
            f"got {len(sources)} sources and weights {list(weights)}"
        )
    for source in sources:
        if len(source) == 0:
            raise ValueError(f"source {source.name}: expected examples, it has none")
    if batch_size % (process_count * variants):
        raise ValueError(
            f"batch_size {batch_size} cannot be split over {process_count} processes "
            f"with {variants} variants an example"
        )
    mixed = grain.MapDataset.mix(
        [
            grain.MapDataset.range(len(source))
            .seed(seed + number)
            .shuffle()
            .repeat()
            .map(functools.partial(_refer, number))
            for number, source in enumerate(sources)
        ],
        weights=list(weights),
    )
    # Before the split over processes, so that the augmentation of an example does not
    # depend on their number.
    references: Any = mixed.seed(seed).random_map(_with_generator_state)
    if len(sources) > 1:
        # Grain mixes by a fixed pattern, such as one of each in turn.
        references = grain.experimental.WindowShuffleMapDataset(
            references, window_size=batch_size // variants, seed=seed
        )
    references = references[process_index::process_count]
    # Batching before `to_iter_dataset` makes a batch one element for the workers: the
    # order does not depend on how many there are. And before reading, as records that
    # are asked for together come in a fraction of the time.
    prepare = Prepare(charset, rule, max_len, augment_strength, variants)
    batches = references.batch(
        batch_size // (process_count * variants), batch_fn=list
    ).map(ReadBatch(sources, prepare))[start:]
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


def _refer(source: int, index: int) -> tuple[int, int]:
    return source, int(index)


def _with_generator_state(
    example: tuple[int, int], rng: np.random.Generator
) -> Reference:
    # The generator itself serves the next example.
    return *example, rng.bit_generator.state


@dataclasses.dataclass(frozen=True)
class ReadBatch:
    """Turns the references of a batch into the batch: one read a source, then rows."""

    sources: Sequence[Any]
    prepare: Prepare

    def __call__(self, references: Sequence[Reference]) -> Batch:
        """Returns one array a key, rows in the order of the references."""
        elements: dict[tuple[int, int], Element] = {}
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


def _filled(rows: Sequence[Element]) -> list[Element]:
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
    """Prepares a worker process: it neither leaves earlier than its parent nor later.

    Not earlier, where Ctrl-C or a scheduler signals the whole group: the parent needs
    its batches to come to the step that it saves. Not later, where that is killed.
    """
    del worker, workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def evaluation_batches(
    source: Any, *, rule: Preprocessing, batch_size: int, num_threads: int = 8
) -> Iterator[tuple[Batch, list[Element]]]:
    """Yields a source once, in order: batches, and the elements behind their rows.

    The last batch is filled up with rows of weight 0. An unreadable image keeps its
    place, black and of weight 0, and its element has an `error`: it counts as misread
    rather than vanishing.
    """

    def prepare(element: Element) -> Element:
        if "error" not in element:
            try:
                pixels, width = resize_and_pad(pixels_of(element), rule)
                return {**element, "image": pixels, "width": width}
            except ValueError as error:
                element = {**element, "error": str(error)}
        blank = np.zeros((rule.height, rule.max_width, 3), np.uint8)
        return {**element, "image": blank, "width": rule.min_width}

    def read(places: Sequence[int]) -> list[Element]:
        return [prepare(element) for element in read_elements(source, places)]

    chunks = grain.MapDataset.range(len(source)).batch(_READ_TOGETHER, batch_fn=list)
    options = grain.ReadOptions(
        num_threads=num_threads,
        prefetch_buffer_size=max(num_threads, 2 * batch_size // _READ_TOGETHER),
    )
    pending: list[Element] = []
    for rows in chunks.map(read).to_iter_dataset(options):
        pending += rows
        while len(pending) >= batch_size:
            yield _evaluation_batch(pending[:batch_size], batch_size)
            pending = pending[batch_size:]
    if pending:
        yield _evaluation_batch(pending, batch_size)


def _evaluation_batch(
    rows: list[Element], batch_size: int
) -> tuple[Batch, list[Element]]:
    filler = [rows[0]] * (batch_size - len(rows))
    weight = [float("error" not in row) for row in rows] + [0.0] * len(filler)
    batch = {
        "image": np.stack([row["image"] for row in rows + filler]),
        "width": np.array([row["width"] for row in rows + filler], np.int32),
        "weight": np.array(weight, np.float32),
    }
    elements = [{k: v for k, v in row.items() if k != "image"} for row in rows]
    return batch, elements


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
