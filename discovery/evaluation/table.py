"""The tidy table of an evaluation: one row for each agent that lived; no JAX.

CSV by the standard library, or Parquet where the file's name ends in ``.parquet`` (an extra). Rows
are sorted and numbers written so that they are read back as the same bits: the same rows make the
same bytes, in whatever order they came.
"""

from __future__ import annotations

import csv
import io
import math
import os
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from discovery.evaluation import statistics
from learned_objectives.library import write_whole

if TYPE_CHECKING:
    from rich.console import Group
else:  # rich is only needed to print
    Group = Any

Value = Literal["normalised", "score", "normalised_area", "area"]
TRUE = "true"
"""The clock of rows whose objective was told the truth about time."""


class TableError(ValueError):
    """A table that cannot be read, written or summarised; its text is what a person reads."""

    status = 2


class Row(NamedTuple):
    """One agent's life under one objective, scored."""

    objective: str
    """What the objective is called."""
    digest: str
    """Its SHA-256: which theta exactly. Several under one name are its search seeds."""
    environment: str
    level_hash: str
    """SHA-256 of the set of levels; rows compare only within one set."""
    level: int
    """Number of the level in its set."""
    horizon: int
    """Updates of the life, N."""
    steps: int
    """Environment steps of the life: horizon x environments x rollout."""
    seed: int
    """Of the agent."""
    actions: str
    """``sampled`` or ``greedy``: how the trained agent acted when it was scored."""
    score: float
    """Undiscounted return of the trained agent, mean over episodes."""
    normalised: float | None
    """``(score - random) / (optimal - random)``, where these are known."""
    random: float | None
    """Return of the uniform policy on this level."""
    optimal: float | None
    """Best return on this level (or of the reference, where none is exact)."""
    area: float | None
    """Score averaged along the life."""
    episodes: int
    """Episodes that the score is a mean of."""
    finite: bool
    """Whether all of the agent's parameters and its return are finite; if not it ranks worst."""
    wall_seconds: float | None
    """Time of the batch of lives that this one was computed in."""
    versions: str
    """Of the packages that computed it."""
    clock: str = TRUE
    """What the objective was told of time: the truth, or the name of a lie. A table from before
    there was this column was told the truth."""


COLUMNS: tuple[str, ...] = Row._fields
KEY = (
    "objective",
    "digest",
    "environment",
    "level_hash",
    "level",
    "horizon",
    "steps",
    "seed",
    "actions",
    "clock",
)
"""What makes a row itself: a table holds one row of each."""

_KINDS: dict[str, type] = {
    **dict.fromkeys(("level", "horizon", "steps", "seed", "episodes"), int),
    **dict.fromkeys(("score", "normalised", "random", "optimal", "area", "wall_seconds"), float),
    "finite": bool,
}
_OPTIONAL = frozenset({"normalised", "random", "optimal", "area", "wall_seconds"})


def normalise(value: float, random: float | None, optimal: float | None) -> float | None:
    r""":math:`(v - R_\mathrm{rand}) / (R_\mathrm{opt} - R_\mathrm{rand})`, not clipped.

    Args:
      value: a return.
      random: that of the uniform policy.
      optimal: the best there is.

    Returns:
      0 for as good as random, 1 for optimal; ``None`` where the bounds are unknown or equal.

    Example:
      >>> normalise(3.0, 1.0, 5.0)
      0.5
    """
    if random is None or optimal is None or optimal == random:
        return None
    return (value - random) / (optimal - random)


