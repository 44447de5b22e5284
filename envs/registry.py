"""The front door: names of environments and where they live. Importing it imports no JAX."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from envs.base import Environment


class Entry(NamedTuple):
    """One name that :func:`make` knows."""

    name: str
    line: str
    target: str
    """``"module:attribute"``: what is called with the name."""
    variants: tuple[str, ...] = ()
    """Names too, after the name and a slash."""


_GRID, _CHAIN, _GYMNAX = "envs.levels:grid_world", "envs.chain:chain", "envs.gymnax_adapter:load"
_BRAX, _BACKENDS = "envs.brax_adapter:load", ("generalized", "positional", "spring", "mjx")
_OTHERS = "; generalized, or with /positional, /spring, /mjx"

REGISTRY: tuple[Entry, ...] = (
    Entry("small", "drawn grid worlds, side 4-6, 1-3 objects, 20-100 steps", _GRID),
    Entry("medium", "drawn grid worlds, side 6-8, 2-4 objects, 100-250 steps", _GRID),
    Entry("large", "drawn grid worlds, side 8-10, 2-5 objects, 250-750 steps", _GRID),
    Entry("all", "drawn grid worlds, side 4-10, 1-5 objects, 20-750 steps", _GRID),
    Entry("mazes", "grid worlds, side 13, walls by design, 3 objects, 25-50 steps", _GRID),
    Entry("dense", "grid world, side 11, objects that soon come back, 500 steps", _GRID),
    Entry("sparse", "grid world, side 13, one good and one bad object, 50 steps", _GRID),
    Entry("long", "grid world, side 11, good objects rarely come back, 1,000 steps", _GRID),
    Entry("longer", "grid world, side 9, two rooms, 2,000 steps", _GRID),
    Entry("long_dense", "grid world, side 11, four rooms, only good objects, 2,000 steps", _GRID),
    Entry("rand_dense", "dense, seen as planes, objects in fresh cells", _GRID),
    Entry("rand_long", "long, seen as planes, objects in fresh cells", _GRID),
    Entry("rand_small", "grid world, side 7, seen as planes, fresh cells, 500 steps", _GRID),
    Entry("rand_sparse", "grid world, side 7, seen as planes, fresh cells, 50 steps", _GRID),
    Entry("rand_very_dense", "grid world, side 11, planes, one good object, 2,000 steps", _GRID),
    Entry("chain", "a chain with closed-form returns", _CHAIN),
    Entry("CartPole-v1", "classic control", _GYMNAX),
    Entry("Acrobot-v1", "classic control", _GYMNAX),
    Entry("MountainCar-v0", "classic control", _GYMNAX),
    Entry("MountainCarContinuous-v0", "classic control, continuous actions", _GYMNAX),
    Entry("Pendulum-v1", "classic control, continuous actions", _GYMNAX),
    Entry("Asterix-MinAtar", "MinAtar", _GYMNAX),
    Entry("Breakout-MinAtar", "MinAtar", _GYMNAX),
    Entry("Freeway-MinAtar", "MinAtar", _GYMNAX),
    Entry("Seaquest-MinAtar", "MinAtar, slow on CPU", _GYMNAX),
    Entry("SpaceInvaders-MinAtar", "MinAtar", _GYMNAX),
    Entry("Catch-bsuite", "bsuite: catch a falling ball", _GYMNAX),
    Entry("DeepSea-bsuite", "bsuite: exploration", _GYMNAX),
    Entry("DiscountingChain-bsuite", "bsuite: credit over time", _GYMNAX),
    Entry("MemoryChain-bsuite", "bsuite: memory", _GYMNAX),
    Entry("SimpleBandit-bsuite", "bsuite: bandit", _GYMNAX),
    Entry("UmbrellaChain-bsuite", "bsuite: credit among distractions", _GYMNAX),
    Entry("BernoulliBandit-misc", "bandit", _GYMNAX),
    Entry("GaussianBandit-misc", "bandit", _GYMNAX),
    Entry("FourRooms-misc", "four rooms", _GYMNAX),
    Entry("FrozenLake-misc", "frozen lake, a table can act", _GYMNAX),
    Entry("MetaMaze-misc", "maze", _GYMNAX),
    Entry("PointRobot-misc", "point robot, continuous actions", _GYMNAX),
    Entry("Pong-misc", "Pong from pixels", _GYMNAX),
    Entry("Reacher-misc", "reacher, continuous actions", _GYMNAX),
    Entry("Swimmer-misc", "swimmer, continuous actions", _GYMNAX),
    Entry("brax/ant", "Brax: four legs, forward" + _OTHERS, _BRAX, _BACKENDS),
    Entry("brax/halfcheetah", "Brax: two legs in a plane, forward" + _OTHERS, _BRAX, _BACKENDS),
    Entry("brax/hopper", "Brax: one leg in a plane, forward" + _OTHERS, _BRAX, _BACKENDS),
    Entry("brax/humanoid", "Brax: two legs and arms, forward" + _OTHERS, _BRAX, _BACKENDS),
    Entry("brax/inverted_pendulum", "Brax: a pole on a cart, upright" + _OTHERS, _BRAX, _BACKENDS),
    Entry("brax/reacher", "Brax: an arm in a plane, to a point" + _OTHERS, _BRAX, _BACKENDS),
    Entry("brax/walker2d", "Brax: two legs in a plane, walk" + _OTHERS, _BRAX, _BACKENDS),
    Entry("brax/fast", "Brax: a point that goes faster, without physics, for tests", _BRAX),
)


class UnknownName(ValueError, KeyError):  # noqa: N818
    """A name that nothing has; the message has the nearest ones that exist."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.name = name
        lower = {other.lower(): other for other in known}
        close = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
        self.nearest = tuple(lower[other] for other in close)
        self.message = f"unknown {kind} {name!r}"
        if self.nearest:
            self.message += f": did you mean {' or '.join(self.nearest)}?"
        super().__init__(self.message)

    def __str__(self) -> str:
        # KeyError would put the message in quotes.
        return self.message


