"""The picture of a curriculum: drawn from plain numbers, also where there is little to show."""

from pathlib import Path

import numpy as np
import pytest

from discovery.evaluation import figures
from discovery.evaluation.figures_curriculum import curriculum
from discovery.runs import ending


def made_up(tasks: int) -> tuple[list[dict[str, float]], dict[str, np.ndarray]]:
    draw = np.random.default_rng(0)
    records = [{"generation": 0.0, "validation": 0.1}]
    for generation in range(10, 410, 10):
        hard = 1 - np.exp(-generation / 150)
        records.append(
            {
                "generation": float(generation),
                "regret_low": 0.05 - 0.1 * hard,
                "regret_median": 0.3 + 0.1 * hard,
                "regret_high": 0.8 + 0.3 * hard,
                "replayed": 0.5 + 0.05 * draw.standard_normal() if generation > 40 else np.nan,
                "filled": min(1.0, generation / 200),
                "replayed_horizon": 30 + 10 * hard,
                "replayable_horizon": 28 + 12 * hard,
            }
        )
    score = draw.normal(0.4, 0.4, tasks)
    active = draw.random(tasks) < 0.2
    chance = np.where(active, 0.0, 1 / (1 + np.argsort(np.argsort(-score))))
    columns = {
        "id": np.arange(tasks),
        "horizon": np.round(np.exp(draw.uniform(np.log(5), np.log(100), tasks))).astype(int),
        "score": np.where(draw.random(tasks) < 0.1, np.nan, score),
        "active": active,
        "probability": chance / chance.sum(),
    }
    return records, columns


def test_four_panels_say_what_was_hard_and_what_was_replayed(tmp_path: Path) -> None:
    records, columns = made_up(300)
    figure = curriculum(records, columns, title="groove-0")
    labelled = [axes for axes in figure.axes if axes.get_xlabel()]
    assert [axes.get_xlabel() for axes in labelled][:3] == ["generation"] * 3
    regrets, share = figure.axes[0], figure.axes[1]
    assert len(regrets.lines) == 3
    assert np.array_equal(regrets.lines[0].get_ydata(), [r["regret_high"] for r in records[1:]])
    assert len(share.lines[0].get_xdata()) == 36, "a share that is not known is not drawn"
    drawn = sum(len(cloud.get_offsets()) for cloud in figure.axes[3].collections)
    assert drawn == np.isfinite(columns["score"]).sum()
    png, svg = figures.save(figure, tmp_path / "curriculum")
    assert png.stat().st_size > 10_000
    assert svg.exists()


@pytest.mark.parametrize("tasks", [1, 2])
def test_few_tasks_can_be_drawn(tmp_path: Path, tasks: int) -> None:
    records, columns = made_up(tasks)
    columns["score"][:] = 0.5
    columns["probability"][:] = 1 / tasks
    figures.save(curriculum(records[:2], columns), tmp_path / "few")


def test_a_table_of_no_regrets_can_be_drawn_again(tmp_path: Path) -> None:
    _, columns = made_up(3)
    columns["score"][:] = np.nan
    columns["probability"][:] = 0.0
    ending.write_curriculum(tmp_path, columns)
    (tmp_path / "metrics.jsonl").write_text('{"generation": 0}\n')
    assert ending.draw_curriculum(tmp_path).is_file()
