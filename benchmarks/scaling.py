"""Does a generation cost what its size is, is memory flat, what does a mix of horizons cost?

    python benchmarks/scaling.py --save scaling.json --plot scaling.png      about five minutes
    python benchmarks/scaling.py --load scaling.json --plot scaling.png      what was saved, again
    python benchmarks/scaling.py --quick                                     toy sizes: does it run?

The search is ``ta-lpg-cpu``, one of its sizes at a time eight times as large as the smallest. Every
round visits all sizes in turn, so that all meet the same load; the first round compiles and is left
out. Evaluation, the drawing of tasks and the outer update do not grow with the horizon, so each
size is also measured with lives of one update: the difference is training alone. A mix of horizons
is compared with what its updates cost in generations whose lives all have one horizon.

Shape legend: ``M`` antithetic pairs, ``2 M`` lives.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from discovery import devices
from discovery.config import Config, HorizonConfig, preset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
Found = dict[str, Any]
"""All that was measured, as JSON keeps it: tables and the figure are made of it."""

AXES = {
    "pairs": "antithetic pairs",
    "environments": "environments of an agent",
    "horizon": "horizon (updates)",
}
"""What grows -> in words."""


class Sizes(NamedTuple):
    """What is measured."""

    axes: Mapping[str, tuple[Config, tuple[int, ...]]]
    """What grows -> the search, and the sizes in its place."""
    mix: Config
    """A search of many horizons."""
    mix_groups: Mapping[int, tuple[int, ...]]
    """Lives a group of the mix -> horizons of the generations that tell what an update costs."""
    memory_groups: tuple[int, ...]
    """Lives a group of the mix for which memory is told."""
    rounds: int
    tiny: Config
    """A search that runs for many generations."""
    generations: tuple[int, ...]
    """Generations after which the memory of the process is read."""


def sized(
    config: Config, pairs: int = 0, environments: int = 0, horizon: int = 0, group: int = 0
) -> Config:
    """The same search at another size; 0 leaves one as it is."""
    life, evolution = config.life, config.evolution
    return replace(
        config,
        life=replace(life, environments=environments or life.environments),
        horizon=HorizonConfig(horizon, horizon) if horizon else config.horizon,
        evolution=replace(
            evolution, pairs=pairs or evolution.pairs, group=group or evolution.group
        ),
    )


def full() -> Sizes:
    """What takes five minutes on two cores; of the smallest, a generation takes a third of one."""
    mix = replace(preset("ta-lpg-cpu"), horizon=HorizonConfig(10, 250))
    horizons = (20, 40, 80, 160)
    return Sizes(
        axes={
            "pairs": (sized(mix, horizon=30), (16, 32, 64, 128)),
            "environments": (sized(mix, pairs=32, horizon=30), (8, 16, 32, 64)),
            "horizon": (mix, horizons),
        },
        mix=mix,
        mix_groups={16: horizons, 4: (horizons[0], horizons[-1])},
        memory_groups=(4, 8, 16, 32),
        rounds=5,
        tiny=preset("smoke"),
        generations=(2, 10, 40, 160),
    )


def quick(mix: Config) -> Sizes:
    """Three programs of a small search of many horizons; their times tell nothing."""
    horizons = (8, 16)
    return Sizes(
        axes={
            "pairs": (sized(mix, horizon=8), (4, 8)),
            "environments": (sized(mix, horizon=8), (4, 8)),
            "horizon": (mix, horizons),
        },
        mix=mix,
        mix_groups={mix.evolution.group: horizons},
        memory_groups=(mix.evolution.group,),
        rounds=1,
        tiny=mix,
        generations=(2, 4),
    )


# --- what is measured -------------------------------------------------------------------------


def measure(sizes: Sizes) -> Found:
    """Run everything in this process; what is done is told on the error stream."""
    devices.start()
    import jax

    from discovery.outer.search import make_search

    process = over_generations(sizes.tiny, sizes.generations)
    axes = {
        axis: {size: sized(config, **{axis: size}) for size in grown}
        for axis, (config, grown) in sizes.axes.items()
    }
    mixes = {group: sized(sizes.mix, group=group) for group in sizes.mix_groups}
    calibrated = {
        group: [sized(mixes[group], horizon=horizon) for horizon in horizons]
        for group, horizons in sizes.mix_groups.items()
    }
    wanted: list[Config] = [
        each
        for grown in axes.values()
        for config in grown.values()
        for each in (config, sized(config, horizon=1))
    ]
    for group, config in mixes.items():
        wanted += [*calibrated[group], config]
    # Sizes that two questions have in common are measured once.
    searches = {config: make_search(config) for config in dict.fromkeys(wanted)}
    states = {config: search.init() for config, search in searches.items()}

    needed: dict[Config, int] = {}
    for config in dict.fromkeys(config for grown in axes.values() for config in grown.values()):
        needed[config] = searches[config].memory(states[config])
        tell(f"compiled {len(needed)} searches")
    groups = []
    for group in sizes.memory_groups:
        search = make_search(sized(sizes.mix, group=group))
        groups.append({"size": group, "bytes": search.memory(search.init())})
        tell(f"compiled {group} lives a group")

    seconds: dict[Config, list[float]] = {config: [] for config in searches}
    for turn in range(1 + sizes.rounds):
        for config, search in searches.items():
            began = time.perf_counter()
            states[config], _ = jax.block_until_ready(search.step(states[config]))
            if turn:
                seconds[config].append(time.perf_counter() - began)
        tell(f"round {turn} of {sizes.rounds}")

    return {
        "devices": devices.describe(),
        "cpu": devices.versions()["cpu"],
        "jax": jax.__version__,
        "axes": {
            axis: [
                {
                    "size": size,
                    "seconds": seconds[config],
                    "short": seconds[sized(config, horizon=1)],
                    "bytes": needed[config],
                }
                for size, config in grown.items()
            ]
            for axis, grown in axes.items()
        },
        "groups": groups,
        "process": process,
        "mixes": [
            {
                "group": group,
                "horizons": [config.horizon.shortest, config.horizon.longest],
                "lives": 2 * config.evolution.pairs,
                "devices": jax.device_count(),
                "alike": [
                    {
                        "updates": 2 * one.evolution.pairs * one.horizon.longest,
                        "seconds": seconds[one],
                    }
                    for one in calibrated[group]
                ],
                "mixed": [
                    {
                        "updates": 2 * int(horizons.sum()),
                        "seconds": taken,
                        "bound": float(bound(horizons, group, jax.device_count())),
                    }
                    for horizons, taken in zip(
                        drawn(config, searches[config], sizes.rounds), seconds[config], strict=True
                    )
                ],
            }
            for group, config in mixes.items()
        ],
    }


def tell(line: str) -> None:
    """A sign of life, beside the tables."""
    print(line, file=sys.stderr, flush=True)


def drawn(config: Config, search: Any, rounds: int) -> list[np.ndarray]:
    """Horizons ``[M]`` of the generations of each round, after the one that compiled."""
    import jax.numpy as jnp

    from discovery.outer.search import draw

    key, level = search.init().key, search.world.env.sample_level
    e = config.evolution
    return [
        np.asarray(
            draw(key, jnp.int32(turn), level, config.horizon, e.pairs, e.shared_task)[2].horizon
        )
        for turn in range(1, 1 + rounds)
    ]


def over_generations(config: Config, generations: Sequence[int]) -> list[Row]:
    """Memory of the process, and bytes of all arrays of JAX in it, as a search goes on."""
    import jax

    from discovery.outer.search import make_search

    search = make_search(config)
    state, rows = search.init(), []
    for generation in range(1, 1 + max(generations)):
        state, _ = jax.block_until_ready(search.step(state))
        if generation in generations:
            gc.collect()
            arrays = sum(array.nbytes for array in jax.live_arrays())
            rows.append({"generations": generation, "resident": resident(), "arrays": arrays})
    return rows


def resident() -> int | None:
    """Bytes of memory that this process holds, where the system tells (Linux)."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return None
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- a mix of horizons ------------------------------------------------------------------------