# --- files ------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], rows: Iterable[Row]) -> Path:
    """Write a table, replacing what is there, under a temporary name first.

    Args:
      path: ends in ``.csv`` or ``.parquet``.
      rows: in any order; of two rows of one key the later counts.

    Returns:
      The path.

    Raises:
      TableError: another kind of file, or Parquet without its extra.
      OSError: the disk is full or read-only; the old table is untouched.
    """
    path = Path(path)
    dump, _ = _format(path)
    kept = {_key(row): row for row in map(_typed, rows)}
    data = dump([kept[key] for key in sorted(kept)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)
    return path


def write_numbers(
    path: str | os.PathLike[str], header: Sequence[str], lines: Iterable[Sequence[int | float]]
) -> Path:
    """Write a plain table of numbers, each so that it is read back as the same bits.

    Raises:
      OSError: the disk is full or read-only; an old table is untouched.
    """
    return _write_lines(path, header, ([repr(number) for number in line] for line in lines))


def _write_lines(
    path: str | os.PathLike[str], header: Sequence[str], lines: Iterable[Sequence[str]]
) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _csv(header, lines))
    return path


def _csv(header: Sequence[str], lines: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue().encode()


def append(path: str | os.PathLike[str], rows: Iterable[Row]) -> Path:
    """Add rows to a table, or begin one; a row of a key that is there replaces it.

    Raises:
      TableError: the table cannot be read, or has columns of somebody else, which would be lost.
    """
    path = Path(path)
    old = read(path, strict=True) if path.exists() else []
    return write(path, [*old, *rows])


def check_path(path: str | os.PathLike[str]) -> None:
    """Refuse a name under which no table can be written, before its rows are computed.

    Raises:
      TableError: another kind of file, or Parquet without its extra.
    """
    path = Path(path)
    _format(path)
    if path.suffix == ".parquet":
        _parquet()
    if path.is_dir():
        raise TableError(f"{path} is a folder; expected a file")


def read(path: str | os.PathLike[str], *, strict: bool = False) -> list[Row]:
    """The rows of a table.

    Args:
      path: a ``.csv`` or ``.parquet`` file; columns in any order.
      strict: refuse columns other than ours, which are otherwise left out.

    Returns:
      Rows in the order of the file.

    Raises:
      TableError: no such file, a column is missing, or a value is not what its column holds: the
        file, the line, the column, what was expected and what was found.
    """
    path = Path(path)
    _, load = _format(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror or error}") from None
    rows = load(path, data)
    names = next(rows)
    absent = [name for name in COLUMNS if name not in names]
    if missing := [name for name in absent if name not in Row._field_defaults]:
        raise TableError(f"{path}: expected a column {missing[0]!r}, found {', '.join(names)}")
    if strict and (others := [name for name in names if name not in COLUMNS]):
        raise TableError(f"{path}: column {others[0]!r} is not of this table and would be lost")
    places = {name: names.index(name) for name in COLUMNS if name not in absent}
    return [
        _parsed(path, line, {n: cells[i] for n, i in places.items()}, len(cells) - len(names))
        for line, cells in enumerate(_padded(rows, len(names)), start=2)
    ]


def _format(path: Path) -> tuple[Callable[[list[Row]], bytes], Callable[..., Iterator[list[Any]]]]:
    """How to write and to read a file of this name."""
    formats = {".csv": (_to_csv, _from_csv), ".parquet": (_to_parquet, _from_parquet)}
    if path.suffix not in formats:
        raise TableError(f"{path}: expected a name that ends in {' or '.join(formats)}")
    return formats[path.suffix]


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in KEY)


def _typed(row: Row) -> Row:
    """A row of plain Python values; NumPy's scalars become them."""
    values: dict[str, Any] = {}
    for name, value in row._asdict().items():
        if value is None:
            if name not in _OPTIONAL:
                raise TableError(f"a row needs {name}")
            values[name] = None
        else:
            values[name] = _KINDS.get(name, str)(value)
            if isinstance(value, str) and {"\n", "\r"} & set(value):
                raise TableError(f"{name} must be one line, not {value!r}")
    return Row(**values)


