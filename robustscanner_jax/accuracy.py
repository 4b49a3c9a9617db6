"""The accuracy table: on the terminal, as Markdown and as JSON, beside published rows.

Published numbers stand only beside sets of the same name and split, and only under a
case-insensitive alphanumeric protocol, which is what they were made with.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robustscanner_jax.metrics import (
    SetScore,
    columns_of_views,
    get_protocol,
    mean_over_sets,
    mean_over_words,
)
from robustscanner_jax.predictions import Prediction, tsv_lines
from robustscanner_jax.published import (
    PUBLISHED,
    PUBLISHED_PROTOCOLS,
    SIX_SETS,
    Published,
    split_name,
)
from robustscanner_jax.views import UNSURE
from robustscanner_jax.whole_file import write_whole_escaped

FORMAT_VERSION = 1


def _six(scores: Sequence[SetScore]) -> list[SetScore] | None:
    """Returns the scores of the six sets, each once and in its published split."""
    found = {}
    for score in scores:
        split = split_name(score.name, score.size)
        if split in SIX_SETS:
            if split in found:
                return None
            found[split] = score
    return [found[split] for split in SIX_SETS] if len(found) == len(SIX_SETS) else None


def _published_columns(scores: Sequence[SetScore], protocol: str) -> list[Published]:
    if protocol not in PUBLISHED_PROTOCOLS:
        return []
    splits = {split_name(score.name, score.size) for score in scores}
    six = _six(scores) is not None
    return [row for row in PUBLISHED if six or splits & row.by_split.keys()]


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def row_name(score: SetScore) -> str:
    """Returns what a set is called in a table: its split, and what is special of it."""
    split = split_name(score.name, score.size)
    return f"{split} (contextless)" if score.contextless else split


def _rows(scores: Sequence[SetScore], protocol: str) -> list[list[str]]:
    """Returns the table's cells, the header first."""
    published = _published_columns(scores, protocol)
    views = columns_of_views(scores)
    header = ["set", "words", "skipped", "accuracy %", "95 % interval"]
    header += views
    header += ["1-NED %", "confidence %", "ECE %"]
    header += [f"{row.name}*" for row in published]
    rows = [header]
    for score in scores:
        split = split_name(score.name, score.size)
        row = [row_name(score), str(score.words), str(score.skipped)]
        row += [_percent(score.accuracy)]
        row += [f"{_percent(score.low)}-{_percent(score.high)}"]
        row += [str(score.of_views().get(name, "")) for name in views]
        row += [_percent(x) for x in (score.one_ned, score.mean_confidence, score.ece)]
        for paper in published:
            value = paper.by_split.get(split)
            row.append("" if value is None else f"{value:.2f}")
        rows.append(row)

    def mean_row(title: str, mean: float, over: Sequence[SetScore]) -> list[str]:
        counts = (sum(s.words for s in over), sum(s.skipped for s in over))
        cells = [title, *map(str, counts), _percent(mean)]
        return cells + [""] * (len(header) - len(cells))

    six = _six(scores)
    if six is not None:
        row = mean_row("mean over the six sets", mean_over_sets(six), six)
        row[len(row) - len(published) :] = [f"{p.mean_of_six:.2f}" for p in published]
        rows.append(row)
    if six is None or len(scores) > len(six):
        rows.append(mean_row("mean over sets", mean_over_sets(scores), scores))
    rows.append(mean_row("mean over words", mean_over_words(scores), scores))
    return rows


def notes(
    scores: Sequence[SetScore], protocol: str, extra: Mapping[str, Any]
) -> list[str]:
    """Returns the sentences below the table; arguments as `render_terminal`."""
    rule = get_protocol(protocol)
    lines = [f"protocol {protocol}: {rule.description}"]
    if any(score.skipped for score in scores):
        lines.append("skipped: labels of which the protocol leaves nothing to compare")
        if rule.max_label_length is not None:
            lines[-1] += f", or longer than {rule.max_label_length}"
    if any(score.turned is not None for score in scores):
        lines.append(
            "turned: tall crops, also read at 90 and 270 degrees; won: of these, where "
            "a turned reading counts, having the highest mean confidence of its "
            "characters"
        )
    if any(score.closer is not None for score in scores):
        lines.append(
            f"closer: crops read with a probability below {UNSURE}, read again without "
            "their edges (--look_closer); won: of these, where such a reading counts, "
            "being far surer"
        )
    published = _published_columns(scores, protocol)
    if published:
        lines.append(
            "columns with a *: published accuracy in percent, not measured here"
        )
    lines += [f"{row.name}*: {row.note}" for row in published]
    # The note on the columns says it already.
    facts = {key: value for key, value in extra.items() if key != "look_closer"}
    lines += [_fact(key, value) for key, value in facts.items() if value is not None]
    return lines


