"""What a finished search leaves: the objective with its card, and the learning curve."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from discovery import devices
from discovery.config import Config, to_dict
from discovery.runs import folders, logs
from learned_objectives.library import save


def write_card(where: Path, config: Config, objective: Any, theta: Any) -> Path:
    """Write ``objective.safetensors`` and ``card.json``.

    Args:
      where: run folder.
      config: of the search.
      objective: the rule.
      theta: its parameters, arrays of the host.

    Returns:
      The path of the arrays.

    Raises:
      OSError: the disk is full or read-only.
    """
    if config.objective.clock_gate != 1 and hasattr(objective, "baked"):
        # A gate is a number of the search's, which whoever loads the objective does not have.
        objective, theta = objective.baked(theta, config.objective.clock_gate)
    clock = getattr(objective, "clock", None)
    versions = devices.versions()
    rows = logs.read(where / folders.METRICS)
    last = rows[-1] if rows else {}
    card = {
        "name": where.resolve().name,
        "summary": f"{config.objective.rule}{f', clock {clock}' if clock else ''}, "
        f"{config.generations} generations on {config.env}",
        "trained_by": _author(),
        "licence": "Apache-2.0",
        "commit": versions.pop("commit", None),
        "versions": versions | {"devices": devices.describe()},
        "config": to_dict(config),
        "seeds": [config.seed],
        "environments": [config.env],
        "horizons": to_dict(config.horizon) | {"unit": "updates"},
        "scores": {name: last[name] for name in last if name.startswith("validation")},
        "steps": last.get("steps"),
    }
    return save(where, objective, theta, card)


def _author() -> str | None:
    """Who trained it, if they want to be named: a login name is not ours to publish."""
    return os.environ.get("KAIROS_AUTHOR") or None


def write_figure(where: Path, config: Config) -> Path:
    """Draw ``figures/learning.png`` and ``.svg`` from ``metrics.jsonl``.

    Args:
      where: run folder.
      config: of the search.

    Returns:
      The path of the PNG.

    Raises:
      OSError: the disk is full or read-only.
    """
    from discovery.evaluation import figures

    figure = figures.learning_curve(
        logs.read(where / folders.METRICS),
        population=2 * config.evolution.pairs,
        title=where.resolve().name,
    )
    picture, _ = figures.save(figure, where / folders.FIGURES / "learning")
    return picture
