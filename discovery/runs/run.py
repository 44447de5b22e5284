"""The host loop: step, log, checkpoint, repeat.

One jitted generation at a time; metrics are read one generation behind, so that a device never
waits for the host. A *chunk* (``log_every`` generations) is only how often the mean is validated
and a line is written.

JAX is imported once ``config.json`` and ``versions.json`` are on disk; of several processes, once
they have found each other. Each of them steps the same search, and the first alone writes.
"""

from __future__ import annotations

import math
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from discovery import devices
from discovery.config import Config, ConfigError, check, check_minutes, population, to_dict
from discovery.runs import checkpoint, folders, logs
from discovery.runs.chunk import numbers, reduced
from discovery.runs.errors import REFUSALS, CheckpointError, Interrupted, RunError, first_line
from discovery.runs.memory import fitting, needed
from discovery.runs.stop import REASONS, Stop, Stopped


@dataclass(frozen=True)
class Run:
    """A search that has ended or was stopped."""

    folder: Path
    config: Config
    generation: int
    """Generations completed."""
    stopped: Stopped
    """What stopped it before its last generation; empty if nothing did."""
    objective: Any
    """The rule that was searched over."""
    theta: Any
    """Its parameters: the mean of the search, NumPy arrays."""

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``."""
        return logs.read(self.folder / folders.METRICS)


def evolve(
    config: Config | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    resume: str | os.PathLike[str] | None = None,
    from_generation: int | None = None,
    max_minutes: float | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    console: Console | None = None,
    devices: int | None = None,
    hosts: str = "",
    like: str | os.PathLike[str] | None = None,
    keep_nonfinite: bool = False,
    debug_nans: bool = False,
    cache: bool = False,
    tensorboard: bool = False,
    wandb: bool = False,
    make: Callable[[Config], Any] | None = None,
) -> Run:
    """Search for an objective, or go on with a search.

    Args:
      config: the search; with ``resume`` it may differ from the saved one in ``generations`` only,
        and ``None`` stands for the saved one.
      out: run folder, by default ``runs/<preset>-<seed>``.
      resume: run folder to go on with, exactly where it stopped.
      from_generation: go on from this checkpoint instead of the newest.
      max_minutes: save and return after this time.
      overwrite: remove a run that is in ``out``.
      quiet: print nothing.
      console: where to print, by default standard output.
      devices: virtual CPU devices, by default one a core; only before JAX has started.
      hosts: where the other processes of this run are, see ``discovery.devices.parse_hosts``; by
        default as a launcher tells. Each of them makes this same call, and an error ends them all:
        it is printed and the process left, since none can go on alone.
      like: a run that this one does again: what differs is told, and whether the bytes are equal.
      keep_nonfinite: keep the parameters of candidates and agents whose lives were not finite.
      debug_nans: stop at the first life or number that is not finite, and name its first bad leaf.
      cache: keep compiled programs in the user's cache folder.
      tensorboard: also write TensorBoard's event files.
      wandb: also log to Weights & Biases.
      make: makes the search, by default ``discovery.outer.search.make_search``.

    Returns:
      The run; ``objective.safetensors`` is written once its last generation is done.

    Raises:
      ConfigError: the configuration cannot run, or the folder cannot be used; nothing was started.
      MissingExtra: an optional package is missing; nothing was started.
      RunError: the run stopped; the text says why and what is safe.

    Example:
      >>> from discovery import evolve
      >>> from discovery.config import preset
      >>> evolve(preset("smoke"), "runs/mine").metrics[-1]["validation"]  # doctest: +SKIP
    """
    began = time.monotonic()
    check_minutes(max_minutes)
    if tensorboard:
        logs.require_tensorboard()
    if wandb:
        logs.require_wandb()
    if resume is None:
        if config is None:
            raise ConfigError("nothing to search: give a configuration, or a run to go on with")
        check(config)
        where = Path(out) if out else folders.default(config)
    else:
        folders.check_local(resume)
        where = Path(resume)
        if out is not None and Path(out) != where:
            raise ConfigError(f"a run goes on where it is: leave --out out, or copy {where} first")
        if not where.is_dir():
            raise ConfigError(f"there is no run folder {where}")
    several, first = _join(hosts, devices)
    quiet = quiet or not first
    try:
        with ExitStack() as stack:
            screen = stack.enter_context(logs.Screen(quiet, console))
            config, notes = _agreed(
                lambda: _opened(stack, where, config, resume, from_generation, overwrite)
            )
            stop = stack.enter_context(Stop(quiet))
            host = _Host(where, config, screen, stop, resume is not None, several, first)
            stack.callback(host.close)
            host.like = None if like is None else Path(like)
            host.keep_nonfinite, host.debug_nans = keep_nonfinite, debug_nans
            host.deadline = math.inf if max_minutes is None else began + 60 * max_minutes
            for note in notes:
                screen.line(note)
            try:
                host.open(make, devices, cache, from_generation)
            except REFUSALS:
                if resume is None and first:
                    folders.abandon(where)
                raise
            if tensorboard and first:
                host.sinks.append(logs.TensorBoard(where, host.generation))
            if wandb and first:
                host.sinks.append(logs.WeightsAndBiases(where, to_dict(host.config)))
            return host.run()
    except BaseException as error:
        if several:
            _leave(error)
        raise


# --- many processes ---------------------------------------------------------------------------


def _join(hosts: str, count: int | None) -> tuple[bool, bool]:
    """Whether there are several processes, and whether this is the one that writes."""
    several = devices.join(hosts, count)
    return several, devices.index() == 0


def _opened(
    stack: ExitStack,
    where: Path,
    config: Config | None,
    resume: Any,
    generation: int | None,
    overwrite: bool,
) -> tuple[Config, list[str]]:
    """What to run, with its folder locked, begun or reopened by the process that writes."""
    first = devices.index() == 0
    if resume is not None:
        if first:
            stack.enter_context(folders.lock(where))
        return folders.reopen(where, config, generation, write=first)
    assert config is not None
    if first:
        folders.check_ready(config, where, overwrite)
        stack.enter_context(folders.lock(where))
        folders.begin(where, config)
    else:
        folders.check_names(config)
    return config, []


def _agreed(work: Callable[[], tuple[Config, list[str]]]) -> tuple[Config, list[str]]:
    """The result of work that any of several processes may refuse; then all do."""
    if devices.processes() == 1:
        return work()
    refusal, result = None, None
    try:
        result = work()
    except REFUSALS as error:
        refusal = error
    refused = devices.gathered(int(refusal is not None))[:, 0]
    if refusal is not None:
        raise refusal
    if refused.any():
        raise ConfigError(f"process {int(refused.argmax())} refused, and says why")
    assert result is not None
    return result


def _leave(error: BaseException) -> None:
    """End this process of several with one line; the way out that JAX knows waits for all."""
    status = getattr(error, "status", None)
    if not isinstance(status, int):
        status = 2 if isinstance(error, REFUSALS) else 1
    who = f"process {devices.index()} of {devices.processes()}"
    ours = isinstance(error, (RunError, *REFUSALS))
    text = " ".join(str(error).split()) if ours else f"{type(error).__name__}: {first_line(error)}"
    print(f"kairos: {who}: {text}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    if devices.index() == 0:
        time.sleep(_LAST_S)
    os._exit(status)


_MOST_KEPT = 16
"""Candidates of a generation that are looked at if they were not finite."""
_LAST_S = 2.0
"""JAX aborts the other processes once the first is gone: time for them to leave by themselves."""
_LOST = (
    "gloo",
    "connection closed",
    "connection reset",
    "unavailable",
    "heartbeat",
    "coordination",
)
"""What an error says, in small letters, that comes of another process's end."""


