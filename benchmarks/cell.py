"""How near is a whole generation to the least that it must compute, its recurrent cell?

    python benchmarks/cell.py                    about three minutes
    python benchmarks/cell.py --rounds 15
    python benchmarks/cell.py --quick            toy sizes

The least is the recurrent cell of LPG (``learned_objectives/lpg.py``): over each rollout of T steps
of B environments, backwards, the product of the hidden state with a matrix of its own for each
candidate, and the gates. No environment, no agent, no evaluation. The product of the inputs is
given, or, in the forms that say so, made in the loop, which is more arithmetic and less memory. It
is computed in several forms; beside them, in turns within the same process, runs the whole
generation of the case ``published`` of ``generation.py``. Both are told as training environment
steps a second, of which one cell over one rollout stands for T B; of the generation, drawing tasks,
evaluation and the outer update count in the time and not in the steps.

There are as many virtual CPU devices as cores. Forms without "a core each" run on one of them, to
which XLA may lend several cores for one product.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from discovery import devices
from discovery.config import Config, HorizonConfig, population, preset

if TYPE_CHECKING:
    from jax import Array

Product = Callable[["Array", "Array"], "Array"]


class Size(NamedTuple):
    """Of what is computed."""

    candidates: int
    """P."""
    updates: int
    """U, of each candidate."""
    steps: int
    """T."""
    environments: int
    """B."""
    width: int
    """H."""

    @property
    def environment_steps(self) -> int:
        """Of training that the cells of all candidates stand for."""
        return self.candidates * self.updates * self.steps * self.environments


INPUTS = 7
"""I, of TA-LPG."""


class Candidate(NamedTuple):
    """A cell and what it reads; leaves ``[P, ...]`` for all."""

    wh: Array
    """``[H, 3 H]``."""
    bh: Array
    """``[H]``."""
    x: Array
    """``[T, B, I]``, inputs."""
    wx: Array
    """``[I, 3 H]``."""
    read: Array
    """``[T, B, 3 H]``, the product of both."""
    carry_on: Array
    """``[T, B, 1]``, 0 at an ending."""


def inputs(size: Size) -> tuple[Candidate, Array]:
    """Candidates, and in which order each update reads the steps ``[U, T]``.

    A permutation of its own for each update makes its inputs others than those of any other at no
    arithmetic.
    """
    import jax
    import jax.numpy as jnp

    p, u, t, b, h = size
    keys = jax.random.split(jax.random.key(0), 6)
    x = jax.random.normal(keys[2], (p, t, b, INPUTS))
    wx = jax.random.normal(keys[5], (p, INPUTS, 3 * h)) / INPUTS**0.5
    candidates = Candidate(
        wh=jax.random.normal(keys[0], (p, h, 3 * h)) / h**0.5,
        bh=jax.random.normal(keys[1], (p, h)) / 10,
        x=x,
        wx=wx,
        read=jnp.einsum("ptbi,pih->ptbh", x, wx),
        carry_on=(jax.random.uniform(keys[3], (p, t, b, 1)) > 0.05).astype(jnp.float32),
    )
    steps = jnp.tile(jnp.arange(t), (u, 1))
    return candidates, jax.random.permutation(keys[4], steps, axis=1, independent=True)


def full(h: Array, wh: Array) -> Array:
    """The product in float32."""
    return h @ wh


def half(h: Array, wh: Array) -> Array:
    """The product of bfloat16 numbers, added up in float32."""
    import jax
    import jax.numpy as jnp

    # The matrix is the same for all updates, and XLA converts it once.
    return jax.lax.dot(
        h.astype(jnp.bfloat16), wh.astype(jnp.bfloat16), preferred_element_type=jnp.float32
    )


def cells(product: Product, one: Candidate, order: Array, inside: bool = False) -> Array:
    """The recurrent cell of one candidate over all its updates, each going on from the one before.

    Args:
      product: of hidden state and matrix.
      one: a cell and what it reads.
      order: in which each update reads the steps, ``[U, T]``.
      inside: multiply the inputs here.

    Returns:
      The mean output of each update over steps and environments, ``[U, H]``.
    """
    import jax
    import jax.numpy as jnp

    def step(carry: tuple[Array, Array], t: Array) -> tuple[tuple[Array, Array], None]:
        later, total = carry
        h = later * one.carry_on[t]
        read = one.x[t] @ one.wx if inside else one.read[t]
        xr, xz, xc = jnp.split(read, 3, axis=-1)
        hr, hz, hc = jnp.split(product(h, one.wh), 3, axis=-1)
        reset, keep = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
        candidate = jnp.tanh(xc + reset * (hc + one.bh))
        h = (1 - keep) * candidate + keep * h
        return (h, total + h), None

    def update(later: Array, order: Array) -> tuple[Array, Array]:
        (later, total), _ = jax.lax.scan(step, (later, jnp.zeros_like(later)), order)
        return later, total.mean(axis=0) / order.size

    start = jnp.zeros((one.read.shape[1], one.bh.size))
    return jax.lax.scan(update, start, order)[1]


def forms(size: Size) -> dict[str, Callable[[], Array]]:
    """Ways to compute the cells of all candidates.

    Returns:
      By name, calls that return the mean outputs ``[P, U, H]``.
    """
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    from discovery.inner.cohort import AXIS, population_mesh

    mesh = population_mesh(size.candidates)
    everywhere, split = PartitionSpec(), PartitionSpec(AXIS)

    def together(candidates: Candidate, order: Array) -> Array:
        return jax.vmap(lambda one: cells(full, one, order))(candidates)

    def in_turn(
        product: Product, candidates: Candidate, order: Array, inside: bool = False
    ) -> Array:
        return jax.lax.map(lambda one: cells(product, one, order, inside), candidates)

    def a_core_each(product: Product, inside: bool = False) -> Callable[..., Array]:
        return jax.shard_map(
            functools.partial(in_turn, product, inside=inside),
            mesh=mesh,
            in_specs=(split, everywhere),
            out_specs=split,
            check_vma=False,
        )

    candidates, order = inputs(size)
    alone = devices.put((candidates, order), devices.home())
    shared = (
        devices.put(candidates, NamedSharding(mesh, split)),
        devices.put(order, NamedSharding(mesh, everywhere)),
    )
    ways: dict[str, tuple[Callable[..., Array], Any]] = {
        "all candidates at once, float32": (together, alone),
        "one at a time, float32": (functools.partial(in_turn, full), alone),
        "one at a time, bfloat16 products": (functools.partial(in_turn, half), alone),
        "a core each, one at a time, float32": (a_core_each(full), shared),
        "a core each, one at a time, bfloat16 products": (a_core_each(half), shared),
        "the same, inputs in the loop, float32": (a_core_each(full, True), shared),
        "the same, inputs in the loop, bfloat16 products": (a_core_each(half, True), shared),
    }
    return {
        name: functools.partial(jax.jit(function), *arguments)
        for name, (function, arguments) in ways.items()
    }


GENERATION = "a whole generation"


def compare(config: Config, updates: int, rounds: int) -> dict[str, list[float]]:
    """Time all forms and a generation in turns.

    Args:
      config: of a search over LPG.
      updates: U of the forms.
      rounds: timings of each.

    Returns:
      Environment steps a second by form, those of a generation last.
    """
    import jax

    from discovery.outer.search import make_search

    life = config.life
    size = Size(
        population(config)[0], updates, life.rollout, life.environments, config.objective.width
    )
    search = make_search(config)
    state = search.init()
    work: dict[str, Callable[[], Any]] = {**forms(size), GENERATION: lambda: search.step(state)}
    steps = dict.fromkeys(work, float(size.environment_steps))
    steps[GENERATION] = float(jax.block_until_ready(search.step(state))[1]["steps"])
    for call in work.values():
        jax.block_until_ready(call())
    speeds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds):
        # There and back, so that none always follows the same one.
        for name in list(work)[:: -1 if turn % 2 else 1]:
            began = time.perf_counter()
            jax.block_until_ready(work[name]())
            speeds[name].append(steps[name] / (time.perf_counter() - began))
    return speeds


def table(speeds: dict[str, list[float]]) -> list[str]:
    """What was timed, line by line; ratios are medians over the rounds."""
    whole = speeds[GENERATION]
    lines = [
        "| what | training steps/s, median (min - max) | generation / form, median (min - max) |",
        "|---|---|---|",
    ]
    for name, found in speeds.items():
        told = f"| {name} | {median(found):,.0f} ({min(found):,.0f} - {max(found):,.0f}) |"
        ratios = [mine / other for mine, other in zip(whole, found, strict=True)]
        lines.append(f"{told} {median(ratios):.3f} ({min(ratios):.3f} - {max(ratios):.3f}) |")
    best = max((name for name in speeds if name != GENERATION), key=lambda n: median(speeds[n]))
    ratio = median(mine / other for mine, other in zip(whole, speeds[best], strict=True))
    lines += ["", f"The best form: {best}. A generation reaches {ratio:.3f} of it."]
    return lines


def toy() -> Config:
    """A search of toy sizes."""
    config = preset("smoke")
    evolution = replace(config.evolution, pairs=4, group=8)
    return replace(config, evolution=evolution, horizon=HorizonConfig(2, 2))


def main() -> None:
    """Read the flags, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--updates", type=int, default=10, help="of each candidate, in the forms")
    parser.add_argument("--quick", action="store_true", help="toy sizes")
    flags = parser.parse_args()
    from generation import case

    config = toy() if flags.quick else case("published", None, None, None, None)
    devices.start()
    speeds = compare(config, flags.updates, flags.rounds)
    life, width = config.life, config.objective.width
    print(
        f"{population(config)[0]} candidates, H = {width}, T = {life.rollout}, "
        f"B = {life.environments}; the generation has N = {config.horizon.longest}; "
        f"{flags.rounds} rounds, {devices.describe()}\n"
    )
    print(*table(speeds), sep="\n")


if __name__ == "__main__":
    main()
