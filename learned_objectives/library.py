"""Save and load an objective: plain arrays with a card, never code.

A saved objective is two files. ``objective.safetensors`` holds the arrays of theta under flat names
(``cell/wx``). ``card.json`` says who trained it and how, and names the rule that reads the arrays,
with its fields. A rule's name is looked up in :data:`RULES`; nothing that a file says is executed.

The same two files under ``pretrained/<name>.safetensors`` and ``pretrained/<name>.json`` make a
shipped objective, loaded by its name. JAX is imported by the functions that need it, so that the
names here can be listed in a moment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.resources
import importlib.util
import inspect
import json
import math
import os
import platform
import stat
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from learned_objectives.base import Objective, Theta
else:  # annotations that a runtime checker can resolve without importing JAX
    Objective = Theta = Any

RULES: dict[str, tuple[str, str]] = {
    "lpg": (
        "learned policy gradient; temporally aware with a clock",
        "learned_objectives.lpg:LPG",
    ),
    "lpo": (
        "learned drift in a mirror-learning update; temporally aware with a clock",
        "learned_objectives.lpo:LPO",
    ),
    "a2c": (
        "advantage actor-critic, hand-written",
        "learned_objectives.handwritten:A2C",
    ),
    "ppo": (
        "proximal policy optimisation, hand-written",
        "learned_objectives.mirror:PPO",
    ),
    "dpo": (
        "discovered policy optimisation, a learned drift in closed form",
        "learned_objectives.mirror:DPO",
    ),
    "a2c-constant": (
        "A2C, its numbers tuned by a search",
        "learned_objectives.scheduled:A2CConstant",
    ),
    "a2c-scheduled": (
        "A2C on schedules over a life, tuned by a search",
        "learned_objectives.scheduled:A2CScheduled",
    ),
    "a2c-scheduled-n": (
        "A2C on schedules that depend on the horizon too, tuned by a search",
        "learned_objectives.scheduled:A2CScheduledN",
    ),
    "ppo-constant": (
        "PPO, its numbers tuned by a search",
        "learned_objectives.scheduled:PPOConstant",
    ),
    "ppo-scheduled": (
        "PPO on schedules over a life, tuned by a search",
        "learned_objectives.scheduled:PPOScheduled",
    ),
    "ppo-scheduled-n": (
        "PPO on schedules that depend on the horizon too, tuned by a search",
        "learned_objectives.scheduled:PPOScheduledN",
    ),
    "lpg-annealed": (
        "LPG whose agents' rates fall or rise over a life, as a search finds",
        "learned_objectives.scheduled:AnnealedLPG",
    ),
    "random": (
        "no update at all: the policy an agent was born with",
        "learned_objectives.handwritten:Random",
    ),
}
"""Name -> (one line, ``module:attribute``). Data: only :func:`make_rule` imports."""

CARD_FIELDS = (
    "name",
    "summary",
    "trained_by",
    "licence",
    "commit",
    "versions",
    "config",
    "seeds",
    "environments",
    "horizons",
    "scores",
    "notes",
)
"""What whoever saves an objective tells about it; what is not told stands in the card as null.