def bound(horizons: np.ndarray, group: int, count: int) -> np.ndarray:
    r"""What a mix of horizons costs over the sum of its lives, if updates were all there is.

    A group of G lives takes as long as its longest, and D devices as long as the busiest of them:

    .. math:: D \max_d \sum_{g \in d} G \max_{i \in g} N_i \Big/ \sum_i N_i

    Args:
      horizons: of the pairs, ``[..., M]``, in any order.
      group: G, lives computed together.
      count: D. Devices that groups cannot be shared with evenly are idle, as in a search.

    Returns:
      ``[...]``, at least 1.

    Example:
      >>> float(bound(np.array([1, 2, 4, 9]), 4, 1))  # (4 * 2 + 4 * 9) / 32
      1.375
    """
    from discovery.inner.cohort import largest_divisor

    lives = np.repeat(np.sort(horizons, axis=-1), 2, axis=-1)
    longest = lives.reshape(*lives.shape[:-1], -1, group).max(axis=-1)
    used = largest_divisor(longest.shape[-1], count)
    # Groups are dealt in turn, to the devices 0 to D - 1 and back.
    rounds = longest.reshape(*longest.shape[:-1], -1, used)
    rounds[..., 1::2, :] = rounds[..., 1::2, ::-1].copy()
    shares = rounds.sum(axis=-2)
    return count * group * shares.max(axis=-1) / lives.sum(axis=-1)


