"""Whether an objective uses its clock: the numbers by hand, and the command."""

import csv
import math
import sys
import types
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from discovery import evaluate
from discovery.config import AgentConfig, ConfigError, LifeConfig, preset, to_dict
from discovery.evaluation import clock_use, horizons, statistics, table
from discovery.evaluation.false_clock import CLOCKS
from discovery.evaluation.table import Row, TableError
from discovery.inner.lifetime import Task, birth, grow
from discovery.requests import EvaluateConfig
from learned_objectives.base import Time
from learned_objectives.handwritten import Random
from learned_objectives.library import Saved, load, make_rule, save

LIFE = LifeConfig(environments=2, rollout=4, evaluation_environments=4)
HOW = horizons.Setting(AgentConfig(), LIFE, preset("smoke").rival, "a test")
SIZES: Any = {"width": 4, "predictions": 2, "embedding": 2}


def lpg(clock: str) -> Saved:
    rule = make_rule("lpg", **SIZES, clock=clock)
    theta = jax.tree.map(lambda x: 3 * x, rule.init(jax.random.key(0)))
    return Saved(clock, rule, theta, {}, clock)


def enter(saved: Saved) -> horizons.Contestant:
    return horizons.enter(saved, "chain", HOW, group=2, capacity=4)


# --- what is lost -----------------------------------------------------------------------------


def rows_of(
    objective: str, losses: dict[str, float], thetas: int = 1, levels: int = 6, **changes: Any
) -> list[Row]:
    """At N = 10 and (lived) 5, under the true clock and under false ones that cost so much."""
    values: dict[str, Any] = {
        "environment": "small",
        "level_hash": "ab",
        "seed": 0,
        "actions": "sampled",
        "score": 9.0,
        "random": 0.0,
        "optimal": 1.0,
        "area": None,
        "episodes": 4,
        "finite": True,
        "wall_seconds": 0.0,
        "versions": "v",
    }
    return [
        Row(
            **values
            | {
                "objective": objective,
                "digest": f"{objective}-{theta}",
                "level": level,
                "horizon": n,
                "steps": 8 * n,
                "normalised": n / 100 + level / 10 - loss,
                "clock": clock,
            }
            | changes
        )
        for theta in range(thetas)
        for level in range(levels)
        for clock, loss in {"true": 0.0, **losses}.items()
        for n in ((5,) if clock == "half" else (5, 10) if clock == "true" else (10,))
    ]


def test_losses_by_hand() -> None:
    rows = rows_of("a", {"reversed": 0.2, "half": -0.1}) + rows_of("coin", {"reversed": 0.0})
    found = clock_use.summarise(rows, nulls=("coin",), resamples=50)
    assert [(u.objective, u.null, u.measure, u.horizon) for u in found] == [
        ("a", False, "reversed", 10),
        ("a", False, "half", 10),
        ("coin", True, "reversed", 10),
    ]
    assert [u.value for u in found] == pytest.approx([0.2, -0.1, 0.0])
    # Every level loses the same, so the pairs leave nothing to chance.
    assert (found[0].low, found[0].high) == pytest.approx((0.2, 0.2))
    assert (found[0].digest, found[0].levels, found[0].search_seeds) == ("a-0", 6, 1)


def test_a_life_stopped_halfway_belongs_to_what_it_was_told() -> None:
    rows = rows_of("a", {"half": 0.1})
    assert [u.horizon for u in clock_use.summarise(rows, resamples=9)] == [10]
    assert [u.horizon for u in clock_use.summarise(rows, horizons=(11,), resamples=9)] == [11]
    assert clock_use.summarise(rows, horizons=(5, 20), resamples=9) == []


