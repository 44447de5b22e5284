"""What a search leaves: the objective with its card, its curriculum, and pictures of both."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from discovery import devices
from discovery.config import Config, population, to_dict
from discovery.runs import folders, logs
from learned_objectives.library import save, write_whole


def write_card(where: Path, config: Config, objective: Any, theta: Any, **more: Any) -> Path:
    """Write ``objective.safetensors`` and ``card.json``.

    Args:
      where: run folder.
      config: of the search.
      objective: the rule.
      theta: its parameters, arrays of the host.
      **more: what else the card shall tell.

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
        **more,
    }
    return save(where, objective, theta, card)


def _author() -> str | None:
    """Who trained it, if they want to be named: a login name is not ours to publish."""
    return os.environ.get("KAIROS_AUTHOR") or None


def write_nonfinite(where: Path, generation: int, found: Sequence[tuple[Any, Any]]) -> Path:
    """Keep lives that were not finite: whose they were, and what was wrong with each.

    Args:
      where: run folder.
      generation: in which they lived.
      found: each with what ``discovery.outer.autopsy.first_bad`` says of it.

    Returns:
      The path of ``nonfinite/<generation>.safetensors``, with leaves such as ``3-/theta/cell/wx``
      of the candidate below the mean of pair 3 and ``3-/agent/policy/kernel`` of its agent when
      it was finite last; beside it stands what was wrong, as JSON.

    Raises:
      OSError: the disk is full or read-only.
    """
    import jax
    import safetensors.numpy

    arrays, told = {}, {}
    for one, fault in found:
        told[one.name] = {"horizon": one.horizon, "first": fault.words}
        both = {"theta": one.theta, "agent": fault.agent}
        for at, leaf in jax.tree_util.tree_flatten_with_path(both)[0]:
            place = jax.tree_util.keystr(at, simple=True, separator="/")
            arrays[f"{one.name}/{place}"] = np.array(leaf, order="C")
    folder = where / folders.NONFINITE
    folder.mkdir(exist_ok=True)
    path = folder / f"{generation}.safetensors"
    write_whole(path, safetensors.numpy.save(arrays))
    folders.write_json(path.with_suffix(".json"), told)
    return path


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
        population=population(config)[0],
        title=where.resolve().name,
    )
    picture, _ = figures.save(figure, where / folders.FIGURES / "learning")
    return picture


def write_curriculum(where: Path, columns: Mapping[str, np.ndarray]) -> Path:
    """Write ``curriculum.csv``: a row for each task that is remembered.

    Args:
      where: run folder.
      columns: as of ``discovery.outer.curriculum.snapshot``.

    Returns:
      Its path.

    Raises:
      OSError: the disk is full or read-only.
    """
    from discovery.evaluation.table import write_numbers

    lines = zip(*(column.tolist() for column in columns.values()), strict=True)
    rows = ([int(cell) if isinstance(cell, bool) else cell for cell in line] for line in lines)
    return write_numbers(where / folders.CURRICULUM, list(columns), rows)


def draw_curriculum(where: Path, folder: Path | None = None) -> Path:
    """Draw ``figures/curriculum.png`` and ``.svg`` from ``metrics.jsonl`` and ``curriculum.csv``.

    Args:
      where: run folder.
      folder: of the figure, if not that of the run.

    Returns:
      The path of the PNG.

    Raises:
      OSError: a table cannot be read, or the figure cannot be written.
    """
    from discovery.evaluation import figures, figures_curriculum

    table = np.genfromtxt(where / folders.CURRICULUM, delimiter=",", names=True, ndmin=1)
    columns = {name: table[name] for name in table.dtype.names or ()}
    figure = figures_curriculum.curriculum(
        logs.read(where / folders.METRICS), columns, title=where.resolve().name
    )
    return figures.save(figure, (folder or where / folders.FIGURES) / "curriculum")[0]
