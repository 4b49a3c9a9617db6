"""The page on what was misread: groups of words, confused characters, worst mistakes.

One HTML file that needs nothing beside it.
"""

import html
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from robustscanner_jax.error_page import breakdown, cards
from robustscanner_jax.error_page.breakdown import Confusions, Group, Word
from robustscanner_jax.error_page.cards import Explain
from robustscanner_jax.html_page import page, visible
from robustscanner_jax.metrics import SetScore, columns_of_views
from robustscanner_jax.published import split_name
from robustscanner_jax.word_stream import ReadWord

_MOST_CONFUSED = 16  # characters in the matrix
_LISTED = 12  # lines of each list of confusions
_STYLE = (
    """
.lead { color: var(--muted); max-width: 62em; }
nav { margin: 1em 0; } nav a { margin-right: 1.2em; }
.scores td, .scores th { padding: .3em 1.1em .3em 0; border-bottom: 1px solid
  var(--line); white-space: nowrap; }
.scores th { font-weight: 600; color: var(--muted); font-size: 13px; }
.tag { font-size: 11px; color: var(--accent); border: 1px solid; border-radius: 9px;
  padding: 0 .6em; margin-left: .5em; white-space: nowrap; }
.range { position: relative; display: inline-block; width: 9em; height: .8em;
  background: var(--panel); box-shadow: inset 0 0 0 1px var(--line);
  border-radius: 3px; overflow: hidden; vertical-align: -1px; }
.range i { position: absolute; top: 0; bottom: 0; background: var(--accent); }
.range i.low { left: 0; opacity: .9; } .range i.between { opacity: .35; }
.range i.mean { width: 2px; background: var(--text); }
.kinds { display: grid; gap: 0 2.4em;
  grid-template-columns: repeat(auto-fit, minmax(345px, 1fr)); }
.groups { font-size: 13px; } .groups td { white-space: nowrap; }
.groups th { font-weight: normal; font-size: 12px; color: var(--muted);
  white-space: nowrap; }
.groups .range { width: 5.5em; } .groups tr > :first-child { padding-right: 1.2em; }
.groups .n, .scores .n { font-variant-numeric: tabular-nums; }
.muted { color: var(--muted); }
.confused { display: flex; flex-wrap: wrap; gap: 0 3em; align-items: flex-start; }
h4 { font-size: 13px; font-weight: normal; color: var(--muted); margin: .2em 0 .4em; }
.pairs { font-size: 13px; } .pairs td:first-child { font: 14px ui-monospace, monospace;
  white-space: pre; }
.scroll { overflow-x: auto; max-width: 100%; }
.matrix { font: 12px ui-monospace, monospace; }
.matrix td, .matrix th { padding: 0; min-width: 2.2em; height: 2em; text-align: center;
  vertical-align: middle; border: 1px solid var(--line); font-weight: normal; }
.matrix th { background: var(--panel); font-weight: 600; }
.matrix .right { color: var(--muted); }
.matrix .wrong { background: color-mix(in srgb, var(--bad) var(--share), transparent); }
.matrix .edge { color: var(--muted); font-weight: normal; padding: 0 .6em; }
"""
    + cards.STYLE
)


class SetErrors(NamedTuple):
    """What the page shows of one set.

    Attributes:
      score: as in the accuracy table.
      words: that count in it.
      mistakes: the words misread with the highest confidence, that first.
      unreadable: records whose image or entry is damaged.
    """

    score: SetScore
    words: list[Word]
    mistakes: list[ReadWord]
    unreadable: int


def build_page(
    sets: Sequence[SetErrors],
    *,
    facts: Sequence[str],
    ignore_case: bool,
    channel_order: str,
    explain: Explain | None,
) -> str:
    """Returns the page.

    Args:
      sets: in the order of the table; at least one.
      facts: how the words were read and compared, a line each.
      ignore_case: whether letters that differ in case count as the same.
      channel_order: "BGR" or "RGB", of the pixels in `mistakes`.
      explain: `Recognizer.explain_view`; None where the reader has no attention maps.
    """
    parts = ["<h1>What was misread</h1>", _lead(facts)]
    parts += [_overview(sets), _legend()]
    if len(sets) > 1:
        words = [word for entry in sets for word in entry.words]
        parts += ['<h2 id="all">All sets</h2>', _kinds(words), _confused(words)]
    for number, entry in enumerate(sets):
        parts.append(f'<h2 id="set{number}">{_name(entry.score)}</h2>')
        parts += [_kinds(entry.words), _confused(entry.words)]
        shown = [
            cards.mistake_card(
                word,
                channel_order=channel_order,
                ignore_case=ignore_case,
                explain=explain,
            )
            for word in entry.mistakes
        ]
        parts.append(_mistakes(shown, explained=explain is not None))
    return page("What was misread", "\n".join(parts), style=_STYLE)


def _name(score: SetScore) -> str:
    tag = ' <span class="tag">contextless</span>' if score.contextless else ""
    return html.escape(split_name(score.name, score.size)) + tag


def _lead(facts: Sequence[str]) -> str:
    return f'<p class="lead">{"<br>".join(map(html.escape, facts))}</p>'


def _legend() -> str:
    return (
        '<p class="lead">A bar is the share read right: its pale part is the 95 % '
        f"interval. {_range(0.8, 0.7, 0.9)} 80 %, 70-90 %.</p>"
    )


def _range(accuracy: float, low: float, high: float) -> str:
    at = f"left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"
    return (
        f'<span class="range"><i class="low" style="width:{100 * low:.1f}%"></i>'
        f'<i class="between" style="{at}"></i>'
        f'<i class="mean" style="left:calc({100 * accuracy:.1f}% - 1px)"></i></span>'
    )