def _parsed(path: Path, line: int, cells: Mapping[str, Any], surplus: int) -> Row:
    """A row from the cells of a file, text or already typed."""
    if surplus:
        raise TableError(f"{path}: line {line}: expected as many cells as columns, found another")
    values: dict[str, Any] = {}
    for name, cell in cells.items():
        kind = _KINDS.get(name, str)
        try:
            if cell is None or (cell == "" and kind is not str):
                if name not in _OPTIONAL:
                    raise ValueError(cell)
                values[name] = None
            elif kind is bool and isinstance(cell, str):
                values[name] = {"true": True, "false": False}[cell]
            else:
                values[name] = kind(cell)
        except (ValueError, KeyError, TypeError, OverflowError):
            expected = {int: "an integer", float: "a number", bool: "true or false"}.get(kind)
            raise TableError(
                f"{path}: line {line}: {name}: expected {expected or 'text'}, "
                f"found {str('' if cell is None else cell)[:40]!r}"
            ) from None
    return Row(**values)


def _padded(rows: Iterator[list[Any]], width: int) -> Iterator[list[Any]]:
    """Rows with empty cells for those that a cut line has lost."""
    for cells in rows:
        if cells:
            yield cells + [None] * (width - len(cells))


def _to_csv(rows: list[Row]) -> bytes:
    return _csv(COLUMNS, ([_cell(value) for value in row] for row in rows))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    # repr of a float is the shortest text that is read back as the same bits.
    return repr(value) if isinstance(value, float) else str(value)


def _from_csv(path: Path, data: bytes) -> Iterator[list[Any]]:
    """The header of a CSV file, then its rows."""
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
        yield next(reader, [])
        yield from reader
    except (csv.Error, UnicodeDecodeError) as error:
        raise TableError(f"{path}: is not CSV: {error}") from None


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise TableError(
            "Parquet needs an extra: pip install 'kairos-rl[parquet]' (or name a .csv file)"
        ) from None
    return pyarrow


def _to_parquet(rows: list[Row]) -> bytes:
    pyarrow = _parquet()
    types = {int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    schema = pyarrow.schema(
        [(name, types.get(_KINDS.get(name, str), pyarrow.string())) for name in COLUMNS]
    )
    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    out = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), out)
    return bytes(out.getvalue().to_pybytes())


def _from_parquet(path: Path, data: bytes) -> Iterator[list[Any]]:
    """The column names of a Parquet file, then its rows."""
    pyarrow = _parquet()
    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    except (pyarrow.ArrowException, OSError) as error:
        raise TableError(f"{path}: is not Parquet: {str(error).splitlines()[0]}") from None
    yield list(table.column_names)
    columns = [column.to_pylist() for column in table.columns]
    yield from map(list, zip(*columns, strict=True))


# --- summaries --------------------------------------------------------------------------------


class Summary(NamedTuple):
    """One objective at one horizon in one environment."""

    objective: str
    environment: str
    level_hash: str
    actions: str
    horizon: int
    steps: int
    value: str
    """What is summarised, see :data:`Value`."""
    estimate: float
    """Interquartile mean over search seeds, levels and agents."""
    low: float
    """Lower end of its interval; NaN where none is claimed."""
    high: float
    confidence: float
    """Of the interval."""
    n: int
    """Agents."""
    search_seeds: int
    """Thetas of this name. 1: the interval is over levels; under 5: none is claimed."""
    levels: int
    clock: str = TRUE
    """What the objective was told of time."""


class Comparison(NamedTuple):
    """How far one objective is above another, on the same levels at one horizon."""

    first: str
    second: str
    environment: str
    actions: str
    horizon: int
    value: str
    estimate: float
    """Interquartile mean of the first less that of the second."""
    low: float
    high: float
    p: float
    """Two-sided bootstrap p-value; NaN where no interval is claimed."""
    holm: float
    """The same, corrected for the horizons that are compared together."""
    improvement: float
    """Probability that the first is better on a level."""
    clock: str = TRUE
    """What both were told of time."""


class ClockUse(NamedTuple):
    """One number that tells how far an objective uses its clock."""

    objective: str
    digest: str
    """Which theta; empty if it is of several."""
    null: bool
    """Of an objective that nothing was learned by, with which others are compared."""
    measure: str
    """A false clock, for the score lost under it; or a sensitivity, such as ``S_pi_fraction``."""
    horizon: int
    """N, in updates."""
    value: float
    low: float
    """Lower end of its 95 % interval; NaN where none is claimed."""
    high: float
    levels: int
    """Levels that the number is of."""
    search_seeds: int
    """Thetas that the number is of."""


