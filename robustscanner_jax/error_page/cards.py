"""A misread word as HTML: the crop, both texts, where both branches looked."""

import html
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from rapidfuzz.distance import Levenshtein

from robustscanner_jax.html_page import inline_image, visible
from robustscanner_jax.reading import Reading
from robustscanner_jax.views import View
from robustscanner_jax.word_stream import ReadWord

# `Recognizer.explain_view`: a view to its reading and the network's `Explanation`.
Explain = Callable[[View], tuple[Reading, Any]]

STYLE = """
.mistakes { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(350px, 1fr)); align-items: start; }
.mistake { border: 1px solid var(--line); border-radius: 6px; padding: 10px;
  background: var(--panel); min-width: 0; }
.mistake > img { display: block; height: 64px; max-width: 100%; border-radius: 3px; }
.texts { display: grid; grid-template-columns: max-content 1fr; gap: 0 .8em;
  margin: .5em 0 .2em; align-items: baseline; }
.texts span { font: 16px ui-monospace, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; } .texts small { text-align: right; }
.texts mark { background: none; font-weight: 700; }
.texts .is mark { color: var(--good); text-decoration: underline; }
.texts .read mark { color: var(--bad); text-decoration: underline; }
.mistake p { margin: 0; font-size: 12px; color: var(--muted); overflow-wrap: anywhere; }
details { margin-top: .5em; font-size: 12px; } summary { cursor: pointer;
  color: var(--accent); }
.looked { width: 100%; margin-top: .4em; } .looked td, .looked th { padding: 2px .6em
  2px 0; vertical-align: middle; font-weight: normal; color: var(--muted); }
.looked th:nth-child(3) { color: var(--second); }
.looked th:nth-child(4) { color: var(--accent); }
.looked td:first-child { font: 15px ui-monospace, monospace; color: var(--text);
  white-space: pre; }
.look { display: block; height: 30px; max-width: 100px; aspect-ratio: var(--ratio);
  background-size: 100% 100%; border-radius: 2px; background-image: var(--heat),
  linear-gradient(rgb(0 0 0 / .5) 0 0), var(--crop); }
.share { display: flex; align-items: center; gap: .5em; }
.share i { display: block; height: .8em; width: 4em; border-radius: 2px;
  background: linear-gradient(90deg, var(--second) var(--part), var(--accent) 0); }
"""
_LONGEST_TEXT = 100  # characters shown of a label
_HEAT_BGR = (30, 170, 255)


def mistake_card(
    word: ReadWord, *, channel_order: str, ignore_case: bool, explain: Explain | None
) -> str:
    """Returns the card of one word.

    Args:
      word: its texts are escaped here.
      channel_order: "BGR" or "RGB", of its row's pixels.
      ignore_case: whether letters that differ in case count as the same.
      explain: what shows where the network looked; None shows nothing.
    """
    pixels, width = word.view.row
    image = pixels[:, :width] if channel_order == "BGR" else pixels[:, :width, ::-1]
    image = np.ascontiguousarray(image)
    label, text = word.label[:_LONGEST_TEXT], word.reading.text[:_LONGEST_TEXT]
    height, wide = word.size or (0, 0)
    facts = f"{word.reading.confidence:.1%} sure, {wide} x {height} pixels"
    if word.turned:
        facts += f", tall: surest when turned by {word.view.angle}°"
    if word.looked_closer:
        view = "a closer view" if word.view.closer else "the whole crop"
        facts += f", unsure at first: surest in {view}"
    sheet = ""
    if explain is not None:
        looked = _attention(image, pixels.shape[1], *explain(word.view))
        sheet = f"<details><summary>Where it looked</summary>{looked}</details>"
    true = _marked(label, text, ignore_case)
    read = _marked(text, label, ignore_case) or "<small>nothing</small>"
    return (
        f'<div class="mistake"><img alt="" src="{inline_image(image)}">'
        f'<div class="texts"><small>is</small><span class="is">{true}</span>'
        f'<small>read</small><span class="read">{read}</span></div>'
        f"<p>{facts}</p><p>{html.escape(word.id)}</p>{sheet}</div>"
    )


def _marked(text: str, other: str, ignore_case: bool) -> str:
    """Returns the text, escaped, with the parts marked that `other` lacks."""
    parts = []
    for edit in Levenshtein.opcodes(*(_folded(t, ignore_case) for t in (text, other))):
        part = html.escape(text[edit.src_start : edit.src_end])
        if part:
            parts.append(part if edit.tag == "equal" else f"<mark>{part}</mark>")
    return "".join(parts)


def _folded(text: str, ignore_case: bool) -> str:
    # Character by character: some lower-case forms are two characters long.
    return "".join(c.lower()[0] for c in text) if ignore_case else text


def _attention(
    image: UInt8[np.ndarray, "h w 3"],
    row_width: int,
    reading: Reading,
    explanation: Any,
) -> str:
    """Returns a table, a line a character: its confidence, two maps, and the gate.

    Args:
      image: the content of the row that was read, BGR.
      row_width: of the whole row in pixels, padding included.
      reading: of the row.
      explanation: what `Recognizer.explain_view` gives for it: the attention of both
        branches, `[t, h2, w2]`, and the position's share of the features, `[t]`.
    """
    height, width = image.shape[:2]
    names = [visible(character) for character in reading.characters]
    sure_of = [f"{confidence:.0%}" for confidence in reading.character_confidences]
    lines = []
    # A text as long as the decoder has no end.
    texts = zip([*names, "<small>end</small>"], [*sure_of, ""], strict=False)
    steps = zip(texts, *explanation, strict=False)
    for (name, sure), context, position, share in steps:
        columns = -(-width * context.shape[1] // row_width)
        maps = [_map(weights[:, :columns]) for weights in (context, position)]
        lines.append(
            f"<tr><td>{name}</td><td>{sure}</td>"
            f"<td>{maps[0]}</td><td>{maps[1]}</td><td>{_gate(float(share))}</td></tr>"
        )
    heads = ("", "sure", "context branch", "position branch", "share of position")
    head = "".join(f"<th>{name}</th>" for name in heads)
    crop = f"--crop:url({inline_image(image)});--ratio:{width}/{height}"
    return (
        f'<table class="looked" style="{crop}"><tr>{head}</tr>{"".join(lines)}</table>'
    )


def _map(weights: Float[np.ndarray, "h2 w2"]) -> str:
    """Returns a picture of few pixels; the browser stretches it over the crop."""
    heat = weights / max(float(weights.max()), 1e-9)
    cells = np.empty((*heat.shape, 4), np.uint8)
    cells[..., :3] = _HEAT_BGR
    cells[..., 3] = np.round(235 * heat)
    return f'<i class="look" style="--heat:url({inline_image(cells)})"></i>'


def _gate(share: float) -> str:
    """Returns a bar: context in its colour from the left, position from the right."""
    return (
        f'<span class="share"><i style="--part:{100 - 100 * share:.0f}%"></i>'
        f"{share:.0%}</span>"
    )
