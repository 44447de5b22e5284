import csv
import importlib.util
import io
import math
import os
import struct
import sys
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from rich.console import Console

from discovery.evaluation import statistics, table
from discovery.evaluation.table import Row, TableError, append, read, summary, write


def row(**changes: Any) -> Row:
    values: dict[str, Any] = {
        "objective": "ta-lpg",
        "digest": "d0",
        "environment": "small",
        "level_hash": "ab12",
        "level": 0,
        "horizon": 10,
        "steps": 12_800,
        "seed": 0,
        "actions": "sampled",
        "score": 0.5,
        "normalised": 0.25,
        "random": 0.1,
        "optimal": 1.7,
        "area": 0.3,
        "episodes": 64,
        "finite": True,
        "wall_seconds": 1.5,
        "versions": "kairos-rl 0.1.0, jax 0.10.2",
    }
    return Row(**(values | changes))


def sweep(objective: str, gain: float, thetas: int = 1, levels: int = 6) -> list[Row]:
    """Rows whose normalised score is gain + horizon/1000 + level/100, the same for each theta."""
    return [
        row(
            objective=objective,
            digest=f"{objective}-{theta}",
            level=level,
            horizon=horizon,
            steps=horizon * 1280,
            normalised=gain + horizon / 1000 + level / 100,
        )
        for theta in range(thetas)
        for level in range(levels)
        for horizon in (10, 50)
    ]


def printed(what: Any) -> str:
    out = Console(file=io.StringIO(), width=80)
    out.print(what)
    return out.file.getvalue()  # type: ignore[attr-defined, no-any-return]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=8)
numbers = st.floats(allow_nan=False)
optional = st.none() | numbers
rows_of_anything = st.lists(
    st.builds(
        row,
        objective=texts,
        level=st.integers(-(2**63), 2**63 - 1),
        score=numbers,
        normalised=optional,
        area=optional,
        wall_seconds=optional,
        finite=st.booleans(),
        versions=texts,
        clock=texts,
    ),
    max_size=5,
)


# --- files ------------------------------------------------------------------------------------


@given(rows_of_anything)
def test_round_trip_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row]
) -> None:
    path = tmp_path_factory.mktemp("table") / "evaluation.csv"
    write(path, rows)
    again = read(path)
    expected = {(r.objective, r.level, r.clock): r for r in rows}
    assert {(r.objective, r.level, r.clock): r for r in again} == expected
    assert len(again) == len(expected)
    for found in again:
        assert struct.pack("d", found.score) == struct.pack(
            "d", expected[found.objective, found.level, found.clock].score
        )
    data = path.read_bytes()
    write(path, again[::-1])
    assert path.read_bytes() == data


