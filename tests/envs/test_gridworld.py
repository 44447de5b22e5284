"""The grid world against a plain-Python account of its rules, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.gridworld import GridWorld, Level, State

MOVES = [(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)]


class Plain:
    """The rules of the grid world, one object at a time, with the uniforms handed in."""

    def __init__(self, world, level):
        self.world, self.level, self.side = world, level, world.side
        size = int(level.size)
        everywhere = [(row, column) for row in range(size) for column in range(size)]
        self.free = [r * self.side + c for r, c in everywhere if not level.walls[r * self.side + c]]

    def begin(self, noise):
        self.position, self.time, self.cells = int(self.level.start), 0, {}
        for i in np.flatnonzero(self.level.used):
            self.cells[int(i)] = self.cell(i, noise)

    def cell(self, i, noise):
        if not self.world.random:
            return int(self.level.objects[i])
        empty = [c for c in self.free if c != self.position and c not in self.cells.values()]
        return empty[int(np.floor(noise[i] * np.float32(len(empty))))]

    def step(self, noise, action):
        level, slots = self.level, self.world.slots
        before = set(self.cells)
        row, column = divmod(self.position, self.side)
        row, column = row + MOVES[action][0], column + MOVES[action][1]
        if 0 <= column < self.side and row * self.side + column in self.free:
            self.position = row * self.side + column
        collected = [i for i in before if self.cells[i] == self.position]
        for i in collected:
            del self.cells[i]
        reward = sum(float(level.rewards[i]) for i in collected)
        terminated = noise[0] < sum(level.p_terminate[i] for i in collected)
        for i in np.flatnonzero(level.used):
            if i not in before and noise[1 + i] < level.p_respawn[i]:
                self.cells[int(i)] = self.cell(i, noise[1 + slots :])
        self.time += 1
        truncated = self.time >= level.max_steps_in_episode and not terminated
        return reward, bool(terminated), bool(truncated)

    def see(self):
        if not self.world.random:
            return self.position + self.side**2 * sum(2**i for i in self.cells)
        planes = np.zeros((self.side, self.side, self.world.planes), np.float32)
        planes[divmod(self.position, self.side)][0] = 1
        for i, cell in self.cells.items():
            planes[divmod(cell, self.side)][1 + self.world.types[i]] = 1
        return planes


def run(env, levels, key, steps):
    """Random steps on each level: their uniforms and actions, and transitions ``[L, T]``."""
    count = levels.size.shape[0]
    start, noise = jax.random.split(key)
    noise = env.draw(noise, (count, steps))
    actions = np.random.default_rng(0).integers(0, 5, (count, steps))

    def one(key, level, noise, actions):
        def go(state, inputs):
            step = env.step(inputs[0], state, inputs[1], level)
            return step.state, step

        return jax.lax.scan(go, env.reset(key, level)[1], (noise, actions))[1]

    seen = jax.jit(jax.vmap(one))(jax.random.split(start, count), levels, noise, actions)
    return jax.device_get((noise, actions, seen))


@pytest.mark.parametrize("name", ["small", "rand_small"])
def test_every_step_agrees_with_the_rules(name, sampled):
    env = envs.make(name)
    world = env.gym
    count, steps = 8, 150
    levels = jax.tree.map(lambda leaf: leaf[:count], sampled(name))
    # Short episodes, many endings of both kinds, many returns.
    levels = levels.replace(
        max_steps_in_episode=np.arange(count, dtype=np.int32) * 2 + 3,
        p_terminate=np.full_like(levels.p_terminate, 0.4),
        p_respawn=np.full_like(levels.p_respawn, 0.4),
    )
    noise, actions, seen = run(env, levels, jax.random.key(1), steps)
    endings = np.zeros(2, int)
    for j in range(count):
        level = jax.tree.map(lambda leaf, j=j: np.asarray(leaf[j]), levels)
        plain = Plain(world, level)
        # The first objects of the random family come from another key: begin at the first reset.
        began = not world.random
        if began:
            plain.begin(())
        for t in range(steps):
            if began:
                reward, terminated, truncated = plain.step(noise[j, t], actions[j, t])
                assert seen.reward[j, t] == pytest.approx(reward, abs=1e-6)
                assert (seen.terminated[j, t], seen.truncated[j, t]) == (terminated, truncated)
                np.testing.assert_array_equal(seen.final_observation[j, t], plain.see())
                endings += terminated, truncated
            if seen.terminated[j, t] or seen.truncated[j, t]:
                plain.begin(noise[j, t, world.step_width :])
                began = True
            if began:
                np.testing.assert_array_equal(seen.observation[j, t], plain.see())
    assert (endings > 10).all()


def corridor(**changes):
    """Four free cells in a row of a 4 x 4, the agent at the left, an object at the right."""
    level = Level(
        size=jnp.int32(4),
        walls=jnp.arange(16) >= 4,
        start=jnp.int32(0),
        objects=jnp.array([3, -1]),
        used=jnp.array([True, False]),
        rewards=jnp.array([1.0, 0.0]),
        p_terminate=jnp.zeros(2),
        p_respawn=jnp.zeros(2),
        max_steps_in_episode=jnp.int32(9),
    )
    return level.replace(**changes)


WORLD = GridWorld("corridor", 4, (0, 1), corridor)
STEP = jax.jit(WORLD.transition)


def walk(level, actions, noise=(0.5, 0.5, 0.5)):
    state = WORLD.start(jnp.zeros(0), level)
    steps = []
    for action in actions:
        steps.append(STEP(jnp.array(noise), state, jnp.int32(action), level))
        state = steps[-1].state
    return jax.tree.map(lambda *leaves: np.stack(leaves), *steps)


UP, DOWN, LEFT, RIGHT, STAY = range(5)


def test_walls_and_edges_leave_the_agent_in_place():
    positions = walk(corridor(), [LEFT, UP, DOWN, RIGHT, DOWN]).state.position
    assert positions.tolist() == [0, 0, 0, 1, 1]


def test_a_smaller_level_ends_where_its_size_says():
    level = corridor(size=jnp.int32(2), walls=jnp.zeros(16, bool), objects=jnp.array([5, -1]))
    positions = walk(level, [RIGHT, RIGHT, DOWN, DOWN, RIGHT]).state.position
    assert positions.tolist() == [1, 1, 5, 5, 5]


def test_an_object_that_returns_under_the_agent_is_collected_by_staying():
    seen = walk(corridor(p_respawn=jnp.array([1.0, 0.0])), [RIGHT] * 3 + [STAY] * 3)
    # Collected at once, absent for that step, back after the next, collected by staying.
    assert seen.reward.tolist() == [0, 0, 1, 0, 1, 0]
    assert seen.state.exists.tolist() == [1, 1, 0, 1, 0, 1]
    assert seen.observation.tolist() == [17, 18, 3, 19, 3, 19]


def test_probabilities_of_ending_add_up():
    both = {"objects": jnp.array([1, 1]), "used": jnp.array([True, True])}
    chances = jnp.array([0.3, 0.4])
    level = corridor(**both, p_terminate=chances, rewards=jnp.array([0.25, 0.5]))
    for u, terminated in [(0.69, True), (0.71, False)]:
        seen = walk(level, [RIGHT], noise=(u, 0.5, 0.5))
        assert seen.terminated.tolist() == [terminated]
        assert seen.reward.tolist() == [0.75]
    certain = level.replace(p_terminate=chances * 2)
    assert walk(certain, [RIGHT], noise=(0.9999999, 0.5, 0.5)).terminated.all()


def test_termination_and_truncation_are_apart_and_the_last_observation_is_kept():
    level = corridor(p_terminate=jnp.array([1.0, 0.0]), max_steps_in_episode=jnp.int32(3))
    seen = walk(level, [RIGHT] * 3 + [RIGHT, RIGHT, STAY])
    # The first life terminates at its last step, which is then no truncation.
    assert seen.terminated.tolist() == [False, False, True, False, False, False]
    assert seen.truncated.tolist() == [False, False, False, False, False, True]
    assert seen.final_observation.tolist() == [17, 18, 3, 17, 18, 18]
    assert seen.observation.tolist() == [17, 18, 16, 17, 18, 16]
    assert seen.state.time.tolist() == [1, 2, 0, 1, 2, 0]


def test_one_hot_and_index_say_the_same(sampled):
    table, vector = envs.make("small"), envs.make("small", one_hot=True)
    level = jax.tree.map(lambda leaf: leaf[0], sampled("small"))
    index, state = table.gym.reset(jax.random.key(0), level)
    observation, _ = vector.gym.reset(jax.random.key(0), level)
    assert observation.shape == vector.spec.observation_shape == (table.spec.num_states,)
    assert int(observation.argmax()) == int(index) and float(observation.sum()) == 1
    assert state.objects == ()


def test_random_objects_fall_on_every_free_cell_alike(sampled):
    env = envs.make("rand_small")
    level = jax.tree.map(lambda leaf: leaf[0], sampled("rand_small"))
    count = 4000
    noise = np.random.default_rng(0).random((count, env.gym.reset_width), np.float32)
    objects = np.asarray(jax.jit(jax.vmap(env.gym.start, (0, None)))(noise, level).objects)
    free = set(range(49)) - {9, 25, int(level.start)}
    # Expected 4000 / 46 = 87 a cell and slot, standard deviation 9.2: six of them.
    for slot in objects.T:
        found = np.bincount(slot, minlength=49)
        assert set(np.flatnonzero(found)) == free
        assert np.abs(found[list(free)] - count / len(free)).max() < 56
    assert (np.sort(objects)[:, 1:] != np.sort(objects)[:, :-1]).all()


def test_random_objects_come_back_only_where_absent(sampled):
    env = envs.make("rand_small")
    level = jax.tree.map(lambda leaf: leaf[0], sampled("rand_small"))
    level = level.replace(start=np.int32(0), p_respawn=np.ones(4))
    state = State(
        position=jnp.int32(0),
        exists=jnp.int32(0b0101),
        time=jnp.int32(0),
        objects=jnp.arange(4) + 2,
    )
    noise = np.random.default_rng(0).random((200, env.gym.step_width), np.float32)
    advance = jax.jit(jax.vmap(env.gym.advance, (0, None, None, None)))
    after, _, _ = advance(noise, state, jnp.int32(STAY), level)
    objects = np.asarray(after.objects)
    assert (after.exists == 0b1111).all()
    assert (objects[:, [0, 2]] == [2, 4]).all()
    assert not np.isin(objects[:, [1, 3]], [0, 2, 4, 9, 25]).any()
    assert (objects[:, 1] != objects[:, 3]).all()
