"""Where does the time of a generation go, and how near is each part to what the machine can do?

    taskset -c 0 python benchmarks/parts.py                 everything, some minutes
    taskset -c 0 python benchmarks/parts.py --table ta-lpo --repeats 9
    taskset -c 0 python benchmarks/parts.py --table ta-lpg --strategy Open_ES
    python benchmarks/parts.py --quick                      toy sizes

On one device; on a CPU give it one core, as above: in a search a device is a core, but XLA would
lend one program all of them. A part is compiled alone at the shapes that it has inside a
generation, returns all that a generation needs of it, and its time is multiplied by how often a
generation computes it. Acting is a rollout less the same rollout without looking; "updates" is the
whole update less the objective's network; "the rest" is a generation less all parts: dispatch,
and what parts cost together and not alone. Differences of noisy times may be negative. Agents are
newborn, so episodes end when theirs do.

Arithmetic and bytes are counted on the traced program, since XLA's cost analysis counts the body
of a loop once. A product is two operations for each of its terms, anything else with floating-point
numbers one for each number of the largest array that it reads or makes. Bytes are those that
products read and write, what each step of a loop carries and meets, and twice what is looked up,
written in place, sorted or joined; what lies between is taken to be fused. The yardsticks of the
same run are a product of two 1,024 x 1,024 matrices and a copy of 128 MiB onto itself; arrays that
fit a cache are faster than that copy, which does not.
"""

# Not named profile.py: the standard library's cProfile imports a module of that name.

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

from discovery import devices
from discovery.config import Config, HorizonConfig, check, preset

FAMILIES = ("ta-lpg", "ta-lpo", "meta")
STRATEGIES = "strategies"
"""The table that is of no family: what strategies cost at the published size."""


class Part(NamedTuple):
    """A part of a generation."""

    name: str
    seconds: float
    """Of a generation."""
    flops: float = 0.0
    bytes: float = 0.0

    def less(self, other: Part) -> Part:
        """What is left of it without a part of it; negative where noise is larger than that."""
        return Part(self.name, *(a - b for a, b in zip(self[1:], other[1:], strict=True)))


def case(family: str, strategy: str, quick: bool) -> Config:
    """The search that is taken apart: published networks, few lives, one group."""
    if family == "ta-lpo":
        config, pairs = preset("ta-lpo-cpu" if quick else "ta-lpo"), 1
    elif family == "meta":
        config, pairs = preset("smoke" if quick else "ta-lpg-mg"), 8
    else:
        config, pairs = preset("smoke" if quick else "ta-lpg"), 4
    length = 2 if quick else 20 if family == "ta-lpo" else 50
    agents = 4 if quick else 16
    config = replace(
        config,
        estimator="gradient" if family == "meta" else "evolution",
        gradient=replace(config.gradient, agents=agents, agents_group=agents),
        evolution=replace(config.evolution, strategy=strategy, pairs=pairs, group=2 * pairs),
        horizon=HorizonConfig(length, length),
        validation_levels=1,
    )
    check(config)
    return config


# --- counting and timing ----------------------------------------------------------------------

_MOVES = ("gather", "scatter", "dynamic_slice", "dynamic_update_slice", "sort", "concatenate")
_FREE = (
    *("broadcast", "reshape", "transpose", "squeeze", "expand_dims", "slice", "split", "pad"),
    *("convert", "copy", "iota", "random_", "threefry", "stop_gradient"),
)


def _alike(shapes: Sequence[Any], inside: Sequence[Any], axes: int) -> list[Any]:
    """Those that have so many axes more than what stands for them inside a loop."""
    return [
        shape
        for shape, part in zip(shapes, inside, strict=True)
        if len(shape.shape) - len(part.aval.shape) == axes
    ]


