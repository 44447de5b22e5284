"""The host loop: a run that is killed and gone on with equals one that was not."""

import hashlib
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from discovery import devices
from discovery.config import (
    Config,
    ConfigError,
    CurriculumConfig,
    EvolutionConfig,
    GradientConfig,
    HorizonConfig,
    LifeConfig,
    ObjectiveConfig,
    WindowConfig,
)
from discovery.outer import grouping
from discovery.outer.evolution import strongly_typed
from discovery.outer.search import make_search
from discovery.runs import checkpoint, ending, folders, logs, run
from discovery.runs.chunk import reduced
from discovery.runs.errors import CheckpointError, Interrupted, RunError
from discovery.runs.run import evolve
from envs.registry import MissingExtra
from learned_objectives.library import load

Make = Callable[[Config], Any]


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


def go(*arguments: Any, **options: Any) -> run.Run:
    return evolve(*arguments, **{"quiet": True, **options})


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "objective.safetensors").read_bytes()).hexdigest()


def untimed(folder: Path) -> list[dict[str, Any]]:
    rows = logs.read(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in logs.TIMES} for row in rows]


def assert_equal_runs(a: Path, b: Path) -> None:
    assert digest(a) == digest(b)
    assert untimed(a) == untimed(b)
    assert (a / "config.json").read_text() == (b / "config.json").read_text()


def lines_of(work: Callable[[Console], Any]) -> str:
    out = io.StringIO()
    work(Console(file=out, width=400, highlight=False))
    return out.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, config: Config, make: Make) -> Path:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    go(config, folder, make=make)
    return folder


