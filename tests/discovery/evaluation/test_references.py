"""What normalised scores are where no best return is known."""

from pathlib import Path

import numpy as np
import pytest

from discovery import evaluate
from discovery.config import LifeConfig
from discovery.evaluation import horizons, references, table
from discovery.evaluation.references import Reference
from discovery.evaluation.table import TableError
from discovery.requests import EvaluateConfig
from learned_objectives.library import load

ENV = "chain"


def test_scores_between_no_learning_and_ppo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On tables, which compile soonest, as if nobody knew their best returns."""
    held_out = horizons.held_out
    monkeypatch.setattr(
        horizons, "held_out", lambda *of: held_out(*of)._replace(random=None, optimal=None)
    )
    monkeypatch.setattr(references, "RATES", (1.0, 40.0))
    # As many as score an agent, so one program less; and A2C for PPO.
    monkeypatch.setattr(references, "EPISODES", 128)
    monkeypatch.setattr(references, "load", lambda name: load({"ppo": "a2c"}.get(name, name)))
    request = EvaluateConfig(
        ("random",),
        env=ENV,
        horizons=(1, 4),
        levels=2,
        environments=4,
        rollout=8,
        reference=True,
        out=str(tmp_path / "t.csv"),
    )
    said: list[object] = []
    rows = evaluate(request, said.append)
    (found,) = references.read(tmp_path / "t-references.csv")
    assert found[:4] == (ENV, 4, 32, 2)
    assert found.rate in (1.0, 40.0)
    for row in rows:
        assert (row.random, row.optimal) == (found.random, found.reference)
        scale = found.reference - found.random
        assert row.normalised == pytest.approx((row.score - found.random) / scale)
    # The same lives, which never learn.
    assert found.random == pytest.approx(np.mean([r.score for r in rows if r.horizon == 1]))

    def never(*_: object) -> None:
        raise AssertionError("measured twice")

    monkeypatch.setattr(references, "measured", never)
    assert evaluate(request, said.append) == rows
    assert table.read(tmp_path / "t.csv")[0].optimal == found.reference


def test_best_returns_that_are_known_stay(tmp_path: Path) -> None:
    levels = horizons.held_out("chain", "test", 2)
    same = references.on_scale(levels, "chain", LifeConfig(), 5, tmp_path / "r.csv", print)
    assert same is levels and not (tmp_path / "r.csv").exists()


def test_references_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        Reference("b", 5, 32, 2, 1e-3, 0.1 + 0.2, -1.0),
        Reference("a", 5, 32, 2, 1e-3, 0.0, 1.0),
    ]
    references.write(tmp_path / "r.csv", rows)
    assert references.read(tmp_path / "r.csv") == sorted(rows)
    assert references.read(tmp_path / "none.csv") == []
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    with pytest.raises(TableError, match="expected the columns environment"):
        references.read(tmp_path / "r.csv")
    text = ",".join(Reference._fields) + "\na,x,1,1,1.0,1.0,1.0\n"
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(TableError, match="invalid literal"):
        references.read(tmp_path / "r.csv")
