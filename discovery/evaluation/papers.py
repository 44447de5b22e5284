"""Published claims as entries: their searches, their tables, their picture, from one command.

An entry is data. A new claim adds one to :data:`REGISTRY` and a module (no JAX at its import) with
three names:

``TABLES``
    A tuple of :class:`discovery.evaluation.claims.Table`: for each, what its rows are, which rows
    a finished job has, and the function that makes them. Rows may be anything, from one number a
    search to one a level.
``jobs(size, seeds)``
    A list of :class:`Job`, in the order in which they are worth doing. A job is one search, told
    whole by its configuration: any rule, clock, horizons, shaping, streams. What ``sweep`` holds
    is between the entry and the functions that make its tables. A job may begin with nothing
    searched (``start``), be an objective that exists already (``source``), be the search of
    another entry (``home``) or be searched in another way (``search``).
``conclude(size, tables)``
    Of the rows of one size by name of the table: what they say
    (:class:`discovery.evaluation.claims.Conclusion`). It has to make do with a part of the work.

Everything here (searching, resuming, tables, pictures, the page) is the same for all. A table that
is complete asks for no run folder: searches whose rows stand in it are done, wherever they ran. No
JAX unless something has to be computed: a picture is drawn from tables alone.
"""

from __future__ import annotations

import importlib
import importlib.resources
import math
import re
import shlex
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from discovery.config import Config, ConfigError, check_minutes, from_dict, nearest
from discovery.requests import ReproduceConfig, seeds
from discovery.screen import say

if TYPE_CHECKING:
    from discovery.evaluation.claims import Conclusion, Table
else:  # they bring SciPy, which a list of names does not need
    Conclusion = Table = Any


class Sweep(NamedTuple):
    """How an objective is scored, and its clock examined."""

    levels: int
    """Held-out levels, of the stream ``test``."""
    horizons: tuple[int, ...]
    """Horizons, in updates."""
    clock_levels: int
    """Levels of false clocks (of the stream ``test``) and of sensitivities (``validation``)."""
    clock_horizons: tuple[int, ...]
    """Horizons at which its clock is tampered with."""
    told: tuple[int, ...]
    """Horizons that it is told there instead of the true one, for sensitivities."""


class Job(NamedTuple):
    """One search, and how its objective is scored."""

    group: str
    cell: str
    objective: str
    seed: int
    config: Config
    sweep: Any
    """What the tables of its entry are made by."""
    null: str = ""
    """Which null it is, if one."""
    start: str = ""
    """The cell of what it is measured by, which is there before it. Its own name: nothing is
    searched, and the objective is what a search would begin with."""
    source: str = ""
    """Name of an objective that exists, shipped or hand-written: nothing is searched."""
    home: str = ""
    """Label of the entry whose run folders it uses, if not its own; see :func:`label`."""
    search: str = "discovery.evaluation.trials:search"
    """``module:function`` of (job, runs, until, report) that leaves a finished run folder, and
    returns what stopped it, if anything."""

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        words = (self.group, self.cell, self.objective.lower(), str(self.seed))
        return re.sub(r"[^\w.-]+", "-", "-".join(word for word in words if word))

    def place(self, runs: Path) -> Path:
        """Its run folder, where the entry has its own in ``runs``."""
        return (runs.parent / self.home if self.home else runs) / self.folder

    @property
    def title(self) -> str:
        """In words."""
        words = (self.group, self.cell, self.objective, f"seed {self.seed}")
        return ", ".join(word for word in words if word)

    @property
    def is_start(self) -> bool:
        """Nothing is searched."""
        return self.cell == self.start

    @property
    def sees_clock(self) -> bool:
        """Whether there is a clock to tamper with."""
        return self.config.objective.clock_gate != 0

    def identity(self, size: str) -> tuple[str, str, str, str, int]:
        """As :func:`discovery.evaluation.claims.identity` of its rows."""
        return size, self.group, self.cell, self.objective, self.seed


class Entry(NamedTuple):
    """A claim that is tested with one command."""

    name: str
    line: str
    claim: str
    """And who made it."""
    sizes: dict[str, str]
    """Size -> what it takes; the first is the default."""
    module: str
    """Of its tables, its jobs and what they say; see above."""
    seeds: str = "0-4"
    """Search seeds, if nobody says."""