def _overview(sets: Sequence[SetErrors]) -> str:
    views = columns_of_views(entry.score for entry in sets)
    heads = ["set", "words", "misread", "unreadable", "right", "95 % interval", ""]
    heads += views
    rows = []
    for number, (score, words, _, unreadable) in enumerate(sets):
        wrong = sum(word.expected != word.read for word in words)
        cells = [f'<td><a href="#set{number}">{_name(score)}</a></td>']
        cells += [_number(n) for n in (score.words, wrong, unreadable)]
        cells += [_accuracy_cells(score.accuracy, (score.low, score.high))]
        cells += [_number(score.of_views().get(view, 0)) for view in views]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(
        f"<th{' class=n' if i else ''}>{name}</th>" for i, name in enumerate(heads)
    )
    table = f'<table class="scores"><tr>{head}</tr>{"".join(rows)}</table>'
    return f'<div class="scroll">{table}</div>'


def _number(value: int) -> str:
    return f'<td class="n">{value:,}</td>'


def _accuracy_cells(accuracy: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return (
        f'<td class="n">{100 * accuracy:.1f} %</td>'
        f'<td class="n muted">{100 * low:.1f}-{100 * high:.1f}</td>'
        f"<td>{_range(accuracy, low, high)}</td>"
    )


def _kinds(words: Sequence[Word]) -> str:
    """Returns the accuracy of each kind of word, in three tables side by side."""
    tables = [
        ("Length of the label, characters", breakdown.by_length(words)),
        ("Width over height of the crop", breakdown.by_aspect(words)),
        ("Spelling of the label", breakdown.by_case(words)),
    ]
    parts = [
        f"<div><h3>{title}</h3>{_groups(groups)}</div>" for title, groups in tables
    ]
    return f'<div class="kinds">{"".join(parts)}</div>'


def _groups(groups: Sequence[Group]) -> str:
    rows = [
        f"<tr><td>{html.escape(group.name)}</td>{_number(group.words)}"
        f"{_accuracy_cells(group.accuracy, group.interval)}</tr>"
        for group in groups
    ]
    heads = ("", "words", "right", "95 % interval")
    head = "".join(f'<th class="n">{name}</th>' for name in heads)
    return f'<table class="groups"><tr>{head}</tr>{"".join(rows)}</table>'


def _confused(words: Sequence[Word]) -> str:
    found = breakdown.confusions((word.expected, word.read) for word in words)
    left_out = f", {found.unlike:,} left out" if found.unlike else ""
    lists = [
        ("Read as another", _substitutions(found)),
        ("Missed", _characters(found.missed, found.occurrences)),
        ("Read, not there", _characters(found.added, None)),
    ]
    parts = [f"<div><h4>{title}</h4>{content}</div>" for title, content in lists]
    return (
        "<h3>Confused characters</h3>"
        '<p class="lead">As they are compared, aligned by the fewest edits, in '
        f"{found.words:,} words that have at least half in common with what was read"
        f'{left_out}.</p><div class="confused">{"".join(parts)}{_matrix(found)}</div>'
    )


def _substitutions(found: Confusions) -> str:
    ranked = sorted(found.substituted.items(), key=lambda item: (-item[1], item[0]))
    return _counts(
        (f"{visible(true)} → {visible(read)}", times, found.occurrences[true])
        for (true, read), times in ranked[:_LISTED]
    )


def _characters(counts: Counter[str], occurrences: Counter[str] | None) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return _counts(
        (visible(character), times, occurrences[character] if occurrences else None)
        for character, times in ranked[:_LISTED]
    )


def _counts(lines: Iterable[tuple[str, int, int | None]]) -> str:
    """Returns a table of names (as HTML), times, and out of how many where known."""
    rows = []
    for name, times, total in lines:
        share = f"of {total:,}, {times / total:.1%}" if total else ""
        rows.append(
            f'<tr><td>{name}</td>{_number(times)}<td class="muted">{share}</td></tr>'
        )
    return f'<table class="pairs">{"".join(rows)}</table>' if rows else "<p>none</p>"


def _matrix(found: Confusions) -> str:
    """Returns the characters with most errors: rows true ones, columns read ones."""
    characters = found.most_confused(_MOST_CONFUSED)
    if not characters:
        return ""
    # A single error is pale, also where there is none that is more frequent.
    most = max(5, *found.substituted.values(), *found.missed.values())

    def cell(true: str, read: str) -> str:
        if true == read:
            return f'<td class="right">{found.right(true)}</td>'
        return _times(found.substituted[true, read], most)

    heads = "".join(f"<th>{visible(c)}</th>" for c in characters)
    rows = [
        f'<tr><th class="edge">is \\ read</th>{heads}<th class="edge">missed</th></tr>'
    ]
    for true in characters:
        cells = "".join(cell(true, read) for read in characters)
        missed = _times(found.missed[true], most)
        rows.append(f"<tr><th>{visible(true)}</th>{cells}{missed}</tr>")
    return f'<div class="scroll"><table class="matrix">{"".join(rows)}</table></div>'


def _times(times: int, most: int) -> str:
    if not times:
        return "<td></td>"
    share = 15 + 65 * times / most
    return f'<td class="wrong" style="--share:{share:.0f}%">{times}</td>'


def _mistakes(shown: Sequence[str], *, explained: bool) -> str:
    title = "<h3>Surest mistakes</h3>"
    if not shown:
        return f"{title}<p>No word of which the image is readable was misread.</p>"
    lead = f"The {len(shown)} misread with the highest confidence, as the network saw "
    lead += "them; the crop's own size is in pixels."
    if not explained:
        lead += " An export has no attention maps: read with weights to see them."
    return (
        f'{title}<p class="lead">{lead}</p><div class="mistakes">{"".join(shown)}</div>'
    )