@pytest.fixture(autouse=True)
def undrawn(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the undisturbed run draws its curve, which takes longer than all else."""
    monkeypatch.setattr(ending, "write_figure", lambda where, _: where / "figures" / "learning.png")


# --- an undisturbed run -----------------------------------------------------------------------


def test_folder_is_readable_without_our_code(whole: Path, config: Config) -> None:
    assert {entry.name for entry in whole.iterdir() if entry.name[0] != "."} == {
        "config.json",
        "versions.json",
        "metrics.jsonl",
        "checkpoints",
        "objective.safetensors",
        "card.json",
        "figures",
        "report.html",
    }
    assert folders.load_config(whole) == config
    versions = json.loads((whole / "versions.json").read_text())
    assert versions["jax"] == jax.__version__
    assert versions["devices"] == "2 x cpu"
    assert {entry.name for entry in (whole / "figures").iterdir()} == {
        "learning.png",
        "learning.svg",
    }


def test_a_line_a_chunk(whole: Path) -> None:
    rows = logs.read(whole / "metrics.jsonl")
    assert [row["generation"] for row in rows] == [0, 3, 6, 9, 10]
    # Generations 0..9 count themselves modulo 2 as non-finite; sigma halves.
    assert [row["nonfinite"] for row in rows[1:]] == [1, 2, 1, 1]
    assert [row["sigma"] for row in rows[1:]] == [0.25, 2**-5, 2**-8, 2**-9]
    assert [row["steps"] for row in rows] == [0, 300, 600, 900, 1000]
    assert all(row["steps_per_second"] > 0 for row in rows[1:])
    assert all(math.isfinite(row["validation"]) for row in rows)


def test_a_few_checkpoints_are_kept(whole: Path) -> None:
    assert checkpoint.complete(whole / "checkpoints") == ([10, 6, 0], [])


def test_objective_has_a_card(whole: Path, config: Config, make: Make) -> None:
    saved = load(whole)
    assert saved.card["seeds"] == [config.seed]
    assert saved.card["config"]["evolution"]["pairs"] == config.evolution.pairs
    assert saved.card["horizons"]["longest"] == config.horizon.longest
    assert saved.card["scores"] == {
        "validation": logs.read(whole / "metrics.jsonl")[-1]["validation"]
    }
    assert saved.objective == make(config).objective


def test_what_is_returned(tmp_path: Path, config: Config, make: Make) -> None:
    done = go(config, tmp_path / "run", make=make)
    assert (done.generation, done.stopped) == (10, "")
    assert done.metrics == logs.read(tmp_path / "run" / "metrics.jsonl")
    for ours, saved in zip(
        jax.tree.leaves(done.theta), jax.tree.leaves(load(tmp_path / "run").theta), strict=True
    ):
        np.testing.assert_array_equal(ours, np.asarray(saved))


def test_first_lines(tmp_path: Path, config: Config, make: Make) -> None:
    told = lines_of(
        lambda console: evolve(config, tmp_path / "run", make=make, console=console)
    ).splitlines()
    assert told[0].startswith("kairos-rl 0.1.0, jax ")
    assert "2 x cpu" in told[0]
    assert any(line.startswith("memory: ") and line.endswith(" free") for line in told)
    assert any(line.startswith("compiling: ") for line in told)
    assert any(line.startswith("generation 10/10  score ") for line in told)
    assert told[-3:] == [
        f"objective: {tmp_path / 'run' / 'objective.safetensors'}",
        f"learning curve: {tmp_path / 'run' / 'figures' / 'learning.png'}",
        f"page: {tmp_path / 'run' / 'report.html'}",
    ]


def test_generations_are_dispatched_before_the_last_is_read(
    tmp_path: Path, config: Config, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = make(config)

    def step(state: Any) -> Any:
        order.append("send")
        return real.step(state)

    def record(self: Any, metrics: Any, _before: Any = run._Host._record) -> None:
        order.append("read")
        _before(self, metrics)

    monkeypatch.setattr(run._Host, "_record", record)
    go(replace(config, generations=6), tmp_path / "run", make=lambda _: real._replace(step=step))
    chunk = ["send", "send", "read", "send", "read", "read"]
    assert order == chunk * 2


def test_step_is_traced_once(tmp_path: Path, config: Config, make: Make) -> None:
    real, traces = make(config), []

    @jax.jit
    def step(state: Any) -> Any:
        traces.append(1)
        return real.step(state)

    def weak() -> Any:
        return real.init()._replace(generation=jnp.asarray(0))

    search = real._replace(step=step, init=weak)
    go(replace(config, generations=3), tmp_path / "run", make=lambda _: search)
    go(replace(config, generations=5), resume=tmp_path / "run", make=lambda _: search)
    assert len(traces) == 1


# --- killed -----------------------------------------------------------------------------------


def kill(monkeypatch: pytest.MonkeyPatch, where: str, nth: int) -> None:
    """Kill the process at the nth call of something, before it is done or after."""
    owner, name = {
        "init": (folders, "note_machine"),
        "record": (run._Host, "_record"),
        "line": (logs.Journal, "write"),
        "checkpoint": (checkpoint, "save"),
        "saved": (checkpoint, "save"),
        "card": (run._Host, "_theta"),
    }[where]
    before, calls = getattr(owner, name), [0]

    def call(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth and where != "saved":
            raise Killed
        result = before(*arguments, **options)
        if calls[0] == nth:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize(
    ("where", "nth", "said"),
    [
        ("init", 1, "beginning from the configuration"),
        ("line", 1, "beginning from the configuration"),
        ("checkpoint", 1, "beginning from the configuration"),
        ("saved", 1, "going on from generation 0"),
        ("record", 5, "going on from generation 0"),
        ("line", 4, "going on from generation 6"),
        ("record", 8, "going on from generation 6"),
        ("checkpoint", 3, "going on from generation 6"),
        ("saved", 3, "going on from generation 10"),
        ("card", 1, "going on from generation 10"),
    ],
)
def test_killed_and_resumed_equals_undisturbed(
    tmp_path: Path, config: Config, make: Make, whole: Path, where: str, nth: int, said: str
) -> None:
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill(patch, where, nth)
        go(config, folder, make=make)
    assert not (folder / "objective.safetensors").exists()
    told = lines_of(lambda console: evolve(resume=folder, make=make, console=console))
    assert said in told
    assert_equal_runs(folder, whole)


def test_killed_twice(tmp_path: Path, config: Config, make: Make, whole: Path) -> None:
    folder = tmp_path / "run"
    for nth in (2, 8):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            kill(patch, "record", nth)
            if folder.exists():
                go(resume=folder, make=make)
            else:
                go(config, folder, make=make)
    (folder / "checkpoints" / "8.orbax-checkpoint-tmp").mkdir()
    told = lines_of(lambda console: evolve(resume=folder, make=make, console=console))
    assert "skipped an incomplete checkpoint" in told
    assert_equal_runs(folder, whole)


_SCRIPT = """
import importlib.util, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("fake", sys.argv[1])
fake = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fake)
from dataclasses import replace
from discovery.config import preset
from discovery.runs.run import evolve
config = replace(preset("smoke"), generations=10, log_every=3, checkpoint_every=6)
def make(config):
    real = fake.make_search(config)
    def step(state):
        time.sleep(0.3)
        return real.step(state)
    return real._replace(step=step)
