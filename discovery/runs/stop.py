"""Being told to stop."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Literal, get_args

Stopped = Literal["", "minutes", "interrupt", "terminate"]
"""What stopped a run before its last generation; empty if nothing did."""
REASONS: tuple[Stopped, ...] = get_args(Stopped)
"""Numbered, from nothing to the strongest."""


class Stop:
    """Ctrl-C and SIGTERM ask the loop to end after its generation; a second Ctrl-C ends at once."""

    def __init__(self, quiet: bool) -> None:
        self.reason: Stopped = ""
        self._quiet = quiet
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that was not set from Python, and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.reason == "interrupt" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.reason = "interrupt" if number == signal.SIGINT else "terminate"
        if not self._quiet:
            # A signal may come in the middle of a print: straight to the terminal.
            os.write(2, b"\nsaving after this generation; Ctrl-C again stops at once\n")
