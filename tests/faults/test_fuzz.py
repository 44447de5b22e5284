"""What people and broken disks may hand us: an answer to each, and nothing is done but asked for.

Every case ends in a result or in an error of ours, of one line. Nothing that a file says is run,
nothing is written outside the folder in which the command stands, and no file makes us take the
memory that it only claims to need.

The long form throws ten thousand; the short one some hundreds.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import re
import resource
import shutil
import sys
import typing
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from discovery import cli, devices, doctor, requests
from discovery.config import PRESETS, Config, ConfigError, check, from_dict, from_json, to_dict
from discovery.evaluation import table
from discovery.runs import folders, logs, run
from learned_objectives.library import ObjectiveError, load, make_rule, save
from tests.faults.conftest import Command
from tests.faults.kills import CONFIG

SHORT, LONG = 50, 1700
"""Cases of each of six kinds: ten thousand in all."""

counts = pytest.mark.parametrize("count", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)])


def throw(
    guard: Path, count: int, cases: st.SearchStrategy[Any], catch: Callable[[Any], str]
) -> None:
    """Hand so many cases to a function that names what came of each; tell how many of each."""
    came: Counter[str] = Counter()

    @hypothesis.settings(max_examples=count, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(cases)
    def thrown(case: Any) -> None:
        guarded.append(guard)
        try:
            came[catch(case)] += 1
        finally:
            guarded.clear()
        assert broken == []

    thrown()
    print(f"{sum(came.values())} thrown: {dict(came)}")
    assert sum(came.values()) >= count // 2  # a strategy may run out of cases that are new


def one_line(error: Exception) -> str:
    assert str(error), type(error)
    assert "\n" not in str(error), str(error)
    assert len(str(error)) < 2000
    return "refused"


# --- what nothing may do ----------------------------------------------------------------------

FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn")
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "os.symlink")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

guarded: list[Path] = []
"""The one folder in which something may be written while this holds it."""
broken: list[str] = []


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not guarded:
        return
    if event in FORBIDDEN or (event == "subprocess.Popen" and "git" not in str(arguments[0])):
        broken.append(f"{event} {arguments}")
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
    if (writes or event in CHANGES) and isinstance(arguments[0], str | bytes | os.PathLike):
        path = Path(os.fsdecode(arguments[0])).absolute()
        if path != Path(os.devnull) and not path.is_relative_to(guarded[0]):
            broken.append(f"{event} {path}")


sys.addaudithook(audit)


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """An empty folder to stand in, outside which nothing may be written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    broken.clear()
    yield tmp_path
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert grown < 600, f"{grown} MiB"
    assert not (tmp_path / "executed").exists()


# --- values -----------------------------------------------------------------------------------

WORDS = (
    *("", "inf", "-inf", "nan", "0", "-1", "1e999", "none", "small", "lpg", "own.py:make", "\0"),
    *("../../x", "a\nb", "é", "true", "null", "9" * 400, "own.py:", ":make", ".json", "run"),
)
NUMBERS = (0, 1, -1, 2, 3, 10**7, 10**7 + 1, 2**31, 2**63, 2**64, 10**400, -(2**70))
REALS = (0.0, -0.0, 1e30, 1e-30, 1e308, math.inf, -math.inf, math.nan, 0.5, -1.0)

scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.sampled_from(REALS)
    | st.sampled_from(WORDS)
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where there is a value in plain data, sections too."""
    found = [at] if at else []
    if isinstance(data, dict):
        found += [place for key in data for place in places(data[key], (*at, key))]
    return found


def changed(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    return data | {place[0]: changed(data.get(place[0], {}), place[1:], value)}


@st.composite
def mutated(draw: st.DrawFn, data: Any) -> Any:
    """Plain data of which some values are others, some are gone, and some are new."""
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["other", "other", "other", "gone", "new"]))
        place = draw(st.sampled_from(places(data) or [("x",)]))
        if kind == "new":
            data = changed(data, (*place[:-1], draw(st.text(max_size=6))), draw(values))
        elif kind == "other":
            data = changed(data, place, draw(values))
        else:
            holder = data
            for key in place[:-1]:
                holder = holder[key]
            data = changed(data, place[:-1], {k: v for k, v in holder.items() if k != place[-1]})
    return data


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes that were cut, changed or added to."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["cut", "flip", "overwrite", "splice", "zeros"]))
        if kind == "cut":
            data = data[:at]
        elif kind == "flip" and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
        else:
            words = [
                b"null",
                b"-1",
                b"1e999",
                b"[]",
                b"{",
                b'"',
                b"\xff",
                b"9" * 20,
                b"\0",
                b",",
                b"\n",
            ]
            piece = draw(st.sampled_from(words) | st.binary(max_size=12))
            piece = bytes(draw(st.integers(1, 64))) if kind == "zeros" else piece
            data = data[:at] + piece + data[at + (0 if kind == "splice" else len(piece)) :]
    return data


# --- configurations ---------------------------------------------------------------------------


@counts
def test_configurations(guard: Path, count: int) -> None:
    known = st.sampled_from([to_dict(config) for _, config in PRESETS.values()])

    def catch(data: Any) -> str:
        try:
            config = from_dict(data)
            check(config)
            folders.check_names(config)
        except ConfigError as error:
            return one_line(error)
        assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
        return "accepted"

    throw(guard, count, known.flatmap(mutated) | values, catch)


@counts
def test_configuration_files(guard: Path, count: int) -> None:
    """As a preset, and as that of a run that is gone on with, with its other files."""
    folder = guard / "run"
    folder.mkdir()
    texts = st.sampled_from([json.dumps(to_dict(c)).encode() for _, c in PRESETS.values()])

    def catch(case: tuple[str, bytes]) -> str:
        name, data = case
        folders.write_json(folder / folders.CONFIG, to_dict(CONFIG))
        folders.write_json(folder / folders.VERSIONS, {"jax": "1"})
        (folder / folders.METRICS).write_bytes(b"")
        (folder / name).write_bytes(data)
        try:
            config, _ = folders.reopen(folder, None)
            folders.note_machine(folder, 3)
            logs.cut(folder / folders.METRICS, 4, config.log_every)
            for row in logs.read(folder / folders.METRICS):
                assert row["generation"] <= 4
            with contextlib.suppress(UnicodeDecodeError):
                from_json(data.decode())
        except ConfigError as error:
            return one_line(error)
        return "accepted"

    lines = b'{"generation": 2, "validation": 0.5}\n{"generation": 4, "validation": null}\n'
    versions = json.dumps({"jax": "1", "resumed": [{"generation": 2, "jax": "2"}]}).encode()
    cases = (
        st.tuples(st.just(folders.CONFIG), texts.flatmap(damaged) | st.binary(max_size=40))
        | st.tuples(st.just(folders.METRICS), damaged(lines))
        | st.tuples(st.just(folders.VERSIONS), damaged(versions) | values.map(as_json))
    )
    throw(guard, count, cases, catch)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


# --- command lines ----------------------------------------------------------------------------


def flags_of(kind: Any) -> list[str]:
    """The flags of a request."""
    found = []
    for field, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found += flags_of(hint)
        else:
            found.append("--" + field.replace("_", "-"))
    return found


FLAGS = sorted(
    {
        flag
        for kind in vars(requests).values()
        if dataclasses.is_dataclass(kind) and kind is not Config
        for flag in flags_of(kind)
    }
)
ARGUMENTS = (*WORDS, *PRESETS, "3", "2.5", "16 8", "runs/a", "0-3", "0-", "1,1", "127.0.0.1:1,2,0")


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    verb = draw(
        st.sampled_from([*cli.VERBS, *cli.VERBS, "evolve", "evolve", "evlove", "", "--help"])
    )
    words = [verb]
    if verb == "evolve" and draw(st.booleans()):
        words += ["--preset", draw(st.sampled_from([*PRESETS, "lgp", "own.json"]))]
    argument = st.sampled_from(ARGUMENTS) | st.text(max_size=6) | st.integers().map(str)
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            words.append(draw(argument))
        else:
            flag = draw(st.sampled_from(FLAGS))
            flag = draw(st.sampled_from([flag, flag, flag[:-1], flag.replace("--", "--no-")]))
            words += [f"{flag}={draw(argument)}"] if draw(st.booleans()) else [flag, draw(argument)]
    return words


OWN = "import pathlib\npathlib.Path('executed').touch()\nmake = None\n"


@pytest.fixture
def asking_only(guard: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command that is understood is not carried out."""
    (guard / "own.py").write_text(OWN)
    (guard / "run").mkdir()
    folders.write_json(guard / "run" / folders.CONFIG, to_dict(CONFIG))
    (guard / "own.json").write_text(json.dumps(to_dict(CONFIG)))

    def evolve(config: Config, out: str | None, **options: Any) -> run.Run:
        resume = options["resume"]
        if resume:
            folders.reopen(Path(resume), config, options["from_generation"])
        else:
            folders.check_ready(config, Path(out or folders.default(config)), options["overwrite"])
        return run.Run(Path("run"), config, 0, "", None, None)

    def start(*arguments: Any, **options: Any) -> None:
        raise ConfigError("understood")

    monkeypatch.setattr(run, "evolve", evolve)
    monkeypatch.setattr(devices, "start", start)
    monkeypatch.setattr(devices, "join", start)
    monkeypatch.setattr(doctor, "examine", start)
    monkeypatch.setattr("discovery.evaluation.papers.reproduce", start)
    return guard