def test_losses_use_pairs_only() -> None:
    rows = rows_of("a", {"reversed": 0.2})
    lost = [r for r in rows if (r.clock, r.level) != ("reversed", 5)]
    (found,) = clock_use.summarise(lost, resamples=9)
    assert (found.levels, found.value) == (5, pytest.approx(0.2))
    assert clock_use.summarise([r for r in rows if r.clock != "true"], resamples=9) == []
    # An agent that breaks under both clocks has lost nothing; under the false one, everything.
    both = [r._replace(finite=False) for r in rows]
    assert clock_use.summarise(both, resamples=9)[0].value == 0
    false = [r._replace(finite=r.clock == "true") for r in rows]
    assert clock_use.summarise(false, resamples=9)[0].value == math.inf
    with pytest.raises(TableError, match="one environment, set of levels and kind of actions"):
        clock_use.summarise(rows + rows_of("a", {}, actions="greedy"))
    with pytest.raises(TableError, match="not every row has a normalised value"):
        clock_use.summarise([r._replace(normalised=None) for r in rows], value="normalised")
    (plain,) = clock_use.summarise([r._replace(normalised=None) for r in rows], resamples=9)
    assert plain.value == 0, "scores, which are all 9"


def test_claims_need_search_seeds() -> None:
    for thetas, claimed in ((1, False), (4, False), (statistics.FEWEST_SEEDS, True)):
        rows = rows_of("a", {"reversed": 0.3}, thetas) + rows_of("null", {"reversed": 0.1}, thetas)
        (found,) = clock_use.against(rows, None, "a", "null", resamples=50)
        assert found.value == pytest.approx(0.2)
        assert (found.objective, found.search_seeds) == ("a less null", thetas)
        assert math.isnan(found.low) is not claimed
    assert (found.low, found.high) == pytest.approx((0.2, 0.2))
    several = clock_use.summarise(rows, resamples=50)[0]
    assert (several.digest, several.search_seeds) == ("", 5)
    assert clock_use.against(rows, None, "a", "nobody") == []


def test_losses_of_an_objective_are_rows() -> None:
    levels = horizons.held_out("chain", "test", 3)
    rows = clock_use.losses(
        lpg("fraction_log"), "chain", HOW, levels, (3, 4), clocks=("reversed", "half"), group=2
    )
    assert {(r.horizon, r.clock) for r in rows} == {
        (n, clock)
        for n, clocks in {
            1: ("true", "half"),
            2: ("true", "half"),
            3: ("true", "reversed"),
            4: ("true", "reversed"),
        }.items()
        for clock in clocks
    }
    assert len(rows) == 3 * 8
    by_key = {(r.horizon, r.clock, r.level): r for r in rows}
    differences = [
        by_key[n, "true", level].score - by_key[n, "reversed", level].score
        for n in (3, 4)
        for level in range(3)
    ]
    assert any(differences)
    found = {(u.measure, u.horizon): u.value for u in clock_use.summarise(rows, resamples=9)}
    assert set(found) == {(clock, n) for clock in ("reversed", "half") for n in (3, 4)}


@pytest.mark.parametrize(
    ("name", "reads"),
    [
        ("fraction_log", True),
        ("elapsed", True),
        ("horizon", True),
        ("constant", False),
        ("none", False),
        ("a2c", False),
        ("random", False),
    ],
)
def test_who_reads_a_clock(name: str, reads: bool) -> None:
    who = enter(load(name) if name in ("a2c", "random") else lpg(name))
    assert clock_use.reads_clock(who.world, who.source, who.hyper) is reads


# --- how far words follow ---------------------------------------------------------------------


