"""Every objective in every kind of environment: it lives, or a line says why not."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from discovery.config import ConfigError, LifeConfig, RivalConfig, preset, to_dict
from discovery.evaluation import horizons, inspection
from discovery.inner.build import (
    is_mirror,
    make_environment,
    make_hyper,
    make_world,
    with_optimizer,
)
from discovery.inner.lifetime import Measure, Task, live
from learned_objectives.library import RULES, Saved, load, make_rule

KINDS = ("small", "rand_small", "CartPole-v1", "Breakout-MinAtar", "Pendulum-v1")
STANDARD = ("chain", "dense,sparse", "Catch-bsuite", "MountainCarContinuous-v0")


def untrained(name: str) -> Saved:
    rule = make_rule(name)
    return Saved(name, rule, jax.eval_shape(rule.init, jax.random.key(0)), {}, "none")


def lived(name: str, env: str) -> Any:
    """Shapes of a life as the command would begin it: rollout, updates, evaluation."""
    saved = untrained(name)
    how = horizons.setting([saved], make_environment(env))
    world = make_world(with_optimizer(saved.objective, how.agent), env, how.agent, how.life)
    hyper = make_hyper(world.objective, how.agent)

    def life(theta: Any, key: Any) -> Any:
        task = Task(world.env.sample_level(key), jnp.int32(2))
        return live(world, theta, hyper, task, key, Measure(jnp.int32(1), jnp.int32(2)))

    return jax.eval_shape(life, saved.theta, jax.random.key(0))


@pytest.mark.parametrize("env", [*KINDS, *STANDARD])
def test_ppo_lives_in_every_kind_of_environment(env: str) -> None:
    outcome = lived("ppo", env)
    assert outcome.final.shape == (2,)
    assert {"kl", "drift", "entropy"} <= outcome.metrics.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("env", KINDS)
def test_a_pair_works_or_says_why_not(name: str, env: str) -> None:
    try:
        assert lived(name, env).final.shape == (2,)
    except ConfigError as error:
        assert name.startswith("lpg") and env == "Pendulum-v1"
        assert str(error).endswith("has continuous actions")


# --- how agents live in a comparison ------------------------------------------------------------


def test_each_kind_of_objective_brings_an_agent_of_its_own() -> None:
    environment = make_environment("small")
    how = horizons.setting([load("ppo"), load("a2c"), load("random")], environment)
    assert (how.agent.optimizer, how.agent.policy_rate) == ("adam", 0.05)
    assert [kind.__name__ for kind in how.others] == ["A2C"]
    assert horizons.enter(load("a2c"), "small", how).hyper.policy_rate == 40.0
    assert horizons.enter(load("ppo"), "small", how).hyper.policy_rate == 0.05
    assert how.life == LifeConfig()


def test_rivals_of_a_learned_drift_live_as_its_card_says() -> None:
    config = replace(preset("ta-lpo-cpu"), rival=RivalConfig(0.1, 0.2))
    learned = untrained("lpo")._replace(card={"config": to_dict(config)})
    chosen = [load("a2c"), load("dpo"), learned]
    how = horizons.setting(chosen, make_environment("Catch-bsuite"))
    assert (how.agent, how.life, how.others) == (config.agent, config.life, {})
    assert horizons.enter(chosen[0], "Catch-bsuite", how).hyper.value_rate == 0.2
    assert horizons.enter(chosen[1], "Catch-bsuite", how).hyper.policy_rate == 0.01
    # Tables cannot be what it was found with.
    elsewhere = horizons.setting(chosen, make_environment("small"))
    assert elsewhere.agent.network == "table"
    assert horizons.enter(chosen[0], "small", elsewhere).hyper.policy_rate == 40.0


def test_other_minibatches_are_other_rows() -> None:
    how = horizons.setting([load("ppo")], make_environment("chain"))
    update = replace(how.agent.update, minibatches=8)
    other = how._replace(agent=replace(how.agent, update=update))
    digests = {horizons.enter(load("ppo"), "chain", each).digest for each in (how, other)}
    assert len(digests) == 2
    assert all(is_mirror(load(name).objective) for name in ("ppo", "dpo"))


# --- what a drift looks like --------------------------------------------------------------------


def test_inspection_of_a_drift(tmp_path: Path) -> None:
    config = preset("ta-lpo-cpu")
    rule = make_rule("lpo", width=8, clock="fraction")
    theta = jax.tree.map(lambda leaf: 0.5 * leaf, rule.init(jax.random.key(0)))
    saved = Saved("mine", rule, theta, {"config": to_dict(config)}, "none")
    how = horizons.setting([saved], make_environment("chain"))
    who = horizons.enter(saved, "chain", how)
    said: list[str] = []
    pictures = inspection._drift(saved, who, [20], tmp_path, said.append)
    assert [picture.name for picture in pictures] == [
        "drift.png",
        "drift-surface.png",
        "drift-map.png",
        "turns.png",
    ]
    assert all(picture.stat().st_size > 10_000 for picture in pictures)
    with (tmp_path / "drift.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {float(line["share"]) for line in lines} == set(inspection.SHARES)
    assert min(float(line["drift"]) for line in lines) >= 0
    assert "PPO: the push is halved at p = 1.20 (A = 1), 0.80 (A = -1)" in said
    assert any(line.startswith("DPO: it points back past p = 0.5") for line in said)
    with (tmp_path / "turns.csv").open() as file:
        turns = [{k: float(v) for k, v in line.items()} for line in csv.DictReader(file)]
    above = [line["ppo_half"] for line in turns if line["advantage"] == 1]
    assert above == pytest.approx([1.2] * len(above), rel=1e-5) and above
    assert {line["share"] for line in turns} == {*(u / 10 for u in range(10)), 0.95}

    found = inspection.drifts(who.world, theta, who.hyper, 20)
    at_one = list(inspection.RATIOS).index(1.0)
    assert (found.drift[:, at_one] == 0).all() and (found.slope[:, at_one] == 0).all()
    assert np.ptp(found.drift, axis=0).max() > 1e-3, "the clock"
    blind = inspection.drifts(who.world, theta, who.hyper._replace(clock_gate=0.0), 20)
    assert np.ptp(blind.drift, axis=0).max() == 0


def test_rates_that_do_not_fall_are_no_clock() -> None:
    environment = make_environment("chain")
    how = horizons.setting([load("ppo")], environment)
    assert inspection._is_blind(load("ppo"), "chain", how)
    falling = replace(how.agent, update=replace(how.agent.update, anneal=1.0))
    assert not inspection._is_blind(load("ppo"), "chain", how._replace(agent=falling))
