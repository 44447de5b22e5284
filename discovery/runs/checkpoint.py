"""The whole search state on disk, verified leaf by leaf when it is read.

Orbax writes a checkpoint under a temporary name and renames it, so one that has its name is
complete. It does not notice a flipped bit: beside the state every checkpoint therefore holds a
manifest with a SHA-256 of each leaf and of itself. ::

    checkpoints/50/state/     the arrays (Orbax)
    checkpoints/50/meta/      manifest of the leaves, and the host's own progress (JSON)

JAX and Orbax are imported by the functions that need them.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from discovery.runs.errors import CheckpointError, first_line

FORMAT = 1
ASIDE = "set-aside"
REMOVED = ".removed"


class Restored(NamedTuple):
    """What a checkpoint held."""

    generation: int
    state: Any
    """The search state, every leaf strongly typed and placed as the abstract tree says."""
    progress: dict[str, Any]
    """What the host had saved beside it."""
    notes: list[str]
    """Lines that a person should see."""


class Leaf(NamedTuple):
    """What a manifest says of one array."""

    path: str
    dtype: str
    shape: list[int]
    bytes: int
    sha256: str


def complete(folder: Path) -> tuple[list[int], list[str]]:
    """Checkpoints of a folder that were written to their end.

    Returns:
      Their generations, newest first, and a line for each incomplete one.
    """
    found, notes = [], []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if entry.name.isdecimal() and (entry / "state").is_dir() and (entry / "meta").is_dir():
            found.append(int(entry.name))
        elif entry.is_dir() and entry.name != ASIDE and entry.suffix != REMOVED:
            notes.append(f"skipped an incomplete checkpoint: {entry}")
    return sorted(found, reverse=True), notes


def latest(folder: Path) -> int | None:
    """Generation of the newest complete checkpoint, if there is one."""
    found, _ = complete(folder)
    return found[0] if found else None


def save(
    folder: Path,
    generation: int,
    state: Any,
    progress: Mapping[str, Any] | None = None,
    keep: int = 3,
) -> Path:
    """Write a checkpoint; the oldest are removed once it is complete.

    Args:
      folder: of the checkpoints; made if it does not exist.
      generation: completed so far; one that is there already is not written over.
      state: a tree of arrays.
      progress: JSON-able data to find beside it.
      keep: complete checkpoints that stay.

    Returns:
      The folder of this checkpoint.

    Raises:
      CheckpointError: it could not be written; those before it are untouched.
    """
    import orbax.checkpoint as ocp

    path = folder.resolve() / str(generation)
    meta = sealed(
        {
            "format": FORMAT,
            "generation": generation,
            "leaves": [leaf._asdict() for leaf in manifest(state)],
            "progress": dict(progress or {}),
        }
    )
    if path.exists():
        raise CheckpointError(f"{folder / str(generation)} exists; it is not written over")

    def write() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as store:
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
            )
            store.save(path, args=items)

    _sweep(folder)
    _, problem = _attempt(write)
    if problem:
        raise CheckpointError(f"cannot write checkpoint {folder / str(generation)}: {problem}")
    _prune(folder, keep)
    return folder / str(generation)


def _prune(folder: Path, keep: int) -> None:
    """Remove the oldest checkpoints.

    Renamed first: a removal that is cut off must not leave a checkpoint with a hole in it.
    """
    old, _ = complete(folder)
    for generation in old[max(keep, 1) :]:
        (folder / str(generation)).rename(folder / f"{generation}{REMOVED}")
    _sweep(folder)


def _sweep(folder: Path) -> None:
    """Remove what kills left behind."""
    for entry in folder.iterdir() if folder.is_dir() else []:
        if entry.suffix in (REMOVED, ".orbax-checkpoint-tmp"):
            shutil.rmtree(entry, ignore_errors=True)


def set_aside(folder: Path, after: int) -> list[str]:
    """Move checkpoints newer than a generation out of the way, so that none is written over.

    Returns:
      A line for each.
    """
    entries = folder.iterdir() if folder.is_dir() else ()
    # Incomplete ones too: a folder with a hole in it would be in the way for ever.
    there = [int(entry.name) for entry in entries if entry.name.isdecimal()]
    notes = []
    for generation in sorted(there, reverse=True):
        if generation > after:
            aside = folder / ASIDE
            aside.mkdir(exist_ok=True)
            number = sum(1 for entry in aside.iterdir() if entry.name.startswith(f"{generation}-"))
            target = aside / f"{generation}-{number}"
            (folder / str(generation)).rename(target)
            notes.append(f"checkpoint {generation} was set aside as {target}")
    return notes


def restore(folder: Path, abstract: Any, generation: int | None = None) -> Restored | None:
    """Read the newest complete checkpoint, and verify every leaf of it.

    Args:
      folder: of the checkpoints.
      abstract: tree of ``jax.ShapeDtypeStruct`` with shardings.
      generation: a certain one instead of the newest.

    Returns:
      What it held, or ``None`` where there is no complete checkpoint.

    Raises:
      CheckpointError: it is damaged, or of another shape: the first leaf that differs is named.
    """
    found, notes = complete(folder)
    if generation is not None and generation not in found:
        known = ", ".join(map(str, reversed(found))) or "none"
        raise CheckpointError(f"{folder} has no checkpoint {generation}; there are: {known}")
    if not found:
        return None
    chosen = found[0] if generation is None else generation
    path = folder / str(chosen)
    meta = _read_meta(path, chosen)
    expected = [Leaf(**leaf) for leaf in meta["leaves"]]
    _check_shapes(path, chosen, expected, abstract)
    state = _read_state(path, chosen, abstract)
    for want, have in zip(expected, manifest(state), strict=True):
        if want != have:
            raise CheckpointError(
                f"{path / 'state'} is damaged: leaf {want.path}: expected {_kind(want)}, "
                f"found {_kind(have)}",
                chosen,
            )
    return Restored(chosen, state, meta["progress"], notes)


def _read(path: Path, **items: Any) -> tuple[Any, str]:
    """Items of a checkpoint, or what is wrong with them."""
    import orbax.checkpoint as ocp

    def read() -> Any:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as store:
            return store.restore(path.resolve(), args=ocp.args.Composite(**items))

    return _attempt(read)


def _read_meta(path: Path, generation: int) -> dict[str, Any]:
    """The manifest of a checkpoint, true to its own SHA-256."""
    import orbax.checkpoint as ocp

    items, problem = _read(path, meta=ocp.args.JsonRestore())
    if problem:
        raise CheckpointError(f"{path / 'meta'} is damaged: {problem}", generation)
    meta = items.meta
    if not isinstance(meta, dict) or sealed(meta)["sha256"] != meta.get("sha256"):
        raise CheckpointError(f"{path / 'meta'} is damaged: its SHA-256 differs", generation)
    if meta.get("format") != FORMAT:
        raise CheckpointError(
            f"{path / 'meta'} has format {meta.get('format')}, expected {FORMAT}", generation
        )
    return meta


def _read_state(path: Path, generation: int, abstract: Any) -> Any:
    """The state; where it cannot be read, leaf after leaf, to name the first that cannot."""
    import jax
    import orbax.checkpoint as ocp

    def read(tree: Any) -> tuple[Any, str]:
        # Partial, because Orbax would also compare parts that hold no leaf: a state may have more
        # of these than when it was written. A leaf that is not there is then left as it was asked.
        how = ocp.checkpoint_utils.construct_restore_args(tree)
        args = ocp.args.PyTreeRestore(tree, restore_args=how, partial_restore=True)
        items, problem = _read(path, state=args)
        leaves = [] if problem else jax.tree.leaves(items.state)
        missing = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
        return items, "it is not there" if missing else problem

    items, whole = read(abstract)
    if not whole:
        return items.state
    for place, _ in jax.tree_util.tree_flatten_with_path(abstract)[0]:
        part = jax.tree_util.tree_map_with_path(
            lambda p, leaf, place=place: leaf if p == place else ocp.PLACEHOLDER, abstract
        )
        _, problem = read(part)
        if problem:
            raise CheckpointError(
                f"{path / 'state'} is damaged: leaf {_name(place)} cannot be read ({problem})",
                generation,
            )
    raise CheckpointError(f"{path / 'state'} is damaged: {whole}", generation)


def _check_shapes(path: Path, generation: int, expected: list[Leaf], abstract: Any) -> None:
    """Refuse a checkpoint of another search before anything is read."""
    import jax

    wanted = {
        _name(place): (str(leaf.dtype), list(leaf.shape))
        for place, leaf in jax.tree_util.tree_flatten_with_path(abstract)[0]
    }
    found = {leaf.path: (leaf.dtype, list(leaf.shape)) for leaf in expected}
    for name in [*wanted, *(name for name in found if name not in wanted)]:
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"{path} is of another shape: leaf {name}: expected {_words(wanted.get(name))}, "
                f"found {_words(found.get(name))}",
                generation,
            )


def _words(leaf: tuple[str, list[int]] | None) -> str:
    return "no such leaf" if leaf is None else f"{leaf[0]}{leaf[1]}"


def _kind(leaf: Leaf) -> str:
    return f"{leaf.dtype}{leaf.shape} with SHA-256 {leaf.sha256[:12]}"


def manifest(state: Any) -> list[Leaf]:
    """Path, dtype, shape, bytes and SHA-256 of every leaf of a tree, in the tree's order."""
    import jax
    import numpy as np

    leaves = []
    for place, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        data = np.ascontiguousarray(jax.random.key_data(leaf) if is_key else leaf)
        leaves.append(
            Leaf(
                path=_name(place),
                dtype=str(leaf.dtype),
                shape=list(leaf.shape),
                bytes=data.nbytes,
                sha256=hashlib.sha256(data.tobytes()).hexdigest(),
            )
        )
    return leaves


