"""Discovers reinforcement-learning objectives that know their horizon.

What the command ``kairos`` does is one call here: :func:`evolve`, :func:`evaluate`, :func:`train`
and :func:`load`.
"""

import importlib

from discovery import _owner

__owner__ = "kairos-rl"

__all__ = ["evaluate", "evolve", "load", "train"]

_owner.check()

_WHERE = {
    "evolve": "discovery.runs.run",
    "evaluate": "discovery.evaluation.horizons",
    "train": "discovery.evaluation.training",
    "load": "learned_objectives.library",
}


def __getattr__(name: str) -> object:
    """Load a function only when it is used, so that importing the package costs nothing."""
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'discovery' has no attribute {name!r}")
