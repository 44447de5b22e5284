"""One of several processes, watched by another that does nothing else. No JAX here.

When the coordinating process of a run dies, JAX aborts the others from a thread of its own, where
no Python is asked. A parent that has no JAX is left to say what happened, and what is safe.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""


def supervised(work: Callable[[], int], last_words: Callable[[], str]) -> int:
    """Do some work in a child, and say in one line if something kills it.

    The child dies with its parent; SIGTERM is handed on to it, and Ctrl-C reaches it by itself.

    Args:
      work: gives an exit status.
      last_words: what is safe, asked once the child is dead.

    Returns:
      The exit status, in the child that of the work.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _die_with_parent()
        return work()

    def hand_on(number: int, frame: FrameType | None) -> None:
        os.kill(child, number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, hand_on)
    _, how = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(how)
    if status < 0:
        name = signal.Signals(-status).name
        print(f"kairos: ended by {name}: {last_words()}", file=sys.stderr, flush=True)
        return 1
    return status


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() == 1:  # it was too late
            os._exit(1)
