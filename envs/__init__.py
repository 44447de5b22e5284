"""Environments: where agents live. ``envs.make(name)`` is the front door."""

__owner__ = "kairos-rl"

__all__ = ["check_env", "make"]


def __getattr__(name: str) -> object:
    """Load the front door only when it is used, so that importing the package costs nothing."""
    if name == "make":
        from envs.registry import make

        return make
    if name == "check_env":
        from envs.check import check_env

        return check_env
    raise AttributeError(f"module 'envs' has no attribute {name!r}")