def sensitivities_by_loop(
    saved: Saved, levels: Any, ns: tuple[int, ...], shares: list[float], told: list[int]
) -> dict[str, list[float]]:
    """The definition, in a Python loop and double precision."""
    who = enter(saved)
    world, objective = who.world, who.world.objective
    step = jax.jit(lambda task, life: grow(world, who.source, who.hyper, task, life)[:2])

    @jax.jit
    def says(learner: Any, experience: Any, n: Any, N: Any) -> Any:
        time = Time(n, N, jnp.float32(8 / 1280))
        return objective.signals(who.source, who.hyper, world.network, learner, experience, time)

    count = jax.tree.leaves(levels)[0].shape[0]
    root = jax.random.fold_in(jax.random.key(zlib.crc32(b"sensitivity")), 7)
    found: dict[str, list[float]] = {measure: [] for measure in clock_use.MEASURES}
    for n in ns:
        words: dict[str, list[np.ndarray]] = {measure: [] for measure in clock_use.MEASURES}
        for i in range(count):
            task = Task(jax.tree.map(lambda x, i=i: x[i], levels), jnp.int32(n))
            life = birth(world, who.source, who.hyper, task, jax.random.fold_in(root, i))
            for age in range(n):
                learner = life.learner
                life, experience = step(task, life)
                if age not in {0, n // 4, n // 2, 3 * n // 4, n - 1}:
                    continue
                times = {
                    "fraction": [(u * n, n) for u in shares],
                    "horizon": [(age / n * m, m) for m in told],
                }
                for moved, pairs in times.items():
                    said = [
                        says(learner, experience, jnp.float32(a), jnp.float32(b)) for a, b in pairs
                    ]
                    words[f"S_pi_{moved}"].append(
                        np.array([s["pi_hat"] for s in said], float).reshape(len(said), -1)
                    )
                    if "log_y_hat" in said[0]:
                        y = np.exp(np.array([s["log_y_hat"] for s in said], float))
                        words[f"S_y_{moved}"].append(y.reshape(len(said), -1, y.shape[-1]))
        for measure, pieces in words.items():
            if not pieces:
                found[measure].append(math.nan)
                continue
            w = np.concatenate(pieces, axis=1)
            mean = w.mean(axis=0)
            if "pi" in measure:
                found[measure].append(math.sqrt(w.var(axis=0).mean() / mean.var()))
            else:
                within = np.sum(w * np.log(w / mean), axis=-1).mean()
                between = np.sum(mean * np.log(mean / mean.mean(axis=0)), axis=-1).mean()
                found[measure].append(within / between)
    return found


def test_sensitivities_are_what_their_definition_says() -> None:
    saved = lpg("fraction_log")
    who = enter(saved)
    levels = horizons.held_out("chain", "validation", 3).levels
    shares, told = [0.0, 0.3, 0.9], [4, 40]
    found = clock_use.sensitivity(
        who.world, who.source, who.hyper, levels, (6, 2), 7, shares=shares, told=told
    )
    assert found.horizons == (2, 6)
    expected = sensitivities_by_loop(saved, levels, (2, 6), shares, told)
    for measure, values in found.values().items():
        np.testing.assert_allclose(values, expected[measure], rtol=2e-4, err_msg=measure)
        assert (values > 0.001).all()
    # Ages that a life of two updates does not have count once.
    assert found.pi_fraction[0, 0, :, 0].tolist() == [1, 0, 1, 0, 0]
    # A closed gate and a missing clock leave exactly nothing.
    blind = clock_use.sensitivity(
        who.world, who.source, who.hyper._replace(clock_gate=0.0), levels, (6,), 7
    )
    assert all(value == [0] for value in blind.values().values())


def test_who_has_no_clock_is_not_sensitive() -> None:
    levels = horizons.held_out("chain", "validation", 2).levels
    who = enter(lpg("none"))
    found = clock_use.sensitivity(who.world, who.source, who.hyper, levels, (3,), 0).values()
    assert all(value == [0] for value in found.values())
    # An objective without predictions has no S_y, one that always says the same is never moved.
    nobody = enter(load("random"))
    told = clock_use.sensitivity(nobody.world, (), nobody.hyper, levels, (3,), 0)
    found = told.values()
    assert found["S_pi_fraction"] == found["S_pi_horizon"] == [0]
    assert np.isnan(found["S_y_fraction"]) and np.isnan(found["S_y_horizon"])
    uses = clock_use.summarise([], {"random": [told]}, resamples=9)
    assert [use.measure for use in uses] == ["S_pi_fraction", "S_pi_horizon"]


@dataclass(frozen=True)
class Mute(Random):
    def signals(self, *_: Any) -> Any:
        return {}


def test_who_says_nothing_cannot_be_measured() -> None:
    mute = enter(Saved("mute", Mute(), (), {}, "d"))
    levels = horizons.held_out("chain", "validation", 2).levels
    with pytest.raises(ConfigError, match="this objective says no pi_hat"):
        clock_use.sensitivity(mute.world, (), mute.hyper, levels, (3,), 0)


def made_up(within: float, means: list[float], lost: int = 0) -> clock_use.Sensitivity:
    """Levels whose words vary so much over times told, and have these means."""
    pi = np.array([[[[1.0, within, 0.0, mean]] for mean in means]])
    pi[:, :lost] = 0
    y = np.array([[[[1.0, within, 0.0, p, 1 - p]] for p in means]])
    return clock_use.Sensitivity((10,), pi, pi, y, y)


def test_sensitivities_by_hand() -> None:
    found = made_up(0.5, [0.2, 0.6]).values()
    assert found["S_pi_fraction"] == pytest.approx(math.sqrt(0.5 / 0.04))
    kl = sum(0.5 * p * math.log(p / q) for p, q in ((0.2, 0.4), (0.8, 0.6), (0.6, 0.4), (0.4, 0.6)))
    assert found["S_y_horizon"] == pytest.approx(0.5 / kl)
    assert made_up(0.0, [0.2, 0.2]).values()["S_pi_fraction"] == 0, "0/0"
    assert made_up(0.1, [0.25, 0.25]).values()["S_pi_fraction"] == math.inf
    # A level whose agent broke is left out.
    assert made_up(0.5, [9, 0.2, 0.6], lost=1).values()["S_pi_fraction"] == pytest.approx(
        math.sqrt(0.5 / 0.04)
    )
    assert np.isnan(made_up(0.5, [0.2], lost=1).values()["S_pi_fraction"]).all()
    cells = clock_use._weighed(
        np.array([[[1.0, math.nan, 2.0], [1.0, 2.0, 3.0]]]), np.array([True, True])
    )
    assert cells.tolist() == [[[0, 0, 0, 0], [1, 1, 2, 3]]]


def test_sensitivities_have_intervals_and_nulls() -> None:
    rng = np.random.default_rng(0)
    told = {
        "a": [made_up(0.5, rng.uniform(0.1, 0.9, 8).tolist()) for _ in range(5)],
        "null": [made_up(0.05, rng.uniform(0.1, 0.9, 8).tolist()) for _ in range(5)],
    }
    a, null = (clock_use.summarise([], {name: told[name]})[0] for name in told)
    each = [s.values()["S_pi_fraction"][0] for s in told["a"]]
    assert a.value == pytest.approx(np.mean(each))
    assert a.low < a.value < a.high
    assert (a.levels, a.search_seeds) == (8, 5)
    (difference, *_) = clock_use.against([], told, "a", "null", resamples=200)
    assert difference.value == pytest.approx(a.value - null.value)
    assert 0 < difference.low < difference.value < difference.high
    few = {name: found[:2] for name, found in told.items()}
    assert math.isnan(clock_use.summarise([], few)[0].low)
    assert math.isnan(clock_use.against([], few, "a", "null", resamples=9)[0].low)


# --- the command ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a search, and a search on coin flips."""
    folder = tmp_path_factory.mktemp("runs")
    rule = make_rule("lpg", **SIZES)
    config = replace(preset("smoke"), env="chain", life=LIFE)
    coin = replace(config, evolution=replace(config.evolution, shaping="coin_flip"))
    for name, of, seed in (("ta-0", config, 0), ("ta-1", config, 1), ("coin", coin, 0)):
        theta = jax.tree.map(lambda x: 3 * x, rule.init(jax.random.key(len(name) + seed)))
        save(folder / name, rule, theta, {"config": to_dict(replace(of, seed=seed))})
    return folder


def test_runs_that_differ_in_their_seed_are_one_search(runs: Path) -> None:
    chosen = [load(str(runs / name)) for name in ("ta-0", "ta-1", "coin")]
    assert clock_use.searches([*chosen, load("a2c")]) == {
        "ta-0": "ta",
        "ta-1": "ta",
        "coin": "coin",
        "a2c": "a2c",
    }
    assert clock_use.searches(chosen[1:]) == {"ta-1": "ta-1", "coin": "coin"}
    twice = [*chosen[:2], chosen[0]._replace(name="ta-0 (2)")]
    assert clock_use.searches(twice) == {"ta-0": "ta", "ta-1": "ta", "ta-0 (2)": "ta-0 (2)"}
    nulls = [chosen[2]._replace(name=f"ta-{i}", digest=str(i)) for i in (2, 3)]
    assert clock_use.study(chosen[:2], nulls, "chain", HOW).nulls == {
        "ta": ["untrained ta", "ta as a null"]
    }
    study = clock_use.study([*chosen[:2], load("a2c")], chosen[2:], "chain", HOW)
    assert [saved.name for saved in study.saved] == [
        "ta-0",
        "ta-1",
        "a2c",
        "coin",
        "untrained ta",
        "untrained ta (2)",
    ]
    assert study.nulls == {"ta": ["untrained ta", "coin"]}
    assert study.search["untrained ta (2)"] == "untrained ta"
    assert study.told == {saved.name for saved in study.saved} - {"a2c"}
    first, second = study.saved[-2:]
    assert first.digest != second.digest
    assert first.digest == clock_use.initialised(first.objective, "other", 1)[0].digest


def test_the_command_lies_and_goes_on(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = tmp_path / "t.csv", []
    request = EvaluateConfig(
        (str(runs / "ta-0"), str(runs / "ta-1"), "random"),
        env="chain",
        horizons=(4,),
        levels=3,
        group=2,
        out=str(out),
        false_clocks=True,
        nulls=(str(runs / "coin"),),
    )
    rows = evaluate(request, said.append)
    read = table.read(out)
    assert len(read) == len(rows) == 3 * (5 * (len(CLOCKS) + 1) + 1)
    assert {row.clock for row in read if row.objective == "random"} == {"true"}
    assert {row.clock for row in read if row.objective == "untrained ta (2)"} == set(CLOCKS)
    assert "no false clocks for random: an update there reads no clock" in said
    assert said[-1] == f"table: {tmp_path / 't-clock.csv'}"
    before = (tmp_path / "t-clock.csv").read_text()
    lines = list(csv.DictReader(before.splitlines()))
    measures = {*CLOCKS[1:], *clock_use.MEASURES}
    assert {(line["objective"], line["measure"]) for line in lines} == {
        (name, measure)
        for name in ("ta-0", "ta-1", "coin", "untrained ta", "untrained ta (2)")
        for measure in measures
    }
    assert {line["objective"]: line["null"] for line in lines} == {
        "ta-0": "false",
        "ta-1": "false",
        "coin": "true",
        "untrained ta": "true",
        "untrained ta (2)": "true",
    }
    assert {line["horizon"] for line in lines} == {"4"}
    by_digest = {row.digest for row in rows if row.objective == "ta-0"}
    assert {line["digest"] for line in lines if line["objective"] == "ta-0"} == by_digest

    def never(*arguments: object, **more: object) -> None:
        raise AssertionError("a row that is in the table was run again")

    monkeypatch.setattr(horizons, "score", never)
    assert evaluate(request, said.append) == rows
    assert (tmp_path / "t-clock.csv").read_text() == before
    # Without lies it is the table of before, and says nothing of clocks.
    plain: list[Any] = []
    true = evaluate(replace(request, false_clocks=False, nulls=()), plain.append)
    assert {(row.clock, row.horizon) for row in true} == {("true", 4)}
    assert plain[-1] == f"table: {out}"
    stopped: list[Any] = []
    evaluate(replace(request, max_minutes=1e-9, out=str(tmp_path / "s.csv")), stopped.append)
    assert any("stopped after 0 of 153 rows" in str(line) for line in stopped)
    assert not (tmp_path / "s-clock.csv").exists()


def test_nulls_go_with_false_clocks(runs: Path) -> None:
    with pytest.raises(ConfigError, match="--nulls goes with --false-clocks"):
        evaluate(EvaluateConfig(("a2c",), env="chain", nulls=(str(runs / "coin"),)), print)


def test_flags_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from discovery import cli

    found: list[EvaluateConfig] = []
    module = types.SimpleNamespace(evaluate=lambda request, report: found.append(request))
    monkeypatch.setitem(sys.modules, "discovery.evaluation.horizons", module)
    monkeypatch.setattr("discovery.devices.start", lambda *a, **k: None)
    words = "evaluate runs/a lpg --false-clocks --nulls runs/b runs/c"
    assert cli.main(words.split(" ")) == 0
    assert found[0].objectives == ("runs/a", "lpg")
    assert found[0].false_clocks
    assert found[0].nulls == ("runs/b", "runs/c")