class Standing(NamedTuple):
    """How objectives rank at one horizon in one environment, and how sure that is."""

    environment: str
    actions: str
    clock: str
    horizon: int
    value: str
    objectives: tuple[str, ...]
    """Best first, by the interquartile mean."""
    shares: tuple[tuple[float, ...], ...]
    """Of each, in that order, the shares of resamples in which it is first, second, ..."""
    agreement: float
    """Kendall's tau-b of the orders under two agent seeds, mean over pairs; NaN for one seed."""


class Profile(NamedTuple):
    """Share of agents above each score, of one objective at one horizon."""

    thresholds: Float[np.ndarray, " K"]
    share: Float[np.ndarray, " K"]
    low: Float[np.ndarray, " K"]
    """Pointwise; NaN where no interval is claimed."""
    high: Float[np.ndarray, " K"]
    value: str


def value_of(row: Row, value: Value) -> float | None:
    """A row's number, minus infinity for an agent that is not finite, ``None`` if not known."""
    if value == "normalised_area":
        found = None if row.area is None else normalise(row.area, row.random, row.optimal)
    else:
        found = getattr(row, value)
    return -math.inf if found is not None and not row.finite else found


def scores(rows: Sequence[Row], value: Value = "normalised") -> Float[np.ndarray, "S L A"]:
    """Rows of one objective at one horizon as an array, for :mod:`discovery.evaluation.statistics`.

    Args:
      rows: one objective, environment, level set, horizon, kind of actions and clock.
      value: which number of a row.

    Returns:
      Search seeds, levels, agents: those agents that every theta has on every level they share.

    Raises:
      TableError: there are none, a row does not have that number, or clocks are mixed.
    """
    if len(clocks := {row.clock for row in rows}) > 1:
        raise TableError(f"rows of the clocks {', '.join(sorted(clocks))} do not add up")
    cells = {(row.digest, row.level, row.seed): value_of(row, value) for row in rows}
    if None in cells.values():
        raise TableError(f"not every row has a {value} value")
    digests = sorted({row.digest for row in rows})
    by_digest = [{(d, n) for (digest, d, n) in cells if digest == wanted} for wanted in digests]
    shared = set.intersection(*by_digest) if by_digest else set()
    levels = sorted({level for level, _ in shared})
    seeds = sorted({seed for _, seed in shared})
    seeds = [seed for seed in seeds if all((level, seed) in shared for level in levels)]
    if not levels or not seeds:
        raise TableError("these rows have no level and agent seed in common")
    return np.array([[[cells[d, n, s] for s in seeds] for n in levels] for d in digests], float)


def summary(
    rows: Iterable[Row],
    value: Value | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = statistics.RESAMPLES,
    seed: int = 0,
) -> list[Summary]:
    """Interquartile mean with its interval, for each objective and horizon.

    Args:
      rows: of any number of objectives, environments and horizons.
      value: which number; by default ``normalised`` where an environment has it, else ``score``.
      confidence: of the intervals.
      resamples: of the bootstrap, over search seeds, then levels.
      seed: of the resampling.

    Returns:
      Environments, actions, clocks and objectives in the order of the rows, horizons ascending.
    """
    found = []
    for (environment, level_hash, actions, clock), cells in _groups(rows).items():
        used = value or _best_value(cells)
        for objective, by_horizon in cells.items():
            for horizon, group in sorted(by_horizon.items()):
                array = scores(group, used)
                interval = statistics.interval(
                    array, confidence=confidence, resamples=resamples, seed=seed
                )
                claimed = _is_claimed(len(array))
                found.append(
                    Summary(
                        objective=objective,
                        environment=environment,
                        level_hash=level_hash,
                        actions=actions,
                        horizon=horizon,
                        steps=group[0].steps,
                        value=used,
                        estimate=interval.estimate,
                        low=interval.low if claimed else math.nan,
                        high=interval.high if claimed else math.nan,
                        confidence=confidence,
                        n=array.size,
                        search_seeds=array.shape[0],
                        levels=array.shape[1],
                        clock=clock,
                    )
                )
    return found


