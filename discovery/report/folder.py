"""What a run folder tells, as plain data that a page can show.

Any of its files may be missing, cut, or written by somebody who means harm: what cannot be read
becomes a line, never an error. Paths of the machine that a run was made on are left out here, so
that nothing behind this door has to think of them.
"""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from discovery.config import Config, ConfigError, from_dict
from discovery.evaluation import table
from discovery.runs import checkpoint, folders, logs
from learned_objectives.library import ARRAYS, CARD

EVALUATION = "evaluation.csv"
CLOCK_TABLES = ("evaluation-clock*.csv", "figures/clock.csv")
"""Where false clocks are told of, the best place first."""

_LARGEST_PICTURE = 8 * 2**20
_LARGEST_FILE = 64 * 2**20
_LONGEST_LINE = 300


class Picture(NamedTuple):
    """A picture of a run."""

    name: str
    """Of its file, without the suffix."""
    data: bytes
    kind: str
    """``png`` or ``svg+xml``."""


class Told(NamedTuple):
    """What one run folder tells of its search."""

    name: str
    data: Mapping[str, Any]
    """``config.json`` as it stands; empty if it cannot be read."""
    config: Config | None
    """The same, if it is a configuration of this version."""
    versions: Mapping[str, Any]
    resumed: tuple[Mapping[str, Any], ...]
    """What differed each time it was gone on with elsewhere."""
    metrics: tuple[Mapping[str, float], ...]
    """Lines of ``metrics.jsonl``, finite numbers alone."""
    saved: int | None
    """Generation of the newest checkpoint."""
    card: Mapping[str, Any]
    """Empty until the search has ended."""
    arrays: bool
    """The objective's arrays are there too."""
    problems: tuple[str, ...]
    """Files that could not be read."""

    @property
    def generation(self) -> int:
        """Generations that are known of."""
        return int(self.metrics[-1]["generation"]) if self.metrics else 0

    @property
    def finished(self) -> bool:
        """Whether its last generation is done and its objective written."""
        whole = self.config is not None and self.generation >= self.config.generations
        return whole and bool(self.card) and self.arrays

    @property
    def theta(self) -> str:
        """How tables name its objective's parameters; empty if there are none."""
        digest = self.card.get("sha256")
        return digest[:12] if isinstance(digest, str) else ""

    @property
    def blind(self) -> bool:
        """Whether its objective sees nothing of time."""
        objective = self.data.get("objective")
        told = objective if isinstance(objective, dict) else {}
        return told.get("clock") == "none" or told.get("clock_gate") == 0


class Scored(NamedTuple):
    """What a folder tells of an evaluation."""

    rows: tuple[table.Row, ...]
    uses: tuple[table.ClockUse, ...]
    """What false clocks cost."""
    problems: tuple[str, ...]


def runs_in(folder: Path) -> list[Path]:
    """The run folders that a page is about: one, or those of a comparison, horizon-aware first.

    Raises:
      ConfigError: it is no run folder, nor one of runs that are compared.
    """
    if not folder.is_dir():
        raise ConfigError(f"there is no run folder {folder}")
    if (folder / folders.CONFIG).is_file():
        return [folder]
    if (folder / EVALUATION).is_file():
        inner = [each for each in folder.iterdir() if (each / folders.CONFIG).is_file()]
        if inner:
            return sorted(inner, key=lambda each: (read(each).blind, each.name))
    raise ConfigError(f"{folder} is not a run: it has no {folders.CONFIG}")


def read(folder: Path, inside: Path | None = None) -> Told:
    """What a run folder tells.

    Args:
      folder: of the run.
      inside: a folder around it, by whose name it is called too.

    Returns:
      All that could be read.
    """
    problems: list[str] = []
    data = _object(folder / folders.CONFIG, problems)
    config = None
    try:
        config = from_dict(data, source=folders.CONFIG)
    except ConfigError as error:
        if data:
            problems.append(_line(error))
    versions = _object(folder / folders.VERSIONS, problems)
    sessions = versions.pop("resumed", [])
    resumed = [each for each in sessions if isinstance(each, dict)] if _is_list(sessions) else []
    try:
        saved = checkpoint.latest(folder / folders.CHECKPOINTS)
    except (OSError, ValueError) as error:
        saved = None
        problems.append(f"{folders.CHECKPOINTS} cannot be read: {type(error).__name__}")
    card = _object(folder / CARD, problems) if (folder / CARD).exists() else {}
    name = folder.resolve().name
    return Told(
        name=cleaned(f"{inside.resolve().name}/{name}" if inside else name),
        data=data,
        config=config,
        versions=versions,
        resumed=tuple(resumed),
        metrics=tuple(_metrics(folder / folders.METRICS, problems)),
        saved=saved,
        card=card,
        arrays=(folder / ARRAYS).is_file(),
        problems=tuple(problems),
    )


