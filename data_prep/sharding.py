"""Writes the shards of a dataset in many processes, so that a killed run goes on.

A shard under its final name is complete and stays; one that is missing is written
again. What a run was asked for is kept beside the shards, and a folder that holds
anything else is never touched. Shared by the word generator and the converters.
"""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tqdm

from data_prep import workers
from robustscanner_jax.data import records
from robustscanner_jax.whole_file import write_whole_escaped

REQUEST_NAME = "request.json"  # what was asked for; a rerun must ask for the same

# Called with the work done since the last call, in units of the progress bar.
Tick = Callable[[int], object]
# Writes one shard from its task: (shard, task, writer, tick). Goes into the workers.
WriteShard = Callable[[int, Any, records.RecordWriter, Tick], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shards:
    """The shards of one dataset: `<name>-00000-of-<count>` in `folder`."""

    folder: Path
    name: str
    count: int

    def path(self, shard: int) -> str:
        """Returns where one shard lies once it is complete."""
        return records.shard_path(self.folder, self.name, shard, self.count)


def part(shard: int, count: int, num_shards: int) -> range:
    """Returns the items of a shard: an equal part of `count`, in order."""
    return range(shard * count // num_shards, (shard + 1) * count // num_shards)


@contextlib.contextmanager
def claimed(folder: Path, request: dict[str, Any]) -> Iterator[bool]:
    """Keeps a folder to this run, and says whether it holds this dataset, complete.

    Where it does not, the folder exists and holds the request.

    Raises:
      ValueError: another run is writing there, or the folder holds another dataset,
        finished or not, or other files.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output: {folder} is a file; expected a folder")
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"output: another run is writing {folder}; wait for it, or stop it"
            ) from None
        except OSError:  # a mounted bucket may have no locks
            pass
        yield _is_complete(folder, request)
    finally:
        os.close(held)


def _is_complete(folder: Path, request: dict[str, Any]) -> bool:
    known = folder / REQUEST_NAME
    if known.is_file():
        theirs = json.loads(known.read_text(encoding="utf-8"))
        # Datasets of older versions do not say what their input listed.
        if theirs != {k: v for k, v in request.items() if k != "list" or k in theirs}:
            raise ValueError(
                f"output: {folder} holds a dataset of other settings, or of an input "
                "that was changed since; choose another folder, or delete it (its "
                f"settings are in {REQUEST_NAME})"
            )
        return (folder / records.INDEX_NAME).is_file()
    if any(folder.iterdir()):
        raise ValueError(f"output: {folder} is not empty; choose another folder")
    text = json.dumps(request, indent=2, ensure_ascii=False) + "\n"
    write_whole_escaped(known, text)
    return False


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Makes SIGTERM end the block as Ctrl-C does: what is half written is removed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def write_shards(
    shards: Shards,
    tasks: Iterable[Sequence[Any]],
    write: WriteShard,
    *,
    processes: int = 0,
    progress: bool = False,
    total: int,
    unit: str,
) -> int:
    """Writes every shard that is missing, and returns the items it worked on.

    Args:
      shards: where they belong.
      tasks: the items of each shard, in order. Taken up as they are needed: a few
        tasks for each worker are in memory at any time.
      write: must survive pickling where there is more than one process.
      processes: workers; 0 takes one a core it may use, 1 works in this process.
      progress: whether to draw a progress bar, of `total` items called `unit`.

    Raises what `write` raises, and `OSError` where a worker is killed.
    """
    present = set(filter(os.path.exists, map(shards.path, range(shards.count))))
    missing = shards.count - len(present)
    processes = workers.count(processes, missing)
    bar = tqdm.tqdm(total=total, unit=unit, disable=not progress)

    def missing_tasks() -> Iterable[tuple[int, Sequence[Any]]]:
        for shard, task in enumerate(tasks):
            if shards.path(shard) in present:
                bar.update(len(task))
            else:
                yield shard, task

    with bar:
        if processes == 1:
            done = 0
            for shard, task in missing_tasks():
                write_one(shard, task, shards=shards, write=write, tick=bar.update)
                done += len(task)
            return done
        return _write_in_workers(missing_tasks(), shards, write, processes, bar)


def _write_in_workers(
    tasks: Iterable[tuple[int, Sequence[Any]]],
    shards: Shards,
    write: WriteShard,
    processes: int,
    bar: tqdm.tqdm,
) -> int:
    done, running = 0, {}
    opened = workers.open_workers(
        processes,
        functools.partial(write_one, shards=shards, write=write),
        where=str(shards.folder),
        advice="the same command with fewer --processes goes on from here",
    )

    def collect(when: str) -> int:
        ended, _ = concurrent.futures.wait(running, return_when=when)
        sizes = [(running.pop(future), future.result())[0] for future in ended]
        bar.update(sum(sizes))
        return sum(sizes)

    with opened as pool:
        for shard, task in tasks:
            if len(running) >= 2 * processes:
                done += collect(concurrent.futures.FIRST_COMPLETED)
            running[pool.submit(workers.call, shard, task)] = len(task)
        while running:
            done += collect(concurrent.futures.FIRST_COMPLETED)
    return done


def write_one(
    shard: int,
    task: Sequence[Any],
    *,
    shards: Shards,
    write: WriteShard,
    tick: Tick = lambda _: None,
) -> None:
    """Writes one shard, after what a killed run left of it is removed."""
    path = shards.path(shard)
    _remove_half_written(path)  # by a killed run
    try:
        with records.RecordWriter(path) as writer:
            write(shard, task, writer, tick)
    except BaseException:
        _remove_half_written(path)  # Ctrl-C may come before the block is entered
        raise


def _remove_half_written(path: str) -> None:
    for left in Path(path).parent.glob(f"{os.path.basename(path)}.*.tmp"):
        left.unlink(missing_ok=True)
