"""Tuning a hand-written rule: the search, the draws, and the better of both."""

import csv
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from discovery.config import (
    AgentConfig,
    Config,
    ConfigError,
    EvolutionConfig,
    HorizonConfig,
    LifeConfig,
    ObjectiveConfig,
)
from discovery.evaluation import tuning
from discovery.evaluation.tuning import candidates, choose, returns, spent, tune
from discovery.inner.build import make_objective
from discovery.outer.search import root_key
from discovery.requests import TuneConfig
from learned_objectives.library import load

CONFIG = Config(
    env="chain",
    generations=1,
    log_every=1,
    checkpoint_every=1,
    validation_levels=8,
    objective=ObjectiveConfig(rule="a2c-constant"),
    agent=AgentConfig(policy_rate=2.0, prediction_rate=1.0),
    life=LifeConfig(environments=4, rollout=8, evaluation_environments=8),
    horizon=HorizonConfig(shortest=4, longest=8),
    evolution=EvolutionConfig(pairs=4, group=8),
)
RULE = make_objective(CONFIG.objective, CONFIG.agent)


def test_the_first_draw_is_the_reference() -> None:
    drawn = candidates(RULE, jax.random.key(0), 5)
    assert all((leaf[0] == 0).all() for leaf in jax.tree.leaves(drawn))
    assert all(len(np.unique(leaf)) == 6 for leaf in jax.tree.leaves(drawn))


def test_the_better_draw_and_the_better_of_both_are_found() -> None:
    zeros = jax.tree.map(lambda leaf: jnp.zeros((3, *leaf.shape)), RULE.init(jax.random.key(0)))
    # The reference learns e^-9 times as fast as draw 1, and draw 2 is not a number.
    level = jnp.asarray([-3.0, 0.0, jnp.nan])
    thetas = {
        name: {"a": level if name.endswith("rate") else knobs["a"]} for name, knobs in zeros.items()
    }
    slow = jax.tree.map(lambda leaf: leaf[0], thetas)
    best, scores, drawn = choose(CONFIG, slow, thetas)
    assert best == 1 and drawn[1] > drawn[0] and drawn[2] == -np.inf
    assert scores["draws"] > scores["search"] == scores["reference"]
    np.testing.assert_array_equal(returns(CONFIG, thetas, "tuning draws"), drawn)
    other = returns(CONFIG, thetas, "tuning final")
    assert other[1] == scores["draws"], "one stream for all finalists"
    assert other[1] != drawn[1], "which is not the one that chose among the draws"
    with pytest.raises(ConfigError, match="under no draw"):
        choose(CONFIG, slow, jax.tree.map(lambda leaf: leaf * jnp.nan, thetas))


def test_a_tuned_rule_is_an_objective(tmp_path: Path) -> None:
    said: list[object] = []
    request = TuneConfig(CONFIG, draws=3, out=str(tmp_path / "tuned"))
    found = tune(request, said.append)
    assert found is not None
    saved = load(tmp_path / "tuned")
    told = saved.card["tuned"]
    assert (told["by"], told["draws"]) == (found.by, 4)
    assert told["validation"] == found.scores
    assert told["search_steps"] > 0 and told["draw_steps"] == spent(CONFIG, 4)
    drawn = candidates(RULE, jax.random.fold_in(root_key(0), tuning._DRAWS), 3)
    scores = returns(CONFIG, drawn, "tuning draws")
    best = {"search": load(tmp_path / "tuned" / tuning.SEARCH).theta} | {
        name: jax.tree.map(lambda leaf, i=i: leaf[i], drawn)
        for name, i in (("draws", 1 + int(np.argmax(scores[1:]))), ("reference", 0))
    }
    assert found.scores[found.by] == max(found.scores.values())
    assert jax.tree.all(jax.tree.map(np.array_equal, saved.theta, best[found.by]))
    with (tmp_path / "tuned" / tuning.DRAWS).open() as file:
        lines = list(csv.DictReader(file))
    assert float(lines[0]["policy_rate_start"]) == 2.0
    assert len({line["value_rate_start"] for line in lines}) == 4
    with pytest.raises(ConfigError, match="holds a tuned rule already"):
        tune(request, said.append)
    # What is gone on with is of the same numbers.
    (tmp_path / "tuned" / "card.json").unlink()
    other = replace(CONFIG, agent=replace(CONFIG.agent, policy_rate=3.0))
    with pytest.raises(ConfigError, match=r"other numbers .*policy_rate"):
        tune(replace(request, config=other), said.append)


def test_a_tuning_that_loses_to_the_reference_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = {"search": 0.1, "draws": 0.2, "reference": 0.3}
    zeros = RULE.init(jax.random.key(0))
    monkeypatch.setattr(tuning, "choose", lambda *_: (1, lost, np.zeros(3)))
    monkeypatch.setattr(tuning, "_search", lambda *_: jax.tree.map(jnp.ones_like, zeros))
    found = tune(TuneConfig(CONFIG, draws=2, out=str(tmp_path / "t")), lambda line: None)
    assert found is not None and found.by == "reference"
    assert jax.tree.all(jax.tree.map(np.array_equal, load(tmp_path / "t").theta, zeros))


def test_what_cannot_be_tuned() -> None:
    config = replace(CONFIG, objective=ObjectiveConfig(rule="lpg", width=4))
    with pytest.raises(ConfigError, match="no numbers to tune"):
        tune(TuneConfig(config))
    with pytest.raises(ConfigError, match="one at a time"):
        tune(TuneConfig(replace(CONFIG, env="chain,small")))


def test_the_draws_are_counted() -> None:
    # Horizons at eight quantiles of 4 to 8, and three finalists.
    horizons = [4, 5, 5, 5, 6, 6, 7, 8]
    assert spent(CONFIG, 5) == 8 * sum(horizons) * 32
