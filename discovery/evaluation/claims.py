"""Tables of a claim: what each search found is worth, and what it makes of its clock. No JAX.

A row is of one search at one horizon, already a mean over held-out levels, so that a table of a
hundred searches is a small file that can stand in a repository. Rows of agents are in the run
folders.
"""

from __future__ import annotations

import csv
import io
import typing
from collections.abc import Callable, Iterable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from discovery.evaluation.table import TableError
from learned_objectives.library import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group
else:
    Figure = Group = Any


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


class Conclusion(NamedTuple):
    """What the tables of an entry say."""

    table: Group
    """For a console."""
    text: str
    """In words."""
    draw: Callable[[], Figure]


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

Record = TypeVar("Record", Scored, Clocked)


def identity(row: Scored | Clocked) -> tuple[str, str, str, str, int]:
    """Which search a row is of."""
    return row.size, row.group, row.cell, row.objective, row.seed


def write(path: Path, kind: type[Record], rows: Iterable[Record]) -> None:
    """Write a table, sorted, every number so that it is read back as the same bits.

    Raises:
      OSError: the disk is full or read-only; an old table is untouched.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(kind._fields)
    writer.writerows(
        [repr(value) if isinstance(value, float) else str(value) for value in row]
        for row in sorted(rows)
    )
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
    if not lines or tuple(lines[0]) != kind._fields:
        raise TableError(f"{path}: expected the columns {', '.join(kind._fields)}")
    kinds = [typing.get_type_hints(kind)[name] for name in kind._fields]
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        try:
            values = [of(cell) for of, cell in zip(kinds, cells, strict=True)]
        except ValueError:
            raise TableError(
                f"{path}: line {number}: expected {', '.join(of.__name__ for of in kinds)}, "
                f"found {','.join(cells)[:60]!r}"
            ) from None
        rows.append(kind(*values))
    return rows


def replace_rows(path: Path, kind: type[Record], of: tuple[Any, ...], rows: list[Record]) -> None:
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
    write(path, kind, [row for row in read(path, kind) if identity(row) != of] + rows)
