"""Errors whose text is what a person reads. No JAX here."""

from __future__ import annotations

from discovery.config import ConfigError
from envs.registry import MissingExtra, UnknownName
from learned_objectives.library import ObjectiveError


class RunError(Exception):
    """A run that had begun and stopped; its text says why and what is safe."""

    status = 1


class Interrupted(RunError):  # noqa: N818  (reads as what it says)
    """Ctrl-C: what is done is saved, and the text says how to go on."""

    status = 130


class Terminated(RunError):  # noqa: N818
    """The same for SIGTERM."""

    status = 143


class CheckpointError(RunError):
    """A checkpoint that cannot be written, or that is not what was written."""

    def __init__(self, message: str, generation: int | None = None) -> None:
        super().__init__(message)
        self.generation = generation
        """The generation of the damaged checkpoint, where one was chosen."""


REFUSALS = (ConfigError, ObjectiveError, UnknownName, MissingExtra)
"""What is raised before anything is started (exit status 2)."""


def first_line(error: BaseException) -> str:
    """What an exception of somebody else says, in one line of bounded length."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