class _Host:
    """One session of a run: what the loop needs between two generations."""

    def __init__(
        self,
        where: Path,
        config: Config,
        screen: logs.Screen,
        stop: Stop,
        resumed: bool,
        several: bool,
        first: bool,
    ) -> None:
        self.where = where
        self.config = config
        self.screen = screen
        self.stop = stop
        self.resumed = resumed
        self.several = several
        """There are other processes, which take every step that this one takes."""
        self.first = first
        """This process writes."""
        self.deadline = math.inf
        self.sinks: list[logs.Sink] = []
        self.search: Any = None
        self.state: Any = None
        self.generation = 0
        """Generations whose numbers have been read."""
        self.sent = 0
        """Generations begun; ``state`` is what the last of them gives."""
        self.waiting: deque[Mapping[str, Any]] = deque()
        """Numbers of generations begun and not read."""
        self.asked: deque[Any] = deque()
        """Of several processes, what asked them to stop when those generations were begun."""
        self.agreed: Stopped = ""
        """What asked one of several processes to stop, once all have heard of it."""
        self.before: deque[Any] = deque()
        """States before those generations, where somebody wants to know what went wrong."""
        self.like: Path | None = None
        self.keep_nonfinite = self.debug_nans = False
        self.score: float | None = None
        self.saved: int | None = None
        """Generation of the newest checkpoint on disk."""
        self.pending: list[dict[str, float]] = []
        """Metrics of the generations of an unfinished chunk."""
        self.steps = 0.0
        """Environment steps so far, over all sessions."""
        self.seconds = 0.0
        """Wall time of the sessions before this one."""
        self.began = time.monotonic()
        self.chunk_began = self.began
        self.chunk_steps = 0.0

    # --- opening ------------------------------------------------------------------------------

    def open(
        self,
        make: Callable[[Config], Any] | None,
        count: int | None,
        cache: bool,
        from_generation: int | None,
    ) -> None:
        """Start JAX, make the search, and take the state from disk or from the configuration."""
        lives, together = population(self.config)
        groups = max(1, lives // (together or 2))  # where it is left open, the smallest there is
        if together:
            self._check_spread(groups)
        devices.start(count, most=groups, cache=cache)
        import jax  # only now: the folder says how to begin again

        if make is None:
            from discovery.outer.search import make_search as make
        facts = devices.versions()
        told = ", ".join(f"{name} {facts[name]}" for name in ("kairos-rl", "jax") if name in facts)
        self.screen.line(f"{told}, Python {facts['python']}; {devices.describe()}; {self.where}")
        self.guard(self._first_state, make, jax, from_generation)

    def _first_state(
        self, make: Callable[[Config], Any], jax: Any, from_generation: int | None
    ) -> None:
        from discovery.outer.evolution import strongly_typed

        with self.screen.working("preparing"):
            self._make(make)
            self.state = strongly_typed(self.search.init())
        found = None
        if self.resumed:
            abstract = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.state
            )
            found = self._restore(abstract, from_generation)
            if found is None:
                self.screen.line("no complete checkpoint yet: beginning from the configuration")
        if found is not None:
            self.state = strongly_typed(found.state)
            self.generation = self.sent = self.saved = found.generation
            self.pending = list(found.progress.get("pending", []))
            self.steps = float(found.progress.get("steps", 0))
            self.seconds = float(found.progress.get("seconds", 0))
            for note in found.notes:
                self.screen.line(note)
            self.screen.line(f"going on from generation {found.generation}")
        self._check_memory()
        if not self.first:
            return
        for note in folders.note_machine(self.where, self.generation if self.resumed else None):
            self.screen.line(note)
        for note in folders.unlike(self.like, self.config) if self.like else []:
            self.screen.line(note)
        path = self.where / folders.METRICS
        logs.cut(path, -1 if found is None else self.generation, self.config.log_every)
        for row in logs.read(path)[-1:]:
            self.score = row.get("validation")
        self.sinks.append(logs.Journal(path))

    def _check_spread(self, groups: int) -> None:
        if groups % devices.processes():
            raise ConfigError(
                f"{groups} groups of lives do not spread evenly over {devices.processes()} "
                f"processes: lower {self._group()}, or start another number of processes"
            )

    def _make(self, make: Callable[[Config], Any]) -> None:
        """The search, its groups chosen and written down where they are left open."""
        asked, (lives, left) = self.config, population(self.config)
        self.config, self.search = fitting(asked, make, devices.memory())
        if self.config == asked:
            return
        group = population(self.config)[1]
        if not left:
            self._check_spread(max(1, lives // group))
        if self.first:
            folders.write_json(self.where / folders.CONFIG, to_dict(self.config))
        if not left:
            self.screen.line(f"{group} of {lives} lives together")

    def _restore(self, abstract: Any, generation: int | None) -> checkpoint.Restored | None:
        store = self.where / folders.CHECKPOINTS
        try:
            found = checkpoint.restore(store, abstract, generation)
            if found is not None:
                self._check_origin(found)
        except CheckpointError as error:
            older = checkpoint.next_best(store, error.generation or 0)
            if error.generation is None:
                raise
            if older is None:
                raise CheckpointError(
                    f"{error}; no older checkpoint is whole", error.generation
                ) from error
            command = folders.words(self.where, from_generation=older)
            raise CheckpointError(
                f"{error}; to go on from the one before it: {command}", error.generation
            ) from error
        reached = -1 if found is None else found.generation
        if len(set(devices.gathered(reached)[:, 0].tolist())) > 1:
            raise RunError(
                f"the processes do not find the same checkpoints in {store}: a run folder has to "
                "be where all of them can read it"
            )
        # Only now: none of the others still reads there.
        for note in checkpoint.set_aside(store, reached) if self.first else []:
            self.screen.line(note)
        return found

    def _check_origin(self, found: checkpoint.Restored) -> None:
        """Refuse a checkpoint that this search has not written."""
        progress = found.progress
        path = self.where / folders.CHECKPOINTS / str(found.generation)
        pending = progress.get("pending", [])
        rows = isinstance(pending, list) and all(isinstance(row, dict) for row in pending)
        cells = [value for row in pending for value in row.values()] if rows else [None]
        counts = [progress.get(name, 0) for name in ("steps", "seconds")]
        if not all(isinstance(number, int | float) for number in [*cells, *counts]):
            raise CheckpointError(
                f"{path / 'meta'} is damaged: progress is not what a run writes", found.generation
            )
        saved = progress.get("config")
        if not isinstance(saved, dict):  # of an earlier version
            return
        other = [n for n in folders.changed(saved, to_dict(self.config)) if n != "generations"]
        if other:
            raise CheckpointError(
                f"{path} is of a search with another {', '.join(other)}", found.generation
            )

    def _check_memory(self) -> None:
        """Say what a generation takes and what there is, before anything is allocated."""
        free = devices.memory()
        words = f"memory: {devices.gibibytes(free.available)} free"
        if getattr(self.search, "memory", None) is None:
            self.screen.line(words)
            return
        with self.screen.working("compiling"):
            need = needed(self.search, self.state, free)
        self.screen.line(f"{words}, about {devices.gibibytes(need)} needed")
        if need > free.available:
            raise ConfigError(
                f"a generation needs about {devices.gibibytes(need)} of memory and "
                f"{devices.gibibytes(free.available)} are free: lower "
                f"{self._group()}"
            )

    # --- the loop -----------------------------------------------------------------------------

    def run(self) -> Run:
        """Step to the last generation, or until something stops it."""
        self.guard(self._loop)
        if not self.stopped and self.first:
            self.guard(self._finish)
        self.screen.stop()
        if self.stopped:
            self.screen.line(
                f"saved generation {self.generation}; go on with: {folders.words(self.where)}"
            )
        if self.first:
            from discovery.report.page import renew

            renew(self.where, self.screen.line)
        return Run(
            folder=self.where,
            config=self.config,
            generation=self.generation,
            stopped=self.stopped,
            objective=self.search.objective,
            theta=self._theta(),
        )

    def close(self) -> None:
        """Close what metrics are written to."""
        with ExitStack() as stack:
            for sink in self.sinks:
                stack.callback(sink.close)

    @property
    def stopped(self) -> Stopped:
        """Why the loop ended before the last generation, if it did."""
        if self.generation >= self.config.generations:
            return ""
        if self.several:
            return self.agreed
        return self._asked_to_stop()

    def _asked_to_stop(self) -> Stopped:
        """What asks this process to stop."""
        if self.stop.reason:
            return self.stop.reason
        return "minutes" if time.monotonic() >= self.deadline else ""

    def guard(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do a piece of work; whatever stops it, a person gets one line and what is safe."""
        try:
            work(*arguments)
        except (RunError, *REFUSALS):
            raise
        except KeyboardInterrupt:
            raise Interrupted(f"stopped at once; {self.safe()}") from None
        except OSError as error:
            problem = f"cannot write {self.where}: {first_line(error)}"
            raise RunError(f"{problem}; {self.safe()}") from error
        except MemoryError as error:
            raise RunError(self._out_of_memory(error)) from error
        except Exception as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise RunError(self._out_of_memory(error)) from error
            if self.several and any(word in str(error).lower() for word in _LOST):
                raise RunError(
                    f"another process was lost ({first_line(error)}); {self.safe()}"
                ) from error
            raise RunError(
                f"stopped by {type(error).__name__}: {first_line(error)}; "
                f"{self._whole(error)}; {self.safe()}"
            ) from error

    def _whole(self, error: BaseException) -> str:
        """Where all that is known of an error can be read."""
        path = self.where / folders.TRACEBACK
        try:
            path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        except OSError as problem:
            return f"{path} cannot be written ({first_line(problem)})"
        return f"the whole of it is in {path}"

    def _group(self) -> str:
        """The knob that trades memory for speed, and where it stands."""
        flag = "--agents-group" if self.config.estimator == "gradient" else "--group"
        return f"{flag} (now {population(self.config)[1]})"

    def _out_of_memory(self, error: BaseException) -> str:
        return (
            f"out of memory ({first_line(error)}): begin again with a lower "
            f"{self._group()}; {self.safe()}"
        )

    def safe(self) -> str:
        """What is on disk, and how to go on with it."""
        saved = checkpoint.latest(self.where / folders.CHECKPOINTS)
        if saved is None:
            return f"no checkpoint yet; begin again with: {folders.words(self.where)}"
        return f"generation {saved} is saved; go on with: {folders.words(self.where)}"

    def _loop(self) -> None:
        total, every = self.config.generations, self.config.log_every
        with self.screen.working("compiling"):
            if self.saved is None:
                first = self._score()
                self._write({"generation": 0} | first | {"steps": 0, "seconds": self._elapsed()})
                self.save()
            if self.sent < total and not self._leaving():
                self._send()
        self.screen.start(self.generation, total)
        self.screen.update(self.generation, self.score)
        self.chunk_began = time.monotonic()
        while self.waiting:
            # While one generation is read the next is on its way, but never across a chunk's end:
            # what is validated and saved there has been read.
            ahead = self.sent % every and self.sent < total and not self.debug_nans
            if ahead and not self._leaving():
                self._send()
            self._record(self.waiting.popleft())
            if not self.waiting:
                if self.generation % every == 0 or self.generation == total:
                    self._end_chunk()
                if self.sent < total and not self._leaving():
                    self._send()
        if self.pending and self.generation == total and self.saved == total:
            self._end_chunk()  # killed after the last checkpoint: its line was cut
        if self.saved != self.generation:
            self.save()

    def _leaving(self) -> bool:
        return bool(self.agreed if self.several else self._asked_to_stop())

    def _send(self) -> None:
        """Begin a generation; returns before its numbers are known."""
        if self.several:
            self.asked.append(devices.gathered(REASONS.index(self._asked_to_stop())))
        if self.keep_nonfinite or self.debug_nans:
            self.before.append(self.state)
        self.state, metrics = self.search.step(self.state)
        self.sent += 1
        self.waiting.append(metrics)

    def _record(self, metrics: Mapping[str, Any]) -> None:
        """Wait for the numbers of a generation, and refuse one of which nothing is finite."""
        if self.several:
            # Read at the same place by all, so that all leave at the same generation.
            self.agreed = REASONS[int(self.asked.popleft().max())]
        row = numbers(metrics)
        self.generation += 1
        self.pending.append(row)
        self.steps += row.get("steps", 0.0)
        self.chunk_steps += row.get("steps", 0.0)
        if self.before:
            self._examine(self.before.popleft(), row.get("nonfinite", 0) > 0)
        if row.get("nonfinite", 0) >= population(self.config)[0]:
            self._write({"generation": self.generation} | reduced(self.pending))
            good = self.where / folders.CHECKPOINTS / str(self.saved)
            raise RunError(
                f"generation {self.generation}: every score is non-finite; "
                f"the last good checkpoint is {good}; "
                f"begin again with a lower {self._steps_down()}"
            )
        self.screen.update(self.generation)

    def _examine(self, before: Any, nonfinite: bool) -> None:
        """Keep what was not finite in the generation just read, and stop at it, as was asked."""
        if not nonfinite and not self.debug_nans:
            return
        from discovery.outer import autopsy

        found = autopsy.lost(self.search, before, _MOST_KEPT) if nonfinite else []
        told = [(one, autopsy.first_bad(one)) for one in found]
        if self.keep_nonfinite and told and self.first:
            from discovery.runs.ending import write_nonfinite

            path = write_nonfinite(self.where, self.generation, told)
            self.screen.line(f"generation {self.generation}: not finite, kept in {path}")
        if not self.debug_nans:
            return
        what = autopsy.bad_leaf(self.state, "state")
        for one, fault in told[:1]:
            what = f"{one.words}: {fault.words}"
        if what:
            raise RunError(f"generation {self.generation}: {what}; {self.safe()}")

    def _steps_down(self) -> str:
        """The flags by which a search moves less."""
        return "--meta-rate" if self.config.estimator == "gradient" else "--sigma or --rate"

    def _end_chunk(self) -> None:
        """Validate the mean, write a line, and save where it is time to."""
        rate = self.chunk_steps / max(time.monotonic() - self.chunk_began, 1e-9)
        row: dict[str, Any] = {"generation": self.generation}
        row |= self._score() | reduced(self.pending)
        row |= {"steps": self.steps, "seconds": self._elapsed(), "steps_per_second": rate}
        self._write(row)
        self.screen.update(self.generation, self.score, rate)
        if self.generation % self.config.log_every == 0:
            self.pending = []
        if self.generation % self.config.checkpoint_every == 0:
            self.save()
        self.chunk_steps, self.chunk_began = 0.0, time.monotonic()

    def _score(self) -> dict[str, float]:
        scores = numbers(self.search.validate(self.state))
        self.score = scores.get("validation", self.score)
        return scores

    def _write(self, row: Mapping[str, Any]) -> None:
        for sink in self.sinks:
            sink.write(row)

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.began

    def save(self) -> None:
        """Write a checkpoint of this generation, and everything told before it."""
        assert self.sent == self.generation, "a generation begun is not a generation known"
        state = self._whole_state()
        if not self.first:
            self.saved = self.generation
            return
        for sink in self.sinks:
            sink.sync()
        if self.config.curriculum.curriculum != "none":
            from discovery.runs.ending import write_curriculum

            # First: who is killed after the last checkpoint does not come by here again.
            write_curriculum(self.where, self.search.columns(self.state))
        try:
            checkpoint.save(
                self.where / folders.CHECKPOINTS,
                self.generation,
                state,
                {
                    "pending": self.pending,
                    "steps": self.steps,
                    "seconds": self._elapsed(),
                    "config": to_dict(self.config),
                },
                keep=self.config.keep_checkpoints,
            )
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {self.safe()}") from error
        self.saved = self.generation

    def _whole_state(self) -> Any:
        """The state, gathered where it is spread over processes, of which none may differ."""
        if not self.several:
            return self.state
        state = devices.put(self.state, devices.home())
        leaves = checkpoint.manifest(state)
        told = devices.gathered(*(int(leaf.sha256[:7], 16) for leaf in leaves))
        for leaf, digests in zip(leaves, told.T, strict=True):
            if len(set(digests.tolist())) > 1:
                raise RunError(
                    f"generation {self.generation}: the processes disagree about leaf {leaf.path}: "
                    f"they have to run the same versions on machines of one kind; {self.safe()}"
                )
        return state

    # --- the end ------------------------------------------------------------------------------

    def _theta(self) -> Any:
        import jax

        return jax.device_get(self.search.theta(self.state))

    def _finish(self) -> None:
        """Write the objective, its card and the learning curve."""
        from discovery.runs.ending import draw_curriculum, write_card, write_figure

        path = write_card(self.where, self.config, self.search.objective, self._theta())
        figure = write_figure(self.where, self.config)
        self.screen.stop()
        self.screen.line(f"objective: {path}")
        self.screen.line(f"learning curve: {figure}")
        if self.like and (theirs := self.like / path.name).exists():
            same = theirs.read_bytes() == path.read_bytes()
            self.screen.line(f"{'the same bytes as' if same else 'other bytes than'} {theirs}")
        if self.config.curriculum.curriculum != "none":
            self.screen.line(f"curriculum: {draw_curriculum(self.where)}")