def count(jaxpr: Any, trips: int = 0) -> tuple[float, float]:
    """Floating-point operations and bytes of a traced program.

    Args:
      jaxpr: of ``jax.make_jaxpr``.
      trips: how often the body of a ``while`` is run.

    Returns:
      Both, as the top of this file says.

    Raises:
      ValueError: there is a ``while``, and it was not told how often its body is run.
    """
    flops = moved = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params = equation.primitive.name, equation.params
        read, made = ([v.aval for v in vs] for vs in (equation.invars, equation.outvars))
        if name == "scan":
            body = getattr(params["jaxpr"], "jaxpr", params["jaxpr"])
            inside = count(body, trips)
            flops += params["length"] * inside[0]
            # What is carried has the body's shape; what is cut up or stacked, an axis more.
            carried = _alike(made, body.outvars, 0)
            moved += params["length"] * (inside[1] + 2 * _size(carried))
            moved += _size(_alike(read, body.invars, 1)) + _size(_alike(made, body.outvars, 1))
        elif name == "while":
            if not trips:
                raise ValueError("a while runs its body as often as its data say: give trips")
            inside = count(params["body_jaxpr"], trips)
            flops += trips * inside[0]
            moved += trips * (inside[1] + 2 * _size(made))
        elif name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            terms = made[0].size
            for axis in contracted:
                terms *= read[0].shape[axis]
            flops += 2.0 * terms
            moved += _size(read + made)
        elif name.startswith(("scatter", "dynamic_update_slice")):
            # In place: what is written is the second operand of one, the third of the other.
            moved += 2 * _size(read[1 if name.startswith("dynamic") else 2 :][:1])
        elif name.startswith(_MOVES):
            moved += 2 * _size(made)
        elif branches := [count(inner, trips) for inner in _inner(params)]:
            # A call has one; of a conditional the dearest counts.
            flops += max(branch[0] for branch in branches)
            moved += max(branch[1] for branch in branches)
        elif not name.startswith(_FREE) and any(map(_floating, read + made)):
            flops += max(x.size for x in read + made)
    return flops, moved


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """The programs that an equation calls."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(one, "jaxpr", one), "eqns"):
                yield one


def _floating(array: Any) -> bool:
    import jax.numpy as jnp

    return jnp.issubdtype(array.dtype, jnp.floating)


def _size(arrays: list[Any]) -> float:
    return float(sum(array.size * array.dtype.itemsize for array in arrays))


def timed(work: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call, after one that compiles."""
    import jax

    jax.block_until_ready(work())
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(work())
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def yardsticks(repeats: int, quick: bool) -> tuple[float, float]:
    """Operations a second of a plain product, and bytes a second of a plain copy."""
    import jax
    import jax.numpy as jnp

    side, length = (128, 2**16) if quick else (1024, 2**25)
    matrix, line = jnp.ones((side, side)), [jnp.ones(length)]
    product = jax.jit(jnp.matmul)
    # In place: new memory would have to be had from the system first, which takes longer. Their
    # negatives, since the numbers themselves would not be copied at all.
    negative = jax.jit(jnp.negative, donate_argnums=0)

    def copy() -> Any:
        line[0] = negative(line[0])
        return line[0]

    return (
        2.0 * side**3 / timed(lambda: product(matrix, matrix), repeats),
        8.0 * length / timed(copy, repeats),
    )


# --- the parts --------------------------------------------------------------------------------


class OfLife(NamedTuple):
    """What one life computes, as functions of (theta, its task and key, the agent, ...)."""

    environment: Callable[..., Any]
    """A rollout whose actions are drawn without looking."""
    rollout: Callable[..., Any]
    objective: Callable[..., Any]
    """What the objective says in an update; it reads what the rollout made."""
    update: Callable[..., Any]
    evaluation: Callable[..., Any]


