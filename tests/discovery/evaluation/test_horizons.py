"""The sweep: what is saved scores as what was trained; rows are right and run once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from discovery import evaluate
from discovery.config import AgentConfig, ConfigError, LifeConfig, preset, to_dict
from discovery.evaluation import horizons, table
from discovery.inner.build import make_environment
from discovery.requests import EvaluateConfig
from discovery.runs.errors import Interrupted
from learned_objectives.library import load, make_rule, save

DATA = Path(__file__).parents[2] / "data"
LIFE = LifeConfig(environments=2, rollout=4, evaluation_environments=4)
HOW = horizons.Setting(AgentConfig(), LIFE, preset("smoke").rival, "a test")
CONFIG = replace(preset("smoke"), env="chain", life=LIFE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an objective and the card a search would write."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    rule = make_rule("lpg", width=4, predictions=2, embedding=2)
    theta = jax.tree.map(lambda x: 3 * x, rule.init(jax.random.key(0)))
    save(folder, rule, theta, {"config": to_dict(CONFIG)})
    return folder


@pytest.fixture(scope="module")
def levels() -> horizons.Levels:
    return horizons.held_out("chain", "test", 6)


@pytest.fixture(scope="module")
def who(trained: Path) -> horizons.Contestant:
    return horizons.enter(load(str(trained)), "chain", HOW, group=4, capacity=8)


def test_levels_are_fixed_by_name_and_hash(levels: horizons.Levels) -> None:
    again = horizons.held_out("chain", "test", 6)
    other = horizons.held_out("chain", "validation", 6)
    assert levels.hash == again.hash != other.hash
    assert levels.random is not None and levels.optimal is not None
    assert (levels.optimal - levels.random >= 0.05).all()


def test_a_row_says_what_was_lived(who: horizons.Contestant, levels: horizons.Levels) -> None:
    rows = horizons.sweep([who], levels, (1, 3), LIFE, (0, 1))
    assert len(rows) == 2 * 2 * 6 * 2
    assert {(r.horizon, r.steps) for r in rows} == {(1, 8), (3, 24)}
    outcome = horizons.score(who, levels.levels, 3, 1)
    for row in rows:
        assert levels.random is not None and levels.optimal is not None
        low, high = levels.random[row.level], levels.optimal[row.level]
        assert row.normalised == pytest.approx((row.score - low) / (high - low))
        if (row.horizon, row.seed) == (3, 1):
            mode = horizons.ACTIONS.index(row.actions)
            assert row.score == outcome.final[row.level, mode]


def test_more_lives_than_fit_one_call(who: horizons.Contestant) -> None:
    many = horizons.held_out("chain", "test", 11)
    few = jax.tree.map(lambda x: x[:3], many.levels)
    scores = horizons.score(who, many.levels, 2, 0).final
    np.testing.assert_array_equal(scores[:3], horizons.score(who, few, 2, 0).final)
    assert np.isfinite(scores).all()


def test_area_is_a_mean_along_the_life(who: horizons.Contestant, levels: horizons.Levels) -> None:
    rows = horizons.sweep([who], levels, (2,), LIFE, points=horizons.POINTS, greedy=False)
    outcome = horizons.score(who, levels.levels, 2, 0, horizons.POINTS, greedy=False)
    for row in rows:
        assert row.area == pytest.approx(float(outcome.area[row.level, 0]))
    plain = horizons.sweep([who], levels, (2,), LIFE, greedy=False)
    assert [r.score for r in plain] == [r.score for r in rows]
    assert all(r.area is None for r in plain)


def test_a_policy_that_never_learns_scores_zero(levels: horizons.Levels) -> None:
    life = replace(LIFE, evaluation_environments=256)
    how = HOW._replace(life=life)
    nobody = horizons.enter(load("random"), "chain", how, group=4, capacity=8)
    rows = horizons.sweep([nobody], levels, (1,), life, greedy=False)
    normalised = [r.normalised for r in rows if r.normalised is not None]
    assert len(normalised) == 6
    assert np.mean(normalised) == pytest.approx(0, abs=0.05)


def test_the_command_grows_a_table_and_runs_no_row_twice(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = tmp_path / "t.csv", []
    request = EvaluateConfig(
        (str(trained), "a2c"), env="chain", horizons=(1, 2), levels=4, group=4, out=str(out)
    )
    rows = evaluate(request, said.append)
    before = out.read_bytes()
    assert {(r.objective, r.horizon) for r in rows} == {
        (name, n) for name in ("mine", "a2c") for n in (1, 2)
    }
    assert table.read(out) == sorted(rows, key=table.read(out).index)
    assert any("as mine was trained" in str(line) for line in said)

    def never(*arguments: object, **more: object) -> None:
        raise AssertionError("a row that is in the table was run again")

    monkeypatch.setattr(horizons, "score", never)
    again = evaluate(request, said.append)
    assert len(again) == len(rows)
    assert out.read_bytes() == before
    longer = replace(request, horizons=(1, 2, 3))
    with pytest.raises(AssertionError, match="run again"):
        evaluate(longer, said.append)
    # Other rates are other rows, though objective, level and number of steps are the same.
    how = horizons.setting([load("a2c")], make_environment("chain"))
    other = [horizons.enter(load(name), "chain", how, 4).digest for name in (str(trained), "a2c")]
    assert not {row.digest for row in rows} & set(other)

    def interrupted(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(horizons, "score", interrupted)
    out.unlink()
    with pytest.raises(Interrupted, match="has what is done, the same command goes on"):
        evaluate(longer, said.append)
    assert table.read(out) == []


def test_a_killed_evaluation_ends_with_the_same_bytes(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several environments, stopped in the middle of each, and gone on with."""
    request = EvaluateConfig(
        (str(trained),),
        envs=("chain", f"{DATA / 'restful_chain.py'}:make"),
        horizons=(1, 2),
        seeds=2,
        levels=3,
        group=4,
        times=False,
        profiles=True,
        out=str(tmp_path / "whole.csv"),
    )
    said: list[object] = []
    rows = evaluate(request, said.append)
    assert {row.environment for row in rows} == set(request.envs)
    assert len(rows) == 2 * 2 * 2 * 3 and all(row.wall_seconds is None for row in rows)
    assert any(str(line).startswith("chain: mine, N = 1") for line in said)
    whole = (tmp_path / "whole.csv").read_bytes()
    pictures = {path.name for path in tmp_path.glob("whole-profile-chain-*.png")}
    assert pictures == {"whole-profile-chain-sampled.png"}

    score, lived = horizons.score, [0]

    def killed(*arguments: Any, **more: Any) -> Any:
        lived[0] += 1
        if lived[0] % 4 == 3:
            raise KeyboardInterrupt
        return score(*arguments, **more)

    monkeypatch.setattr(horizons, "score", killed)
    pieces = replace(request, profiles=False, out=str(tmp_path / "pieces.csv"))
    stops = 0
    for _ in range(20):
        try:
            evaluate(pieces, said.append)
            break
        except Interrupted:
            stops += 1
    assert stops > 1
    assert (tmp_path / "pieces.csv").read_bytes() == whole
    # With times it is the same but for that column.
    monkeypatch.setattr(horizons, "score", score)
    timed = evaluate(replace(pieces, times=True, out=str(tmp_path / "timed.csv")), said.append)
    assert all(row.wall_seconds is not None for row in timed)
    assert [row._replace(wall_seconds=None) for row in table.read(tmp_path / "timed.csv")] == (
        table.read(tmp_path / "whole.csv")
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"horizons": (0,)}, "horizon must be at least 1, not 0"),
        ({"horizons": (10**8,)}, "horizon must be at most 10,000,000, not 100000000"),
        ({"levels": 0}, "levels must be at least 1, not 0"),
        ({"seeds": -1}, "seeds must be at least 1, not -1"),
        ({"environments": 0}, "environments must be at least 1, not 0"),
        ({"group": 0}, "group must be at least 1, not 0"),
        ({"max_minutes": 0.0}, "max_minutes must be above 0, not 0"),
        ({"horizons": ()}, "no horizons"),
        ({"env": "Pendulum-v1", "objectives": ("lpg-file",)}, "continuous actions"),
    ],
)
def test_what_cannot_be_compared(fields: dict, message: str, trained: Path) -> None:
    fields = {"objectives": (str(trained),), "env": "chain"} | {
        k: (str(trained),) if k == "objectives" else v for k, v in fields.items()
    }
    with pytest.raises(ConfigError, match=message):
        evaluate(EvaluateConfig(**fields), lambda line: None)