``config`` is the full configuration, ``horizons`` the distribution that horizons were drawn from,
``scores`` the score at each horizon.
"""

ARRAYS = "objective.safetensors"
CARD = "card.json"
FORMAT = 1

_WRITTEN = ("format", "rule", "fields", "parameters", "sha256", "arrays")
"""Fields of a card that :func:`save` writes itself."""

# Far above any objective of this project, far below what a laptop can hold.
_MAX_CARD = 16 * 2**20
_MAX_HEADER = 2**20
_MAX_BYTES = 4 * 2**30
_MAX_FIELD = 2**20

_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}


class ObjectiveError(ValueError):
    """An objective that cannot be made or loaded; its text is what a person reads."""


class UnknownObjective(ObjectiveError):  # noqa: N818  (reads as what it says)
    """A name or a field that nothing here has; the text names the nearest known ones."""


class ObjectiveFileError(ObjectiveError):
    """A file that holds no objective: the file, the leaf, what was expected and what was found."""


class Saved(NamedTuple):
    """An objective ready for use."""

    name: str
    """What tables and figures call it."""
    objective: Objective
    theta: Theta
    """Its parameters, ``()`` if it is hand-written."""
    card: dict[str, Any]
    """Where it comes from; ``{}`` if it is hand-written."""
    digest: str
    """SHA-256: of the array file, or of the rule and its fields if there is none."""


# --- rules ------------------------------------------------------------------------------------


def make_rule(name: str, /, **fields: Any) -> Objective:
    """An update rule by its name, untrained.

    Args:
      name: a key of :data:`RULES`, or ``path/file.py:make`` for one of your own, where ``make``
        is called with the fields and returns an objective.
      fields: static fields of the rule, e.g. ``width=32, clock="none"``.

    Returns:
      The objective.

    Raises:
      UnknownObjective: no rule of that name, or no such field; the nearest known ones are named.
      ObjectiveError: a value that the rule does not take, or a file of yours that fails.

    Example:
      >>> make_rule("lpg", width=16, clock="none").width
      16
    """
    if _is_file(name):
        made = _call_own(name, fields)
        return made[0] if isinstance(made, tuple) else made
    if name not in RULES:
        raise UnknownObjective(_nearest(name, RULES, "rule"))
    module, attribute = RULES[name][1].split(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise ObjectiveError(f"rule {name!r} cannot be imported: {_line(error)}") from error
    return _construct(name, factory, fields)


def _construct(name: str, factory: Callable[..., Any], fields: Mapping[str, Any]) -> Any:
    """Call a rule's factory with fields checked by name and, where annotated plainly, by type."""
    parameters = inspect.signature(factory).parameters
    try:
        hints = typing.get_type_hints(factory)
    except (NameError, TypeError, AttributeError):
        hints = {}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for field, value in fields.items():
        if field not in parameters and not open_ended:
            raise UnknownObjective(_nearest(field, parameters, f"field of rule {name!r}"))
        problem = _mistyped(hints.get(field), value)
        if problem:
            raise ObjectiveError(f"rule {name!r}: {field} must be {problem}, not {value!r}")
    try:
        return factory(**fields)
    except Exception as error:  # whatever a rule raises for fields it refuses
        given = ", ".join(f"{k}={v!r}" for k, v in fields.items())
        raise ObjectiveError(f"rule {name!r} does not take ({given}): {_line(error)}") from error


def _mistyped(hint: Any, value: Any) -> str | None:
    """What a plainly annotated field must be, if the value is not that."""
    if typing.get_origin(hint) is Literal:
        options = typing.get_args(hint)
        return None if value in options else f"one of {', '.join(map(repr, options))}"
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if is_number else "a number"
    if hint in (bool, int, str):
        return None if type(value) is hint else f"of type {hint.__name__}"
    return None


def _rule_of(objective: Any) -> tuple[str, dict[str, Any]]:
    """A rule's name and fields, as :func:`make_rule` takes them.

    Without those of ``metadata={"card": False}``, which say how it is computed and not what.
    A rule of a user's own has no name here: it is described by its class, for people only.
    """
    cls = type(objective)
    fields: dict[str, Any] = {}
    if dataclasses.is_dataclass(objective):
        fields = {
            f.name: getattr(objective, f.name)
            for f in dataclasses.fields(cls)
            if f.init and f.metadata.get("card", True)
        }
    address = f"{cls.__module__}:{cls.__qualname__}"
    for name, (_, known) in RULES.items():
        if known == address:
            return name, fields
    if cls.__module__.startswith(_OWN):
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        address = f"{Path(file or '').name}:{cls.__qualname__}"
    return address, fields


# --- a user's own file ------------------------------------------------------------------------

_OWN = "kairos_own_objective_"


def _is_file(name: str) -> bool:
    return name.rpartition(":")[0].endswith(".py")


