"""How fast is a whole generation of a search, how long does it compile, what memory does it take?

    python benchmarks/generation.py                       the table of benchmarks/README.md
    python benchmarks/generation.py --case cpu --json     one case, as data
    python benchmarks/generation.py --case full --group 256      on an accelerator

Environment steps are those of training; the time is that of the whole generation, so evaluation,
drawing tasks and the outer update count in the time and not in the steps. Each case runs in a
process of its own, whose peak memory is read at its end.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from statistics import median
from typing import Any

from discovery import devices
from discovery.config import Config, HorizonConfig, population, preset

PUBLIC = 2800
"""Environment steps a second of the papers' public code on such a machine: see README.md."""


def case(
    name: str, group: int | None, horizon: int | None, pairs: int | None, agents: int | None
) -> Config:
    """A search of one size.

    ``published``: network and agent of the paper, 8 pairs, horizon 50. ``cpu``: width 32, as the
    CPU presets. ``full``: the whole published generation, 512 pairs, horizons 10 to 250. ``meta``:
    a published step of meta-gradients, 512 agents, K = 5.
    """
    if name == "meta":
        config = preset("ta-lpg-mg")
        chosen = replace(config.gradient, agents=agents or config.gradient.agents)
        chosen = replace(chosen, agents_group=group or chosen.agents_group)
        return replace(config, gradient=chosen)
    config = preset("ta-lpg-cpu" if name == "cpu" else "ta-lpg")
    evolution = config.evolution
    if name == "published":
        evolution = replace(evolution, pairs=8, group=8)
        config = replace(config, horizon=HorizonConfig(50, 50))
    evolution = replace(evolution, pairs=pairs or evolution.pairs, group=group or evolution.group)
    if horizon:
        config = replace(config, horizon=HorizonConfig(horizon, horizon))
    return replace(config, evolution=evolution)


def measure(config: Config, repeats: int) -> dict[str, Any]:
    """Run a few generations of a search in this process."""
    devices.start()
    import jax

    from discovery.outer.grouping import grouped
    from discovery.outer.search import make_search

    search = make_search(config)
    state = jax.block_until_ready(search.init())
    began = time.perf_counter()
    state, metrics = jax.block_until_ready(search.step(state))
    first = time.perf_counter() - began
    seconds, speeds = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        state, metrics = jax.block_until_ready(search.step(state))
        seconds.append(time.perf_counter() - began)
        speeds.append(float(metrics["steps"]) / seconds[-1])
    found = jax.devices()[0].memory_stats() or {}
    device_peak = found.get("peak_bytes_in_use")
    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "lives": population(config)[0],
        "group": population(grouped(config))[1],
        "width": config.objective.width,
        "horizons": [config.horizon.shortest, config.horizon.longest],
        "compile_seconds": round(first - median(seconds), 1),
        "generation_seconds": [round(s, 3) for s in seconds],
        "steps_per_second": round(median(speeds)),
        "spread": [round(min(speeds)), round(max(speeds))],
        "peak_host_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "peak_device_gib": None if device_peak is None else round(device_peak / 2**30, 2),
    }


TABLE = (
    ("published network (GRU 256), 8 pairs, N = 50", ["--case", "published"]),
    ("CPU size (GRU 32), 64 pairs, N = 5-100", ["--case", "cpu"]),
    ("CPU size, N = 50", ["--case", "cpu", "--horizon", "50"]),
    ("CPU size, N = 1,000", ["--case", "cpu", "--horizon", "1000", "--repeats", "2"]),
    ("meta-gradient (GRU 256), K = 5, 64 agents", ["--case", "meta", "--agents", "64"]),
    ("meta-gradient (GRU 256), K = 5, 512 agents", ["--case", "meta", "--repeats", "2"]),
)


def table() -> None:
    """Every line of the table, each in a process of its own."""
    print("| case | steps/s, median (min - max) | over 2,800 | compile, s | peak memory, GiB |")
    print("|---|---|---|---|---|")
    for title, arguments in TABLE:
        command = [sys.executable, __file__, "--json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        low, high = found["spread"]
        speed = found["steps_per_second"]
        print(
            f"| {title} | {speed:,} ({low:,} - {high:,}) | {speed / PUBLIC:.0f} | "
            f"{found['compile_seconds']} | {found['peak_host_gib']} |",
            flush=True,
        )


def main() -> None:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", choices=("published", "cpu", "full", "meta"))
    parser.add_argument("--group", type=int)
    parser.add_argument("--horizon", type=int)
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--agents", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args()
    if not flags.case:
        table()
        return
    chosen = case(flags.case, flags.group, flags.horizon, flags.pairs, flags.agents)
    found = measure(chosen, flags.repeats)
    if flags.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
