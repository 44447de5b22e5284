import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from PIL import Image

from discovery.evaluation import figures
from discovery.evaluation.figures_drift import drift_lines, drift_maps, turn_lines
from discovery.evaluation.figures_profiles import profiles
from discovery.evaluation.figures_response import responses
from discovery.evaluation.figures_schedule import Change, changes
from discovery.evaluation.table import ClockUse, Profile, Summary


def entry(objective: str, horizon: int, estimate: float, **changes: Any) -> Summary:
    values: dict[str, Any] = {
        "objective": objective,
        "environment": "small",
        "level_hash": "ab",
        "actions": "sampled",
        "horizon": horizon,
        "steps": horizon * 1280,
        "value": "normalised",
        "estimate": estimate,
        "low": estimate - 0.1,
        "high": estimate + 0.1,
        "confidence": 0.95,
        "n": 64,
        "search_seeds": 1,
        "levels": 64,
    }
    return Summary(**(values | changes))


def sweep(*objectives: str, **changes: Any) -> list[Summary]:
    return [
        entry(name, horizon, 0.1 * i + 1 - math.exp(-horizon / 50), **changes)
        for i, name in enumerate(objectives)
        for horizon in (5, 10, 25, 50, 100, 250, 500, 1000)
    ]


RECORDS = [
    {"generation": 0, "validation": 0.1, "validation_short": 0.05, "steps": 0},
    {"generation": 5, "validation": 0.2, "fitness": 0.3, "tied": 0.2, "steps": 2e6, "nonfinite": 2},
    {"generation": 10, "validation": 0.3, "fitness": math.nan, "tied": 0.1, "steps": 4.2e6},
]
FRACTION = np.linspace(0, 1, 5)
LONG = [f"an objective with quite a long name, number {i}" for i in range(9)]


def horizon_long_names() -> Figure:
    return figures.horizon_curve(sweep(*LONG), trained=(10, 250), title="a title")


def horizon_two_panels() -> Figure:
    two = sweep("ta-lpg", "lpg") + sweep("ta-lpg", environment="mazes", value="score")
    return figures.horizon_curve(two, trained=(10, 250))


def horizon_one_point() -> Figure:
    return figures.horizon_curve([entry("a", 50, 0.5)], trained=(50, 50))


def learning() -> Figure:
    return figures.learning_curve(RECORDS, population=16, title="runs/ta-lpg-0")


def learning_first_line() -> Figure:
    return figures.learning_curve(RECORDS[:1])


def life() -> Figure:
    several = np.random.default_rng(0).normal(size=(6, 5))
    panels = {
        "score": {"ta-lpg": FRACTION, "lpg": several},
        "entropy (nats)": {"lpg": 1 - FRACTION},
    }
    return figures.life_curve(250 * FRACTION, panels, title="a life", steps_per_update=1280)


def response(horizons: int = 3) -> Figure:
    reward, probability = np.linspace(-1, 1, 7), np.linspace(0.1, 0.9, 5)
    said = np.einsum(
        "h,k,r,p->hkrp", np.arange(1, horizons + 1), 1 + FRACTION, -reward, probability
    )
    told = np.array([10, 50, 1250])[:horizons]
    return responses(reward, probability, FRACTION, told, said, title="ta-lpg")


def response_of_one_horizon() -> Figure:
    return response(1)


def told_other_times() -> Figure:
    shares = np.linspace(0, 0.9, 10)
    change = {n: Change(shares, 0.1 - shares / n, np.exp(-shares)) for n in (10, 50, 250)}
    return changes({"ta-lpg": change, "untrained ta-lpg": change, LONG[0]: change}, title="t")


def drift_over_ratio() -> Figure:
    ratio, shares = np.geomspace(0.25, 4, 9), np.array([0.0, 0.5])
    drift = np.maximum(ratio - 1, 0) * (1 + shares[:, None])
    mine = {1.0: (drift, drift), -1.0: (drift, drift)}
    beside = {name: dict.fromkeys(mine, (drift[0], drift[1])) for name in ("PPO", "DPO")}
    return drift_lines(ratio, shares, mine, beside, name="ta-lpo", title="its drift")


