"""What a generation takes, known before anything of its size is allocated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from discovery.config import Config, population, settled
from discovery.devices import Memory, gathered


def needed(search: Any, state: Any, free: Memory) -> int:
    """Bytes that a generation takes, where its search can tell.

    Args:
      search: its ``memory`` maps a state to bytes on one device.
      state: of the search.
      free: what there is; where devices share it, what all of them take together is told.

    Returns:
      Bytes to compare with ``free.available``.
    """
    import jax

    return int(search.memory(state)) * (len(jax.local_devices()) if free.shared else 1)


SPARE = 0.9
"""Share of the free memory that a group is chosen for: others take some as well."""


def fitting(asked: Config, make: Callable[[Config], Any], free: Memory) -> tuple[Config, Any]:
    """Choose the lives of a group that a configuration leaves open: as many as memory holds.

    Begins with the group that is fastest where memory is no question, compiles its program, and
    takes less only if that program says that it needs more than there is. What is compiled last is
    what the run then uses.

    Args:
      asked: its group may be 0.
      make: ``make_search``.
      free: memory of this process's devices. Several processes choose together.

    Returns:
      The configuration that a run writes down, and its search.
    """
    from discovery.inner.cohort import preferred

    lives, group = population(asked)
    if group:
        return asked, make(asked)
    most = preferred(lives)
    while True:
        config = settled(asked, most)
        search, group = make(config), population(config)[1]
        if getattr(search, "memory", None) is None:
            return config, search
        need = needed(search, search.init(), free)
        room = SPARE * free.available
        # Most of what a program takes is its group's.
        wanted = group if need <= room else min(group - 1, int(group * room / need))
        wanted = int(gathered(wanted).min())
        if wanted == group or group <= 2:
            return config, search
        most = max(2, wanted)
