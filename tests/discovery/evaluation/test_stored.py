"""Stored tables read, and a level drawn; tables and lines said as text."""

from pathlib import Path

import jax
import numpy as np
import pytest

import envs
from discovery.config import ConfigError
from discovery.evaluation import claims, stored
from discovery.evaluation.figures_level import grid_level
from discovery.screen import say


def test_rows_are_those_of_the_package() -> None:
    found = stored.rows("claim-1")
    assert set(found) == {"searches", "levels"}
    assert {row.size for row in found["searches"]} == {"cpu"}
    assert not any(stored.rows("claim-1", "full").values())


def test_a_part_of_the_rows_is_concluded_from() -> None:
    mine = {"TA-LPG", "LPG"}
    rows = stored.rows("claim-1")
    part = {k: [r for r in v if r.cell in mine and r.seed == 0] for k, v in rows.items()}
    found = stored.conclusion("claim-1", part)
    assert found is not None
    assert found.text.startswith("Size cpu, search seeds 0")


def test_nothing_is_concluded_from_nothing(tmp_path: Path) -> None:
    empty = stored.rows("claim-1", folder=tmp_path)
    assert empty == {"searches": [], "levels": []}
    assert stored.conclusion("claim-1", empty) is None


def test_what_is_not_known_is_named() -> None:
    with pytest.raises(ConfigError, match="claim-1"):
        stored.rows("claim-11")
    with pytest.raises(ConfigError, match="cpu"):
        stored.rows("claim-1", "cpo")


def test_a_level_shows_its_objects_walls_and_actions() -> None:
    level = jax.device_get(envs.make("small").sample_level(jax.random.key(0)))
    size, free = int(level.size), int(level.size) ** 2
    cells = np.arange(level.walls.size).reshape(-1, int(level.walls.size**0.5))[:size, :size]
    free -= int(level.walls[cells.ravel()].sum())
    [axes] = grid_level(level, title="a level").axes
    rewards = [f"{reward:+.2g}" for reward in level.rewards[level.used]]
    assert [text.get_text() for text in axes.texts] == rewards
    assert axes.get_xlim() == (0, size)
    [axes] = grid_level(level, np.zeros(level.walls.size, int)).axes
    assert len(axes.texts) == len(rewards) + free


def test_one_level_at_a_time() -> None:
    level = envs.make("small").sample_level(jax.random.key(0))
    with pytest.raises(ValueError, match="one level"):
        grid_level(jax.tree.map(lambda leaf: leaf[None], level))


def test_a_table_is_said_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    say("a line")
    say(claims.render([claims.Grid("scores", ("name", "N=5"), [("LPG", ".5")], ("a note",))]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["a line", "scores"]
    assert lines[-1] == "a note"
    assert all(line == line.rstrip() for line in lines)