GROUPS = (2, 4, 8, 16, 32, 64, 128)
POPULATIONS = (64, 512)
DEVICES = (1, 2, 8)


def bounds(law: HorizonConfig, draws: int = 100) -> list[Row]:
    """:func:`bound`, averaged over draws of the horizons of a generation."""
    import jax

    from discovery.outer.tasks import sample_horizons

    keys = jax.random.split(jax.random.key(0), draws)
    rows = []
    for pairs in POPULATIONS:
        horizons = np.stack([np.asarray(sample_horizons(key, law, pairs)) for key in keys])
        rows += [
            {
                "pairs": pairs,
                "group": group,
                "devices": count,
                "bound": float(bound(horizons, group, count).mean()),
            }
            for group in GROUPS
            for count in DEVICES
        ]
    return rows


# --- fits -------------------------------------------------------------------------------------


class Fit(NamedTuple):
    """How seconds grow with a size."""

    exponent: float
    """Slope of log seconds over log size."""
    alone: float
    """The same of training alone: seconds less those with lives of one update."""
    constant: float
    slope: float
    """Of seconds = constant + slope * size, least squares of relative deviations."""
    deviation: float
    """Largest relative deviation from that line."""


def exponent(size: np.ndarray, seconds: np.ndarray) -> float:
    """Slope of log seconds over log size; NaN where a time is lost in noise.

    Example:
      >>> round(exponent(np.array([1.0, 2.0, 4.0]), np.array([3.0, 12.0, 48.0])), 6)
      2.0
    """
    if np.any(seconds <= 0):
        return float("nan")
    return float(np.polyfit(np.log(size), np.log(seconds), 1)[0])


