"""A search over environments that no one agent could live in, one after another in a generation.

The pairs of a generation are shared out among *kinds* of environments: those of one kind look alike
to an agent, and are one environment whose levels are of each of them. Every kind has its own agents
and its own program; theta, and what a generation makes of its scores, are common. Scores are
compared within a kind only.

Shape legend: ``K`` kinds, ``M`` antithetic pairs, of which each kind has ``M / K``.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from discovery.config import Config, ConfigError, mixed
from discovery.devices import home, put
from discovery.inner.build import make_environment, make_hyper, make_objective, static
from discovery.inner.cohort import Lives
from discovery.outer import search as whole
from discovery.outer.evolution import make_strategy, strongly_typed
from discovery.outer.low_rank import check_products
from discovery.outer.scoring import fitness, lived, make_returns, measure
from discovery.outer.tasks import paired_lives
from envs.mixture import alike
from learned_objectives.base import Theta


def kinds(config: Config) -> tuple[str, ...]:
    """Names of environments, those that look alike to an agent joined by commas.

    Shapings that rank scores of different pairs keep every environment apart, since their returns
    do not compare.

    Args:
      config: whose ``env`` names one environment, or several with commas.

    Returns:
      K names, in the order in which they were first given.

    Example:
      >>> from dataclasses import replace
      >>> from discovery.config import preset
      >>> kinds(replace(preset("ta-lpo-cpu"), env="CartPole-v1,Catch-bsuite"))
      ('CartPole-v1', 'Catch-bsuite')
    """
    parts = mixed(config.env)
    if len(parts) == 1:
        return parts
    if len(set(parts)) < len(parts):
        raise ConfigError(f"{config.env} names an environment twice")
    if config.evolution.shaping in ("centred_rank", "group_z"):
        return parts
    groups: list[list[str]] = []
    for part in parts:
        spec = make_environment(part).spec
        for group in groups:
            if alike(make_environment(group[0]).spec, spec):
                group.append(part)
                break
        else:
            groups.append([part])
    return tuple(",".join(group) for group in groups)


def make_several_search(config: Config) -> whole.Search:
    """Evolution over whole lives in several kinds of environments.

    A generation has ``M / K`` pairs in each kind: pair j of kind k is candidate ``k M / K + j``.
    Its horizons are drawn and sorted, its lives run, and its scores become weights, kind by kind;
    the weights of all then move the mean once.

    Args:
      config: checked with ``config.check``.

    Returns:
      The search. Its ``world`` and ``cohort`` are those of the first kind.

    Raises:
      ConfigError: pairs cannot be shared out, or the parts do not go together.
    """
    e, names = config.evolution, kinds(config)
    _refuse(config, names)
    share = e.pairs // len(names)
    objective: Any = make_objective(config.objective, config.agent)
    like = whole.shapes(objective, config)
    strategy = make_strategy(e, like)
    agent = static(config.agent)
    programs = [
        whole.program(objective, name, agent, config.life, strategy.candidate, e.group, 2 * share)
        for name in names
    ]
    worlds, cohorts = zip(*programs, strict=True)
    hyper = make_hyper(objective, config.agent, config.objective.clock_gate)
    check_products(config, worlds[0], strategy, like, hyper)

    def init() -> whole.SearchState:
        state = whole.SearchState(
            strategy=strategy.init(*whole.beginning(objective, config)),
            key=whole.root_key(config.seed),
            generation=jnp.zeros((), jnp.int32),
        )
        return put(strongly_typed(state), home())

    def drawn(state: whole.SearchState, k: int) -> tuple[Array, Array, Lives]:
        """Keys of the candidates and of what judges them, and the lives of a kind."""
        noise_key, judge_key, tasks, streams = whole.draw(
            # A stream of its own for each kind; the candidates are drawn from that of the first.
            state.key if k == 0 else jax.random.fold_in(state.key, _KIND + k),
            state.generation,
            worlds[k].env.sample_level,
            config.horizon,
            share,
        )
        lives = paired_lives(tasks, streams[0], e.shared_stream)
        return noise_key, judge_key, lives._replace(id=lives.id + k * share)

    def step(state: whole.SearchState) -> tuple[whole.SearchState, dict[str, Array]]:
        every = [drawn(state, k) for k in range(len(names))]
        source, asked = strategy.ask(state.strategy, every[0][0])
        weights, told = [], []
        for name, world, cohort, (_, key, lives) in zip(names, worlds, cohorts, every, strict=True):
            outcome = lived(cohort, source, hyper, lives, e.fitness)
            scores = fitness(outcome, e.fitness)
            mine, metrics = whole.judge(scores, lives.task.horizon, e.shaping, key)
            weights.append(mine)
            metrics |= whole.reported(outcome.metrics) | whole.spent(config, world, lives.task)
            told.append(metrics | {f"fitness_{name}": metrics["fitness"]})
        moved = strategy.tell(asked, source, jnp.concatenate(weights))
        metrics = gathered(told)
        metrics |= whole.moved(strategy.mean(state.strategy), strategy.mean(moved))
        metrics |= strategy.numbers(state.strategy)
        return whole.SearchState(moved, state.key, state.generation + 1), metrics

    def memory(state: whole.SearchState) -> int:
        source = strategy.still(theta(state))
        return max(
            cohort.memory(source, hyper, drawn(state, k)[2], measure(e.fitness))
            for k, cohort in enumerate(cohorts)
        )

    def theta(state: whole.SearchState) -> Theta:
        return strategy.mean(state.strategy)

    count = max(1, config.validation_levels // len(names))

    returns = [
        make_returns(world.env, config.horizon, count, cohort, hyper) for world, cohort in programs
    ]

    def scores_of(source: PyTree) -> list[Float[Array, " V"]]:
        return [jnp.concatenate(of_kind(source)) for of_kind in returns]

    @functools.cache
    def at_start() -> list[Float[Array, " V"]]:
        return scores_of(strategy.still(whole.beginning(objective, config)[1]))

    def validate(state: whole.SearchState) -> dict[str, Array]:
        return gains(names, scores_of(strategy.still(theta(state))), at_start())

    return whole.Search(
        init=init,
        step=step,
        validate=validate,
        theta=theta,
        objective=objective,
        world=worlds[0],
        cohort=cohorts[0],
        still=strategy.still,
        hyper=hyper,
        memory=memory,
        columns=lambda state: {},
    )


_KIND = 2**31 + 2
"""What is folded into the root key for the tasks of kind k, plus k."""


def _refuse(config: Config, names: tuple[str, ...]) -> None:
    """Refuse what lives in several kinds of environments cannot do."""
    e, what = config.evolution, " and ".join(names)
    if config.estimator != "evolution" or config.curriculum.curriculum != "none":
        raise ConfigError(
            f"{what} do not mix: one after another they are searched over by "
            "--estimator evolution without a curriculum only"
        )
    if e.signal_every:
        raise ConfigError("signal_every is for one environment: give 0")
    share, rest = divmod(e.pairs, len(names))
    if rest or 2 * share % e.group:
        fits = max(1, round(2 * share / e.group)) * e.group // 2 * len(names)
        raise ConfigError(
            f"{e.pairs} pairs cannot be shared out among {what} in groups of {e.group}: "
            f"try {fits} pairs"
        )


def gathered(told: list[dict[str, Array]]) -> dict[str, Array]:
    """Metrics of a generation from those of its kinds: counts added, the rest averaged.

    Args:
      told: of each kind; what only some of them tell is averaged over these.

    Returns:
      One number each.
    """
    counts = {"nonfinite", "steps", "evaluation_steps"}
    return {
        name: (jnp.sum if name in counts else jnp.mean)(
            jnp.stack([metrics[name] for metrics in told if name in metrics])
        )
        for name in {name: None for metrics in told for name in metrics}
    }


def gains(
    names: tuple[str, ...], now: list[Float[Array, " V"]], first: list[Float[Array, " V"]]
) -> dict[str, Array]:
    r"""The mean's score where returns of different environments do not compare.

    ``validation`` is the mean over kinds of
    :math:`(\bar R - \bar R_0) / \max(\sigma_0, \max(1, |\bar R_0|) / 100)`: how far the mean
    return is above that of the start, in standard deviations of the start's over the validation
    tasks, or in hundredths of it where they hardly differ. ``validation_NAME`` is a kind's own mean
    return.

    Args:
      names: of the kinds.
      now: returns on the validation tasks.
      first: those of theta at generation 0.

    Returns:
      The scores.

    Example:
      >>> told = gains(("a",), [jnp.array([3.0, 3.0])], [jnp.array([0.0, 2.0])])
      >>> {name: float(value) for name, value in told.items()}
      {'validation': 2.0, 'validation_a': 3.0}
    """

    def above(new: Float[Array, " V"], old: Float[Array, " V"]) -> Float[Array, ""]:
        # Where nothing is found at the start, all returns are equal.
        least = jnp.maximum(1.0, jnp.abs(old.mean())) / 100
        return (new.mean() - old.mean()) / jnp.maximum(old.std(), least)

    own = {f"validation_{name}": new.mean() for name, new in zip(names, now, strict=True)}
    gained = [above(new, old) for new, old in zip(now, first, strict=True)]
    return {"validation": jnp.mean(jnp.stack(gained)), **own}


__all__ = ["gains", "gathered", "kinds", "make_several_search"]