def compare(
    rows: Iterable[Row],
    first: str,
    second: str,
    value: Value | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = statistics.RESAMPLES,
    seed: int = 0,
) -> list[Comparison]:
    """Two objectives on the same levels: paired differences at each horizon that both have.

    Args:
      rows: of both, and of whatever else.
      first: name of an objective.
      second: name of another.
      value: as in :func:`summary`.
      confidence: of the intervals.
      resamples: of the bootstrap.
      seed: of the resampling.

    Returns:
      One entry for each environment, kind of actions, clock and horizon.

    Raises:
      TableError: an objective is not in the rows, or the two share no levels.
    """
    rows = list(rows)
    for name in (first, second):
        if all(row.objective != name for row in rows):
            known = ", ".join(dict.fromkeys(row.objective for row in rows))
            raise TableError(f"no rows of {name!r}; there are: {known or 'none at all'}")
    found: list[Comparison] = []
    for (environment, _, actions, clock), cells in _groups(rows).items():
        if first not in cells or second not in cells:
            continue
        used = value or _best_value({name: cells[name] for name in (first, second)})
        together = []
        for horizon in sorted(cells[first].keys() & cells[second].keys()):
            a, b = _on_shared_levels(cells[first][horizon], cells[second][horizon])
            x, y = scores(a, used), scores(b, used)
            options = {"confidence": confidence, "resamples": resamples, "seed": seed}
            # A table does not tell which searches had the same task stream.
            difference = statistics.paired_difference(
                x,
                y,
                paired_seeds=False,
                **options,  # type: ignore[arg-type]
            )
            if not (_is_claimed(len(x)) and _is_claimed(len(y))):
                difference = statistics.Difference(difference.estimate, *[math.nan] * 3)
            won = statistics.probability_of_improvement(x.mean(-1), y.mean(-1), resamples=1)
            together.append((horizon, used, difference, won.estimate))
        corrected = statistics.holm(np.array([entry[2].p for entry in together]))
        found += [
            Comparison(
                first,
                second,
                environment,
                actions,
                horizon,
                used,
                *difference,
                float(p),
                won,
                clock,
            )
            for (horizon, used, difference, won), p in zip(together, corrected, strict=True)
        ]
    if not found:
        raise TableError(f"{first!r} and {second!r} share no levels at any horizon")
    return found


def standings(
    rows: Iterable[Row], value: Value | None = None, *, resamples: int = 2_000, seed: int = 0
) -> list[Standing]:
    """Ranks of the objectives of a table, on the levels and agent seeds that all have.

    Args:
      rows: of any number of objectives, environments and horizons.
      value: as in :func:`summary`.
      resamples: of the bootstrap, over search seeds and levels.
      seed: of the resampling.

    Returns:
      One entry for each environment, kind of actions, clock and horizon of two objectives or more.
    """
    found = []
    for (environment, _, actions, clock), cells in _groups(rows).items():
        for horizon in sorted({n for by_horizon in cells.values() for n in by_horizon}):
            each = {name: by[horizon] for name, by in cells.items() if horizon in by}
            if len(each) == 1:
                continue
            used = value or _best_value({name: {horizon: group} for name, group in each.items()})
            shared = set.intersection(
                *({(row.level, row.seed) for row in group} for group in each.values())
            )
            arrays = {
                name: scores([row for row in group if (row.level, row.seed) in shared], used)
                for name, group in each.items()
            }
            pooled = {n: float(statistics.interquartile_mean(x)) for n, x in arrays.items()}
            order = sorted(arrays, key=lambda name: -pooled[name])
            shares = statistics.rank_shares(
                [arrays[name] for name in order], resamples=resamples, seed=seed
            )
            agreement = statistics.rank_agreement(np.stack([_by_agent(arrays[n]) for n in order]))
            told = tuple(tuple(row) for row in shares.tolist())
            found.append(
                Standing(environment, actions, clock, horizon, used, tuple(order), told, agreement)
            )
    return found