def line(size: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Constant and slope of the line of least squares of relative deviations."""
    slope, constant = np.polyfit(size, seconds, 1, w=1 / seconds)
    return float(constant), float(slope)


def fit(axis: str, rows: Sequence[Row]) -> Fit:
    """How the seconds of an axis grow."""
    size = np.array([row["size"] for row in rows], float)
    seconds, training = medians(rows)
    constant, slope = line(size, seconds)
    # Of N updates, the one of the short lives went with what was taken off.
    trained = size - 1 if axis == "horizon" else size
    return Fit(
        exponent=exponent(size, seconds),
        alone=exponent(trained, training),
        constant=constant,
        slope=slope,
        deviation=float(np.max(np.abs(seconds / (constant + slope * size) - 1))),
    )


def medians(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Median seconds of a generation at each size, and of its training alone."""
    seconds = np.array([median(row["seconds"]) for row in rows])
    return seconds, seconds - np.array([median(row["short"]) for row in rows])


def ratios(mix: Row) -> tuple[float, float, list[float]]:
    """Constant and slope of seconds over updates of lives alike, and each mix over that line."""
    updates = np.array([row["updates"] for row in mix["alike"]], float)
    seconds = np.array([median(row["seconds"]) for row in mix["alike"]])
    constant, slope = line(updates, seconds)
    found = [row["seconds"] / (constant + slope * row["updates"]) for row in mix["mixed"]]
    return constant, slope, found


# --- what is told -----------------------------------------------------------------------------

MIB = 2**20


def tables(found: Found) -> str:
    """What was measured, as Markdown."""
    parts = [
        f"{found['devices']}, {found['cpu']}, jax {found['jax']}.",
        table(
            "what grows | size | seconds a generation | with lives of one update "
            "| the program's memory on each device, MiB",
            [
                (
                    AXES[axis],
                    f"{row['size']:,}",
                    spread(row["seconds"]),
                    spread(row["short"]),
                    f"{row['bytes'] / MIB:.2f}",
                )
                for axis, rows in found["axes"].items()
                for row in rows
            ],
        ),
        table(
            "what grows | exponent | of training alone | seconds a generation = "
            "| largest deviation from that line",
            [
                (
                    AXES[axis],
                    f"{told.exponent:.2f}",
                    f"{told.alone:.2f}",
                    f"{told.constant:.3f} + {told.slope:.3g} x size",
                    f"{told.deviation:.1%}",
                )
                for axis, rows in found["axes"].items()
                for told in [fit(axis, rows)]
            ],
        ),
        table(
            "lives a group | the program's memory on each device, MiB",
            [(row["size"], f"{row['bytes'] / MIB:.2f}") for row in found["groups"]],
        ),
        table(
            "generations of a tiny search | the process, MiB | arrays in it, bytes",
            [
                (
                    row["generations"],
                    "-" if row["resident"] is None else f"{row['resident'] / MIB:.1f}",
                    f"{row['arrays']:,}",
                )
                for row in found["process"]
            ],
        ),
        table(
            "a mix: horizons, lives, lives a group, devices | seconds a generation "
            "| over the sum of its lives | by arithmetic | seconds of lives of one horizon =",
            [
                (
                    "N = {}-{}, ".format(*mix["horizons"])
                    + f"{mix['lives']}, {mix['group']}, {mix['devices']}",
                    spread([row["seconds"] for row in mix["mixed"]]),
                    spread(over),
                    spread([row["bound"] for row in mix["mixed"]]),
                    f"{constant:.3f} + {1e6 * slope:.3g}e-6 x updates",
                )
                for mix in found["mixes"]
                for constant, slope, over in [ratios(mix)]
            ],
        ),
    ]
    return "\n\n".join(parts)


def arithmetic(law: HorizonConfig) -> str:
    """The table of :func:`bounds`: a row for each group, a column for each population."""
    found = {(row["pairs"], row["group"], row["devices"]): row["bound"] for row in bounds(law)}
    columns = [(pairs, count) for pairs in POPULATIONS for count in DEVICES]
    names = (f"{pairs} pairs, {count} device{'s' * (count > 1)}" for pairs, count in columns)
    return table(
        " | ".join((f"lives a group, N = {law.shortest}-{law.longest}", *names)),
        [
            (group, *(f"{found[pairs, group, count]:.2f}" for pairs, count in columns))
            for group in GROUPS
        ],
    )


def spread(values: Sequence[float]) -> str:
    """Median, smallest and largest."""
    return f"{median(values):.3g} ({min(values):.3g} - {max(values):.3g})"


def table(head: str, rows: Sequence[Sequence[Any]]) -> str:
    """Markdown of a header, whose columns are parted by bars, and rows."""
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1)]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows])


# --- the figure -------------------------------------------------------------------------------


