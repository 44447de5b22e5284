"""Run folders without a search behind them: all that a page reads, and some that lack a part.

python tests/data/sample_run.py FOLDER
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from discovery.config import Config, preset, to_dict
from discovery.evaluation import figures, table
from discovery.evaluation.table import ClockUse, Row

LEVELS = 16
DIGEST = "0123456789abcdef" * 4
VERSIONS = {
    "python": "3.11.7",
    "platform": "Linux x86_64",
    "cpu": "a processor",
    "kairos-rl": "0.1.0",
    "jax": "0.10.2",
    "commit": "fedcba9876543210-dirty",
    "devices": "2 x cpu",
}
CONFIG = replace(preset("smoke"), generations=40, log_every=10, checkpoint_every=20)


def metrics(config: Config, generations: int) -> list[dict[str, Any]]:
    """A search that gets better and then a little worse."""
    rows = []
    for generation in range(0, generations + 1, config.log_every):
        score = 0.2 + 0.6 * np.sin(np.pi * 0.6 * generation / config.generations)
        thirds = {"short": -0.1, "middle": 0.0, "long": 0.1}
        row: dict[str, Any] = {"generation": generation, "validation": score}
        row |= {f"validation_{name}": score + x for name, x in thirds.items()}
        row |= {"nonfinite": 0.0, "steps": 2e6 * generation, "seconds": 3.0 * generation}
        rows.append(row)
    return rows


def rows(own: str, others: dict[str, float], clock: str = "true") -> list[Row]:
    """Everybody on the same levels; each other objective is better at short horizons by so much."""
    random = np.random.default_rng(0)
    found = []
    for horizon in (2, 5, 40, 160):
        level = random.normal(0.6, 0.1, LEVELS)
        for name, lead in {own: 0.0, **others}.items():
            slope = lead * (1 - np.log(horizon) / 2)
            score = level + slope + random.normal(0, 0.02, LEVELS)
            for i, value in enumerate(score.tolist()):
                digest = f"{DIGEST[:12]}-abcd" if name == own else f"{name[:8]}-abcd"
                found.append(
                    Row(
                        objective=name,
                        digest=digest,
                        environment="small",
                        level_hash="0f4ea7f90968",
                        level=i,
                        horizon=horizon,
                        steps=horizon * 32,
                        seed=0,
                        actions="sampled",
                        score=2 * value,
                        normalised=value,
                        random=0.0,
                        optimal=2.0,
                        area=None,
                        episodes=4,
                        finite=True,
                        wall_seconds=None,
                        versions="none",
                        clock=clock,
                    )
                )
    return found


def uses(own: str) -> list[ClockUse]:
    """An objective that needs its clock, beside one that does not."""
    found = []
    for name, null, cost in ((own, False, 0.2), (f"untrained {own}", True, 0.0)):
        for measure in ("frozen-0.5", "reversed", "half", "S_pi_fraction"):
            for horizon in (5, 40):
                low, high = cost - 0.05, cost + 0.05
                one = ClockUse(
                    name, DIGEST[:12], null, measure, horizon, cost, low, high, LEVELS, 1
                )
                found.append(one)
    return found


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")


def begin(folder: Path, config: Config = CONFIG, generations: int = 0) -> Path:
    """A run that is not finished."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", to_dict(config))
    write_json(folder / "versions.json", VERSIONS)
    lines = metrics(config, generations) if generations else []
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    for part in ("state", "meta") if generations else ():
        (folder / "checkpoints" / str(generations // 20 * 20) / part).mkdir(parents=True)
    return folder


def end(folder: Path, config: Config = CONFIG) -> Path:
    """What a search leaves when its last generation is done, with a picture."""
    begin(folder, config, config.generations)
    arrays = {"cell/wx": {"dtype": "F32", "shape": [3, 4], "sha256": DIGEST}}
    card = {
        "name": folder.name,
        "summary": "a sample",
        "licence": "Apache-2.0",
        "rule": config.objective.rule,
        "parameters": 12,
        "sha256": DIGEST,
        "arrays": arrays,
        "config": to_dict(config),
    }
    write_json(folder / "card.json", card)
    (folder / "objective.safetensors").write_bytes(b"not read by a page")
    figure: Figure = figures.learning_curve(metrics(config, config.generations), title="a search")
    figures.save(figure, folder / "figures" / "learning")
    return folder


def compared(folder: Path, config: Config = CONFIG) -> Path:
    """A run that was scored beside others, lied to, and looked at."""
    end(folder, config)
    others = {"lpg, its horizon-blind twin": 0.0, "a2c": 0.15, "random": -0.4}
    own = folder.name
    lied = rows(own, {}, "reversed")
    table.write(folder / "evaluation.csv", [*rows(own, others), *lied])
    table.write_clock_uses(folder / "evaluation-clock.csv", uses(own))
    lives = {n: np.linspace(1.4, 0.3, n) for n in (5, 40)}
    figures.save(figures.entropies(lives, title="lives"), folder / "figures" / "entropies")
    return folder


def several(folder: Path) -> Path:
    """Two runs and their comparison, as a quickstart leaves them."""
    blind = replace(CONFIG, objective=replace(CONFIG.objective, clock_gate=0.0))
    end(folder / "lpg", blind)
    write_json(folder / "lpg" / "card.json", {"rule": "lpg", "sha256": "fedc" * 16})
    end(folder / "ta-lpg")
    twin = "LPG (blind twin)"
    found = [
        row._replace(digest="fedcfedcfedc-abcd") if row.objective == twin else row
        for row in rows("TA-LPG", {"A2C": 0.15, twin: -0.1})
    ]
    table.write(folder / "evaluation.csv", found)
    figure = figures.horizon_curve(table.summary(found, resamples=100), trained=(2, 8))
    figures.save(figure, folder / "figures" / "horizons")
    return folder


def meta_gradients(folder: Path) -> Path:
    """By meta-gradients, on tasks that are repeated, in several environments."""
    config = replace(preset("groove-cpu"), env="dense,sparse", generations=40, log_every=10)
    return end(folder, config)


def windows(folder: Path) -> Path:
    """By evolution over windows, of a rule of its author's own, stopped halfway."""
    own = replace(CONFIG.objective, rule="/home/somebody/rules/own.py:make")
    return begin(folder, replace(CONFIG, estimator="windows", objective=own), 20)


KINDS: dict[str, Callable[[Path], Path]] = {
    "begun": begin,
    "ended": end,
    "compared": compared,
    "several": several,
    "meta-gradients": meta_gradients,
    "windows": windows,
}
"""Name -> what makes such a folder."""


def make_all(folder: Path) -> Iterator[Path]:
    """One folder of each kind."""
    for name, make in KINDS.items():
        yield make(folder / name)


if __name__ == "__main__":
    for made in make_all(Path(sys.argv[1])):
        print(made)