def test_two_of_one_name_are_told_apart(trained: Path) -> None:
    saved = load(str(trained))
    names = [s.name for s in horizons.named_apart([saved, saved, load("a2c")])]
    assert names == ["mine", "mine (2)", "a2c"]


def test_published_agents() -> None:
    from discovery.inner.build import make_environment

    agent = horizons.default_agent(make_environment("rand_small"))
    assert (agent.network, agent.hidden, agent.optimizer) == ("mlp", (32,), "adam")
    agent = horizons.default_agent(make_environment("small"))
    assert (agent.network, agent.policy_rate, agent.prediction_rate) == ("table", 40.0, 4.0)


def test_rates_are_data(trained: Path, levels: horizons.Levels) -> None:
    """Two agents that differ in their rates share a program, and learn differently."""
    saved = load(str(trained))
    fast = HOW._replace(agent=replace(HOW.agent, policy_rate=200.0))
    a, b = (horizons.enter(saved, "chain", how, group=4, capacity=8) for how in (HOW, fast))
    assert a.cohort is b.cohort
    scores = [horizons.score(c, levels.levels, 3, 0).final for c in (a, b)]
    assert not np.array_equal(*scores)
    assert jnp.isfinite(jnp.asarray(scores)).all()


def test_a_sharpened_policy_is_better_where_it_knows_what_is_good() -> None:
    """A2C at a low rate is nearly random, and its best actions are the best all the same."""
    saved = load("a2c")
    how = horizons.setting([saved], make_environment("chain"))
    who = horizons.contestant(saved, "chain", how.agent, how.life, 8, 8, policy_rate=0.05)
    sharp = horizons.sharpen(who, "chain", (15, 20), 8)
    assert sharp.temperature < 0.5
    assert (sharp.name, sharp.digest != who.digest) == ("a2c, sharpened", True)
    levels = horizons.held_out("chain", "test", 8).levels
    plain, better = (horizons.score(one, levels, 20, 0).final[:, 0] for one in (who, sharp))
    assert (better - plain).mean() > 0.03
    with pytest.raises(ConfigError, match="continuous"):
        pendulum = make_environment("Pendulum-v1").spec
        world = replace(who.world, env=who.world.env._replace(spec=pendulum))
        horizons.sharpen(who._replace(world=world), "Pendulum-v1", (4,), 8)


