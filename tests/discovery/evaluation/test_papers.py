"""Published claims from one command: the cells, their budgets, running, resuming, drawing."""

import importlib
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from discovery import cli, devices
from discovery.config import (
    Config,
    ConfigError,
    EvolutionConfig,
    GradientConfig,
    HorizonConfig,
    LifeConfig,
    WindowConfig,
    check,
    preset,
    to_dict,
)
from discovery.evaluation import cells, claim_3, claims, clock_use, papers, trials
from discovery.evaluation.claims import Clocked, Scored
from discovery.evaluation.papers import Entry, Job, Sweep, reproduce
from discovery.evaluation.statistics import FEWEST_SEEDS
from discovery.evaluation.table import TableError
from discovery.outer.tasks import sample_horizons
from discovery.requests import ReproduceConfig, seeds
from discovery.runs import ending
from discovery.runs.errors import Interrupted, Terminated
from discovery.runs.run import evolve
from envs.levels import FAMILIES, level_set
from learned_objectives.library import load, make_rule

JOBS = cells.jobs
FALSE = ("frozen-0", "reversed", "half")

# --- the registry -----------------------------------------------------------------------------


@pytest.mark.parametrize("entry", papers.REGISTRY, ids=lambda entry: entry.name)
def test_an_entry_is_complete(entry: Entry) -> None:
    assert papers.find(entry.name) is entry
    module = importlib.import_module(entry.module)
    assert len(seeds(entry.seeds)) >= FEWEST_SEEDS
    for size in entry.sizes:
        jobs = module.jobs(size, (0, 3))
        assert len({job.folder for job in jobs}) == len(jobs)
        assert len({job.identity(size) for job in jobs}) == len(jobs)
        for table in module.TABLES:
            assert callable(papers._function(table.measure))
            assert all(hasattr(table.kind, name) for name in table.key)
            assert table.kind._fields[:5] == Scored._fields[:5]
        begun: set[tuple[str, str, int]] = set()
        for job in jobs:
            check(job.config)
            assert job.config.seed == job.seed
            if job.is_start:
                begun.add((job.cell, job.objective, job.seed))
            if job.start:
                assert (job.start, job.objective, job.seed) in begun, "it is measured by its start"
            assert job.source or ":" in job.search
            assert any(table.wanted(job) for table in module.TABLES), "it leaves a row"


