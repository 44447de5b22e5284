"""Claims 2 and 4: what is played, by which rates, and what the tables are said to say."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from discovery.config import AgentConfig, LifeConfig, check
from discovery.evaluation import claim_1, claim_2, claim_4, claims, figures, transfer
from discovery.evaluation import transfer_trials as trials
from discovery.evaluation.horizons import contestant, held_out, score
from discovery.evaluation.papers import ROWS, Job
from discovery.evaluation.transfer import CHOICE, PLAYED, TEST, UNIT, Place, Played, Suite, Task
from learned_objectives.library import load

Value = Callable[[str, Task, int], float]


def rows_of(jobs: list[Job], value: Value, agents: int = 0) -> list[Played]:
    """Rows that a finished entry has, every agent of a cell with the same number."""
    found = []
    for job in jobs:
        for suite, env, n, stage, rate, count in sorted(PLAYED.wanted(job)):
            number = value(job.cell, Task(job.group, suite, env, n), job.seed)
            scores = (number,) * (agents or count)
            found.append(
                Played(*job.identity("cpu"), suite, env, n, stage, rate, "score", "l", "d", scores)
            )
    return found


# --- what is played -------------------------------------------------------------------------------


def test_claim_2_plays_claim_1s_objectives() -> None:
    jobs = claim_2.jobs("cpu", [0, 1])
    theirs = {job.folder: job.config for job in claim_1.jobs("cpu", [0, 1])}
    learned = [job for job in jobs if job.home]
    assert {job.cell for job in learned} == {claim_2.AWARE, *claim_2.RIVALS}
    assert all(theirs[job.folder] == job.config and job.home == "claim-1" for job in learned)
    assert [job.source for job in jobs if job.source] == ["a2c", "random", "ta-lpg", "lpg"]
    for job in jobs:
        for suite in job.sweep:
            tests = {place.env for place in suite.places}
            assert suite.chosen_on is None or suite.chosen_on.env not in tests
            # A2C has its rates for each task, tables of learned objectives keep theirs.
            if job.cell == claim_2.REFERENCE:
                assert suite.rates and suite.chosen_on is None
            elif suite.name in ("fixed", "mazes") or job.cell == claim_2.NOTHING:
                assert not suite.rates
            else:
                assert suite.rates == claim_2.RATES and suite.chosen_on is not None
    assert {s.name for s in claim_2.jobs("full", [0])[0].sweep} == {
        "fixed",
        "mazes",
        "bsuite",
        "control",
        "MinAtar",
    }


@pytest.mark.parametrize("size", list(claim_4.SIZES))
def test_claim_4_searches_with_one_budget_in_both_conditions(size: str) -> None:
    jobs = claim_4.jobs(size, [3, 4])
    searched = [job for job in jobs if not job.source]
    assert {(job.group, job.cell) for job in searched} == set(
        itertools.product(claim_4.CONDITIONS, claim_4.LEARNED)
    )
    assert len({job.folder for job in jobs}) == len(jobs)
    for job in jobs:
        check(job.config)
        base = claim_4.SIZES[size].base
        assert (job.config.generations, job.config.evolution.pairs) == (
            base.generations,
            base.evolution.pairs,
        )
        assert job.config.agent.update.anneal == claim_4.CONDITIONS[job.group]
        for suite in job.sweep:
            for place in suite.places:
                assert place.agent.update.anneal == claim_4.CONDITIONS[job.group]
                steps = place.life.environments * place.life.rollout
                assert steps % place.agent.update.minibatches == 0
    assert [job.seed for job in jobs if job.source] == [3] * 4, "nothing is searched for twice"


# --- how it is played -----------------------------------------------------------------------------

LIFE = LifeConfig(environments=2, rollout=4, evaluation_environments=4)
TABLE = AgentConfig()


def test_rates_are_chosen_on_validation_levels(tmp_path: Path) -> None:
    chain = Place("chain", TABLE, LIFE, (2, 3), 3)
    rates = (1.0, 40.0)
    suites = (
        Suite("own", (chain,)),
        Suite("together", (chain,), rates, chain._replace(horizons=(3,))),
        Suite("apart", (chain,), rates, value_rate=2.0),
    )
    config = claim_1.jobs("cpu", [0])[0].config
    job = Job("g", "A2C", "a2c", 0, config, suites, source="a2c")
    rows = trials.played(job, "cpu", tmp_path, math.inf, lambda line: None)
    assert rows is not None
    keys = [tuple(getattr(row, name) for name in PLAYED.key) for row in rows]
    assert set(keys) == PLAYED.wanted(job) and len(keys) == len(set(keys))

    def lived(rate: float, value: float, n: int, stream: str) -> list[float]:
        who = contestant(
            load("a2c"), "chain", TABLE, LIFE, 3, 3, policy_rate=rate, value_rate=value
        )
        levels = held_out("chain", stream, 3)
        found = score(who, levels.levels, n, 0, greedy=False).final[:, 0]
        assert levels.random is not None and levels.optimal is not None
        return list((found - levels.random) / (levels.optimal - levels.random))

    by_key = dict(zip(keys, rows, strict=True))
    own = by_key["own", "chain", 2, TEST, 0.0, 3]
    assert own.rate == 0 and own.value == "normalised"
    assert own.scores == pytest.approx(lived(40.0, 4.0, 2, "test"), abs=1e-6)
    means = {}
    for rate in rates:
        choice = by_key["together", "chain", 3, CHOICE, rate, 3]
        assert choice.scores == pytest.approx(lived(rate, rate, 3, "validation"), abs=1e-6)
        means[rate] = sum(choice.scores)
    best = max(means, key=lambda rate: means[rate])
    for n in (2, 3):
        test = by_key["together", "chain", n, TEST, 0.0, 3]
        assert test.rate == best
        assert test.scores == pytest.approx(lived(best, best, n, "test"), abs=1e-6)
        each = {rate: sum(by_key["apart", "chain", n, CHOICE, rate, 3].scores) for rate in rates}
        mine = by_key["apart", "chain", n, TEST, 0.0, 3]
        assert mine.rate == max(each, key=lambda rate: each[rate])
        assert mine.scores == pytest.approx(lived(mine.rate, 2.0, n, "test"), abs=1e-6)
    # What was played is kept, and played again by nobody; without time nothing is told.
    assert (tmp_path / job.folder / ROWS).is_file()
    assert trials.played(job, "cpu", tmp_path, math.inf, lambda line: None) == rows
    assert trials.played(job, "cpu", tmp_path / "new", -math.inf, lambda line: None) is None
    claims.write(tmp_path / "t.csv", Played, rows)
    assert [row[:-1] for row in claims.read(tmp_path / "t.csv", Played)] == [
        row[:-1] for row in sorted(rows)
    ]


def test_rewards_in_units_of_a_suite(tmp_path: Path) -> None:
    chain = Place("chain", TABLE, LIFE, (6,), 3)
    suites = (Suite("raw", (chain,)), Suite("scaled", (chain,), scaled=True))
    job = Job("", "LPG", "lpg", 0, claim_1.jobs("cpu", [0])[0].config, suites, source="lpg")
    rows = trials.played(job, "cpu", tmp_path, math.inf, lambda line: None)
    assert rows is not None
    assert {tuple(getattr(row, name) for name in PLAYED.key) for row in rows} == PLAYED.wanted(job)
    by = {(row.suite, row.stage): row for row in rows}

    def lived(source: str, scale: float, stream: str) -> list[float]:
        agent = replace(TABLE, reward_scale=scale)
        who = contestant(load(source), "chain", agent, LIFE, 3, 3)
        return list(score(who, held_out("chain", stream, 3).levels, 6, 0, greedy=False).final[:, 0])

    (unit,) = by["scaled", UNIT].scores
    returns = lived("random", 1.0, "validation")
    assert unit == pytest.approx(np.percentile(np.abs(returns), transfer.PERCENTILE), rel=1e-4)
    levels = held_out("chain", "test", 3)
    assert levels.random is not None and levels.optimal is not None
    for name, scale in (("raw", 1.0), ("scaled", 1 / unit)):
        wanted = (lived("lpg", scale, "test") - levels.random) / (levels.optimal - levels.random)
        assert by[name, TEST].scores == pytest.approx(wanted, abs=1e-5), name
    assert by["raw", TEST].scores != by["scaled", TEST].scores


# --- what is said ---------------------------------------------------------------------------------


def test_a_scale_from_nothing_to_a_reference() -> None:
    here, there = Task("", "s", "a", 1), Task("", "s", "b", 1)
    scores: transfer.Scores = {
        "A2C": {here: {0: 3.0}, there: {0: -500.0}},
        "random": {here: {0: 1.0}, there: {0: -500.0}},
        "ours": {here: {0: 2.0, 1: 4.0}, there: {0: -500.0, 1: -500.0}},
    }
    scaled, silent = transfer.relative(scores, "A2C", "random")
    assert scaled == {"ours": {here: {0: 0.5, 1: 1.5}}}
    assert silent == [there]
    assert transfer.by_seed(scores["ours"], [here, there]) == {0: -249.0, 1: -248.0}
    assert transfer.by_seed({}, [here]) == {}
    assert transfer.less({0: 3.0, 1: 5.0}, {7: 1.0}) == {0: 2.0, 1: 4.0}
    assert transfer.less({0: 3.0, 1: 5.0}, {1: 1.0, 2: 2.0}) == {1: 4.0}


def test_what_is_said_of_claim_2() -> None:
    def value(cell: str, task: Task, seed: int) -> float:
        if task.environment == "DeepSea-bsuite":
            return -0.005
        known = {"A2C": 1.0, "random": 0.0, claim_2.AWARE: 0.8 + 0.01 * seed, "LPG": 0.6}
        return known.get(cell, 0.7 + 0.01 * seed)

    jobs = claim_2.jobs("cpu", range(5))
    numbers = claim_2.gather("cpu", rows_of(jobs, value))
    part = ("control", claim_2.OWN)
    assert [task.environment for task in numbers.parts[part]] == ["CartPole-v1"]
    assert len(numbers.parts["fixed", claim_2.INSIDE]) == 9
    assert list(claim_2.ahead(numbers, part, "LPG").values()) == pytest.approx(
        [0.2, 0.21, 0.22, 0.23, 0.24]
    )
    assert claim_2.enough(numbers, part, claim_2.AWARE) == 1
    assert claim_2.enough(numbers, part, "LPG") == 0
    text = claim_2.conclude("cpu", {"games": rows_of(jobs, value)}).text
    assert "TA-LPG less LPG +0.22 [+0.20, +0.24]" in text
    assert claim_2.conclude("cpu", {"games": rows_of(jobs, value)}).facts["search seeds"] == "5"
    assert "TA-LPG less elapsed +0.10 [+0.10, +0.10]" in text
    assert "Left out, since A2C itself learns next to nothing there: DeepSea-bsuite at 10" in text
    few = claim_2.conclude("cpu", {"games": rows_of(claim_2.jobs("cpu", [0]), value)}).text
    assert "no interval is claimed" in few and "TA-LPG less LPG +0.20 (seeds +0.20)" in few


def test_what_is_said_of_claim_4() -> None:
    def value(cell: str, task: Task, seed: int) -> float:
        gain = {claim_4.AWARE: 1.0, "PPO": -1.0, "DPO": 1.0}.get(cell, 0.0)
        luck = {"constant rate": 0.01, "linear rate": 10.0}[task.group] * (seed - 2)
        return 10.0 + gain + (luck if cell == claim_4.AWARE else 0.0)

    jobs = claim_4.jobs("cpu", range(5))
    rows = [row._replace(rate=3e-3) if row.stage == TEST else row for row in rows_of(jobs, value)]
    numbers = claim_4.gather("cpu", rows)
    assert numbers.tasks[0].environment == numbers.trained == "Catch-bsuite"
    task = Task("constant rate", claim_4.GAMES, "CartPole-v1", 24)
    assert list(claim_4.difference(numbers, task, "PPO").values()) == pytest.approx(
        [1.98, 1.99, 2.0, 2.01, 2.02]
    )
    assert claim_4.decided(claim_4.difference(numbers, task, "LPO")) == 1
    assert claim_4.decided(claim_4.difference(numbers, task, "DPO")) == 0
    noisy = task._replace(group="linear rate")
    assert claim_4.decided(claim_4.difference(numbers, noisy, "PPO")) == 0
    assert claim_4.decided({0: 5.0}) == 0, "one seed decides nothing"
    assert claim_4.decided(dict(enumerate([-1.0, -1.1, -0.9, -1.0, -1.05]))) == -1
    conclusion = claim_4.conclude("cpu", {"games": rows})
    assert "CartPole-v1, TA-LPO less each rival at N = 6, 24, 96: LPO +1*, +1*, +1*" in (
        conclusion.text
    )
    assert "3,840 lives of 3,072 environment steps" in conclusion.facts["budget of a search"]
    assert "Linear rate." in conclusion.text and "PPO +2*, +2*, +2*" in conclusion.text
    assert ("constant rate", "TA-LPO", "0.003 0.003 0.003 0.003 0.003") in (
        conclusion.grids[-1].rows
    )


def drawn_2() -> Figure:
    rng = np.random.default_rng(0)
    known = {"A2C": 1.0, "random": 0.0}
    rows = rows_of(
        claim_2.jobs("cpu", range(5)),
        lambda cell, task, seed: known.get(cell, rng.normal(0.7, 0.2)),
    )
    return claim_2.conclude("cpu", {"games": rows}).draw()


def drawn_4(seeds: int = 5) -> Figure:
    rng = np.random.default_rng(0)
    rows = rows_of(
        claim_4.jobs("cpu", range(seeds)),
        lambda cell, task, seed: float(rng.normal(math.log(task.horizon), 0.2)),
    )
    return claim_4.conclude("cpu", {"games": rows}).draw()


@pytest.mark.parametrize("draw", [drawn_2, drawn_4, lambda: drawn_4(2)])
def test_pictures(draw: Callable[[], Figure], tmp_path: Path) -> None:
    figure = draw()
    figure.canvas.draw()
    whole, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert whole.x0 >= -0.01 and whole.x1 <= width + 0.01
    assert whole.y0 >= -0.01 and whole.y1 <= height + 0.01
    for legend in figure.legends:
        box = legend.get_window_extent().padded(-1)
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    paths = figures.save(figure, tmp_path / "a")
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_a_part_of_the_work_can_be_told() -> None:
    """At first there is only what others are measured by."""
    jobs = [job for job in claim_2.jobs("cpu", [0]) if job.cell == claim_2.REFERENCE]
    conclusion = claim_2.conclude("cpu", {"games": rows_of(jobs, lambda *_: 1.0)})
    assert "0 search seeds" in conclusion.text
    (axes,) = conclusion.draw().axes
    assert [text.get_text()[:12] for text in axes.texts] == ["no objective"]
    rivals = [job for job in claim_4.jobs("cpu", [0]) if job.source]
    fourth = claim_4.conclude("cpu", {"games": rows_of(rivals, lambda *_: 1.0)})
    assert "0 search seeds" in fourth.text and len(fourth.draw().axes) == 8
    with pytest.raises(ValueError, match="nothing to draw"):
        claim_4.conclude("cpu", {"games": []}).draw()
