"""Discovers reinforcement-learning objectives that know their horizon.

What the command ``kairos`` does is one call here: :func:`evolve`, :func:`tune`, :func:`evaluate`,
:func:`train`, :func:`inspect`, :func:`reproduce`; beside them :func:`load`, and
:func:`check_objective`, which says what is wrong with an objective of your own.
"""

import importlib

from discovery import _owner

__owner__ = "kairos-rl"

__all__ = [
    "check_objective",
    "evaluate",
    "evolve",
    "inspect",
    "load",
    "reproduce",
    "train",
    "tune",
]

_owner.check()

_WHERE = {
    "evolve": "discovery.runs.run",
    "tune": "discovery.evaluation.tuning",
    "evaluate": "discovery.evaluation.horizons",
    "train": "discovery.evaluation.training",
    "inspect": "discovery.evaluation.inspection",
    "reproduce": "discovery.evaluation.papers",
    "load": "learned_objectives.library",
    "check_objective": "discovery.evaluation.check",
}


def __getattr__(name: str) -> object:
    """Load a function only when it is used, so that importing the package costs nothing."""
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'discovery' has no attribute {name!r}")