def test_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    assert "  claim-3 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("claim-33", "unknown figure 'claim-33'; did you mean claim-3"),
        ("claim-3 --size ful", "unknown size of claim-3 'ful'; did you mean full?"),
        ("claim-3 --cells E1 G33", "unknown cell of claim-3 'G33'; did you mean G3"),
        ("claim-3 --seeds 3-1", "seeds 3-1: from low to high"),
        ("claim-3 --max-minutes 0", "max_minutes must be above 0, not 0"),
        ("claim-3 --out /dev/null/x", "cannot write /dev/null/x: /dev/null is a file"),
        ("claim-3 --runs /dev/null/x", "cannot write /dev/null/x: /dev/null is a file"),
        ("claim-3 --draw", "there are no numbers of claim-3 at this size (cpu) yet: make them"),
        ("", "kairos reproduce needs a figure (kairos list names them), or --all"),
    ],
)
def test_mistakes(
    words: str,
    line: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(papers, "packaged", lambda: tmp_path / "none")
    assert cli.main(["reproduce", *words.split()]) == 2
    err = capsys.readouterr().err
    assert line in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_the_command_that_goes_on() -> None:
    request = ReproduceConfig(
        ("claim-3",),
        cells=("E1", "G3"),
        out="a b",
        rerun=True,
        max_minutes=2.0,
        draw=True,
        devices=1,
    )
    assert papers._command(request) == (
        "kairos reproduce claim-3 --cells E1 G3 --draw --out 'a b' --devices 1"
    )


# --- the cells of claim 3 ---------------------------------------------------------------------


def configs(size: str = "cpu") -> dict[str, Config]:
    return {job.cell: job.config for job in cells.jobs(size, (0,)) if job.sees_clock}


def test_a_cell_is_what_its_name_says() -> None:
    def facts(config: Config) -> tuple[str, int, str, str, str]:
        e, w = config.evolution, config.window
        whole = config.estimator == "evolution"
        told = (0, e.fitness) if whole else (w.window, w.score)
        return (config.estimator, *told, e.strategy, e.shaping)  # type: ignore[return-value]

    assert {name: facts(config) for name, config in configs().items()} == {
        "start": ("evolution", 0, "final", "paired", "pair"),
        "E1": ("evolution", 0, "final", "paired", "pair"),
        "E2": ("evolution", 0, "area", "paired", "pair"),
        "E3": ("windows", 5, "end", "paired", "pair"),
        "E4": ("windows", 5, "along", "paired", "pair"),
        "P3": ("windows", 5, "end", "PersistentES", "pair"),
        "P4": ("windows", 5, "along", "PersistentES", "pair"),
        "G3": ("gradient", 5, "end", "paired", "pair"),
        "G4": ("gradient", 5, "along", "paired", "pair"),
        "coin": ("evolution", 0, "final", "paired", "coin_flip"),
        "start-s": ("evolution", 0, "final", "paired", "pair"),
        "E1s": ("evolution", 0, "final", "paired", "pair"),
        "E2s": ("evolution", 0, "area", "paired", "pair"),
        "E3s": ("windows", 5, "end", "paired", "pair"),
        "E4s": ("windows", 5, "along", "paired", "pair"),
        "G1": ("gradient", 0, "end", "paired", "pair"),
        "G2": ("gradient", 0, "along", "paired", "pair"),
        "coin-s": ("evolution", 0, "final", "paired", "coin_flip"),
    }


@pytest.mark.parametrize("size", cells.SIZES)
def test_cells_differ_in_nothing_else(size: str) -> None:
    found = configs(size)
    for name, config in found.items():
        assert (
            config.horizon
            == cells.SIZES[size].laws["short" if name in cells.CELLS["short"] else "long"]
        )
        assert config.evolution.start == "init"
        assert config.window.vote == "life"
        assert config.gradient.discount == 0.99
        same = {field: getattr(config, field) for field in ("env", "objective", "agent", "life")}
        assert same == {field: getattr(found["E1"], field) for field in same}
    twins = {job.objective: job.config for job in cells.jobs(size, (0,)) if job.cell == "E1"}
    aware, blind = twins["TA-LPG"], twins["LPG"]
    assert blind == replace(aware, objective=replace(aware.objective, clock_gate=0.0))


@pytest.mark.parametrize("size", cells.SIZES)
def test_every_search_has_the_same_budget(size: str) -> None:
    for job in cells.jobs(size, (0,)):
        each = sum(cells.cost(job.config))
        budget = cells.SIZES[size].budget[job.group]
        assert abs(job.config.generations * each - budget) <= each / 2 + 1e-6 * budget
        assert job.config.generations >= 20, "enough for a search to be one"


def test_the_law_of_horizons_is_the_searchs() -> None:
    chances = cells.law(5, 80)
    assert math.fsum(chances.values()) == pytest.approx(1)
    drawn = np.asarray(sample_horizons(jax.random.key(0), HorizonConfig(5, 80), 200_000))
    for n in (5, 6, 40, 80):
        assert np.mean(drawn == n) == pytest.approx(chances[n], abs=0.002)
    assert drawn.mean() == pytest.approx(sum(n * p for n, p in chances.items()), rel=0.005)


def test_the_law_of_step_limits_is_the_levels() -> None:
    assert {name: FAMILIES[name].limit for name in cells.LIMITS} == cells.LIMITS
    import envs

    limits = level_set(envs.make("small"), "train", 256).levels.max_steps_in_episode
    mean = sum(n * p for n, p in cells.law(*cells.LIMITS["small"]).items())
    assert float(jnp.mean(limits)) == pytest.approx(mean, rel=0.1)


def test_windows_are_counted_as_lives_follow_one_another() -> None:
    """Against lives drawn and cut into windows one after another."""
    law = HorizonConfig(2, 20)
    lives = np.asarray(sample_horizons(jax.random.key(1), law, 50_000))
    windows = -(-lives // 5)
    found = cells.mean_window(law, 5)
    assert found.updates == pytest.approx(lives.sum() / windows.sum(), rel=0.01)
    assert found.ends == pytest.approx(len(lives) / windows.sum(), rel=0.01)
    assert cells.mean_window(law, 0) == pytest.approx((lives.mean(), 1), rel=0.01)
    assert cells.mean_window(HorizonConfig(10, 10), 5) == (5, 0.5)
    assert cells.mean_window(HorizonConfig(7, 7), 5) == (3.5, 0.5)


@pytest.mark.parametrize(
    ("estimator", "fitness", "window", "score", "expected"),
    [
        # 8 lives of 7 updates of 2 x 4 steps; 3 episodes of 100 steps a score.
        ("evolution", "final", 0, "along", (8 * 7 * 8, 8 * 300)),
        ("evolution", "area", 0, "along", (8 * 7 * 8, 11 * 8 * 300)),
        # 7 updates are windows of 5 and 2, the second of which is the last.
        ("windows", "final", 5, "along", (8 * 3.5 * 8, 8 * 300)),
        ("windows", "final", 5, "end", (8 * 3.5 * 8, 8 * 300 / 2)),
        # 6 agents, and one rollout more.
        ("gradient", "final", 5, "along", (6 * 4.5 * 8, 0)),
        ("gradient", "final", 0, "end", (6 * 8 * 8, 0)),
    ],
)
def test_what_a_generation_costs(
    monkeypatch: pytest.MonkeyPatch,
    estimator: Any,
    fitness: Any,
    window: int,
    score: Any,
    expected: tuple[float, float],
) -> None:
    monkeypatch.setitem(cells.LIMITS, "here", (100, 100))
    config = Config(
        env="here",
        estimator=estimator,
        life=LifeConfig(environments=2, rollout=4, evaluation_environments=3),
        horizon=HorizonConfig(7, 7),
        evolution=EvolutionConfig(pairs=4, group=4, fitness=fitness),
        window=WindowConfig(window=window, score=score),
        gradient=GradientConfig(agents=6, agents_group=3),
    )
    assert cells.cost(config) == pytest.approx(expected)


# --- tables, words and figure -----------------------------------------------------------------


def made_up(
    ahead: dict[str, float],
    use: dict[str, float],
    gain: float = 0.5,
    seeds: tuple[int, ...] = (0, 1),
) -> tuple[list[Scored], list[Clocked]]:
    """Tables in which every cell gains, and these are ahead of their twins and use their clock."""
    scores, clocks = [], []
    for job in JOBS("cpu", seeds):
        mine = 0.0 if job.is_start else 0.03 if job.null else gain + 0.001 * job.seed
        mine += ahead.get(job.cell, 0.0) * (job.objective == "TA-LPG")
        generations = 0 if job.is_start else job.config.generations
        training, evaluation = cells.cost(job.config)
        for n in job.sweep.horizons:
            scores.append(
                Scored(
                    *job.identity("cpu"),
                    horizon=n,
                    levels=job.sweep.levels,
                    iqm=0.1 + n / 1000 + mine,
                    mean=0.1 + mine,
                    start_iqm=0.1 + n / 1000,
                    start_mean=0.1,
                    difference=mine,
                    nonfinite=0,
                    generations=generations,
                    steps=generations * training,
                    evaluation_steps=generations * evaluation,
                    minutes=0.8 if generations else 0.0,
                    digest="ab",
                )
            )
        if job.sees_clock:
            facts = job.identity("cpu")
            told = [(name, use.get(job.cell, 0.002)) for name in FALSE]
            told += [(name, 0.2) for name in claims.SENSITIVITIES]
            clocks += [
                Clocked(*facts, name, n, value, 64, "ab")
                for name, value in told
                for n in job.sweep.clock_horizons
            ]
    return scores, clocks


def words(**options: Any) -> str:
    return claim_3.verdict("cpu", claim_3.gather(*made_up(**options)))


def test_the_false_clocks_are_those_that_are_measured() -> None:
    assert clock_use.CLOCKS[1:] == claims.FALSE_CLOCKS
    assert claims.SENSITIVITIES == clock_use.MEASURES


def test_tables_are_read_back(tmp_path: Path) -> None:
    scores, clocks = made_up({}, {})
    scores[0] = scores[0]._replace(iqm=-math.inf, steps=0.1 + 0.2)
    claims.write(tmp_path / "s.csv", Scored, reversed(scores))
    claims.write(tmp_path / "c.csv", Clocked, clocks)
    assert claims.read(tmp_path / "s.csv", Scored) == sorted(scores)
    assert claims.read(tmp_path / "c.csv", Clocked) == sorted(clocks)
    assert claims.read(tmp_path / "none.csv", Clocked) == []
    one = claims.identity(scores[0])
    claims.replace_rows(tmp_path / "s.csv", Scored, one, [scores[0]._replace(iqm=1.0)])
    after = claims.read(tmp_path / "s.csv", Scored)
    assert [row.iqm for row in after if claims.identity(row) == one] == [1.0]
    assert [r for r in after if claims.identity(r) != one] == sorted(
        row for row in scores if claims.identity(row) != one
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "expected the columns size, group"),
        ("size,group\n", "expected the columns size, group"),
        (",".join(Clocked._fields) + "\ncpu,long,E1,LPG,x,half,5,0.1,64,ab\n", "line 2: expected"),
        (",".join(Clocked._fields) + "\ncpu,long,E1,LPG\n", "line 2: expected"),
        ('"', "cannot be read"),
    ],
)
def test_a_table_of_something_else(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TableError, match=line):
        claims.read(tmp_path / "t.csv", Clocked)


