"""Damaged checkpoints: none is loaded, each gets one line, the next best is offered."""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from discovery.config import Config, ConfigError
from discovery.runs import checkpoint
from discovery.runs.errors import CheckpointError, RunError
from discovery.runs.run import evolve
from tests.faults.conftest import Command
from tests.faults.kills import CONFIG, plain

Damage = Callable[[random.Random, Path, Path], str]


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)


def flip(rng: random.Random, newest: Path, other: Path) -> str:
    """One bit of one file, each byte of the checkpoint as likely as any other, or each file."""
    all_ = files(newest)
    weights = [p.stat().st_size if rng.random() < 0.5 else 1 for p in all_]
    [path] = rng.choices(all_, weights)
    data = bytearray(path.read_bytes())
    place = rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return f"bit {place} of {path.name}"


def cut(rng: random.Random, newest: Path, other: Path) -> str:
    path = rng.choice(files(newest))
    size = rng.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"{path.name} cut to {size}"


def longer(rng: random.Random, newest: Path, other: Path) -> str:
    path = rng.choice(files(newest))
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.randint(1, 9)))
    return f"{path.name} is longer"


def hole(rng: random.Random, newest: Path, other: Path) -> str:
    """A block of zeros, as a machine leaves that lost its power."""
    path = max(files(newest), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data) - 8)
    block = data[start : start + 64]
    data[start : start + 64] = (
        bytes(255 - byte for byte in block) if not any(block) else bytes(len(block))
    )
    path.write_bytes(data)
    return f"hole in {path.name}"


def missing(rng: random.Random, newest: Path, other: Path) -> str:
    path = rng.choice(files(newest))
    path.unlink()
    return f"{path.name} is missing"


def swapped(rng: random.Random, newest: Path, other: Path) -> str:
    """A file, or all, of another checkpoint of the same run."""
    if rng.random() < 0.2:
        shutil.rmtree(newest)
        shutil.copytree(other, newest)
        return "all of it is another's"
    names = [p.relative_to(newest) for p in files(newest)]
    name = rng.choice([n for n in names if (newest / n).read_bytes() != (other / n).read_bytes()])
    shutil.copy(other / name, newest / name)
    return f"{name} is another's"


def edited(rng: random.Random, newest: Path, other: Path) -> str:
    """A manifest that somebody has changed, with or without a new sum, under a new seal."""
    path = newest / "meta" / "metadata"
    meta = json.loads(path.read_text())
    change: dict[str, Any] = rng.choice(
        [
            {"format": checkpoint.FORMAT + rng.randint(1, 9)},
            {"generation": meta["generation"] + rng.randint(1, 9)},
            {"leaves": meta["leaves"][1:]},
            {"leaves": []},
            {"leaves": [meta["leaves"][0] | {"sha256": "0" * 64}, *meta["leaves"][1:]]},
            {"leaves": [meta["leaves"][0] | {"shape": [2**40]}, *meta["leaves"][1:]]},
            {"leaves": [{"path": "theta"}]},
            {"leaves": {}},
            {"progress": []},
            {"progress": {"pending": [{"fitness": "high"}]}},
            {"progress": {"pending": [], "steps": "many"}},
            {"progress": {"pending": 3}},
            {"progress": meta["progress"] | {"config": meta["progress"]["config"] | {"seed": 9}}},
        ]
    )
    meta |= change
    path.write_text(json.dumps(checkpoint.sealed(meta)))
    (newest / checkpoint.SEAL).unlink()
    checkpoint._seal(newest)
    return f"edited {str(change)[:60]}"