def _fact(key: str, value: Any) -> str:
    """Returns what accuracy.json says under a key, in words."""
    match key:
        case "images_per_second":
            return f"{_three_digits(value)} images a second"
        case "rotate_tall":
            return f"tall: over {value:g} times as tall as wide (--rotate_tall)"
        case "step":
            return f"update {value}"
        case "allowlist":
            return f"only these characters may be read: {value}"
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{key.replace('_', ' ')}: {shown}"


def _three_digits(number: float) -> str:
    """Returns three digits that count, all those before the point: 1,234 or 35.7."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def render_terminal(
    scores: Sequence[SetScore], protocol: str, extra: Mapping[str, Any] | None = None
) -> str:
    """Returns the table as aligned text, notes below it, without a final line end.

    Args:
      scores: one per set, in the order of the rows; at least one.
      protocol: a key of `metrics.PROTOCOLS`.
      extra: further facts for the notes, such as how many images a second were read.
    """
    rows = _rows(scores, protocol)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join(padded).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    body, means = rows[1 : 1 + len(scores)], rows[1 + len(scores) :]
    lines = [line(rows[0]), rule, *map(line, body), rule, *map(line, means)]
    return "\n".join([*lines, *notes(scores, protocol, extra or {})])


def render_markdown(
    scores: Sequence[SetScore], protocol: str, extra: Mapping[str, Any] | None = None
) -> str:
    """Returns the table as Markdown with its notes; arguments as `render_terminal`."""
    rows = _rows(scores, protocol)

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    align = line(["---", *["---:"] * (len(rows[0]) - 1)])
    items = [f"- {note}" for note in notes(scores, protocol, extra or {})]
    return "\n".join([line(rows[0]), align, *map(line, rows[1:]), "", *items])


def to_json(
    scores: Sequence[SetScore], protocol: str, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the table as JSON-able values; shares in [0, 1], published in percent."""
    six = _six(scores)
    sets = [
        {
            **dataclasses.asdict(score),
            "size": score.size,
            "split": split_name(score.name, score.size),
        }
        for score in scores
    ]
    return {
        "format_version": FORMAT_VERSION,
        "protocol": protocol,
        "protocol_description": get_protocol(protocol).description,
        "sets": sets,
        "mean_over_sets": mean_over_sets(scores),
        "mean_over_words": mean_over_words(scores),
        "mean_of_six": None if six is None else mean_over_sets(six),
        "published_percent": [
            {
                "name": row.name,
                "by_split": dict(row.by_split),
                "mean_of_six": row.mean_of_six,
                "note": row.note,
            }
            for row in _published_columns(scores, protocol)
        ],
        "extra": dict(extra or {}),
    }


def write_accuracy(
    folder: str | os.PathLike[str],
    scores: Sequence[SetScore],
    protocol: str,
    extra: Mapping[str, Any] | None = None,
    *,
    predictions: Iterable[Prediction] | None = None,
) -> None:
    """Writes accuracy.json and accuracy.md, and predictions.tsv where they are given.

    Each file appears complete or not at all.

    Args:
      folder: created if need be.
      scores, protocol, extra: as for `render_terminal`; `extra` has to fit JSON.
      predictions: the words; may be a generator.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = to_json(scores, protocol, extra)
    text = json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False)
    markdown = render_markdown(scores, protocol, extra)
    if predictions is not None:
        lines = "".join(tsv_lines(predictions))
        write_whole_escaped(folder / "predictions.tsv", lines)
    write_whole_escaped(folder / "accuracy.md", markdown + "\n")
    write_whole_escaped(folder / "accuracy.json", text + "\n")
