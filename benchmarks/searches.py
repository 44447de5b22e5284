"""Does a cheaper way to search find as good an objective, and how fast is a generation of it?

    python benchmarks/searches.py                     quickstart, ranks 0, 1 and 4, five seeds
    python benchmarks/searches.py --seeds 2 --seed-first 3       two of them, a piece of the table
    python benchmarks/searches.py --ranks 0 --products float32 bfloat16 --width 128 \\
        --generations 200
    python benchmarks/searches.py --preset ta-lpg --pairs 8 --group 8 --horizon 50 \\
        --seeds 1 --generations 9 --levels 0          the published network, speed alone

A way is a rank of the noise and what the factors of the recurrent cell's products are rounded to.
Searches of one seed begin at the same mean and meet the same tasks, horizons and random numbers of
lives: they differ in their way alone, and a generation of each costs the same environment steps.
They are stepped in turns, so that all meet the same load, and times are compared generation by
generation. Scores are mean returns on held-out validation tasks, a quarter of the way and at the
end. Nothing is written.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

from discovery import devices
from discovery.config import Config, HorizonConfig, check, preset
from discovery.evaluation.statistics import student_interval


class Way(NamedTuple):
    """How a search is made."""

    rank: int
    """Of the noise; 0 is full noise."""
    products: str
    """Of the recurrent cell."""

    def __str__(self) -> str:
        """In words."""
        noise = f"rank {self.rank}" if self.rank else "full noise"
        return noise if self.products == "float32" else f"{noise}, {self.products} products"

    def of(self, config: Config) -> Config:
        """The search, made in this way."""
        return replace(
            config,
            evolution=replace(config.evolution, rank=self.rank),
            objective=replace(config.objective, products=self.products),
        )


class Found(NamedTuple):
    """What came of the search of one way and one seed."""

    scores: dict[int, float]
    """By generation; none where nothing was validated."""
    seconds: list[float]
    """Of each generation but the first, which may compile."""
    steps: list[float]
    """Environment steps of training of these."""


@contextmanager
def at_once(abreast: int) -> Generator[None]:
    """Searches that are made meanwhile compute so many lives of a group at once; 0 for as ever."""
    from discovery.outer import search

    program = search.program
    if abreast:
        search.program = functools.partial(program, abreast=abreast)
    try:
        yield
    finally:
        search.program = program


def compare(config: Config, ways: Sequence[Way], levels: int, abreast: int) -> dict[Way, Found]:
    """Search in each way, in turns.

    Args:
      config: of the searches, but for the way.
      ways: how.
      levels: validation tasks that score a mean; 0 for no scores.
      abreast: lives of a group computed at once where there is a rank; 0 for as ever.

    Returns:
      What came of each.
    """
    import jax

    from discovery.outer.search import make_search

    searches, states, found = {}, {}, {way: Found({}, [], []) for way in ways}
    for way in ways:
        chosen = replace(way.of(config), validation_levels=levels or 1)
        check(chosen)
        with at_once(abreast if way.rank else 0):
            searches[way] = make_search(chosen)
        states[way] = jax.block_until_ready(searches[way].init())
    scored = {-(-config.generations // 4), config.generations} if levels else set()
    for g in range(config.generations):
        first = g % len(ways)  # none is always the one after a certain other
        for way in [*ways[first:], *ways[:first]]:
            began = time.perf_counter()
            states[way], told = jax.block_until_ready(searches[way].step(states[way]))
            if g:
                found[way].seconds.append(time.perf_counter() - began)
                found[way].steps.append(float(told["steps"]))
        if g + 1 in scored:
            for way in ways:
                score = float(searches[way].validate(states[way])["validation"])
                found[way].scores[g + 1] = score
                line = f"seed {config.seed}, {way}, generation {g + 1}: {score:.4f}"
                print(line, flush=True)
    return found


def interval(values: Sequence[float]) -> str:
    """Mean over seeds, and its 95 % interval (t) if there are several."""
    found = student_interval(values)
    ends = f" [{found.low:.3f}, {found.high:.3f}]" if len(values) > 1 else ""
    return f"{found.estimate:.3f}{ends}"


def table(found: Sequence[dict[Way, Found]]) -> list[str]:
    """One row a way, compared with the first.

    Args:
      found: of each seed, all of the same ways and generations.

    Returns:
      Lines of Markdown.
    """
    ways = list(found[0])
    scored = list(found[0][ways[0]].scores)
    titles = [f"score, generation {g} | minus the first" for g in scored]
    titles += ["steps/s, median (min - max)", "over the first, median"]
    lines = [f"| how | {' | '.join(titles)} |", f"|---{'|---' * (2 * len(scored) + 2)}|"]
    for way in ways:
        pairs = [(seed[way], seed[ways[0]]) for seed in found]
        cells = []
        for g in scored:
            cells.append(interval([mine.scores[g] for mine, _ in pairs]))
            cells.append(interval([mine.scores[g] - first.scores[g] for mine, first in pairs]))
        speeds = [n / s for mine, _ in pairs for n, s in zip(mine.steps, mine.seconds, strict=True)]
        cells.append(f"{median(speeds):,.0f} ({min(speeds):,.0f} - {max(speeds):,.0f})")
        ratios = [
            slow / own
            for mine, first in pairs
            for own, slow in zip(mine.seconds, first.seconds, strict=True)
        ]
        cells.append(f"{median(ratios):.2f}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


def asked(flags: Any) -> Config:
    """The search that the flags describe."""
    config = preset(flags.preset)
    e = config.evolution
    e = replace(e, pairs=flags.pairs or e.pairs, group=flags.group or e.group)
    horizon = HorizonConfig(flags.horizon, flags.horizon) if flags.horizon else config.horizon
    generations = flags.generations or config.generations
    objective = replace(config.objective, width=flags.width or config.objective.width)
    return replace(
        config, evolution=e, horizon=horizon, generations=generations, objective=objective
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the flags, search, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[0, 1, 4], help="0: full noise")
    parser.add_argument(
        "--products", nargs="+", choices=("float32", "bfloat16"), default=["float32"]
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--seed-first", type=int, default=0)
    parser.add_argument("--generations", type=int, help="at least 2; by default the preset's")
    parser.add_argument("--levels", type=int, default=256, help="validation tasks; 0: speed alone")
    parser.add_argument("--preset", default="quickstart")
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--group", type=int, help="lives computed together")
    parser.add_argument("--width", type=int, help="of the cell")
    parser.add_argument("--horizon", type=int, help="one for all lives")
    parser.add_argument(
        "--abreast", type=int, default=0, help="with a rank: lives of a group at once (on a CPU)"
    )
    flags = parser.parse_args(arguments)
    config = asked(flags)
    if config.generations < 2:
        parser.error("the first generation is not timed: give --generations of at least 2")
    devices.start()
    e, h = config.evolution, config.horizon
    print(
        f"{config.preset}, {config.generations} generations of {e.pairs} pairs, "
        f"{e.group or 'as many as fit'} a group, N {h.shortest} to {h.longest}, "
        f"width {config.objective.width}, {devices.describe()}"
        + (f", lives abreast with a rank: {flags.abreast}" if flags.abreast else ""),
        flush=True,
    )
    seeds = range(flags.seed_first, flags.seed_first + flags.seeds)
    asked_for = [Way(rank, kind) for rank in flags.ranks for kind in flags.products]
    ways = list(dict.fromkeys(asked_for))
    found = [
        compare(replace(config, seed=seed), ways, flags.levels, flags.abreast) for seed in seeds
    ]
    print("\n".join(["", *table(found)]))


if __name__ == "__main__":
    main()
