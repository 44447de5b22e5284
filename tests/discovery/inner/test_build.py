"""From a configuration to what a life is made of."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest

from discovery.config import AgentConfig, ConfigError, LifeConfig, ObjectiveConfig
from discovery.inner.build import (
    make_environment,
    make_hyper,
    make_objective,
    make_world,
    static,
    with_optimizer,
)
from learned_objectives.handwritten import A2C, A2CHyper, Random
from learned_objectives.library import UnknownObjective
from learned_objectives.lpg import LPG, LPGHyper
from learned_objectives.scheduled import AnnealedLPG

AGENT = AgentConfig(
    policy_rate=7.0, prediction_rate=3.0, clip=0.25, prediction_weight=0.75, optimizer="adam"
)


def test_an_objective_has_the_fields_of_its_configuration() -> None:
    config = ObjectiveConfig(rule="lpg", clock="elapsed", width=5, predictions=3, embedding=2)
    expected = LPG(width=5, predictions=3, embedding=2, clock="elapsed", optimizer="adam")
    assert make_objective(config, AGENT) == expected
    rounded = dataclasses.replace(config, products="bfloat16")
    assert make_objective(rounded, AGENT) == dataclasses.replace(expected, products="bfloat16")
    assert make_objective(ObjectiveConfig(rule="a2c"), AGENT) == A2C(optimizer="adam")
    assert make_objective(ObjectiveConfig(rule="random"), AGENT) == Random()


def test_an_unknown_rule_is_told_the_nearest() -> None:
    with pytest.raises(UnknownObjective, match="lpg"):
        make_objective(ObjectiveConfig(rule="lgp"), AGENT)


def test_a_rule_of_ones_own_must_be_hashable(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from learned_objectives.handwritten import A2C\n"
        "class Own(A2C):\n"
        "    __hash__ = None\n"
        "def make():\n"
        "    return Own()\n"
    )
    with pytest.raises(ConfigError, match="make Own a frozen dataclass"):
        make_objective(ObjectiveConfig(rule=f"{file}:make"), AGENT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def make(:", "own.py:make fails: SyntaxError: "),
        ("import nosuchmodule", "fails: ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("def make():\n    return 3\n", r"own.py:make: neither .* it has no reset, step"),
    ],
)
def test_an_environment_file_that_fails_is_told_in_a_line(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        make_environment(f"{tmp_path / 'own.py'}:make")
    assert "\n" not in str(caught.value)


def test_the_numbers_of_an_update_are_the_agents() -> None:
    assert make_hyper(LPG(), AGENT, clock_gate=0.5) == LPGHyper(
        policy_rate=7.0, prediction_rate=3.0, prediction_weight=0.75, clip=0.25, clock_gate=0.5
    )
    # A value head learns at the rate of the prediction head.
    assert make_hyper(A2C(), AGENT) == A2CHyper(policy_rate=7.0, value_rate=3.0, clip=0.25)
    assert make_hyper(Random(), AGENT) == Random().hyper()


def test_the_same_rule_with_another_optimiser() -> None:
    assert with_optimizer(LPG(width=3), AGENT) == LPG(width=3, optimizer="adam")
    assert with_optimizer(Random(), AGENT) == Random()


@pytest.mark.parametrize(("backend", "ahead"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_how_inputs_are_read_is_chosen_for_the_backend(
    monkeypatch: pytest.MonkeyPatch, backend: str, ahead: bool
) -> None:
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    assert make_objective(ObjectiveConfig(rule="lpg"), AGENT).read_ahead is ahead
    loaded = with_optimizer(AnnealedLPG(), AGENT)
    assert loaded.read_ahead is loaded.plain.read_ahead is ahead
    assert make_objective(ObjectiveConfig(rule="a2c"), AGENT) == A2C(optimizer="adam")


def test_static_keeps_what_shapes_a_program() -> None:
    agent = AgentConfig(network="mlp", hidden=(8, 4), optimizer="adam", policy_rate=1.0, clip=9.0)
    assert static(agent) == AgentConfig(network="mlp", hidden=(8, 4), optimizer="adam")


def test_a_world_is_what_its_configuration_says() -> None:
    life = LifeConfig(environments=3, rollout=5, evaluation_environments=7, time_limit="terminate")
    world = make_world(LPG(), "chain", AgentConfig(), life)
    assert (world.environments, world.steps, world.episodes, world.bootstrap) == (3, 5, 7, False)
    assert world.env is make_environment("chain"), "the same object each time"
    assert make_world(LPG(), "chain", AgentConfig(), LifeConfig()).bootstrap


@pytest.mark.parametrize(
    ("env", "agent", "line"),
    [
        ("chain", AgentConfig(network="mlp"), "use --network table"),
        ("rand_small", AgentConfig(network="table"), "use --network mlp"),
    ],
)
def test_what_does_not_go_together_is_refused(env: str, agent: AgentConfig, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        make_world(LPG(), env, agent, LifeConfig())


def test_a_rule_says_where_it_cannot_be_used() -> None:
    @dataclass(frozen=True)
    class Choosy(A2C):
        def unsupported(self, spec: object) -> str:
            return "no chains, please"

    with pytest.raises(ConfigError, match="no chains, please"):
        make_world(Choosy(), "chain", AgentConfig(), LifeConfig())
