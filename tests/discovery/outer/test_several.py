"""Environments that no one agent could live in, in one search."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from discovery.config import Config, ConfigError, CurriculumConfig, check
from discovery.inner.cohort import Lives
from discovery.inner.lifetime import Outcome
from discovery.outer import several as module
from discovery.outer.evolution import noise
from discovery.outer.search import Search, SearchState, make_search
from discovery.outer.several import gains, gathered, kinds
from discovery.outer.shaping import SHAPINGS

With = Callable[..., Config]


@pytest.fixture(scope="module")
def several(tiny: Config, with_evolution: With) -> Config:
    config = replace(tiny, env=f"{tiny.env},small", validation_levels=8)
    return with_evolution(config, pairs=8, group=4)


def generation(
    config: Config, patch: pytest.MonkeyPatch, scale: tuple[float, float] = (1.0, 1.0)
) -> tuple[Search, SearchState, SearchState, dict[str, Array], list[tuple[Lives, Array]]]:
    """One generation, and the lives of each kind with their scores."""
    seen: list[tuple[Lives, Array]] = []
    real = module.lived

    def spy(cohort: Any, source: Any, hyper: Any, lives: Lives, kind: str) -> Outcome:
        outcome = real(cohort, source, hyper, lives, kind)
        outcome = outcome._replace(final=outcome.final * scale[len(seen)])
        seen.append((lives, outcome.final[:, 0]))
        return outcome

    search = make_search(config)
    before = search.init()
    with patch.context() as inside:
        inside.setattr(module, "lived", spy)
        after, metrics = search.step(before)
    return search, before, after, metrics, seen


@pytest.mark.parametrize("shaping", ["pair", "centred_rank"])
def test_a_generation_of_two_kinds(
    several: Config, with_evolution: With, monkeypatch: pytest.MonkeyPatch, shaping: str
) -> None:
    config = with_evolution(several, shaping=shaping)
    search, before, after, metrics, seen = generation(config, monkeypatch)
    assert [lives.id.tolist() for lives, _ in seen] == [
        np.repeat(np.arange(4), 2).tolist(),
        np.repeat(np.arange(4, 8), 2).tolist(),
    ], "each pair lives in one kind"
    assert all((np.diff(lives.task.horizon) >= 0).all() for lives, _ in seen)
    assert metrics["steps"] == sum(float(lives.task.horizon.sum()) for lives, _ in seen) * 32
    assert metrics["nonfinite"] == 0
    parts = [float(jnp.mean(scores)) for _, scores in seen]
    assert np.isclose(metrics["fitness"], np.mean(parts))
    assert np.isclose(metrics["fitness_small"], parts[1])

    # The first step of Adam goes by the signs of the sum over all pairs of both kinds.
    weights = jnp.concatenate(
        [
            SHAPINGS[shaping](scores.reshape(-1, 2), lives.task.horizon[::2])
            for lives, scores in seen
        ]
    )
    root = jax.random.fold_in(before.key, before.generation)
    key, like = jax.random.split(root, 4)[0], search.theta(before)
    total = jax.tree.map(jnp.zeros_like, like)
    for j, (first, second) in enumerate(weights):
        z = noise(key, jnp.int32(j), like)
        total = jax.tree.map(lambda t, z, w=first - second: t + w * z, total, z)
    assert any(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(total))
    for new, old, slope in zip(
        *map(jax.tree.leaves, (search.theta(after), like, total)), strict=True
    ):
        clear = np.abs(slope) > 1e-4
        assert (np.sign(new - old)[clear] == np.sign(slope)[clear]).all()


@pytest.mark.parametrize("shaping", ["centred_rank", "group_z"])
def test_returns_of_two_kinds_are_not_compared(
    several: Config, with_evolution: With, monkeypatch: pytest.MonkeyPatch, shaping: str
) -> None:
    config = with_evolution(several, shaping=shaping)
    search, _, after, *_ = generation(config, monkeypatch)
    _, _, other, *_ = generation(config, monkeypatch, (1.0, 1024.0))
    for one, two in zip(*map(jax.tree.leaves, map(search.theta, (after, other))), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4)


def test_the_start_is_no_gain(several: Config) -> None:
    search = make_search(several)
    state = search.init()
    told = search.validate(state)
    assert told["validation"] == 0
    assert sorted(told) == sorted(["validation", *(f"validation_{n}" for n in kinds(several))])
    assert search.memory(state) > 0


def test_what_looks_alike_is_one_kind(several: Config, with_evolution: With) -> None:
    alike = replace(several, env="dense,chain,sparse")
    assert kinds(alike) == ("dense,sparse", "chain")
    ranked = with_evolution(alike, shaping="centred_rank")
    assert kinds(ranked) == ("dense", "chain", "sparse")
    check(ranked)
    assert kinds(replace(alike, env="small")) == ("small",)
    with pytest.raises(ConfigError, match="twice"):
        kinds(replace(alike, env="small,small"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"estimator": "gradient"}, "--estimator evolution without a curriculum"),
        ({"curriculum": CurriculumConfig("groove", buffer=64, antagonists=4)}, "without a curric"),
        ({"pairs": 9, "group": 6}, "try 6 pairs"),
        ({"pairs": 8, "group": 16}, "try 16 pairs"),
        ({"signal_every": 2}, "signal_every is for one environment"),
    ],
)
def test_what_two_kinds_cannot_do(
    several: Config, with_evolution: With, change: dict[str, Any], line: str
) -> None:
    own = {name: value for name, value in change.items() if hasattr(several, name)}
    config = with_evolution(replace(several, **own), **{k: change[k] for k in change.keys() - own})
    with pytest.raises(ConfigError, match=line):
        module.make_several_search(config)


def test_metrics_of_kinds() -> None:
    told = [{"steps": jnp.float32(1), "a": jnp.float32(2)}, {"steps": jnp.float32(5)}]
    assert {k: float(v) for k, v in gathered(told).items()} == {"steps": 6.0, "a": 2.0}


def test_gains_are_in_deviations_of_the_start() -> None:
    first = [jnp.array([0.0, 2.0]), jnp.array([10.0, 30.0])]
    told = gains(("a", "b"), [jnp.array([3.0, 3.0]), jnp.array([20.0, 20.0])], first)
    assert [float(told[k]) for k in ("validation", "validation_a", "validation_b")] == [1, 3, 20]


def test_a_start_that_finds_nothing_does_not_drown_the_rest() -> None:
    nothing, some = jnp.zeros(2), jnp.array([0.0, 2.0])
    told = gains(("a", "b"), [jnp.array([0.1, 0.1]), some], [nothing, some])
    np.testing.assert_allclose(told["validation"], 0.1 / 0.01 / 2, rtol=1e-5)
