"""Numbers that are none, or as large as can be: ranked worst, counted, kept, and found."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from discovery.config import Config, GradientConfig, HorizonConfig, WindowConfig
from discovery.outer import autopsy
from discovery.outer.search import make_search
from discovery.runs import logs
from discovery.runs.errors import RunError
from discovery.runs.run import Run, evolve
from learned_objectives.library import load
from tests.faults.test_hosts import HOSTS

DATA = Path(__file__).parents[1] / "data"

SMALL = replace(HOSTS, generations=2, log_every=1, checkpoint_every=1)
WILD = replace(
    SMALL,
    agent=replace(SMALL.agent, policy_rate=1.0, optimizer="sgd", clip=float("inf")),
    evolution=replace(SMALL.evolution, sigma=1e18),
)
"""Perturbations so large that some agents do not stay finite."""


def go(config: Config, folder: Path, **options: Any) -> tuple[Run, str]:
    out = io.StringIO()
    return evolve(config, folder, console=Console(file=out, width=400), **options), out.getvalue()


# --- some candidates --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wild") / "run"
    _, said = go(WILD, folder, keep_nonfinite=True)
    assert f"not finite, kept in {folder}/nonfinite/1.safetensors" in said
    return folder


def test_the_search_goes_on_without_them(wild: Path) -> None:
    rows = logs.read(wild / "metrics.jsonl")
    lives = 2 * WILD.evolution.pairs
    assert 0 < rows[1]["nonfinite"] < lives
    assert np.isfinite(rows[1]["fitness"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(load(wild).theta))


def test_what_is_kept_is_what_lived(wild: Path) -> None:
    """The parameters are those of the candidates that the search says were not finite."""
    search = make_search(WILD)
    found = autopsy.lost(search, search.init(), 99)
    rows = logs.read(wild / "metrics.jsonl")
    assert len(found) == rows[1]["nonfinite"]
    arrays = load_file(wild / "nonfinite" / "1.safetensors")
    told = json.loads((wild / "nonfinite" / "1.json").read_text())
    assert list(told) == [one.name for one in found[:16]]
    for one in found[:16]:
        fault = autopsy.first_bad(one)
        assert told[one.name] == {"horizon": one.horizon, "first": fault.words}
        for name, tree in (("theta", one.theta), ("agent", fault.agent)):
            for place, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
                at = jax.tree_util.keystr(place, simple=True, separator="/")
                np.testing.assert_array_equal(arrays[f"{one.name}/{name}/{at}"], leaf)
                assert name == "theta" or np.isfinite(leaf).all()
    assert all("update " in entry["first"] for entry in told.values())


def test_debugging_names_the_first_leaf(wild: Path, tmp_path: Path) -> None:
    first, entry = next(iter(json.loads((wild / "nonfinite" / "1.json").read_text()).items()))
    with pytest.raises(RunError) as caught:
        go(WILD, tmp_path / "run", debug_nans=True)
    line = str(caught.value)
    assert line.startswith(f"generation 1: candidate {first}, horizon {entry['horizon']}: update ")
    assert entry["first"] in line
    assert "values" in line
    assert "generation 0 is saved; go on with: kairos evolve --resume" in line


def test_a_bad_leaf_in_words() -> None:
    tree = {"a": jnp.ones(2), "b": (jnp.arange(3), jnp.array([1.0, -jnp.inf, jnp.nan, 2]))}
    assert autopsy.bad_leaf(tree, "state") == "state/b/1: 2 of 4 values are -inf"
    assert autopsy.bad_leaf({"key": jax.random.key(0), "a": jnp.zeros(())}, "state") == ""


def test_debugging_finds_a_number_of_the_search_itself(tmp_path: Path) -> None:
    real = make_search(SMALL)

    def step(state: Any) -> Any:
        after, metrics = real.step(state)
        mean = jax.tree.map(lambda leaf: leaf * jnp.nan, after.strategy.mean)
        return after._replace(strategy=after.strategy._replace(mean=mean)), metrics

    def make(_: Config) -> Any:
        return real._replace(step=step)

    with pytest.raises(RunError, match=r"generation 1: state/strategy/mean/\S+: \d+ of \d+ values"):
        go(SMALL, tmp_path / "run", debug_nans=True, make=make)


def living_on(estimator: str) -> Config:
    """Agents that live on, of which some do not stay finite."""
    windows: Any = replace(WILD, estimator="windows", window=WindowConfig(window=2))
    if estimator == "windows":
        return replace(windows, generations=3)
    rates = replace(WILD.agent, policy_rate=1e20, prediction_rate=1e20)
    gradient = GradientConfig(agents=8, agents_group=2, meta_rate=1e-3)
    meta: Any = replace(windows, estimator="gradient", agent=rates, gradient=gradient)
    return replace(meta, generations=3)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["windows", "gradient"])
def test_whoever_lives_on_is_counted_kept_and_born_again(tmp_path: Path, estimator: str) -> None:
    config = living_on(estimator)
    folder = tmp_path / "kept"
    go(config, folder, keep_nonfinite=True)
    rows = logs.read(folder / "metrics.jsonl")
    bad = {row["generation"]: int(row["nonfinite"]) for row in rows[1:] if row["nonfinite"]}
    assert bad
    assert {path.stem for path in (folder / "nonfinite").iterdir()} == set(map(str, bad))
    for generation, count in bad.items():
        told = json.loads((folder / "nonfinite" / f"{generation}.json").read_text())
        arrays = load_file(folder / "nonfinite" / f"{generation}.safetensors")
        assert len(told) == min(count, 16)
        for name, entry in told.items():
            assert "by itself" not in entry["first"]
            assert name.startswith("agent-") == (estimator == "gradient")
            mine = [place.split("/")[1] for place in arrays if place.startswith(f"{name}/")]
            assert "theta" in mine
    first, entry = next(iter(json.loads((folder / "nonfinite" / "1.json").read_text()).items()))
    with pytest.raises(RunError) as caught:
        go(config, tmp_path / "stopped", debug_nans=True)
    who = first.replace("-", " ", 1) if estimator == "gradient" else f"candidate {first}"
    line = f"generation 1: {who}, horizon {entry['horizon']}: {entry['first']}; generation 0"
    assert str(caught.value).startswith(line)


# --- as large, as short, as few as can be -----------------------------------------------------


def extremes() -> dict[str, Config]:
    few = replace(SMALL.evolution, pairs=1, group=2)
    return {
        "rewards of 1e30": replace(SMALL, env=f"{DATA / 'extreme.py'}:rich"),
        "episodes of no length": replace(SMALL, env=f"{DATA / 'extreme.py'}:brief"),
        "horizons of 1": replace(SMALL, horizon=HorizonConfig(shortest=1, longest=1)),
        "a population of 2": replace(SMALL, evolution=few, validation_levels=1),
    }


@pytest.mark.parametrize(
    "name",
    [
        "rewards of 1e30",
        "horizons of 1",
        pytest.param("episodes of no length", marks=pytest.mark.slow),
        pytest.param("a population of 2", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "estimator", ["evolution", pytest.param("windows", marks=pytest.mark.slow),
                  pytest.param("gradient", marks=pytest.mark.slow)]
)  # fmt: skip
def test_extremes(tmp_path: Path, name: str, estimator: Any) -> None:
    """A finite objective in the end, or one line that says that nothing was finite."""
    config = replace(extremes()[name], estimator=estimator, window=WindowConfig(window=1))
    agents = 2 if name == "a population of 2" else 8
    config = replace(config, gradient=GradientConfig(agents=agents, agents_group=2))
    try:
        go(config, tmp_path / "run")
    except RunError as error:
        assert name == "rewards of 1e30"
        assert "every score is non-finite" in str(error)
        assert f"{tmp_path}/run/checkpoints/" in str(error)
        return
    for leaf in jax.tree.leaves(load(tmp_path / "run").theta):
        assert np.isfinite(leaf).all()
    for row in logs.read(tmp_path / "run" / "metrics.jsonl")[1:]:
        assert row["nonfinite"] < 2 * config.evolution.pairs