def test_numbers_of_a_cell() -> None:
    scores, clocks = made_up({"E1": 0.2}, {"E1": 0.3})
    found = {cell.name: cell for cell in claim_3.gather(scores, clocks)}
    assert list(found) == [name for group in cells.CELLS.values() for name in group]
    e1 = found["E1"]
    assert e1.gain["LPG"] == pytest.approx({0: 0.5, 1: 0.501})
    assert e1.gain["TA-LPG"] == pytest.approx({0: 0.7, 1: 0.701})
    assert e1.ahead == pytest.approx({0: 0.2, 1: 0.2})
    assert claim_3.mean_loss(e1) == pytest.approx({0: 0.3, 1: 0.3})
    assert e1.sensitivities["S_y_horizon"] == pytest.approx({0: 0.2, 1: 0.2})
    assert set(e1.losses) == set(FALSE)
    assert e1.steps + e1.evaluation_steps == pytest.approx(
        cells.SIZES["cpu"].budget["long"], rel=0.02
    )
    assert not found["coin"].gain["LPG"]


def test_without_an_effect_a_null_is_called_what_it_is() -> None:
    said = words(ahead={}, use={})
    assert said.count("says nothing about the claim") == 2
    assert "TA-LPG is ahead of its horizon-blind twin: not in E1, E2" in said
    assert "False clocks cost more than in both nulls" in said
    assert "It is behind" not in said
    assert "It is behind in E3 (-.10)." in words(ahead={"E3": -0.1}, use={})
    assert "2 search seeds: points, and no interval is claimed" in said