evolve(config, sys.argv[2], make=make)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(Path(__file__).with_name("conftest.py")), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_line(process: subprocess.Popen[str], path: Path, text: str) -> None:
    waited = threading.Event()
    for _ in range(600):
        if path.exists() and text in path.read_text():
            return
        assert process.poll() is None, process.communicate()[0]
        waited.wait(0.1)
    raise AssertionError(f"{path} never had {text!r}")


def test_a_process_that_is_killed(tmp_path: Path, make: Make, whole: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder)
    wait_for_line(process, folder / "metrics.jsonl", '"generation": 6')
    process.kill()
    process.communicate()
    go(resume=folder, make=make)
    assert_equal_runs(folder, whole)


# --- every estimator, with the real search ----------------------------------------------------


def tiny(estimator: Any, curriculum: Any) -> Config:
    """Four generations, saved after every second, of lives of which some go on between them."""
    data = Path(__file__).parents[2] / "data"
    return Config(
        env=f"{data / 'restful_chain.py'}:make",
        generations=4,
        log_every=2,
        checkpoint_every=2,
        validation_levels=9,
        estimator=estimator,
        objective=ObjectiveConfig(width=4, predictions=2, embedding=2),
        life=LifeConfig(environments=4, rollout=8, evaluation_environments=4),
        horizon=HorizonConfig(shortest=2, longest=7),
        evolution=EvolutionConfig(pairs=16, group=8, sigma=0.5, rate=0.1),
        window=WindowConfig(window=3),
        gradient=GradientConfig(agents=16, agents_group=8, meta_rate=0.01),
        curriculum=CurriculumConfig(curriculum, buffer=64, antagonists=4),
    )


@pytest.mark.parametrize(
    ("estimator", "curriculum", "where"),
    [
        ("windows", "none", "record"),
        ("evolution", "groove", "saved"),
        ("gradient", "none", "record"),
        ("gradient", "groove", "record"),
    ],
)
def test_every_estimator_goes_on_where_it_was_killed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    estimator: str,
    curriculum: str,
    where: str,
) -> None:
    """In the middle of the second half, or with the last checkpoint just written."""
    config = tiny(estimator, curriculum)
    whole, folder = tmp_path / "whole", tmp_path / "run"
    if estimator == "gradient":
        drawn = folders.FIGURES
        monkeypatch.setattr(ending, "draw_curriculum", lambda where: where / drawn)
    told = lines_of(lambda console: evolve(config, whole, console=console))
    assert re.search(r"^memory: .* free, about \d+ \S+ needed$", told, re.MULTILINE)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill(patch, where, 3)
        go(config, folder)
    assert not (folder / "objective.safetensors").exists()
    told = lines_of(lambda console: evolve(resume=folder, console=console))
    assert f"going on from generation {2 if where == 'record' else 4}" in told
    assert_equal_runs(folder, whole)
    rows = untimed(whole)
    assert [row["generation"] for row in rows] == [0, 2, 4]
    assert rows[0]["validation"] != rows[2]["validation"], "it has moved"
    tables = [place / folders.CURRICULUM for place in (whole, folder)]
    if curriculum == "none":
        assert not any(table.exists() for table in tables)
    else:
        assert "curriculum: " in told
        assert tables[0].read_bytes() == tables[1].read_bytes()
        assert tables[0].read_text().count("\n") > 16
    one, other = (load(place) for place in (whole, folder))
    assert one.card["scores"] == other.card["scores"]