def test_not_a_number_and_no_number_differ(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", [row(score=math.nan, normalised=-math.inf, area=None)])
    (found,) = read(tmp_path / "t.csv")
    assert math.isnan(found.score)
    assert found.normalised == -math.inf
    assert found.area is None


def test_file_that_other_people_read(tmp_path: Path) -> None:
    one = row(objective='of "mine", b', score=np.float32(0.1), level=np.int32(7), finite=np.True_)
    write(tmp_path / "t.csv", [one])
    text = (tmp_path / "t.csv").read_text()
    assert text.splitlines()[0] == ",".join(table.COLUMNS)
    (found,) = csv.DictReader(io.StringIO(text))
    assert found["objective"] == 'of "mine", b'
    assert found["level"] == "7"
    assert found["finite"] == "true"
    assert np.float32(found["score"]) == np.float32(0.1)
    assert read(tmp_path / "t.csv") == [one]
    assert os.listdir(tmp_path) == ["t.csv"]


def test_a_table_without_clocks_is_of_the_true_one(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write(path, [row(), row(level=1)])
    lines = path.read_text().splitlines()
    assert all(line.endswith((",clock", ",true")) for line in lines)
    path.write_text("".join(f"{line.rpartition(',')[0]}\n" for line in lines))
    assert read(path, strict=True) == [row(), row(level=1)]
    append(path, [row(clock="reversed", score=0.1)])
    assert [(r.level, r.clock, r.score) for r in read(path)] == [
        (0, "reversed", 0.1),
        (0, "true", 0.5),
        (1, "true", 0.5),
    ]


def test_append_adds_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "t.csv"
    append(path, [row(), row(level=2)])
    append(path, [row(level=1), row(score=9.0)])
    assert [(r.level, r.score) for r in read(path)] == [(0, 9.0), (1, 0.5), (2, 0.5)]


def test_columns_of_somebody_else_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write(path, [row()])
    header, line = path.read_text().splitlines()
    path.write_text(f"note,{header}\nmine,{line}\n")
    assert read(path) == [row()]
    with pytest.raises(TableError, match="column 'note' is not of this table and would be lost"):
        append(path, [row(level=1)])


def test_failed_write_leaves_the_old_table(tmp_path: Path, monkeypatch: Any) -> None:
    write(tmp_path / "t.csv", [row()])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        append(tmp_path / "t.csv", [row(level=1)])
    assert read(tmp_path / "t.csv") == [row()]
    assert os.listdir(tmp_path) == ["t.csv"]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("horizon", "horizont", "expected a column 'horizon', found objective"),
        (",10,", ",ten,", "line 2: horizon: expected an integer, found 'ten'"),
        (",0.5,", ",,", "line 2: score: expected a number, found ''"),
        (",true,", ",yes,", "line 2: finite: expected true or false, found 'yes'"),
        (",true,", ',true",', "line 2: finite: expected true or false"),
        ("ta-lpg,", 'ta-lpg,"', "is not CSV"),
        ("ta-lpg,", "ta-lpg,more,", "line 2: expected as many cells as columns"),
        (",v,true", ",v", "line 2: clock: expected text, found ''"),
        (",1.5,v,true", ",1.5", "line 2: versions: expected text, found ''"),
    ],
)
def test_damaged_table(old: str, new: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write(path, [row(versions="v")])
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(TableError, match=line):
        read(path)


@given(st.integers(0, 400), st.binary(max_size=5))
def test_random_damage_is_our_error_or_a_table(
    tmp_path_factory: pytest.TempPathFactory, at: int, piece: bytes
) -> None:
    path = tmp_path_factory.mktemp("table") / "t.csv"
    write(path, [row(), row(level=1)])
    data = path.read_bytes()
    path.write_bytes(data[:at] + piece + data[at + 1 :])
    try:
        found = read(path)
    except TableError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(r.score, float) and isinstance(r.level, int) for r in found)


def test_files_of_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"expected a name that ends in \.csv or \.parquet"):
        write(tmp_path / "t.xlsx", [row()])
    with pytest.raises(TableError, match="No such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(TableError, match="a row needs score"):
        write(tmp_path / "t.csv", [row(score=None)])
    with pytest.raises(TableError, match=r"objective must be one line, not 'a\\rb'"):
        write(tmp_path / "t.csv", [row(objective="a\rb")])
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(TableError, match="expected a column 'objective'"):
        read(tmp_path / "empty.csv")


def test_parquet_without_its_extra_names_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TableError, match=r"pip install 'kairos-rl\[parquet\]'"):
        write(tmp_path / "t.parquet", [row()])
    assert not list(tmp_path.iterdir())


def test_parquet_round_trip_where_it_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows = [row(), row(level=1, normalised=None, score=0.1 + 0.2), row(level=2, finite=False)]
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(TableError, match="Parquet needs an extra"):
            write(path, rows)
        return
    write(path, rows[::-1])
    assert read(path) == rows
    data = path.read_bytes()
    append(path, rows[:1])
    assert path.read_bytes() == data
    path.write_bytes(data[:-9])
    with pytest.raises(TableError, match="is not Parquet"):
        read(path)


# --- summaries --------------------------------------------------------------------------------


def test_normalise_by_hand() -> None:
    assert table.normalise(3.0, 1.0, 5.0) == 0.5
    assert table.normalise(-1.0, 1.0, 5.0) == -0.5
    assert table.normalise(3.0, None, 5.0) is None
    assert table.normalise(3.0, 5.0, 5.0) is None


def test_area_is_normalised_like_a_score() -> None:
    assert table.value_of(row(area=0.9), "normalised_area") == pytest.approx(0.5)
    assert table.value_of(row(area=None), "normalised_area") is None
    assert table.value_of(row(finite=False), "score") == -math.inf


