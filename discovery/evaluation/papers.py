"""Published claims as entries: their searches, their tables, their picture, from one command.

An entry is data: a new claim adds one to :data:`REGISTRY` and lists its jobs, and everything here
(searching, resuming, scoring, tables) is the same for all. No JAX unless something has to be
computed: a picture is drawn from tables alone.
"""

from __future__ import annotations

import importlib
import importlib.resources
import math
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from discovery.config import Config, ConfigError, check_minutes, from_dict, nearest
from discovery.requests import ReproduceConfig, seeds

if TYPE_CHECKING:
    from discovery.evaluation.claims import Clocked, Conclusion, Scored
else:  # they bring SciPy, which a list of names does not need
    Clocked = Conclusion = Scored = Any


class Sweep(NamedTuple):
    """How an objective is scored."""

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
    sweep: Sweep
    null: str
    """Which null it is, if one."""
    start: str
    """The cell whose objective is what this search begins with: there, nothing is searched."""

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        return f"{self.group}-{self.cell}-{self.objective.lower()}-{self.seed}"

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.group} horizons, {self.cell}, {self.objective}, seed {self.seed}"

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
    jobs: str
    """``module:function`` of (size, seeds): its jobs, a start before what is measured by it."""
    conclude: str
    """``module:function`` of (size, scores, clocks): what the tables say."""


REGISTRY = (
    Entry(
        name="claim-3",
        line="which ways to search find objectives that use their clock: evolution, gradients",
        claim="truncated meta-gradients do not find adaptive objectives, evolution does "
        "(Discovering Temporally-Aware Reinforcement Learning Algorithms, ICLR 2024)",
        sizes={
            "cpu": "90 searches of half a minute to three, about an hour on 2 CPU cores",
            "full": "the published sizes, for accelerators",
        },
        jobs="discovery.evaluation.cells:jobs",
        conclude="discovery.evaluation.claim_3:conclude",
    ),
)
"""Everything that ``kairos reproduce`` knows."""

DIGITS = 12
"""Of a digest, in a table."""


def find(name: str) -> Entry:
    """An entry by its name.

    Raises:
      ConfigError: nothing has this name; the nearest are named.
    """
    for entry in REGISTRY:
        if entry.name == name:
            return entry
    raise ConfigError(nearest(name, [entry.name for entry in REGISTRY], "figure"))


def reproduce(request: ReproduceConfig, report: Callable[[Any], None] = print) -> Conclusion | None:
    """Run what an entry still lacks, and say what its tables say.

    Searches that are finished are not run again, and one that was stopped goes on: the same
    command, as often as need be, comes to the end.

    Args:
      request: see its fields.
      report: told what happens, a line at a time.

    Returns:
      What the tables say so far; ``None`` if there is nothing in them.

    Raises:
      ConfigError: no such figure, size or cell, or run folders of other numbers; nothing started.
      Interrupted: Ctrl-C; what is done is saved, and the text says how to go on.
      Terminated: the same for SIGTERM.
    """
    entry = find(request.figure)
    first = next(iter(entry.sizes))
    size = request.size or first
    if size not in entry.sizes:
        raise ConfigError(nearest(size, entry.sizes, f"size of {entry.name}"))
    check_minutes(request.max_minutes)
    jobs = _chosen(entry, size, request)
    label = entry.name if size == first else f"{entry.name}-{size}"
    out = Path(request.out or Path("results") / label)
    runs = Path(request.runs or Path("runs") / "reproduce" / label)
    from discovery.runs.folders import check_writable

    for folder in (out,) if request.draw else (out, runs):
        check_writable(folder)
    report(f"{entry.name}: {entry.claim}")
    if not request.draw:
        _run(entry, jobs, size, runs, out, request, report)
    return _conclude(entry, size, out, request, report)


def _chosen(entry: Entry, size: str, request: ReproduceConfig) -> list[Job]:
    """The jobs that were asked for, with the starts that they are measured by."""
    listed: list[Job] = _function(entry.jobs)(size, seeds(request.seeds))
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
    words = ["kairos reproduce", shlex.quote(request.figure)]
    for field in fields(request):
        value = getattr(request, field.name)
        if field.name in ("figure", "rerun", "max_minutes") or value == field.default:
            continue
        words.append(f"--{field.name}")
        if value is not True:
            several = value if isinstance(value, tuple) else (value,)
            words += [shlex.quote(str(one)) for one in several]
    return " ".join(words)


# --- running ----------------------------------------------------------------------------------


