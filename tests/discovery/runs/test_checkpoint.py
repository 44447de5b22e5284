"""Checkpoints: whole, verified, and never a traceback of the store's."""

import json
import resource
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from discovery.inner.cohort import AXIS, population_mesh
from discovery.runs import checkpoint
from discovery.runs.errors import CheckpointError

# A read that Orbax has dropped may end after its event loop was closed: in a thread of the store's,
# whenever it likes, so in whichever test is running then.
pytestmark = pytest.mark.filterwarnings(
    "ignore:(?s)Exception ignored in. None.*Event loop is closed"
    ":pytest.PytestUnraisableExceptionWarning"
)


class State(NamedTuple):
    theta: Any
    optimizer: Any
    key: Any
    generation: Any


def state_at(generation: int) -> State:
    theta = {
        "wide": jax.random.normal(jax.random.key(generation), (200, 500)),
        "half": jnp.ones(3, jnp.bfloat16),
        "nothing": (),
    }
    return State(
        theta,
        optax.adam(0.1).init(theta),
        jax.random.split(jax.random.key(generation), 2),
        jnp.int32(generation),
    )


def abstract(state: State) -> State:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


def data(leaf: Any) -> np.ndarray:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_same(a: State, b: State) -> None:
    assert str(jax.tree.structure(a)) == str(jax.tree.structure(b))
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(data(left), data(right))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints"
    checkpoint.save(folder, 0, state_at(0))
    checkpoint.save(folder, 5, state_at(5), {"steps": 1.5})
    return folder


def test_newest_comes_back_whole(store: Path) -> None:
    found = checkpoint.restore(store, abstract(state_at(1)))
    assert found is not None
    assert (found.generation, found.progress, found.notes) == (5, {"steps": 1.5}, [])
    assert_same(found.state, state_at(5))
    assert not any(getattr(leaf, "weak_type", False) for leaf in jax.tree.leaves(found.state))


def test_arrays_go_where_the_abstract_tree_says(tmp_path: Path) -> None:
    split = NamedSharding(population_mesh(2), PartitionSpec(AXIS))
    assert len(split.device_set) > 1
    checkpoint.save(tmp_path, 3, {"lives": jnp.arange(8)})
    wanted = {"lives": jax.ShapeDtypeStruct((8,), jnp.int32, sharding=split)}
    found = checkpoint.restore(tmp_path, wanted)
    assert found is not None
    assert found.state["lives"].sharding == split
    checkpoint.save(tmp_path, 4, found.state)
    again = checkpoint.restore(tmp_path, wanted)
    assert again is not None
    np.testing.assert_array_equal(np.asarray(again.state["lives"]), np.arange(8))


def test_oldest_are_removed(store: Path) -> None:
    (store / "3.removed").mkdir()
    (store / "3.orbax-checkpoint-tmp").mkdir()
    checkpoint.save(store, 10, state_at(10), keep=2)
    assert sorted(entry.name for entry in store.iterdir()) == ["10", "5"]


def test_nothing_is_written_over(store: Path) -> None:
    with pytest.raises(CheckpointError, match="5 exists; it is not written over"):
        checkpoint.save(store, 5, state_at(6))
    found = checkpoint.restore(store, abstract(state_at(0)))
    assert found is not None
    assert_same(found.state, state_at(5))


def test_none_and_incomplete_ones(tmp_path: Path) -> None:
    assert checkpoint.restore(tmp_path / "none", {}) is None
    (tmp_path / "7.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "8" / "state").mkdir(parents=True)
    assert checkpoint.restore(tmp_path, {}) is None
    checkpoint.save(tmp_path, 1, {"x": jnp.ones(2)})
    (tmp_path / "8.orbax-checkpoint-tmp").mkdir()
    found = checkpoint.restore(
        tmp_path, {"x": jax.ShapeDtypeStruct((2,), jnp.float32, sharding=jnp.ones(2).sharding)}
    )
    assert found is not None
    assert found.generation == 1
    assert found.notes == [
        f"skipped an incomplete checkpoint: {tmp_path / name}"
        for name in ("8", "8.orbax-checkpoint-tmp")
    ]


def test_an_older_one_can_be_chosen(store: Path) -> None:
    found = checkpoint.restore(store, abstract(state_at(0)), 0)
    assert found is not None
    assert_same(found.state, state_at(0))
    with pytest.raises(CheckpointError, match="has no checkpoint 4; there are: 0, 5"):
        checkpoint.restore(store, abstract(state_at(0)), 4)
    assert checkpoint.set_aside(store, 0) == [
        f"checkpoint 5 was set aside as {store}/set-aside/5-0"
    ]
    assert checkpoint.complete(store) == ([0], [])
    checkpoint.save(store, 5, state_at(5))
    shutil.rmtree(store / "5" / "state")  # incomplete, and in the way of the next 5
    assert checkpoint.set_aside(store, 0)[0].endswith("5-1")
    assert checkpoint.set_aside(store / "none", 0) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_every_damage_is_named(
    store: Path,
    damage: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted, named = abstract(state_at(0)), []
    for path in sorted(p for p in (store / "5").rglob("*") if p.is_file()):
        whole = path.read_bytes()
        if not whole and damage != "gone":
            continue
        middle = len(whole) // 2
        if damage == "flip":
            path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :])
        elif damage == "cut":
            path.write_bytes(whole[:middle])
        else:
            path.unlink()
        with pytest.raises(CheckpointError) as caught:
            checkpoint.restore(store, wanted)
        assert str(caught.value).startswith(f"{store}/5/"), caught.value
        assert "\n" not in str(caught.value)
        assert caught.value.generation == 5
        named.append(str(caught.value))
        assert checkpoint.broken(store / "5"), path
        assert checkpoint.next_best(store, 9) == 0
        path.write_bytes(whole)
    assert checkpoint.next_best(store, 9) == 5
    # The big file of arrays, the manifest and what nobody reads are each missed.
    assert any(f"{store}/5/meta is damaged" in line for line in named)
    wide = "/5/state/theta.wide/0.0 is damaged: leaf theta/wide: expected"
    assert any(wide in line for line in named)
    assert any("/5/_CHECKPOINT_METADATA is damaged: expected" in line for line in named)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_flip_that_the_store_does_not_notice(store: Path) -> None:
    """Values changed behind a manifest: what was expected and what was found."""
    (store / "5").rename(store / "true")
    checkpoint.save(store, 5, state_at(6))
    true = (store / "true" / "meta" / "metadata").read_text()
    (store / "5" / "meta" / "metadata").write_text(true)
    with pytest.raises(CheckpointError, match="5/meta/metadata is damaged: expected "):
        checkpoint.restore(store, abstract(state_at(0)))
    checkpoint._seal(store / "5")
    with pytest.raises(
        CheckpointError,
        match=r"5/state is damaged: leaf theta/wide: expected float32\[200, 500\] with SHA-256 "
        r"\w{12}, found float32\[200, 500\] with SHA-256 \w{12}$",
    ):
        checkpoint.restore(store, abstract(state_at(0)))


