# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own objective, your own environment
#
# An **objective** is a frozen dataclass: which *heads* (outputs) an agent's network needs, what the
# search starts from, what one update does. An **environment** is any object with gymnax 1.0's
# interface. Both live in a file of yours, named as `file.py:make` wherever a name is asked for, so
# that a run folder says where its rule came from.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

import envs
from discovery import check_objective, evaluate, evolve, train
from discovery.config import AgentConfig, HorizonConfig, preset
from discovery.evaluation.figures import life_curve
from discovery.requests import EvaluateConfig, TrainConfig

QUICK = bool(os.environ.get("KAIROS_QUICK"))  # tiny sizes, for tests
print("sizes:", "quick" if QUICK else "full")

# %% [markdown]
# ## An objective
#
# REINFORCE with a baseline, whose learning rate is what a search finds: `theta` is its logarithm.
# `signals` says what the objective makes of an experience (here minus the advantage of each
# action), `update` moves the agent along it.

# %%
OBJECTIVE = '''
"""An objective of one's own: REINFORCE with a baseline, whose learning rate is what is learned."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from learned_objectives.base import Head, Learner, Report


@dataclass(frozen=True)
class Reinforce:
    heads = {"policy": Head("actions")}  # noqa: RUF012

    def unsupported(self, spec):
        return None  # can be used in every environment

    def init(self, key):
        return jnp.zeros(())  # theta: the logarithm of the learning rate

    def hyper(self):
        return ()

    def birth(self, theta, hyper, network, params):
        return Learner(params, optimizer=())

    def signals(self, theta, hyper, network, learner, experience, time):
        def back(later, now):
            reward, ended = now
            later = reward + 0.99 * jnp.where(ended, 0.0, later)
            return later, later

        steps = experience.reward, experience.terminated | experience.truncated
        _, returns = jax.lax.scan(back, jnp.zeros_like(steps[0][0]), steps, reverse=True)
        return {"pi_hat": returns.mean() - returns}

    def update(self, theta, hyper, network, learner, experience, time, key):
        said = self.signals(theta, hyper, network, learner, experience, time)

        def loss(params):
            outputs, _ = network.unroll(params, experience)
            return jnp.mean(said["pi_hat"] * network.log_prob(outputs, experience.action))

        value, slope = jax.value_and_grad(loss)(learner.params)
        params = jax.tree.map(lambda w, g: w - jnp.exp(theta) * g, learner.params, slope)
        return learner._replace(params=params), Report({"loss": value})


def make():
    return Reinforce()
'''
Path("my_objective.py").write_text(OBJECTIVE.lstrip())

# %% [markdown]
# `check_objective` says what is wrong with one, a line for each problem: parts that are missing, a
# learner that comes back in another shape, a loop that cannot be differentiated, numbers that are
# not finite. No line is good news.

# %%
print(check_objective("my_objective.py:make"))

# %% [markdown]
# An objective that is not quite one:

# %%
BROKEN = OBJECTIVE.replace("learner._replace(params=params)", "learner._replace(params=())")
Path("broken.py").write_text(BROKEN.lstrip())
print(*check_objective("broken.py:make"), sep="\n")

# %% [markdown]
# ## An environment
#
# A corridor of nine cells with a small reward at its near end and a large one at its far end.
# gymnax's interface: `reset` and `step` (six values, the last a dictionary with the
# `final_observation` before any reset), spaces, and `default_params` with a step limit.

# %%
ENVIRONMENT = '''
"""A corridor: 1 at the near end, 2 at the far end; every step costs a little."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

CELLS, START = 9, 4


class Params(NamedTuple):
    """What an episode is played with."""

    max_steps_in_episode: int = 20


class State(NamedTuple):
    """Where the agent stands, and since when."""

    cell: jax.Array
    time: jax.Array


class Corridor:
    """Left (0) or right (1); an end of the corridor ends the episode."""

    name = "corridor"
    default_params = Params()

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Discrete(CELLS)

    def reset(self, key, params):
        state = State(jnp.int32(START), jnp.int32(0))
        return state.cell, state

    def step(self, key, state, action, params):
        cell = state.cell + 2 * action - 1
        far, near = cell == CELLS - 1, cell == 0
        reward = 2.0 * far + 1.0 * near - 0.02
        terminated = far | near
        time = state.time + 1
        truncated = (time >= params.max_steps_in_episode) & ~terminated
        _, first = self.reset(key, params)
        ended = terminated | truncated
        after = jax.tree.map(lambda a, b: jnp.where(ended, a, b), first, State(cell, time))
        return after.cell, after, reward, terminated, truncated, {"final_observation": cell}


def make():
    return Corridor()
'''
Path("my_env.py").write_text(ENVIRONMENT.lstrip())

print(envs.check_env(envs.make("my_env.py:make")))

# %% [markdown]
# ## Search for its learning rate
#
# The configuration is the smallest preset's, with the rule, the environment and the sizes changed.
# A search begins at `init`: the logarithm of the rate is 0, the rate is 1.

# %%
base = preset("smoke")
config = replace(
    base,
    env="my_env.py:make",
    generations=2 if QUICK else 60,
    objective=replace(base.objective, rule="my_objective.py:make"),
    life=replace(base.life, environments=8, rollout=20, evaluation_environments=16),
    horizon=HorizonConfig(2, 3) if QUICK else HorizonConfig(5, 40),
    agent=AgentConfig(network="table"),
    evolution=replace(base.evolution, start="init"),
)
run = evolve(config, "runs/mine", quiet=True, overwrite=True)
print(f"learning rate: {np.exp(run.theta):.2f} after {run.generation} generations")

# %% [markdown]
# ## What it is worth
#
# `my_objective.py:make@runs/mine` is your rule with the parameters that a run found for it. One
# life first, of 8 environments of 20 steps an update; then several horizons. The environment has
# one level, so the agents differ by their luck alone, and no interval over levels could be claimed:
# the score is the mean return of many agents, 1.92 at best (four steps to the far end cost .08, and
# the end pays 2).

# %%
MINE = "my_objective.py:make@runs/mine"
request = TrainConfig(
    MINE, env="my_env.py:make", horizon=5 if QUICK else 40, out="runs/life", overwrite=True
)
curve = train(request, report=lambda line: None).curve
life_curve(
    curve.updates,
    {"return of an episode": {"sampled": curve.sampled, "greedy": curve.greedy}},
    title="one life in the corridor",
    steps_per_update=160,
)

# %%
asked = EvaluateConfig(
    objectives=(MINE, "random"),
    env="my_env.py:make",
    horizons=(2, 3) if QUICK else (2, 5, 10, 20, 40),
    levels=1,
    seeds=3 if QUICK else 64,
    out="corridor.csv",
)
rows = evaluate(asked, report=lambda line: None)
for name in dict.fromkeys(row.objective for row in rows):
    for horizon in asked.horizons:
        each = [r.score for r in rows if (r.objective, r.horizon) == (name, horizon)]
        error = np.std(each, ddof=1) / np.sqrt(len(each))
        print(f"{name:<12} N = {horizon:2d}: {np.mean(each):+.2f} +- {error:.2f} (standard error)")

# %% [markdown]
# From a shell, with the two files in the working directory:
#
# ```bash
# kairos evolve --preset smoke --rule my_objective.py:make --env my_env.py:make --out runs/shell
# kairos train --objective my_objective.py:make@runs/shell --env my_env.py:make --horizon 10
# ```
