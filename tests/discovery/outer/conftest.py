"""A search that is as small as one that learns can be."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from discovery.config import (
    AgentConfig,
    Config,
    EvolutionConfig,
    HorizonConfig,
    LifeConfig,
    ObjectiveConfig,
)


@pytest.fixture(scope="session")
def tiny() -> Config:
    """Sixteen pairs in four groups, so that two devices share them."""
    data = Path(__file__).parents[2] / "data"
    return Config(
        env=f"{data / 'restful_chain.py'}:make",
        validation_levels=9,
        objective=ObjectiveConfig(width=4, predictions=2, embedding=2),
        agent=AgentConfig(),
        life=LifeConfig(environments=4, rollout=8, evaluation_environments=4),
        horizon=HorizonConfig(shortest=1, longest=4),
        evolution=EvolutionConfig(pairs=16, group=8, sigma=0.5, rate=0.1),
    )


@pytest.fixture(scope="session")
def with_evolution() -> Callable[..., Config]:
    """``(config, **fields) -> config`` with other fields of its evolution."""
    return lambda config, **fields: replace(config, evolution=replace(config.evolution, **fields))


@pytest.fixture(scope="session")
def compiled() -> Callable[[], AbstractContextManager[list[str]]]:
    """A context that lists the programs compiled inside it, by name."""

    @contextmanager
    def listening() -> Generator[list[str]]:
        names: list[str] = []

        def hear(event: str, seconds: float, **facts: object) -> None:
            if event.endswith("/backend_compile_duration"):
                names.append(str(facts["fun_name"]))

        jax.monitoring.register_event_duration_secs_listener(hear)
        try:
            yield names
        finally:
            jax.monitoring.unregister_event_duration_listener(hear)

    return listening


@pytest.fixture
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made in this test sees one device."""
    only = jax.devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda **which: only)
