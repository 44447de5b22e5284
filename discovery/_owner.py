"""Checks that the packages beside this one are Kairos's own.

`envs` is also the name of an unrelated distribution that installs the same
folder. Finding that one instead of ours would otherwise show as a missing
attribute, far from its cause. The check reads files and imports nothing.
"""

import importlib.util

_MARK = '__owner__ = "kairos-rl"'
_SIBLINGS = ("envs", "learned_objectives")


def _source(name: str) -> tuple[str, str | None]:
    """Returns where Python finds package `name`, and the text of its `__init__`."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # something put a module without a spec in sys.modules
        return "a module made at run time", None
    if spec is None:
        return "", None
    folders = list(spec.submodule_search_locations or ())
    where = folders[0] if folders else spec.origin or name
    get_source = getattr(spec.loader, "get_source", None)
    try:
        return where, get_source(name) if get_source else None
    except (ImportError, OSError, SyntaxError):
        return where, None


def check() -> None:
    """Checks that `envs` and `learned_objectives` belong to Kairos.

    Raises:
        ImportError: naming the folder that Python found where one does not.
    """
    for name in _SIBLINGS:
        where, text = _source(name)
        if not where:
            raise ImportError(
                f"Kairos needs its own package `{name}`, and Python finds none: "
                "install kairos-rl (see README)"
            )
        if text is None or _MARK not in text.splitlines():
            raise ImportError(
                f"Kairos needs its own package `{name}`, but Python finds another one "
                f"at {where}: use a virtual environment of its own (see README)"
            )
