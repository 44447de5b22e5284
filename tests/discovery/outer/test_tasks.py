"""Horizons follow their law; a pair's task is its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from discovery.config import HorizonConfig
from discovery.inner.lifetime import Task
from discovery.outer.tasks import paired_lives, sample_horizons, sample_tasks, spread_horizons

LAW = HorizonConfig(shortest=10, longest=250)
# Jitted: one program, where every operation would be one.
horizons = jax.jit(sample_horizons, static_argnums=(1, 2))
tasks = jax.jit(sample_tasks, static_argnums=(1, 2, 3, 4))
lives = jax.jit(paired_lives, static_argnums=2)


def test_horizons_are_sorted_whole_numbers_inside_their_bounds() -> None:
    for seed in range(5):
        drawn = np.asarray(horizons(jax.random.key(seed), LAW, 512))
        assert drawn.dtype == np.int32
        assert (np.diff(drawn) >= 0).all()
        assert 10 <= drawn[0] < drawn[-1] <= 250


def test_horizons_are_log_uniform() -> None:
    count = 100_000
    drawn = np.asarray(horizons(jax.random.key(1), LAW, count))
    # E[N] = (b - a) / ln(b / a); the standard error of this mean is 0.2.
    assert drawn.mean() == pytest.approx(240 / np.log(25), abs=1)
    # P(N <= k) = ln((k + 1/2) / a) / ln(b / a), against Kolmogorov's bound at one in 10,000.
    k = np.arange(10, 251)
    exact = np.log(np.minimum(k + 0.5, 250) / 10) / np.log(25)
    found = np.searchsorted(drawn, k, side="right") / count
    assert np.abs(found - exact).max() < 2.23 / np.sqrt(count)


def test_a_fixed_horizon_is_the_same_for_all() -> None:
    law = HorizonConfig(shortest=50, longest=50)
    assert (horizons(jax.random.key(0), law, 16) == 50).all()
    assert (spread_horizons(law, 3) == 50).all()


def test_spread_horizons_are_quantiles_of_the_law() -> None:
    # 10 * 25^(1/8), 25^(3/8), 25^(5/8), 25^(7/8): 14.95, 33.44, 74.77, 167.18
    assert spread_horizons(LAW, 4).tolist() == [15, 33, 75, 167]
    assert spread_horizons(HorizonConfig(1, 1000), 1).tolist() == [32]


def level(key: Array) -> dict[str, Array]:
    return {"wind": jax.random.normal(key, (2,))}


def test_tasks_are_a_function_of_the_key() -> None:
    first, second = (tasks(jax.random.key(3), level, LAW, 4) for _ in range(2))
    other = tasks(jax.random.key(4), level, LAW, 4)
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))
    assert not np.array_equal(first.level["wind"], other.level["wind"])
    assert not np.array_equal(first.horizon, other.horizon)


def test_the_level_of_a_pair_does_not_depend_on_how_many_pairs_there_are() -> None:
    few, many = (tasks(jax.random.key(3), level, LAW, pairs) for pairs in (3, 7))
    assert np.array_equal(few.level["wind"], np.asarray(many.level["wind"])[:3])
    assert len(np.unique(many.level["wind"])) == 14


@pytest.mark.parametrize("shared", [True, False])
def test_partners_share_a_task_and_perhaps_their_random_numbers(shared: bool) -> None:
    given = Task(level=jnp.array([5.0, 6.0, 7.0]), horizon=jnp.array([1, 2, 4]))
    found = lives(given, jax.random.key(0), shared)
    assert found.id.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.sign.tolist() == [1, -1, 1, -1, 1, -1]
    assert found.task.level.tolist() == [5, 5, 6, 6, 7, 7]
    assert found.task.horizon.tolist() == [1, 1, 2, 2, 4, 4]
    keys = np.asarray(jax.random.key_data(found.key))
    distinct, partners = np.unique(keys, axis=0), keys.reshape(3, 2, -1)
    assert len(distinct) == (3 if shared else 6)
    assert (partners[:, 0] == partners[:, 1]).all() == shared


def test_all_pairs_share_one_task() -> None:
    one = tasks(jax.random.key(3), level, LAW, 5, True)
    alone = tasks(jax.random.key(3), level, LAW, 1, False)
    assert one.level["wind"].shape == (5, 2)
    assert (one.level["wind"] == alone.level["wind"]).all()
    assert one.horizon.tolist() == alone.horizon.tolist() * 5
    # Horizons still follow their law: they differ from generation to generation.
    several = {int(tasks(jax.random.key(k), level, LAW, 5, True).horizon[0]) for k in range(8)}
    assert len(several) > 4
