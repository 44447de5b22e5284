"""What does each lever of speed bring, against the plain way of doing the same?

    python benchmarks/levers.py                          the CPU size and the published network
    python benchmarks/levers.py --case ppo --repeats 9
    python benchmarks/levers.py --quick                  toy sizes, seconds

A lever is taken back alone, everything else as the project has it, or tried alone if the project
does not have it. Both ways live the same lives, in turns, the order changing from round to round;
what is told is the median of the ratios, with the smallest and the largest, and the largest
difference between the scores of a life: 0 is the same bits. Rounding that differs can turn an
action, so after many updates scores of single lives differ while their mean does not: both are
told. Two levers (marked) draw other random numbers.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

from generation import case as generation_case

from discovery import devices
from discovery.config import Config, HorizonConfig, preset


class Way(NamedTuple):
    """One way to live the lives of a generation."""

    world: Any
    group: int
    abreast: int = 0
    """Of a group, computed at once; 0 for what the project chooses."""
    devices: int = 0
    """0 for all."""
    mixed: bool = False
    """Lives in an order of chance, not of their horizons."""
    patched: tuple[tuple[str, Any], ...] = ()
    """Functions that others stand in for while the program is traced."""


class Lever(NamedTuple):
    """Something that may make a generation faster."""

    name: str
    kept: bool
    """The project does it; else it is only tried here."""
    other: Callable[[Way], Way | None]
    """The project's way without it (kept) or with it (tried); nothing where it is no question."""
    exact: bool = True
    """Both use the same random numbers, so that scores can be compared."""


# --- the other ways ---------------------------------------------------------------------------


def one_hot(way: Way) -> Way | None:
    """Tables read by a product with a one-hot row instead of a lookup."""
    import jax

    states, network = way.world.env.spec.num_states, way.world.network
    if states is None:
        return None

    def act(params: Any, observation: Any) -> Any:
        rows = jax.nn.one_hot(observation, states)
        return {name: rows @ params[name]["table"] for name in params}

    def unroll(params: Any, experience: Any) -> Any:
        return act(params, experience.observation), act(params, experience.next_observation)

    return way._replace(world=replace(way.world, network=network._replace(act=act, unroll=unroll)))


def _with_rule(way: Way, **changes: Any) -> Way | None:
    from learned_objectives.lpg import LPG

    rule = way.world.objective
    if not isinstance(rule, LPG):
        return None
    given = {field.name: getattr(rule, field.name) for field in fields(rule)}
    return way._replace(world=replace(way.world, objective=_cell()(**given, **changes)))


def _with_field(way: Way, name: str, choose: Callable[[Any], Any]) -> Way | None:
    from learned_objectives.lpg import LPG

    rule = way.world.objective
    if not isinstance(rule, LPG):
        return None
    rule = replace(rule, **{name: choose(rule)})
    return way._replace(world=replace(way.world, objective=rule))


def _cell() -> Any:
    """LPG with its recurrent cell written in another way."""
    import jax
    import jax.numpy as jnp

    from learned_objectives.base import dense
    from learned_objectives.lpg import LPG

    @dataclass(frozen=True)
    class Cell(LPG):
        unrolled: int = 1
        """Steps of the loop that are compiled one after another."""

        def _recur(self, theta: Any, x: Any, cut: Any) -> Any:
            def cell(later: Any, now: Any) -> Any:
                seen, carry_on = now
                h = later * carry_on
                read = dense(seen, theta["wx"]) + theta["bx"]
                xr, xz, xc = jnp.split(read, 3, axis=-1)
                hr, hz, hc = jnp.split(dense(h, theta["wh"]), 3, axis=-1)
                reset, keep = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
                candidate = jnp.tanh(xc + reset * (hc + theta["bh"]))
                h = (1 - keep) * candidate + keep * h
                return h, h

            carry_on = 1 - cut.astype(x.dtype)[..., None]
            start = jnp.zeros((x.shape[1], self.width), x.dtype)
            every = (x, carry_on)
            return jax.lax.scan(cell, start, every, reverse=True, unroll=self.unrolled)[1]

    return Cell


def read_otherwise(way: Way) -> Way | None:
    """Inputs of the cell multiplied before its loop where they are in it, and in it otherwise."""
    return _with_field(way, "read_ahead", lambda rule: not rule.read_ahead)


def half(way: Way) -> Way | None:
    """Products of the cell whose factors are bfloat16: what ``--products`` does."""
    return _with_field(way, "products", lambda rule: "bfloat16")