REGISTRY: tuple[Entry, ...] = (
    Entry(
        name="claim-1",
        line="score against horizon: TA-LPG, LPG, controls of the clock, rivals on schedules",
        claim="a horizon-aware objective beats the horizon-blind one over a range of horizons, "
        "including horizons never trained on "
        "(Discovering Temporally-Aware Reinforcement Learning Algorithms, ICLR 2024)",
        sizes={
            "cpu": "165 searches of half a minute to one, about two hours on 2 CPU cores",
            "full": "the published sizes, for accelerators",
        },
        module="discovery.evaluation.claim_1",
        seeds="0-9",
    ),
    Entry(
        name="claim-2",
        line="environments never trained on: fixed levels, mazes, bsuite, control, MinAtar",
        claim="a horizon-aware objective generalises to environments it was never trained on "
        "(Discovering Temporally-Aware Reinforcement Learning Algorithms, ICLR 2024)",
        sizes={
            "cpu": "no search of its own: plays claim 1's objectives, in about 20 minutes",
            "full": "the published sizes, for accelerators",
        },
        module="discovery.evaluation.claim_2",
    ),
    Entry(
        name="claim-3",
        line="which ways to search find objectives that use their clock: evolution, gradients",
        claim="truncated meta-gradients do not find adaptive objectives, evolution does "
        "(Discovering Temporally-Aware Reinforcement Learning Algorithms, ICLR 2024)",
        sizes={
            "cpu": "150 searches of half a minute to three, under two hours on 2 CPU cores",
            "full": "the published sizes, for accelerators",
        },
        module="discovery.evaluation.claim_3",
    ),
    Entry(
        name="claim-4",
        line="games never trained on: TA-LPO, LPO, PPO, DPO, PPO on schedules",
        claim="TA-LPO beats LPO and PPO on environments not trained on "
        "(Discovering Temporally-Aware Reinforcement Learning Algorithms, ICLR 2024)",
        sizes={
            "cpu": "40 searches of a minute, and games: about an hour on 2 CPU cores",
            "full": "the published sizes, for accelerators",
        },
        module="discovery.evaluation.claim_4",
    ),
    Entry(
        name="claim-5",
        line="what the clock does to one update and to a drift; whether schedules stretch",
        claim="the learned schedule goes from optimistic and high-entropy to pessimistic and "
        "low-entropy, and stretches with the horizon "
        "(Discovering Temporally-Aware Reinforcement Learning Algorithms, ICLR 2024)",
        sizes={
            "cpu": "no search of its own: looks at those of claims 1 and 4, in about ten minutes",
            "full": "the published sizes, for accelerators",
        },
        module="discovery.evaluation.claim_5",
    ),
    Entry(
        name="claim-6",
        line="which part of the search matters: shaping, tasks, streams, forms of the clock",
        claim="which part of the search makes an objective use its horizon (asked in review of "
        "Discovering Temporally-Aware Reinforcement Learning Algorithms, ICLR 2024, never run)",
        sizes={
            "cpu": "105 searches of a quarter of a minute, under an hour on 2 CPU cores",
            "full": "the published sizes, for accelerators",
        },
        module="discovery.evaluation.claim_6",
    ),
)
"""Everything that ``kairos reproduce`` knows."""

DIGITS = 12
"""Of a digest, in a table."""
ROWS = "rows.csv"
"""File of a job's folder in an entry's runs: rows of agents, so that a stopped job goes on."""


def find(name: str) -> Entry:
    """An entry by its name.

    Raises:
      ConfigError: nothing has this name; the nearest are named.
    """
    for entry in REGISTRY:
        if entry.name == name:
            return entry
    raise ConfigError(nearest(name, [entry.name for entry in REGISTRY], "figure"))


def label(name: str, size: str) -> str:
    """What run folders and pictures of an entry are called: its name, and its size if another.

    Example:
      >>> label("claim-3", "cpu"), label("claim-3", "full")
      ('claim-3', 'claim-3-full')
    """
    return name if size == next(iter(find(name).sizes)) else f"{name}-{size}"


