"""Kill a search at random moments until it is done, again and again, and compare what it leaves.

    python tests/faults/kills.py FOLDER KILLS [--seed 0] [--devices 1] [--plain]

This process imports everything that does not start JAX's backend, and forks a child for every
life of the search, so that a life costs a second. Some are killed at any moment, some as soon as a
checkpoint is being written, a few are told to end (SIGTERM, Ctrl-C). After each death:

- the newest checkpoint is no older than it was, and no more than one chunk behind the metrics;
- the next life goes on from it.

``--plain`` takes a search whose generation is one small program, so that a life is nothing but the
host's work. Once a search is done its bytes are those of one that nobody disturbed, and another is
begun, until all kills are spent. It prints what happened as JSON, and exits with 1 if anything was
lost.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_llvm_disable_expensive_passes=true")

import flax.linen
import jax
import optax
import orbax.checkpoint
import safetensors.numpy
from jax._src import xla_bridge
from rich.console import Console

import discovery.outer.search
import discovery.runs.ending
from discovery import devices
from discovery.config import (
    Config,
    EvolutionConfig,
    HorizonConfig,
    LifeConfig,
    ObjectiveConfig,
    preset,
)
from discovery.runs import checkpoint, logs, run

IMPORTED = (flax.linen, jax, optax, orbax.checkpoint, safetensors.numpy, discovery.outer.search)

CONFIG = Config(
    preset="smoke",
    env=preset("smoke").env,
    generations=16,
    log_every=2,
    checkpoint_every=2,
    keep_checkpoints=2,
    validation_levels=4,
    objective=ObjectiveConfig(width=4, predictions=2, embedding=2),
    life=LifeConfig(environments=2, rollout=4, evaluation_environments=2),
    horizon=HorizonConfig(shortest=2, longest=4),
    evolution=EvolutionConfig(pairs=4, group=4, sigma=0.5, rate=0.1),
)
"""A real search, as small as one can be; a chunk, and what is between two checkpoints, is two
generations."""

SAVED = {signal.SIGTERM: 143, signal.SIGINT: 130}
"""A signal that asks a life to end -> its exit status once it has saved."""


def plain() -> Callable[[Config], Any]:
    """The search of the tests of the host loop."""
    path = Path(__file__).parents[1] / "discovery" / "runs" / "conftest.py"
    spec = importlib.util.spec_from_file_location("plain_search", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make: Callable[[Config], Any] = module.make_search
    return make


def real(config: Config) -> Any:
    """The real search, which is not asked how much memory it takes: that traces it once more."""
    return discovery.outer.search.make_search(config)._replace(memory=None)


def live(folder: Path, said: Path, count: int, make: Callable[[Config], Any]) -> int:
    """A life of the search in this process; its exit status."""
    # Whatever was compiled in an earlier life is not compiled again.
    jax.config.update("jax_compilation_cache_dir", str(said.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    devices.heal(said.parent / "compiled")
    # Drawing is longer than all else, and no part of what is compared.
    discovery.runs.ending.write_figure = lambda where, _: where / "figures" / "learning.png"
    with said.open("w") as file:
        console = Console(file=file, width=400)
        options: dict[str, Any] = {"console": console, "devices": count, "make": make}
        if (folder / "config.json").exists():
            done = run.evolve(resume=folder, **options)
        else:
            done = run.evolve(CONFIG, folder, **options)
    return {"": 0, "interrupt": 130, "terminate": 143, "minutes": 9}[done.stopped]


def fork(folder: Path, said: Path, count: int, make: Callable[[Config], Any]) -> int:
    """Begin a life; the child's process number."""
    assert not xla_bridge.backends_are_initialized()
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 2)
        status = live(folder, said, count, make)
    except BaseException:
        (said.parent / "traceback.txt").write_text(traceback.format_exc())
    finally:
        os._exit(status)


def reached(folder: Path) -> int:
    """Generations of which a line was written; -1 if none was."""
    rows = logs.read(folder / "metrics.jsonl")
    return rows[-1]["generation"] if rows else -1


def newest(folder: Path) -> int:
    """Generation of the newest complete checkpoint; -1 if there is none."""
    found = checkpoint.latest(folder / "checkpoints")
    return -1 if found is None else found


def bytes_of(folder: Path) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    """What has to be equal: objective, configuration, and metrics without their times."""
    rows = logs.read(folder / "metrics.jsonl")
    untimed = [{k: v for k, v in row.items() if k not in logs.TIMES} for row in rows]
    files = [(folder / name).read_bytes() for name in ("objective.safetensors", "config.json")]
    return files[0], files[1], untimed


class LostError(Exception):
    """Something was lost, or a life ended in a way that it should not have."""


