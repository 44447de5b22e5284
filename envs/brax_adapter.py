"""From Brax's physics to an :class:`~envs.base.Environment`.

Over Brax's bare environments, none of its wrappers: we count steps, keep endings apart, keep what
followed the last action, and start episodes anew.

Where an episode starts. A reset is physics too, and as a part of a step it would be computed at
every one, whether an episode ends there or not. So a reset draws ``starts`` first states at once.
The environment begins at the first of them; an episode that ends is followed by one that begins at
any. Lost is that an environment meets no more than ``starts`` first states until its next reset: B
environments of an agent have B x ``starts`` in all. The first episode after a reset, by which
agents are scored, begins at a state that is drawn afresh.
"""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PyTree, Shaped

from envs.base import Environment, EnvSpec, Key, Level, Transition
from envs.registry import MissingExtra

BACKEND = "generalized"
"""Brax's own default: what a name without a backend means."""


@no_type_check
class BraxLevel(struct.PyTreeNode):
    """All that can differ between levels."""

    max_steps_in_episode: Int[Array, ""]
    """Actions after which an episode is cut."""


@no_type_check
class BraxState(struct.PyTreeNode):
    """Where one environment stands."""

    body: PyTree
    """Brax's state."""
    time: Int[Array, ""]
    """Actions taken in this episode."""
    starts: PyTree
    """Brax's states of which an episode can be the first, leaves ``[starts, ...]``."""


def load(name: str, **options: Any) -> Environment:
    """One of Brax's environments, ``brax/ENVIRONMENT`` or ``brax/ENVIRONMENT/BACKEND``.

    Backends take steps of different length: they are different tasks, never to be compared. So the
    name of the environment that is made always has its backend.

    Args:
        name: as in the registry; without a backend it is ``generalized``, Brax's own default.
        options: of :func:`from_brax`.

    Raises:
        MissingExtra: brax, or MuJoCo, which it needs, is not installed.

    Example:
        >>> reacher = load("brax/reacher/spring", action_repeat=4)
        >>> reacher.spec.max_steps
        250
    """
    _, kind, *backend = name.split("/")
    try:
        # What it prints while loading must not get between the lines of a machine's output.
        with contextlib.redirect_stdout(io.StringIO()):
            # Not before it is needed: it takes ten seconds.
            from brax import envs as brax
    except ImportError as error:
        raise MissingExtra(name, "brax") from error
    if kind == "fast":  # moves without physics
        return from_brax(brax.get_environment(kind), name, **options)
    chosen = backend[0] if backend else BACKEND
    with contextlib.redirect_stdout(io.StringIO()):
        body = brax.get_environment(kind, backend=chosen)
    return from_brax(body, f"brax/{kind}/{chosen}", **options)


def from_brax(
    env: Any, name: str, limit: int = 1000, action_repeat: int = 1, starts: int = 4
) -> Environment:
    """Wrap an environment with Brax's interface, itself unwrapped.

    It is terminated where Brax says ``done``, and truncated at its step limit where it is not.
    Actions are in [-1, 1], what is beyond counts as the bound. Noise is one uniform a step, which
    tells where the next episode would start.

    Args:
        env: the environment: ``reset(key)`` and ``step(state, action)`` give states with ``obs``,
            ``reward`` and ``done``.
        name: what to call it.
        limit: steps of Brax after which an episode is cut.
        action_repeat: steps of Brax that one action takes, as Brax counts them; rewards add up, and
            an episode that is done stands still. Published results for the reacher have 4.
        starts: first states that a reset draws.

    Returns:
        An environment without ``bounds``; every level of it is the same.

    Raises:
        ValueError: a number below one, or observations that are not one array; in one line.
    """
    for what, number in {"limit": limit, "action_repeat": action_repeat, "starts": starts}.items():
        if number < 1:
            raise ValueError(f"{name}: {what} must be at least 1, not {number}")
    blank = jax.eval_shape(env.reset, jax.eval_shape(jax.random.key, 0))
    if not isinstance(blank.obs, jax.ShapeDtypeStruct):
        raise ValueError(f"{name}: an observation has to be one array, not a {type(blank.obs)}")
    longest = -(-limit // action_repeat)

    def sample_level(key: Key) -> Level:
        return BraxLevel(max_steps_in_episode=jnp.asarray(longest, jnp.int32))

    def draw(key: Key, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
        # The same numbers as for the shape itself, compiled faster.
        return jax.random.uniform(key, (math.prod(shape),)).reshape(shape)

    def reset(key: Key, level: Level) -> tuple[PyTree, PyTree]:
        drawn = jax.vmap(lambda key: like(env.reset(key)))(jax.random.split(key, starts))
        body = jax.tree.map(lambda leaf: leaf[0], drawn)
        return see(body), BraxState(body=body, time=jnp.zeros((), jnp.int32), starts=drawn)

    def step(noise: Array, state: Any, action: Array, level: Any) -> Transition:
        body, reward = move(state.body, jnp.clip(action, -1, 1))
        time = state.time + 1
        terminated = body.done > 0
        truncated = (time >= level.max_steps_in_episode) & ~terminated
        ended = terminated | truncated
        start = jnp.floor(noise * starts).astype(jnp.int32)
        going_on = jax.tree.map(
            lambda first, after: jnp.where(ended, first[start], after), state.starts, body
        )
        return Transition(
            observation=see(going_on),
            state=state.replace(body=going_on, time=jnp.where(ended, 0, time)),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            final_observation=see(body),
        )

    def move(body: Any, action: Shaped[Array, " A"]) -> tuple[Any, Float[Array, ""]]:
        def once(carry: tuple[Any, Array, Array], _: None) -> tuple[Any, None]:
            body, total, done = carry
            # A copy, since some environments write into the dictionaries of what they are given.
            after = like(env.step(jax.tree.map(lambda leaf: leaf, body), action))
            body = jax.tree.map(lambda new, old: jnp.where(done, old, new), after, body)
            total = total + jnp.where(done, 0, jnp.asarray(after.reward, jnp.float32))
            return (body, total, done | (after.done > 0)), None

        start = (body, jnp.zeros(()), jnp.zeros((), bool))
        (body, total, _), _ = jax.lax.scan(once, start, length=action_repeat)
        return body, total

    def like(body: Any) -> Any:
        """With the types that it has after a reset, none of them weak."""
        return jax.tree.map(lambda leaf, reset: jnp.asarray(leaf, reset.dtype), body, blank)

    def see(body: Any) -> Float[Array, "*shape"]:
        return jnp.asarray(body.obs, jnp.float32)

    spec = EnvSpec(
        name=name,
        observation_shape=tuple(blank.obs.shape),
        num_states=None,
        num_actions=None,
        action_shape=(int(env.action_size),),
        max_steps=longest,
    )
    return Environment(
        spec=spec,
        sample_level=sample_level,
        reset=reset,
        draw=draw,
        step=step,
        step_limit=lambda level: jnp.asarray(level.max_steps_in_episode, jnp.int32),
        bounds=None,
        gym=env,
    )