def reproduce(
    request: ReproduceConfig, report: Callable[[Any], None] = say
) -> dict[str, Conclusion]:
    """Run what entries still lack, and say what their tables say.

    Searches whose rows are in the tables are not run again, and one that was stopped goes on: the
    same command, as often as need be, comes to the end.

    Args:
      request: see its fields.
      report: told what happens, a line at a time.

    Returns:
      Entry -> what its tables say so far, of those that have any rows.

    Raises:
      ConfigError: no such figure, size or cell, or run folders of other numbers; nothing started.
      Interrupted: Ctrl-C; what is done is saved, and the text says how to go on.
      Terminated: the same for SIGTERM.
    """
    plans = _plans(request)
    from discovery.runs.folders import check_writable

    out, own = Path(request.out), _tables(request)
    for folder in (out,) if request.draw else (out, own, Path(request.runs)):
        check_writable(folder)
    minutes = request.max_minutes
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes
    found: dict[str, Conclusion] = {}
    for plan in plans:
        report(f"\n{plan.entry.name}: {plan.entry.claim}")
        if not request.draw:
            _run(plan, own, request, until, report)
        conclusion = _conclude(plan, own, request, report)
        if conclusion:
            found[plan.entry.name] = conclusion
    if request.all:
        _write_page(plans, found, out, report)
    return found


class Plan(NamedTuple):
    """An entry at a size, and what was asked of it."""

    entry: Entry
    size: str
    module: ModuleType
    jobs: Sequence[Job]

    @property
    def label(self) -> str:
        """Of its run folders and pictures."""
        return label(self.entry.name, self.size)


def _plans(request: ReproduceConfig) -> list[Plan]:
    """What was asked for, every mistake found before anything starts."""
    names = [entry.name for entry in REGISTRY] if request.all else list(request.figures)
    if not names:
        raise ConfigError("kairos reproduce needs a figure (kairos list names them), or --all")
    check_minutes(request.max_minutes)
    if request.cells and len(names) > 1:
        raise ConfigError("--cells goes with one figure")
    plans = []
    for name in names:
        entry = find(name)
        size = request.size or next(iter(entry.sizes))
        if size not in entry.sizes:
            raise ConfigError(nearest(size, entry.sizes, f"size of {entry.name}"))
        module = importlib.import_module(entry.module)
        plans.append(Plan(entry, size, module, _chosen(entry, size, module, request)))
    return plans


def _chosen(entry: Entry, size: str, module: Any, request: ReproduceConfig) -> list[Job]:
    """The jobs that were asked for, with the starts that they are measured by."""
    listed: list[Job] = module.jobs(size, seeds(request.seeds or entry.seeds))
    known = list(dict.fromkeys(job.cell for job in listed))
    for name in request.cells:
        if name not in known:
            raise ConfigError(nearest(name, known, f"cell of {entry.name}"))
    if not request.cells:
        return listed
    needed = {job.start for job in listed if job.cell in request.cells} | {*request.cells}
    return [job for job in listed if job.cell in needed]


def _function(address: str) -> Callable[..., Any]:
    module, name = address.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _command(request: ReproduceConfig) -> str:
    """The command that goes on: as it was asked for, but for how it ends."""
    words = ["kairos reproduce", *map(shlex.quote, request.figures)]
    for field in fields(request):
        value = getattr(request, field.name)
        if field.name in ("figures", "rerun", "max_minutes") or value == field.default:
            continue
        words.append(f"--{field.name}")
        if value is not True:
            several = value if isinstance(value, tuple) else (value,)
            words += [shlex.quote(str(one)) for one in several]
    return " ".join(words)


# --- tables -----------------------------------------------------------------------------------


def packaged() -> Traversable:
    """Where the tables are that come with the package."""
    return importlib.resources.files("discovery") / "evaluation" / "tables"


def _tables(request: ReproduceConfig) -> Path:
    """The folder of tables that grow: a checkout's own, so that a difference can be seen there."""
    if request.tables:
        return Path(request.tables)
    shipped = packaged()
    if isinstance(shipped, Path) and (shipped.absolute().parents[2] / "pyproject.toml").is_file():
        return shipped
    return Path(request.out) / "tables"


def _file(entry: Entry, table: Table) -> str:
    return f"{entry.name}-{table.name}.csv"