def _call_own(name: str, fields: Mapping[str, Any]) -> Any:
    """What ``file.py:make`` makes: an objective, or an objective and its theta."""
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ObjectiveError(f"cannot read {file}: {error.strerror or error}") from None
    # Named by content: asked twice, one file gives one class, so that objectives compare equal.
    digest = hashlib.sha256(os.fsencode(path.resolve()) + b"\0" + source).hexdigest()
    module_name = _OWN + digest[:16]
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise ObjectiveError(f"{file} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses look their module up here
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # a person's file may raise anything
            del sys.modules[module_name]
            raise ObjectiveError(f"{file} fails at import: {_line(error)}") from error
    if not attribute or not hasattr(module, attribute):
        public = [n for n, v in vars(module).items() if not n.startswith("_") and callable(v)]
        raise UnknownObjective(_nearest(attribute, public, f"function of {file}"))
    factory = getattr(module, attribute)
    if not callable(factory):
        raise ObjectiveError(f"{name} must be a function or a class, not {type(factory).__name__}")
    made = _construct(name, factory, fields)
    parts = made if isinstance(made, tuple) and not hasattr(made, "update") else (made,)
    if len(parts) > 2:
        raise ObjectiveError(
            f"{name} returned {len(parts)} values: an objective, or with its theta"
        )
    _check_protocol(name, parts[0])
    return made


def _check_protocol(name: str, objective: Any) -> None:
    from learned_objectives.base import Objective as Protocol

    wanted = [n for n in vars(Protocol) if not n.startswith("_")]
    missing = [n for n in wanted if not hasattr(objective, n)]
    if missing:
        raise ObjectiveError(
            f"{name} returned {type(objective).__name__}, no objective: "
            f"it has no {', '.join(missing)}"
        )


# --- save -------------------------------------------------------------------------------------


def save(
    folder: str | os.PathLike[str], objective: Objective, theta: Theta, card: Mapping[str, Any]
) -> Path:
    """Write ``objective.safetensors`` and ``card.json`` into a folder.

    Each file is written under a temporary name, flushed to disk and renamed, the arrays first: a
    reader finds the old objective, the new one, or a pair whose digest says that it does not match.
    The array file's bytes are a function of the objective and theta alone.

    Args:
      folder: made if it does not exist; an objective in it is replaced.
      objective: the rule that reads theta.
      theta: its parameters, of the shapes that ``objective.init`` gives.
      card: any of :data:`CARD_FIELDS`, and whatever else is worth telling; JSON-able.

    Returns:
      The path of the array file.

    Raises:
      ObjectiveError: theta is not this objective's, or the card has a field that is written here.
      OSError: the disk is full or read-only; nothing half-written is left.
    """
    import numpy as np
    import safetensors.numpy

    taken = [name for name in card if name in _WRITTEN]
    if taken:
        raise ObjectiveError(f"card: {', '.join(taken)} is written by save, leave it out")
    rule, fields = _rule_of(objective)
    expected, _ = _expected(objective)
    found = {name: np.asarray(leaf) for name, leaf in _flat(theta)[0].items()}
    if problem := _difference(
        expected, {name: (leaf.shape, _dtype(leaf)) for name, leaf in found.items()}
    ):
        raise ObjectiveError(f"theta is not of rule {rule!r}: {problem}")
    identity = {"format": FORMAT, "rule": rule, "fields": _plain(fields)}
    data = safetensors.numpy.save(
        {name: np.ascontiguousarray(leaf).reshape(leaf.shape) for name, leaf in found.items()},
        # One key: the order in which several would be written is not fixed.
        {"objective": json.dumps(identity, sort_keys=True)},
    )
    told = {name: _plain(card.get(name)) for name in CARD_FIELDS}
    told["versions"] = told["versions"] or _versions()
    extra = {name: _plain(value) for name, value in card.items() if name not in CARD_FIELDS}
    arrays = {
        name: {"dtype": _dtype(leaf), "shape": list(leaf.shape), "sha256": _sha256(leaf.tobytes())}
        for name, leaf in found.items()
    }
    written = {
        "parameters": sum(leaf.size for leaf in found.values()),
        "sha256": _sha256(data),
        "arrays": arrays,
    }
    text = json.dumps(told | extra | identity | written, indent=2) + "\n"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / ARRAYS, data)
    write_whole(folder / CARD, text.encode())
    return folder / ARRAYS


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file by one that is whole on disk: temporary name, flush, rename.

    Raises:
      OSError: the disk is full or read-only; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too
    finally:
        os.close(folder)