def _by_agent(scores: Float[np.ndarray, "S L A"]) -> Float[np.ndarray, " A"]:
    """Interquartile mean of each agent seed."""
    agents = np.moveaxis(scores, -1, 0)
    return statistics.interquartile_mean(agents.reshape(len(agents), -1), axis=1)


def render_standings(standings: Sequence[Standing]) -> Group:
    """Ranks for a console: a row for each horizon, a column for each objective."""
    entries: dict[str, list[Standing]] = {}
    for entry in standings:
        where = f"{entry.environment}, {entry.actions} actions"
        where = where if entry.clock == TRUE else f"{where}, clock {entry.clock}"
        entries.setdefault(where, []).append(entry)
    return _tables(
        (
            f"ranks in {where}",
            {
                **{
                    (e.horizon, name): f"{e.objectives.index(name) + 1} ({share:.0%})"
                    for e in found
                    for name in e.objectives
                    for share in [e.shares[e.objectives.index(name)][e.objectives.index(name)]]
                },
                **{
                    (e.horizon, "seeds agree"): _number(e.agreement)
                    for e in found
                    if not math.isnan(e.agreement)
                },
            },
            "in brackets, how often it has that rank on resamples of search seeds and levels"
            + ("; agreement of agent seeds: Kendall's tau" if _agree(found) else ""),
        )
        for where, found in entries.items()
    )


def _agree(standings: Sequence[Standing]) -> bool:
    return any(not math.isnan(entry.agreement) for entry in standings)


Panels = dict[int, dict[str, Profile]]
"""Horizon -> objective -> profile."""


def profiles(rows: Iterable[Row], value: Value | None = None) -> dict[tuple[str, str], Panels]:
    """Performance profiles: the share of agents whose score is above each of 101 thresholds.

    Args:
      rows: under one clock.
      value: as in :func:`summary`.

    Returns:
      (environment, actions) -> horizon -> objective -> profile; thresholds span the finite scores
      of the environment, and for normalised ones at least 0 to 1.
    """
    found: dict[tuple[str, str], Panels] = {}
    for (environment, _, actions, _), cells in _groups(rows).items():
        used = value or _best_value(cells)
        arrays = {
            (n, name): scores(group, used)
            for name, by_horizon in cells.items()
            for n, group in by_horizon.items()
        }
        every = np.concatenate([array.ravel() for array in arrays.values()])
        every = every[np.isfinite(every)]
        ends = [0.0, 1.0] if used.startswith("normalised") else []
        low, high = min([*every, *ends], default=0.0), max([*every, *ends], default=1.0)
        thresholds = np.linspace(low, high, 101)
        for (n, name), array in sorted(arrays.items()):
            share, below, above = statistics.performance_profile(array, thresholds)
            if not _is_claimed(len(array)):
                below, above = np.full_like(share, np.nan), np.full_like(share, np.nan)
            profile = Profile(thresholds, share, below, above, used)
            found.setdefault((environment, actions), {}).setdefault(n, {})[name] = profile
    return found


def render(summaries: Sequence[Summary]) -> Group:
    """Summaries as tables for a console: a row for each horizon, a column for each objective."""
    entries: dict[tuple[str, ...], list[Summary]] = {}
    for entry in summaries:
        entries.setdefault((_what(entry), entry.level_hash), []).append(entry)
    return _tables(
        (
            title,
            {(e.horizon, e.objective): _shown(e) for e in found},
            _caption(found),
        )
        for (title, _), found in entries.items()
    )


