"""``check_objective``: what lives, searches and evaluation rely on in an objective, executed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from discovery.config import LifeConfig
from discovery.evaluation.horizons import default_agent
from discovery.inner.build import make_environment, make_hyper, make_world, with_optimizer
from discovery.inner.lifetime import Task, World, birth, grow, is_finite
from learned_objectives.base import Head, Learner, Objective, Report
from learned_objectives.library import make_rule

_LIFE = LifeConfig(environments=4, rollout=8, evaluation_environments=4)
_UPDATES = 2


def check_objective(objective: Any, env: str = "small") -> list[str]:
    """Check an objective against the protocol of ``learned_objectives.base``.

    First without running anything: that the parts are there and that it can be hashed (programs are
    found again by it); that an update gives back a learner of the same shapes and dtypes, as a loop
    over updates needs; that what it reports are scalars; that tracing it twice gives one program;
    and, if it has parameters, that an update can be differentiated by them (loops have to be scans
    of static length). Then two agents live two updates under one seed: they have to end as the same
    finite numbers.

    Args:
      objective: the objective, or its name as :func:`learned_objectives.library.make_rule` takes
        it, such as ``file.py:make``.
      env: where its agents live.

    Returns:
      Problems, one a line; empty if there are none.

    Raises:
      UnknownName: no environment has this name.

    Example:
      >>> from learned_objectives.handwritten import A2C
      >>> check_objective(A2C(), "chain")
      []
    """
    environment = make_environment(env)
    try:
        if isinstance(objective, str):
            objective = make_rule(objective)
        if problems := _check_parts(objective):
            return problems
        reason = objective.unsupported(environment.spec)
        if reason is not None:
            return [f"cannot be used in {env}: {reason}"]
        agent = default_agent(environment, objective)
        world = make_world(with_optimizer(objective, agent), env, agent, _LIFE)
        hyper = make_hyper(world.objective, agent)
        return _check_shapes(world, hyper) or _check_lives(world, hyper)
    except Exception as error:
        # Whatever a foreign objective raises is a finding, not a failure of the check.
        return [_raised(error)]


def _raised(error: Exception) -> str:
    line = (str(error).strip() or "no message").splitlines()[0]
    return f"raises {type(error).__name__}: {line}"


def _check_parts(objective: Any) -> list[str]:
    wanted = [name for name in vars(Objective) if not name.startswith("_")]
    missing = [name for name in wanted if not hasattr(objective, name)]
    if missing:
        return [f"no objective: it has no {', '.join(missing)}"]
    problems = []
    try:
        hash(objective)
    except TypeError:
        problems.append("cannot be hashed: make it a frozen dataclass")
    heads = objective.heads
    if not isinstance(heads, Mapping) or not all(isinstance(h, Head) for h in heads.values()):
        return [*problems, "heads: not a mapping from names to Head"]
    if "policy" not in heads or heads["policy"].size != "actions":
        problems.append('heads: no "policy" of size "actions", which acts')
    return problems


def _check_shapes(world: World, hyper: Any) -> list[str]:
    objective = world.objective
    key = jax.eval_shape(lambda: jax.random.key(0))
    theta = jax.eval_shape(objective.init, key)
    problems = [
        f"init: {_path(path)} is {leaf.dtype}, and a search moves floating-point numbers"
        for path, leaf in jax.tree.leaves_with_path(theta)
        if not jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    level = jax.eval_shape(world.env.sample_level, key)
    task = Task(level, jax.eval_shape(lambda: jnp.int32(0)))
    life = jax.eval_shape(lambda *a: birth(world, a[0], hyper, *a[1:]), theta, task, key)
    if not isinstance(life.learner, Learner):
        return [*problems, f"birth: not a Learner but {type(life.learner).__name__}"]
    params = jax.eval_shape(world.network.init, key)
    problems += _differences("birth: params", params, life.learner.params)

    def update(*inputs: Any) -> Any:
        life, _, report = grow(world, inputs[0], hyper, *inputs[1:])
        return life.learner, report

    # A new function each time, since JAX remembers what it traced.
    traces = [
        jax.make_jaxpr(lambda *a: update(*a), return_shape=True)(theta, task, life)
        for _ in range(2)
    ]
    learner, report = traces[0][1]
    if not isinstance(learner, Learner) or not isinstance(report, Report):
        kinds = f"{type(learner).__name__}, {type(report).__name__}"
        return [*problems, f"update: not a Learner and a Report but {kinds}"]
    problems += _differences("update: the learner", life.learner, learner)
    for what, numbers in (("metrics", report.metrics), ("penalties", report.penalties)):
        problems += [
            f"update: {what}: {name} is no scalar but {list(value.shape)}"
            for name, value in numbers.items()
            if value.shape != ()
        ]
    programs = [
        (re.sub("0x[0-9a-f]+", "", str(program)), [str(const) for const in program.consts])
        for program, _ in traces
    ]
    if programs[0] != programs[1]:
        problems.append("update: not pure, tracing it twice gives two programs")
    if not problems and jax.tree.leaves(theta):
        try:
            jax.eval_shape(jax.grad(lambda *a: _size(update(*a)[0].params)), theta, task, life)
        except Exception as error:
            problems.append(f"update: cannot be differentiated by its parameters, {_raised(error)}")
    return problems


def _check_lives(world: World, hyper: Any) -> list[str]:
    """Two updates of two agents that are the same."""

    def live(key: Any) -> Any:
        theta = world.objective.init(key)
        task = Task(world.env.sample_level(key), jnp.int32(_UPDATES))
        life = birth(world, theta, hyper, task, key)

        def step(life: Any, _: Any) -> Any:
            life, _, report = grow(world, theta, hyper, task, life)
            return life, report.metrics

        life, metrics = jax.lax.scan(step, life, length=_UPDATES)
        return life.learner, metrics, is_finite(life.learner.params)

    keys = jnp.stack([jax.random.key(0)] * 2)
    learner, metrics, finite = jax.device_get(jax.jit(jax.vmap(live))(keys))
    problems = [
        f"update: metric {name} is not finite"
        for name, value in metrics.items()
        if not np.isfinite(value).all()
    ]
    if not finite.all():
        problems.append("update: a parameter of the agent is not finite")
    elif not all(np.array_equal(leaf[0], leaf[1]) for leaf in jax.tree.leaves(learner.params)):
        problems.append("update: the same experience gives two agents that differ")
    return problems


def _size(params: PyTree) -> Any:
    return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))


def _differences(what: str, expected: PyTree, found: PyTree) -> list[str]:
    """Leaves that have another shape or dtype, or a tree of another structure."""
    before, after = jax.tree.structure(expected), jax.tree.structure(found)
    if bool(before != after):  # type: ignore[operator]
        return [f"{what}: another structure than before"]
    pairs = zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(found), strict=True)
    return [
        f"{what}{_path(path)}: {_shown(old)} became {_shown(new)}"
        for (path, old), new in pairs
        if (old.shape, old.dtype) != (new.shape, new.dtype)
    ]


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path)


def _shown(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


__all__ = ["check_objective"]
