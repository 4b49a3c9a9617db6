"""Converts word crops of any known format into a sharded ArrayRecord dataset.

Run: python -m data_prep.convert --from=auto --input=PATH --output=DIR

The report goes to stdout and into DIR/report.json. A run that was stopped goes on with
the same command.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from data_prep import builders, conversion_report
from data_prep.beam_shards import BEAM_HELP
from data_prep.checks import Limits
from data_prep.conversion import convert
from data_prep.inputs import FORMATS
from data_prep.sharding import sigterm_as_ctrl_c


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = (*FORMATS, *builders.NAMES)
    add = parser.add_argument
    add(
        "--from",
        dest="from_format",
        default="auto",
        choices=known,
        metavar="FORMAT",
        help=f"a format ({', '.join(FORMATS)}; auto, the default, tells by content) or "
        f"a published dataset ({', '.join(builders.NAMES)})",
    )
    add("--input", required=True, help="file or folder")
    add("--images", help="folder that the paths of a label file are relative to")
    add("--output", required=True, help="folder of the dataset")
    add("--split", help="of a published dataset (default: train)")
    add("--processes", type=int, default=0, help="workers; 0: one a core")
    add("--shards", type=int, default=0, help="files; 0: one for 10,000 records")
    add("--beam", metavar="OPTIONS", help=BEAM_HELP.format("converts"))
    limits = Limits()
    add(
        "--longest_label",
        type=int,
        default=limits.longest_label,
        help="drops longer labels, in characters; 0: none (default: %(default)s)",
    )
    add(
        "--smallest_side",
        type=int,
        default=limits.smallest_side,
        help="drops smaller images, in pixels (default: %(default)s)",
    )
    flags = parser.parse_args(arguments)
    try:
        with sigterm_as_ctrl_c():
            report = convert(
                flags.input,
                flags.output,
                from_format=flags.from_format,
                images=flags.images,
                split=flags.split,
                limits=Limits(
                    longest_label=flags.longest_label, smallest_side=flags.smallest_side
                ),
                processes=flags.processes,
                shards=flags.shards,
                progress=sys.stderr.isatty(),
                beam=None if flags.beam is None else shlex.split(flags.beam),
            )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sys.exit(f"convert: {error}")
    except KeyboardInterrupt:
        sys.exit("convert: stopped; the same command goes on from here")
    print(conversion_report.as_text(report))


if __name__ == "__main__":
    main()
