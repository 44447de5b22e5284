"""Small worlds on the chain, and an objective that shows what a life shows to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from discovery.config import AgentConfig
from discovery.inner.agent import make_network
from discovery.inner.lifetime import Measure, Outcome, Task, World, live
from envs.base import Environment
from learned_objectives.base import Head, Key, Learner, Objective, Report
from learned_objectives.lpg import LPG


class SpyHyper(NamedTuple):
    step: Any = 1.0
    """How far an update moves the logit of going forward."""


@dataclass(frozen=True)
class Spy:
    """Rests after the first update, goes forward after the second, and is torn after the third.

    Its metrics tell what it was shown. ``traces`` has an entry for every time it was traced.
    """

    traces: list[int] = field(default_factory=list, compare=False)

    @property
    def heads(self) -> Mapping[str, Head]:
        return {"policy": Head("actions")}

    def unsupported(self, spec):
        return None

    def init(self, key):
        return ()

    def hyper(self, **overrides):
        return SpyHyper(**overrides)

    def birth(self, theta, hyper, network, params):
        return Learner(params, optimizer=())

    def signals(self, theta, hyper, network, learner, experience, time):
        return {"pi_hat": jnp.zeros_like(experience.reward)}

    def update(self, theta, hyper, network, learner, experience, time, key):
        self.traces.append(len(self.traces))
        by = jnp.where(time.n == 1, 2.0, -1.0) * hyper.step
        params = jax.tree.map(lambda table: table.at[:, 1].add(by), learner.params)
        shown = {
            "digits": 10.0**time.n,
            "horizon": time.N.astype(jnp.float32),
            "unit": time.unit,
            "draw": jax.random.uniform(key),
            "terminated": experience.terminated.sum().astype(jnp.float32),
            "truncated": experience.truncated.sum().astype(jnp.float32),
        }
        return learner._replace(params=params), Report(shown)


@pytest.fixture(scope="package")
def chain() -> Environment:
    return envs.make("chain")


@pytest.fixture(scope="package")
def make_level(chain: Environment) -> Callable[..., Any]:
    """A chain of so many steps, with strong types throughout."""

    def make(length: int = 3, goal: float = 1.0, rest: float = 0.1, limit: int = 10) -> Any:
        return chain.gym.default_params.replace(
            length=jnp.int32(length),
            goal=jnp.float32(goal),
            rest=jnp.float32(rest),
            max_steps_in_episode=jnp.int32(limit),
        )

    return make


@pytest.fixture(scope="package")
def make_world(chain: Environment) -> Callable[..., World]:
    """A world for an objective: 2 environments, 3 steps, 2 episodes, on the chain."""

    def make(objective: Objective, env: Environment = chain, **sizes: Any) -> World:
        network = make_network(AgentConfig(), dict(objective.heads), env.spec)
        sizes = {"environments": 2, "steps": 3, "episodes": 2} | sizes
        return World(env, objective, network, **sizes)

    return make


@pytest.fixture(scope="package")
def spy() -> Spy:
    return Spy()


class Learned(NamedTuple):
    """TA-LPG, small, on the chain."""

    objective: LPG
    world: World
    theta: Any
    """Random weights, under which agents change."""
    hyper: Any
    live: Callable[..., Outcome]
    """``(theta, hyper, task, key, measure)``, compiled once."""
    traces: list[int]
    """An entry for every time ``live`` was traced."""


@pytest.fixture(scope="package")
def learned(make_world: Callable[..., World]) -> Learned:
    objective = LPG(width=4, predictions=3, embedding=2)
    world = make_world(objective, environments=4, steps=5, episodes=16)
    random = np.random.default_rng(0)
    theta = jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32),
        jax.eval_shape(objective.init, jax.random.key(0)),
    )
    traces: list[int] = []

    @jax.jit
    def run(theta: Any, hyper: Any, task: Task, key: Key, measure: Measure) -> Outcome:
        traces.append(len(traces))
        return live(world, theta, hyper, task, key, measure)

    hyper = jax.tree.map(jnp.float32, objective.hyper())
    return Learned(objective, world, theta, hyper, run, traces)
