"""Pieces of HTML for pages that are sent as one file: nothing in them refers to anything outside.

Text goes in as text and is escaped here; what is returned is HTML.
"""

from __future__ import annotations

import base64
import html
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

# No script, no request: a browser refuses even what a hostile file might have smuggled in.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark;
  --ink: #1c2126; --soft: #56616b; --paper: #fff; --tint: #f3f5f7; --shade: #e9edf0;
  --line: #d5dbe0; --link: #0b5cad; --good: #17693b; --bad: #9a3412;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b0588c; --c4: #a87400; --c5: #2f8fc9 }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e4e8eb; --soft: #a3adb6; --paper: #14181b; --tint: #1e2429; --shade: #2a3239;
  --line: #39424a; --link: #7cb8f2; --good: #7fd6a2; --bad: #f5a97f;
  --c0: #56b4e9; --c1: #ff9a4d; --c2: #3fd0a0; --c3: #e79fc8; --c4: #f0bd4e; --c5: #9ad1f5 } }
* { box-sizing: border-box }
body { font: 16px/1.55 system-ui, sans-serif; margin: 0 auto; padding: 1rem 1rem 4rem;
  max-width: 50rem; color: var(--ink); background: var(--paper); overflow-wrap: anywhere }
body.broad { max-width: 72rem }
h1, h2, h3 { line-height: 1.2; text-wrap: balance }
h1 { margin: .5rem 0 }
h2 { margin: 3rem 0 1rem; border-top: 1px solid var(--line); padding-top: 1.5rem }
h3 { margin: 2rem 0 .5rem }
a, summary { color: var(--link) }
summary { cursor: pointer }
details { margin: 1rem 0 }
figure { margin: 1.5rem 0 }
figcaption, .note, .claim { color: var(--soft); font-size: .9rem }
figcaption { margin-top: .4rem }
img { display: block; max-width: 100%; height: auto; background: #fff }
dl { display: grid; grid-template-columns: minmax(0, 11rem) minmax(0, 1fr); gap: .35rem 1rem }
dt { color: var(--soft) }
dd { margin: 0 }
dl.words { display: block }
dl.words > * { display: inline }
dl.words dt { color: var(--ink); font-weight: 600 }
dl.words dt::after { content: ": " }
dl.words dd::after { content: "\\A"; white-space: pre }
pre, code { font-family: ui-monospace, monospace; font-size: .82rem }
pre { margin: .8rem 0; padding: .6rem .8rem; line-height: 1.5; white-space: pre-wrap }
pre, .wide { border: 1px solid var(--line); border-radius: 6px; background: var(--tint) }
.wide { overflow-x: auto; max-width: 100%; margin: .8rem 0 }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; vertical-align: top;
  overflow-wrap: break-word }
td { border-top: 1px solid var(--line) }
th { font-weight: 600; white-space: normal; min-width: 6rem; max-width: 10rem }
td small { color: var(--soft); display: block }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 2.5rem;
  max-width: 8.5rem; position: sticky; left: 0; background: var(--tint) }
.picture input, .picture label { display: none }
.state { display: inline-block; padding: .1rem .6rem; border: 1px solid; border-radius: 1rem;
  font-size: .85rem; font-weight: 600 }
.state.done { color: var(--good) }
.state.open { color: var(--bad) }
svg { display: block; width: 100%; height: auto; color: var(--ink) }
.chart { max-width: 36rem }
.chart text { font: 10.5px system-ui, sans-serif; fill: var(--soft) }
.chart ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0;
  margin: .4rem 0 0; font-size: .85rem }
.chart li svg { display: inline-block; width: 2.2rem; height: .8rem; margin-right: .4rem;
  vertical-align: baseline }
