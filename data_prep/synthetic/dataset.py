"""Rendered words as a sharded ArrayRecord dataset, written by processes or machines."""

import functools
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_prep.beam_shards import write_shards_with_beam
from data_prep.sharding import Shards, Tick, claimed, part, write_shards
from data_prep.synthetic import fonts, presets, settings, vocabulary, words
from data_prep.synthetic.render import WordRenderer
from robustscanner_jax.data import records

NAME = "words"  # of the dataset; its shards' names begin with it
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
    beam: Sequence[str] | None = None,
    beam_output: str | None = None,
) -> Path:
    """Renders words 0 to `count` - 1 into a dataset folder, and returns the folder.

    The bytes depend on the arguments, the fonts and the word list, not on
    `processes`. A run that was stopped is taken up again by the same call: finished
    shards stay. The index is written last, so a folder with one is complete.

    Args:
      output: folder, made if missing.
      count: words in all shards together.
      seed: names the sequence of words.
      preset: one of `presets.PRESETS`; only a name where `render_settings` are given.
      render_settings: from `presets.get_settings`, changed at will.
      split: `train`, `heldout` or `any` spellings, see `words.belongs`.
      processes: workers; 0 takes one a core, 1 renders in this process.
      shards: files; 0 takes one for each 10,000 words.
      progress: whether to draw a progress bar.
      beam: options of an Apache Beam pipeline, which then renders in place of processes
        here; every worker must have the fonts and the word list.
      beam_output: what the pipeline's workers call `output`, such as `gs://bucket/words`;
        None where they see it under the same path.

    Raises:
      ValueError: the arguments make no sense, or the folder holds something else.
      FileNotFoundError: there are no fonts or no words.
    """
    for name, value, least in (
        ("count", count, 1),
        ("seed", seed, 0),
        ("processes", processes, 0),
        ("shards", shards, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    if beam_output is not None and beam is None:
        raise ValueError("beam_output: expected options of a pipeline in beam as well")
    output = Path(os.path.abspath(os.path.expanduser(output)))
    if render_settings is None:
        render_settings = presets.get_settings(preset)
    renderer = WordRenderer(render_settings, seed=seed, split=split)
    shards = min(count, shards or -(-count // _SHARD_WORDS))
    request = {
        "generator": "data_prep.synthesize",
        "count": count,
        "seed": seed,
        "split": split,
        "shards": shards,
        **_ingredients(render_settings),
        "settings": json.loads(render_settings.to_json(sort_keys=True)),
    }
    wanted = Shards(folder=output, name=NAME, count=shards)
    tasks = (part(shard, count, shards) for shard in range(shards))
    write = functools.partial(
        _write_words, renderer=renderer, prefix=f"rendered/{preset}/{seed}"
    )
    with claimed(output, request) as complete:
        if complete:
            return output
        if beam is None:
            write_shards(
                wanted,
                tasks,
                write,
                processes=processes,
                progress=progress,
                total=count,
                unit="word",
            )
        else:
            write_shards_with_beam(wanted, tasks, write, beam, store=beam_output)
        records.write_index(
            output,
            name=NAME,
            count=count,
            num_shards=shards,
            charset=words.CHARACTERS,
            source=request,
        )
    return output


def _ingredients(render_settings: ConfigDict) -> dict[str, Any]:
    """Returns what marks the fonts and the words; fails early where they are missing.

    Fonts count by their file names: a bundle draws what the whole fonts draw.
    """
    options = settings.plain(render_settings)
    names = [path.name for _, path in fonts.find_fonts(options.fonts)]
    known = vocabulary.load_vocabulary(options.words)
    pairs = zip(known.words, known.frequencies, strict=True)
    return {
        "font_files": len(names),
        "font_names_crc32": zlib.crc32("\n".join(names).encode()),
        "words_crc32": zlib.crc32("\n".join(f"{w}\t{f!r}" for w, f in pairs).encode()),
    }


def _write_words(
    shard: int,
    indices: Sequence[int],
    writer: records.RecordWriter,
    tick: Tick,
    *,
    renderer: WordRenderer,
    prefix: str,
) -> None:
    """Renders the words of one shard; the words depend on their indices alone."""
    del shard
    for index in indices:
        image, text = renderer.render_jpeg(index)
        writer.write(records.Record(f"{prefix}/{index:06d}", image, text))
        tick(1)