def test_summary_by_hand() -> None:
    found = summary(sweep("b", 0.1) + sweep("a", 0.5), resamples=200)
    assert [(s.objective, s.horizon) for s in found] == [("b", 10), ("b", 50), ("a", 10), ("a", 50)]
    # Levels 0..5: one cut at each end leaves 1, 2, 3, 4, mean 2.5.
    assert found[0].estimate == pytest.approx(0.1 + 0.010 + 0.025)
    assert found[3].estimate == pytest.approx(0.5 + 0.050 + 0.025)
    assert found[0].low < found[0].estimate < found[0].high
    assert (found[0].n, found[0].search_seeds, found[0].levels) == (6, 1, 6)
    assert (found[0].value, found[0].steps) == ("normalised", 12_800)


def test_summary_of_scores_where_there_are_no_bounds() -> None:
    rows = [row(normalised=None, random=None, score=float(i), level=i) for i in range(4)]
    (found,) = summary(rows, resamples=50)
    assert (found.value, found.estimate) == ("score", 1.5)
    with pytest.raises(TableError, match="not every row has a normalised value"):
        summary(rows, "normalised")


def test_agents_that_are_not_finite_rank_worst() -> None:
    rows = [row(level=i, normalised=1.0, finite=i != 0) for i in range(4)]
    assert summary(rows, resamples=50)[0].estimate == 1.0
    rows = [row(level=i, normalised=1.0, finite=i > 1) for i in range(4)]
    assert summary(rows, resamples=50)[0].estimate == -math.inf


def test_few_search_seeds_claim_no_interval() -> None:
    for thetas, claimed in ((1, True), (4, False), (statistics.FEWEST_SEEDS, True)):
        (found, _) = summary(sweep("a", 0.5, thetas), resamples=50)
        assert found.search_seeds == thetas
        assert math.isnan(found.low) is not claimed


def test_environments_actions_and_level_sets_stay_apart() -> None:
    rows = [
        row(environment=environment, actions=actions, level_hash=levels)
        for environment in ("small", "mazes")
        for actions in ("sampled", "greedy")
        for levels in ("ab", "cd")
    ]
    assert len(summary(rows, resamples=10)) == 8


def test_clocks_stay_apart() -> None:
    false = [r._replace(clock="reversed") for r in sweep("a", 0.2) + sweep("b", 0.0)]
    rows = sweep("a", 0.5) + sweep("b", 0.1) + false
    found = {(s.objective, s.clock, s.horizon): s.estimate for s in summary(rows, resamples=19)}
    assert found["a", "true", 10] - found["a", "reversed", 10] == pytest.approx(0.3)
    assert len(found) == 8
    gaps = {(c.clock, c.horizon): c.estimate for c in table.compare(rows, "a", "b", resamples=19)}
    assert gaps["true", 50] == pytest.approx(0.4)
    assert gaps["reversed", 50] == pytest.approx(0.2)
    with pytest.raises(TableError, match="rows of the clocks reversed, true do not add up"):
        table.scores([row(), row(clock="reversed")])
    text = printed(table.render(summary(rows, resamples=19)))
    assert text.count("sampled actions, clock reversed") == 1
    assert text.count("sampled actions") == 2


def test_unfinished_sweeps_use_what_is_shared() -> None:
    rows = sweep("a", 0.5, thetas=5)
    array = table.scores([r for r in rows if r.horizon == 10][:-1])
    assert array.shape == (5, 5, 1)
    with pytest.raises(TableError, match="no level and agent seed in common"):
        table.scores([row(), row(digest="d1", level=1)])


def test_compare_by_hand() -> None:
    rows = sweep("a", 0.5, thetas=5) + sweep("b", 0.1)
    found = table.compare(rows, "a", "b", resamples=199)
    assert [f.horizon for f in found] == [10, 50]
    for entry in found:
        assert entry.estimate == pytest.approx(0.4)
        assert entry.low == pytest.approx(0.4, abs=0.01)  # quarters of 30 and of 6 agents
        assert entry.p == pytest.approx(2 / 200)
        assert entry.holm == pytest.approx(4 / 200)
        assert entry.improvement == 1
    (back, _) = table.compare(rows, "b", "a", resamples=19)
    assert (back.estimate, back.improvement) == (pytest.approx(-0.4), 0)
    (few, _) = table.compare(sweep("a", 0.5, 2) + sweep("b", 0.1, 2), "a", "b", resamples=19)
    assert math.isnan(few.low)
    assert few.improvement == 1