def test_which_explanation_fits() -> None:
    ends = {"E1": 0.2, "E3": 0.2, "G3": 0.2, "E1s": 0.2, "E3s": 0.2, "G1": 0.2}
    whole = {name: ends[name] for name in ("E1", "E1s", "G1")}
    assert (
        words(ahead={"E1": 0.1, "E1s": 0.1}, use=whole).count("if truncation of lives keeps") == 2
    )
    assert (
        words(ahead={"E1": 0.1, "E1s": 0.1}, use=ends).count("if a score along the life keeps") == 2
    )
    everyone = dict.fromkeys(configs(), 0.2) | {"coin": 0.0, "start": 0.0}
    said = words(ahead={"E1": 0.1, "E1s": 0.1}, use=everyone | {"coin-s": 0.0, "start-s": 0.0})
    assert said.count("fits neither explanation") == 2


def test_a_null_that_uses_its_clock_hides_what_others_do() -> None:
    said = words(ahead={"E1": 0.1}, use={"E1": 0.2, "coin": 0.19})
    assert "(not searched: +.00, evolution on coin flips: +.19) in no cell" in said


def test_cells_that_improve_on_nothing_explain_nothing() -> None:
    said = words(ahead={"E1": 0.1, "E1s": 0.1}, use={"E1": 0.2}, gain=0.01)
    assert " LPG improves on its untrained start: not in E1, E2" in said
    assert said.count("cannot be told: ") == 2
    # In one seed only is not enough to be said of the cell.
    some = claim_3._split({"E1": {0: 0.5, 1: 0.0}, "E2": {0: 0.5, 1: 0.4}})
    assert some == "in E2 (+.45); in some seeds only in E1"


def test_tables_of_a_part_of_the_work() -> None:
    scores, _ = made_up({}, {})
    part = [row for row in scores if row.cell in ("start", "E1")]
    found = claim_3.conclude("cpu", {"scores": part, "clock": []})
    assert "The nulls of the clock are not in the tables yet." in found.text
    assert "N from 2 to 20" not in found.text
    assert found.draw().axes


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.051, "+.05"), (-0.051, "-.05"), (-0.001, "+.00"), (1.25, "+1.25"), (0.999, "+1.00")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert claim_3.number(value, "+") == text


# --- drawing ----------------------------------------------------------------------------------


