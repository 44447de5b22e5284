"""Claim 5's entry: what it looks at, its tables, and what they are said to say."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from discovery.config import LifeConfig, check
from discovery.evaluation import claim_1, claim_4, claim_5, claims, figures, schedule_trials, slopes
from discovery.evaluation.claim_5 import Lived, Look, Moved, Surface, Turned
from discovery.evaluation.papers import Job

SEEDS = range(5)
Tables = dict[str, list[Any]]


def made_up(
    slope: Callable[[str, int], float],
    entropy: Callable[[str, np.ndarray, int], np.ndarray],
    seeds: Sequence[int] = SEEDS,
) -> Tables:
    """Rows of every job: changes of entropy with a slope by cell and seed, and curves of lives."""
    tables: Tables = {"moved": [], "turns": [], "lives": [], "drifts": []}
    for job in claim_5.jobs("cpu", seeds):
        if job.sweep.drift:
            continue
        who, look = job.identity("cpu"), job.sweep
        for n in look.told:
            times = slopes.shares(n)
            for i, age in enumerate(slopes.ages(n)):
                change = 1e3 * (slope(job.cell, job.seed) * times + i)
                for measure, values in (("entropy", change), ("kl", np.exp(times))):
                    told = tuple(values.tolist())
                    tables["moved"].append(Moved(*who, n, age, measure, look.levels, "d", told))
        for n in look.lived:
            curve = tuple(entropy(job.cell, np.arange(n), n).tolist())
            tables["lives"] += [
                Lived(*who, n, measure, look.levels, "d", curve) for measure in ("entropy", "kl")
            ]
    return tables


def drifts(fall: float, back: float = math.nan) -> list[Turned]:
    times = slopes.shares(24)
    return [
        Turned("cpu", "constant", cell, "lpo", seed, 24, sign, measure, "d", tuple(ratios))
        for cell in ("TA-LPO", "LPO")
        for seed in SEEDS
        for sign in (1.0, -1.0)
        for measure, ratios in (
            ("half", np.exp(sign * 0.5 - (fall * times if cell == "TA-LPO" else 0 * times))),
            ("back", np.full(len(times), back)),
        )
    ]


def surfaces() -> list[Surface]:
    """Of a drift whose slope in p is A p times a factor that grows with the share told."""
    return [
        Surface("cpu", "constant", cell, "lpo", seed, 24, t, a, "d", tuple(a - f * a * p))
        for cell in ("TA-LPO", "LPO")
        for seed in SEEDS
        for t in claim_5.TIMES
        for f in [(1 + t if cell == "TA-LPO" else 1) + 0.1 * (seed - 2)]
        for a in claim_5.ADVANTAGES
        for p in [claim_5.RATIOS]
    ]


def by_share(cell: str, n: np.ndarray, horizon: int) -> np.ndarray:
    """Entropies that stretch, but for those who see no horizon."""
    return np.exp(-n / (50 if cell in ("LPG", "PPO") else horizon))


def test_it_looks_at_the_searches_of_claim_1() -> None:
    jobs = claim_5.jobs("cpu", [0, 3])
    known: dict[str, Any] = {"claim-1": claim_1, "claim-4": claim_4}
    cells = {"claim-1": claim_5.CHOSEN, "claim-4": claim_5.DRIFTS}
    for name, module in known.items():
        theirs = {job.folder: job.config for job in module.jobs("cpu", [0, 3])}
        shared = [job for job in jobs if job.home == name]
        assert {job.cell for job in shared} == {*cells[name]}
        for job in shared:
            assert theirs[job.folder] == job.config
            assert job.place(Path("runs/claim-5")) == Path("runs") / name / job.folder
    others = [job for job in jobs if not job.home]
    assert [(job.cell, job.seed, job.is_start, job.source) for job in others] == [
        ("untrained", 0, True, ""),
        ("untrained", 3, True, ""),
        ("PPO", 0, False, "ppo"),
        ("PPO", 0, False, "ppo"),
        ("DPO", 0, False, "dpo"),
    ]
    for job in jobs:
        check(job.config)
    homes = {job.home for job in claim_5.jobs("full", [0])}
    assert homes == {"claim-1-full", "claim-4-full", ""}
    # What cannot say anything else is not asked; what was never trained is not watched.
    asked = {
        (job.cell, job.group): [len(table.wanted(job)) for table in claim_5.TABLES] for job in jobs
    }
    assert {of: each for of, each in asked.items() if of[0] in claim_5.DRIFTS} == {
        ("TA-LPO", "constant rate"): [2 * len(slopes.ages(24)), 4, 27, 0],
        ("TA-LPO", "linear rate"): [0, 4, 27, 0],
        ("LPO", "constant rate"): [0, 4, 27, 0],
        ("LPO", "linear rate"): [0, 4, 27, 0],
    }
    assert asked["DPO", "constant rate"] == asked["PPO", "constant rate"] == [0, 4, 27, 0]
    wanted = {cell: each for (cell, group), each in asked.items() if group == claim_1.RANGE}
    ages = sum(len(slopes.ages(n)) for n in claim_5.SIZES["cpu"].told)
    assert wanted["TA-LPG"] == [2 * ages, 0, 0, 6]
    assert wanted["LPG"] == wanted["constant"] == wanted["PPO"] == [0, 0, 0, 6]
    assert wanted["untrained"] == [2 * ages, 0, 0, 0]


def test_slopes_from_rows_by_hand() -> None:
    numbers = claim_5.gather(made_up(lambda cell, seed: -0.1 * (seed + 1), by_share))
    by_horizon = claim_5.entropy_slopes(numbers.entropy["TA-LPG"])
    assert sorted(by_horizon) == [10, 40, 80]
    for by_seed in by_horizon.values():
        assert list(by_seed.values()) == pytest.approx([-0.1, -0.2, -0.3, -0.4, -0.5])
    for by_seed in claim_5.size_slopes(numbers.kl["elapsed"]).values():
        assert list(by_seed.values()) == pytest.approx([1.0] * 5)
    nothing = {10: {0: np.zeros(10)}}
    assert math.isnan(claim_5.size_slopes(nothing)[10][0])
    assert claim_5.mean_over({1: {0: 1.0, 1: 5.0}, 2: {0: 3.0}}) == {0: 2.0}
    for apart in claim_5.stretches(numbers.lives["TA-LPG"]).values():
        assert apart.by_share < apart.by_age
    assert claim_5.stretches(numbers.lives["LPG"])[0].by_age == 0
    assert claim_5.stretches({5: {0: np.zeros(5)}}) == {}


def test_what_is_said_where_the_claim_holds_and_where_it_does_not() -> None:
    def falls(cell: str, seed: int) -> float:
        return -0.1 if cell == "TA-LPG" else 0.01

    text = claim_5.conclude("cpu", made_up(falls, by_share)).text
    assert "holds for TA-LPG." in text and "never trained, by" not in text
    assert (
        "TA-LPG: entropy falls the more by an update the later it is told to be in 5 of 5" in text
    )
    assert "TA-LPG in 5 of 5" in text and "LPG in 0 of 5" in text
    assert "Drifts" not in text

    def in_three(cell: str, seed: int) -> float:
        return -0.1 if seed < 3 else 0.1

    text = claim_5.conclude("cpu", made_up(in_three, by_share)).text
    assert "direction does not hold for TA-LPG" in text
    # In four of five it does, and here untrained networks have the sign too.
    text = claim_5.conclude("cpu", made_up(lambda c, s: 0.1 if s == 4 else -0.1, by_share)).text
    assert "holds for TA-LPG. It has the same sign in networks that were never trained" in text
    assert "too few" in claim_5.conclude("cpu", made_up(falls, by_share, [0])).text
    assert claim_5.conclude("cpu", made_up(falls, by_share)).facts["search seeds"] == "5"


def test_what_is_said_of_drifts() -> None:
    tables: Tables = {"moved": [], "lives": [], "turns": drifts(0.3), "drifts": surfaces()}
    numbers = claim_5.gather(tables)
    for sign, by_seed in claim_5.turn_slopes(numbers.half["TA-LPO, constant"], 24).items():
        assert list(by_seed.values()) == pytest.approx([-0.3] * 5), sign
    conclusion = claim_5.conclude("cpu", tables)
    assert "TA-LPO, constant: A = 1: the ratio falls with the share told in 5 of 5" in (
        conclusion.text
    )
    assert "the push ever points back in 0 of 5" in conclusion.text
    # Turns on both sides, a map at each of three times, one that is the same at any, their bar.
    assert len(conclusion.draw().axes) == 2 + 4 + 1
    (first, *_), _ = (list(by.values()) for by in numbers.maps.values())
    assert first[-1, 0] == pytest.approx(2 - 2 * 0.25), "the mean over seeds"
    rolling = claim_5.conclude("cpu", {**tables, "turns": drifts(0.0, back=2.0)}).text
    assert "the push ever points back in 5 of 5" in rolling
    assert "falls with the share told in 0 of 5" in rolling
    # A drift that turns nowhere within reach counts as turning there.
    assert slopes.reached(np.array([math.nan, 2.0]), 1.0) == pytest.approx(np.log([10, 2]))


def test_the_picture(tmp_path: Path) -> None:
    tables = made_up(lambda cell, seed: -0.1 * seed, by_share)
    tables |= {"turns": drifts(0.3), "drifts": surfaces()}
    conclusion = claim_5.conclude("cpu", tables)
    figure = conclusion.draw()
    figure.canvas.draw()
    whole, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert whole.x0 >= -0.01 and whole.x1 <= width + 0.01
    assert whole.y0 >= -0.01 and whole.y1 <= height + 0.01
    for axes in figure.axes:
        if axes.get_label() != "<colorbar>":
            assert axes.get_xlabel() and (axes.get_ylabel() or axes.get_yticklabels())
        if legend := axes.get_legend():
            box = legend.get_window_extent().padded(-1)
            assert not any(box.overlaps(other.get_window_extent()) for other in figure.axes)
    first = [path.read_bytes() for path in figures.save(conclusion.draw(), tmp_path / "a")]
    assert first == [path.read_bytes() for path in figures.save(conclusion.draw(), tmp_path / "b")]
    with pytest.raises(ValueError, match="nothing to draw"):
        claim_5.conclude("cpu", {table.name: [] for table in claim_5.TABLES}).draw()


def test_tables_are_read_as_they_were_written(tmp_path: Path) -> None:
    tables = made_up(lambda cell, seed: -0.05, by_share, [0]) | {"turns": drifts(0.3)}
    kinds = {table.name: table.kind for table in claim_5.TABLES}
    for name, rows in tables.items():
        path = tmp_path / f"{name}.csv"
        claims.write(path, kinds[name], rows)
        read = claims.read(path, kinds[name])
        assert [row[:-1] for row in read] == [row[:-1] for row in sorted(rows)]
        for a, b in zip(read, sorted(rows), strict=True):
            assert len(a[-1]) == len(b[-1])
            np.testing.assert_allclose(a[-1], b[-1], rtol=5e-3, atol=1e-3)


def test_a_job_is_looked_at(tmp_path: Path) -> None:
    """The functions that make the tables, on objectives that exist."""
    by_cell = {j.cell: j for j in claim_5.jobs("cpu", [0]) if j.group == claim_1.RANGE}
    ours, ppo = by_cell["TA-LPG"], by_cell["PPO"]
    life = LifeConfig(environments=2, rollout=4, evaluation_environments=2)
    update = replace(ppo.config.agent.update, minibatches=2)
    look = Look(2, (3,), (2, 4), drift=5)

    def job(source: str) -> Job:
        """A2C is cheaper than PPO, and has no drift."""
        config = replace(ours.config, env="chain", life=life)
        if source == "ppo":
            config = replace(config, agent=replace(ppo.config.agent, update=update))
        return Job("", source, source, 0, config, look, source=source)

    rows: list[Any] = []
    for table in claim_5.TABLES:
        module, name = table.measure.split(":")
        assert module == schedule_trials.__name__
        measure = getattr(schedule_trials, name)
        of = job("ppo" if name in ("turned", "surfaces") else "a2c")
        rows = measure(of, "cpu", tmp_path, math.inf, lambda line: None)
        assert {tuple(getattr(row, key) for key in table.key) for row in rows} == table.wanted(of)
        assert all(isinstance(row, table.kind) for row in rows)
        assert measure(of, "cpu", tmp_path, -math.inf, lambda line: None) is None
        if name == "surfaces":
            at = {(r.share, r.advantage): np.array(r.pushes) for r in rows}
            ratios = claim_5.RATIOS
            np.testing.assert_allclose(at[0.5, 1.0], np.where(ratios > 1.2, 0, 1), atol=1e-5)
            np.testing.assert_allclose(at[0.0, -2.0], np.where(ratios < 0.8, 0, -2), atol=1e-5)
        claims.write(tmp_path / "t.csv", table.kind, rows)
        assert len(claims.read(tmp_path / "t.csv", table.kind)) == len(rows)
    entropy = [row for row in rows if row.measure == "entropy"]
    assert [len(row.values) for row in entropy] == [2, 4]
    assert entropy[0].values[0] == pytest.approx(math.log(2), rel=1e-5), "a table is born uniform"
