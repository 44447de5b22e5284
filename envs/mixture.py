"""Several environments as one: a level of the mixture is a level of one of them.

An agent that lives in one must be able to live in all: actions and observations have the same
shape. Only tables may differ in size, since rows that are never looked up change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from envs.base import Environment, EnvSpec, Key, Level, Transition


class MixedLevel(NamedTuple):
    """A level of one environment, with one of each other that is not used."""

    which: Int[Array, ""]
    """Which environment it is of."""
    levels: tuple[Level, ...]


def mixture(parts: Sequence[Environment]) -> Environment:
    """Environments as a family of levels of all of them, equally often.

    A level of the mixture plays exactly as in its own environment: the same keys give the same
    resets and steps. Where lives on levels of several environments are computed together, each
    step computes all of them.

    Args:
        parts: at least one; names are joined by commas.

    Returns:
        The environment, whose states are tuples; with ``bounds`` if every part has them.

    Raises:
        ValueError: no agent could live in all; in one line.

    Example:
        >>> mixture([envs.make("dense"), envs.make("sparse")]).spec.name
        'dense,sparse'
    """
    parts = tuple(parts)
    first = parts[0].spec
    for part in parts[1:]:
        for what in _SIDES:
            ours, other = (_seen_as(spec, what) for spec in (first, part.spec))
            if ours != other:
                raise ValueError(
                    f"{first.name} and {part.spec.name} do not mix: {what} are {ours} and {other}"
                )

    def by_level(functions: Sequence[Callable[..., Any]], level: Any, *arguments: Any) -> Any:
        return jax.lax.switch(level.which, functions, *arguments)

    def sample_level(key: Key) -> Level:
        which_key, level_key = jax.random.split(key)
        return MixedLevel(
            which=jax.random.randint(which_key, (), 0, len(parts)),
            levels=tuple(part.sample_level(level_key) for part in parts),
        )

    def reset(key: Key, level: Any) -> tuple[PyTree, PyTree]:
        begun = [part.reset(key, own) for part, own in zip(parts, level.levels, strict=True)]
        shown = [observation for observation, _ in begun]
        observation = jax.tree.map(lambda *seen: jnp.stack(seen)[level.which], *shown)
        return observation, tuple(state for _, state in begun)

    def draw(key: Key, shape: tuple[int, ...]) -> PyTree:
        return tuple(part.draw(key, shape) for part in parts)

    def step_of(i: int) -> Callable[..., Transition]:
        def step(noise: Any, states: Any, action: Array, level: Any) -> Transition:
            after = parts[i].step(noise[i], states[i], action, level.levels[i])
            return after._replace(state=(*states[:i], after.state, *states[i + 1 :]))

        return step

    steps = [step_of(i) for i in range(len(parts))]

    def step(noise: PyTree, state: PyTree, action: Array, level: Any) -> Transition:
        return by_level(steps, level, noise, state, action, level)

    def step_limit(level: Any) -> Int[Array, ""]:
        limits = [part.step_limit(own) for part, own in zip(parts, level.levels, strict=True)]
        return jnp.stack(limits)[level.which]

    def bounds(level: Any) -> tuple[Array, Array]:
        each = [lambda level, i=i, of=part.bounds: of(level.levels[i]) for i, part in told]
        return by_level(each, level, level)

    told = [(i, part) for i, part in enumerate(parts) if part.bounds is not None]
    rows = [part.spec.num_states for part in parts if part.spec.num_states is not None]
    return Environment(
        spec=EnvSpec(
            name=",".join(part.spec.name for part in parts),
            observation_shape=first.observation_shape,
            num_states=max(rows) if rows else None,
            num_actions=first.num_actions,
            action_shape=first.action_shape,
            max_steps=max(part.spec.max_steps for part in parts),
        ),
        sample_level=sample_level,
        reset=reset,
        draw=draw,
        step=step,
        step_limit=step_limit,
        bounds=bounds if len(told) == len(parts) else None,
        gym=tuple(part.gym for part in parts),
    )


def alike(first: EnvSpec, second: EnvSpec) -> bool:
    """Whether an agent that lives in one environment could live in the other.

    Example:
        >>> alike(envs.make("dense").spec, envs.make("sparse").spec)
        True
    """
    return all(_seen_as(first, what) == _seen_as(second, what) for what in _SIDES)


_SIDES = ("observations", "actions")


def _seen_as(spec: EnvSpec, what: str) -> str:
    """Observations or actions of an environment in words, the same where an agent can have both."""
    if what == "observations":
        if spec.num_states is not None:
            return "the index of a state"
        return f"arrays of shape {spec.observation_shape}"
    if spec.num_actions is None:
        return f"continuous, of shape {spec.action_shape}"
    return f"{spec.num_actions} numbers"