def test_searches_are_not_paired_by_the_order_of_their_digests() -> None:
    def searches(name: str, gain: float) -> list[Row]:
        rows = [sweep(name, gain + 0.1 * theta)[:6] for theta in range(5)]
        return [r._replace(digest=f"{name}{i}") for i, some in enumerate(rows) for r in some]

    (found, _) = table.compare(searches("a", 0.5) + searches("b", 0.1), "a", "b", resamples=200)
    assert found.estimate == pytest.approx(0.4)
    assert found.high - found.low > 0.2


def test_compare_uses_levels_that_both_have() -> None:
    rows = sweep("a", 0.5, levels=6) + sweep("b", 0.1, levels=3)
    assert table.compare(rows, "a", "b", resamples=19)[0].estimate == pytest.approx(0.4)
    with pytest.raises(TableError, match="no rows of 'c'; there are: a, b"):
        table.compare(rows, "a", "c")
    apart = [row(objective="a"), row(objective="b", level_hash="other")]
    with pytest.raises(TableError, match="share no levels"):
        table.compare(apart, "a", "b")


def test_rendered_for_a_console() -> None:
    rows = sweep("ta-lpg", 0.5) + sweep("a2c", 0.1)
    rows += [row(environment="[odd]", normalised=None, score=180.94, horizon=1000)]
    text = printed(table.render(summary(rows, resamples=50)))
    assert "small: normalised score (0 random, 1 optimal), sampled actions" in text
    assert ".53" in text or ".54" in text
    assert "[.5" in text
    assert "updates of 1,280 environment steps" in text
    assert "interquartile mean of 6 agents a" in " ".join(text.split())
    assert "[odd]: return" in text
    assert "180.9" in text
    assert "of 1 agent a cell" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def use(measure: str, horizon: int, value: float, **changes: Any) -> table.ClockUse:
    values: dict[str, Any] = {
        "objective": "ta-lpg",
        "digest": "d0",
        "null": False,
        "measure": measure,
        "horizon": horizon,
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "levels": 64,
        "search_seeds": 1,
    }
    return table.ClockUse(**(values | changes))


def test_uses_of_the_clock_for_a_console() -> None:
    horizons = (5, 10, 25, 50, 100, 1000)
    uses = [use("frozen-0.95", n, 0.2) for n in horizons] + [use("reversed", 10, 0.05)]
    uses += [use("S_pi_fraction", n, 0.25) for n in horizons]
    text = printed(table.render_clock_uses(uses, ": lost"))
    head, losses, other, words = (
        next(line.split() for line in text.splitlines() if line.strip().startswith(start))
        for start in ("N", "frozen", "reversed", "S_pi")
    )
    assert head == " ".join(f"N = {n:,}" for n in horizons).split()
    assert losses == ["frozen-0.95"] + ["+0.200*"] * 6
    assert other == ["reversed", "+0.050"]
    assert words == ["S_pi_fraction"] + ["0.25"] * 6
    assert "ta-lpg: lost" in text
    assert "64 levels, 1 search seed; * the 95 % interval, over levels, excludes zero" in text
    assert max(map(len, text.splitlines())) <= 80
    none = {"low": math.nan, "high": math.nan}
    seeds = [use("S_y_horizon", 10, -0.5, search_seeds=3, **none)]
    text = printed(table.render_clock_uses(seeds, ": differences", signed=True))
    assert "-0.500" in text
    assert "3 search seeds: too few to claim an interval" in text


