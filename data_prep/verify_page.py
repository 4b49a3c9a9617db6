"""The data doctor's page: one HTML file that needs nothing beside it."""

import html
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from data_prep.examine import Examination
from robustscanner_jax.data.images import decode_image
from robustscanner_jax.data.sources import Source
from robustscanner_jax.html_page import bars, inline_image, page

_HEIGHT, _WIDEST = 48, 240  # pixels, of a thumbnail
_SAMPLES = 72
_EXTREMES = 12
_STYLE = """
.problem { background: var(--bad-back); border-left: 4px solid var(--bad);
  padding: .4em .8em; }
.fine { background: var(--good-back); border-left: 4px solid var(--good);
  padding: .4em .8em; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, 252px); }
figure { margin: 0; border: 1px solid var(--line); border-radius: 4px; padding: 5px;
  background: var(--panel); width: 240px; }
figure img { display: block; height: 48px; max-width: 240px; }
figcaption { font-size: 12px; overflow-wrap: anywhere; }
figcaption b { font-size: 14px; white-space: pre-wrap; }
figcaption small { display: block; }
"""


def build_page(
    findings: Sequence[dict[str, Any]],
    examined: Sequence[tuple[Source, Examination] | None],
    benchmarks: Sequence[Source],
) -> str:
    """Returns the page on some datasets; `examined` is None for one without records.

    `findings` are those of `verify.verify`, in the order of `examined`.
    """
    parts = [
        _dataset(found, *looked_at, benchmarks) if looked_at else _unopened(found)
        for found, looked_at in zip(findings, examined, strict=True)
    ]
    return page("Data doctor", f"<h1>Data doctor</h1>{''.join(parts)}", style=_STYLE)


def _unopened(found: dict[str, Any]) -> str:
    return f"<h2>{html.escape(found['path'])}</h2>{_problems(found)}"


def _problems(found: dict[str, Any]) -> str:
    if not found["problems"]:
        return '<p class="fine">Nothing here would hurt a training run.</p>'
    return "".join(
        f'<p class="problem">{html.escape(problem)}</p>'
        for problem in found["problems"]
    )


def _dataset(
    found: dict[str, Any],
    source: Source,
    seen: Examination,
    benchmarks: Sequence[Source],
) -> str:
    twins, speed = found["duplicates"], found["reading_speed"]
    facts = {
        "records": found["records"],
        "usable": found["usable"],
        **{f"not usable: {r}": e["count"] for r, e in found["dropped"].items()},
        "labels with characters outside the charset": found["labels_outside_charset"],
        "labels too long for the decoder": found["labels_too_long"],
        "more than twice as tall as wide": found["tall"],
        "repeat an earlier image to the byte": twins["same_bytes"],
        "... with another label": twins["same_bytes_other_label"],
        "look like an earlier one of the same label": twins["same_picture_and_label"],
        "read a second, in order": speed.get("in_order", 0),
        "read a second, at random": speed.get("at_random", 0),
    }
    parts = [f"<h2>{html.escape(found['name'])}</h2>", _problems(found)]
    cells = [
        f'<tr><td>{html.escape(name)}</td><td class="n">{value:,.0f}</td></tr>'
        for name, value in facts.items()
    ]
    parts += ["<table>", *cells, "</table>", _examples(found["dropped"])]
    top = list(found["characters"].items())
    parts.append('<div class="columns">')
    for title, counts in (
        ("Label length, characters", found["label_lengths"].items()),
        ("Width over height", found["aspect_ratios"].items()),
        (f"Characters, {len(top)} different", top[:40]),
        ("Outside the charset", list(found["characters_outside_charset"].items())[:40]),
    ):
        parts.append(f"<div><h3>{title}</h3>{bars(counts)}</div>")
    parts.append("</div>")
    parts += _sheets(source, seen)
    parts += _twins("Repeated within", twins["pairs"], source, source)
    for entry, benchmark in zip(found["against"], benchmarks, strict=True):
        title = f"Also in {entry['benchmark']}"
        parts += _twins(title, entry["pairs"], source, benchmark)
    return "\n".join(parts)


def _examples(dropped: dict[str, Any]) -> str:
    if not dropped:
        return ""
    rows = [
        f"<tr><td>{html.escape(reason)}</td><td>{html.escape(e['id'])}</td>"
        f"<td>{html.escape(e['detail'][:200])}</td></tr>"
        for reason, entry in dropped.items()
        for e in entry["examples"]
    ]
    return f"<h3>Records that cannot be used</h3><table>{''.join(rows)}</table>"


def _sheets(source: Source, seen: Examination) -> list[str]:
    """Returns a contact sheet, and the records at the ends of each scale."""
    rows = seen.rows
    if not len(rows):
        return []
    some = np.random.default_rng(0).permutation(len(rows))[:_SAMPLES]
    aspect = rows["width"] / rows["height"]
    sheets = {
        "Contact sheet": np.sort(some),
        "Smallest images": np.argsort(rows["height"] * rows["width"], kind="stable"),
        "Longest labels": np.argsort(-rows["length"], kind="stable"),
        "Tallest for their width": np.argsort(aspect, kind="stable"),
        "Widest for their height": np.argsort(-aspect, kind="stable"),
        "Labels outside the charset": np.flatnonzero(rows["outside"]),
    }
    parts = []
    for title, order in sheets.items():
        shown = order if title == "Contact sheet" else order[:_EXTREMES]
        figures = [_figure(source, int(rows["number"][i])) for i in shown]
        if figures:
            parts.append(f"<h3>{title}</h3>")
            parts.append(f'<div class="sheet">{"".join(figures)}</div>')
    return parts


def _twins(
    title: str, pairs: Sequence[dict[str, int]], source: Source, other: Source
) -> list[str]:
    if not pairs:
        return []
    rows = [
        f"<tr><td>{_figure(source, pair['record'])}</td>"
        f"<td>{_figure(other, pair['twin'])}</td>"
        f"<td><small>{pair['differing_bits']} of 128 bits differ</small></td></tr>"
        for pair in pairs
    ]
    return [f"<h3>{html.escape(title)}</h3>", "<table>", *rows, "</table>"]


def _figure(source: Source, number: int) -> str:
    element = source[number]
    image = decode_image(element["image"])
    height, width = image.shape[:2]
    size = (min(_WIDEST, max(1, round(width * _HEIGHT / height))), _HEIGHT)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return (
        f'<figure><img alt="" src="{inline_image(small)}"><figcaption>'
        f"<b>{html.escape(element['text'][:100])}</b>"
        f"<small>{html.escape(str(element['id']))}</small>"
        f"<small>{width} x {height}</small>"
        "</figcaption></figure>"
    )
