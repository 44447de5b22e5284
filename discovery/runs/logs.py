"""What a run tells: a line a chunk on disk, a bar on the screen, and switches for others' boards.

No JAX here.
"""

from __future__ import annotations

import errno
import json
import math
import os
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from envs.registry import MissingExtra
from learned_objectives.library import write_whole

TIMES = ("seconds", "steps_per_second")
"""Fields of a metrics line that differ between two runs of the same configuration."""

_EVERY_S = 5.0
"""Seconds between plain lines where there is no terminal."""


# --- metrics.jsonl ----------------------------------------------------------------------------


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, up to the first that is not whole."""
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or type(row.get("generation")) is not int:
            break
        rows.append(row)
    return rows


def cut(path: Path, generation: int, every: int) -> int:
    """Cut a metrics file back to what is known at a generation.

    A last line between two chunks (a run that ended there and is extended now) goes as well: its
    chunk is completed later.

    Args:
      path: the file.
      generation: of the checkpoint that is gone on from; negative for none.
      every: generations a chunk.

    Returns:
      Lines removed.
    """
    if not path.exists():
        return 0
    rows = [row for row in read(path) if row["generation"] <= generation]
    kept = [row for row in rows if row["generation"] % every == 0]
    before = path.read_bytes()
    after = "".join(json.dumps(row) + "\n" for row in kept).encode()
    if after != before:
        write_whole(path, after)
    return len(before.splitlines()) - len(kept)


class Sink(Protocol):
    """Somewhere that a metrics line goes."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Take a line."""

    def sync(self) -> None:
        """Make what was taken safe."""

    def close(self) -> None:
        """Take no more."""


class Journal:
    """``metrics.jsonl``: a line a chunk, with the operating system as soon as it is known."""

    def __init__(self, path: Path) -> None:
        # Unbuffered: after a full disk there is nothing left that closing would have to write.
        self._file = path.open("ab", buffering=0)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a line; a number that is not finite becomes null, since JSON has none."""
        line = (json.dumps({k: _finite(v) for k, v in row.items()}) + "\n").encode()
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        """Wait until the disk has everything."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Take no more."""
        self._file.close()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TensorBoard:
    """Event files under ``tensorboard/``; needs the extra ``[tensorboard]``."""

    def __init__(self, folder: Path, generation: int) -> None:
        require_tensorboard()
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=generation + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add each number as a scalar of its generation."""
        for name, value in _numbers(row):
            self._writer.add_scalar(name, value, row["generation"])

    def sync(self) -> None:
        """Hand everything to the operating system."""
        self._writer.flush()

    def close(self) -> None:
        """Take no more."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the same name on wandb.ai; needs the extra ``[wandb]``."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        require_wandb()
        import wandb

        mark = folder / "wandb-id"
        if not mark.exists():
            write_whole(mark, os.urandom(8).hex().encode())
        self._run = wandb.init(
            project="kairos",
            name=folder.name,
            id=mark.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(folder),
            config=dict(config),
        )

    def write(self, row: Mapping[str, Any]) -> None:
        """Log the numbers of a generation."""
        self._run.log(dict(_numbers(row)), step=row["generation"])

    def sync(self) -> None:
        """Nothing to do: wandb sends by itself."""

    def close(self) -> None:
        """End the session there."""
        self._run.finish()


def require_tensorboard() -> None:
    """Raise :class:`MissingExtra` unless tensorboardX is installed."""
    _require("tensorboardX", "TensorBoard", "tensorboard")


def require_wandb() -> None:
    """Raise :class:`MissingExtra` unless wandb is installed."""
    _require("wandb", "Weights & Biases", "wandb")


def _require(module: str, what: str, extra: str) -> None:
    import importlib.util
    import sys

    if module not in sys.modules and importlib.util.find_spec(module) is None:
        raise MissingExtra(what, extra)


def _numbers(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [
        (name, float(value))
        for name, value in row.items()
        if name != "generation" and isinstance(value, int | float)
    ]


# --- the screen -------------------------------------------------------------------------------


class Screen:
    """Lines and a bar for a person; plain lines every few seconds where there is no terminal."""

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self._quiet = quiet
        self._console = console or Console(highlight=False)
        self._bar: Progress | None = None
        self._total = self._first = self._now = 0
        self._since = self._said = 0.0
        self._score: float | None = None
        self._rate = 0.0

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def line(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def working(self, what: str) -> Generator[None]:
        """Say what takes long while it lasts, and how long it took."""
        began = time.monotonic()
        over = threading.Event()

        def tick() -> None:
            while not over.wait(_EVERY_S):
                self.line(f"{what}: {time.monotonic() - began:.0f} s so far")

        if self._quiet:
            yield
            return
        if self._console.is_terminal:
            with self._console.status(f"{what} ..."):
                yield
        else:
            self.line(f"{what} ...")
            ticker = threading.Thread(target=tick, daemon=True)
            ticker.start()
            try:
                yield
            finally:
                over.set()
                ticker.join()
        self.line(f"{what}: {time.monotonic() - began:.1f} s")

    def start(self, generation: int, total: int) -> None:
        """Begin the bar."""
        self._first = self._now = generation
        self._total = total
        self._since = self._said = time.monotonic()
        if self._quiet or not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("generation {task.completed}/{task.total}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=self._console,
        )
        self._bar.start()
        self._bar.add_task(self._words(), total=total, completed=generation)

    def update(
        self, generation: int, score: float | None = None, steps_per_second: float | None = None
    ) -> None:
        """Move the bar; a score or a speed that is not given stays as it was."""
        self._now = generation
        self._score = self._score if score is None else score
        self._rate = self._rate if steps_per_second is None else steps_per_second
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=generation, description=self._words())
        elif now - self._said >= _EVERY_S or (
            generation == self._total and steps_per_second is not None
        ):
            self._said = now
            self.line(f"generation {generation}/{self._total}  {self._words()}")

    def stop(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _words(self) -> str:
        words = [] if self._score is None else [f"score {self._score:.3f}"]
        if self._rate:
            words.append(f"{_thousands(self._rate)} steps/s")
        done = self._now - self._first
        if done > 0 and self._now < self._total:
            left = (time.monotonic() - self._since) / done * (self._total - self._now)
            words.append(f"{duration(left)} left")
        return "  ".join(words)


def _thousands(number: float) -> str:
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """A time in words: ``45 s``, ``3:20``, ``2:05:00``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
