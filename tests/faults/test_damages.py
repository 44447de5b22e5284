"""Damaged checkpoints: none is loaded, each gets one line, the next best is offered."""

import errno
import hashlib
import importlib.metadata
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from discovery import devices
from discovery.cli import main
from discovery.config import Config, ConfigError, to_json
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


def test_a_newer_version_of_ours(stopped: Path, tmp_path: Path, config: Config) -> None:
    """What it has written is not guessed at, and who wrote it is told."""
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    newest = folder / "checkpoints" / "6"
    path = newest / "meta" / "metadata"
    meta = json.loads(path.read_text()) | {"format": checkpoint.FORMAT + 1}
    path.write_text(json.dumps(checkpoint.sealed(meta)))
    (newest / checkpoint.SEAL).unlink()
    checkpoint._seal(newest)
    before = contents(folder)
    told = f"has format {checkpoint.FORMAT + 1}, expected {checkpoint.FORMAT}: it is of a newer "
    with pytest.raises(CheckpointError, match=f"{told}version of Kairos; .*generation 4$"):
        evolve(resume=folder, quiet=True, make=plain())
    assert contents(folder) == before
    for name, more in (("config.json", {"novelty": 1}), ("versions.json", {"kairos-rl": "9.9"})):
        data = json.loads((folder / name).read_text()) | more
        (folder / name).write_text(json.dumps(data))
    known = importlib.metadata.version("kairos-rl")
    with pytest.raises(ConfigError, match=f"'novelty'.*; it is of kairos-rl 9.9, this is {known}$"):
        evolve(resume=folder, quiet=True, make=plain())


# --- the command ------------------------------------------------------------------------------


def answered(process: "subprocess.Popen[str]", status: int) -> str:
    """The one line of ours with which a command ended as it should."""
    said, _ = process.communicate(timeout=400)
    assert process.returncode == status, said
    assert "Traceback" not in said
    [line] = [line for line in said.splitlines() if line.startswith("kairos: ")]
    return line


ADDRESSES = (
    ("evolve", "--preset", "smoke", "--out", "gs://bucket/run"),
    ("evolve", "--resume", "gs://bucket/run"),
    ("evolve", "--like", "gs://bucket/run"),
    ("evaluate", "a2c", "--out", "s3://bucket/table.csv"),
    ("train", "--objective", "a2c", "--out", "gs://bucket/life"),
)


@pytest.mark.parametrize("words", ADDRESSES)
def test_object_storage_is_no_folder(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No folder is made that is called as the address is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "start", lambda *_, **__: None)
    assert main(list(words)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "mount the bucket, or write to a disk and copy it (TPU_SETUP.md)" in line
    assert f"{words[-1][:2]}:// cannot do" in line
    assert list(tmp_path.iterdir()) == []


READ_ONLY = (
    ("evolve", "--preset", "smoke", "--out", "disk/fresh"),
    ("evolve", "--resume", "disk/run"),
    ("evolve", "--resume", "disk/run", "--generations", "9"),
    ("evaluate", "a2c", "--out", "disk/table.csv"),
)


def test_the_command_where_nothing_can_be_written(
    kairos: Command, stopped: Path, tmp_path: Path, small_disk: Path | None
) -> None:
    if small_disk is None:  # nothing may be mounted here: a folder in which nobody can write
        os.symlink("/proc/self", tmp_path / "closed")
        line = answered(kairos("evolve", "--preset", "smoke", "--out", "closed/fresh"), 2)
        assert line.startswith("kairos: cannot write closed/fresh: ")
        return
    shutil.copytree(stopped, small_disk / "run")
    before = contents(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for process in [kairos(*words) for words in READ_ONLY]:
        assert answered(process, 2).startswith("kairos: cannot write disk")
    assert contents(small_disk) == before


@pytest.mark.slow
def test_the_command_on_a_disk_that_fills(
    kairos: Command, tmp_path: Path, small_disk: Path | None
) -> None:
    """By its own checkpoints; where nothing may be mounted, by files that may not grow."""
    disk = small_disk or tmp_path / "disk"
    (tmp_path / "tiny.json").write_text(to_json(replace(CONFIG, keep_checkpoints=10**6)))
    begin = ("evolve", "--preset", "tiny.json", "--out")
    limit = () if small_disk else (resource.RLIMIT_FSIZE, (16_384, 16_384))
    line = answered(kairos(*begin, "disk/run", "--generations", "100000", limit=limit), 1)
    assert ("No space left on device" if small_disk else "File too large") in line
    assert line.endswith("go on with: kairos evolve --resume disk/run")
    [saved] = map(int, re.findall(r"generation (\d+) is saved", line))
    assert saved == checkpoint.latest(disk / "run" / "checkpoints")
    assert saved > 0
    # It goes on once there is room, and ends as if there always had been.
    if small_disk:
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    more = ("--generations", str(saved + 2))
    data = json.loads((disk / "run" / "config.json").read_text()) | {"generations": saved}
    (disk / "run" / "config.json").write_text(json.dumps(data))
    for process in (kairos("evolve", "--resume", "disk/run", *more), kairos(*begin, "all", *more)):
        said, _ = process.communicate(timeout=400)
        assert process.returncode == 0, said
    for name in ("objective.safetensors", "config.json"):
        assert (disk / "run" / name).read_bytes() == (tmp_path / "all" / name).read_bytes()


@pytest.mark.slow
def test_the_command_says_what_is_damaged(kairos: Command, tmp_path: Path) -> None:
    """A hundred checkpoints, two commands at a time."""
    (tmp_path / "tiny.json").write_text(to_json(replace(CONFIG, generations=4)))
    said, _ = (begun := kairos("evolve", "--preset", "tiny.json", "--out", "run")).communicate()
    assert begun.returncode == 0, said

    def one(number: int) -> str:
        rng, name = random.Random(number), f"broken-{number}"
        shutil.copytree(tmp_path / "run", tmp_path / name)
        store = tmp_path / name / "checkpoints"
        damage = DAMAGES[number % len(DAMAGES)]
        what = damage(rng, store / "4", store / "2")
        before = contents(store)
        line = answered(kairos("evolve", "--resume", name, "--generations", "6"), 1)
        assert f"{name}/checkpoints/4" in line, (what, line)
        assert line.endswith(f"kairos evolve --resume {name} --from-generation 2"), (what, line)
        assert contents(store) == before, what
        shutil.rmtree(tmp_path / name)
        return damage.__name__

    with ThreadPoolExecutor(2) as pool:
        did = Counter(pool.map(one, range(100)))
    print(dict(did))
    assert did.total() == 100


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