def drift_as_map(pushes: bool = False) -> Figure:
    ratio, advantage = np.geomspace(0.25, 4, 9), np.linspace(-2, 2, 5)
    drift = np.outer(np.maximum(ratio - 1, 0), advantage)
    maps = dict.fromkeys(("ta-lpo, n/N = 0", "ta-lpo, n/N = 0.5", "PPO", "DPO"), (drift, drift))
    return drift_maps(ratio, advantage, maps, pushes=pushes, title="its drift")


def push_as_map() -> Figure:
    return drift_as_map(pushes=True)


def profile_of_agents() -> Figure:
    x = np.linspace(0, 1, 11)
    claimed = Profile(x, 1 - x, 0.9 - x, 1.1 - x, "normalised")
    points = Profile(x, 1 - x**2, np.full(11, np.nan), np.full(11, np.nan), "normalised")
    panels = {n: {"ta-lpg": claimed, LONG[0]: points} for n in (10, 50, 250, 1000)}
    return profiles(panels, title="small, sampled actions")


def turned_away() -> Figure:
    shares = np.linspace(0, 0.9, 4)
    up, down = np.array([1.1, 2.0, np.nan, 5.0]), np.array([0.9, np.nan, 0.5, 0.2])
    mine = {1.0: (up, np.full(4, np.nan)), -1.0: (down, down / 2)}
    beside = {"PPO": {1.0: 1.2, -1.0: 0.8}, "DPO": {1.0: 2.76, -1.0: np.nan}}
    return turn_lines(shares, mine, beside, 10.0, name="ta-lpo", title="where it turns")


def used(*objectives: str, horizons: tuple[int, ...] = (10, 50), **changes: Any) -> list[ClockUse]:
    measures = ("frozen-0", "reversed", "half", "S_pi_fraction", "S_y_horizon")
    values: dict[str, Any] = {"digest": "d", "low": -0.1, "high": 0.6, "levels": 8} | changes
    return [
        ClockUse(
            objective=name,
            null=i > 0,
            measure=measure,
            horizon=n,
            value=0.1 * (i + j),
            search_seeds=1,
            **values,
        )
        for i, name in enumerate(objectives)
        for j, measure in enumerate(measures)
        for n in horizons
    ]


def clock_use() -> Figure:
    uses = used("ta-lpg", "untrained ta-lpg", "a search on coin flips")
    return figures.clock_use(uses, title="ta-lpg in small")


def clock_use_many_horizons() -> Figure:
    return figures.clock_use(used("ta-lpg", LONG[0], horizons=(5, 10, 25, 50, 100, 250, 1000)))


def clock_use_words_alone() -> Figure:
    return figures.clock_use([use for use in used("a") if use.measure.startswith("S")])


def entropies() -> Figure:
    lives = {n: np.exp(-np.linspace(0, 2, n)) for n in (10, 50, 250)}
    return figures.entropies(lives, title="ta-lpg")


def entropies_of_one_horizon() -> Figure:
    return figures.entropies({1: np.array([1.0])})


ALL = [
    horizon_long_names,
    horizon_two_panels,
    horizon_one_point,
    learning,
    learning_first_line,
    life,
    response,
    response_of_one_horizon,
    told_other_times,
    drift_over_ratio,
    drift_as_map,
    push_as_map,
    turned_away,
    profile_of_agents,
    clock_use,
    clock_use_many_horizons,
    clock_use_words_alone,
    entropies,
    entropies_of_one_horizon,
]


