"""What a generation takes, known before anything of its size is allocated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from discovery.config import Config
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
    """Choose the lives of a group that a configuration leaves open.

    On a CPU always the same. On an accelerator what is fastest where memory is no question; if the
    compiled program says that it needs more than there is, or cannot be compiled for want of
    memory, a smaller one. What is compiled last is what the run then uses.

    Args:
      asked: its group may be 0.
      make: ``make_search``.
      free: memory of this process's devices. Several processes choose together.

    Returns:
      The configuration that a run writes down, and its search.
    """
    from discovery.outer.grouping import grouped

    config = grouped(asked)
    search, group = make(config), config.evolution.group
    gradient = asked.estimator == "gradient"  # has a group of its own
    decided = asked.evolution.group or gradient or free.shared
    if decided or getattr(search, "memory", None) is None:
        return config, search
    while True:
        wanted = int(gathered(_wanted(search, group, free)).min())
        if wanted >= group or group <= 2:
            return config, search
        config = grouped(asked, max(2, wanted))
        search, group = make(config), config.evolution.group


def _wanted(search: Any, group: int, free: Memory) -> int:
    """The group if it fits, else a smaller number that may: most of the memory is its lives'."""
    try:
        need = needed(search, search.init(), free)
    except Exception as error:
        if group <= 2 or "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return group // 2
    room = SPARE * free.available
    return group if need <= room else min(group - 1, int(group * room / need))
