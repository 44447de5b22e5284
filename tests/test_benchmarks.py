"""Benchmarks run at toy sizes, and reckon right; how fast anything is, is not asked here."""

import functools
import importlib.util
import math
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from discovery.config import ObjectiveConfig, preset
from discovery.inner import cohort, lifetime, rollout
from discovery.outer.search import make_search
from learned_objectives.lpg import LPG


@functools.cache
def benchmark(name: str) -> ModuleType:
    """A file of the folder ``benchmarks``, which is no package."""
    spec = importlib.util.spec_from_file_location(name, f"benchmarks/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks for the module of its annotations
    spec.loader.exec_module(module)
    return module


# --- scaling.py -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "devices", "updates"),
    [
        (2, 1, 2 * (1 + 2 + 4 + 9)),
        (4, 1, 4 * (2 + 9)),
        (8, 1, 8 * 9),
        (2, 2, 2 * 2 * (1 + 9)),  # 2 and 4 on the other device
        (4, 2, 2 * 4 * 9),
        (8, 2, 2 * 8 * 9),  # one group keeps one device busy
    ],
)
def test_bound_of_a_mix_by_hand(group: int, devices: int, updates: int) -> None:
    bound = benchmark("scaling").bound
    horizons = np.array([[4, 1, 9, 2], [3, 3, 3, 3]])
    alike = devices if group * devices > 8 else 1
    np.testing.assert_allclose(bound(horizons, group, devices), [updates / 32, alike])


def test_fits_find_what_was_put_in() -> None:
    scaling = benchmark("scaling")
    rows = [
        {"size": n, "seconds": [9.0, 0.5 + 0.25 * (n - 1), 0.1], "short": [0.5]}
        for n in (5, 9, 17, 33)
    ]
    fit = scaling.fit("horizon", rows)
    assert fit.exponent < 0.95
    np.testing.assert_allclose(fit[1:], [1, 0.25, 0.25, 0], atol=1e-9)
    squares = [{"size": n, "seconds": [0.5 + n**2], "short": [0.5]} for n in (1, 2, 4)]
    assert scaling.fit("pairs", squares).alone == pytest.approx(2)
    assert math.isnan(scaling.exponent(np.array([1.0, 2.0]), np.array([0.0, 1.0])))
    alike = [{"updates": u, "seconds": [1 + 2 * u]} for u in (10, 20)]
    mix = {"alike": alike, "mixed": [{"updates": 15, "seconds": 62.0}]}
    np.testing.assert_allclose(np.hstack(scaling.ratios(mix)), [1, 2, 2])


def test_scaling_at_toy_sizes() -> None:
    scaling = benchmark("scaling")
    # A rule and an environment of which programs are soon compiled.
    rule = "tests/data/own_objective.py:Reinforce"
    mix = replace(preset("smoke"), env="chain", objective=ObjectiveConfig(rule=rule))
    sizes = scaling.quick(mix)
    found = scaling.measure(sizes)
    for axis, rows in found["axes"].items():
        assert math.isfinite(scaling.fit(axis, rows).exponent)
        assert all(len(row["seconds"]) == len(row["short"]) == sizes.rounds for row in rows)
    needed = {axis: [row["bytes"] for row in rows] for axis, rows in found["axes"].items()}
    assert len(set(needed["horizon"])) == 1
    assert 0 < needed["horizon"][0] == needed["pairs"][-1]  # one program
    assert needed["environments"][0] < needed["environments"][-1]
    assert len({row["arrays"] for row in found["process"]}) == 1

    (mix,) = found["mixes"]
    # The horizons a generation had, drawn again, are those of its steps.
    search = make_search(sizes.mix)
    _, metrics = search.step(search.step(search.init())[0])
    batch = sizes.mix.life.environments * sizes.mix.life.rollout
    assert [row["updates"] for row in mix["mixed"]] == [float(metrics["steps"]) / batch]
    assert all(1 <= row["bound"] <= jax.device_count() * 4 for row in mix["mixed"])

    for part in (scaling.tables(found), scaling.arithmetic(sizes.mix.horizon)):
        for lines in map(str.splitlines, part.split("\n\n")):
            assert len({line.count("|") for line in lines}) == 1
    assert len(scaling.picture(found).axes) == 4


# --- parts.py ---------------------------------------------------------------------------------


def test_operations_and_bytes_by_hand() -> None:
    """Of f32[2, 3] @ f32[3, 3] in loops, a look-up and a sum."""
    count = benchmark("parts").count
    x, w = jnp.ones((2, 3)), jnp.ones((3, 3))
    product, read_and_made = 2 * 2 * 3 * 3, 4 * (6 + 9 + 6)

    def scan(x: Array, w: Array) -> Any:
        return jax.lax.scan(lambda x, y: (x @ w, y + 1), x, jnp.ones((5, 7)))

    series = 2 * 4 * 5 * 7
    found = count(jax.make_jaxpr(jax.jit(scan))(x, w))
    assert found == (5 * (product + 7), 5 * (read_and_made + 2 * 4 * 6) + series)

    def loop(x: Array, w: Array) -> Any:
        return jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ w, x)

    traced = jax.make_jaxpr(loop)(x, w)
    assert count(traced, trips=4) == (4 * product, 4 * (read_and_made + 2 * 4 * 6))
    with pytest.raises(ValueError, match="trips"):
        count(traced)

    def look_up(table: Array, rows: Array) -> Array:
        return table.at[rows].get(mode="clip")

    table, rows = jnp.ones((100, 8)), jnp.arange(3)
    assert count(jax.make_jaxpr(look_up)(table, rows))[1] == 2 * 4 * 3 * 8
    written = count(jax.make_jaxpr(lambda t: t.at[rows].add(jnp.ones((3, 8)), mode="clip"))(table))
    assert written[1] == 2 * 4 * 3 * 8
    assert count(jax.make_jaxpr(jnp.sum)(x)) == (6, 0)
    assert count(jax.make_jaxpr(lambda i: i + 1)(rows)) == (0, 0)


