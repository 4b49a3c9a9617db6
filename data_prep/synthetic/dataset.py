"""Rendered words as a sharded ArrayRecord dataset, written by many processes."""

import concurrent.futures
import functools
import json
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tqdm
from ml_collections import ConfigDict

from data_prep.synthetic import fonts, settings, words
from data_prep.synthetic.render import WordRenderer
from robustscanner_jax.data import records

NAME = "words"  # of the dataset; its shards' names begin with it
REQUEST_NAME = "request.json"  # what was asked for; a rerun must ask for the same
_SHARD_WORDS = 10_000  # about 15 s of one core: what a stopped run loses


def synthesize(
    output: str | os.PathLike[str],
    *,
    count: int,
    seed: int = 0,
    preset: str = "full",
    render_settings: ConfigDict | None = None,
    split: str = "train",
    processes: int = 0,
    shards: int = 0,
    progress: bool = False,
) -> Path:
    """Renders words 0 to `count` - 1 into a dataset folder, and returns the folder.

    The bytes depend on the arguments, the fonts and the word list, not on
    `processes`. A run that was stopped is taken up again by the same call: finished
    shards stay. The index is written last, so a folder with one is complete.

    Args:
      output: folder, made if missing.
      count: words in all shards together.
      seed: names the sequence of words.
      preset: one of `settings.PRESETS`; only a name where `render_settings` are given.
      render_settings: from `settings.get_settings`, changed at will.
      split: `train`, `heldout` or `any` spellings, see `words.belongs`.
      processes: workers; 0 takes one a core, 1 renders in this process.
      shards: files; 0 takes one for each 10,000 words.
      progress: whether to draw a progress bar.

    Raises:
      ValueError: the arguments make no sense, or the folder holds something else.
      FileNotFoundError: there are no fonts or no words.
    """
    for name, value, least in (
        ("count", count, 1),
        ("processes", processes, 0),
        ("shards", shards, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    output = Path(output)
    if render_settings is None:
        render_settings = settings.get_settings(preset)
    renderer = WordRenderer(render_settings, seed=seed, split=split)
    found = fonts.find_fonts(settings.plain(render_settings).fonts)  # fails early
    shards = min(count, shards or -(-count // _SHARD_WORDS))
    request = {
        "generator": "data_prep.synthesize",
        "count": count,
        "seed": seed,
        "split": split,
        "shards": shards,
        "font_files": len(found),
        "settings": json.loads(render_settings.to_json(sort_keys=True)),
    }
    if _is_complete(output, request):
        return output
    _write_whole(output / REQUEST_NAME, json.dumps(request, indent=2) + "\n")
    write = functools.partial(
        _write_shard,
        output=output,
        renderer=renderer,
        prefix=f"rendered/{preset}/{seed}",
        count=count,
        num_shards=shards,
    )
    missing = [
        shard
        for shard in range(shards)
        if not os.path.exists(records.shard_path(output, NAME, shard, shards))
    ]
    _run(write, missing, processes, count, shards, progress)
    records.write_index(
        output,
        name=NAME,
        count=count,
        num_shards=shards,
        charset=words.CHARACTERS,
        source=request,
    )
    return output


def _is_complete(output: Path, request: dict[str, Any]) -> bool:
    """Returns whether the folder holds exactly this dataset.

    Raises ValueError when it holds another one, finished or not, or other files.
    """
    known = output / REQUEST_NAME
    if known.is_file():
        if json.loads(known.read_text()) != request:
            raise ValueError(
                f"output: {output} holds a dataset of other settings; choose another "
                f"folder, or delete it (its settings are in {REQUEST_NAME})"
            )
        return (output / records.INDEX_NAME).is_file()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output: {output} is not empty; choose another folder")
    output.mkdir(parents=True, exist_ok=True)
    return False


def _run(
    write: functools.partial,
    missing: Sequence[int],
    processes: int,
    count: int,
    shards: int,
    progress: bool,
) -> None:
    """Writes the missing shards, in this process or in workers."""
    sizes = [len(_indices(shard, count, shards)) for shard in range(shards)]
    missing_words = sum(sizes[shard] for shard in missing)
    processes = min(processes or os.cpu_count() or 1, max(1, len(missing)))
    bar = tqdm.tqdm(
        total=count,
        initial=count - missing_words,
        unit="word",
        disable=not progress,
    )
    with bar:
        if processes == 1:
            for shard in missing:
                write(shard, bar=bar)
            return
        # A forked child of a threaded parent can hang, so each worker starts afresh.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(
            processes, mp_context=context
        ) as pool:
            futures = {pool.submit(write, shard): shard for shard in missing}
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
                    bar.update(sizes[futures[future]])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _indices(shard: int, count: int, num_shards: int) -> range:
    """Returns the words of a shard: an equal part, in order."""
    return range(shard * count // num_shards, (shard + 1) * count // num_shards)


def _write_shard(
    shard: int,
    *,
    output: Path,
    renderer: WordRenderer,
    prefix: str,
    count: int,
    num_shards: int,
    bar: tqdm.tqdm | None = None,
) -> None:
    path = records.shard_path(output, NAME, shard, num_shards)
    for left in output.glob(f"{os.path.basename(path)}.*.tmp"):  # of a killed run
        left.unlink()
    with records.RecordWriter(path) as writer:
        for index in _indices(shard, count, num_shards):
            image, text = renderer.render_jpeg(index)
            writer.write(records.Record(f"{prefix}/{index:06d}", image, text))
            if bar is not None:
                bar.update()


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
