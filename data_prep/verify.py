"""The data doctor: looks at every record of a dataset and says what is wrong with it.

Run: python -m data_prep.verify PATH... [--against BENCHMARK...] [--output=DIR]

A PATH is anything the project opens. The exit status is 1 when something would hurt a
training run. With --output, DIR/verify.json and DIR/verify.html hold the findings.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.diagnosis import Tolerance, as_text, diagnose
from data_prep.examine import Examination, examine
from data_prep.verify_page import build_page
from robustscanner_jax.charset import DICT90, Charset
from robustscanner_jax.data.sources import Source, open_source
from robustscanner_jax.whole_file import write_whole_escaped

JSON_NAME = "verify.json"
PAGE_NAME = "verify.html"


def verify(
    paths: Sequence[str | os.PathLike[str]],
    *,
    against: Sequence[str | os.PathLike[str]] = (),
    images: str | os.PathLike[str] | None = None,
    charset: str = DICT90,
    tolerance: Tolerance | None = None,
    output: str | os.PathLike[str] | None = None,
    processes: int = 0,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Returns the findings on each dataset, see `diagnosis.diagnose`.

    A dataset that cannot be opened has that as its only problem; the others are looked
    at all the same.

    Args:
      paths: the datasets.
      against: test sets whose images should not be in them.
      images: the folder that the paths of label files are relative to.
      charset: the characters that training would know.
      tolerance: from where on a finding is a problem; the default is `Tolerance()`.
      output: folder for the findings and the page, made if missing.
      processes: workers; 0 takes one a core.
      progress: whether to draw progress bars.

    Raises:
      ValueError, FileNotFoundError: a benchmark cannot be opened.
    """
    tolerance = tolerance or Tolerance()

    def look(source: Source) -> Examination:
        return examine(source, charset=charset, processes=processes, progress=progress)

    benchmarks = [open_source(path, images=images) for path in against]
    known = [look(source) for source in benchmarks]
    findings, looked_at = [], []
    for path in paths:
        try:
            source = open_source(path, images=images)
        except (ValueError, OSError) as error:
            problem = f"cannot be opened: {error}"
            findings.append({"path": os.fspath(path), "problems": [problem]})
            looked_at.append(None)
            continue
        seen = look(source)
        found = diagnose(seen, known, tolerance)
        findings.append({"path": os.fspath(path), **found})
        looked_at.append((source, seen))
    if output is not None:
        folder = Path(output).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(findings, indent=2, ensure_ascii=False)
        write_whole_escaped(folder / JSON_NAME, text + "\n")
        page = build_page(findings, looked_at, benchmarks)
        write_whole_escaped(folder / PAGE_NAME, page)
    return findings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH")
    add("--against", nargs="+", action="extend", default=[], metavar="BENCHMARK")
    add("--images", help="folder that the paths of label files are relative to")
    add("--charset", help="dictionary, one character a line; default: the published 90")
    add("--output", help="folder for verify.json and verify.html")
    add("--processes", type=int, default=0, help="workers; 0: one a core")
    default = Tolerance()
    for name, what in (
        ("unusable", "share of records that cannot be used"),
        ("outside", "share of labels with characters outside the charset"),
        ("too_long", "share of labels longer than the decoder's steps"),
        ("contradicting", "share of images that are there with two labels"),
    ):
        value = getattr(default, name)
        add(f"--{name}", type=float, default=value, help=f"{what} (%(default)s)")
    add("--max_len", type=int, default=default.max_len, help="decoding steps")
    flags = parser.parse_args(arguments)
    try:
        findings = verify(
            flags.paths,
            against=flags.against,
            images=flags.images,
            charset=Charset.from_file(flags.charset).characters
            if flags.charset
            else DICT90,
            tolerance=Tolerance(
                unusable=flags.unusable,
                outside=flags.outside,
                too_long=flags.too_long,
                contradicting=flags.contradicting,
                max_len=flags.max_len,
            ),
            output=flags.output,
            processes=flags.processes,
            progress=sys.stderr.isatty(),
        )
    except (ValueError, OSError) as error:
        sys.exit(f"verify: {error}")
    for found in findings:
        if "records" in found:
            print(as_text(found))
        else:
            print(f"{found['path']}\nPROBLEM {found['problems'][0]}")
    if flags.output:
        print(f"page: {os.path.join(flags.output, PAGE_NAME)}")
    return int(any(found["problems"] for found in findings))


if __name__ == "__main__":
    sys.exit(main())
