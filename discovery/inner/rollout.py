"""Acting: a scan over T steps of B environments of one agent."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from discovery.inner.scaling import Statistics, see
from envs.base import Environment
from learned_objectives.base import Experience, Key, Network


def rollout(
    env: Environment,
    network: Network,
    params: PyTree,
    level: PyTree,
    observation: PyTree,
    state: PyTree,
    key: Key,
    steps: int,
    scaling: Statistics = (),
) -> tuple[PyTree, PyTree, Experience]:
    """Act for ``steps`` steps in every environment of an agent.

    Environments reset themselves, and what followed the last action of an episode is kept.

    Args:
      env: the environment, functions of one.
      network: the agent's.
      params: the agent's.
      level: shared by all its environments.
      observation: where they stand, ``[B, ...]``.
      state: where they stand, ``[B, ...]``.
      key: consumed.
      steps: T.
      scaling: statistics by which the agent is shown observations.

    Returns:
      Observation and state afterwards, and the experience ``[T, B, ...]``, none of it scaled.
    """
    batch = jax.tree.leaves(observation)[0].shape[0]
    env_key, action_key = jax.random.split(key)
    # All randomness of the rollout at once: one large draw instead of T small ones.
    noise = env.draw(env_key, (steps, batch))
    uniform = jax.random.uniform(action_key, (steps, batch, network.noise_size))

    def step(carry: tuple[Any, Any], drawn: tuple[Any, Array]) -> tuple[tuple[Any, Any], Any]:
        observation, state = carry
        env_noise, action_noise = drawn
        outputs = network.act(params, see(scaling, observation))
        action = network.sample(outputs, action_noise)
        after = jax.vmap(env.step, (0, 0, 0, None))(env_noise, state, action, level)
        seen = Experience(
            observation=observation,
            action=action,
            reward=after.reward,
            terminated=after.terminated,
            truncated=after.truncated,
            next_observation=after.final_observation,
            behaviour=outputs,
        )
        return (after.observation, after.state), seen

    (observation, state), experience = jax.lax.scan(step, (observation, state), (noise, uniform))
    return observation, state, experience


CHUNK = 16
"""Steps between two looks at whether every episode has ended."""


def episode_return(
    env: Environment,
    network: Network,
    params: PyTree,
    level: PyTree,
    key: Key,
    episodes: int,
    greedy: Array,
    scaling: Statistics = (),
    whole: bool = False,
) -> Array:
    """Mean undiscounted return of the first episode of fresh environments, up to the step limit.

    Args:
      env: the environment.
      network: the agent's.
      params: the agent's.
      level: where it is tested.
      key: consumed.
      episodes: E.
      greedy: take the most likely action instead of sampling; traced.
      scaling: the agent's statistics, by which it is shown observations; rewards stay as they are.
      whole: step on to the limit when every episode has ended; the result is the same.

    Returns:
      A scalar. NaN if a return is.
    """
    reset_key, key = jax.random.split(key)
    observation, state = jax.vmap(env.reset, (0, None))(
        jax.random.split(reset_key, episodes), level
    )

    def step(carry: Any, drawn: Any) -> tuple[Any, None]:
        observation, state, alive, total = carry
        env_noise, action_noise = drawn
        outputs = network.act(params, see(scaling, observation))
        action = jnp.where(greedy, network.mode(outputs), network.sample(outputs, action_noise))
        after = jax.vmap(env.step, (0, 0, 0, None))(env_noise, state, action, level)
        total = total + jnp.where(alive, after.reward, 0)
        alive = alive & ~(after.terminated | after.truncated)
        return (after.observation, after.state, alive, total), None

    def chunk(carry: Any) -> Any:
        index, inner = carry
        env_key, action_key = jax.random.split(jax.random.fold_in(key, index))
        noise = env.draw(env_key, (CHUNK, episodes))
        uniform = jax.random.uniform(action_key, (CHUNK, episodes, network.noise_size))
        return index + 1, jax.lax.scan(step, inner, (noise, uniform))[0]

    limit = env.step_limit(level)
    start = (observation, state, jnp.ones(episodes, bool), jnp.zeros(episodes))
    _, (_, _, _, total) = jax.lax.while_loop(
        lambda carry: (carry[0] * CHUNK < limit) & (whole | carry[1][2].any()),
        chunk,
        (jnp.zeros((), jnp.int32), start),
    )
    return total.mean()
