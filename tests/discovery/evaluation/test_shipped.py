"""The objectives that come with the package do what their cards say."""

from pathlib import Path

import numpy as np
import pytest

from discovery import evaluate
from discovery.requests import EvaluateConfig
from learned_objectives.base import count_parameters
from learned_objectives.library import load, shipped


@pytest.mark.parametrize(
    ("name", "clock", "generations"),
    [
        ("ta-lpg", "fraction_log", 1000),
        ("lpg", "none", 1000),
        ("ta-lpo", "fraction", 400),
        ("lpo", "none", 400),
    ],
)
def test_a_card_describes_its_arrays(name: str, clock: str, generations: int) -> None:
    saved = load(name)
    assert name in shipped()
    assert saved.card["fields"]["clock"] == clock
    assert saved.card["parameters"] == count_parameters(saved.theta)
    assert saved.card["config"]["preset"] == f"{name}-cpu"
    assert saved.card["config"]["generations"] == generations


@pytest.mark.parametrize("pair", [("ta-lpg", "lpg"), ("ta-lpo", "lpo")])
def test_they_were_evolved_with_the_same_budget(pair: tuple[str, str]) -> None:
    aware, blind = (load(name).card for name in pair)
    assert aware["config"]["evolution"] == blind["config"]["evolution"]
    assert aware["config"]["life"] == blind["config"]["life"]
    assert aware["horizons"] == blind["horizons"]
    assert aware["steps"] == pytest.approx(blind["steps"], rel=0.02)


def test_agents_learn_under_them(tmp_path: Path) -> None:
    """Far from random on held-out levels: a saved objective that lost its training would not be."""
    rows = evaluate(
        EvaluateConfig(
            ("ta-lpg",), horizons=(40,), levels=16, group=16, out=str(tmp_path / "t.csv")
        ),
        lambda line: None,
    )
    normalised = [row.normalised for row in rows if row.normalised is not None]
    assert len(normalised) == 16
    assert np.median(normalised) > 0.7


def test_an_evolved_drift_is_better_than_the_one_it_began_as(tmp_path: Path) -> None:
    """PPO, on the game and at the horizon of its search; both on the same random numbers."""
    request = EvaluateConfig(
        ("ta-lpo", "ppo"),
        env="Catch-bsuite",
        horizons=(24,),
        levels=128,
        out=str(tmp_path / "t.csv"),
    )
    rows = evaluate(request, lambda line: None)
    scores = {name: [r.score for r in rows if r.objective == name] for name in ("ta-lpo", "ppo")}
    gain = np.subtract(scores["ta-lpo"], scores["ppo"])
    assert gain.mean() > 2 * gain.std() / np.sqrt(len(gain))