def _read(plan: Plan, table: Table, own: Path) -> list[Any]:
    """All rows of a table: ours, or if we have none, those of the package."""
    from discovery.evaluation import claims

    name = _file(plan.entry, table)
    path: Path | Traversable = own / name
    return claims.read(path if path.is_file() else packaged() / name, table.kind)


def _put(plan: Plan, table: Table, own: Path, of: tuple[Any, ...], rows: Sequence[Any]) -> None:
    """Put the rows of one search in the place of those that we have of it."""
    from discovery.evaluation import claims

    others = [row for row in _read(plan, table, own) if claims.identity(row) != of]
    claims.write(own / _file(plan.entry, table), table.kind, [*others, *rows])


# --- running ----------------------------------------------------------------------------------


def _run(
    plan: Plan,
    own: Path,
    request: ReproduceConfig,
    until: float,
    report: Callable[[Any], None],
) -> None:
    """Do what is not done yet, job by job; each leaves its rows in the tables."""
    from discovery.runs import folders
    from discovery.runs.errors import Interrupted, Terminated

    began = time.monotonic()
    runs = Path(request.runs) / plan.label
    if not request.rerun and not _waiting(plan, own, runs):
        report(f"{len(plan.jobs)} of {len(plan.jobs)} jobs are done")
        return
    go_on = f"go on with: {_command(request)}"
    with folders.lock(runs):
        if request.rerun:
            _forget(plan, own, runs)
        for job in plan.jobs:
            _check_same(job, job.place(runs))
        waiting = _waiting(plan, own, runs)
        count = len(plan.jobs)
        report(f"{count - len(waiting)} of {count} jobs are done; run folders: {runs}")
        from discovery import devices

        devices.start(request.devices, cache=True)
        try:
            for number, (job, lacking) in enumerate(waiting):
                left = _left(began, number, len(waiting))
                report(f"\n[{number + 1}/{len(waiting)}] {job.title}{left}")
                for each in (*_begun_with(job, plan, runs), job):
                    stopped = _function(each.search)(each, runs, until, report)
                    if stopped in ("interrupt", "terminate"):
                        kind = Interrupted if stopped == "interrupt" else Terminated
                        raise kind(f"stopped in {job.title}; {go_on}")
                    if stopped:
                        report(f"stopped in {job.title}; {go_on}")
                        return
                for table in lacking:
                    rows = _function(table.measure)(job, plan.size, runs, until, report)
                    if rows is None:
                        report(f"stopped in {job.title}; {go_on}")
                        return
                    _put(plan, table, own, job.identity(plan.size), rows)
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; what is done is saved; {go_on}") from None


def _left(began: float, done: int, count: int) -> str:
    """How long the rest will take, if it goes on as it did."""
    if not done:
        return ""
    minutes = (time.monotonic() - began) / done * (count - done) / 60
    return f", about {minutes:.0f} min left"


def _begun_with(job: Job, plan: Plan, runs: Path) -> Iterator[Job]:
    """What a job is measured by, if its folder is not there: rows in a table have none."""
    if not job.start or job.is_start or _card(job._replace(cell=job.start).place(runs)):
        return
    same = (job.group, job.start, job.objective, job.seed)
    yield from (each for each in plan.jobs if each[:4] == same)


def _forget(plan: Plan, own: Path, runs: Path) -> None:
    """Remove the run folders and the rows of the jobs that are begun anew."""
    from discovery.evaluation import claims
    from discovery.runs.folders import CONFIG
    from learned_objectives.library import CARD

    for job in plan.jobs:
        folder = runs / job.folder
        if any((folder / name).is_file() for name in (CONFIG, CARD, ROWS)):
            shutil.rmtree(folder)
    gone = {job.identity(plan.size) for job in plan.jobs}
    for table in plan.module.TABLES:
        rows = [row for row in _read(plan, table, own) if claims.identity(row) not in gone]
        claims.write(own / _file(plan.entry, table), table.kind, rows)


def _card(folder: Path) -> dict[str, Any]:
    """The card of what a job found, or nothing."""
    from discovery.runs.folders import read_json
    from learned_objectives.library import ARRAYS, CARD

    if not (folder / CARD).is_file() or not (folder / ARRAYS).is_file():
        return {}
    card = read_json(folder / CARD)
    return card if isinstance(card, dict) else {}