def step_by_step(way: Way) -> Way:
    """Random numbers of a rollout drawn in each of its steps."""
    import jax

    from discovery.inner.scaling import see
    from learned_objectives.base import Experience

    def rollout(
        env: Any,
        network: Any,
        params: Any,
        level: Any,
        observation: Any,
        state: Any,
        key: Any,
        steps: int,
        scaling: Any = (),
    ) -> Any:
        batch = jax.tree.leaves(observation)[0].shape[0]

        def step(carry: Any, key: Any) -> Any:
            observation, state = carry
            env_key, action_key = jax.random.split(key)
            noise = env.draw(env_key, (batch,))
            uniform = jax.random.uniform(action_key, (batch, network.noise_size))
            outputs = network.act(params, see(scaling, observation))
            action = network.sample(outputs, uniform)
            after = jax.vmap(env.step, (0, 0, 0, None))(noise, state, action, level)
            ends = after.terminated, after.truncated
            seen = Experience(
                observation, action, after.reward, *ends, after.final_observation, outputs
            )
            return (after.observation, after.state), seen

        keys = jax.random.split(key, steps)
        (observation, state), seen = jax.lax.scan(step, (observation, state), keys)
        return observation, state, seen

    return way._replace(patched=(("discovery.inner.lifetime.rollout", rollout),))


def to_the_limit(way: Way) -> Way:
    """Evaluation steps on until the step limit, whether or not an episode is still alive."""
    from discovery.inner.rollout import episode_return

    evaluation = functools.partial(episode_return, whole=True)
    return way._replace(patched=(("discovery.inner.lifetime.episode_return", evaluation),))


def acted_values(way: Way) -> Way | None:
    """Advantages from the values that were computed while acting, not computed again."""
    import jax

    from discovery.inner.build import is_mirror

    rule = way.world.objective
    if not is_mirror(rule) or not hasattr(rule, "signals"):
        return None

    class Acted(type(rule)):  # type: ignore[misc]
        def signals(
            self, theta: Any, hyper: Any, network: Any, learner: Any, seen: Any, time: Any
        ) -> Any:
            def unroll(params: Any, experience: Any) -> Any:
                after = network.act(params, experience.next_observation)
                return jax.lax.stop_gradient(experience.behaviour), after

            told = network._replace(unroll=unroll)
            return super().signals(theta, hyper, told, learner, seen, time)

    given = {field.name: getattr(rule, field.name) for field in fields(rule)}
    return way._replace(world=replace(way.world, objective=Acted(**given)))


def shuffled_by_pairs(way: Way) -> Way | None:
    """Minibatches shuffled by JAX's own permutation, which sorts pairs, many of them twice."""
    import jax

    from discovery.inner.build import is_mirror

    if not is_mirror(way.world.objective):
        return None

    def by_pairs(bits: Any) -> Any:
        return jax.random.permutation(jax.random.wrap_key_data(bits[:2]), bits.size)

    return way._replace(patched=(("learned_objectives.mirror.shuffled", by_pairs),))


LEVERS = (
    Lever("tables are looked up, not multiplied", True, one_hot),
    Lever("inputs multiplied in the loop (CPU), before it (others)", True, read_otherwise),
    Lever(
        "wide lives one after another (CPU)",
        True,
        lambda w: w._replace(abreast=w.group) if _in_turn(w) else None,
    ),
    Lever(
        "narrow lives abreast",
        True,
        lambda w: None if _in_turn(w) else w._replace(abreast=1),
    ),
    Lever("groups of similar horizon", True, lambda w: w._replace(mixed=True)),
    Lever("evaluation stops with its episodes", True, to_the_limit),
    Lever("random numbers of a rollout at once", True, step_by_step, exact=False),
    Lever("minibatches shuffled by one sort", True, shuffled_by_pairs, exact=False),
    Lever("one device a core", True, lambda w: w._replace(devices=1)),
    Lever("recurrent loop unrolled by 2", False, lambda w: _with_rule(w, unrolled=2)),
    Lever("recurrent loop unrolled by 5", False, lambda w: _with_rule(w, unrolled=5)),
    Lever("bfloat16 products in the cell", False, half),
    Lever("values of acting used again", False, acted_values),
)


def _in_turn(way: Way) -> bool:
    from discovery.inner.cohort import fastest

    return fastest(way.world, way.group) == 1


# --- measuring --------------------------------------------------------------------------------


CASES = ("cpu", "published", "ppo")


def case(name: str, quick: bool) -> Config:
    """The search whose lives are lived.

    ``cpu``: width 32, horizons 5 to 100. ``published``: GRU 256, horizons 5 to 45, 8 pairs.
    ``ppo``: LPO on MinAtar at the published size, 4 pairs, a few iterations.
    """
    if name == "ppo":
        config = preset("ta-lpo-cpu" if quick else "ta-lpo")
        horizon = HorizonConfig(1, 2) if quick else HorizonConfig(2, 6)
        return replace(config, horizon=horizon, evolution=_few(config, 2 if quick else 4))
    if quick:
        return replace(preset("smoke"), evolution=_few(preset("smoke"), 4))
    if name == "cpu":
        return generation_case("cpu", None, None, None, None)
    config = generation_case("published", None, None, None, None)
    return replace(config, horizon=HorizonConfig(5, 45))