def _plain(value: Any) -> Any:
    """A value as JSON-able data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # an array or a scalar of NumPy or JAX
        return value.tolist()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ObjectiveError(f"card: {value!r} cannot be written as JSON")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("kairos-rl", "jax", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


# --- load -------------------------------------------------------------------------------------


def load(name: str | os.PathLike[str]) -> Saved:
    """An objective ready for use, by name or from disk.

    Args:
      name: one of

        - a shipped objective, see :func:`shipped`;
        - a hand-written rule of :data:`RULES`, such as ``a2c``;
        - a folder that holds ``objective.safetensors`` and ``card.json``: a run;
        - such a ``.safetensors`` file, its card beside it as ``card.json`` or ``<stem>.json``;
        - ``file.py:make`` for your own, which returns an objective, or an objective and its theta;
        - ``file.py:make@runs/a``: arrays trained for a rule of your own. (The card does not say
          where your code is, since nothing that a file says is executed.)

    Returns:
      The objective with its theta, as JAX arrays on the default device.

    Raises:
      UnknownObjective: no such name; the nearest known ones are named.
      ObjectiveFileError: a file is cut, corrupt, of another shape or too large; sizes are checked
        before memory is taken.
      ObjectiveError: your own file fails, or the rule has to be trained first.

    Example:
      >>> load("a2c").theta
      ()
    """
    text = os.fspath(name)
    rule, _, place = text.rpartition("@")
    if _is_file(rule):
        objective = make_rule(rule)
        return _load_path(Path(place), objective)
    if _is_file(text):
        made = _call_own(text, {})
        objective, theta = made if isinstance(made, tuple) else (made, None)
        label = Path(text.rpartition(":")[0]).stem
        return _untrained(label, text, objective, theta)
    shipped_as = _shipped_files(text)
    if shipped_as is not None:
        arrays, card = shipped_as
        with importlib.resources.as_file(arrays) as a, importlib.resources.as_file(card) as c:
            return _load_files(text, a, c, None)
    if text in RULES:
        return _untrained(text, text, make_rule(text), None)
    path = Path(text)
    if os.path.lexists(path):
        return _load_path(path, None)
    if os.sep in text or path.suffix == ".safetensors":
        raise ObjectiveFileError(f"{text}: no such file or folder")
    raise UnknownObjective(_nearest(text, [*RULES, *shipped()], "objective"))


def shipped() -> dict[str, str]:
    """Objectives that come with the package: name -> one line."""
    names = sorted(
        file.name.removesuffix(".json") for file in _pretrained() if file.name.endswith(".json")
    )
    return {name: _summary(name) for name in names if _shipped_files(name)}


def _summary(name: str) -> str:
    files = _shipped_files(name)
    assert files is not None
    try:
        card = json.loads(files[1].read_text(encoding="utf-8"))
        return str(card.get("summary") or "")
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        return f"unreadable card: {_line(error)}"


def _pretrained() -> list[Any]:
    folder = importlib.resources.files("learned_objectives") / "pretrained"
    return list(folder.iterdir()) if folder.is_dir() else []


def _shipped_files(name: str) -> tuple[Any, Any] | None:
    """Arrays and card of a shipped objective, if there is one of this name."""
    files = {file.name: file for file in _pretrained()}
    arrays, card = files.get(f"{name}.safetensors"), files.get(f"{name}.json")
    return (arrays, card) if arrays is not None and card is not None else None


def _untrained(label: str, name: str, objective: Objective, theta: Theta | None) -> Saved:
    """An objective that comes without a file of arrays."""
    expected, _ = _expected(objective)
    if theta is None:
        if expected:
            raise ObjectiveError(
                f"{name} has parameters to be learned and none are given: name a run folder"
                + (f", as {name}@FOLDER" if _is_file(name) else " or a .safetensors file")
            )
        theta = ()
    import numpy as np

    leaves = {k: np.asarray(v) for k, v in _flat(theta)[0].items()}
    if problem := _difference(expected, {k: (v.shape, _dtype(v)) for k, v in leaves.items()}):
        raise ObjectiveError(f"theta of {name} is not what its init gives: {problem}")
    rule, fields = _rule_of(objective)
    identity = json.dumps({"rule": rule, "fields": _printable(fields)}, sort_keys=True).encode()
    for leaf_name, leaf in leaves.items():
        identity += leaf_name.encode() + leaf.tobytes()
    return Saved(label, objective, theta, {}, _sha256(identity))


def _printable(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: repr(value) for name, value in fields.items()}


def _load_path(path: Path, objective: Objective | None) -> Saved:
    """An objective from a run folder or an array file."""
    if path.is_dir():
        arrays, card = path / ARRAYS, path / CARD
        label = path.resolve().name or str(path)
        if not arrays.exists() and not card.exists():
            raise ObjectiveFileError(f"{path}: expected {ARRAYS} and {CARD} in it, found neither")
    else:
        arrays, card = path, path.with_suffix(".json")
        label = path.stem
        if not card.exists() and (path.parent / CARD).exists():
            card = path.parent / CARD
            label = path.resolve().parent.name
    return _load_files(label, arrays, card, objective)


def _load_files(label: str, arrays: Path, card_path: Path, objective: Objective | None) -> Saved:
    card = _read_card(card_path)
    rule, fields = card["rule"], {k: _frozen(v) for k, v in card["fields"].items()}
    if objective is not None:
        objective = _rebuilt(card_path, objective, fields)
    elif rule in RULES:
        try:
            objective = make_rule(rule, **fields)
        except ObjectiveError as error:
            raise ObjectiveFileError(f"{card_path}: fields: {error}") from error
    else:
        raise ObjectiveFileError(
            f"{card_path}: rule {rule!r} is not one of ours ({', '.join(RULES)}), and nothing that "
            f"a file names is executed: if it is yours, ask for FILE.py:MAKE@{arrays.parent}"
        )
    try:
        expected, treedef = _expected(objective)
    except Exception as error:  # sizes that the rule cannot even lay out
        raise ObjectiveFileError(
            f"{card_path}: fields: rule {rule!r} cannot be laid out: {_line(error)}"
        ) from error
    identity = {"format": FORMAT, "rule": rule, "fields": card["fields"]}
    leaves = _read_arrays(arrays, expected, card, card_path, identity)
    import jax
    import jax.numpy as jnp

    theta = jax.tree.unflatten(treedef, [jnp.asarray(leaves[name]) for name in expected])
    return Saved(label, objective, theta, card, card["sha256"])


def _rebuilt(card_path: Path, objective: Any, fields: dict[str, Any]) -> Any:
    """A user's own objective with the fields it was trained with."""
    if not dataclasses.is_dataclass(objective) or not fields:
        return objective
    try:
        return dataclasses.replace(objective, **fields)  # type: ignore[type-var]
    except Exception as error:  # a person's class may raise anything
        raise ObjectiveFileError(
            f"{card_path}: fields do not fit {type(objective).__name__}: {_line(error)}"
        ) from error


