"""From the numbers of generations to one line a chunk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

SUMMED = ("nonfinite", "steps", "evaluation_steps", "rival_steps", "ended")
"""Metrics of a generation that a chunk adds up."""
LAST = ("sigma", "rate", "filled", "regret_nonfinite")
"""Metrics of which a chunk keeps the last; of all others it takes the mean."""


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Scalars on the host; waits for them."""
    import jax

    return {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}


def reduced(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One line for the generations of a chunk: a sum, the last, or the mean of each metric.

    A metric that some generations do not have, or whose number is not finite there, is averaged
    over the others.

    Example:
      >>> reduced([{"fitness": 1.0, "nonfinite": 1.0}, {"fitness": 2.0, "nonfinite": 0.0}])
      {'fitness': 1.5, 'nonfinite': 1.0}
    """
    names = dict.fromkeys(name for row in rows for name in row)
    out = {}
    for name in names:
        values = [row[name] for row in rows if name in row]
        finite = [value for value in values if math.isfinite(value)]
        if name in SUMMED:
            out[name] = math.fsum(finite)
        elif name in LAST:
            out[name] = values[-1]
        else:
            out[name] = math.fsum(finite) / len(finite) if finite else math.nan
    return out