def test_drawing_needs_tables_alone(tmp_path: Path) -> None:
    """In a process of its own: no JAX, the package's tables, and the same bytes again."""
    scores, clocks = made_up({"E1": 0.2}, {"E1": 0.3})
    claims.write(tmp_path / "shipped" / "claim-3-scores.csv", Scored, scores)
    claims.write(tmp_path / "shipped" / "claim-3-clock.csv", Clocked, clocks)
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from discovery import cli\n"
        "from discovery.evaluation import papers\n"
        "papers.packaged = lambda: Path('shipped')\n"
        "for _ in range(2):\n"
        "    assert cli.main(['reproduce', 'claim-3', '--draw', '--out', 'o']) == 0\n"
        "    print(hash(Path('o/claim-3.png').read_bytes()))\n"
        "heavy = {'jax', 'jaxlib', 'orbax', 'optax', 'flax', 'evosax'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    hashes = [line for line in done.stdout.splitlines() if line.lstrip("-").isdecimal()]
    assert len(hashes) == 2 and hashes[0] == hashes[1]
    assert "E1 (+.70)" in (tmp_path / "o" / "claim-3.txt").read_text()
    assert (tmp_path / "o" / "claim-3.svg").stat().st_size > 10_000
    assert "shipped/claim-3-scores.csv" in done.stdout


def test_of_five_seeds_an_interval_is_claimed() -> None:
    many = words(ahead={"E1": 0.1, "E3": -0.1}, use={"E1": 0.2}, seeds=(0, 1, 2, 3, 4))
    assert "5 search seeds, 95 % intervals over them (Student's)." in many
    assert "TA-LPG is ahead of its horizon-blind twin: in E1 (+.10 [+.10, +.10])" in many
    assert "in E1, and not in E2" in many
    # Four of five seeds may say so: the interval decides, not the worst seed.
    assert claim_3.counts({0: 0.2, 1: 0.2, 2: 0.3, 3: 0.25, 4: 0.015})
    assert not claim_3.counts({0: 0.2, 1: 0.2, 2: 0.3, 3: 0.015})
    assert not claim_3.counts({0: 0.2, 1: -0.3, 2: 0.3, 3: 0.1, 4: 0.2})
    assert not claim_3.counts(dict.fromkeys(range(5), 0.01))
    assert not claim_3.counts({0: -math.inf, 1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0})
    scores, clocks = made_up({"E1": 0.1}, {}, seeds=(0, 1, 2, 3, 4))
    found = claim_3.conclude("cpu", {"scores": scores, "clock": clocks})
    assert found.facts["intervals"] == "95 %, Student's over search seeds"
    assert found.draw().axes


def test_what_is_not_finite_is_named_not_drawn() -> None:
    scores, clocks = made_up({}, {}, seeds=(0,))
    bad = [r._replace(iqm=-math.inf) if r.cell == "E3" else r for r in scores]
    lost = [u._replace(value=math.nan) if u.measure.startswith("S_y") else u for u in clocks]
    figure = claim_3.conclude("cpu", {"scores": bad, "clock": lost}).draw()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any("1 not finite" in text for text in texts)


# --- running ----------------------------------------------------------------------------------

RUNS = Path("runs/reproduce/claim-3")
SWEEP = Sweep(8, (2, 4), 4, (4,), told=(2, 4))


def job(cell: str, config: Config, objective: str = "TA-LPG", seed: int = 0) -> Job:
    config = replace(config, objective=replace(config.objective, clock_gate=cells.GATES[objective]))
    null = "start" if cell == "start" else ""
    return Job("long", cell, objective, seed, config, SWEEP, null, "start")


def digest_of(each: Job) -> str:
    return load(RUNS / each.folder).digest[: papers.DIGITS]


