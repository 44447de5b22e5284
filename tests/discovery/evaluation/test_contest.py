"""Claims 1 and 6: their searches, and numbers that anybody can compute again from their tables."""

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from discovery.config import HorizonConfig, LifeConfig, check, preset
from discovery.evaluation import cells, claim_1, claim_6, claims, contest, statistics, trials
from discovery.evaluation.claims import Levelled, Searched
from discovery.evaluation.contest import (
    AHEAD,
    BEHIND,
    NO_DIFFERENCE,
    UNTOLD,
    Estimate,
    Reach,
    judged,
)
from discovery.evaluation.papers import Job
from learned_objectives.clock import BASE_STEPS

SEEDS = (0, 1, 2, 3, 4)

# --- shared draws -----------------------------------------------------------------------------


def test_a_resample_is_what_its_counts_say() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 7))
    scores[1, 2] = np.nan
    draws = statistics.drawn(3, 7, 60)
    assert draws.seeds.sum(axis=1).tolist() == [3] * 60
    by_hand = []
    for seeds, levels in zip(draws.seeds.astype(int), draws.levels.astype(int), strict=True):
        whole = scores[np.ix_(np.repeat(np.arange(3), seeds), np.repeat(np.arange(7), levels))]
        by_hand.append(float(statistics.interquartile_mean(whole)))
    assert -math.inf in by_hand and np.isfinite(by_hand).any()
    np.testing.assert_allclose(statistics.pooled_on(scores, draws), by_hand, atol=1e-12)


def test_intervals_of_few_seeds_cover_at_the_stated_rate() -> None:
    """Five search seeds: where seeds differ most, where levels do, and where neither does."""
    rng = np.random.default_rng(1)
    repeats, size = 160, (5, 24)
    for of_seed, of_level in ((0.3, 0.05), (0.1, 0.4), (0.0, 0.0)):
        covered = 0
        for repeat in range(repeats):
            scores = (
                of_seed * rng.normal(size=(5, 1))
                + of_level * rng.normal(size=(1, 24))
                + 0.2 * rng.normal(size=size)
            )
            found = statistics.cell(scores, resamples=300, seed=repeat).interval(0.95)
            covered += found.low <= 0 <= found.high
        # Three standard errors below the rate; what varies with neither is covered too often.
        assert covered / repeats >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / repeats), of_seed


def test_few_seeds_widen_an_interval_only_where_seeds_differ() -> None:
    rng = np.random.default_rng(2)
    level = rng.normal(size=(1, 40)) + np.zeros((4, 1))
    plain, found = (
        statistics.interval(level, resamples=2_000),
        statistics.cell(level, resamples=2_000).interval(),
    )
    assert found.high - found.low == pytest.approx(plain.high - plain.low, rel=0.1)
    seed = rng.normal(size=(4, 1)) + np.zeros((1, 40))
    plain, found = (
        statistics.interval(seed, resamples=2_000),
        statistics.cell(seed, resamples=2_000).interval(),
    )
    factor = scipy.stats.t.ppf(0.975, 3) / scipy.stats.norm.ppf(0.975) * math.sqrt(4 / 3)
    assert found.high - found.low == pytest.approx(factor * (plain.high - plain.low), rel=0.1)


def test_differences_share_their_draws() -> None:
    rng = np.random.default_rng(3)
    b = rng.normal(size=(6, 30))
    difference = statistics.cell(b + 0.25, 500).less(statistics.cell(b, 500)).interval()
    assert difference[:3] == pytest.approx((0.25, 0.25, 0.25))
    assert difference.p == pytest.approx(2 / 501)
    twice = statistics.mean_of([statistics.cell(b, 500), statistics.cell(b + 2, 500)])
    assert twice.estimate == pytest.approx(statistics.cell(b, 500).estimate + 1)
    bad = statistics.cell(np.full((5, 6), np.nan), 50).interval()
    assert bad[:3] == (-math.inf, -math.inf, -math.inf)


