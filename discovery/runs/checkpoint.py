"""The whole search state on disk, verified leaf by leaf when it is read.

A checkpoint is written under a temporary name and renamed, so one that has its name is complete.
Orbax does not notice a flipped bit: beside the state every checkpoint therefore holds a manifest
with a SHA-256 of each leaf and of itself, and a seal with a SHA-256 of each file. ::

    checkpoints/50/state/      the arrays (Orbax)
    checkpoints/50/meta/       manifest of the leaves, and the host's own progress (JSON)
    checkpoints/50/seal.json   size and SHA-256 of every file of these two

The arrays are those of the host, a key as its bits: where they stood is no part of them, so that
any number of processes and devices can go on. Where there are several processes, each reads by
itself and one writes.

JAX and Orbax are imported by the functions that need them.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from discovery.runs.errors import CheckpointError, first_line
from learned_objectives.library import write_whole

FORMAT = 2
"""1 had no seal, and arrays that knew their devices; it can still be read by one process."""
ASIDE = "set-aside"
REMOVED = ".removed"
WRITING = ".writing"
SEAL = "seal.json"


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
    path = folder / str(generation)
    host = on_host(state)
    meta = sealed(
        {
            "format": FORMAT,
            "generation": generation,
            "leaves": [leaf._asdict() for leaf in manifest(state)],
            "progress": dict(progress or {}),
        }
    )
    if path.exists():
        raise CheckpointError(f"{path} exists; it is not written over")

    def write() -> None:
        import orbax.checkpoint as ocp

        folder.mkdir(parents=True, exist_ok=True)
        unnamed = folder.resolve() / f"{generation}{WRITING}"
        with _store() as store:
            items = ocp.args.Composite(
                state=ocp.args.PyTreeSave(host), meta=ocp.args.JsonSave(meta)
            )
            store.save(unnamed, args=items)
        _seal(unnamed)
        unnamed.rename(path)
        _sync(folder)

    _sweep(folder)
    _, problem = _attempt(write)
    if problem:
        raise CheckpointError(f"cannot write checkpoint {path}: {problem}")
    _prune(folder, keep)
    return path


def _store() -> Any:
    """Orbax, by this process alone: it would otherwise wait for all others at every step."""
    import orbax.checkpoint as ocp

    from discovery import devices

    alone: dict[str, Any] = {}
    if devices.processes() > 1:
        me = devices.index()
        alone["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"kairos{me}"
        )
    # A file for every array, so that a damaged file names its leaf.
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(**alone),
        state=ocp.PyTreeCheckpointHandler(use_ocdbt=False, **alone),
        meta=ocp.JsonCheckpointHandler(**alone),
    )
    return ocp.Checkpointer(handler, **alone)


def on_host(state: Any) -> Any:
    """A tree of arrays as arrays of NumPy, each key as its bits."""
    import jax

    return jax.tree.map(_bits, state)


def _bits(leaf: Any) -> Any:
    import jax
    import numpy as np

    is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    data = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    return np.ascontiguousarray(data).reshape(data.shape)  # of a scalar it would make a vector


def next_best(folder: Path, before: int) -> int | None:
    """The newest checkpoint before a generation of which no file differs from its seal."""
    older = [generation for generation in complete(folder)[0] if generation < before]
    sound = [generation for generation in older if not broken(folder / str(generation))]
    # Those of earlier versions have no seal: whether they are whole is known once they are read.
    unsealed = [
        generation for generation in older if not (folder / str(generation) / SEAL).exists()
    ]
    return next(iter([*sound, *unsealed]), None)


# --- the seal ---------------------------------------------------------------------------------


def _seal(path: Path) -> None:
    """Write down every file of a checkpoint; from then on a byte that differs is noticed."""
    files = {
        file.relative_to(path).as_posix(): [file.stat().st_size, _file_digest(file)]
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != SEAL
    }
    write_whole(path / SEAL, (json.dumps(sealed({"files": files}), indent=2) + "\n").encode())


def broken(path: Path) -> str:
    """What differs from the seal of a checkpoint, in words; nothing if all is as it was written.

    Example:
      ``state/d/3f: expected 812 bytes, found 400``
    """
    try:
        seal = json.loads((path / SEAL).read_bytes())
        if sealed(seal)["sha256"] != seal["sha256"]:
            return f"{SEAL}: its SHA-256 differs"
        for name, (size, digest) in seal["files"].items():
            file = path / name
            if not file.is_file():
                return f"{name}: expected a file, found none"
            if file.stat().st_size != size:
                return f"{name}: expected {size} bytes, found {file.stat().st_size}"
            if (found := _file_digest(file)) != digest:
                return f"{name}: expected SHA-256 {digest[:12]}, found {found[:12]}"
    except OSError as error:
        return f"{SEAL if error.filename is None else Path(error.filename).name}: {error.strerror}"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return f"{SEAL}: {first_line(error)}"
    return ""


def _file_digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Wait until the disk has the names in a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
        if entry.suffix in (REMOVED, WRITING, ".orbax-checkpoint-tmp"):
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
    sealed_too = meta["format"] > 1
    if sealed_too and (problem := broken(path)):
        name, _, what = problem.partition(": ")
        leaf = next((leaf.path for leaf in expected if name.startswith(_folder(leaf))), "")
        told = f"leaf {leaf}: {what}" if leaf else what
        raise CheckpointError(f"{path / name} is damaged: {told}", chosen)
    state = _read_state(path, chosen, abstract, sealed_too)
    for want, have in zip(expected, manifest(state, abstract), strict=True):
        if want != have:
            raise CheckpointError(
                f"{path / 'state'} is damaged: leaf {want.path}: expected {_kind(want)}, "
                f"found {_kind(have)}",
                chosen,
            )
    placed = _placed(state, abstract) if sealed_too else state
    return Restored(chosen, placed, meta["progress"], notes)


def _folder(leaf: Leaf) -> str:
    """Where the files of a leaf are."""
    return f"state/{leaf.path.replace('/', '.')}/"


def _plain(abstract: Any) -> Any:
    """Shapes and types of an abstract tree on the host, a key as its bits."""
    import jax

    def plain(leaf: Any) -> Any:
        bare = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.eval_shape(jax.random.key_data, bare) if is_key else bare

    return jax.tree.map(plain, abstract)


def _placed(state: Any, abstract: Any) -> Any:
    """Arrays of the host where an abstract tree wants them."""
    import jax

    from discovery.devices import put

    def placed(leaf: Any, wanted: Any) -> Any:
        if jax.numpy.issubdtype(wanted.dtype, jax.dtypes.prng_key):
            leaf = jax.random.wrap_key_data(jax.numpy.asarray(leaf), impl="threefry2x32")
        return put(leaf, wanted.sharding)

    return jax.tree.map(placed, state, abstract)


def _read(path: Path, **items: Any) -> tuple[Any, str]:
    """Items of a checkpoint, or what is wrong with them."""
    import orbax.checkpoint as ocp

    def read() -> Any:
        with _store() as store:
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
    known = meta.get("format")
    if known not in range(1, FORMAT + 1):
        newer = isinstance(known, int) and known > FORMAT
        raise CheckpointError(
            f"{path / 'meta'} has format {known}, expected {FORMAT}: "
            f"it is of {'a newer' if newer else 'another'} version of Kairos",
            generation,
        )
    try:
        leaves = [Leaf(**leaf) for leaf in meta["leaves"]]
        whole = isinstance(meta["progress"], dict) and all(leaf.path for leaf in leaves)
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise CheckpointError(
            f"{path / 'meta'} is damaged: expected leaves and progress, found something else",
            generation,
        )
    if meta.get("generation") != generation:
        raise CheckpointError(
            f"{path} is another checkpoint: expected generation {generation}, "
            f"found {meta.get('generation')}",
            generation,
        )
    return meta


def _read_state(path: Path, generation: int, abstract: Any, plain: bool) -> Any:
    """The state, where an abstract tree wants it or, if it is ``plain``, on the host."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    if plain:
        wanted = _plain(abstract)
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    else:
        wanted, how = abstract, ocp.checkpoint_utils.construct_restore_args(abstract)
    # Partial, because Orbax would also compare parts that hold no leaf: a state may have more of
    # these than when it was written. A leaf that is not there is then left as it was asked.
    items, problem = _read(
        path, state=ocp.args.PyTreeRestore(wanted, restore_args=how, partial_restore=True)
    )
    if not problem:
        for place, leaf in jax.tree_util.tree_flatten_with_path(items.state)[0]:
            if isinstance(leaf, jax.ShapeDtypeStruct):
                problem = f"leaf {_name(place)} is not there"
    if problem:
        raise CheckpointError(f"{path / 'state'} is damaged: {problem}", generation)
    return items.state


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


def manifest(state: Any, like: Any = None) -> list[Leaf]:
    """Path, dtype, shape, bytes and SHA-256 of every leaf of a tree, in the tree's order.

    Args:
      state: arrays, or those of :func:`on_host`.
      like: has the types and shapes of the state's leaves, if it is not the state itself.
    """
    import jax

    leaves = []
    kinds = jax.tree_util.tree_flatten_with_path(state if like is None else like)[0]
    for (place, leaf), value in zip(kinds, jax.tree.leaves(state), strict=True):
        data = _bits(value)
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