.axis { stroke: var(--soft); fill: none }
.grid { stroke: var(--line); fill: none }
.shade { fill: var(--shade) }
@media (max-width: 50rem) {
  .picture input, .picture label { display: inline; font-size: .85rem; color: var(--soft) }
  .picture div { overflow-x: auto }
  .picture input:checked ~ div img { max-width: none; width: 260% }
}
@media (max-width: 30rem) {
  body { font-size: 15px }
  h1 { font-size: 1.5rem }
  h2 { font-size: 1.25rem }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0 }
  dl:not(.words) dd { margin: 0 0 .6rem }
}
@media print { .wide { overflow: visible } }
"""


def say(text: object) -> str:
    """Text as HTML; what no reader could see, such as a control character, is left out.

    Example:
      >>> say("a < b")
      'a &lt; b'
    """
    return html.escape("".join(filter(_is_seen, str(text))))


_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the direction of text, so that a reader sees something else than is written."""


def _is_seen(letter: str) -> bool:
    return letter in "\n\t" or not (
        letter in _TURNS or unicodedata.category(letter) in ("Cc", "Cs")
    )


def document(title: str, body: str, *, broad: bool = False) -> str:
    """A whole page.

    Args:
      title: of the window; text.
      body: HTML.
      broad: give tables more room than lines of text should have.

    Returns:
      HTML that holds everything, for any width of a window.
    """
    kind = ' class="broad"' if broad else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{say(title)}</title><style>{STYLE}</style></head>\n"
        f"<body{kind}>\n{body}</body></html>\n"
    )


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of text; a kind is a class of :data:`STYLE`."""
    named = f' class="{kind}"' if kind else ""
    return f"<p{named}>{say(text)}</p>\n"


def bullets(lines: Iterable[str]) -> str:
    """A list of texts; nothing if there are none."""
    items = "".join(f"<li>{say(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>\n" if items else ""


def facts(told: Mapping[str, object], kind: str = "") -> str:
    """Names with what is told of each; the kind ``words`` is for a line each."""
    named = f' class="{kind}"' if kind else ""
    rows = "".join(f"<dt>{say(name)}</dt><dd>{say(fact)}</dd>" for name, fact in told.items())
    return f"<dl{named}>{rows}</dl>\n"


def grid(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table that scrolls in a box of its own; what follows a line break in a cell is small."""
    head = "".join(f'<th scope="col">{say(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    title = paragraph(caption, "note") if caption else ""
    name = say(caption or "table")
    return (
        f'{title}<div class="wide" tabindex="0" role="region" aria-label="{name}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"
    )


def _cell(text: str) -> str:
    first, _, more = text.partition("\n")
    below = f"<small>{say(more)}</small>" if more else ""
    return f"<td>{say(first)}{below}</td>"


def code(text: str) -> str:
    """Lines to be copied; long ones are broken on the screen, not in what is copied."""
    return f"<pre><code>{say(text)}</code></pre>\n"


def more(summary: str, body: str) -> str:
    """HTML that is folded away until a person asks for it."""
    return f"<details><summary>{say(summary)}</summary>{body}</details>\n"


def picture(data: bytes, caption: str, number: int, kind: str = "png") -> str:
    """A picture with what is seen on it, which a narrow window can show larger, to be scrolled.

    Args:
      data: the bytes of its file.
      caption: what is seen on it.
      number: of the picture, on its page.
      kind: as of :func:`image`.
    """
    return (
        f'<figure class="picture"><input type="checkbox" id="larger-{number}">'
        f'<label for="larger-{number}"> larger</label>'
        f"<div>{image(data, caption, kind)}</div>"
        f"<figcaption>{say(caption)}</figcaption></figure>\n"
    )


def image(data: bytes, alt: str, kind: str = "png") -> str:
    """A picture, embedded.

    Args:
      data: the bytes of its file.
      alt: what is seen on it.
      kind: ``png``, or ``svg+xml``, in which a browser runs and fetches nothing.

    Returns:
      The element.
    """
    text = base64.b64encode(data).decode()
    return f'<img alt="{say(alt)}" src="data:image/{kind};base64,{text}">'