def of_life(search: Any, gradient: bool, looked: Callable[[], None] | None = None) -> OfLife:
    """The parts of a life.

    Args:
      search: whose lives they are.
      gradient: it follows meta-gradients, which read an update's penalties.
      looked: called on the host at every chunk of an evaluation.

    Returns:
      Functions, each of which returns all that a generation needs of it.
    """
    import jax
    import jax.numpy as jnp

    from discovery.inner.lifetime import collect, learn, next_keys
    from discovery.inner.rollout import episode_return, rollout
    from learned_objectives.base import Time

    world, hyper, rule = search.world, search.hyper, search.objective
    env, network = world.env, world.network

    def environment(theta: Any, one: Any, life: Any) -> Any:
        def sample(outputs: Any, noise: Any) -> Any:
            return (noise[..., 0] * env.spec.num_actions).astype(jnp.int32)

        blind = network._replace(act=lambda params, observation: {}, sample=sample)
        start = life.observation, life.state, life.key, world.steps
        return rollout(env, blind, (), one.task.level, *start)

    def objective(theta: Any, one: Any, life: Any, experience: Any) -> Any:
        now = Time(life.n, one.task.horizon, jnp.ones(()))
        if not hasattr(rule, "drift"):
            return rule.signals(theta, hyper, network, life.learner, experience, now)

        def slope(total: Any, x: Any) -> Any:
            value, back = jax.vjp(lambda log_ratio: rule.drift(theta, hyper, log_ratio, x, now), x)
            return total + value.mean(), back(jnp.ones_like(value))[0]

        # A drift and its slope for every minibatch, at numbers that are no ratios but as many.
        numbers = experience.behaviour["value"].reshape(rule.minibatches, -1)
        return jax.lax.scan(slope, jnp.zeros(()), jnp.tile(numbers, (rule.epochs, 1)))

    def update(theta: Any, one: Any, life: Any, experience: Any) -> Any:
        learner, report = learn(world, theta, hyper, one.task, life, experience, next_keys(life)[1])
        return learner, report.metrics, report.penalties if gradient else ()

    def draw(key: Any, shape: tuple[int, ...]) -> Any:
        if looked is not None:
            jax.debug.callback(looked)
        return env.draw(key, shape)

    def evaluation(theta: Any, one: Any, life: Any, greedy: Any) -> Any:
        watched = env._replace(draw=draw)
        params, level = life.learner.params, one.task.level
        rest = life.key, world.episodes, greedy, life.scaling
        return episode_return(watched, network, params, level, *rest)

    return OfLife(
        environment,
        lambda theta, one, life: collect(world, one.task, life, next_keys(life)[0]),
        objective,
        update,
        evaluation,
    )