class MissingExtra(ImportError):  # noqa: N818
    """An optional package is not installed; the message is the line that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an extra: pip install 'kairos-rl[{extra}]'")


def names() -> tuple[str, ...]:
    """Every name that :func:`make` knows."""
    return tuple(name for entry in REGISTRY for name in _names(entry))


def _names(entry: Entry) -> tuple[str, ...]:
    return (entry.name, *(f"{entry.name}/{variant}" for variant in entry.variants))


def make(name: str, **options: Any) -> Environment:
    """Make an environment.

    Args:
        name: one of :func:`names`, or ``"path/to/file.py:attribute"`` of your own, where the
            attribute is or returns an :class:`~envs.base.Environment`, an object with gymnax 1.0's
            API, or such an object with its parameters.
        options: passed on to what makes it, such as ``one_hot=True`` for tabular grid worlds.

    Returns:
        An :class:`~envs.base.Environment`.

    Raises:
        UnknownName: nothing has this name; the nearest ones are in the message.
        MissingExtra: its package is not installed; the message says how to.
        ValueError: your file returned something else; in one line.

    Example:
        >>> env = envs.make("small")
        >>> level = env.sample_level(jax.random.key(0))
    """
    for entry in REGISTRY:
        if name in _names(entry):
            module, attribute = entry.target.split(":")
            return getattr(importlib.import_module(module), attribute)(name, **options)
    path, _, attribute = name.rpartition(":")
    if path.endswith(".py"):
        return _from_file(Path(path), attribute, options)
    raise UnknownName("environment", name, names())


def _from_file(path: Path, attribute: str, options: dict[str, Any]) -> Environment:
    from envs.gymnax_adapter import adapt

    if not path.is_file():
        raise UnknownName("file", str(path), (str(near) for near in path.parent.glob("*.py")))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        raise UnknownName(f"name in {path}", attribute, vars(module))
    thing = getattr(module, attribute)
    if isinstance(thing, type) or (callable(thing) and not hasattr(thing, "reset")):
        thing = thing(**options)
    return adapt(thing, f"{path}:{attribute}")
