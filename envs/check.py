"""``check_env``: what the inner loop relies on, executed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from envs.base import Environment, Key, Level, Transition
from envs.gymnax_adapter import adapt

_ENVIRONMENTS = 8
_SHORT = 10
_IMPURE = "{}: not pure, tracing it twice gives two programs"


def check_env(env: Any, steps: int = 48) -> list[str]:
    """Check an environment against the protocol of ``envs.base``.

    First without running anything: shapes and dtypes of every function, with and without ``vmap``,
    and that tracing twice gives one program. Then 8 environments on each of 3 levels take ``steps``
    random steps. So that episodes end, a level's step limit is lowered to at most 10 where it is a
    field ``max_steps_in_episode``. Endings have to be apart and come when the limit says so, the
    final observation has to be what a longer episode would have shown, indices stay in range,
    rewards are finite, and the same noise gives the same steps.

    Args:
        env: an :class:`~envs.base.Environment`, a gymnax-style object, or ``(object, params)``.
        steps: number of steps taken; 0 checks shapes only.

    Returns:
        Problems, one a line; empty if there are none.

    Example:
        >>> check_env(envs.make("small"))
        []
    """
    try:
        environment = adapt(env)
        problems = _check_shapes(environment)
        if not problems and steps > 0:
            problems = _check_steps(environment, steps)
    except Exception as error:
        # Whatever a foreign environment raises is a finding, not a failure of the check.
        line = (str(error).strip() or "no message").splitlines()[0]
        return [f"raises {type(error).__name__}: {line}"]
    return problems


def _check_shapes(env: Environment) -> list[str]:
    problems: list[str] = []

    def expect(what: str, leaf: Any, shape: tuple[int, ...], kind: Any) -> None:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            problems.append(f"{what}: not one array but {type(leaf).__name__}")
        elif leaf.shape != shape or not jnp.issubdtype(leaf.dtype, kind):
            problems.append(
                f"{what}: {leaf.dtype}{list(leaf.shape)}, not {kind.__name__}{list(shape)}"
            )

    def expect_same(what: str, after_step: PyTree, after_reset: PyTree) -> None:
        step, reset = (jax.tree_util.tree_leaves_with_path(t) for t in (after_step, after_reset))
        if [path for path, _ in step] != [path for path, _ in reset]:
            problems.append(f"{what}: another structure after a step than after a reset")
            return
        for (path, a), (_, b) in zip(step, reset, strict=True):
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                problems.append(
                    f"{what}{jax.tree_util.keystr(path)}: {a.dtype}{list(a.shape)} after a step, "
                    f"{b.dtype}{list(b.shape)} after a reset"
                )

    spec = env.spec
    if spec.max_steps < 1:
        problems.append(f"spec.max_steps: {spec.max_steps}, not at least 1")
    if spec.num_states is not None and spec.observation_shape != ():
        problems.append("spec.observation_shape: has axes although num_states counts states")
    seen = jnp.integer if spec.num_states is not None else jnp.floating

    key = jax.eval_shape(jax.random.key, 0)
    level = jax.eval_shape(env.sample_level, key)
    expect("step_limit", jax.eval_shape(env.step_limit, level), (), jnp.int32)
    if env.bounds is not None:
        low, high = jax.eval_shape(env.bounds, level)
        expect("bounds[0]", low, (), jnp.floating)
        expect("bounds[1]", high, (), jnp.floating)

    (observation, state), same = _trace(env.reset, key, level)
    if not same:
        problems.append(_IMPURE.format("reset"))
    expect("reset: observation", observation, spec.observation_shape, seen)
    noise = jax.eval_shape(lambda key: env.draw(key, (3, 2)), key)
    for leaf in jax.tree.leaves(noise):
        if leaf.shape[:2] != (3, 2):
            problems.append(f"draw: a leaf {list(leaf.shape)} does not begin with the shape asked")
    if problems:
        return problems

    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[2:], leaf.dtype), noise)
    action = jax.eval_shape(lambda key: _actions(env, key, ()), key)
    step, same = _trace(env.step, one, state, action, level)
    if not same:
        problems.append(_IMPURE.format("step"))
    if not isinstance(step, Transition):
        return [f"step: returns {type(step).__name__}, not a Transition"]
    expect("step: observation", step.observation, spec.observation_shape, seen)
    expect("step: final_observation", step.final_observation, spec.observation_shape, seen)
    expect("step: reward", step.reward, (), jnp.floating)
    expect("step: terminated", step.terminated, (), jnp.bool_)
    expect("step: truncated", step.truncated, (), jnp.bool_)
    expect_same("step: state", step.state, state)
    expect_same("step: observation", step.observation, observation)
    expect_same("step: final_observation", step.final_observation, observation)

    inputs = (one, state, action, level)
    many = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), inputs)
    reward = jax.eval_shape(jax.vmap(env.step), *many).reward
    if not problems and reward.shape != (2,):
        problems.append(f"step: under vmap over 2 a reward is {list(reward.shape)}")
    return problems


def _check_steps(env: Environment, steps: int) -> list[str]:
    problems: list[str] = []
    keys = jax.random.split(jax.random.key(0), 3)
    levels = _sampler(env.sample_level)(keys)
    limit = np.asarray(jax.vmap(env.step_limit)(levels))
    longer = None
    if hasattr(levels, "max_steps_in_episode") and hasattr(levels, "replace"):
        limit = np.minimum(limit, _SHORT)
        was = levels.max_steps_in_episode
        levels = levels.replace(max_steps_in_episode=jnp.asarray(limit, was.dtype))
        longer = levels.replace(max_steps_in_episode=jnp.asarray(limit + 2 * steps, was.dtype))
    rollout = jax.jit(lambda *inputs: _rollout(env, steps, *inputs))
    results = jax.device_get(rollout(keys, levels, levels if longer is None else longer))
    again = jax.device_get(rollout(keys, levels, levels if longer is None else longer))
    if not all(map(_equal, jax.tree.leaves(results), jax.tree.leaves(again))):
        problems.append("step: not pure, the same noise gives other steps")

    step, uncut = results
    ended = step.terminated | step.truncated
    if (step.terminated & step.truncated).any():
        problems.append("step: terminated and truncated at once")
    if not np.isfinite(step.reward).all():
        problems.append("step: a reward is not finite")
    if not _equal(step.observation[~ended], step.final_observation[~ended]):
        problems.append("step: final_observation is not the observation while an episode goes on")
    # Where the limit itself is seen, a longer episode looks different anyway.
    sees_limit = not _equal(step.final_observation[~ended], uncut.final_observation[~ended])
    if not (longer is None or sees_limit) and not _equal(
        step.final_observation[step.truncated], uncut.observation[step.truncated]
    ):
        problems.append("step: final_observation of a truncated episode is not what followed it")
    for what, seen in (("observation", step.observation), ("final", step.final_observation)):
        if (
            env.spec.num_states is not None
            and not ((seen >= 0) & (seen < env.spec.num_states)).all()
        ):
            problems.append(f"step: {what}: an index outside 0 .. {env.spec.num_states - 1}")

    length = np.zeros(ended.shape[:2], int)
    on_time = True
    for t in range(steps):
        length += 1
        due = (length == limit[:, None]) & ~step.terminated[..., t]
        on_time &= bool((step.truncated[..., t] == due).all())
        length[ended[..., t]] = 0
    if not on_time:
        problems.append("step: an episode is not truncated exactly at its step limit")
    return problems


@lru_cache(maxsize=16)
def _sampler(sample_level: Callable[[Key], Level]) -> Any:
    return jax.jit(jax.vmap(sample_level))


def _rollout(
    env: Environment, steps: int, keys: Key, levels: Level, longer: Level
) -> tuple[Transition, Transition]:
    """Random steps ``[L, B, T]``, and the same steps had each one been taken in ``longer``."""

    def one(start: Key, inputs: tuple[PyTree, Array], level: Level, longer: Level) -> Any:
        def go(state: PyTree, inputs: tuple[PyTree, Array]) -> tuple[PyTree, Any]:
            step = env.step(inputs[0], state, inputs[1], level)
            return step.state, (step, env.step(inputs[0], state, inputs[1], longer))

        return jax.lax.scan(go, env.reset(start, level)[1], inputs)[1]

    shape = (keys.shape[0], _ENVIRONMENTS)
    start = jax.random.split(keys[0], math.prod(shape)).reshape(shape)
    noise = env.draw(keys[1], (*shape, steps))
    several = jax.vmap(one, (0, 0, None, None))
    return jax.vmap(several)(
        start, (noise, _actions(env, keys[2], (*shape, steps))), levels, longer
    )


def _actions(env: Environment, key: Key, shape: tuple[int, ...]) -> Array:
    """Random ones, by one draw of numbers in a row: anything else takes longer to compile."""
    shape = (*shape, *env.spec.action_shape)
    u = jax.random.uniform(key, (math.prod(shape),)).reshape(shape)
    number = env.spec.num_actions
    return 2 * u - 1 if number is None else jnp.floor(u * number).astype(jnp.int32)


def _trace(function: Callable[..., Any], *inputs: PyTree) -> tuple[PyTree, bool]:
    """Shapes of what comes out, and whether tracing twice gives one program."""
    # A new function each time, since JAX remembers what it traced.
    traces = [
        jax.make_jaxpr(lambda *args: function(*args), return_shape=True)(*inputs) for _ in range(2)
    ]
    programs = [
        (re.sub("0x[0-9a-f]+", "", str(program)), [str(const) for const in program.consts])
        for program, _ in traces
    ]
    return traces[0][1], programs[0] == programs[1]


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=np.issubdtype(a.dtype, np.floating))
