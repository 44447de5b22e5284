"""The page of all claims: what is tested, what was found, its picture and its tables. No JAX.

Two files that say the same: ``index.md`` beside its pictures, and ``index.html``, which holds
everything and can be sent as one file.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from discovery.evaluation.claims import Conclusion, Grid
from learned_objectives.library import write_whole

TITLE = "Published claims, tested"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
h1, h2, h3 { line-height: 1.2 } h2 { margin-top: 3rem; border-top: 1px solid #ccc;
  padding-top: 1.5rem }
img { max-width: 100%; height: auto }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem } dt { color: #555 }
dd { margin: 0 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #e3e3e3 }
th:first-child, td:first-child { text-align: left }
.note, .claim { color: #555 }
"""


class Section(NamedTuple):
    """What a page says of one claim."""

    name: str
    claim: str
    size: str
    found: Conclusion | None
    """``None`` if nothing is in its tables yet."""
    picture: Path | None
    tables: Sequence[str]
    """Names of its tables."""
    command: str
    """What draws it again."""


def write(folder: Path, sections: Iterable[Section]) -> tuple[Path, Path]:
    """Write ``index.md`` and ``index.html``.

    Args:
      folder: of both; the pictures are in it.
      sections: claims, in order.

    Returns:
      Their paths. The same sections make the same bytes.

    Raises:
      OSError: the disk is full or read-only; an old page is untouched.
    """
    sections = list(sections)
    written = []
    for name, text in (("index.md", markdown(sections)), ("index.html", page(sections))):
        written.append(folder / name)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(written[-1], text.encode())
    return written[0], written[1]


# --- Markdown ---------------------------------------------------------------------------------


def markdown(sections: Sequence[Section]) -> str:
    """The page as Markdown; pictures are beside it."""
    lines = [f"# {TITLE}", ""]
    lines += [f"- [{each.name}](#{each.name}): {each.claim}" for each in sections]
    for each in sections:
        lines += ["", f"## {each.name}", "", f"Tested: {each.claim}.", ""]
        if each.found is None:
            lines += [f"Size {each.size}: nothing is searched and scored yet.", ""]
            continue
        lines += [*_paragraphs(each.found.text), ""]
        if each.picture:
            lines += [f"![{each.name}]({each.picture.name})", ""]
        lines += [f"- {name}: {_escaped(told)}" for name, told in each.found.facts.items()]
        lines += [f"- tables: {', '.join(each.tables)}", f"- again: `{each.command}`"]
        for grid in each.found.grids:
            lines += ["", f"### {grid.title}", "", *_rows(grid)]
            lines += ["", *(f"{_escaped(note)}  " for note in grid.notes)] if grid.notes else []
    return "\n".join(lines).rstrip() + "\n"


def _paragraphs(text: str) -> list[str]:
    return [_escaped(line) for line in text.split("\n")]


def _escaped(text: str) -> str:
    """Text whose signs Markdown would take for its own."""
    return re.sub(r"([\\`*_|<>])", r"\\\1", text)


def _rows(grid: Grid) -> list[str]:
    lines = [grid.columns, ["---", *["---:"] * (len(grid.columns) - 1)], *grid.rows]
    told = [line if line is lines[1] else [_escaped(cell) for cell in line] for line in lines]
    return [f"| {' | '.join(line)} |" for line in told]


# --- HTML -------------------------------------------------------------------------------------


def page(sections: Sequence[Section]) -> str:
    """The page as one file of HTML, its pictures inside."""
    say = html.escape
    links = "".join(
        f'<li><a href="#{say(each.name)}">{say(each.name)}</a>: {say(each.claim)}</li>'
        for each in sections
    )
    body = "".join(_section(each) for each in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{TITLE}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{TITLE}</h1><ul>{links}</ul>\n{body}</body></html>\n"
    )


def _section(each: Section) -> str:
    say = html.escape
    parts = [
        f'<h2 id="{say(each.name)}">{say(each.name)}</h2>',
        f'<p class="claim">Tested: {say(each.claim)}.</p>',
    ]
    if each.found is None:
        return "\n".join([*parts, f"<p>Size {say(each.size)}: nothing is searched yet.</p>\n"])
    parts += [f"<p>{say(text)}</p>" for text in each.found.text.split("\n\n")]
    if each.picture:
        data = base64.b64encode(each.picture.read_bytes()).decode()
        parts.append(f'<img alt="{say(each.name)}" src="data:image/png;base64,{data}">')
    facts = {**each.found.facts, "tables": ", ".join(each.tables), "again": each.command}
    told = "".join(f"<dt>{say(name)}</dt><dd>{say(fact)}</dd>" for name, fact in facts.items())
    parts.append(f"<dl>{told}</dl>")
    parts += [_grid(grid) for grid in each.found.grids]
    return "\n".join(parts) + "\n"


def _grid(grid: Grid) -> str:
    say = html.escape
    head = "".join(f"<th>{say(column)}</th>" for column in grid.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{say(cell)}</td>' for cell in row)}</tr>" for row in grid.rows
    )
    notes = "".join(f'<p class="note">{say(note)}</p>' for note in grid.notes)
    return (
        f"<h3>{say(grid.title)}</h3>\n"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{notes}"
    )