def legends(figure: Figure) -> list[Any]:
    return [*figure.legends, *(legend for axes in figure.axes if (legend := axes.get_legend()))]


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
def test_nothing_is_cut_and_no_legend_covers_data(draw: Callable[[], Figure]) -> None:
    figure = draw()
    figure.canvas.draw()
    whole = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert whole.x0 >= -0.01
    assert whole.y0 >= -0.01
    assert whole.x1 <= width + 0.01
    assert whole.y1 <= height + 0.01
    for legend in legends(figure):
        box = legend.get_window_extent().padded(-1)
        for axes in figure.axes:
            assert not box.overlaps(axes.get_window_extent())
    for axes in figure.axes:
        assert axes.get_window_extent().height > 100 or axes.get_label() == "<colorbar>"
        assert (
            not axes.lines
            or axes.get_ylabel()
            or isinstance(axes.yaxis.get_major_locator(), FixedLocator)
            or axes.get_shared_y_axes().joined(axes, figure.axes[0])
        )


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
def test_same_data_same_bytes(draw: Callable[[], Figure], tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    first = [path.read_bytes() for path in figures.save(draw(), tmp_path / "a")]
    second = [path.read_bytes() for path in figures.save(draw(), tmp_path / "b.png")]
    assert first == second
    assert sorted(os.listdir(tmp_path)) == ["a.png", "a.svg", "b.png", "b.svg"]
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 900
    assert b"<dc:date>" not in first[1]
    assert str(tmp_path).encode() not in first[1]
    assert dict(mpl.rcParams) == before


def lines(axes: Axes) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.lines}


def test_horizon_curve_shows_the_summaries() -> None:
    figure = figures.horizon_curve(sweep("ta-lpg", "lpg"), trained=(10, 250))
    (axes,) = figure.axes
    drawn = lines(axes)
    assert drawn["lpg"].get_xdata().tolist() == [5, 10, 25, 50, 100, 250, 500, 1000]
    assert drawn["lpg"].get_ydata()[0] == pytest.approx(0.1 + 1 - math.exp(-0.1))
    assert drawn["lpg"].get_color() != drawn["ta-lpg"].get_color()
    assert drawn["lpg"].get_marker() != drawn["ta-lpg"].get_marker()
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "horizon (agent updates; one is 1,280 environment steps)"
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(1 - math.exp(-0.1) - 0.1)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["ta-lpg", "lpg", "trained horizons"]


def test_what_is_not_finite_is_named_and_no_interval_is_no_band() -> None:
    found = [entry("a", 5, -math.inf), entry("a", 10, 0.5, low=math.nan, high=math.nan)]
    (axes,) = figures.horizon_curve(found).axes
    assert lines(axes)["a"].get_xdata().tolist() == [10]
    assert axes.get_xlabel().endswith("not finite, not drawn: a at 5")
    assert all(not collection.get_paths() for collection in axes.collections)


def test_greedy_and_sampled_are_panels_of_their_own() -> None:
    figure = figures.horizon_curve(sweep("a") + sweep("a", actions="greedy"))
    assert [axes.get_title() for axes in figure.axes] == [
        "small, sampled actions",
        "small, greedy actions",
    ]


def test_clocks_are_panels_of_their_own() -> None:
    figure = figures.horizon_curve(sweep("a") + sweep("a", clock="reversed"))
    assert [axes.get_title() for axes in figure.axes] == ["small", "small, clock reversed"]


def test_what_is_lost_and_how_far_words_follow_have_a_panel_each() -> None:
    uses = used("ta-lpg", "untrained")
    uses[0] = uses[0]._replace(value=math.inf)
    lost, words = figures.clock_use(uses).axes
    labels = [text.get_text() for text in lost.get_yticklabels()]
    assert labels == ["frozen-0", "reversed", "half: stopped at N/2"]
    assert len(words.get_yticklabels()) == 2
    points = lines(lost)
    assert points["N = 50"].get_xdata().tolist() == pytest.approx([0, 0.1, 0.2])
    assert points["N = 10"].get_xdata().tolist() == pytest.approx([0.1, 0.2])
    assert lost.get_xlabel().endswith("not finite, not drawn: ta-lpg, frozen-0 at 10")
    assert "not finite" not in words.get_xlabel()
    # Each horizon and objective has a place of its own in the row of a measure.
    heights = [line.get_ydata()[-1] for line in lost.lines if len(line.get_xdata()) > 1]
    drawn = [y for y in heights if y > 1.5]
    assert len(set(drawn)) == len(drawn) == 4
    assert all(1.5 < y < 2.5 for y in drawn)
    assert points["untrained"].get_markerfacecolor() == "white"
    assert points["N = 10"].get_color() != points["N = 50"].get_color()