def test_students_interval() -> None:
    values = [0.1, 0.4, 0.2, 0.7, 0.3]
    low, high = scipy.stats.t.interval(0.9, 4, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert statistics.student_interval(values, 0.9) == pytest.approx((0.34, low, high))
    assert math.isnan(statistics.student_interval([1.0]).low)
    rng = np.random.default_rng(4)
    found = [statistics.student_interval(rng.normal(size=5).tolist()) for _ in range(2_000)]
    assert np.mean([one.low <= 0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.015)


# --- what is said of an interval --------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimate", "low", "high", "said"),
    [
        (0.05, 0.01, 0.09, AHEAD),
        (-0.05, -0.09, -0.01, BEHIND),
        (0.01, 0.005, 0.015, NO_DIFFERENCE),  # not zero, and too little to count
        (0.0, -0.015, 0.019, NO_DIFFERENCE),
        (0.03, -0.01, 0.07, UNTOLD),
        (0.3, math.nan, math.nan, UNTOLD),
    ],
)
def test_what_an_interval_says(estimate: float, low: float, high: float, said: str) -> None:
    assert judged(Estimate(estimate, low, high, 0.5, SEEDS)) == said


# --- made-up tables ---------------------------------------------------------------------------


def tables(
    jobs: list[Job], score: Callable[[Job, int], float], levels: int = 16
) -> dict[str, list[Any]]:
    """Rows of these jobs: a score for each job and horizon, and the luck of levels."""
    luck = np.random.default_rng(5).normal(0, 0.2, size=levels)
    rows, searches = [], []
    for job in jobs:
        facts = job.identity("cpu")
        searches.append(Searched(*facts, job.config.generations, 3e7, 5e6, 0.5, 0.7, 0.25, "ab"))
        rng = np.random.default_rng([job.seed, *map(ord, job.cell)])
        for reach in job.sweep:
            for n in reach.horizons:
                for actions in reach.actions:
                    scores = score(job, n) + luck + 0.02 * rng.normal(size=levels)
                    told = (n, actions, reach.measure, "h", "ab", tuple(scores.tolist()))
                    rows.append(Levelled(*facts, *told))
    return {"searches": searches, "levels": rows}


def of_contender(gains: dict[str, float]) -> Callable[[Job, int], float]:
    return lambda job, n: 0.4 + 0.01 * job.seed + 0.05 * math.log(n) + gains.get(job.cell, 0.0)


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_numbers_of_claim_1_by_hand(tmp_path: Path) -> None:
    """From the file alone, with another library."""
    path = tmp_path / "levels.csv"
    made = tables(claim_1.jobs("cpu", SEEDS), of_contender({"TA-LPG": 0.1, "elapsed": 0.07}))
    claims.write(path, Levelled, made["levels"])
    made["levels"] = claims.read(path, Levelled)
    found = claim_1.gather("cpu", made, resamples=200)

    lines = read(path)

    def scores(name: str, n: int, actions: str = "sampled", measure: str = "final") -> np.ndarray:
        mine = [
            [float(line[f"scores_{i}"]) for i in range(16)]
            for line in lines
            if (line["cell"], line["horizon"]) == (name, str(n))
            and (line["actions"], line["measure"]) == (actions, measure)
        ]
        assert len(mine) == 5
        return np.array(mine)

    def iqm(name: str, n: int, **where: str) -> float:
        return float(scipy.stats.trim_mean(scores(name, n, **where).ravel(), 0.25))

    trained = (5, 10, 20, 40, 80)
    primary = {name: np.mean([iqm(name, n) for n in trained]) for name in ("TA-LPG", "LPG")}
    assert found.primary["TA-LPG"].estimate == pytest.approx(primary["TA-LPG"])
    blind = found.versus["LPG"]
    assert blind.primary.estimate == pytest.approx(primary["TA-LPG"] - primary["LPG"])
    assert blind.secondary["N=320"].estimate == pytest.approx(iqm("TA-LPG", 320) - iqm("LPG", 320))
    areas = [iqm("TA-LPG", n, measure="area") - iqm("LPG", n, measure="area") for n in trained]
    assert blind.secondary["area"].estimate == pytest.approx(np.mean(areas))
    greedy = [iqm("TA-LPG", n, actions="greedy") - iqm("LPG", n, actions="greedy") for n in trained]
    assert blind.greedy is not None
    assert blind.greedy.estimate == pytest.approx(np.mean(greedy))

    won = []
    for n in trained:
        for a in scores("TA-LPG", n):
            for b in scores("LPG", n):
                won += [0.5 if x == y else float(x > y) for x, y in zip(a, b, strict=True)]
    assert blind.improvement.estimate == pytest.approx(np.mean(won))

    p = {name: each.p for name, each in blind.secondary.items()}
    worst = 0.0
    for place, name in enumerate(sorted(p, key=lambda name: p[name])):
        worst = max(worst, min(1.0, (len(p) - place) * p[name]))
        assert blind.adjusted[name] == pytest.approx(worst)

    specialist = found.versus["specialist"].primary.estimate
    by_hand = np.mean([iqm("TA-LPG", n) - iqm("specialist", n) for n in (5, 20, 80)])
    assert specialist == pytest.approx(by_hand)
    oracle = np.mean([iqm("A2C oracle", n) for n in trained])
    assert found.primary["A2C oracle"].estimate == pytest.approx(oracle)


def said(gains: dict[str, float], seeds: tuple[int, ...] = SEEDS) -> str:
    made = tables(claim_1.jobs("cpu", seeds), of_contender(gains))
    return claim_1.verdict(claim_1.gather("cpu", made, resamples=1_000))


def test_what_is_said_of_claim_1() -> None:
    ahead = said({"TA-LPG": 0.1})
    assert "So TA-LPG is ahead of LPG." in ahead
    assert "It is above all of them." in ahead
    assert "TA-LPG is ahead of annealed LPG (+" in ahead
    assert "these differ from zero: N=5 (+" in ahead
    control = said({"TA-LPG": 0.1, "elapsed": 0.1})
    assert "It is not above all of them." in control
    behind = said({"TA-LPG": -0.1})
    assert "So TA-LPG is behind LPG: the claim does not hold at this size." in behind
    same = said({})
    assert "That is no practical difference: the claim does not hold at this size." in same
    assert "There is no practical difference to annealed LPG" in same
    assert "It is not above all of LPG, quiet constant and elapsed" in same
    assert "it is above LPG, quiet constant and elapsed" in said({claim_1.QUIET: 0.1}, SEEDS)
    few = said({"TA-LPG": 0.1}, (0, 1))
    assert "With fewer than 5 search seeds no interval is claimed." in few
    assert "[" not in few and "Holm" not in few


def test_tables_of_a_part_of_the_work() -> None:
    made = tables(claim_1.jobs("cpu", (0,))[:1], of_contender({}))
    found = claim_1.conclude("cpu", made)
    assert "are not both in the tables yet" in found.text
    assert found.draw().axes
    assert found.facts["intervals"] == "none claimed of fewer than 5 search seeds"


def test_claim_1_is_drawn_in_full() -> None:
    made = tables(claim_1.jobs("cpu", SEEDS), of_contender({"TA-LPG": 0.1}))
    numbers = claim_1.gather("cpu", made, resamples=100)
    from discovery.evaluation.figures_contest import claim_1 as draw

    curves, hand, forest, against = draw(numbers, claim_1.SIZES["cpu"]).axes
    named = [text.get_text() for axes in (curves, hand) for text in axes.get_legend().get_texts()]
    assert {*named} == set(claim_1.CONTENDERS)
    assert curves.get_ylim() == hand.get_ylim()
    assert [label.get_text() for label in forest.get_yticklabels()] == [*claim_1.CONTENDERS][1:]
    for axes in (curves, hand, against):
        assert "horizon N" in axes.get_xlabel()


def of_setting(effects: dict[tuple[str, str], float]) -> Callable[[Job, int], float]:
    return lambda job, n: 0.5 + 0.01 * job.seed + effects.get((job.cell, job.objective), 0.0)


def test_numbers_of_claim_6_by_hand(tmp_path: Path) -> None:
    ours, other = claim_6.OURS.name, claim_6.SETTINGS[3].name
    effects = {(ours, "TA-LPG"): 0.1, (other, "TA-LPG"): 0.25, (other, "LPG"): 0.05}
    path = tmp_path / "levels.csv"
    made = tables(claim_6.jobs("cpu", SEEDS), of_setting({**effects, ("horizon", "TA-LPG"): -0.2}))
    claims.write(path, Levelled, made["levels"])
    made["levels"] = claims.read(path, Levelled)
    found = claim_6.gather("cpu", made, resamples=200)
    lines = read(path)

    def mean(cell: str, objective: str) -> float:
        each = []
        for n in ("5", "20", "80"):
            scores = [
                float(line[f"scores_{i}"])
                for line in lines
                if (line["cell"], line["objective"], line["horizon"]) == (cell, objective, n)
                for i in range(16)
            ]
            assert len(scores) == 5 * 16
            each.append(scipy.stats.trim_mean(scores, 0.25))
        return float(np.mean(each))

    parts = {part.name: part for part in found.settings}
    assert list(parts) == [setting.name for setting in claim_6.SETTINGS]
    gains = {cell: mean(cell, "TA-LPG") - mean(cell, "LPG") for cell in (ours, other)}
    assert parts[other].gain is not None and parts[other].interaction is not None
    assert parts[other].gain.estimate == pytest.approx(gains[other])
    assert parts[other].interaction.estimate == pytest.approx(gains[other] - gains[ours])
    assert parts[ours].interaction is None
    assert parts[ours].signal == {"TA-LPG": 0.25, "LPG": 0.25}
    assert parts[other].interaction.estimate == pytest.approx(0.1, abs=0.02)
    clocks = {part.name: part for part in found.clocks}
    assert list(clocks) == list(claim_6.CLOCKS)
    assert clocks["horizon"].gain is not None
    by_hand = mean("horizon", "TA-LPG") - mean(ours, "LPG")
    assert clocks["horizon"].gain.estimate == pytest.approx(by_hand)
    ranks = [each.name for each in claim_6.SETTINGS if each.shaping == "centred_rank"]
    pairs = [each.name for each in claim_6.SETTINGS if each.shaping == "pair"]
    by_hand = np.mean([mean(each, "LPG") for each in pairs]) - np.mean(
        [mean(each, "LPG") for each in ranks]
    )
    assert found.effects["pairs less ranks"]["LPG"].estimate == pytest.approx(by_hand)

    words = claim_6.verdict(found)
    assert f"the gain is ahead in '{other}' (+" in words
    assert "it is ahead in 'fraction_log' (+" in words and "behind in 'horizon' (-" in words
    figure = claim_6.conclude("cpu", {**made, "levels": made["levels"][:7]}).draw()
    assert len(figure.axes) in (4, 8)


# --- searches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", claim_1.SIZES)
def test_every_contender_has_one_budget(size: str) -> None:
    chosen = claim_1.SIZES[size]
    spent: dict[str, float] = {}
    for job in claim_1.jobs(size, (0,)):
        check(job.config)
        cost = job.config.generations * sum(cells.cost(job.config))
        if claim_1.CONTENDERS[job.cell].whole:
            assert cost == pytest.approx(chosen.budget, rel=0.05)
        else:
            spent[job.cell] = spent.get(job.cell, 0.0) + cost
    for name, cost in spent.items():
        assert cost == pytest.approx(chosen.budget, rel=0.05), name


def test_contenders_differ_in_what_their_names_say() -> None:
    jobs = {job.cell: job for job in claim_1.jobs("cpu", (0,))}
    ours = jobs["TA-LPG"].config
    blind = replace(ours, objective=replace(ours.objective, clock_gate=0.0))
    assert jobs["LPG"].config == blind
    for name, clock in (("constant", "constant"), ("elapsed", "elapsed")):
        assert jobs[name].config == replace(ours, objective=replace(ours.objective, clock=clock))
    quiet = jobs[claim_1.QUIET].config.objective
    assert (quiet.clock, quiet.clock_gate, quiet.log_ends) == ("fraction_scaled", 0.3, (0.625, 10))
    assert claim_1.UNIT == BASE_STEPS
    still = jobs["quiet constant"].config.objective
    assert still == replace(ours.objective, clock="constant", clock_gate=0.06)
    assert jobs["annealed LPG"].config.objective.rule == "lpg-annealed"
    assert jobs["A2C scheduled_N"].config.objective.rule == "a2c-scheduled-n"
    assert jobs["A2C scheduled_N"].config.agent.policy_rate == 90.0
    assert jobs["A2C oracle"].config.horizon == HorizonConfig(80, 80)
    assert all(
        job.sweep[0] == Reach((5, 10, 20, 40, 80), 256, greedy=True)
        for job in (jobs["TA-LPG"], jobs["A2C constant"], jobs["elapsed"])
    )
    seeds = {job.seed for job in claim_1.jobs("cpu", range(10)) if job.cell == "specialist"}
    assert seeds == {0, 1, 2, 3, 4}


def test_searches_of_claim_6_differ_in_what_may_matter() -> None:
    jobs = claim_6.jobs("cpu", (3,))
    assert len(jobs) == 2 * 8 + 5
    seen = set()
    for job in jobs:
        check(job.config)
        e = job.config.evolution
        assert 0 < e.signal_every <= job.config.generations // 4
        same = replace(
            job.config,
            objective=replace(job.config.objective, clock="fraction_log", clock_gate=1.0),
            evolution=replace(e, shaping="pair", shared_task=False, shared_stream=True),
        )
        assert same == jobs[0].config
        seen.add((e.shaping, e.shared_task, e.shared_stream, job.config.objective))
    assert len(seen) == len(jobs)


# --- an evaluation that is stopped ------------------------------------------------------------


def test_an_evaluation_that_was_killed_gives_the_same_table(tmp_path: Path) -> None:
    """Stopped after one horizon and gone on with, or not stopped: the same bytes."""
    tiny = preset("smoke")
    config = replace(
        tiny,
        env="small",
        life=LifeConfig(environments=2, rollout=4, evaluation_environments=2),
    )
    sweep = (Reach((2, 3), 4, greedy=True),)
    job = Job("range", "hand", "a2c", 0, config, sweep, source="a2c")

    def stopping(line: Any) -> None:
        if "N = 3" in str(line):
            raise KeyboardInterrupt

    whole = trials.levelled(job, "cpu", tmp_path / "whole", math.inf, lambda line: None)
    assert whole is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials.horizons, "narrator", lambda report: lambda p: stopping(p.line))
        with pytest.raises(KeyboardInterrupt):
            trials.levelled(job, "cpu", tmp_path / "cut", math.inf, print)
    there = (tmp_path / "cut" / job.folder / "rows.csv").read_text()
    assert len(there.splitlines()) == 1 + 4 * 2
    again = trials.levelled(job, "cpu", tmp_path / "cut", math.inf, lambda line: None)
    for name, rows in (("whole", whole), ("again", again)):
        claims.write(tmp_path / f"{name}.csv", Levelled, rows or [])
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
    assert trials.levelled(job, "cpu", tmp_path / "late", -math.inf, print) is None
    wanted = contest.TABLES[1].wanted(job)
    key = contest.TABLES[1].key
    assert {tuple(getattr(row, name) for name in key) for row in whole} == set(wanted)