DAMAGES: tuple[Damage, ...] = (flip, flip, flip, cut, longer, hole, missing, swapped, edited)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def config() -> Config:
    return replace(CONFIG, generations=8)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Path:
    """A run with checkpoints of the generations 4 and 6, to be gone on with."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    evolve(replace(config, generations=6), folder, quiet=True, make=plain())
    return folder


@pytest.mark.parametrize("count", [24, pytest.param(500, marks=pytest.mark.slow)])
def test_no_damage_is_loaded(stopped: Path, tmp_path: Path, config: Config, count: int) -> None:
    rng = random.Random(count)
    make, did = plain(), Counter[str]()
    for number in range(count):
        folder = tmp_path / "run"
        shutil.copytree(stopped, folder)
        store = folder / "checkpoints"
        damage = DAMAGES[number % len(DAMAGES)]
        what = damage(rng, store / "6", store / "4")
        did[damage.__name__] += 1
        before = contents(folder)
        with pytest.raises(CheckpointError) as caught:
            evolve(config, resume=folder, quiet=True, make=make)
            pytest.fail(f"loaded in silence: {what}")
        line = str(caught.value)
        assert "\n" not in line, what
        assert str(store / "6") in line, (what, line)
        assert f"kairos evolve --resume {folder} --from-generation 4" in line, (what, line)
        after = contents(folder)
        after["config.json"] = before["config.json"]  # holds the generations that were asked for
        assert after == before, what
        shutil.rmtree(folder)
    assert set(did) == {damage.__name__ for damage in DAMAGES}


def test_what_was_offered_goes_on(stopped: Path, tmp_path: Path, config: Config) -> None:
    make = plain()
    whole, folder = tmp_path / "whole", tmp_path / "run"
    evolve(config, whole, quiet=True, make=make)
    shutil.copytree(stopped, folder)
    missing(random.Random(0), folder / "checkpoints" / "6", folder)
    damaged = contents(folder / "checkpoints" / "6")
    evolve(config, resume=folder, from_generation=4, quiet=True, make=make)
    for name in ("objective.safetensors", "config.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert contents(folder / "checkpoints" / "set-aside" / "6-0") == damaged


def test_the_next_best_is_one_that_is_whole(stopped: Path, tmp_path: Path, config: Config) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    evolve(config, resume=folder, quiet=True, make=plain())
    store, rng = folder / "checkpoints", random.Random(0)
    assert checkpoint.complete(store)[0] == [8, 6]
    shutil.copytree(stopped / "checkpoints" / "4", store / "4")
    cut(rng, store / "8", store / "4")
    flip(rng, store / "6", store / "4")
    with pytest.raises(CheckpointError, match=r"--from-generation 4$"):
        evolve(resume=folder, quiet=True, make=plain())
    cut(rng, store / "4", store / "4")
    with pytest.raises(CheckpointError, match="no older checkpoint is whole") as caught:
        evolve(resume=folder, quiet=True, make=plain())
    assert "--from-generation" not in str(caught.value)


# --- disks ------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A real file system of two megabytes, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    yield folder if done.returncode == 0 else None
    if done.returncode == 0:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills(
    tmp_path: Path, config: Config, small_disk: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run stops with one line, and goes on once there is room again."""
    whole = tmp_path / "whole"
    evolve(config, whole, quiet=True, make=plain())
    folder = (small_disk or tmp_path) / "run"
    make = plain()

    def filling(config: Config) -> Any:
        real = make(config)

        def step(state: Any) -> Any:
            if small_disk is None:  # nothing may be mounted here: the next write finds it full
                monkeypatch.setattr(checkpoint, "_seal", full)
            elif int(state.generation) == 4:
                with (small_disk / "ballast").open("wb") as file, pytest.raises(OSError):
                    while True:
                        file.write(bytes(4096))
                        file.flush()
            return real.step(state)

        return real._replace(step=step)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RunError, match="No space left on device") as caught:
        evolve(config, folder, quiet=True, make=filling)
    assert "\n" not in str(caught.value)
    assert f"go on with: kairos evolve --resume {folder}" in str(caught.value)
    monkeypatch.undo()
    if small_disk is not None:
        (small_disk / "ballast").unlink()
    evolve(config, resume=folder, quiet=True, make=plain())
    for name in ("objective.safetensors", "config.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_a_folder_that_cannot_be_written(
    stopped: Path,
    tmp_path: Path,
    config: Config,
    small_disk: Path | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither gone on with nor begun, and nothing in it is changed."""
    place = small_disk or tmp_path
    folder = place / "run"
    shutil.copytree(stopped, folder)
    before = contents(folder)
    if small_disk is not None:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    else:

        def refused(path: Path, *how: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

        monkeypatch.setattr(Path, "open", refused)
        monkeypatch.setattr(Path, "mkdir", refused)
    for options in ({"resume": folder}, {"out": place / "fresh"}):
        with pytest.raises(ConfigError, match=r"cannot write .*: Read-only file system") as caught:
            evolve(config, quiet=True, make=plain(), **options)
        assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert contents(folder) == before
    assert not (place / "fresh").exists()


# --- the command ------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_says_what_is_damaged(kairos: Command, tmp_path: Path) -> None:
    begun = kairos(
        "evolve",
        "--preset",
        "smoke",
        "--generations",
        "2",
        "--checkpoint-every",
        "1",
        "--log-every",
        "1",
        "--out",
        "run",
    )
    said, _ = begun.communicate(timeout=400)
    assert begun.returncode == 0, said
    rng = random.Random(0)
    for number in range(8):
        shutil.copytree(tmp_path / "run", tmp_path / "broken")
        store = tmp_path / "broken" / "checkpoints"
        what = DAMAGES[number](rng, store / "2", store / "1")
        resumed = kairos("evolve", "--resume", "broken", "--generations", "3")
        said, _ = resumed.communicate(timeout=400)
        assert resumed.returncode == 1, (what, said)
        assert "Traceback" not in said
        [line] = [line for line in said.splitlines() if line.startswith("kairos: ")]
        assert line.endswith("kairos evolve --resume broken --from-generation 1"), (what, line)
        shutil.rmtree(tmp_path / "broken")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_saves_when_it_is_told_to_end(
    kairos: Command, tmp_path: Path, number: signal.Signals
) -> None:
    process = kairos("evolve", "--preset", "smoke", "--generations", "100000", "--out", "run")
    while checkpoint.latest(tmp_path / "run" / "checkpoints") is None:
        assert process.poll() is None, process.communicate()[0]
    process.send_signal(number)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number], said
    assert "go on with: kairos evolve --resume run" in said
    assert "Traceback" not in said