def _check_same(job: Job, folder: Path) -> None:
    """Refuse a folder of another configuration.

    Raises:
      ConfigError: it is; the fields that differ are named.
    """
    from discovery.runs.folders import CONFIG, differences, load_config

    if (folder / CONFIG).is_file():
        there = load_config(folder)
    elif told := _card(folder).get("config"):
        there = from_dict(told, source=f"card of {folder}")
    else:
        return
    if other := differences(there, job.config):
        raise ConfigError(
            f"{folder} is of other numbers ({', '.join(other)}): "
            "begin anew with --rerun, or choose another --runs"
        )


def _waiting(plan: Plan, own: Path, runs: Path) -> list[tuple[Job, list[Table]]]:
    """The jobs that are not done, each with the tables that lack rows of it."""
    from discovery.evaluation import claims

    there = []
    for table in plan.module.TABLES:
        rows: dict[Any, list[Any]] = defaultdict(list)
        for row in _read(plan, table, own):
            rows[claims.identity(row)].append(row)
        there.append((table, rows))
    waiting = []
    for job in plan.jobs:
        digest = str(_card(job.place(runs)).get("sha256", ""))[:DIGITS]
        mine = job.identity(plan.size)
        lacking = [table for table, rows in there if not _has(table, job, digest, rows[mine])]
        if lacking:
            waiting.append((job, lacking))
    return waiting


def _has(table: Table, job: Job, digest: str, rows: Sequence[Any]) -> bool:
    """Whether these are all rows of a job, of what its search found if that is here."""
    wanted = set(table.wanted(job))
    found = {
        tuple(getattr(row, name) for name in table.key)
        for row in rows
        if not digest or getattr(row, "digest", digest) == digest
    }
    return wanted <= found


# --- what the tables say ----------------------------------------------------------------------


def _conclude(
    plan: Plan, own: Path, request: ReproduceConfig, report: Callable[[Any], None]
) -> Conclusion | None:
    """Print and draw what the tables of a size say."""
    from discovery.evaluation import claims, figures
    from learned_objectives.library import write_whole

    tables: Mapping[str, list[Any]] = {
        table.name: [row for row in _read(plan, table, own) if row.size == plan.size]
        for table in plan.module.TABLES
    }
    if not any(tables.values()):
        if request.draw and not request.all:
            raise ConfigError(
                f"there are no numbers of {plan.entry.name} at this size ({plan.size}) yet: "
                f"make them with {_command(replace(request, draw=False))}"
            )
        report("nothing is searched and scored yet")
        return None
    found: Conclusion = plan.module.conclude(plan.size, tables)
    report(claims.render(found.grids))
    report(f"\n{found.text}\n")
    out = Path(request.out)
    picture, _ = figures.save(found.draw(), out / plan.label)
    words = out / f"{plan.label}.txt"
    write_whole(words, f"{found.text}\n".encode())
    report(f"  figure  {picture}")
    report(f"  words   {words}")
    for table in plan.module.TABLES:
        name = _file(plan.entry, table)
        place = own / name if (own / name).is_file() else packaged() / name
        report(f"  {table.name:<6}  {place}")
    return found


def _write_page(
    plans: Sequence[Plan],
    found: Mapping[str, Conclusion],
    out: Path,
    report: Callable[[Any], None],
) -> None:
    """Write the page of all entries."""
    from discovery.evaluation import page

    sections = []
    for plan in plans:
        name = plan.entry.name
        size = "" if plan.label == name else f" --size {plan.size}"
        section = page.Section(
            name=name,
            claim=plan.entry.claim,
            size=plan.size,
            found=found.get(name),
            picture=out / f"{plan.label}.png" if name in found else None,
            tables=[_file(plan.entry, table) for table in plan.module.TABLES],
            command=f"kairos reproduce {name}{size} --draw",
        )
        sections.append(section)
    for path in page.write(out, sections):
        report(f"page: {path}")


__all__ = [
    "REGISTRY",
    "Entry",
    "Job",
    "Sweep",
    "find",
    "label",
    "packaged",
    "reproduce",
]
