"""The page of all claims: what is tested, what was found, its picture and its tables. No JAX.

Two files that say the same: ``index.md`` beside its pictures, and ``index.html``, which holds
everything and can be sent as one file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from discovery.evaluation.claims import Conclusion, Grid
from discovery.report import markup
from learned_objectives.library import write_whole

TITLE = "Published claims, tested"


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
    say = markup.say
    links = "".join(
        f'<li><a href="#{say(each.name)}">{say(each.name)}</a>: {say(each.claim)}</li>'
        for each in sections
    )
    body = "".join(_section(each) for each in sections)
    return markup.document(TITLE, f"<h1>{TITLE}</h1><ul>{links}</ul>\n{body}", broad=True)


def _section(each: Section) -> str:
    say = markup.say
    parts = [
        f'<h2 id="{say(each.name)}">{say(each.name)}</h2>\n',
        markup.paragraph(f"Tested: {each.claim}.", "claim"),
    ]
    if each.found is None:
        return "".join([*parts, markup.paragraph(f"Size {each.size}: nothing is searched yet.")])
    parts += [markup.paragraph(text) for text in each.found.text.split("\n\n")]
    if each.picture:
        parts.append(markup.image(each.picture.read_bytes(), each.name))
    again = {"tables": ", ".join(each.tables), "again": each.command}
    parts.append(markup.facts({**each.found.facts, **again}))
    for grid in each.found.grids:
        parts.append(f"<h3>{say(grid.title)}</h3>\n{markup.grid(grid.columns, grid.rows)}")
        parts += [markup.paragraph(note, "note") for note in grid.notes]
    return "".join(parts)