def _few(config: Config, pairs: int) -> Any:
    return replace(config.evolution, pairs=pairs, group=2)


class Runner(NamedTuple):
    """A compiled way."""

    run: Callable[[], Any]
    """Scores ``[L]``, in the order of the horizons."""


def compiled(config: Config, way: Way) -> Runner:
    """A way as a program that is already compiled, with the lives of one generation."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from discovery.inner import cohort
    from discovery.inner.build import make_hyper, make_objective
    from discovery.outer.evolution import make_strategy
    from discovery.outer.scoring import measure
    from discovery.outer.search import beginning, draw, root_key, shapes
    from discovery.outer.tasks import paired_lives

    e, rule = config.evolution, make_objective(config.objective, config.agent)
    strategy = make_strategy(e, shapes(rule, config))
    sample, root = way.world.env.sample_level, root_key(config.seed)
    noise_key, _, tasks, streams = draw(root, jnp.int32(0), sample, config.horizon, e.pairs)
    lives = paired_lives(tasks, streams[0], e.shared_stream)
    order = np.arange(2 * e.pairs)
    if way.mixed:
        order = np.random.default_rng(0).permutation(2 * e.pairs)
        lives = jax.tree.map(lambda leaf: leaf[order], lives)
    source, _ = strategy.ask(strategy.init(*beginning(rule, config)), noise_key)
    hyper = make_hyper(rule, config.agent, config.objective.clock_gate)

    whole_mesh = cohort.population_mesh

    def mesh(groups: int) -> Any:
        found = whole_mesh(groups)
        few = found.devices[: way.devices or None]
        return jax.sharding.Mesh(few, found.axis_names)

    with ExitStack() as stack:
        stack.enter_context(patch.object(cohort, "population_mesh", mesh))
        for name, function in way.patched:
            stack.enter_context(patch(name, function))
        made = cohort.make_cohort(
            way.world, strategy.candidate, way.group, 2 * e.pairs, way.abreast
        )

        def run() -> Any:
            outcome = made.run(source, hyper, lives, measure(e.fitness))
            scores = np.empty(2 * e.pairs)
            scores[order] = np.asarray(outcome.final[:, 0])
            return scores

        run()  # traced while the patches stand
    return Runner(run)


class Found(NamedTuple):
    """A lever, measured."""

    lever: Lever
    ratios: list[float]
    """Of times: without over with."""
    apart: float
    """Largest difference between two scores of one life."""
    means: tuple[float, float]
    """Mean scores, with and without."""


def measure_levers(config: Config, repeats: int, levers: Sequence[Lever]) -> list[Found]:
    """Each of some levers that is a question here, against the other way."""
    import numpy as np

    from discovery.inner.build import make_objective, make_world, static

    rule = make_objective(config.objective, config.agent)
    world = make_world(rule, config.env, static(config.agent), config.life)
    ours = Way(world, config.evolution.group)
    plain = compiled(config, ours)
    found = []
    for lever in levers:
        way = lever.other(ours)
        if way is None:
            continue
        other = compiled(config, way)
        ratios, scores = [], {}
        for turn in range(repeats):
            seconds = {}
            for name, runner in sorted({"ours": plain, "other": other}.items(), reverse=turn % 2):
                began = time.perf_counter()
                scores[name] = runner.run()
                seconds[name] = time.perf_counter() - began
            ratio = seconds["other"] / seconds["ours"]
            ratios.append(ratio if lever.kept else 1 / ratio)
        apart = float(np.abs(scores["ours"] - scores["other"]).max())
        means = float(scores["ours"].mean()), float(scores["other"].mean())
        found.append(Found(lever, ratios, apart, means))
    return found


def table(found: list[Found]) -> list[str]:
    """The levers as lines of Markdown."""
    lines = [
        "| lever | here | speed with it over without, median (min - max) | scores apart, most "
        "| mean score here, otherwise |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        apart = f"{one.apart:.2g}" if one.lever.exact else "other numbers"
        lines.append(
            f"| {one.lever.name} | {'kept' if one.lever.kept else 'tried'} "
            f"| {median(one.ratios):.2f} ({min(one.ratios):.2f} - {max(one.ratios):.2f}) "
            f"| {apart} | {one.means[0]:.3f}, {one.means[1]:.3f} |"
        )
    return lines


def main() -> None:
    """Read the flags, print a table a case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", choices=CASES, nargs="+", default=CASES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="toy sizes")
    flags = parser.parse_args()
    devices.start()
    for name in flags.case:
        config = case(name, flags.quick)
        print(f"{name}: {config.env}, {2 * config.evolution.pairs} lives, {devices.describe()}\n")
        print(*table(measure_levers(config, flags.repeats, LEVERS)), "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
