"""Writes the shards of a dataset in an Apache Beam pipeline, on many machines.

One element of the pipeline is one shard, whose items lie in a file beside the shards.
Workers see the output folder under the same path as the machine that starts them (a
network file system), or, where they cannot mount anything, as a `store` such as
`gs://bucket/words`. Shards are those that local processes write.
"""

import dataclasses
import functools
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.sharding import Shards, WriteShard, write_one
from robustscanner_jax.whole_file import write_whole

# Of the flag that gives a pipeline's options, and what the pipeline does.
BEAM_HELP = (
    "{} in an Apache Beam pipeline of these options, such as "
    '--beam="--runner=FlinkRunner --flink_master=HOST:8081"; see launch.beam_pipeline'
)
_TASKS_NAME = "tasks"  # the items of each shard, while the pipeline runs


def write_shards_with_beam(
    shards: Shards,
    tasks: Iterable[Sequence[Any]],
    write: WriteShard,
    options: Sequence[str],
    *,
    store: str | None = None,
) -> int:
    """Writes every shard that is missing, and returns the items it worked on.

    Args:
      shards: where they belong.
      tasks: the items of each shard, in order.
      write: see `sharding.write_shards`; must survive pickling.
      options: of the pipeline, such as `--runner=DataflowRunner`.
      store: what the workers call the folder of the shards, in the words of Beam's
        file systems; None where it has the same path there. `write` must then write
        nothing but the shard.

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
    try:
        for shard, task in enumerate(tasks):
            if not os.path.exists(shards.path(shard)):
                write_whole(_task_path(folder, shard), pickle.dumps(task))
                missing.append(shard)
                items += len(task)
        if missing:
            write_task = functools.partial(
                _write_task, shards=shards, write=write, store=store
            )
            with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
                # Without the shuffle one worker would take all shards.
                shuffled = pipeline | beam.Create(missing) | beam.Reshuffle()
                _ = shuffled | "WriteShard" >> beam.Map(write_task)
    finally:
        shutil.rmtree(folder)
    return items


def _task_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.pickle"


def _write_task(
    shard: int, *, shards: Shards, write: WriteShard, store: str | None
) -> None:
    """Writes one shard; a runner may do so twice, which leaves the same bytes."""
    task_path = _task_path(shards.folder / _TASKS_NAME, shard)
    if store is None:
        task = pickle.loads(task_path.read_bytes())
        write_one(shard, task, shards=shards, write=write)
        return
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.open(FileSystems.join(store, _TASKS_NAME, task_path.name)) as file:
        task = pickle.loads(file.read())
    with tempfile.TemporaryDirectory() as scratch:
        here = dataclasses.replace(shards, folder=Path(scratch))
        write_one(shard, task, shards=here, write=write)
        written = Path(here.path(shard))
        # An object of a store is there as a whole once it is closed, or not at all.
        with (
            open(written, "rb") as source,
            FileSystems.create(FileSystems.join(store, written.name)) as target,
        ):
            shutil.copyfileobj(source, target)
