"""Two generations on a number of virtual devices: digests of all that they drew and made.

python tests/faults/generation.py DEVICES [evolution|windows|gradient]
"""

import dataclasses
import hashlib
import json
import sys
from typing import Any

import jax
import numpy as np

from discovery import devices
from discovery.config import (
    Config,
    EvolutionConfig,
    GradientConfig,
    HorizonConfig,
    LifeConfig,
    ObjectiveConfig,
    WindowConfig,
)

CONFIG = Config(
    env="chain",
    validation_levels=4,
    objective=ObjectiveConfig(width=16, predictions=2, embedding=2),
    life=LifeConfig(environments=2, rollout=4, evaluation_environments=2),
    horizon=HorizonConfig(shortest=1, longest=4),
    evolution=EvolutionConfig(pairs=32, group=4, sigma=0.5, rate=0.1),
    gradient=GradientConfig(agents=32, agents_group=4, meta_rate=0.01),
    window=WindowConfig(window=2),
)
"""64 lives in 16 groups."""


def digest(tree: Any) -> str:
    from discovery.runs.checkpoint import manifest

    return hashlib.sha256(repr(manifest(tree)).encode()).hexdigest()


def generations(config: Config) -> dict[str, Any]:
    """What two generations of a search are, in digests."""
    from discovery.outer.scoring import Lived, watched
    from discovery.outer.search import make_search

    search = make_search(config)
    state = search.init()
    theta = jax.device_get(search.theta(state))
    told: dict[str, Any] = {
        "devices": jax.device_count(),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(theta)),
    }
    for _ in range(2):
        with watched() as seen:
            state, metrics = search.step(state)
        number = int(state.generation)
        for part in seen:
            whole = isinstance(part, Lived)
            lives = part.lives if whole else part
            # One after another: all together would be the array that there may not be.
            made = [
                part.cohort.candidate(*jax.device_get((part.source, life, sign)))
                for life, sign in zip(lives.id[::7], lives.sign[::7], strict=True)
            ]
            told[f"{number} candidates"] = digest(jax.device_get(made))
            tasks, scores = (
                (part.lives.task, part.outcome) if whole else (part.newborn, part.finite)
            )
            told[f"{number} tasks"] = digest(jax.device_get(tasks))
            told[f"{number} scores"] = digest(jax.device_get(scores))
        told[f"{number} state"] = digest(devices.put(state, devices.home()))
        told[f"{number} metrics"] = {k: repr(float(v)) for k, v in sorted(metrics.items())}
    told["validation"] = {k: repr(float(v)) for k, v in sorted(search.validate(state).items())}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(search.theta(state)))
    return told


if __name__ == "__main__":
    devices.start(int(sys.argv[1]))
    estimator: Any = sys.argv[2] if len(sys.argv) > 2 else "evolution"
    print(json.dumps(generations(dataclasses.replace(CONFIG, estimator=estimator))))
