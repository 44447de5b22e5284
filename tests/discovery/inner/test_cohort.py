import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from discovery.inner import cohort as cohorts
from discovery.inner.cohort import Lives, largest_divisor, make_cohort
from discovery.inner.lifetime import POINTS, Measure, Task
from learned_objectives.lpg import LPG
from learned_objectives.mirror import PPO

GROUP, CAPACITY = 2, 8
FINAL = Measure(jnp.int32(1), jnp.int32(2))


@pytest.fixture(scope="module")
def lives(make_level):
    """Eight lives of rising horizon, in pairs but for the last, which is the mean's."""
    levels = [make_level(length=1 + i % 3, goal=2.0, rest=0.1 * i) for i in range(CAPACITY)]
    return Lives(
        id=jnp.arange(CAPACITY, dtype=jnp.int32) // 2,
        sign=jnp.asarray([1.0, -1.0] * 3 + [1.0, 0.0]),
        task=Task(
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *levels),
            jnp.asarray([2, 2, 2, 3, 3, 4, 5, 6], jnp.int32),
        ),
        key=jax.random.split(jax.random.key(1), CAPACITY),
    )


def candidate(source, pair, sign):
    """Moved by another amount for every pair."""
    return jax.tree.map(lambda m: m + sign * 0.1 * (1.0 + pair), source)


@pytest.fixture(scope="module")
def cohort(learned):
    """The cohort on both devices, and a list with an entry for every candidate traced."""
    made = []

    def counted(source, pair, sign):
        made.append(1)
        return candidate(source, pair, sign)

    return make_cohort(learned.world, counted, GROUP, CAPACITY), made


@pytest.fixture(scope="module")
def everyone(learned, lives, cohort):
    return cohort[0].run(learned.theta, learned.hyper, lives, FINAL)


def part(tree, size):
    return jax.tree.map(lambda leaf: leaf[:size], tree)


def assert_bitwise(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_each_life_is_lived_as_it_would_be_alone(learned, lives, everyone):
    for i in range(CAPACITY):
        life = jax.tree.map(lambda leaf, i=i: leaf[i], lives)
        theta = candidate(learned.theta, life.id, life.sign)
        expected = learned.live(theta, learned.hyper, life.task, life.key, FINAL)
        np.testing.assert_allclose(everyone.final[i], expected.final, rtol=1e-5)
        np.testing.assert_allclose(
            everyone.metrics["entropy"][i], expected.metrics["entropy"], rtol=1e-4
        )
    assert everyone.finite.all()
    assert len(np.unique(everyone.metrics["entropy"])) == CAPACITY


def test_one_device_and_two_give_the_same_bits(learned, lives, cohort, everyone, monkeypatch):
    assert cohort[0].replicated.mesh.size == 2
    one = Mesh(np.asarray(jax.devices()[:1]), (cohorts.AXIS,))
    monkeypatch.setattr(cohorts, "population_mesh", lambda groups: one)
    alone = make_cohort(learned.world, candidate, GROUP, CAPACITY)
    assert alone.replicated.mesh.size == 1
    assert_bitwise(alone.run(learned.theta, learned.hyper, lives, FINAL), everyone)


def test_lives_one_after_another_are_those_lived_at_once(learned, lives):
    """The plain path and the fast one, here in one group of eight."""
    at_once, apart = (
        make_cohort(learned.world, candidate, CAPACITY, CAPACITY, abreast=abreast).run(
            learned.theta, learned.hyper, lives, FINAL
        )
        for abreast in (CAPACITY, 1)
    )
    np.testing.assert_allclose(apart.final, at_once.final, rtol=1e-5)
    np.testing.assert_allclose(apart.metrics["entropy"], at_once.metrics["entropy"], rtol=1e-4)


def test_which_lives_are_lived_by_themselves(learned, make_world, monkeypatch):
    small = learned.world
    assert cohorts.fastest(small, 4) == 4
    large = dataclasses.replace(small, environments=64, steps=cohorts.ROWS // 64)
    assert cohorts.fastest(large, 4) == 4, "tables, and a narrow objective"
    wide = dataclasses.replace(large, objective=LPG(width=cohorts.WIDE))
    assert cohorts.fastest(wide, 4) == 1
    assert cohorts.fastest(dataclasses.replace(wide, environments=8), 4) == 4
    network = large.env._replace(spec=large.env.spec._replace(num_states=None))
    assert cohorts.fastest(dataclasses.replace(large, env=network), 4) == 1
    minibatches = dataclasses.replace(large, env=network, objective=PPO(minibatches=8))
    assert cohorts.fastest(minibatches, 4) == 4, "products of a minibatch are small"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert cohorts.fastest(wide, 4) == 4


@pytest.mark.parametrize("size", [1, 3, 4, 5, 7])
def test_fewer_lives_give_the_same_scores_by_the_same_program(
    size, learned, lives, cohort, everyone
):
    program, made = cohort
    traced = len(made)
    some = program.run(learned.theta, learned.hyper, part(lives, size), FINAL)
    assert_bitwise(some, part(everyone, size))
    along = Measure(jnp.int32(POINTS), jnp.int32(1))
    program.run(learned.theta, learned.hyper, part(lives, size), along)
    assert len(made) == traced


def test_the_sign_zero_is_the_mean(learned, lives, cohort, everyone):
    """The last life is the mean's, whatever its pair; with another sign it is another life."""
    again = lives._replace(id=lives.id.at[7].set(1))
    outcome = cohort[0].run(learned.theta, learned.hyper, again, FINAL)
    assert_bitwise(outcome, everyone)
    moved = cohort[0].run(learned.theta, learned.hyper, again._replace(sign=jnp.ones(8)), FINAL)
    assert moved.metrics["entropy"][7] != everyone.metrics["entropy"][7]


def test_groups_past_the_last_life_are_not_lived(make_world, spy, lives):
    seen = []

    def told(source, pair, sign):
        jax.debug.callback(lambda pair: seen.append(int(pair)), pair)
        return source

    lives = lives._replace(id=jnp.arange(CAPACITY, dtype=jnp.int32))
    program = make_cohort(make_world(spy), told, GROUP, CAPACITY)
    # Two devices take a group each at a time; what fills the last ones is the last life again.
    for size, lived in [(2, 4), (3, 4), (5, 8), (8, 8)]:
        seen.clear()
        outcome = program.run((), spy.hyper(step=jnp.float32(1)), part(lives, size), FINAL)
        jax.block_until_ready(outcome)
        jax.effects_barrier()
        assert sorted(seen) == np.minimum(np.arange(lived), size - 1).tolist()


def test_sizes_that_do_not_fit(learned, lives, cohort):
    with pytest.raises(ValueError, match="no multiple of the group 3"):
        make_cohort(learned.world, candidate, 3, CAPACITY)
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), lives)
    for some, count in ((twice, 16), (part(lives, 0), 0)):
        with pytest.raises(ValueError, match=f"{count} lives do not fit a cohort of 1 to 8"):
            cohort[0].run(learned.theta, learned.hyper, some, FINAL)


@pytest.mark.parametrize(
    ("count", "most", "divisor"), [(12, 8, 6), (12, 12, 12), (7, 4, 1), (8, 3, 2), (1, 5, 1)]
)
def test_largest_divisor(count, most, divisor):
    assert largest_divisor(count, most) == divisor
