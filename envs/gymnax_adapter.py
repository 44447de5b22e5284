"""From any environment with gymnax 1.0's API to an :class:`~envs.base.Environment`."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from envs.base import Environment, EnvSpec, Key, Level, Transition
from envs.registry import MissingExtra, UnknownName


def load(name: str, **options: Any) -> Environment:
    """One of gymnax's own environments by its id.

    Args:
        name: gymnax's id, such as ``"CartPole-v1"``.
        options: passed on to ``gymnax.make``.

    Raises:
        MissingExtra: gymnax, or six, which it needs, is not installed.
        UnknownName: the installed gymnax does not know the id.
    """
    try:
        # Not before it is needed: it takes seconds and starts a JAX backend.
        import gymnax
    except ImportError as error:
        raise MissingExtra(name, "gym") from error
    if name not in gymnax.registered_envs:
        raise UnknownName("gymnax environment", name, tuple(gymnax.registered_envs))
    env, params = gymnax.make(name, **options)
    return from_gymnax(env, params, name)


def adapt(thing: Any, name: str | None = None) -> Environment:
    """An :class:`~envs.base.Environment` as it is, else from a gymnax-style one.

    Args:
        thing: an ``Environment``, an object with gymnax's API, or ``(object, params)``.
        name: what to call it; by default its own name.

    Raises:
        ValueError: it is none of these; in one line.
    """
    if isinstance(thing, Environment):
        return thing
    env, params = thing if isinstance(thing, tuple) and len(thing) == 2 else (thing, None)
    lacking = [method for method in ("reset", "step", "action_space") if not hasattr(env, method)]
    if lacking:
        raise ValueError(
            f"{name or type(env).__name__}: neither an envs.base.Environment nor gymnax-style: "
            f"it has no {', '.join(lacking)}"
        )
    return from_gymnax(env, params, name)


def from_gymnax(env: Any, params: Any = None, name: str | None = None) -> Environment:
    """Wrap an environment that speaks gymnax 1.0, wrapped by gymnax's own wrappers or not.

    Its ``step`` is called as it is: some environments and wrappers keep books in there. What it
    says of endings and of the final observation passes through, but an episode that terminates at
    its step limit is not truncated too. Noise is a key for each step.

    Observations become float32 arrays of at least one axis, whatever their shape; an integer that
    counts states (``Discrete`` space) stays an index, so that a table can act. Continuous actions
    are in [-1, 1], what is beyond counts as the bound, and become what lies as far between the
    bounds of the level's action space; a space without finite bounds gets them as they are.

    Args:
        env: the environment.
        params: its parameters, which are the only level; by default ``env.default_params``.
        name: what to call it.

    Returns:
        An environment without ``bounds``.

    Raises:
        ValueError: it does not speak gymnax 1.0; in one line.
    """
    params = env.default_params if params is None else params
    name = str(getattr(env, "name", type(env).__name__)) if name is None else name
    limit = getattr(params, "max_steps_in_episode", None)
    if limit is None:
        raise ValueError(f"{name}: its parameters have no max_steps_in_episode")
    shapes = _shapes(env, params, name)
    states = getattr(env.observation_space(params), "n", None) if shapes.shape == () else None
    actions = env.action_space(params)
    number = getattr(actions, "n", None)
    bounded = number is None and _finite(actions)

    def see(observation: Array) -> Array:
        if states is not None:
            return jnp.asarray(observation, jnp.int32)
        return jnp.asarray(observation, jnp.float32).reshape(shape)

    def draw(key: Key, shape: tuple[int, ...]) -> Key:
        return jax.random.split(key, math.prod(shape)).reshape(shape)

    def reset(key: Key, level: Level) -> tuple[PyTree, PyTree]:
        observation, state = env.reset(key, level)
        return see(observation), _strong(state)

    def between_bounds(action: Array, level: Level) -> Array:
        space = env.action_space(level)
        share = (jnp.clip(action, -1, 1) + 1) / 2
        return jnp.asarray(space.low + share * (space.high - space.low), action.dtype)

    def step(key: Key, state: PyTree, action: Array, level: Level) -> Transition:
        if bounded:
            action = between_bounds(action, level)
        seen, state, reward, terminated, truncated, info = env.step(key, state, action, level)
        terminated = jnp.asarray(terminated, bool)
        return Transition(
            observation=see(seen),
            state=_strong(state),
            reward=jnp.asarray(reward, jnp.float32).reshape(()),
            terminated=terminated,
            truncated=jnp.asarray(truncated, bool) & ~terminated,
            final_observation=see(info["final_observation"]),
        )

    def step_limit(level: Any) -> Int[Array, ""]:
        return jnp.asarray(level.max_steps_in_episode, jnp.int32)

    shape = () if states is not None else shapes.shape or (1,)
    spec = EnvSpec(
        name=name,
        observation_shape=shape,
        num_states=None if states is None else int(states),
        num_actions=None if number is None else int(number),
        action_shape=() if number is not None else tuple(actions.shape),
        max_steps=int(limit),
    )
    return Environment(
        spec=spec,
        sample_level=lambda key: _strong(params),
        reset=reset,
        draw=draw,
        step=step,
        step_limit=step_limit,
        bounds=None,
        gym=env,
    )


def _finite(space: Any) -> bool:
    """Whether a space has bounds, and all of them are numbers."""
    bounds = [getattr(space, side, np.inf) for side in ("low", "high")]
    return all(bool(np.isfinite(np.asarray(bound)).all()) for bound in bounds)


def _shapes(env: Any, params: Any, name: str) -> jax.ShapeDtypeStruct:
    """The shape of an observation, after a look at what reset and step return."""
    key = jax.eval_shape(jax.random.key, 0)
    action = jax.eval_shape(env.action_space(params).sample, key)
    observation, state = jax.eval_shape(env.reset, key, params)
    result = jax.eval_shape(env.step, key, state, action, params)
    if len(result) != 6:
        raise ValueError(f"{name}: step returns {len(result)} values, gymnax 1.0 has six")
    if "final_observation" not in result[5]:
        raise ValueError(f"{name}: step's info has no 'final_observation', as gymnax 1.0 has")
    if not isinstance(observation, jax.ShapeDtypeStruct):
        raise ValueError(f"{name}: an observation has to be one array, not a {type(observation)}")
    return observation


def _strong(tree: PyTree) -> PyTree:
    """The same values without weak types, which would cost loops a second trace."""
    return jax.tree.map(
        lambda leaf: jax.lax.convert_element_type(leaf, jnp.result_type(leaf)), tree
    )
