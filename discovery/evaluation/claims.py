"""Tables of claims: rows of searches, how they are kept, and what is said of them. No JAX.

A row is of one search, and begins with which one: the five fields of :func:`identity`. A table of a
hundred searches is a small file that can stand in a repository. Rows of agents are in the run
folders.
"""

from __future__ import annotations

import csv
import io
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from discovery.evaluation.table import TableError
from learned_objectives.library import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group

    from discovery.evaluation.papers import Job
else:
    Figure = Group = Job = Any


class Scored(NamedTuple):
    """What one search found, at one horizon, on held-out levels; normalised scores."""

    size: str
    """Of the entry."""
    group: str
    """Of horizons."""
    cell: str
    objective: str
    seed: int
    """Of the search."""
    horizon: int
    """Updates of the lives, N."""
    levels: int
    iqm: float
    """Interquartile mean over levels; minus infinity if a quarter of the agents is not finite."""
    mean: float
    """Over the levels where the agent is finite."""
    start_iqm: float
    """The same of what the search began with."""
    start_mean: float
    difference: float
    """Mean over levels of the score less that of the start, where both are finite."""
    nonfinite: int
    """Agents that are not finite."""
    generations: int
    steps: float
    """Environment steps of training that the search took."""
    evaluation_steps: float
    """Environment steps of its scores, at most: episodes times their step limit."""
    minutes: float
    """Wall time of the search."""
    digest: str
    """Which theta."""


class Clocked(NamedTuple):
    """What one objective makes of its clock, at one horizon."""

    size: str
    group: str
    cell: str
    objective: str
    seed: int
    measure: str
    """A false clock (then the value is what it costs, in normalised score), or a sensitivity."""
    horizon: int
    value: float
    levels: int
    digest: str


class Searched(NamedTuple):
    """What one search took, and how it ended."""

    size: str
    group: str
    cell: str
    objective: str
    seed: int
    generations: int
    steps: float
    """Environment steps of training."""
    evaluation_steps: float
    """Environment steps of its scores, at most: episodes times their step limit."""
    minutes: float
    """Wall time."""
    validation: float
    """Return of the last mean on validation levels at horizons of the search's law."""
    signal: float
    """Correlation of the pairs' differences over two random streams, mean over the generations in
    which it was measured; NaN if in none."""
    digest: str


class Levelled(NamedTuple):
    """What one objective is worth on each held-out level, one agent a level."""

    size: str
    group: str
    cell: str
    objective: str
    seed: int
    horizon: int
    actions: str
    """``sampled`` or ``greedy``."""
    measure: str
    """``final``, at the end of life, or ``area``, averaged along it."""
    levels: str
    """Which set of levels: its hash."""
    digest: str
    scores: tuple[float, ...]
    """Normalised, in the order of the set; minus infinity for an agent that is not finite."""

    @property
    def width(self) -> int:
        """Number of levels."""
        return len(self.scores)


class Table(NamedTuple):
    """One table of an entry, a CSV file: what its rows are, and who makes them."""

    name: str
    """The file is ``<entry>-<name>.csv``."""
    kind: type[Any]
    """Of a row: a ``NamedTuple`` of text, whole numbers and floats that begins as
    :func:`identity` has it. A last field of type ``tuple[float, ...]`` becomes as many columns as
    it has numbers, as :func:`short` has them."""
    key: tuple[str, ...]
    """Fields (or properties) that tell the rows of one search apart."""
    wanted: Callable[[Job], Collection[tuple[Any, ...]]]
    """Their values in the rows that a finished job has; nothing, if it has none in this table."""
    measure: str
    """``module:function`` of (job, size, runs, until, report): those rows, or ``None`` if the time
    was over before. Imported only where something has to be computed."""