def render_comparisons(comparisons: Sequence[Comparison]) -> Group:
    """Paired differences for a console: a row for each horizon, a column for each rival."""
    entries: dict[str, list[Comparison]] = {}
    for entry in comparisons:
        entries.setdefault(f"{entry.first} less each rival. {_what(entry)}", []).append(entry)
    return _tables(
        (
            title,
            {(e.horizon, e.second): _difference(e.estimate, e.low, e.high) for e in found},
            "paired by level; * the 95 % interval excludes zero",
        )
        for title, found in entries.items()
    )


def render_clock_uses(uses: Sequence[ClockUse], title: str, signed: bool = False) -> Group:
    """Losses and sensitivities for a console: a row for each measure, a column for each horizon.

    Args:
      uses: of any number of objectives, each of which gets a table.
      title: what all of them are, behind the objective's name.
      signed: they are differences, so that sensitivities may be below 0 too.

    Returns:
      The tables.
    """
    entries: dict[str, list[ClockUse]] = {}
    for use in uses:
        entries.setdefault(use.objective, []).append(use)
    return _tables(
        (
            (
                f"{name}{title}",
                {(use.measure, f"N = {use.horizon:,}"): _used(use, signed) for use in found},
                _clock_caption(found),
            )
            for name, found in entries.items()
        ),
        first="",
    )


def _used(use: ClockUse, signed: bool) -> str:
    """A number with a star; its interval is in the table that is written."""
    if use.measure.startswith("S_") and not signed:
        return f"{use.value:.2g} "
    return f"{use.value:+.3f}{'*' if use.low > 0 or use.high < 0 else ' '}"


def _clock_caption(uses: Sequence[ClockUse]) -> str:
    seeds = sorted({use.search_seeds for use in uses})
    counted = f"{seeds[0]} search seed{'s' * (seeds != [1])}"
    text = f"{max(use.levels for use in uses)} levels, {counted}"
    if all(math.isnan(use.low) for use in uses):
        fewer = seeds[0] < statistics.FEWEST_SEEDS
        return f"{text}: too few to claim an interval" if fewer else text
    over = "levels" if seeds == [1] else "search seeds, then levels"
    return f"{text}; * the 95 % interval, over {over}, excludes zero"


def write_clock_uses(path: str | os.PathLike[str], uses: Iterable[ClockUse]) -> Path:
    """Write a tidy CSV of losses and sensitivities; what is not claimed is empty.

    Raises:
      OSError: the disk is full or read-only; an old table is untouched.
    """
    return _write_lines(
        path,
        ClockUse._fields,
        ([_cell(None if _is_nan(value) else value) for value in use] for use in uses),
    )


def read_clock_uses(path: str | os.PathLike[str]) -> list[ClockUse]:
    """The inverse of :func:`write_clock_uses`.

    Raises:
      TableError: no such file, a column is missing, or a value is not what its column holds.
    """
    path = Path(path)
    try:
        rows = _from_csv(path, path.read_bytes())
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror or error}") from None
    names = next(rows)
    if missing := [name for name in ClockUse._fields if name not in names]:
        raise TableError(f"{path}: expected a column {missing[0]!r}, found {', '.join(names)}")
    kinds = typing.get_type_hints(ClockUse)
    found = []
    for line, cells in enumerate(rows, start=2):
        try:
            values = dict(zip(names, cells, strict=True))
            found.append(ClockUse(**{name: _use(kinds[name], values[name]) for name in kinds}))
        except (ValueError, KeyError):
            raise TableError(f"{path}: line {line}: is not a line of this table") from None
    return found


def _use(kind: type, cell: str) -> Any:
    if kind is bool:
        return {"true": True, "false": False}[cell]
    return kind("nan" if kind is float and cell == "" else cell)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _tables(
    parts: Iterable[tuple[str, Mapping[tuple[Any, str], str], str]], first: str = "N"
) -> Group:
    """``(title, {(row, column): text}, caption)`` as tables that fit 80 characters.

    Rows are horizons, which are sorted, or names.
    """
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    drawn: list[Text | Table] = []
    for title, cells, caption in parts:
        columns = list(dict.fromkeys(column for _, column in cells))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column(first, justify="right" if first else "left")
        for column in columns:
            table.add_column(escape(column), justify="right", overflow="fold")
        rows = list(dict.fromkeys(row for row, _ in cells))
        for row in sorted(rows) if first == "N" else rows:
            line = [escape(cells.get((row, column), "")) for column in columns]
            table.add_row(escape(f"{row:,}" if first == "N" else row), *line)
        drawn += [Text(title, style="bold"), table, Text(caption, style="dim")]
    return Group(*drawn)


