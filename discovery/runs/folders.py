"""A run folder: begun, reopened, described. No JAX here.

``config.json`` and ``versions.json`` are on disk before JAX is imported, so that a run killed at
any moment can be gone on with.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from discovery import devices
from discovery.config import Config, ConfigError, check, from_dict, mixed, nearest, to_dict
from discovery.runs import checkpoint
from learned_objectives.library import ARRAYS, CARD, RULES, write_whole

CONFIG = "config.json"
VERSIONS = "versions.json"
METRICS = "metrics.jsonl"
CURRICULUM = "curriculum.csv"
CHECKPOINTS = "checkpoints"
FIGURES = "figures"
TRACEBACK = "traceback.txt"
NONFINITE = "nonfinite"

_OWN = (
    CONFIG,
    VERSIONS,
    METRICS,
    CURRICULUM,
    CHECKPOINTS,
    FIGURES,
    TRACEBACK,
    NONFINITE,
    ARRAYS,
    CARD,
    "evaluation.csv",
    "report.html",
    "tensorboard",
    "wandb",
    "wandb-id",
)
"""What a run writes, and all that ``--overwrite`` removes."""


class Reopened(NamedTuple):
    """A run that is gone on with."""

    config: Config
    notes: list[str]
    """Lines that a person should see."""


def default(config: Config) -> Path:
    """Where a run goes if nobody says: ``runs/<preset>-<seed>``."""
    name = Path(config.preset).stem if config.preset else "search"
    return Path("runs") / f"{name}-{config.seed}"


def check_local(path: str | os.PathLike[str]) -> None:
    """Refuse the address of object storage, which would be taken for a folder of that name.

    Raises:
      ConfigError: with what to do instead.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(/|$)", os.fspath(path))
    if scheme:
        raise ConfigError(
            f"{os.fspath(path)}: a run is locked, renamed and appended to, which {scheme[1]}:// "
            "cannot do: mount the bucket, or write to a disk and copy it (TPU_SETUP.md)"
        )


def check_names(config: Config) -> None:
    """Refuse an update rule or an environment that is not known, before anything is written.

    Raises:
      ConfigError: with the nearest known names.
    """
    from envs.registry import names

    for name, known, what in (
        (config.objective.rule, tuple(RULES), "objective"),
        *((env, names(), "environment") for env in mixed(config.env)),
    ):
        file = name.rpartition(":")[0]
        if file.endswith(".py"):
            if not Path(file).is_file():
                raise ConfigError(f"{what} {name}: there is no file {file}")
        elif name not in known:
            raise ConfigError(nearest(name, known, what))


@contextmanager
def lock(folder: Path) -> Generator[None]:
    """Keep a run folder to one process; the lock dies with the process.

    Raises:
      ConfigError: another process is writing there, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another process is writing {folder}: wait for it, or stop it"
            ) from None
        yield


def check_ready(config: Config, folder: Path, overwrite: bool = False) -> None:
    """Refuse everything that can be refused before a file is written.

    Raises:
      ConfigError: sizes that do not fit, unknown names, or a folder that holds something.
    """
    check(config)
    check_names(config)
    free(folder, overwrite)


def free(folder: Path, overwrite: bool = False) -> None:
    """Refuse a folder that holds something.

    Raises:
      ConfigError: it holds a run and ``overwrite`` is not set, it holds something else, or it
        cannot be a folder.
    """
    check_local(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose another --out")
    if not any(_visible(folder)):
        return
    if not (folder / CONFIG).exists():
        raise ConfigError(f"{folder} holds something that is not a run; choose another --out")
    if not overwrite:
        raise ConfigError(
            f"{folder} holds a run: go on with --resume {folder}, "
            "begin anew with --overwrite, or choose another --out"
        )


def _visible(folder: Path) -> Iterator[Path]:
    return (entry for entry in folder.iterdir() if not entry.name.startswith("."))


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written or made, before anything is computed for it.

    Raises:
      ConfigError: with the reason.
    """
    check_local(folder)
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not place.is_dir():
        raise ConfigError(f"cannot write {folder}: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write {folder}: {place} is not ours to write")


