"""Writes the shards of a dataset in an Apache Beam pipeline, on many machines.

One element of the pipeline is one shard, whose items lie in a file beside the shards.
So every worker must see the output folder, and the input, under the same path: a
network file system, or a mounted bucket. Shards are those that local processes write.
"""

import functools
import os
import pickle
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.sharding import Shards, WriteShard, write_one, write_whole

_TASKS_NAME = "tasks"  # the items of each shard, while the pipeline runs


def write_shards_with_beam(
    shards: Shards,
    tasks: Iterable[Sequence[Any]],
    write: WriteShard,
    options: Sequence[str],
) -> int:
    """Writes every shard that is missing, and returns the items it worked on.

    Args:
      shards: where they belong.
      tasks: the items of each shard, in order.
      write: see `sharding.write_shards`; must survive pickling.
      options: of the pipeline, such as `--runner=DataflowRunner`.

    Raises `ValueError` where Apache Beam is not installed, and what the runner raises.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ModuleNotFoundError:
        raise ValueError(
            "--beam needs a package: pip install apache-beam, in the version that the "
            "workers run"
        ) from None
    folder = shards.folder / _TASKS_NAME
    folder.mkdir(exist_ok=True)
    missing, items = [], 0
    for shard, task in enumerate(tasks):
        if not os.path.exists(shards.path(shard)):
            write_whole(_task_path(folder, shard), pickle.dumps(task))
            missing.append(shard)
            items += len(task)
    if missing:
        write_task = functools.partial(
            _write_task, shards=shards, folder=folder, write=write
        )
        with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
            # Without the shuffle one worker would take all shards.
            shuffled = pipeline | beam.Create(missing) | beam.Reshuffle()
            _ = shuffled | "WriteShard" >> beam.Map(write_task)
    shutil.rmtree(folder)
    return items


def _task_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.pickle"


def _write_task(shard: int, *, shards: Shards, folder: Path, write: WriteShard) -> None:
    """Writes one shard; a runner may do so twice, which leaves the same bytes."""
    task = pickle.loads(_task_path(folder, shard).read_bytes())
    write_one(shard, task, shards=shards, write=write, tick=lambda _: None)
