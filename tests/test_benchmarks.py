"""Benchmarks run at toy sizes, and reckon right; how fast anything is, is not asked here."""

import functools
import importlib.util
import math
from types import ModuleType

import jax
import numpy as np
import pytest

from discovery.outer.search import make_search


@functools.cache
def benchmark(name: str) -> ModuleType:
    """A file of the folder ``benchmarks``, which is no package."""
    spec = importlib.util.spec_from_file_location(name, f"benchmarks/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- scaling.py -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "devices", "updates"),
    [
        (2, 1, 2 * (1 + 2 + 4 + 9)),
        (4, 1, 4 * (2 + 9)),
        (8, 1, 8 * 9),
        (2, 2, 2 * 2 * (2 + 9)),  # 1 and 4 on the other device
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
    sizes = scaling.quick()
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
