"""What a person sees: lines and tables, as text."""

from __future__ import annotations

import sys
from typing import Any

_WIDTH = 200
"""A file, a pipe or a notebook has no width that a table would have to be cut to."""


def say(what: Any) -> None:
    """Print a line, or a table of rich's, as text.

    Args:
      what: a string, or whatever rich can render, such as what
        :func:`discovery.evaluation.table.render` returns.

    Example:
      >>> say("compiling ...")
      compiling ...
    """
    if isinstance(what, str):
        print(what, flush=True)
        return
    from rich.console import Console

    terminal = sys.stdout.isatty()
    width = None if terminal else _WIDTH
    # A notebook asks for colours, and keeps their codes among its text.
    console = Console(
        file=sys.stdout, highlight=False, width=width, force_jupyter=False, force_terminal=terminal
    )
    with console.capture() as captured:
        console.print(what)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)


__all__ = ["say"]