class Harness:
    """Searches that are killed, one after another."""

    def __init__(
        self,
        where: Path,
        kills: int,
        seed: int,
        count: int,
        make: Callable[[Config], Any],
    ) -> None:
        self.where, self.left, self.count, self.make = where, kills, count, make
        self.random = random.Random(seed)
        self.did: Counter[str] = Counter()
        self.length = 1.0
        """Seconds of an undisturbed life."""
        self.old: set[int] = set()
        """What earlier kills have left unfinished is no checkpoint being written now."""

    def run(self) -> dict[str, Any]:
        """Spend all kills; what happened."""
        whole = self.where / "undisturbed"
        for name in (whole, self.where / "warm"):  # the first compiles
            began = time.monotonic()
            if self.wait(fork(name, self.said(), self.count, self.make)) != 0:
                raise LostError(f"an undisturbed life failed: {self.trace()}")
            self.length = time.monotonic() - began
        expected = bytes_of(whole)
        number = 0
        while self.left > 0:
            folder = self.where / f"search-{number}"
            while not self.one(folder):
                pass
            if bytes_of(folder) != expected:
                raise LostError(f"{folder} is not what an undisturbed run leaves")
            number += 1
        return {"searches": number, "life_s": round(self.length, 2), **self.did}

    def one(self, folder: Path) -> bool:
        """A life, killed if there are kills left; whether the search is done."""
        before, said = newest(folder), self.said()
        self.old = {path.stat().st_ino for path in self.checkpoints(folder)}
        child = fork(folder, said, self.count, self.make)
        if self.left <= 0:
            status = self.wait(child)
        else:
            status = self.strike(folder, child)
        text = said.read_text() if said.exists() else ""
        told = f"going on from generation {before}\n"
        if before >= 0 and "going on from" in text and told not in text:
            raise LostError(f"{folder} had checkpoint {before} and said: {text}")
        after = newest(folder)
        if after < before:
            raise LostError(f"{folder} had checkpoint {before} and has {after}")
        if reached(folder) - max(after, 0) > CONFIG.checkpoint_every:
            raise LostError(f"{folder} told of {reached(folder)} and has checkpoint {after}")
        if status == 0:
            self.did["lives that ended by themselves"] += 1
            return True
        if status > 0 and status not in SAVED.values():
            raise LostError(f"a life ended with {status}: {self.trace()}")
        return False

    def strike(self, folder: Path, child: int) -> int:
        """Wait for a moment, and strike; how the life ended."""
        kind = self.random.random()
        number = signal.SIGKILL
        if kind < 0.1:
            number = self.random.choice([signal.SIGTERM, signal.SIGINT])
        writing = kind > 0.5
        delay = self.random.uniform(0, 0.6 * self.length)
        ended = self.pause(child, delay)
        if ended is None and writing:
            ended = self.until_writing(folder, child)
            if ended is None:
                time.sleep(self.random.uniform(0, 0.05))
        if ended is not None:
            return ended
        saving = self.is_writing(folder)
        os.kill(child, number)
        status = self.wait(child)
        if number != signal.SIGKILL:
            # Before it listens, or behind its last generation, a signal is only the system's.
            if status not in (SAVED[number], -number, 0):
                raise LostError(f"{number.name} ended a life with {status}: {self.trace()}")
            self.did[number.name] += 1
        elif status == -signal.SIGKILL:
            self.left -= 1
            if self.left % 10 == 0:
                print(f"{self.left} kills left", file=sys.stderr, flush=True)
            self.did["kills"] += 1
            self.did["kills while a checkpoint was written"] += saving
        return status

    def checkpoints(self, folder: Path) -> list[Path]:
        try:
            return list((folder / "checkpoints").iterdir())
        except OSError:
            return []

    def is_writing(self, folder: Path) -> bool:
        """Whether this life has a checkpoint under a name that is not its last."""
        for path in self.checkpoints(folder):
            if path.name.endswith(("tmp", "writing")):
                try:
                    if path.stat().st_ino not in self.old:
                        return True
                except OSError:  # it has got its name meanwhile
                    continue
        return False

    def until_writing(self, folder: Path, child: int) -> int | None:
        """Wait until a checkpoint is begun; or how the life ended before."""
        while not self.is_writing(folder):
            ended = self.pause(child, 0.0005)
            if ended is not None:
                return ended
        return None

    def pause(self, child: int, seconds: float) -> int | None:
        """Wait; how the life ended meanwhile, if it did."""
        until = time.monotonic() + seconds
        while True:
            done, how = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(how)
            left = until - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(left, 0.01))

    def wait(self, child: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def said(self) -> Path:
        path = self.where / "said.txt"
        path.unlink(missing_ok=True)
        return path

    def trace(self) -> str:
        path = self.where / "traceback.txt"
        return path.read_text() if path.exists() else "no traceback"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--plain", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        told = Harness(
            asked.folder, asked.kills, asked.seed, asked.devices, plain() if asked.plain else real
        ).run()
    except LostError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        json.dumps(
            told
            | {
                "seconds": round(time.monotonic() - began),
                "python": sys.version[:6],
                "jax": devices.versions()["jax"],
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
