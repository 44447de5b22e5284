"""What a generation takes, known before anything of its size is allocated."""

from __future__ import annotations

from typing import Any

from discovery.devices import Memory


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
