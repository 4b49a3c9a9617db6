"""Renders words into a sharded ArrayRecord dataset.

Run: python -m data_prep.synthesize --output=DIR --count=100000 --seed=1
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence

from ml_collections import ConfigDict

from data_prep.beam_shards import BEAM_HELP
from data_prep.sharding import sigterm_as_ctrl_c
from data_prep.synthetic import presets, words
from data_prep.synthetic.dataset import synthesize


def _changed_settings(preset: str, changes: Sequence[str]) -> ConfigDict:
    """Returns a preset with `section.key=value` applied; values are JSON or text."""
    chosen = presets.get_settings(preset)
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"--set: expected section.key=value, got {change!r}")
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            parsed = value
        if isinstance(parsed, list):
            parsed = tuple(parsed)
        try:
            chosen.update_from_flattened_dict({key: parsed})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"--set={change}: {error}") from error
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.synthesize",
        description="Renders words into a sharded ArrayRecord dataset.",
    )
    add = parser.add_argument
    add("--output", required=True, help="folder of the dataset")
    add("--count", type=int, required=True, help="words to render")
    add("--seed", type=int, default=0, help="names the sequence of words")
    add("--preset", default="full", choices=presets.PRESETS, help="look and words")
    add("--split", default="train", choices=words.SPLITS, help="spellings to show")
    add("--processes", type=int, default=0, help="workers; 0: one a core")
    add("--shards", type=int, default=0, help="files; 0: one for each 10,000 words")
    add("--beam", metavar="OPTIONS", help=BEAM_HELP.format("renders"))
    add("--beam_output", help="what Beam's workers call the output: gs://BUCKET/words")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="changes a setting of the preset, such as degrade.jpeg_share=0",
    )
    flags = parser.parse_args(arguments)
    try:
        with sigterm_as_ctrl_c():
            folder = synthesize(
                os.path.expanduser(flags.output),
                count=flags.count,
                seed=flags.seed,
                preset=flags.preset,
                render_settings=_changed_settings(flags.preset, flags.set),
                split=flags.split,
                processes=flags.processes,
                shards=flags.shards,
                progress=sys.stderr.isatty(),
                beam=None if flags.beam is None else shlex.split(flags.beam),
                beam_output=flags.beam_output,
            )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sys.exit(f"synthesize: {error}")
    except KeyboardInterrupt:
        sys.exit("synthesize: stopped; the same command goes on from here")
    print(f"{folder}: {flags.count} words")


if __name__ == "__main__":
    main()