@pytest.fixture(scope="module")
def tiny() -> Config:
    smoke = preset("smoke")
    return replace(
        smoke,
        env="chain",
        generations=2,
        life=LifeConfig(environments=2, rollout=4, evaluation_environments=4),
        evolution=replace(smoke.evolution, pairs=4, start="init"),
    )


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Callable[..., Any]]:
    """A registry of one entry with these jobs, and how to ask for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(papers, "packaged", lambda: tmp_path / "none")
    monkeypatch.setattr(devices, "_start_cache", lambda: None)

    def enter(jobs: list[Job]) -> Callable[..., Any]:
        monkeypatch.setattr(claim_3, "jobs", lambda size, seeds: jobs)
        request = ReproduceConfig(("claim-3",))

        def ask(said: list[Any] | None = None, **fields: Any) -> Any:
            found = reproduce(replace(request, **fields), (said if said is not None else []).append)
            return found.get("claim-3")

        return ask

    return enter


def cheap_search(config: Config) -> SimpleNamespace:
    """A search that costs nothing, for an objective that is scored as any other."""
    rule = make_rule("lpg", width=4, predictions=2, embedding=2)
    like = jax.eval_shape(rule.init, jax.random.key(0))
    theta = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype), like)
    numbers = {"steps": jnp.float32(300), "evaluation_steps": jnp.float32(20)}
    return SimpleNamespace(
        objective=rule,
        init=lambda: {"generation": jnp.int32(0)},
        step=lambda state: ({"generation": state["generation"] + 1}, numbers),
        validate=lambda state: {"validation": state["generation"] / 10},
        theta=lambda state: jax.tree.map(lambda leaf: leaf + 0.1 * int(state["generation"]), theta),
    )


def test_a_search_from_nothing_to_its_words(
    entered: Callable[..., Callable[..., Any]], tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cell and its start; done, it is left alone."""
    monkeypatch.setattr(trials, "make_search", cheap_search)
    monkeypatch.setattr(trials, "evolve", partial(evolve, make=cheap_search))
    monkeypatch.setattr(ending, "write_figure", lambda where, _: where / "learning.png")
    monkeypatch.setattr(
        trials, "clocked", lambda each, size, *_: clocked(each, size, digest_of(each))
    )
    jobs = [job("start", tiny), job("E1", tiny)]
    ask, said = entered(jobs), []
    assert ask(max_minutes=1e-9) is None
    found = ask(said)
    assert (RUNS / jobs[1].folder / "config.json").is_file()
    rows = claims.read(Path("results/tables/claim-3-scores.csv"), Scored)
    by = {(row.cell, row.horizon): row for row in rows}
    assert set(by) == {(cell, n) for cell in ("start", "E1") for n in (2, 4)}
    for n in (2, 4):
        start, row = by["start", n], by["E1", n]
        assert (start.iqm, start.difference) == (start.start_iqm, 0.0)
        assert (row.start_iqm, row.start_mean) == (start.iqm, start.mean)
        assert row.difference == pytest.approx(row.mean - row.start_mean, abs=2e-6)
        assert row.difference != 0
        assert (start.generations, start.steps, start.evaluation_steps) == (0, 0, 0)
        assert (row.generations, row.steps, row.evaluation_steps) == (2, 600, 40)
        assert row.digest == digest_of(jobs[1]) != start.digest
    assert found.text == Path("results/claim-3.txt").read_text().strip()
    assert Path("results/claim-3.png").stat().st_size > 10_000

    monkeypatch.setattr(trials, "search", None)  # would fail if anything were searched again
    assert ask(said).text == found.text
    assert "2 of 2 jobs are done" in said


@pytest.mark.slow  # compiles a search, a program that is scored, one that lies and one that asks
def test_a_real_search_and_its_clock(
    entered: Callable[..., Callable[..., Any]], tiny: Config
) -> None:
    jobs = [job("start", tiny), job("E1", tiny)]
    entered(jobs)()
    scores = claims.read(Path("results/tables/claim-3-scores.csv"), Scored)
    clocks = claims.read(Path("results/tables/claim-3-clock.csv"), Clocked)
    for each in jobs:
        measured = {use.measure: use.value for use in clocks if use.cell == each.cell}
        assert set(measured) == {*claims.FALSE_CLOCKS, *claims.SENSITIVITIES}
        assert all(measured[name] > 0 for name in claims.SENSITIVITIES)
    assert {use.horizon for use in clocks} == {4}
    searched = [row for row in scores if row.cell == "E1"]
    # 8 lives a generation, of 2 to 8 updates of 8 steps.
    assert all(2 * 8 * 2 * 8 <= row.steps <= 2 * 8 * 8 * 8 for row in searched)
    # Not begun in time, and nothing is left half done.
    assert trials.scored(jobs[1], "cpu", RUNS, -math.inf, lambda line: None) is None