def scored(folder: Path) -> Scored:
    """The tables of an evaluation in a folder, as far as there are any."""
    problems: list[str] = []
    rows: list[table.Row] = []
    uses: list[table.ClockUse] = []
    if (folder / EVALUATION).exists():
        rows = _table(folder / EVALUATION, table.read, problems)
    for pattern in CLOCK_TABLES:
        for path in sorted(folder.glob(pattern)):
            uses += _table(path, table.read_clock_uses, problems)
        if uses:
            break
    return Scored(
        tuple(
            row._replace(objective=cleaned(row.objective), environment=cleaned(row.environment))
            for row in rows
        ),
        tuple(use._replace(objective=cleaned(use.objective)) for use in uses),
        tuple(problems),
    )


def pictures(*places: Path) -> tuple[list[Picture], list[str]]:
    """The pictures of some folders, by name; of one that is there twice, the PNG.

    Args:
      *places: folders; what is not a whole picture is left out.

    Returns:
      Pictures, and a line for each file that is none.
    """
    found: dict[str, Picture] = {}
    problems = []
    for place in places:
        files = [*place.glob("*.png"), *place.glob("*.svg")] if place.is_dir() else []
        for path in sorted(files, key=lambda path: (path.suffix, path.name)):
            name = cleaned(path.stem)
            if name in found:
                continue
            data = _bytes(path, _LARGEST_PICTURE)
            is_whole = _is_png if path.suffix == ".png" else _is_svg
            if data is None or not is_whole(data):
                problems.append(f"{cleaned(path.name)} is not a whole picture, and is left out")
                continue
            found[name] = Picture(name, data, "png" if path.suffix == ".png" else "svg+xml")
    return [found[name] for name in sorted(found)], problems


# --- paths ------------------------------------------------------------------------------------

_ABSOLUTE = re.compile(
    r"(?<![\w./\\])(?:file:/*)?(?:~|[A-Za-z]:)?[/\\]"
    r"(?:[^\s/\\'\"<>|,;:]+[/\\])+([^\s/\\'\"<>|,;:]*)"
)
_FILE = re.compile(r"^.*[/\\]([^/\\]+\.(?:py|json)(?::\w+)?)$", re.DOTALL)


def cleaned(value: Any) -> Any:
    """Data without the paths of the machine it comes from: of each, the last name is left.

    Example:
      >>> cleaned({"env": "/home/me/own.py:make", "preset": "../mine.json", "n": 3})
      {'env': 'own.py:make', 'preset': 'mine.json', 'n': 3}
      >>> cleaned("brax/ant/spring")
      'brax/ant/spring'
    """
    if isinstance(value, dict):
        return {cleaned(str(name)): cleaned(item) for name, item in value.items()}
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, str):
        return _ABSOLUTE.sub(r"\1", _FILE.sub(r"\1", value))
    return value


# --- files ------------------------------------------------------------------------------------


def _bytes(path: Path, most: int) -> bytes | None:
    """What a file holds; nothing if it is something else, or too much to be what it seems."""
    try:
        if not path.is_file() or path.stat().st_size > most:
            return None
        return path.read_bytes()
    except OSError:
        return None


def _object(path: Path, problems: list[str]) -> dict[str, Any]:
    """A JSON object, cleaned; an empty one, with a line, if it cannot be read."""
    data = _bytes(path, _LARGEST_FILE)
    if data is None:
        problems.append(f"{path.name} is missing or cannot be read")
        return {}
    try:
        found = json.loads(data)
        if isinstance(found, dict):
            return dict(cleaned(found))
    except (ValueError, RecursionError):
        problems.append(f"{path.name} is not JSON")
        return {}
    problems.append(f"{path.name} is not an object")
    return {}


def _metrics(path: Path, problems: list[str]) -> Iterable[dict[str, float]]:
    rows: list[dict[str, Any]] = []
    try:
        rows = logs.read(path) if path.is_file() else []
        if not rows and path.exists() and path.stat().st_size:
            problems.append(f"{path.name} has no line that can be read")
    except (OSError, RecursionError):
        problems.append(f"{path.name} cannot be read")
    for row in rows:
        numbers = {cleaned(name): float(x) for name, x in row.items() if _is_number(x)}
        if "generation" in numbers:
            yield numbers


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e15 and math.isfinite(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _table(path: Path, load: Any, problems: list[str]) -> list[Any]:
    """The rows of a table; none, with a line, if it cannot be read."""
    if _bytes(path, _LARGEST_FILE) is None:
        problems.append(f"{cleaned(path.name)} cannot be read")
        return []
    try:
        return list(load(path))
    except table.TableError as error:
        problems.append(_line(str(error).replace(str(path), path.name)))
        return []


def _line(what: object) -> str:
    """What is wrong, in a line of bounded length."""
    text = " ".join(cleaned(str(what)).split())
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]} ..."


# --- pictures ---------------------------------------------------------------------------------


def _is_png(data: bytes) -> bool:
    """Whether a PNG is whole: every chunk has its checksum, and the last one is the end."""
    place, name = 8, b""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return False
    while place + 12 <= len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        name, end = data[place + 4 : place + 8], place + 8 + size
        if place == 8 and name != b"IHDR":
            return False
        told = data[end : end + 4]
        if len(told) < 4 or zlib.crc32(data[place + 4 : end]) != struct.unpack(">I", told)[0]:
            return False
        place = end + 4
    return name == b"IEND" and place == len(data)


def _is_svg(data: bytes) -> bool:
    return b"<svg" in data[:2000] and data.rstrip().endswith(b"</svg>")
