"""Agents that really live: born, two updates, scored, in environments of every kind."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from discovery.config import LifeConfig
from discovery.evaluation import horizons
from discovery.inner.build import make_environment, make_hyper, make_world, with_optimizer
from discovery.inner.lifetime import Measure, Task, World, birth, grow, live
from envs.registry import REGISTRY
from learned_objectives.library import load

LIFE = LifeConfig(environments=4, rollout=32, evaluation_environments=2)
BRAX = pytest.mark.brax
STANDARD = (
    ("small", "ppo"),
    ("rand_small", "a2c"),
    ("CartPole-v1", "ppo"),
    ("Catch-bsuite", "a2c"),
    ("Breakout-MinAtar", "ppo"),
    pytest.param("brax/fast", "a2c", marks=BRAX),
    pytest.param("brax/inverted_pendulum/spring", "ppo", marks=BRAX),
)
NAMES = [entry.name for entry in REGISTRY]
ALL = [pytest.param(n, marks=BRAX) if n.startswith("brax/") else n for n in NAMES]
VARIANTS = [f"{entry.name}/{variant}" for entry in REGISTRY for variant in entry.variants]


def small(name: str, env: str) -> tuple[World, Any]:
    """The world in which the command would let an agent live, with few and narrow layers."""
    saved = load(name)
    how = horizons.setting([saved], make_environment(env))
    segment = 8 if how.agent.update.segments else 0
    update = replace(how.agent.update, epochs=2, minibatches=2, segment=segment)
    agent = replace(how.agent, update=update)
    if agent.network != "table":
        agent = replace(agent, hidden=(8,), value_hidden=None)
    world = make_world(with_optimizer(saved.objective, agent), env, agent, LIFE)
    return world, make_hyper(world.objective, agent)


def life(world: World, hyper: Any, key: Any) -> Any:
    """A whole life of two updates, scored by sampled and by greedy actions."""
    task = Task(world.env.sample_level(key), jnp.int32(2))
    return live(world, (), hyper, task, key, Measure(jnp.int32(1), jnp.int32(2)))


def lived(name: str, env: str) -> None:
    world, hyper = small(name, env)

    @functools.partial(jax.jit, static_argnums=0)
    def some(updates: int, key: Any) -> Any:
        task = Task(world.env.sample_level(key), jnp.int32(2))
        begun = birth(world, (), hyper, task, key)

        def one(life: Any, _: None) -> tuple[Any, Any]:
            life, experience, report = grow(world, (), hyper, task, life)
            return life, (experience, report.metrics)

        return begun, *jax.lax.scan(one, begun, length=updates)

    begun, after, (experience, metrics) = some(2, jax.random.key(1))
    assert after.n == 2
    assert experience.reward.shape == (2, LIFE.rollout, LIFE.environments)
    assert not (experience.terminated & experience.truncated).any()
    for leaf in jax.tree.leaves((after.learner.params, experience.reward, metrics)):
        assert np.isfinite(leaf).all()
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), begun.learner.params, after.learner.params
    )
    # Where nothing was found there is nothing to learn from.
    learned = all(any(jax.tree.leaves(head)) for head in moved.values())
    assert learned or not experience.reward.any()


@pytest.mark.parametrize(("env", "name"), STANDARD)
def test_an_agent_really_lives(env: str, name: str) -> None:
    lived(name, env)


@pytest.mark.parametrize("env", ALL)
def test_shapes_of_a_life_in_every_environment(env: str) -> None:
    """Rollout, two updates and evaluation, traced."""
    world, hyper = small("ppo", env)
    outcome = jax.eval_shape(lambda key: life(world, hyper, key), jax.random.key(0))
    assert outcome.final.shape == (2,)
    assert {"kl", "drift", "entropy"} <= outcome.metrics.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "a2c"])
@pytest.mark.parametrize("env", [n for n in NAMES if not n.startswith("brax/")])
def test_an_agent_really_lives_in_every_environment(env: str, name: str) -> None:
    lived(name, env)


@pytest.mark.slow
@pytest.mark.brax
@pytest.mark.filterwarnings("ignore:Accessing `contact` directly:DeprecationWarning")
@pytest.mark.parametrize("env", VARIANTS)
def test_an_agent_really_lives_in_all_of_brax(env: str) -> None:
    lived("ppo", env)