def test_no_interval_is_no_line() -> None:
    with_, without = (
        figures.clock_use(used("a", **changes)).axes[0] for changes in ({}, {"low": math.nan})
    )
    assert len(with_.collections) == 6
    assert not without.collections


def test_learning_curve_leaves_out_what_is_not_there() -> None:
    score, health = learning().axes
    assert lines(score)["validation levels"].get_xdata().tolist() == [0, 5, 10]
    assert lines(score)["population, changing tasks"].get_xdata().tolist() == [5]
    assert lines(health)["lives that turned non-finite"].get_ydata().tolist() == [2 / 16]
    assert r"4.2 \times 10^{6}" in health.get_xlabel()
    (only,) = learning_first_line().axes
    assert sorted(lines(only)) == ["short horizons", "validation levels"]
    (unknown,) = figures.learning_curve([{"generation": 1, "validation_N10": 0.5}]).axes
    assert list(lines(unknown)) == ["N10"]


def test_several_agents_are_a_median_and_a_middle_half() -> None:
    agents = np.array([[0.0, 4], [1, 3], [2, np.nan], [3, 1], [4, 0]])
    (axes,) = figures.life_curve(np.array([0, 1]), {"score": {"a": agents}}).axes
    assert lines(axes)["a"].get_ydata().tolist() == [2, 2]
    assert axes.collections[0].get_paths()[0].vertices[:, 1].min() == pytest.approx(0.75)


def test_entropies_are_aligned_twice() -> None:
    by_age, by_share = entropies().axes
    assert lines(by_age)["N = 50"].get_xdata()[[0, -1]].tolist() == [1, 50]
    assert lines(by_share)["N = 50"].get_xdata()[[0, -1]].tolist() == [0, 0.98]
    assert by_age.get_xticks().tolist() == [1, 2, 5, 10, 20, 50, 100, 250]


def test_names_are_text(tmp_path: Path) -> None:
    figure = figures.horizon_curve(sweep("_mine", "a$b$", "c_d^2"), title="$5 & <b>")
    figures.save(figure, tmp_path / "f")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [" _mine", r"a\$b\$", "c_d^2"]


def test_nothing_to_draw_is_said() -> None:
    for draw in (
        lambda: figures.horizon_curve([]),
        lambda: figures.learning_curve([]),
        lambda: figures.learning_curve([{"seconds": 3}]),
        lambda: figures.entropies({}),
        lambda: figures.clock_use([]),
    ):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw()


def test_ticks_stay_apart() -> None:
    assert figures._apart([5, 6, 10, 25, 26, 1000]) == [5, 10, 25, 1000]
    assert figures._apart([50]) == [50]
    assert figures._apart([10, 11]) == [10, 11]


def test_failed_write_leaves_the_old_figure(tmp_path: Path, monkeypatch: Any) -> None:
    old = [path.read_bytes() for path in figures.save(entropies_of_one_horizon(), tmp_path / "f")]

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        figures.save(entropies(), tmp_path / "f")
    assert [(tmp_path / f"f.{kind}").read_bytes() for kind in ("png", "svg")] == old


def test_no_window_is_asked_for() -> None:
    assert "matplotlib.pyplot" not in sys.modules or mpl.get_backend().lower() == "agg"
    assert type(entropies().canvas).__name__ == "FigureCanvasAgg"