def rates_of(lines: list[str]) -> dict[str, list[str]]:
    """Cells of a table by the name in its first column."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    assert len({len(row) for row in rows}) == 1
    return {row[0]: row[1:] for row in rows[2:]}


OF_ANY = {"birth", "environment", "agent, acting", "objective network", "updates", "the rest"}


@pytest.mark.parametrize(
    ("family", "strategy", "others"),
    [
        ("ta-lpg", "paired", {"evaluation", "evolution strategy: candidates"}),
        pytest.param(
            *("ta-lpo", "Open_ES", {"evaluation", "evolution strategy: tell"}),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("meta", "paired", {"gradient and critics", "outer Adam"}), marks=pytest.mark.slow
        ),
    ],
)
def test_parts_at_toy_sizes(family: str, strategy: str, others: set[str]) -> None:
    rows = rates_of(benchmark("parts").profile(family, strategy, 1, True))
    assert rows.keys() >= OF_ANY | others
    for name in ("birth", "environment", "objective network"):  # no differences
        assert float(rows[name][0]) > 0


def test_strategies_at_toy_sizes() -> None:
    rows = rates_of(benchmark("parts").strategies(["paired", "Open_ES"], 1, True))
    assert rows.keys() == {"paired", "Open_ES"}
    assert all(float(row[-1]) > 0 for row in rows.values()), "together"


# --- cell.py ----------------------------------------------------------------------------------


def test_forms_of_the_cell_agree() -> None:
    """With each other, and with the cell of the objective."""
    cell = benchmark("cell")
    size = cell.Size(candidates=4, updates=2, steps=5, environments=3, width=8)
    found = {name: np.asarray(form()) for name, form in cell.forms(size).items()}
    first = found["all candidates at once, float32"]
    assert first.shape == (4, 2, 8)
    for name, outputs in found.items():
        # bfloat16 keeps 8 bits: products of numbers below 1 are off by about 2^-9 of theirs.
        np.testing.assert_allclose(outputs, first, atol=1e-2 if "bfloat16" in name else 1e-5)
        assert ("bfloat16" in name) == (not np.allclose(outputs, first, atol=1e-5))

    one, order = cell.inputs(size)
    one = jax.tree.map(lambda leaf: leaf[0], one)
    # Its input product is by the identity; last step first, so the order is turned round.
    theta = {"wx": jnp.eye(24), "bx": jnp.zeros(24), "wh": one.wh, "bh": one.bh}
    steps = order[0][::-1]
    hidden = LPG(width=8)._recur(theta, one.read[steps], one.carry_on[steps, :, 0] == 0)
    np.testing.assert_allclose(hidden.mean(axis=(0, 1)), first[0, 0], atol=1e-6)


def test_a_generation_beside_its_cell_at_toy_sizes() -> None:
    cell = benchmark("cell")
    speeds = cell.compare(cell.toy(), 2, 2)  # shares the generation of the family above
    assert {len(found) for found in speeds.values()} == {2}
    rows = rates_of(cell.table(speeds))
    assert rows.keys() == speeds.keys() and rows[cell.GENERATION][-1] == "1.000 (1.000 - 1.000)"


# --- levers.py --------------------------------------------------------------------------------

EXACT = ("groups of similar horizon", "evaluation stops with its episodes", "one device a core")
"""Levers that change nothing but where and how long something is computed."""


def test_levers_of_the_same_arithmetic_are_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend("benchmarks")
    levers = benchmark("levers")
    chosen = [lever for lever in levers.LEVERS if lever.name in EXACT]
    assert len(chosen) == len(EXACT)
    meshes, whole, orders = [], [], []
    made, told = cohort.make_cohort, lifetime.episode_return

    def watched(*arguments: Any) -> Any:
        found = made(*arguments)
        meshes.append(found.replicated.mesh.size)

        def run(source: Any, hyper: Any, lives: Any, measure: Any) -> Any:
            orders.append(bool((np.diff(lives.task.horizon) >= 0).all()))
            return found.run(source, hyper, lives, measure)

        return found._replace(run=run)

    def evaluated(*arguments: Any, **options: Any) -> Any:
        whole.append(options.get("whole", False))
        return told(*arguments, **options)

    monkeypatch.setattr(cohort, "make_cohort", watched)
    monkeypatch.setattr(rollout, "episode_return", evaluated)
    found = levers.measure_levers(levers.case("cpu", quick=True), 1, chosen)
    assert [one.apart for one in found] == [0, 0, 0]
    assert all(ratio > 0 for one in found for ratio in one.ratios)
    assert len(levers.table(found)) == 2 + len(EXACT)
    # Each other way was indeed another.
    assert meshes == [2, 2, 2, 1]
    assert True in whole
    assert orders.count(False) == 2  # while it compiles, and timed


@pytest.mark.slow
@pytest.mark.parametrize(("case", "count"), [("cpu", 10), ("ppo", 7)])
def test_every_lever_agrees(case: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lives of a few updates, where no rounding has turned an action yet."""
    monkeypatch.syspath_prepend("benchmarks")
    levers = benchmark("levers")
    found = levers.measure_levers(levers.case(case, quick=True), 1, levers.LEVERS)
    assert len(found) == count
    for one in found:
        if one.lever.exact:
            assert one.apart <= (0.1 if "bfloat16" in one.lever.name else 1e-5), one.lever.name
        else:
            assert one.apart > 0