def test_a_search_of_before_there_were_others_still_goes_on(tmp_path: Path) -> None:
    """Its checkpoint was written when a state had nothing for agents and curricula."""
    archives = sorted((Path(__file__).parents[3] / "searches").glob("*.tar.gz"))
    assert archives
    for archive in archives:
        with tarfile.open(archive) as packed:
            packed.extractall(tmp_path / archive.name, filter="data")
        [folder] = (tmp_path / archive.name).iterdir()
        config, notes = folders.reopen(folder, None)
        assert notes == []
        search = make_search(config)
        state = strongly_typed(search.init())
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        found = checkpoint.restore(folder / folders.CHECKPOINTS, abstract)
        assert found is not None
        assert f"generation{found.generation}." in archive.name
        assert jax.tree.structure(found.state) == jax.tree.structure(state)
        assert (found.state.agents, found.state.curriculum) == ((), ())
        assert found.state.generation == found.generation
        moved = jax.tree.leaves(search.theta(found.state))
        assert all(np.isfinite(leaf).all() for leaf in moved)
        assert any(np.abs(leaf).max() > 0 for leaf in moved)


# --- stopped ----------------------------------------------------------------------------------


def slow(make: Make, config: Config, at: int, act: Callable[[], None]) -> Make:
    """A search that does something on the host before its nth generation."""
    real, count = make(config), [0]

    def step(state: Any) -> Any:
        count[0] += 1
        if count[0] == at:
            act()
        return real.step(state)

    return lambda _: real._replace(step=step)


@pytest.mark.parametrize("at", [1, 5, 9])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_say_how_to_go_on(
    tmp_path: Path,
    config: Config,
    make: Make,
    whole: Path,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    at: int,
) -> None:
    folder = tmp_path / "run"
    handler = signal.getsignal(number)
    stopping = slow(make, config, at, lambda: os.kill(os.getpid(), number))
    done: list[run.Run] = []
    told = lines_of(
        lambda console: done.append(evolve(config, folder, make=stopping, console=console))
    )
    assert done[0].stopped == ("interrupt" if number == signal.SIGINT else "terminate")
    assert at <= done[0].generation < 10
    assert f"saved generation {done[0].generation}" in told
    assert f"go on with: kairos evolve --resume {folder}" in told
    assert "saving after this generation" in capfd.readouterr().err
    assert signal.getsignal(number) is handler
    assert not (folder / "objective.safetensors").exists()
    go(resume=folder, make=make)
    assert_equal_runs(folder, whole)


def test_a_second_interrupt_stops_at_once(tmp_path: Path, config: Config, make: Make) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="generation 6 is saved; go on with: kairos evolve"):
        go(config, tmp_path / "run", make=slow(make, config, 8, twice))
    assert Interrupted.status == 130