def picture(found: Found) -> Figure:
    """Seconds over each size, and memory over all of them.

    Args:
      found: what was measured.

    Returns:
      The figure.
    """
    import matplotlib as mpl

    from discovery.evaluation.figures import STYLE, panels_of

    with mpl.rc_context(STYLE):
        figure, panels = panels_of(1 + len(found["axes"]), None)
        for axes, (axis, rows) in zip(panels, found["axes"].items(), strict=False):
            _seconds(axes, axis, rows)
        _memory(panels[-1], found)
    return figure


def _seconds(axes: Axes, axis: str, rows: Sequence[Row]) -> None:
    """Both times of an axis on logarithms, each with the power that was fitted to it."""
    from discovery.evaluation.figures import COLOURS, MARKERS

    size = np.array([row["size"] for row in rows], float)
    told = fit(axis, rows)
    names = ("a generation", "training alone")
    for number, (name, seconds, power) in enumerate(
        zip(names, medians(rows), (told.exponent, told.alone), strict=True)
    ):
        if not np.isfinite(power):
            continue
        colour = COLOURS[number]
        middle = np.exp(np.log(seconds).mean() + power * (np.log(size) - np.log(size).mean()))
        axes.plot(size, middle, color=colour, linewidth=1.2, linestyle=("-", "--")[number])
        axes.plot(
            size,
            seconds,
            color=colour,
            marker=MARKERS[number],
            linestyle="none",
            label=f"{name}: exponent {power:.2f}",
        )
    low, high = (np.array([end(row["seconds"]) for row in rows]) for end in (min, max))
    axes.vlines(size, low, high, color=COLOURS[0], linewidth=1.0, alpha=0.7)
    axes.set_ylabel("seconds")
    axes.set_xlabel(AXES[axis])
    _ticks(axes, size)
    axes.legend(loc="upper left")


def _memory(axes: Axes, found: Found) -> None:
    """Memory of the program over every size, and of the process over generations."""
    from discovery.evaluation.figures import COLOURS, MARKERS

    curves = {
        AXES[axis]: [(row["size"], row["bytes"]) for row in rows]
        for axis, rows in found["axes"].items()
    }
    curves["lives a group"] = [(row["size"], row["bytes"]) for row in found["groups"]]
    curves["generations (the process)"] = [
        (row["generations"], row["resident"])
        for row in found["process"]
        if row["resident"] is not None
    ]
    times = set()
    for number, (name, points) in enumerate(curves.items()):
        if not points:
            continue
        size, taken = np.array(points, float).T
        times |= set(size / size[0])
        axes.plot(
            size / size[0],
            taken / MIB,
            color=COLOURS[number],
            marker=MARKERS[number],
            markersize=7 - number,  # two that are the same stay seen
            label=name,
        )
    axes.set_ylabel("memory (MiB)")
    axes.set_xlabel("times the smallest size")
    _ticks(axes, sorted(times))
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.93))


def _ticks(axes: Axes, places: Sequence[float] | np.ndarray) -> None:
    """Two logarithmic axes: numbers at these places, and at 1, 2, 5, 10, ..."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator([float(place) for place in places]))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for each in (axes.xaxis, axes.yaxis):
        each.set_minor_locator(NullLocator())
        each.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,g}"))


def main() -> None:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="toy sizes, in seconds")
    parser.add_argument("--save", type=Path, help="JSON file for what is measured")
    parser.add_argument("--load", type=Path, help="such a file, instead of measuring")
    parser.add_argument("--plot", type=Path, help="PNG file for the figure, and an SVG beside it")
    flags = parser.parse_args()
    if flags.load:
        found = json.loads(flags.load.read_text(encoding="utf-8"))
    else:
        found = measure(quick(preset("smoke")) if flags.quick else full())
    if flags.save:
        flags.save.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(tables(found), arithmetic(preset("ta-lpg").horizon), sep="\n\n")
    if flags.plot:
        from discovery.evaluation.figures import save

        save(picture(found), flags.plot)


if __name__ == "__main__":
    main()