def answer(words: list[str]) -> tuple[int, str]:
    """Exit status, and what was said on both streams."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = cli.main(words)
    return status, said.getvalue()


@counts
def test_command_lines(asking_only: Path, count: int) -> None:
    def catch(words: list[str]) -> str:
        status, said = answer(words)
        assert status in (0, 2), (status, said)
        assert "Traceback" not in said
        assert "the whole of it is in" not in said
        assert status == 0 or said.strip()
        left = {path.name for path in asking_only.iterdir()}
        assert left == {"own.py", "own.json", "run"}
        return {0: "understood", 2: "understood" if "understood" in said else "refused"}[status]

    throw(asking_only, count, command_lines(), catch)


@pytest.mark.slow
def test_a_hundred_real_commands(
    asking_only: Path, kairos: Command, environment: dict[str, str]
) -> None:
    """Those that were refused within a process, as processes."""
    refused: list[list[str]] = []

    def catch(words: list[str]) -> str:
        status, said = answer(words)
        real = status == 2 and "understood" not in said and not any("\0" in w for w in words)
        try:
            [word.encode() for word in words]
        except UnicodeEncodeError:
            real = False
        if real and words not in refused:
            refused.append(words)
        return "refused" if real else "other"

    throw(asking_only, 400, command_lines(), catch)
    assert len(refused) >= 100
    for words in refused[:100]:
        said, _ = (process := kairos(*words)).communicate(timeout=100)
        assert process.returncode == 2, (words, said)
        assert said.strip()
        assert "Traceback" not in said, (words, said)


# --- objectives -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def objective(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import jax

    folder = tmp_path_factory.mktemp("objective")
    rule = make_rule("lpg", width=4, predictions=2, embedding=2)
    save(folder, rule, rule.init(jax.random.key(0)), {"name": "thrown", "seeds": [1]})
    return folder


@counts
def test_cards(guard: Path, objective: Path, count: int) -> None:
    (guard / "own.py").write_text(OWN)
    folder = guard / "objective"
    shutil.copytree(objective, folder)
    card = json.loads((folder / "card.json").read_text())
    true = load(folder)

    def catch(data: Any) -> str:
        (folder / "card.json").write_bytes(data if isinstance(data, bytes) else as_json(data))
        return loaded(folder, true)

    evil = mutated(card).map(lambda c: c | {"rule": "own.py:make"} if isinstance(c, dict) else c)
    text = (folder / "card.json").read_bytes()
    throw(guard, count, mutated(card) | mutated(card) | evil | damaged(text) | values, catch)


@counts
def test_array_files(guard: Path, objective: Path, count: int) -> None:
    folder = guard / "objective"
    shutil.copytree(objective, folder)
    data = (folder / "objective.safetensors").read_bytes()
    true = load(folder)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    card = json.loads((folder / "card.json").read_text())

    def catch(case: Any) -> str:
        told, whole = dict(card), case
        if not isinstance(case, bytes):
            text = as_json(case)
            whole = len(text).to_bytes(8, "little") + text + data[8 + length :]
            # As whoever forges a file would: the sum is true.
            told["sha256"] = hashlib.sha256(whole).hexdigest()
        (folder / "card.json").write_bytes(as_json(told))
        (folder / "objective.safetensors").write_bytes(whole)
        return loaded(folder, true)

    sizes = st.integers(0, 2**64 - 1).map(lambda n: n.to_bytes(8, "little") + data[8:])
    throw(guard, count, damaged(data) | mutated(header) | sizes | st.binary(max_size=64), catch)


def loaded(folder: Path, true: Any) -> str:
    """An objective that loads is the one that was saved."""
    import jax
    import numpy as np

    try:
        found = load(folder)
    except ObjectiveError as error:
        assert str(folder) in str(error)
        return one_line(error)
    assert found.objective == true.objective
    jax.tree.map(np.testing.assert_array_equal, found.theta, true.theta)
    return "harmless"


# --- tables -----------------------------------------------------------------------------------


@counts
def test_tables(guard: Path, count: int) -> None:
    row = table.Row(
        objective="ta-lpg", digest="ab", environment="small", level_hash="cd", level=1, horizon=5,
        steps=100, seed=0, actions="sampled", score=0.5, normalised=0.25, random=0.0, optimal=1.0,
        area=None, episodes=4, finite=True, wall_seconds=0.1, versions="jax 1", clock=table.TRUE,
    )  # fmt: skip
    path = guard / "table.csv"
    table.write(path, [row, row._replace(level=2, score=math.nan, finite=False)])
    data = path.read_bytes()
    suffixes = [".csv"]
    with contextlib.suppress(ImportError, table.TableError):
        table.write(guard / "table.parquet", [row])
        suffixes.append(".parquet")

    def catch(case: tuple[str, bytes]) -> str:
        suffix, thrown = case
        file = guard / f"thrown{suffix}"
        file.write_bytes(thrown)
        try:
            rows = table.read(file)
            table.summary(rows)
            table.write(guard / "again.csv", rows)
        except table.TableError as error:
            return one_line(error)
        return "read"

    cases = st.tuples(st.sampled_from(suffixes), damaged(data) | st.binary(max_size=64))
    lines = data.decode().splitlines()

    @st.composite
    def cells(draw: st.DrawFn) -> tuple[str, bytes]:
        """A table of which some cells are others."""
        grid = [re.split(",", line) for line in lines]
        for _ in range(draw(st.integers(1, 4))):
            y = draw(st.integers(0, len(grid) - 1))
            x = draw(st.integers(0, len(grid[y]) - 1))
            grid[y][x] = draw(st.sampled_from(WORDS) | scalars.map(str))
        return ".csv", "\n".join(",".join(line) for line in grid).encode("utf-8", "surrogatepass")

    throw(guard, count, cases | cells(), catch)