def sealed(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The same data with a SHA-256 of itself."""
    rest = {key: value for key, value in meta.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return rest | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def _name(place: tuple[Any, ...]) -> str:
    import jax

    return jax.tree_util.keystr(place, simple=True, separator="/")


def _attempt(work: Callable[[], Any]) -> tuple[Any, str]:
    """The result of some work of the store, or the one line of whatever it raised.

    When one leaf fails, Orbax logs the traceback of every thread that it stops, and drops reads
    and writes whose errors Python would print as they are collected, some at exit only; only the
    first error is for a person.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = sys.unraisablehook, [logger.disabled for logger in loggers]
    sys.unraisablehook = lambda _: None
    for logger in loggers:
        logger.disabled = True
    try:
        try:
            return work(), ""
        except Exception as error:  # a store may raise anything
            problem = _reason(error)
        logging.getLogger("asyncio").addFilter(_not_of_orbax)
        gc.collect()
        return None, problem
    finally:
        sys.unraisablehook = before[0]
        for logger, disabled in zip(loggers, before[1], strict=True):
            logger.disabled = disabled


def _not_of_orbax(record: logging.LogRecord) -> bool:
    """Whether a record tells of something else than an error inside Orbax."""
    place = record.exc_info[2] if record.exc_info else None
    return not any(
        frame.f_globals.get("__name__", "").startswith("orbax.")
        for frame, _ in traceback.walk_tb(place)
    )


def _reason(error: Exception) -> str:
    text = str(error).lower()
    for known in ("No space left on device", "Disk quota exceeded", "File too large"):
        if known.lower() in text:
            return known
    return first_line(error)