def _read_card(path: Path) -> dict[str, Any]:
    """A card, with the fields that loading needs checked."""
    with _opened(path) as (file, size):
        if size > _MAX_CARD:
            raise ObjectiveFileError(f"{path}: expected at most {_MAX_CARD} bytes, found {size}")
        data = file.read(_MAX_CARD)
    try:
        card = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ObjectiveFileError(f"{path}: is not JSON: {_line(error)}") from None
    if not isinstance(card, dict):
        raise ObjectiveFileError(f"{path}: expected an object, found {_kind(card)}")
    wanted = {"format": int, "rule": str, "fields": dict, "sha256": str, "arrays": dict}
    for name, kind in wanted.items():
        if name not in card:
            raise ObjectiveFileError(f"{path}: expected a field {name!r}, found none")
        if type(card[name]) is not kind:
            raise ObjectiveFileError(
                f"{path}: {name}: expected {kind.__name__}, found {_kind(card[name])}"
            )
    if card["format"] != FORMAT:
        raise ObjectiveFileError(f"{path}: format: expected {FORMAT}, found {card['format']}")
    for name, value in card["fields"].items():
        if isinstance(value, int | float) and abs(value) > _MAX_FIELD and not math.isinf(value):
            raise ObjectiveFileError(
                f"{path}: fields.{name}: expected at most {_MAX_FIELD}, found {_short(value)}"
            )
    return card