def test_sharpened_rows_are_not_run_again(tmp_path: Path) -> None:
    said: list[object] = []
    out = tmp_path / "t.csv"
    request = EvaluateConfig(
        ("a2c",), env="chain", horizons=(4,), levels=8, sharpen=True, group=8, out=str(out)
    )
    rows = evaluate(request, said.append)
    assert {row.objective for row in rows} == {"a2c", "a2c, sharpened"}
    assert any("a2c, sharpened: temperature" in str(line) for line in said)
    before = out.read_bytes()
    assert evaluate(request, said.append) == rows
    assert out.read_bytes() == before


def test_temperature_moves_the_scores_alone() -> None:
    saved = load("a2c")
    how = horizons.setting([saved], make_environment("chain"))
    who = horizons.enter(saved, "chain", how, group=8, capacity=8)
    levels = horizons.held_out("chain", "test", 8).levels
    plain = horizons.score(who, levels, 3, 0)
    one, cold = (horizons.score(who._replace(temperature=t), levels, 3, 0) for t in (1.0, 1e-3))
    np.testing.assert_array_equal(plain.final, one.final)
    np.testing.assert_array_equal(cold.metrics["entropy"], one.metrics["entropy"])
    np.testing.assert_allclose(cold.final[:, 0], one.final[:, 1], rtol=1e-5, err_msg="greedy")
    assert (cold.final[:, 0] != one.final[:, 0]).any()