class Grid(NamedTuple):
    """A small table for people."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    notes: tuple[str, ...] = ()
    """What its columns are, in words."""


class Conclusion(NamedTuple):
    """What the tables of an entry say."""

    grids: tuple[Grid, ...]
    text: str
    """In words, paragraphs apart."""
    draw: Callable[[], Figure]
    facts: Mapping[str, str] = {}
    """What stands beside the words on a page: seeds, intervals, budget of a search, ..."""


FALSE_CLOCKS = (
    "frozen-0",
    "frozen-0.5",
    "frozen-0.95",
    "reversed",
    "permuted",
    "quarter",
    "fourfold",
    "half",
)
"""Measures that are false clocks, in the order in which they are shown."""
SENSITIVITIES = ("S_pi_fraction", "S_pi_horizon", "S_y_fraction", "S_y_horizon")
"""Measures that are none: of pi_hat and y_hat, to the told share of life and horizon."""

Record = TypeVar("Record", bound=tuple)

Identity = tuple[str, str, str, str, int]


def identity(row: Any) -> Identity:
    """Which search a row is of: size of the entry, group, cell, objective, search seed."""
    size, group, cell, objective, seed = row[:5]
    return size, group, cell, objective, seed


def render(grids: Iterable[Grid]) -> Group:
    """Tables for a console."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = []
    for grid in grids:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, column in enumerate(grid.columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=not number)
        for row in grid.rows:
            table.add_row(*row)
        title = Text(("\n" if parts else "") + grid.title, style="bold")
        parts += [title, table, *(Text(note) for note in grid.notes)]
    return Group(*parts)


# --- files --------------------------------------------------------------------------------------


def _many(kind: type[Any]) -> bool:
    """Whether the last field of a row is as many columns as it has numbers."""
    return typing.get_origin(typing.get_type_hints(kind)[kind._fields[-1]]) is tuple


def _cell(value: Any) -> str:
    """A number so that it is read back as the same bits."""
    return repr(value) if isinstance(value, float) else str(value)


def short(value: float) -> str:
    """Three digits, four from 1 on, and no zero before the point.

    Example:
      >>> short(0.123456), short(-0.5), short(1.23456), short(0.0)
      ('.123', '-.5', '1.235', '0')
    """
    text = f"{value + 0.0:.3g}" if abs(value) < 1 else f"{value:.4g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def write(path: Path, kind: type[Any], rows: Iterable[Any]) -> None:
    """Write a table, sorted, every number so that it is read back as the same bits.

    Of columns that are many, the digits of :func:`short` are kept.

    Raises:
      OSError: the disk is full or read-only; an old table is untouched.
    """
    rows = sorted(rows)
    head = list(kind._fields)
    if _many(kind):
        widest = max((len(row[-1]) for row in rows), default=0)
        head = [*head[:-1], *(f"{head[-1]}_{i}" for i in range(widest))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        if _many(kind):
            empty = len(head) - len(row) + 1 - len(row[-1])
            cells = [*map(_cell, row[:-1]), *map(short, row[-1]), *[""] * empty]
        else:
            cells = [_cell(value) for value in row]
        writer.writerow(cells)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue().encode())


def read(path: Path | Traversable, kind: type[Record]) -> list[Record]:
    """The rows of a table; none if there is no such file.

    Raises:
      TableError: another table, or a cell that is not what its column holds.
    """
    if not path.is_file():
        return []
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: cannot be read: {error}") from None
    of_kind: Any = kind
    fields, many = of_kind._fields, _many(kind)
    whole = fields[:-1] if many else fields
    head = lines[0] if lines else []
    numbered = [f"{fields[-1]}_{i}" for i in range(len(head) - len(whole))] if many else []
    if head != [*whole, *numbered]:
        raise TableError(f"{path}: expected the columns {', '.join(fields)}")
    hints = typing.get_type_hints(kind)
    kinds = [hints[name] for name in whole]
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        try:
            if len(cells) != len(head):
                raise ValueError
            values: list[Any] = [of(cell) for of, cell in zip(kinds, cells, strict=False)]
            if many:
                values.append(tuple(float(cell) for cell in cells[len(whole) :] if cell))
        except ValueError:
            raise TableError(
                f"{path}: line {number}: expected {', '.join(of.__name__ for of in kinds)}, "
                f"found {','.join(cells)[:60]!r}"
            ) from None
        rows.append(of_kind(*values))
    return rows


def replace_rows(path: Path, kind: type[Any], of: tuple[Any, ...], rows: Sequence[Any]) -> None:
    """Put the rows of one search in the place of those that a table has of it.

    Args:
      path: of the table; made if there is none.
      kind: of its rows.
      of: the search, see :func:`identity`.
      rows: all of it.

    Raises:
      TableError: there is another table.
      OSError: the disk is full or read-only; the old table is untouched.
    """
    write(path, kind, [row for row in read(path, kind) if identity(row) != of] + list(rows))
