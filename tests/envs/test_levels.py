"""What every family's levels are like, and sets of levels by name."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.levels import FAMILIES, level_hash, level_set, reachable, sample_level
from envs.mazes import MAZES

COUNT = 64
# From the specification: side, slots, range of sizes, of used slots, of limits, most walls.
TABLE = {
    "dense": (11, 4, (11, 11), (4, 4), (500, 500), 0),
    "sparse": (13, 2, (13, 13), (2, 2), (50, 50), 0),
    "long": (11, 4, (11, 11), (4, 4), (1000, 1000), 0),
    "longer": (9, 5, (9, 9), (5, 5), (2000, 2000), 7),
    "long_dense": (11, 4, (11, 11), (4, 4), (2000, 2000), 17),
    "rand_dense": (11, 4, (11, 11), (4, 4), (500, 500), 0),
    "rand_long": (11, 4, (11, 11), (4, 4), (1000, 1000), 0),
    "rand_small": (7, 4, (7, 7), (4, 4), (500, 500), 2),
    "rand_sparse": (7, 3, (7, 7), (3, 3), (50, 50), 0),
    "rand_very_dense": (11, 1, (11, 11), (1, 1), (2000, 2000), 0),
    "small": (6, 3, (4, 6), (1, 3), (20, 100), 7),
    "medium": (8, 4, (6, 8), (2, 4), (100, 250), 10),
    "large": (10, 5, (8, 10), (2, 5), (250, 750), 15),
    "all": (10, 5, (4, 10), (1, 5), (20, 750), 15),
    "mazes": (13, 3, (13, 13), (3, 3), (25, 50), 169),
}


def distances(walls, start):
    """Steps from the start to every free cell that can be reached, by a queue."""
    found, queue = {start: 0}, [start]
    for row, column in queue:
        for near in [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]:
            inside = 0 <= near[0] < len(walls) and 0 <= near[1] < len(walls)
            if inside and not walls[near] and near not in found:
                found[near] = found[row, column] + 1
                queue.append(near)
    return found


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_levels_are_as_the_table_says(name, sampled):
    side, slots, sizes, used, limits, most = TABLE[name]
    batch = sampled(name)
    assert batch.walls.shape == (COUNT, side**2) and batch.objects.shape == (COUNT, slots)
    for found, (low, high) in [
        (batch.size, sizes),
        (batch.used.sum(1), used),
        (batch.max_steps_in_episode, limits),
    ]:
        assert found.min() >= low and found.max() <= high
        assert low == high or found.min() < found.max()
    assert set(FAMILIES) == set(TABLE) and batch.walls.sum(1).max() <= most
    for j in range(COUNT):
        level = jax.tree.map(lambda leaf, j=j: leaf[j], batch)
        walls = level.walls.reshape(side, side)
        assert not walls[level.size :].any() and not walls[:, level.size :].any()
        cells = [int(cell) for cell in (level.start, *level.objects[level.used])]
        places = [divmod(cell, side) for cell in cells]
        assert len(set(cells)) == len(cells)
        assert all(max(place) < level.size and not walls[place] for place in places)
        assert (level.objects[~level.used] == -1).all()
        if not FAMILIES[name].random:
            steps = distances(walls[: level.size, : level.size], places[0])
            good = [p for p, r in zip(places[1:], level.rewards[level.used], strict=True) if r > 0]
            assert any(steps.get(p, np.inf) <= level.max_steps_in_episode for p in good)


def test_objects_that_do_not_fit_are_drawn_again():
    crowded = FAMILIES["small"]._replace(sizes=(3, 3), walls=20)
    keys = jax.random.split(jax.random.key(0), 64)
    batch = jax.device_get(jax.jit(jax.vmap(partial(sample_level, crowded)))(keys))
    for start, objects, used, walls in zip(
        batch.start, batch.objects, batch.used, batch.walls, strict=True
    ):
        cells = np.append(objects[used], start)
        assert not walls[cells].any() and (np.array(divmod(cells, 6)) < 3).all()


def test_fixed_families_have_the_numbers_of_the_table(sampled):
    dense, longer, drawn = (sampled(name) for name in ("dense", "longer", "small"))
    np.testing.assert_array_equal(dense.rewards[0], np.float32([1, 1, -1, -1]))
    np.testing.assert_array_equal(dense.p_terminate[0], np.float32([0, 0, 0.5, 0]))
    np.testing.assert_array_equal(dense.p_respawn[0], np.float32([0.05, 0.05, 0.1, 0.5]))
    rows, columns = np.nonzero(longer.walls[0].reshape(9, 9))
    assert rows.tolist() == [0, 2, 3, 4, 5, 6, 8] and set(columns) == {4}
    # The same in law, each placed anew.
    assert len(np.unique(dense.start)) > 20
    assert (drawn.rewards[:, 0] >= 0).all() and (drawn.rewards[:, 1:] < 0).any()
    assert drawn.p_terminate.min() >= 0.0099 and drawn.p_terminate.max() <= 1.0
    assert drawn.p_respawn.min() >= 0.00099 and drawn.p_respawn.max() <= 0.1001


def test_reach_ends_at_walls_and_at_the_step_limit(sampled):
    level = jax.tree.map(lambda leaf: leaf[0], sampled("mazes"))
    serpent = np.array([list(row) for row in MAZES["serpent"]]) == "#"
    level = level.replace(walls=serpent.ravel(), start=np.int32(0))
    reach = jax.jit(reachable)
    steps = distances(serpent, (0, 0))
    for limit in (0, 5, 200):
        found = reach(level.replace(max_steps_in_episode=limit)).reshape(13, 13)
        assert {tuple(map(int, c)) for c in np.argwhere(found)} == {
            cell for cell, far in steps.items() if far <= limit
        }
    cut = level.replace(walls=level.walls | (np.arange(169) == 4), max_steps_in_episode=200)
    assert int(reach(cut).sum()) == 4


@pytest.mark.parametrize("name", sorted(MAZES))
def test_mazes_are_connected(name):
    rows = MAZES[name]
    assert len(rows) == 13 and all(len(row) == 13 and set(row) <= set("#.") for row in rows)
    walls = np.array([list(row) for row in rows]) == "#"
    start = tuple(map(int, np.argwhere(~walls)[0]))
    assert walls.any() and len(distances(walls, start)) == (~walls).sum()


def test_mazes_differ():
    assert len(set(MAZES.values())) == len(MAZES) >= 6


def test_a_level_set_is_the_beginning_of_a_larger_one():
    env = envs.make("chain")
    few, many = level_set(env, "validation", 6, min_gap=2.0), level_set(env, "validation", 12, 2.0)
    first = jax.tree.map(lambda leaf: leaf[:6], (many.levels, many.bounds))
    assert level_hash((few.levels, few.bounds)) == level_hash(first)
    for found in (few, many):
        rand, opt = found.bounds
        assert (opt - rand >= 2.0).all() and found.redraws > 0
    assert few.redraws < many.redraws


def test_streams_differ_and_train_is_not_chosen():
    env = envs.make("chain")
    sets = {stream: level_set(env, stream, 6) for stream in ("train", "validation", "test")}
    assert len({level_hash(found.levels) for found in sets.values()}) == 3
    assert sets["train"].redraws == 0 and sets["train"].bounds is None
    with pytest.raises(ValueError, match="unknown stream 'valid'"):
        level_set(env, "valid", 6)
    with pytest.raises(ValueError, match="chain: 0 of 600 levels"):
        level_set(env, "test", 6, min_gap=1000.0)


def test_validation_levels_of_a_family():
    found = level_set(envs.make("small"), "validation", 128)
    rand, opt = found.bounds
    assert (opt - rand >= 0.05).all()
    # About 4 % are passed over.
    assert 0 < found.redraws < 20
    assert found.levels.walls.shape == (128, 36)


def test_the_hash_sees_values_types_and_names():
    tree = {"a": jnp.arange(3), "b": jnp.ones(2)}
    others = [
        {**tree, "a": jnp.arange(3).at[0].set(9)},
        {**tree, "b": jnp.ones(2, jnp.int32)},
        {**tree, "b": jnp.ones((2, 1))},
        {"a": tree["a"], "c": tree["b"]},
    ]
    assert level_hash(tree) == level_hash(jax.tree.map(np.array, tree))
    assert len({level_hash(other) for other in [tree, *others]}) == 5