def taken_apart(config: Config, repeats: int) -> tuple[Part, list[Part]]:
    """A generation of a search, and its parts.

    Args:
      config: of the search, all horizons the same, all lives in one group.
      repeats: timings of each, of which the median is told.

    Returns:
      The whole, and the parts.
    """
    import jax
    import jax.numpy as jnp

    from discovery.inner.cohort import fastest
    from discovery.inner.lifetime import birth
    from discovery.outer.evolution import make_strategy
    from discovery.outer.search import draw, make_search, shapes
    from discovery.outer.tasks import paired_lives

    search = make_search(config)
    world, state = search.world, search.init()
    whole = Part("generation", timed(lambda: search.step(state), repeats))
    gradient = config.estimator == "gradient"
    count_of_lives = config.gradient.agents if gradient else 2 * config.evolution.pairs
    at_once = gradient or fastest(world, count_of_lives) > 1
    updates = config.window.window if gradient else config.horizon.longest
    key, sample = jax.random.key(0), world.env.sample_level
    _, _, tasks, streams = draw(key, jnp.int32(0), sample, config.horizon, count_of_lives // 2)
    lives = paired_lives(tasks, streams[0], False)

    def of_all(function: Callable[..., Any], shared: int) -> Callable[..., Any]:
        """A function of one life, made one of all; its first arguments are shared by them."""

        def in_turn(*trees: Any) -> Any:
            return jax.lax.map(lambda own: function(*trees[:shared], *own), trees[shared:])

        def together(*trees: Any) -> Any:
            axes = [None if i < shared else 0 for i in range(len(trees))]
            return jax.vmap(function, axes)(*trees)

        return jax.jit(together if at_once else in_turn)

    found: list[Part] = []
    one_theta = int(gradient)

    def part(
        name: str,
        function: Callable[..., Any],
        *trees: Any,
        shared: int = one_theta,
        times: int = 1,
        trips: int = 0,
        without: Part | None = None,
    ) -> Any:
        """Note a part that every life has so many times, less one noted before; what it makes."""
        compiled = of_all(function, shared)
        flops, moved = count(compiled.trace(*trees).jaxpr, trips)
        seconds = timed(lambda: compiled(*trees), repeats)
        noted = Part(name, times * seconds, times * flops, times * moved)
        found.append(noted.less(without) if without else noted)
        return compiled(*trees)

    theta = search.theta(state)
    if not gradient:
        strategy = make_strategy(config.evolution, shapes(search.objective, config))
        source, asked = strategy.ask(state.strategy, key)
        found += around_lives(config, search, state, strategy, source, asked, repeats)

        def candidate(source: Any, life: Any) -> Any:
            return strategy.candidate(source, life.id, life.sign)

        theta = part("evolution strategy: candidates", candidate, source, lives, shared=1)

    def begin(theta: Any, life: Any) -> Any:
        return birth(world, theta, search.hyper, life.task, life.key)

    work = of_life(search, gradient)
    born = part("birth", begin, theta, lives)
    rollouts = updates + int(gradient)
    part("environment", work.environment, theta, lives, born, times=rollouts)
    acting = theta, lives, born
    _, seen = part("agent, acting", work.rollout, *acting, times=rollouts, without=found[-1])
    told = theta, lives, born, seen
    part("objective network", work.objective, *told, times=updates)
    part("updates", work.update, *told, times=updates, without=found[-1])
    if gradient:
        found += around_agents(config, search, state, found, repeats)
    else:
        scored = theta, lives, born, jnp.zeros(count_of_lives, bool)
        chunks: list[None] = []
        watched = of_life(search, gradient, lambda: chunks.append(None)).evaluation
        jax.block_until_ready(of_all(watched, one_theta)(*scored))
        jax.effects_barrier()
        trips = len(chunks) if at_once else len(chunks) // count_of_lives
        part("evaluation", work.evaluation, *scored, trips=trips)
    rest = whole.seconds - sum(one.seconds for one in found)
    return whole, [*found, Part("the rest", rest)]


def around_lives(
    config: Config,
    search: Any,
    state: Any,
    strategy: Any,
    source: Any,
    asked: Any,
    repeats: int,
) -> list[Part]:
    """What a generation of evolution does around its lives."""
    import jax
    import jax.numpy as jnp

    from discovery.outer.search import draw, judge, moved
    from discovery.outer.tasks import paired_lives

    e, sample, key = config.evolution, search.world.env.sample_level, jax.random.key(0)
    scores, weights = jnp.arange(2.0 * e.pairs), jnp.tile(jnp.array([1.0, 0.0]), (e.pairs, 1))
    theta = search.theta(state)

    def host() -> Any:
        _, teach, tasks, streams = draw(
            state.key, state.generation, sample, config.horizon, e.pairs
        )
        lives = paired_lives(tasks, streams[0], e.shared_stream)
        return lives, judge(scores, lives.task.horizon, e.shaping, teach), moved(theta, theta)

    parts = {
        "host: tasks and judging": host,
        "evolution strategy: ask": lambda: strategy.ask(state.strategy, key),
        "evolution strategy: tell": lambda: strategy.tell(asked, source, weights),
    }
    return [Part(name, timed(work, repeats)) for name, work in parts.items()]


def around_agents(
    config: Config, search: Any, state: Any, forward: Sequence[Part], repeats: int
) -> list[Part]:
    """What a step of meta-gradients does beside the lives of its agents.

    Args:
      config: of the search.
      search: it.
      state: at generation 0, so that all agents are born.
      forward: parts of the window, which are in it once: the backward pass computes them again.
      repeats: timings of each.

    Returns:
      The window less its forward parts, and what is done on the host.
    """
    import jax.numpy as jnp

    from discovery.inner.build import static
    from discovery.outer import meta_gradient
    from discovery.outer.persistent import Newborn, draw_births, placement

    g, sample = config.gradient, search.world.env.sample_level
    # The search's own program, found again by what it was made of.
    *_, everyone, _, mesh = meta_gradient._programs(
        search.objective,
        config.env,
        static(config.agent),
        config.life,
        g.agents,
        g.agents_group,
        config.window.window,
        False,
    )

    def births() -> Any:
        return draw_births(state.key, state.generation, sample, config.horizon, g.agents)

    shared, split = placement(mesh)
    tasks, keys, *_ = births()
    weights = meta_gradient.weights_of(g, config.agent, end_only=False, by_life=False)
    arguments = (
        *devices.put((search.theta(state), search.hyper, weights), shared),
        state.agents,
        devices.put(Newborn(tasks, tasks.horizon, keys), split),
    )
    _, told = everyone(*arguments)
    counted = count(everyone.trace(*arguments).jaxpr)
    window = Part("gradient and critics", timed(lambda: everyone(*arguments), repeats), *counted)
    for one in forward:
        window = window.less(one)
    told = devices.put(told, devices.home())
    numbers = jnp.float32(g.meta_rate), jnp.float32(g.meta_clip)

    def adam() -> Any:
        return meta_gradient.climb(state.strategy, told, *numbers)

    return [
        window,
        Part("outer Adam", timed(adam, repeats)),
        Part("host: tasks", timed(births, repeats)),
    ]


# --- tables -----------------------------------------------------------------------------------


def profile(family: str, strategy: str, repeats: int, quick: bool) -> list[str]:
    """The table of a family, line by line."""
    config = case(family, strategy, quick)
    whole, found = taken_apart(config, repeats)
    product, copy = yardsticks(repeats, quick)
    if family == "meta":
        size = f"{config.gradient.agents} agents, K = {config.window.window}"
    else:
        size = f"{2 * config.evolution.pairs} lives, N = {config.horizon.longest}"
    lines = [
        f"{config.preset}, {config.env}: {size}, {whole.seconds:.2f} s a generation; "
        f"a plain product reaches {product / 1e9:.1f} GFLOP/s, a plain copy {copy / 1e9:.1f} GB/s; "
        f"{devices.describe()}, {devices.cores()} cores",
        "",
        "| part | s | share | GFLOP/s | of a product | GB/s | of a copy |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        told = f"| {one.name} | {one.seconds:.3g} | {one.seconds / whole.seconds:.0%} |"
        for done, most in ((one.flops, product), (one.bytes, copy)):
            if done and one.seconds:
                rate = done / one.seconds
                told += f" {rate / 1e9:.2f} | {rate / most:.0%} |"
            else:
                told += " - | - |"
        lines.append(told)
    return lines


def strategies(names: Sequence[str], repeats: int, quick: bool) -> list[str]:
    """What strategies cost by themselves at the published size, line by line.

    The noise of ``paired`` is drawn by the lives, that of evosax when it is asked: so what lives
    draw or pick is a column of its own, computed group by group as in a search.
    """
    import jax
    import jax.numpy as jnp

    from discovery.inner.build import make_objective
    from discovery.outer.evolution import make_strategy
    from discovery.outer.search import shapes
    from learned_objectives.base import count_parameters

    config = preset("smoke" if quick else "ta-lpg")
    e = replace(config.evolution, group=16)
    like = shapes(make_objective(config.objective, config.agent), config)
    pairs = jnp.repeat(jnp.arange(e.pairs), 2).reshape(-1, e.group)
    signs = jnp.tile(jnp.array([1.0, -1.0]), e.pairs).reshape(-1, e.group)
    weights = jnp.tile(jnp.array([1.0, 0.0]), (e.pairs, 1))
    lines = [
        f"{2 * e.pairs} candidates of {count_parameters(like):,} numbers, median of {repeats}; "
        f"{devices.describe()}, {devices.cores()} cores",
        "",
        "| strategy | ask, s | candidates of all lives, s | tell, s | together, s |",
        "|---|---|---|---|---|",
    ]

    def seconds(name: str) -> list[float]:
        strategy, key = make_strategy(replace(e, strategy=name), like), jax.random.key(0)
        mean = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        state = strategy.init(key, mean)
        source, asked = strategy.ask(state, key)

        @jax.jit
        def everyone(source: Any) -> Any:
            def group(mine: Any) -> Any:
                theta = jax.vmap(strategy.candidate, (None, 0, 0))(source, *mine)
                # Made before it is added up, as a life makes it before it reads it.
                return jax.tree.map(jnp.sum, jax.lax.optimization_barrier(theta))

            return jax.lax.map(group, (pairs, signs))

        work = (
            lambda: strategy.ask(state, key),
            lambda: everyone(source),
            lambda: strategy.tell(asked, source, weights),
        )
        return [timed(one, repeats) for one in work]

    for name in names:
        found = seconds(name)
        told = " | ".join(f"{one:.3g}" for one in (*found, sum(found)))
        lines.append(f"| {name} | {told} |")
    return lines


def main() -> None:
    """Read the flags, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    tables = (*FAMILIES, STRATEGIES)
    parser.add_argument("--table", choices=tables, nargs="+", default=tables)
    parser.add_argument("--strategy", default="paired", help="of the families that evolve")
    parser.add_argument(
        "--strategies", nargs="+", default=["paired", "Open_ES"], help="of their table"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="toy sizes")
    flags = parser.parse_args()
    devices.start(1)
    for table in flags.table:
        if table == STRATEGIES:
            lines = strategies(flags.strategies, flags.repeats, flags.quick)
        else:
            lines = profile(table, flags.strategy, flags.repeats, flags.quick)
        print(*lines, "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
