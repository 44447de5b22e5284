"""The objectives that come with the package do what their cards say."""

from pathlib import Path

import numpy as np
import pytest

from discovery import evaluate
from discovery.requests import EvaluateConfig
from learned_objectives.base import count_parameters
from learned_objectives.library import load, shipped


@pytest.mark.parametrize(("name", "clock"), [("ta-lpg", "fraction_log"), ("lpg", "none")])
def test_a_card_describes_its_arrays(name: str, clock: str) -> None:
    saved = load(name)
    assert name in shipped()
    assert saved.card["fields"]["clock"] == clock
    assert saved.card["parameters"] == count_parameters(saved.theta)
    assert saved.card["config"]["preset"] == f"{name}-cpu"
    assert saved.card["config"]["generations"] == 1000


def test_they_were_evolved_with_the_same_budget() -> None:
    aware, blind = (load(name).card for name in ("ta-lpg", "lpg"))
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
