"""The update of mirror learning, from a configuration to a whole life."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from discovery.config import (
    AgentConfig,
    Config,
    ConfigError,
    LifeConfig,
    ObjectiveConfig,
    UpdateConfig,
    check,
    from_json,
    preset,
    to_json,
)
from discovery.inner.build import (
    is_mirror,
    make_environment,
    make_hyper,
    make_objective,
    make_world,
    static,
    with_optimizer,
)
from discovery.inner.lifetime import Measure, Task, advance, birth, live
from learned_objectives.library import make_rule
from learned_objectives.lpg import LPG
from learned_objectives.lpo import LPO
from learned_objectives.mirror import PPO

UPDATE = UpdateConfig(
    epochs=2,
    minibatches=3,
    segments=True,
    segment=2,
    recompute=True,
    adam_epsilon=1e-6,
    anneal=0.5,
    gamma=0.9,
    gae_lambda=0.8,
    entropy_bonus=0.02,
    value_weight=0.7,
    value_clip=math.inf,
    clip_ratio=0.3,
)
AGENT = AgentConfig(optimizer="adam", policy_rate=0.05, prediction_rate=0.05)
LIFE = LifeConfig(environments=4, rollout=8, evaluation_environments=8)


def test_a_rule_gets_the_static_part_and_the_numbers():
    agent = replace(AGENT, update=UPDATE)
    config = ObjectiveConfig(rule="lpo", clock="fraction", width=4, ppo_term=False)
    shape = {"epochs": 2, "minibatches": 3, "segments": True, "segment": 2, "recompute": True}
    expected = LPO(width=4, clock="fraction", ppo_term=False, adam_epsilon=1e-6, **shape)
    assert make_objective(config, agent) == expected
    assert with_optimizer(PPO(), agent) == PPO(adam_epsilon=1e-6, **shape)
    assert with_optimizer(make_rule("ppo-scheduled"), agent).rule == PPO(adam_epsilon=1e-6, **shape)
    hyper = make_hyper(expected, agent)
    assert (hyper.anneal, hyper.discount, hyper.trace) == (0.5, 0.9, 0.8)
    assert (hyper.entropy_weight, hyper.value_weight) == (0.02, 0.7)
    assert (hyper.value_clip, hyper.clip_ratio) == (math.inf, 0.3)
    assert static(agent).update == UpdateConfig(adam_epsilon=1e-6, **shape)
    assert all(is_mirror(make_rule(n)) for n in ("ppo", "dpo", "lpo", "ppo-scheduled-n"))
    assert not any(is_mirror(make_rule(n)) for n in ("a2c", "lpg", "a2c-scheduled", "random"))


def test_fields_of_the_other_rules():
    told = ObjectiveConfig(clip_log=True, discount_input=True)
    assert make_objective(told, AGENT) == LPG(clip_log=True, discount_input=True, optimizer="adam")
    untold = make_objective(ObjectiveConfig(rule="lpo"), AGENT)
    assert isinstance(untold, LPO) and untold.clip_log, "as the rule has it"
    ends = ObjectiveConfig(rule="lpo", clock="fraction_scaled", log_ends=(50.0, 8000.0))
    assert make_objective(ends, AGENT).log_ends == (50.0, 8000.0)


def test_the_text_of_an_agent_is_what_tables_know_it_by():
    assert repr(replace(AGENT, update=UPDATE)) == repr(AGENT)


def test_an_update_comes_back_from_json():
    config = Config(agent=replace(AGENT, update=UPDATE))
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"segment": -1}, "segment must be at least 0"),
        ({"recompute": True}, "recompute is for minibatches of segments: give --segments"),
        ({"segment": 2}, "segment is for minibatches of segments: give --segments"),
        ({"anneal": 1.5}, "anneal must be from 0 to 1"),
        ({"value_clip": 0.0}, "value_clip must be above 0"),
        ({"clip_ratio": 0.0}, "clip_ratio must be a finite number above 0"),
    ],
)
def test_an_update_that_cannot_be_is_refused(change, line):
    with pytest.raises(ConfigError, match=line):
        check(Config(agent=AgentConfig(update=UpdateConfig(**change))))


@pytest.mark.parametrize("rule", [PPO(minibatches=5), make_rule("ppo-constant", minibatches=5)])
def test_minibatches_that_do_not_fit_are_named(rule):
    with pytest.raises(ConfigError, match="the nearest number that fits is 4"):
        make_world(rule, "chain", AGENT, LIFE)


def test_environments_mix_by_name():
    assert make_environment("dense,sparse").spec.name == "dense,sparse"
    with pytest.raises(ConfigError, match="do not mix"):
        make_environment("small,chain")
    ranked = replace(preset("ta-lpo-cpu"), env="small,dense")
    check(ranked)  # ranked apart, one environment after another
    ranked = replace(ranked, estimator="windows")
    with pytest.raises(ConfigError, match="returns of small and dense do not compare"):
        check(ranked)


def test_lives_of_lpo_at_zero_are_those_of_ppo_and_last_their_horizon():
    """Whole lives, one update more than the margin could show; every iteration is counted."""
    rules = [PPO(minibatches=4), LPO(width=4, clock="fraction", minibatches=4)]
    theta = jax.tree.map(jnp.zeros_like, rules[1].init(jax.random.key(0)))
    outcomes, steps = [], []
    for rule, said in zip(rules, ((), theta), strict=True):
        world, hyper = make_world(rule, "chain", AGENT, LIFE), make_hyper(rule, AGENT)
        task = Task(world.env.sample_level(jax.random.key(1)), jnp.int32(5))
        measure = Measure(points=jnp.int32(1), modes=jnp.int32(1))

        @jax.jit
        def run(key, world=world, hyper=hyper, task=task, measure=measure, said=said):
            life = birth(world, said, hyper, task, key)
            life, _ = jax.lax.scan(
                lambda life, _: (advance(world, said, hyper, task, life)[0], None), life, length=7
            )
            return live(world, said, hyper, task, key, measure), life

        outcome, life = run(jax.random.key(2))
        outcomes.append(outcome)
        steps.append((int(life.n), int(life.learner.optimizer.count)))
    assert steps == [(5, 5 * 4 * 4)] * 2, "iterations, and gradient steps of all their minibatches"
    np.testing.assert_allclose(outcomes[0].final[0], outcomes[1].final[0], atol=1e-3)
    kl = [outcome.metrics["kl"] for outcome in outcomes]
    np.testing.assert_allclose(kl[0], kl[1], rtol=0.05, atol=1e-4)
