"""How many lives of a search are computed together, where its configuration leaves that open."""

from __future__ import annotations

from dataclasses import replace

import jax

from discovery.config import Config
from discovery.devices import processes

CPU_GROUP = 4
"""On a CPU, whatever its devices and memory, since the bits of scores depend on it. Small groups
lose least to lives of another length."""
ACCELERATOR_GROUP = 128
"""On one H100 the fastest of 16, 128 and 256 for whole lives of TA-LPG."""


def grouped(config: Config, most: int | None = None) -> Config:
    """The same search with a number of lives a group.

    Groups of every kind of environment are alike, and as many as devices can share evenly: if there
    are none such, as processes can.

    Args:
      config: its ``evolution.group`` may be 0.
      most: lives of a group; by default what is fastest (``benchmarks/README.md``). At least 2.

    Returns:
      It as it is, or with the largest group that fits.

    Raises:
      ConfigError: environments that cannot be in one search.

    Example:
      >>> from discovery.config import preset
      >>> grouped(preset("ta-lpg"), 32).evolution.group
      32
    """
    if config.evolution.group:
        return config
    from discovery.outer.several import kinds

    pairs, rest = divmod(config.evolution.pairs, len(kinds(config)))
    pairs = config.evolution.pairs if rest else pairs  # refused later, with what fits
    cpu = jax.default_backend() == "cpu"
    spreads = (processes(),) if cpu else (jax.device_count(), processes())
    if most is None:
        most = CPU_GROUP if cpu else min(ACCELERATOR_GROUP, 2 * pairs // jax.device_count())
    fits = [d for d in range(1, pairs + 1) if pairs % d == 0 and d <= max(1, most // 2)]
    for spread in spreads:
        even = [d for d in fits if pairs // d % spread == 0]
        if even:
            return _of(config, 2 * max(even))
    return _of(config, 2 * max(fits))


def _of(config: Config, group: int) -> Config:
    return replace(config, evolution=replace(config.evolution, group=group))