def _what(entry: Summary | Comparison) -> str:
    """What a table or a part of it is about."""
    text = f"{entry.environment}: {_TITLES[entry.value]}, {entry.actions} actions"
    return text if entry.clock == TRUE else f"{text}, clock {entry.clock}"


def _difference(estimate: float, low: float, high: float) -> str:
    text = f"{estimate:+.3f}"
    if math.isnan(low):
        return text
    star = "*" if low > 0 or high < 0 else " "
    return f"{text}{star}\n{_interval(low, high)}"


def _interval(low: float, high: float) -> str:
    """Short: a table has a column for each objective."""
    return f"[{_number(low)}, {_number(high)}]"


_TITLES = {
    "normalised": "normalised score (0 random, 1 optimal)",
    "score": "return",
    "normalised_area": "normalised score averaged along the life",
    "area": "return averaged along the life",
}


def _caption(entries: Sequence[Summary]) -> str:
    counts = sorted({entry.n for entry in entries})
    agents = str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    seeds = sorted({entry.search_seeds for entry in entries})
    batches = sorted({entry.steps // entry.horizon for entry in entries})
    unit = f"{batches[0]:,} environment steps" if len(batches) == 1 else "one rollout"
    plural = "s" * (agents != "1")
    text = f"N: horizon in updates of {unit}; interquartile mean of {agents} agent{plural} a cell"
    if any(not math.isnan(entry.low) for entry in entries):
        over = "levels" if seeds == [1] else "search seeds (where there are 5), then levels"
        text += f" [{100 * entries[0].confidence:g} % interval over {over}]"
    return text


def _shown(entry: Summary) -> str:
    text = _number(entry.estimate)
    return text if math.isnan(entry.low) else f"{text}\n{_interval(entry.low, entry.high)}"


def _number(value: float) -> str:
    """Two or three digits, ``-.03`` for ``-0.03``."""
    size = abs(value)
    if size < 1:
        return f"{value:.2f}".replace("0.", ".", 1)
    return f"{value:.2f}" if size < 10 else f"{value:.1f}" if size < 1000 else f"{value:,.0f}"


def _is_claimed(search_seeds: int) -> bool:
    """Whether an interval says something: of one theta over levels, or of enough searches."""
    return search_seeds == 1 or search_seeds >= statistics.FEWEST_SEEDS


_Cells = dict[str, dict[int, list[Row]]]


def _groups(rows: Iterable[Row]) -> dict[tuple[str, str, str, str], _Cells]:
    """(environment, level set, actions, clock) -> objective -> horizon -> rows."""
    groups: dict[tuple[str, str, str, str], _Cells] = {}
    for row in rows:
        cells = groups.setdefault((row.environment, row.level_hash, row.actions, row.clock), {})
        cells.setdefault(row.objective, {}).setdefault(row.horizon, []).append(row)
    return groups


def _best_value(cells: _Cells) -> Value:
    rows = [row for by_horizon in cells.values() for group in by_horizon.values() for row in group]
    return "score" if any(row.normalised is None for row in rows) else "normalised"


def _on_shared_levels(a: list[Row], b: list[Row]) -> tuple[list[Row], list[Row]]:
    """Rows of two objectives, on the levels and agent seeds that both have."""
    shared = {(row.level, row.seed) for row in a} & {(row.level, row.seed) for row in b}
    a, b = ([row for row in rows if (row.level, row.seed) in shared] for rows in (a, b))
    return a, b
