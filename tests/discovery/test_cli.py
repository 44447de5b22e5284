"""The command: what a person types, what they read, and the exit status."""

import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from discovery import cli, devices
from discovery.config import PRESETS, Config, ConfigError, from_json, preset, to_json
from discovery.runs import ending, run
from discovery.runs.errors import RunError

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def kairos(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Call:
    """The command in an empty folder, without the user's compile cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "_start_cache", lambda: None)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(arguments)
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """What `evolve` was called with, instead of running it."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    def evolve(config: Config, out: str | None, **options: Any) -> run.Run:
        calls.append((config, {"out": out, **options}))
        return run.Run(Path(out or "."), config, config.generations, "", None, None)

    monkeypatch.setattr(run, "evolve", evolve)
    return calls


# --- help and lists ---------------------------------------------------------------------------


def test_help_and_list_import_no_jax() -> None:
    script = (
        "import sys\n"
        "from discovery.cli import main\n"
        "for line in '--help', 'list', 'list --json', 'evolve --help', '--version':\n"
        "    assert main(line.split()) == 0, line\n"
        "heavy = {'jax', 'jaxlib', 'orbax', 'optax', 'flax', 'gymnax', 'evosax', 'matplotlib'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_names_every_verb(kairos: Call) -> None:
    status, out, _ = kairos("--help")
    assert status == 0
    for verb, (line, _) in cli.VERBS.items():
        assert f"  {verb} " in out
        assert line in out
    assert kairos()[0] == 2


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(kairos: Call, verb: str) -> None:
    status, out, _ = kairos(verb, "--help")
    assert status == 0
    assert f"usage: kairos {verb}" in out


def test_list(kairos: Call) -> None:
    status, out, _ = kairos("list")
    assert status == 0
    for name in (*PRESETS, "lpg", "a2c", "small", "chain", "CartPole-v1"):
        assert f"  {name} " in out
    status, out, _ = kairos("list", "--json")
    assert list(json.loads(out)) == ["presets", "objectives", "environments", "figures"]


def test_a_preset_can_be_printed_edited_and_fed_back(
    kairos: Call, asked: list[tuple[Config, dict[str, Any]]], tmp_path: Path
) -> None:
    _, out, _ = kairos("list", "--preset", "quickstart", "--json")
    assert from_json(out) == preset("quickstart")
    (tmp_path / "mine.json").write_text(out.replace('"width": 16', '"width": 12'))
    assert kairos("evolve", "--preset", "mine.json")[0] == 0
    config, options = asked[0]
    assert config.objective.width == 12
    assert config.preset == "mine.json"
    assert options["out"] == "runs/mine-0"


def test_version(kairos: Call) -> None:
    assert kairos("--version")[:2] == (0, "kairos 0.1.0\n")


# --- flags ------------------------------------------------------------------------------------


def test_every_flag_is_a_field(kairos: Call, asked: list[tuple[Config, dict[str, Any]]]) -> None:
    words = "--preset smoke --pairs 8 --width 32 --seed 1 --generations 8 --longest 16 --hidden 4 5"
    more = "--out there --max-minutes 2.5 --devices 2 --overwrite --tensorboard --quiet"
    assert kairos("evolve", *words.split(), *more.split())[0] == 0
    config, options = asked[0]
    smoke = preset("smoke")
    assert config == replace(
        smoke,
        seed=1,
        generations=8,
        objective=replace(smoke.objective, width=32),
        agent=replace(smoke.agent, hidden=(4, 5)),
        horizon=replace(smoke.horizon, longest=16),
        evolution=replace(smoke.evolution, pairs=8),
    )
    assert options == {
        "out": "there",
        "resume": None,
        "from_generation": None,
        "max_minutes": 2.5,
        "overwrite": True,
        "quiet": True,
        "devices": 2,
        "hosts": "",
        "like": None,
        "keep_nonfinite": False,
        "debug_nans": False,
        "cache": True,
        "tensorboard": True,
        "wandb": False,
    }


@pytest.mark.parametrize("words", ["--preset=smoke --rule lpg", "--preset smoke --objective lpg"])
def test_an_objective_by_either_name(
    kairos: Call, asked: list[tuple[Config, dict[str, Any]]], words: str
) -> None:
    assert kairos("evolve", *words.split())[0] == 0
    assert asked[0][0] == preset("smoke")


def test_seeds_give_a_folder_each(
    kairos: Call, asked: list[tuple[Config, dict[str, Any]]], tmp_path: Path
) -> None:
    assert kairos("evolve", "--preset", "smoke", "--seeds", "0-2,7")[0] == 0
    assert [(c.seed, o["out"]) for c, o in asked] == [(s, f"runs/smoke-{s}") for s in (0, 1, 2, 7)]
    (tmp_path / "a-1").mkdir()
    (tmp_path / "a-1" / "config.json").write_text("{}")
    asked.clear()
    status, _, err = kairos("evolve", "--preset", "smoke", "--seeds", "0-2", "--out", "a")
    assert (status, asked) == (2, [])
    assert "a-1 holds a run" in err


@pytest.mark.parametrize("text", ["", "x", "3-1", "1-", "-3", "1,1", "0-2000", "1;2"])
def test_seeds_that_make_no_sense(text: str) -> None:
    with pytest.raises(ConfigError, match="seeds"):
        cli.seeds(text)


def test_seeds_stop_together(kairos: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def evolve(config: Config, out: str, **_: Any) -> run.Run:
        return run.Run(Path(out), config, 1, "interrupt", None, None)

    monkeypatch.setattr(run, "evolve", evolve)
    status, out, _ = kairos("evolve", "--preset", "smoke", "--seeds", "0-2")
    assert status == 130
    assert "not begun: seeds 1, 2" in out


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("evole", "kairos: unknown verb 'evole'; did you mean evolve"),
        ("evolve --preset quickstrat", "unknown preset 'quickstrat'; did you mean quickstart?"),
        ("evolve --preset smoke --env smal", "unknown environment 'smal'; did you mean small"),
        (
            "evolve --preset smoke --objective lgp",
            "unknown objective 'lgp'; did you mean lpo or lpg?",
        ),
        ("evolve --preset smoke --env none.py:make", "there is no file none.py"),
        (
            "evolve --preset smoke --clock fractoin",
            "unknown clock 'fractoin'; did you mean fraction",
        ),
        ("evolve --preset smoke --group 6", "group 6 does not divide the population 16: try 4"),
        ("evolve --preset smoke --pares 4", "--pairs"),
        ("evolve --preset smoke --pairs x", "Error parsing --pairs"),
        ("evolve --preset smoke --network tabel", "Expected one of ('table', 'mlp', 'cnn')"),
        ("evolve --preset smoke --seeds x", "seeds must be like 0-4 or 0,3,7, not 'x'"),
        ("evolve --preset smoke --max-minutes 0", "max_minutes must be above 0, not 0.0"),
        ("evolve --preset smoke --from-generation 3", "--from-generation goes with --resume"),
        ("evolve --preset smoke --seed 1 --seeds 0-4", "give --seed or --seeds, not both"),
        ("evolve --preset smoke --pairs 1000000000000", "pairs must be at most 10,000,000"),
        ("evolve --preset smoke --sigma inf", "sigma must be a finite number above 0, not inf"),
        ("evolve --resume=", "--resume needs a run folder"),
        ("evolve --preset=", "unknown preset ''; known: "),
        ("evolve --preset smoke --env=", "unknown environment ''; known: "),
        ("evolve --preset none.json", "cannot read none.json: No such file or directory"),
        ("evolve --resume none", "none is not a run: it has no config.json"),
        ("evolve", "give --preset (smoke, quickstart,"),
        ("evaluate", "kairos evaluate needs at least one objective"),
        ("evaluate a2c --out table.txt", "table.txt: expected a name that ends in .csv or"),
        ("evaluate a2c --levels 0", "levels must be at least 1, not 0"),
        ("evaluate a2c --out /dev/null/t.csv", "cannot write /dev/null: /dev/null is a file"),
        ("train --out /dev/null/run", "cannot write /dev/null/run: /dev/null is a file"),
        ("inspect a2c --out /dev/null", "cannot write /dev/null: /dev/null is a file"),
        ("train --rollout 0", "rollout must be at least 1, not 0"),
        ("train --max-minutes 0", "max_minutes must be above 0, not 0"),
        ("inspect a2c --levels -1", "levels must be at least 1, not -1"),
        ("quickstart --max-minutes 0", "max_minutes must be above 0, not 0"),
        ("quickstart --generations 0", "generations must be at least 1, not 0"),
        ("quickstart --seed -1", "seed must be from 0 to 2^63 - 1, not -1"),
        ("list --preset smok", "unknown preset 'smok'; did you mean smoke"),
        ("doctor --preset smok", "unknown preset 'smok'; did you mean smoke"),
    ],
)
def test_mistakes_name_the_nearest_and_write_nothing(
    kairos: Call, tmp_path: Path, words: str, line: str
) -> None:
    status, out, err = kairos(*words.split())
    assert (status, out) == (2, "")
    assert line in " ".join(err.replace("│", " ").split())
    assert len(err.splitlines()) <= 14
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RunError("stopped; generation 5 is saved"), 1, "kairos: stopped; generation 5 is saved"),
        (ConfigError("no"), 2, "kairos: no"),
        (ModuleNotFoundError("No module named 'gymnax'", name="gymnax"), 2, "kairos-rl[gym]"),
        (ZeroDivisionError("of all\nthings"), 1, "stopped by ZeroDivisionError: of all; the whole"),
        (OSError(28, "No space left on device", "t.csv"), 1, "No space left on device: t.csv"),
        (KeyboardInterrupt(), 130, "kairos: stopped"),
    ],
)
def test_errors_are_one_line(
    kairos: Call,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: BaseException,
    status: int,
    line: str,
) -> None:
    def fail(_: list[str]) -> int:
        raise error

    monkeypatch.setitem(cli.VERBS, "list", ("", fail))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    found, out, err = kairos("list")
    assert (found, out) == (status, "")
    assert line in err
    assert len(err.splitlines()) == 1
    written = [path.read_text() for path in tmp_path.iterdir()]
    assert len(written) == isinstance(error, ZeroDivisionError)
    assert all("Traceback" in text for text in written)
    if isinstance(error, Exception):
        assert "Traceback" in kairos("list", "--debug")[2]