def begin(folder: Path, config: Config) -> None:
    """Write what is needed to run it again; a run that is there is removed (see :func:`free`).

    Raises:
      ConfigError: the folder cannot be written.
    """
    try:
        for name in _OWN:
            entry = folder / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        write_json(folder / CONFIG, to_dict(config))
        write_json(folder / VERSIONS, devices.versions())
    except OSError as error:
        with suppress(OSError):  # nothing half begun stays in the way
            abandon(folder)
        raise ConfigError(f"cannot write {folder}: {error.strerror}") from None


def abandon(folder: Path) -> None:
    """Take back :func:`begin`, where a configuration proves impossible before anything ran."""
    for name in (CONFIG, VERSIONS, ".lock"):
        (folder / name).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError:
        return  # it holds something else, or others use it


def load_config(folder: Path) -> Config:
    """The configuration of a run folder.

    Raises:
      ConfigError: it is not a run folder, or its file is not a configuration.
    """
    check_local(folder)
    path = folder / CONFIG
    if not path.exists():
        raise ConfigError(f"{folder} is not a run: it has no {CONFIG}")
    data = read_json(path)
    try:
        return from_dict(data, source=str(path))
    except ConfigError as error:
        raise ConfigError(f"{error}{_other_version(folder)}") from None


def _other_version(folder: Path) -> str:
    """That a run was last written by another version of ours, in words; else nothing."""
    name = "kairos-rl"
    try:
        wrote = _last(*_sessions(folder / VERSIONS)).get(name)
    except ConfigError:
        return ""
    now = devices.versions().get(name)
    known = isinstance(wrote, str) and wrote != now
    return f"; it is of {name} {wrote}, this is {now}" if known else ""


def reopen(
    folder: Path, asked: Config | None, generation: int | None = None, write: bool = True
) -> Reopened:
    """The configuration to go on with, and what differs from when the run began.

    Args:
      folder: of the run.
      asked: a configuration that may differ in ``generations`` only; ``None`` for the saved one.
      generation: of the checkpoint to go on from; ``None`` for the newest.
      write: another number of generations down.

    Raises:
      ConfigError: another field differs, or there are fewer generations than there were.
    """
    saved = load_config(folder)
    config = asked or saved
    other = [name for name in differences(saved, config) if name != "generations"]
    if other:
        raise ConfigError(
            f"{folder} cannot go on with another {', '.join(other)}: only --generations may change"
        )
    check(config)
    check_names(config)
    if not config.evolution.group:
        config = replace(config, evolution=replace(config.evolution, group=saved.evolution.group))
    done = checkpoint.latest(folder / CHECKPOINTS) if generation is None else generation
    if done is not None and config.generations < done:
        raise ConfigError(
            f"generations {config.generations} is below the {done} that {folder} has done"
        )
    notes = []
    if config.generations != saved.generations:
        notes.append(f"generations: {config.generations} instead of {saved.generations}")
        try:
            if write:
                write_json(folder / CONFIG, to_dict(config))
        except OSError as error:
            raise ConfigError(f"cannot write {folder}: {error.strerror}") from None
    return Reopened(config, notes)


def differences(a: Config, b: Config) -> list[str]:
    """Names of the fields in which two configurations differ, as the command line calls them.

    A group that one of them leaves open is none of them.
    """
    found = changed(to_dict(a), to_dict(b))
    left_open = not (a.evolution.group and b.evolution.group)
    return [name for name in found if not (left_open and name == "group")]


def changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Fields that two configurations, as plain data, both have and in which they differ."""
    left, right = _flat(a), _flat(b)
    return [name for name in left if name in right and left[name] != right[name]]


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in data.items():
        out |= _flat(value) if isinstance(value, dict) else {name: value}
    return out


def note_machine(folder: Path, generation: int | None) -> list[str]:
    """Write down versions, devices and switches, and say what differs from when the run began.

    To be called once JAX has its devices.

    Args:
      folder: of the run.
      generation: that is gone on from; ``None`` for a fresh run.

    Returns:
      A line where something differs, else nothing.

    Raises:
      OSError: the disk is full or read-only.
    """
    path = folder / VERSIONS
    now = devices.machine()
    if generation is None or not path.exists():
        write_json(path, now)
        return []
    first, sessions = _sessions(path)
    known = "devices" in first
    # Killed before JAX was up, the first session never knew its devices.
    first.setdefault("devices", now["devices"])
    last = _last(first, sessions)
    other = _other(last, now)
    if other or not known:
        if other:
            sessions.append({"generation": generation} | {key: now.get(key) for key in other})
        write_json(path, first | ({"resumed": sessions} if sessions else {}))
    if not other:
        return []
    return [f"differs from before: {_told(last, now, other)}; bits may differ"]


def unlike(folder: Path, config: Config) -> list[str]:
    """What differs between a run and one that does it again, here and now.

    Args:
      folder: of the run.
      config: of the one that does it again.

    Returns:
      A line for what differs of the configuration, of the machine, and of its own sessions.
    """
    notes = []
    if fields := differences(load_config(folder), config):
        notes.append(f"as {folder} but for: {', '.join(fields)}")
    path = folder / VERSIONS
    if not path.exists():
        return [*notes, f"{folder} does not tell its versions: bits may differ"]
    first, sessions = _sessions(path)
    now = devices.machine()
    last = _last(first, sessions)
    if other := _other(last, now):
        notes.append(f"differs from {folder}: {_told(last, now, other)}; bits may differ")
    if sessions:
        notes.append(f"{folder} was itself gone on with on another machine: bits may differ")
    return notes


def _sessions(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """What was written down when a run began, and each time it was gone on with."""
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise ConfigError(f"{path} must be an object, not {type(saved).__name__}")
    try:
        json.dumps(saved, allow_nan=False)
    except ValueError:
        raise ConfigError(f"{path} holds a number that is not finite") from None
    sessions = saved.get("resumed")
    first = {name: value for name, value in saved.items() if name != "resumed"}
    return first, list(sessions) if isinstance(sessions, list) else []


def _last(first: dict[str, Any], sessions: list[Any]) -> dict[str, Any]:
    last = first
    for session in sessions:
        last = last | session if isinstance(session, dict) else last
    return last


def _other(last: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    keys = [key for key in {**now, **last} if key != "generation"]
    return [key for key in keys if last.get(key) != now.get(key)]


def _told(last: Mapping[str, Any], now: Mapping[str, Any], other: list[str]) -> str:
    return ", ".join(f"{key} {now.get(key, 'gone')} (was {last.get(key, 'none')})" for key in other)


def write_json(path: Path, data: Any) -> None:
    """Replace a file by plain data as JSON that a person can read.

    Raises:
      OSError: the disk is full or read-only; the old file is untouched.
    """
    write_whole(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Plain data from a JSON file.

    Raises:
      ConfigError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None


def last_words(folder: Path) -> str:
    """What is safe of a run that nothing of its own can tell of any more."""
    saved = checkpoint.latest(folder / CHECKPOINTS)
    if saved is None:
        return f"another process was lost; no checkpoint yet; begin again with: {words(folder)}"
    return f"another process was lost; generation {saved} is saved; go on with: {words(folder)}"


def words(folder: str | os.PathLike[str], **flags: Any) -> str:
    """The command that goes on with a run."""
    more = "".join(f" --{name.replace('_', '-')} {value}" for name, value in flags.items())
    return f"kairos evolve --resume {shlex.quote(os.fspath(folder))}{more}"