def test_minutes(
    tmp_path: Path, config: Config, make: Make, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    done = go(config, folder, make=make, max_minutes=1e-9)
    assert (done.stopped, done.generation) == ("minutes", 0)
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def pass_a_minute() -> None:
        now[0] += 60

    done = go(resume=folder, make=slow(make, config, 4, pass_a_minute), max_minutes=0.5)
    assert (done.stopped, done.generation) == ("minutes", 4)
    go(resume=folder, make=make)
    assert_equal_runs(folder, whole)
    with pytest.raises(ConfigError, match="max_minutes must be above 0, not 0"):
        go(resume=folder, make=make, max_minutes=0.0)


def test_a_wholly_non_finite_generation_stops_the_run(
    tmp_path: Path, config: Config, make: Make
) -> None:
    folder = tmp_path / "run"
    real = make(config)
    population = 2 * config.evolution.pairs

    def step(state: Any) -> Any:
        after, metrics = real.step(state)
        dead = jnp.where(state.generation == 7, population, population - 1)
        return after, metrics | {"nonfinite": dead, "fitness": jnp.nan}

    with pytest.raises(RunError, match="generation 8: every score is non-finite") as caught:
        go(config, folder, make=lambda _: real._replace(step=step))
    assert f"the last good checkpoint is {folder}/checkpoints/6;" in str(caught.value)
    assert caught.value.status == 1
    assert checkpoint.latest(folder / "checkpoints") == 6
    last = logs.read(folder / "metrics.jsonl")[-1]
    assert (last["generation"], last["fitness"]) == (8, None)
    assert last["nonfinite"] == 2 * population - 1


@pytest.mark.parametrize(
    ("estimator", "lives", "flags"),
    [
        ("evolution", 16, "--sigma or --rate"),
        ("windows", 16, "--sigma or --rate"),
        ("gradient", 6, "--meta-rate"),
    ],
)
def test_what_moves_less_is_named_for_every_estimator(
    tmp_path: Path, config: Config, make: Make, estimator: Any, lives: int, flags: str
) -> None:
    gradient = GradientConfig(agents=6, agents_group=3)
    config = replace(config, estimator=estimator, gradient=gradient)
    real = make(config)

    def breaking(dead: int) -> Make:
        def step(state: Any) -> Any:
            after, metrics = real.step(state)
            return after, metrics | {"nonfinite": jnp.int32(dead)}

        return lambda _: real._replace(step=step)

    go(config, tmp_path / "some", make=breaking(lives - 1))
    line = f"generation 1: every score is non-finite; .*; begin again with a lower {flags}$"
    with pytest.raises(RunError, match=line):
        go(config, tmp_path / "all", make=breaking(lives))


def test_a_gradient_that_breaks_stops_its_search(tmp_path: Path) -> None:
    """The program is that of the searches that were killed."""
    config = tiny("gradient", "none")
    broken = replace(config, agent=replace(config.agent, policy_rate=1e30))
    torn = replace(broken, gradient=replace(config.gradient, entropy_weight=3e38))
    with pytest.raises(RunError, match=r"every score is non-finite; .* a lower --meta-rate$"):
        go(torn, tmp_path / "run")


def test_an_unexpected_error_is_one_line_and_a_file(
    tmp_path: Path, config: Config, make: Make
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("of all things\nhere")

    folder = tmp_path / "run"
    with pytest.raises(RunError, match="stopped by ZeroDivisionError: of all things; ") as caught:
        go(config, folder, make=slow(make, config, 8, fail))
    assert "generation 6 is saved; go on with: kairos evolve --resume" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "ZeroDivisionError: of all things" in (folder / "traceback.txt").read_text()


def test_out_of_memory_names_the_knob(tmp_path: Path, config: Config, make: Make) -> None:
    def fail() -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes.")

    with pytest.raises(RunError, match=r"out of memory .* with a lower --group \(now 4\); gen"):
        go(config, tmp_path / "run", make=slow(make, config, 1, fail))


def test_a_gradient_has_a_knob_of_its_own(tmp_path: Path, config: Config, make: Make) -> None:
    def fail() -> None:
        raise MemoryError("no room")

    config = replace(config, estimator="gradient")
    with pytest.raises(RunError, match=r"out of memory .* lower --agents-group \(now 16\); gen"):
        go(config, tmp_path / "run", make=slow(make, config, 1, fail))


def test_memory_is_compared_before_anything_runs(
    tmp_path: Path, config: Config, make: Make
) -> None:
    folder = tmp_path / "run"
    real = make(config)

    def needing(size: int) -> Make:
        class Search:
            def __getattr__(self, name: str) -> Any:
                return (lambda state: size) if name == "memory" else getattr(real, name)

        return lambda _: Search()

    with pytest.raises(ConfigError, match=r"needs about .* lower --group \(now 4\)"):
        go(config, folder, make=needing(2**50))
    assert not folder.exists()
    told = lines_of(lambda console: evolve(config, folder, make=needing(2**20), console=console))
    assert "about 2 MiB needed" in told  # of two virtual devices


@pytest.mark.parametrize(
    ("free", "shared", "group"),
    [(2**40, False, 16), (50, False, 4), (25, False, 2), (50, True, 16)],
)
def test_a_group_that_is_left_open_is_what_memory_holds(
    tmp_path: Path,
    config: Config,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    shared: bool,
    group: int,
) -> None:
    """A life takes 10 bytes of a chip, of which 90 % may be taken; a CPU is not asked."""
    made = []

    def needing(config: Config) -> Any:
        made.append(config.evolution.group)

        def memory(state: Any) -> int:
            need = 0 if shared else 10 * config.evolution.group
            if need > 100 >= free:
                raise RuntimeError("RESOURCE_EXHAUSTED: ran out of memory while compiling")
            return need

        class Search:
            def __getattr__(self, name: str) -> Any:
                return memory if name == "memory" else getattr(make(config), name)

        return Search()

    monkeypatch.setattr(grouping, "CPU_GROUP", 16)
    monkeypatch.setattr(devices, "memory", lambda: devices.Memory(free, shared=shared))
    asked = replace(config, evolution=replace(config.evolution, group=0))
    folder = tmp_path / "run"
    told = lines_of(
        lambda console: evolve(asked, folder, make=needing, console=console, max_minutes=1e-9)
    )
    assert made[-1] == group
    assert f"{group} of 16 lives together" in told
    assert folders.load_config(folder).evolution.group == group
    # Resumed with the same words, a run keeps what it has chosen.
    monkeypatch.setattr(devices, "memory", lambda: devices.Memory(2**40, shared=False))
    run = evolve(asked, resume=folder, quiet=True, make=needing)
    assert made[-1] == run.config.evolution.group == group
    assert folders.differences(run.config, asked) == []


def test_a_search_that_fits_in_no_group_says_why(
    tmp_path: Path, config: Config, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Search:
        def __getattr__(self, name: str) -> Any:
            return (lambda state: 2**30) if name == "memory" else getattr(make(config), name)

    monkeypatch.setattr(devices, "memory", lambda: devices.Memory(2**20, shared=False))
    asked = replace(config, evolution=replace(config.evolution, group=0))
    with pytest.raises(ConfigError, match=r"needs about 1.0 GiB .* lower --group \(now 2\)"):
        go(asked, tmp_path / "run", make=lambda _: Search())


def test_disk_full(
    tmp_path: Path, config: Config, make: Make, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import orbax.checkpoint as ocp

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "run"

    def fill() -> None:
        monkeypatch.setattr(ocp.Checkpointer, "save", full)

    with pytest.raises(CheckpointError) as caught:
        go(config, folder, make=slow(make, config, 8, fill))
    assert "10: No space left on device; generation 6 is saved; go on with" in str(caught.value)
    monkeypatch.undo()
    go(resume=folder, make=make)
    assert_equal_runs(folder, whole)


def test_disk_full_while_a_line_is_written(
    tmp_path: Path, config: Config, make: Make, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "run"
    stopping = slow(make, config, 8, lambda: monkeypatch.setattr(logs.Journal, "write", full))
    with pytest.raises(RunError, match=r"cannot write .*: No space left on device; generation 6"):
        go(config, folder, make=stopping)
    monkeypatch.undo()
    go(resume=folder, make=make)
    assert_equal_runs(folder, whole)


# --- resumed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [6, 7])
def test_extending_equals_running_longer(
    tmp_path: Path, config: Config, make: Make, whole: Path, first: int
) -> None:
    folder = tmp_path / "run"
    go(replace(config, generations=first), folder, make=make)
    assert logs.read(folder / "metrics.jsonl")[-1]["generation"] == first
    before = digest(folder)
    told = lines_of(lambda console: evolve(config, resume=folder, make=make, console=console))
    assert f"generations: 10 instead of {first}" in told
    assert digest(folder) != before
    assert_equal_runs(folder, whole)


def test_a_finished_run_stays_as_it_is(tmp_path: Path, config: Config, make: Make) -> None:
    folder = tmp_path / "run"
    go(replace(config, generations=3), folder, make=make)
    before, rows = digest(folder), untimed(folder)
    assert go(resume=folder, make=make).generation == 3
    assert (digest(folder), untimed(folder)) == (before, rows)


def test_other_fields_are_refused_by_name(whole: Path, config: Config, make: Make) -> None:
    other = replace(config, seed=5, evolution=replace(config.evolution, sigma=9.0))
    with pytest.raises(ConfigError, match="cannot go on with another seed, sigma: only --generat"):
        go(other, resume=whole, make=make)
    with pytest.raises(ConfigError, match="generations 7 is below the 10 that"):
        go(replace(config, generations=7), resume=whole, make=make)
    assert folders.load_config(whole) == config


def test_other_versions_are_one_line(tmp_path: Path, config: Config, make: Make) -> None:
    folder = tmp_path / "run"
    go(replace(config, generations=3), folder, make=make)
    versions = json.loads((folder / "versions.json").read_text())
    first = versions | {"jax": "0.0.1", "devices": "8 x tpu"}
    (folder / "versions.json").write_text(json.dumps(first))
    told = lines_of(lambda console: evolve(resume=folder, make=make, console=console))
    [line] = [line for line in told.splitlines() if "bits may differ" in line]
    assert f"jax {jax.__version__} (was 0.0.1)" in line
    assert "devices 2 x cpu (was 8 x tpu)" in line
    written = json.loads((folder / "versions.json").read_text())
    assert written == first | {
        "resumed": [{"generation": 3, "jax": jax.__version__, "devices": "2 x cpu"}]
    }
    told = lines_of(lambda console: evolve(resume=folder, make=make, console=console))
    assert "bits may differ" not in told
    assert json.loads((folder / "versions.json").read_text()) == written


def test_a_damaged_checkpoint_offers_the_one_before(
    tmp_path: Path, config: Config, make: Make, whole: Path
) -> None:
    folder = tmp_path / "run"
    go(replace(config, generations=9), folder, make=make)
    biggest = max(
        (folder / "checkpoints" / "9" / "state").rglob("0*"), key=lambda path: path.stat().st_size
    )
    data = biggest.read_bytes()
    biggest.write_bytes(data[: len(data) // 2])
    before = sorted(path for path in folder.rglob("*"))
    with pytest.raises(
        CheckpointError, match=r"checkpoints/9/state/\S+ is damaged: leaf "
    ) as caught:
        go(config, resume=folder, make=make)
    command = (
        f"to go on from the one before it: kairos evolve --resume {folder} --from-generation 6"
    )
    assert str(caught.value).endswith(command)
    assert sorted(path for path in folder.rglob("*")) == before
    told = lines_of(
        lambda console: evolve(resume=folder, from_generation=6, make=make, console=console)
    )
    assert "checkpoint 9 was set aside as" in told
    assert "going on from generation 6" in told
    assert_equal_runs(folder, whole)


def test_a_checkpoint_of_another_search(tmp_path: Path, config: Config, make: Make) -> None:
    folder = tmp_path / "run"
    go(replace(config, generations=3), folder, make=make)
    real = make(config)

    def init() -> Any:
        return real.init()._replace(generation=jnp.zeros(2, jnp.int32))

    with pytest.raises(CheckpointError, match=r"leaf generation: expected int32\[2\], found int32"):
        go(resume=folder, make=lambda _: real._replace(init=init))


# --- refused ----------------------------------------------------------------------------------


def refused(text: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(ConfigError, match=text):
        go(*arguments, **options)


def test_nothing_is_written_over(tmp_path: Path, config: Config, make: Make) -> None:
    folder, small = tmp_path / "run", replace(config, generations=1)
    go(small, folder, make=make)
    (folder / "notes.txt").write_text("mine")
    before = digest(folder)
    refused("holds a run: go on with --resume", small, folder, make=make)
    assert digest(folder) == before
    go(replace(small, seed=3), folder, make=make, overwrite=True)
    assert digest(folder) != before
    assert (folder / "notes.txt").read_text() == "mine"
    assert checkpoint.complete(folder / "checkpoints")[0] == [1, 0]


def test_what_is_not_a_run_is_never_removed(tmp_path: Path, config: Config, make: Make) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("text")
    refused("something that is not a run", config, tmp_path / "data", make=make, overwrite=True)
    refused("is a file", config, tmp_path / "data" / "thesis.tex", make=make, overwrite=True)
    refused("is not a run: it has no config.json", resume=tmp_path / "data", make=make)
    refused("there is no run folder", resume=tmp_path / "none", make=make)
    refused("cannot write .*: Not a directory", config, tmp_path / "data/thesis.tex/x", make=make)
    assert [path.name for path in tmp_path.rglob("*") if path.name != ".lock"] == [
        "data",
        "thesis.tex",
    ]


def test_one_process_a_folder(whole: Path, make: Make) -> None:
    with folders.lock(whole):
        refused("another process is writing", resume=whole, make=make)


def test_unknown_names_are_refused_before_anything_is_written(
    tmp_path: Path, config: Config
) -> None:
    folder = tmp_path / "run"
    refused("unknown environment 'smal'; did you mean small", replace(config, env="smal"), folder)
    rule = replace(config, objective=replace(config.objective, rule="lgp"))
    refused("unknown objective 'lgp'; did you mean lpo or lpg", rule, folder)
    refused("there is no file none.py", replace(config, env="none.py:make"), folder)
    refused("group 5 must be even", replace(config, evolution=replace(config.evolution, group=5)))
    refused("nothing to search")
    assert list(tmp_path.iterdir()) == []


def test_parts_that_do_not_go_together_leave_no_folder(
    tmp_path: Path, config: Config, whole: Path
) -> None:
    def make(_: Config) -> Any:
        raise ConfigError("this rule needs discrete actions")

    refused("discrete actions", config, tmp_path / "run", make=make)
    assert list(tmp_path.iterdir()) == []
    refused("discrete actions", resume=whole, make=make)
    assert (whole / "config.json").exists()


def test_a_damaged_configuration_is_named(tmp_path: Path, make: Make) -> None:
    (tmp_path / "config.json").write_text('{"seed": ')
    refused("config.json is not JSON", resume=tmp_path, make=make)
    (tmp_path / "config.json").write_text('{"sede": 1}')
    refused("unknown field of .*config.json 'sede'; did you mean seed", resume=tmp_path, make=make)


def test_a_missing_extra_is_refused_first(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"kairos-rl\[wandb\]"):
        go(config, tmp_path / "run", wandb=True)
    assert list(tmp_path.iterdir()) == []


def test_boards_are_switches(tmp_path: Path, config: Config, make: Make) -> None:
    go(replace(config, generations=1), tmp_path / "run", make=make, tensorboard=True)
    [events] = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"validation" in events.read_bytes()


# --- chunks -----------------------------------------------------------------------------------


def test_a_chunk_in_one_line() -> None:
    rows = [
        {"fitness": 1.0, "nonfinite": 2.0, "sigma": 0.5, "signal": 0.5},
        {"fitness": math.nan, "nonfinite": 1.0, "sigma": 0.25},
        {"fitness": 2.0, "nonfinite": 0.0, "sigma": 0.125, "other": math.inf},
    ]
    found = reduced(rows)
    assert math.isnan(found.pop("other"))
    assert found == {"fitness": 1.5, "nonfinite": 3.0, "sigma": 0.125, "signal": 0.5}


# --- done again -------------------------------------------------------------------------------


def test_a_run_is_done_again(tmp_path: Path, config: Config, make: Make, whole: Path) -> None:
    again, like = tmp_path / "again", tmp_path / "like"
    shutil.copytree(whole, like)
    now = devices.machine()
    folders.write_json(like / "versions.json", now)
    saved = folders.load_config(like)
    told = lines_of(lambda console: evolve(saved, again, like=like, make=make, console=console))
    assert "differs from" not in told
    assert f"the same bytes as {like}/objective.safetensors" in told
    assert_equal_runs(again, whole)


def test_what_is_not_as_it_was_is_told(
    tmp_path: Path, config: Config, make: Make, whole: Path
) -> None:
    like = tmp_path / "like"
    shutil.copytree(whole, like)
    versions = json.loads((like / "versions.json").read_text())
    folders.write_json(like / "versions.json", versions | {"jax": "0.0.1", "resumed": [{"x": "1"}]})
    told = lines_of(
        lambda console: evolve(
            replace(config, seed=3), tmp_path / "run", like=like, make=make, console=console
        )
    )
    assert f"as {like} but for: seed" in told
    [line] = [line for line in told.splitlines() if line.startswith(f"differs from {like}: ")]
    assert f"jax {jax.__version__} (was 0.0.1)" in line
    assert line.endswith("x gone (was 1); bits may differ")
    assert f"{like} was itself gone on with on another machine: bits may differ" in told
    assert f"other bytes than {like}/objective.safetensors" in told
    (like / "versions.json").unlink()
    assert folders.unlike(like, config) == [f"{like} does not tell its versions: bits may differ"]

    (like / "versions.json").write_text('{"jax": 1e999}')
    refused("holds a number that is not finite", config, tmp_path / "other", like=like, make=make)