def test_uses_of_the_clock_as_a_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "t-clock.csv"
    table.write_clock_uses(path, [use("half", 10, 0.1 + 0.2, null=True, low=math.nan)])
    (found,) = csv.DictReader(io.StringIO(path.read_text()))
    assert list(found) == list(table.ClockUse._fields)
    assert float(found["value"]) == 0.1 + 0.2
    assert (found["null"], found["low"], found["measure"]) == ("true", "", "half")
    (back,) = table.read_clock_uses(path)
    assert (back.value, back.null, back.horizon) == (0.1 + 0.2, True, 10)
    assert math.isnan(back.low)
    text = path.read_text()
    for wrong in ("true,half,ten", "maybe,half,10", "true"):
        path.write_text(text.replace("true,half,10", wrong))
        with pytest.raises(table.TableError, match="line 2"):
            table.read_clock_uses(path)
    path.write_text(text.replace("measure", "lie", 1))
    with pytest.raises(table.TableError, match="expected a column 'measure'"):
        table.read_clock_uses(path)


def ranked(objective: str, by_seed: list[float], **changes: Any) -> list[Row]:
    """Three levels, on each the same score for an agent seed."""
    return [
        row(objective=objective, level=level, seed=seed, score=x, normalised=x, **changes)
        for level in range(3)
        for seed, x in enumerate(by_seed)
    ]


def test_ranks_and_how_sure_they_are() -> None:
    rows = ranked("a", [0.9, 0.8]) + ranked("b", [0.5, 0.9]) + ranked("c", [0.1, 0.2])
    rows += ranked("a", [0.3, 0.3], horizon=20) + ranked("b", [0.3, 0.3], horizon=20)
    rows += ranked("a", [0.3], horizon=40)
    ten, twenty = table.standings(rows)
    assert (ten.horizon, ten.objectives) == (10, ("a", "b", "c"))
    assert ten.shares == ((1, 0, 0), (0, 1, 0), (0, 0, 1)), "agents are averaged, levels agree"
    # Seed 0 says a > b > c, seed 1 says b > a > c: two of three pairs are the same way round.
    assert ten.agreement == pytest.approx(1 / 3)
    assert twenty.shares == ((0.5, 0.5), (0.5, 0.5)), "who ties shares the ranks"
    assert math.isnan(twenty.agreement)
    text = printed(table.render_standings([ten, twenty]))
    assert "1 (100%)" in text and "1 (50%)" in text and "Kendall's tau" in text
    assert "small, sampled actions" in text
    assert table.standings(ranked("a", [0.3])) == []
    alone = table.standings(ranked("a", [0.3]) + ranked("b", [0.2]))
    assert "Kendall" not in printed(table.render_standings(alone))


def test_ranks_follow_the_levels_that_are_drawn() -> None:
    a = np.array([[1.0, 0.0, 0.0, 0.0]])
    shares = statistics.rank_shares([a, np.full((1, 4), 0.1)])
    assert shares.sum(axis=0) == pytest.approx([1, 1])
    assert shares.sum(axis=1) == pytest.approx([1, 1])
    # The middle half holds the one good level where it is drawn at least twice of four times.
    assert shares[0, 0] == pytest.approx(1 - 0.75**4 - 0.75**3, abs=0.04)
    assert math.isnan(statistics.rank_agreement(np.zeros((1, 5))))
    assert statistics.rank_agreement(np.array([[2.0, 3.0], [1.0, -math.inf]])) == 1


def test_profiles_are_shares_of_agents() -> None:
    rows = ranked("a", [0.9, 0.5, math.nan, 0.1]) + ranked("b", [0.0] * 4)
    rows = [r._replace(finite=math.isfinite(r.score)) for r in rows]
    ((key, panels),) = table.profiles(rows).items()
    assert key == ("small", "sampled") and list(panels) == [10]
    profile = panels[10]["a"]
    assert profile.thresholds[[0, -1]].tolist() == [0, 1]
    at = dict(zip(profile.thresholds.round(2).tolist(), profile.share.tolist(), strict=True))
    assert [at[x] for x in (0.0, 0.3, 0.6, 0.9)] == [0.75, 0.5, 0.25, 0.0]
    assert (profile.low <= profile.share).all(), "of one theta an interval over levels is claimed"
    several = [r._replace(digest=f"d{i}") for i in range(3) for r in rows]
    assert np.isnan(table.profiles(several)["small", "sampled"][10]["a"].low).all()