def test_a_blind_start_has_no_clock(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twins begin as one theta, of which the blind one is saved without the clock's rows."""
    monkeypatch.setattr(trials, "make_search", cheap_search)
    aware, blind = (
        (trials.search(each, tmp_path, math.inf, print), load(tmp_path / each.folder))[1]
        for each in (job("start", tiny, objective) for objective in cells.GATES)
    )
    assert (aware.objective.clock, blind.objective.clock) == ("fraction_log", "none")  # type: ignore[attr-defined]
    assert aware.theta["cell"]["wx"].shape[0] == blind.theta["cell"]["wx"].shape[0] + 2
    assert blind.card["config"]["objective"]["clock_gate"] == 0


def clocked(each: Job, size: str = "cpu", digest: str = "d0") -> list[Clocked]:
    facts = each.identity(size)
    measures = (*claims.FALSE_CLOCKS, *claims.SENSITIVITIES)
    return [Clocked(*facts, name, 4, 0.1, 4, digest) for name in measures]


def scored(each: Job, size: str = "cpu") -> list[Scored]:
    row = made_up({}, {}, seeds=(0,))[0][0]._replace(
        **dict(zip(Scored._fields, each.identity(size), strict=False)),
        levels=8,
        digest="d0",
        generations=0 if each.is_start else each.config.generations,
    )
    return [row._replace(horizon=n) for n in (2, 4)]


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Searches that cost nothing: what was searched, and what stops which."""
    stub = SimpleNamespace(searched=[], stop={}, unscored=set(), made=[])

    def search(each: Job, runs: Path, until: float, report: Callable[[Any], None]) -> str:
        stub.searched.append(each.folder)
        if stopped := stub.stop.pop(each.folder, ""):
            if stopped == "key":
                raise KeyboardInterrupt
            return str(stopped)
        folder = runs / each.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "objective.safetensors").write_text("")
        card = {"sha256": "d0", "config": to_dict(each.config)}
        (folder / "card.json").write_text(json.dumps(card))
        return ""

    def rows(make: Callable[[Job, str], Any], each: Job, size: str, *_: Any) -> Any:
        stub.made.append((make.__name__, each.folder))
        return None if each.folder in stub.unscored else make(each, size)

    monkeypatch.setattr(trials, "search", search)
    monkeypatch.setattr(trials, "scored", partial(rows, scored))
    monkeypatch.setattr(trials, "clocked", partial(rows, clocked))
    monkeypatch.setattr(papers, "_conclude", lambda *_: None)  # a second each
    return stub


def test_what_is_stopped_goes_on(
    entered: Callable[..., Callable[..., Any]], tiny: Config, stubbed: SimpleNamespace
) -> None:
    jobs = [job("start", tiny), job("E1", tiny), job("E2", tiny)]
    ask = entered(jobs)
    first, second, third = (each.folder for each in jobs)

    stubbed.stop = {second: "minutes"}
    said: list[Any] = []
    ask(said)
    assert stubbed.searched == [first, second]
    assert any(
        line == "stopped in long, E1, TA-LPG, seed 0; go on with: kairos reproduce claim-3"
        for line in said
    )
    for stopped, kind in (
        ("interrupt", Interrupted),
        ("terminate", Terminated),
        ("key", Interrupted),
    ):
        stubbed.searched, stubbed.stop = [], {second: stopped}
        with pytest.raises(kind, match="go on with: kairos reproduce claim-3"):
            ask()
        assert stubbed.searched == [second], "what is done is left alone"
    stubbed.searched, stubbed.unscored = [], {third}
    ask()
    assert stubbed.searched == [second, third]
    stubbed.searched, stubbed.unscored = [], set()
    ask()
    assert stubbed.searched == [third], "searched, but not scored yet"
    stubbed.searched = []
    ask()
    assert stubbed.searched == []
    rows = claims.read(Path("results/tables/claim-3-scores.csv"), Scored)
    assert {row.cell for row in rows} == {"start", "E1", "E2"}


def test_cells_are_chosen_and_begun_anew(
    entered: Callable[..., Callable[..., Any]], tiny: Config, stubbed: SimpleNamespace
) -> None:
    jobs = [job(cell, tiny) for cell in ("start", "E1", "E2")]
    ask = entered(jobs)
    ask(cells=("E2",))
    assert stubbed.searched == [jobs[0].folder, jobs[2].folder], "its start comes with it"
    ask()
    stubbed.searched = []
    ask(cells=("E1",), rerun=True)
    assert stubbed.searched == [jobs[0].folder, jobs[1].folder]
    other = [each._replace(config=replace(each.config, generations=9)) for each in jobs]
    with pytest.raises(ConfigError, match=r"is of other numbers \(generations\): begin anew"):
        entered(other)()
    stubbed.searched = []
    entered(other)(rerun=True)
    assert stubbed.searched == [each.folder for each in jobs]


def test_what_is_in_a_table_is_done_without_its_run_folder(
    entered: Callable[..., Callable[..., Any]],
    tiny: Config,
    stubbed: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [job("start", tiny), job("E1", tiny), job("E2", tiny)]
    ask = entered(jobs)
    ask()
    tables = sorted(Path("results/tables").iterdir())
    shipped = {path.name: path.read_bytes() for path in tables}
    shutil.rmtree(RUNS)
    stubbed.searched = []
    ask()
    assert stubbed.searched == []

    # One table is deleted: that one alone is made again, with the searches it needs.
    tables[0].unlink()
    stubbed.made = []
    ask()
    assert tables[0].name == "claim-3-clock.csv"
    assert {name for name, _ in stubbed.made} == {"clocked"}
    assert {path.name: path.read_bytes() for path in tables} == shipped

    # So is one search, with what it is measured by; another theta brings new rows everywhere.
    stubbed.searched, stubbed.made = [], []
    shutil.rmtree(RUNS)
    rows = claims.read(tables[1], Scored)
    claims.write(tables[1], Scored, [row for row in rows if row.cell != "E1"])
    ask()
    assert stubbed.searched == [jobs[0].folder, jobs[1].folder]
    assert stubbed.made == [("scored", jobs[1].folder)]
    assert {path.name: path.read_bytes() for path in tables} == shipped
    card = RUNS / jobs[1].folder / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"sha256": "d1"}))
    stubbed.made = []
    ask()
    assert stubbed.made == [("scored", jobs[1].folder), ("clocked", jobs[1].folder)]

    # Rows that come with the package count, and are the beginning of a table of one's own.
    Path("package").mkdir()
    for name, data in shipped.items():
        (Path("package") / name).write_bytes(data)
        (Path("results/tables") / name).unlink()
    monkeypatch.setattr(papers, "packaged", lambda: Path("package"))
    shutil.rmtree(RUNS)
    stubbed.searched = []
    ask()
    assert stubbed.searched == []
    ask(cells=("E2",), rerun=True)
    assert stubbed.searched == [jobs[0].folder, jobs[2].folder]
    assert {path.name: path.read_bytes() for path in tables} == shipped
    assert {path.name: path.read_bytes() for path in Path("package").iterdir()} == shipped


def test_all_of_them_and_their_page(
    entered: Callable[..., Callable[..., Any]],
    tiny: Config,
    stubbed: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [job("start", tiny), job("E1", tiny)]
    ask = entered(jobs)
    monkeypatch.setattr(papers, "REGISTRY", (papers.find("claim-3"),))
    said: list[Any] = []
    ask(said, figures=(), all=True)
    assert stubbed.searched == [each.folder for each in jobs]
    assert "page: results/index.html" in said
    # Nothing is said of it here, since the stub concludes nothing.
    assert "nothing is searched and scored yet" in Path("results/index.md").read_text()
    stubbed.searched = []
    ask(figures=(), all=True)
    assert stubbed.searched == []
    with pytest.raises(ConfigError, match="--cells goes with one figure"):
        ask(figures=("claim-3", "claim-3"), cells=("E1",))


@pytest.mark.slow  # as long as it takes to draw every figure there is
def test_a_clean_clone_draws_everything_without_jax(tmp_path: Path) -> None:
    tables = [path.name for path in papers.packaged().iterdir()]
    script = (
        "import sys\n"
        "from discovery import cli\n"
        "assert cli.main(['reproduce', '--all', '--draw', '--out', 'o']) == 0\n"
        "heavy = {'jax', 'jaxlib', 'orbax', 'optax', 'flax', 'evosax'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "o" / "index.html").read_text()
    for entry in papers.REGISTRY:
        assert f'<h2 id="{entry.name}">' in page
        drawn = any(name.startswith(f"{entry.name}-") for name in tables)
        assert (tmp_path / "o" / f"{entry.name}.png").exists() == drawn


def test_a_table_with_a_column_for_each_level(tmp_path: Path) -> None:
    class Wide(NamedTuple):
        size: str
        group: str
        cell: str
        objective: str
        seed: int
        scores: tuple[float, ...]

    rows = [
        Wide("cpu", "a", "b", "c", 1, (0.123456, -0.5, math.nan, 12.0)),
        Wide("cpu", "a", "b", "c", 0, (1.0, -math.inf)),
    ]
    path = tmp_path / "wide.csv"
    claims.write(path, Wide, rows)
    assert path.read_text().splitlines() == [
        "size,group,cell,objective,seed,scores_0,scores_1,scores_2,scores_3",
        "cpu,a,b,c,0,1,-inf,,",
        "cpu,a,b,c,1,.123,-.5,nan,12",
    ]
    first, second = claims.read(path, Wide)
    assert first == rows[1]
    assert second.scores[:2] == (0.123, -0.5) and math.isnan(second.scores[2])
    claims.write(tmp_path / "again.csv", Wide, [second, first])
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()


def test_sizes_do_not_mix(
    entered: Callable[..., Callable[..., Any]], tiny: Config, stubbed: SimpleNamespace
) -> None:
    ask = entered([job("start", tiny), job("E1", tiny)])
    ask()
    ask(size="full")
    assert len(stubbed.searched) == 4
    for label, size in (("claim-3", "cpu"), ("claim-3-full", "full")):
        rows = claims.read(Path("results/tables/claim-3-scores.csv"), Scored)
        assert sum(row.size == size for row in rows) == 4
        assert len(list((Path("runs/reproduce") / label).glob("long-*"))) == 2