@pytest.mark.parametrize(
    ("words", "module", "field", "value"),
    [
        ("evaluate runs/a lpg --horizons 10 50", "horizons", "objectives", ("runs/a", "lpg")),
        ("evaluate lpg --horizons 10 50 --seeds 64", "horizons", "horizons", (10, 50)),
        ("train --objective lpg --env Breakout-MinAtar", "training", "env", "Breakout-MinAtar"),
        ("inspect lpg", "inspection", "objective", "lpg"),
    ],
)
def test_verbs_that_compute_get_their_request(
    kairos: Call,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    module: str,
    field: str,
    value: Any,
) -> None:
    found: list[Any] = []

    def work(request: Any, report: Callable[[Any], None]) -> None:
        found.append(request)
        report("done")

    verb = words.split()[0]
    name = f"discovery.evaluation.{module}"
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**{verb: work}))
    assert kairos(*words.split())[:2] == (0, "done\n")
    assert getattr(found[0], field) == value


# --- a run, from the command line -------------------------------------------------------------


@pytest.fixture
def searching(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, signal.Signals], None]:
    """Let `evolve` find a search of almost nothing, which is sent a signal at a generation."""
    import jax
    import jax.numpy as jnp

    import discovery.outer.search
    from learned_objectives.library import make_rule

    objective = make_rule("a2c")

    def set_up(at: int = -1, number: signal.Signals = signal.SIGINT) -> None:
        sent: list[int] = []

        def step(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
            if int(state["generation"]) == at and not sent:
                sent.append(1)
                os.kill(os.getpid(), number)
            after = jax.tree.map(lambda x: x + 1, state)
            return after, {"fitness": jnp.float32(1), "nonfinite": jnp.int32(0)}

        search = types.SimpleNamespace(
            init=lambda: {"generation": jnp.int32(0)},
            step=step,
            validate=lambda state: {"validation": state["generation"] / 10},
            theta=lambda state: (),
            objective=objective,
        )
        monkeypatch.setattr(discovery.outer.search, "make_search", lambda config: search)
        monkeypatch.setattr(ending, "write_figure", lambda where, _: where / "learning.png")

    return set_up


def test_evolve_resume_extend(kairos: Call, searching: Callable[..., None], tmp_path: Path) -> None:
    searching()
    status, out, err = kairos("evolve", "--preset", "smoke")
    assert (status, err) == (0, "")
    assert "generation 4/4  score 0.400" in out
    folder = tmp_path / "runs" / "smoke-0"
    assert from_json((folder / "config.json").read_text()) == preset("smoke")
    assert to_json(preset("smoke")) == (folder / "config.json").read_text()

    status, _, err = kairos("evolve", "--preset", "smoke")
    assert status == 2
    assert "runs/smoke-0 holds a run: go on with --resume runs/smoke-0" in err

    status, out, _ = kairos("evolve", "--resume", "runs/smoke-0", "--generations", "6")
    assert status == 0
    assert "going on from generation 4" in out
    assert "generation 6/6" in out

    status, _, err = kairos("evolve", "--resume", "runs/smoke-0", "--sigma", "3")
    assert status == 2
    assert "cannot go on with another sigma" in err
    assert kairos("evolve", "--resume", "runs/smoke-0", "--preset", "smoke", "--quiet") == (
        0,
        "",
        "",
    )
    status, _, err = kairos("evolve", "--resume", "runs/smoke-0", "--preset", "lpg")
    assert status == 2
    assert "cannot go on with another preset" in err
    assert kairos("evolve", "--resume", "runs/smoke-0", "--seeds", "0-1")[0] == 2
    assert kairos("evolve", "--resume", "runs/smoke-0", "--out", "elsewhere")[0] == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves(
    kairos: Call,
    searching: Callable[..., None],
    number: signal.Signals,
    status: int,
) -> None:
    searching(2, number)
    found, out, err = kairos("evolve", "--preset", "smoke")
    assert found == status
    assert "go on with: kairos evolve --resume runs/smoke-0" in out
    assert "Traceback" not in err
    assert kairos("evolve", "--resume", "runs/smoke-0")[0] == 0


def test_minutes_exit_with_success(kairos: Call, searching: Callable[..., None]) -> None:
    searching()
    status, out, _ = kairos("evolve", "--preset", "smoke", "--max-minutes", "1e-9")
    assert status == 0
    assert "saved generation 0; go on with: kairos evolve --resume runs/smoke-0" in out


def test_doctor(kairos: Call, searching: Callable[..., None]) -> None:
    searching()
    status, out, err = kairos("doctor", "--preset", "smoke")
    assert (status, err) == (0, "")
    assert "2 x cpu" in out
    assert f"envs               {Path(devices.__file__).parents[1] / 'envs'} (ours)" in out
    assert "memory needed" in out


def test_a_run_is_done_again_by_name(
    kairos: Call, asked: list[tuple[Config, dict[str, Any]]], tmp_path: Path
) -> None:
    config = replace(preset("smoke"), seed=7, generations=3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(to_json(config))
    assert kairos("evolve", "--like", "mine", "--generations", "5")[0] == 0
    again, options = asked[0]
    assert again == replace(config, generations=5)
    assert (options["out"], options["like"], options["resume"]) == ("mine-again", "mine", None)
    for words, line in (
        (("--like", "mine", "--preset", "smoke"), "leave out --resume and --preset"),
        (("--like", "mine", "--resume", "mine"), "leave out --resume and --preset"),
        (("--like", ""), "--like needs a run folder"),
        (("--like", "none"), "none is not a run"),
        (("--preset", "smoke", "--hosts", "here"), "hosts must be ADDRESS:PORT,COUNT,INDEX"),
    ):
        status, _, said = kairos("evolve", *words)
        assert status == 2
        assert line in said
    assert len(asked) == 1


def test_several_processes_run_one_seed(kairos: Call, asked: list[Any]) -> None:
    words = ("--preset", "smoke", "--seeds", "0-1", "--hosts", "127.0.0.1:1,2,0")
    status, _, said = kairos("evolve", *words)
    assert (status, asked) == (2, [])
    assert "several processes run one search" in said