def _run(
    entry: Entry,
    jobs: Sequence[Job],
    size: str,
    runs: Path,
    out: Path,
    request: ReproduceConfig,
    report: Callable[[Any], None],
) -> None:
    """Do what is not done yet, job by job; each leaves its rows in the tables."""
    from discovery.evaluation import claims
    from discovery.runs import folders
    from discovery.runs.errors import Interrupted, Terminated

    began = time.monotonic()
    until = math.inf if request.max_minutes is None else began + 60 * request.max_minutes
    scores, clocks = _paths(entry.name, out)
    go_on = f"go on with: {_command(request)}"
    with folders.lock(runs):
        if request.rerun:
            for job in jobs:
                _remove(runs / job.folder)
        for job in jobs:
            _check_same(job, runs / job.folder)
        known = claims.read(scores, claims.Scored), claims.read(clocks, claims.Clocked)
        waiting = [job for job in jobs if not _is_done(job, size, runs / job.folder, *known)]
        report(f"{len(jobs) - len(waiting)} of {len(jobs)} jobs are done; run folders: {runs}")
        if not waiting:
            return
        from discovery import devices

        devices.start(request.devices, cache=True)
        from discovery.evaluation import trials

        try:
            for number, job in enumerate(waiting):
                left = _left(began, number, len(waiting))
                report(f"\n[{number + 1}/{len(waiting)}] {job.title}{left}")
                stopped = trials.search(job, runs, until, report)
                if stopped in ("interrupt", "terminate"):
                    kind = Interrupted if stopped == "interrupt" else Terminated
                    raise kind(f"stopped in {job.title}; {go_on}")
                done = None if stopped else trials.scored(job, size, runs, until, report)
                if done is None:
                    report(f"stopped in {job.title}; {go_on}")
                    return
                claims.replace_rows(scores, claims.Scored, job.identity(size), done[0])
                claims.replace_rows(clocks, claims.Clocked, job.identity(size), done[1])
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; what is done is saved; {go_on}") from None


def _left(began: float, done: int, count: int) -> str:
    """How long the rest will take, if it goes on as it did."""
    if not done:
        return ""
    minutes = (time.monotonic() - began) / done * (count - done) / 60
    return f", about {minutes:.0f} min left"


def _remove(folder: Path) -> None:
    """Remove the folder of a job."""
    from discovery.runs.folders import CONFIG
    from learned_objectives.library import CARD

    if (folder / CONFIG).is_file() or (folder / CARD).is_file():
        shutil.rmtree(folder)


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


def _is_done(
    job: Job, size: str, folder: Path, scores: Sequence[Scored], clocks: Sequence[Clocked]
) -> bool:
    """Whether a job was searched, and its rows are in the tables."""
    digest = str(_card(folder).get("sha256", ""))[:DIGITS]
    sweep = job.sweep
    wanted = {(n, sweep.levels, digest) for n in sweep.horizons}
    if job.sees_clock:
        wanted |= {(-n, sweep.clock_levels, digest) for n in sweep.clock_horizons}
    mine = job.identity(size)
    found = {(r.horizon, r.levels, r.digest) for r in scores if r[:5] == mine}
    found |= {(-r.horizon, r.levels, r.digest) for r in clocks if r[:5] == mine}
    return bool(digest) and wanted <= found


# --- what the tables say ----------------------------------------------------------------------


def _paths(entry: str, folder: Any) -> tuple[Any, Any]:
    """The two tables of an entry: scores, and what is made of clocks."""
    return folder / f"{entry}-scores.csv", folder / f"{entry}-clock.csv"


def packaged() -> Traversable:
    """Where the tables are that come with the package."""
    return importlib.resources.files("discovery") / "evaluation" / "tables"


def _conclude(
    entry: Entry, size: str, out: Path, request: ReproduceConfig, report: Callable[[Any], None]
) -> Conclusion | None:
    """Print and draw what the tables say: ours, or to draw only, if we have none, the package's."""
    from discovery.evaluation import claims, figures
    from learned_objectives.library import write_whole

    for source in (out, packaged()) if request.draw else (out,):
        paths = _paths(entry.name, source)
        scores = [row for row in claims.read(paths[0], claims.Scored) if row.size == size]
        clocks = [row for row in claims.read(paths[1], claims.Clocked) if row.size == size]
        if scores:
            break
    else:
        if request.draw:
            raise ConfigError(
                f"there are no numbers of {entry.name} at this size ({size}) yet: "
                f"make them with {_command(replace(request, draw=False))}"
            )
        report("nothing is searched and scored yet")
        return None
    found: Conclusion = _function(entry.conclude)(size, scores, clocks)
    report(found.table)
    report(f"\n{found.text}\n")
    picture, _ = figures.save(found.draw(), out / entry.name)
    words = out / f"{entry.name}.txt"
    write_whole(words, f"{found.text}\n".encode())
    told = {"figure": picture, "scores": paths[0], "clocks": paths[1], "words": words}
    for name, path in told.items():
        report(f"  {name}  {path}")
    return found


__all__ = ["REGISTRY", "Entry", "Job", "Sweep", "find", "packaged", "reproduce"]