def test_a_changed_manifest_is_noticed(store: Path) -> None:
    path = store / "5" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    meta["progress"]["steps"] = 2.5
    path.write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match="5/meta is damaged: its SHA-256 differs"):
        checkpoint.restore(store, abstract(state_at(0)))
    path.write_text(json.dumps(checkpoint.sealed(meta | {"format": 99})))
    with pytest.raises(
        CheckpointError, match="has format 99, expected 2: it is of a newer version"
    ):
        checkpoint.restore(store, abstract(state_at(0)))


def test_a_checkpoint_under_the_name_of_another(store: Path) -> None:
    (store / "5").rename(store / "7")
    with pytest.raises(
        CheckpointError, match=r"another checkpoint: expected generation 7, found 5"
    ):
        checkpoint.restore(store, abstract(state_at(0)))


@pytest.mark.parametrize(
    ("theta", "line"),
    [
        (
            {"wide": (200, 400)},
            r"leaf theta/wide: expected float32\[200, 400\], found float32\[200",
        ),
        ({"other": (2,)}, r"leaf theta/other: expected float32\[2\], found no such leaf"),
        ({}, r"leaf theta/half: expected no such leaf, found bfloat16\[3\]"),
    ],
)
def test_another_shape_is_named(store: Path, theta: dict[str, tuple[int, ...]], line: str) -> None:
    there = abstract(state_at(0))
    leaves = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=there.generation.sharding)
        for name, shape in theta.items()
    }
    kept = there.theta if theta else {}
    with pytest.raises(CheckpointError, match=f"5 is of another shape: {line}"):
        checkpoint.restore(store, there._replace(theta={**kept, **leaves}))


def test_disk_full_leaves_the_last_one_usable(
    store: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*10: File too large$"):
            checkpoint.save(store, 10, state_at(10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = checkpoint.restore(store, abstract(state_at(0)))
    assert found is not None
    assert_same(found.state, state_at(5))
    checkpoint.save(store, 10, state_at(10))
    assert checkpoint.latest(store) == 10
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*: Not a directory"):
        checkpoint.save(tmp_path / "file" / "checkpoints", 0, {"x": jnp.ones(1)})


def test_whatever_the_store_raises_is_one_line(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("No space left on device [errno 28]\nand much more")

    monkeypatch.setattr(ocp.Checkpointer, "save", fail)
    with pytest.raises(CheckpointError, match=r"checkpoint .*/9: No space left on device$"):
        checkpoint.save(store, 9, state_at(9))
    assert checkpoint.latest(store) == 5


def test_a_state_may_have_gained_parts_without_leaves(tmp_path: Path) -> None:
    """What was written before a state had room for more still comes back."""
    checkpoint.save(tmp_path, 1, {"x": jnp.arange(3), "was": ()})
    one = jax.ShapeDtypeStruct((3,), jnp.int32, sharding=jnp.ones(3).sharding)
    found = checkpoint.restore(tmp_path, {"x": one, "agents": (), "more": {"deep": ()}})
    assert found is not None
    assert found.state["x"].tolist() == [0, 1, 2]
    assert (found.state["agents"], found.state["more"]) == ((), {"deep": ()})
    with pytest.raises(CheckpointError, match=r"agents/0: expected int32\[3\], found no such"):
        checkpoint.restore(tmp_path, {"x": one, "agents": (one,)})


@pytest.mark.parametrize("name", ["theta", "key"])
def test_a_leaf_that_the_store_forgot_is_named(store: Path, name: str) -> None:
    """Under a seal that knows no better."""
    path = store / "5" / "state" / "_METADATA"
    index = json.loads(path.read_text())
    gone = [leaf for leaf in index["tree_metadata"] if leaf.startswith(f"('{name}'")]
    del index["tree_metadata"][gone[-1]]
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"5/state/_METADATA is damaged: expected \d+ bytes"):
        checkpoint.restore(store, abstract(state_at(0)))
    checkpoint._seal(store / "5")
    leaf = {"theta": "theta/wide", "key": "key"}[name]
    with pytest.raises(CheckpointError, match=f"5/state is damaged: leaf {leaf} is not there"):
        checkpoint.restore(store, abstract(state_at(0)))