class _Span(NamedTuple):
    """Where a leaf lies in an array file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _read_arrays(
    path: Path,
    expected: dict[str, tuple[tuple[int, ...], str]],
    card: dict[str, Any],
    card_path: Path,
    identity: dict[str, Any],
) -> dict[str, Any]:
    """The leaves of an array file, after everything about it was found as expected."""
    import safetensors
    import safetensors.numpy

    sizes = {name: math.prod(shape) * _width(dtype) for name, (shape, dtype) in expected.items()}
    if sum(sizes.values()) > _MAX_BYTES:
        raise ObjectiveFileError(
            f"{card_path}: fields: the objective would take {sum(sizes.values())} bytes, "
            f"expected at most {_MAX_BYTES}"
        )
    with _opened(path) as (file, size):
        header, start = _header(path, file, size)
        metadata = header.pop("__metadata__", None)
        spans = {name: _span(path, name, entry) for name, entry in header.items()}
        if problem := _difference(expected, {n: (s.shape, s.dtype) for n, s in spans.items()}):
            raise ObjectiveFileError(f"{path}: {problem}")
        whole = start + sum(sizes.values())
        if size != whole:
            where = _cut_at(spans, size - start)
            raise ObjectiveFileError(f"{path}: {where}expected {whole} bytes, found {size}")
        file.seek(0)
        data = file.read(whole)
    if _sha256(data) != card["sha256"]:
        raise ObjectiveFileError(
            f"{path}: {_damaged(spans, data[start:], card['arrays'])}expected SHA-256 "
            f"{_short(card['sha256'])} as {card_path.name} says, found {_sha256(data)}"
        )
    told = metadata.get("objective") if isinstance(metadata, dict) else None
    if told != json.dumps(identity, sort_keys=True):
        raise ObjectiveFileError(
            f"{card_path}: rule and fields: expected those the arrays were saved with, "
            f"{_short(told)}, found {_short(json.dumps(identity, sort_keys=True))}"
        )
    try:
        return safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise ObjectiveFileError(f"{path}: {_line(error)}") from None


def _header(path: Path, file: IO[bytes], size: int) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its arrays begin."""
    if size < 8:
        raise ObjectiveFileError(f"{path}: expected a header, found {size} bytes")
    length = int.from_bytes(file.read(8), "little")
    limit = min(_MAX_HEADER, size - 8)
    if length > limit:
        raise ObjectiveFileError(
            f"{path}: expected a header of at most {limit} bytes, found one that says {length}"
        )
    try:
        header = json.loads(file.read(length).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ObjectiveFileError(f"{path}: header is not JSON: {_line(error)}") from None
    if not isinstance(header, dict):
        raise ObjectiveFileError(f"{path}: header: expected an object, found {_kind(header)}")
    return header, 8 + length


def _span(path: Path, name: str, entry: Any) -> _Span:
    """A leaf's entry in the header, checked."""
    wanted = ("dtype", "shape", "data_offsets")
    if isinstance(entry, dict) and set(wanted) <= set(entry):
        dtype, shape, offsets = (entry[key] for key in wanted)
        sizes = _are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2
        if sizes and isinstance(dtype, str):
            return _Span(dtype, tuple(shape), offsets[0], offsets[1])
    raise ObjectiveFileError(
        f"{path}: leaf {_short(name)}: expected a dtype, a shape and offsets, found {_short(entry)}"
    )


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _cut_at(spans: Mapping[str, _Span], length: int) -> str:
    """The first leaf that a cut file has lost, as the beginning of a message."""
    lost = [
        name for name, span in sorted(spans.items(), key=lambda s: s[1].begin) if span.end > length
    ]
    return f"cut in leaf {lost[0]!r}: " if lost else ""


def _damaged(spans: Mapping[str, _Span], body: bytes, arrays: Mapping[str, Any]) -> str:
    """The first leaf that is not what its card says, as the beginning of a message."""
    for name, span in spans.items():
        told = arrays.get(name)
        if not isinstance(told, dict) or told.get("sha256") != _sha256(body[span.begin : span.end]):
            return f"leaf {name!r}: "
    return ""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """A regular file and its size; what the disk says becomes an error of ours."""
    try:
        with open(path, "rb", opener=_open_now) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ObjectiveFileError(f"{path}: expected a file, found something else")
            yield file, status.st_size
    except OSError as error:
        raise ObjectiveFileError(f"{path}: cannot be read: {error.strerror or error}") from None


def _open_now(path: str, flags: int) -> int:
    """Open without waiting: a named pipe would block until somebody writes."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


# --- trees, names, lines ----------------------------------------------------------------------


def _flat(tree: Any) -> tuple[dict[str, Any], Any]:
    """Leaves of a tree under flat names (``cell/wx``), in the tree's order, and its structure."""
    import jax

    paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    flat: dict[str, Any] = {}
    for path, leaf in paths:
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "theta"
        if name in flat or name == "__metadata__":
            raise ObjectiveError(f"theta: two leaves would be called {name!r}")
        flat[name] = leaf
    return flat, treedef


def _expected(objective: Objective) -> tuple[dict[str, tuple[tuple[int, ...], str]], Any]:
    """Shape and dtype of each leaf of an objective's theta, computed without any array."""
    import jax

    key = jax.eval_shape(jax.random.key, 0)
    flat, treedef = _flat(jax.eval_shape(objective.init, key))
    return {name: (tuple(leaf.shape), _dtype(leaf)) for name, leaf in flat.items()}, treedef


def _difference(
    expected: Mapping[str, tuple[tuple[int, ...], str]],
    found: Mapping[str, tuple[tuple[int, ...], str]],
) -> str | None:
    """The first leaf that is not as expected, in words."""
    for name, (shape, dtype) in expected.items():
        if name not in found:
            return f"leaf {name!r}: expected {dtype} {list(shape)}, found none"
        if found[name] != (shape, dtype):
            found_shape, found_dtype = found[name]
            return (
                f"leaf {name!r}: expected {dtype} {list(shape)}, "
                f"found {found_dtype} {_short(list(found_shape))}"
            )
    for name in found:
        if name not in expected:
            return f"leaf {_short(name)}: expected none, found one"
    return None


def _dtype(leaf: Any) -> str:
    """A leaf's dtype as array files spell it."""
    name = str(leaf.dtype)
    if name not in _DTYPES:
        raise ObjectiveError(f"theta: arrays of {name} cannot be saved")
    return _DTYPES[name]


def _width(dtype: str) -> int:
    """Bytes of one element."""
    return 1 if dtype == "BOOL" else int(dtype[1:]) // 8


def _frozen(value: Any) -> Any:
    """JSON lists as tuples: the fields of a rule are hashable."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _kind(value: Any) -> str:
    return {"NoneType": "null", "dict": "an object", "list": "a list"}.get(
        type(value).__name__, f"{type(value).__name__} {_short(value)}"
    )


def _short(value: Any) -> str:
    """A value on one line of bounded length."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = f"an integer of {value.bit_length()} bits"
    return text if len(text) <= 120 else f"{text[:117]}..."


def _line(error: BaseException) -> str:
    """An exception on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


def _nearest(name: str, known: Iterable[str], what: str) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(sorted(names))}"
    return f"unknown {what} {name!r}; {hint}"
