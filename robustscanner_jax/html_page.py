"""Pages of one HTML file that load nothing: what the project's reports share.

Whoever builds a page escapes each text that comes from data. Should one slip through,
the page's policy still runs no script and asks nobody for anything.
"""

import base64
import html
from collections.abc import Iterable

import cv2
import numpy as np
from jaxtyping import UInt8

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1f2328; --muted: #59636e;
  --line: #d1d9e0; --panel: #f6f8fa; --accent: #0969da; --second: #9a6700;
  --bad: #cf222e; --bad-back: #ffebe9; --good: #1a7f37; --good-back: #dafbe1; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3;
  --muted: #9198a1; --line: #3d444d; --panel: #151b23; --accent: #4493f8;
  --second: #d29922; --bad: #f85149; --bad-back: #3c1618; --good: #3fb950;
  --good-back: #12331c; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1180px;
  padding: 0 1em; color: var(--text); background: var(--back); }
h1 { font-size: 1.5em; } h2 { margin-top: 2em; border-top: 1px solid var(--line);
  padding-top: .7em; } h3 { font-size: 1em; margin: 1.4em 0 .4em; }
a { color: var(--accent); } small { color: var(--muted); }
table { border-collapse: collapse; } td, th { padding: .15em .8em .15em 0;
  text-align: left; vertical-align: top; } td.n, th.n { text-align: right; }
.bars { display: grid; grid-template-columns: max-content max-content 1fr;
  gap: 1px .7em; font-size: 13px; max-width: 560px; }
.bars .n { text-align: right; color: var(--muted); } .bars i { display: block;
  background: var(--accent); height: 1em; border-radius: 2px; }
.columns { display: flex; flex-wrap: wrap; gap: 2em; }
.columns > div { flex: 1 1 320px; }
.sheet { display: flex; flex-wrap: wrap; gap: 10px; }
"""


def page(title: str, body: str, *, style: str = "") -> str:
    """Returns the whole file.

    Args:
      title: as text; it is escaped.
      body: as HTML.
      style: CSS after the common one, whose colours (`--accent` and others) follow the
        reader's choice of light or dark.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def inline_image(
    image: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w 4"],
) -> str:
    """Returns BGR pixels as a `data:` address: JPEG, or PNG with a fourth channel."""
    kind = "png" if image.shape[-1] == 4 else "jpeg"
    data = cv2.imencode("." + kind, image)[1].tobytes()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def bars(counts: Iterable[tuple[str, int]]) -> str:
    """Returns a chart of named counts, as HTML."""
    pairs = list(counts)
    if not pairs:
        return "<p>none</p>"
    most = max(count for _, count in pairs) or 1
    rows = [
        f'<span>{visible(name)}</span><span class="n">{count:,}</span>'
        f'<span><i style="width:{100 * count / most:.2f}%"></i></span>'
        for name, count in pairs
    ]
    return f'<div class="bars">{"".join(rows)}</div>'


def visible(text: str) -> str:
    """Returns a text, escaped, as a person can see it: a blank by its name."""
    return html.escape(text if text.isprintable() and text.strip() else ascii(text))
