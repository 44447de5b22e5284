import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given

from learned_objectives import library
from learned_objectives.library import (
    ObjectiveError,
    ObjectiveFileError,
    UnknownObjective,
    load,
    make_rule,
    save,
)
from learned_objectives.lpg import LPG


class Block(NamedTuple):
    w: Any
    b: Any


@dataclass(frozen=True)
class Toy:
    """An objective as far as the library looks at one: static fields and ``init``."""

    width: int = 3
    sizes: tuple[int, ...] = (2, 2)
    scale: float = 1.0

    def init(self, key: jax.Array) -> Any:
        block = Block(jax.random.normal(key, (self.width, 2)), jnp.zeros(self.width))
        return {"cell": block, "heads": (jnp.ones(self.sizes), jnp.asarray(self.scale))}


OWN = """
from dataclasses import dataclass
import jax.numpy as jnp

@dataclass(frozen=True)
class Mine:
    size: int = 2
    heads = {}
    def unsupported(self, spec): return None
    def init(self, key): return {"w": jnp.zeros(self.size)}
    def hyper(self, **overrides): return ()
    def birth(self, theta, hyper, network, params): ...
    def signals(self, *args): ...
    def update(self, *args): ...

def make(**fields): return Mine(**fields)
def trained(): return Mine(), {"w": jnp.ones(2)}
def wrong(): return Mine(), {"w": jnp.ones(3)}
def nothing(): return 3
def fails(): raise RuntimeError("no luck")
"""


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    module = Toy.__module__
    monkeypatch.setitem(sys.modules, module, sys.modules.get(module) or sys.modules[__name__])
    monkeypatch.setitem(library.RULES, "toy", ("a toy", f"{module}:Toy"))
    return Toy()


@pytest.fixture
def saved(toy: Toy, tmp_path: Path) -> Path:
    save(tmp_path / "run", toy, toy.init(jax.random.key(1)), {"name": "run", "scores": {"10": 0.5}})
    return tmp_path / "run"


def edit_card(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | changes))


# --- round trips ------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_loaded(toy: Toy, tmp_path: Path) -> None:
    objective = Toy(width=5, sizes=(1, 4), scale=0.25)
    theta = objective.init(jax.random.key(3))
    path = save(tmp_path / "a", objective, theta, {"trained_by": "us", "seeds": np.arange(2)})
    again = load(tmp_path / "a")
    assert path == tmp_path / "a" / "objective.safetensors"
    assert again.name == "a"
    assert again.objective == objective
    assert jax.tree.structure(again.theta) == jax.tree.structure(theta)
    for ours, theirs in zip(jax.tree.leaves(theta), jax.tree.leaves(again.theta), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert again.card["trained_by"] == "us"
    assert again.card["seeds"] == [0, 1]
    assert again.card["parameters"] == 5 * 2 + 5 + 4 + 1
    assert again.digest == again.card["sha256"]
    assert set(library.CARD_FIELDS) <= set(again.card)
    assert not [file for file in os.listdir(tmp_path / "a") if file.endswith(".tmp")]


def test_other_people_read_the_arrays(saved: Path, toy: Toy) -> None:
    arrays = safetensors.numpy.load_file(saved / "objective.safetensors")
    assert sorted(arrays) == ["cell/b", "cell/w", "heads/0", "heads/1"]
    np.testing.assert_array_equal(arrays["cell/w"], toy.init(jax.random.key(1))["cell"].w)


def test_same_objective_same_bytes(saved: Path, toy: Toy, tmp_path: Path) -> None:
    save(tmp_path / "b", toy, toy.init(jax.random.key(1)), {"notes": "told otherwise"})
    first, second = (p / "objective.safetensors" for p in (saved, tmp_path / "b"))
    assert first.read_bytes() == second.read_bytes()


def test_how_a_rule_is_computed_is_on_no_card(tmp_path: Path) -> None:
    rule = LPG(width=4, predictions=2)
    theta = rule.init(jax.random.key(1))
    ahead = dataclasses.replace(rule, read_ahead=True)
    for name, objective in (("cpu", rule), ("gpu", ahead)):
        save(tmp_path / name, objective, theta, {"name": "run"})
    for file in ("objective.safetensors", "card.json"):
        assert (tmp_path / "cpu" / file).read_bytes() == (tmp_path / "gpu" / file).read_bytes()
    assert load(tmp_path / "gpu").objective == rule


def test_array_file_by_itself_finds_its_card(saved: Path, tmp_path: Path) -> None:
    assert load(saved / "objective.safetensors").name == "run"
    (tmp_path / "mine.safetensors").write_bytes((saved / "objective.safetensors").read_bytes())
    (tmp_path / "mine.json").write_bytes((saved / "card.json").read_bytes())
    assert load(tmp_path / "mine.safetensors").name == "mine"


def test_shipped_objectives_load_by_name(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library.shipped().keys().isdisjoint({"run"})
    edit_card(saved, summary="a toy, trained")
    shelf = tmp_path / "package" / "pretrained"
    shelf.mkdir(parents=True)
    (shelf / "ta-toy.safetensors").write_bytes((saved / "objective.safetensors").read_bytes())
    (shelf / "ta-toy.json").write_bytes((saved / "card.json").read_bytes())
    (shelf / "lonely.json").write_text("{}")
    monkeypatch.setattr(library.importlib.resources, "files", lambda _: tmp_path / "package")
    assert library.shipped() == {"ta-toy": "a toy, trained"}
    assert load("ta-toy").name == "ta-toy"
    with pytest.raises(UnknownObjective, match="did you mean ta-toy"):
        load("ta_toy")
    (shelf / "ta-toy.json").write_text("{")
    assert library.shipped()["ta-toy"].startswith("unreadable card")


def test_handwritten_rules_need_no_file() -> None:
    a2c, random = load("a2c"), load("random")
    assert a2c.theta == ()
    assert a2c.card == {}
    assert a2c.digest != random.digest
    assert load("a2c").digest == a2c.digest


def test_saving_again_replaces(saved: Path, toy: Toy) -> None:
    before = load(saved).digest
    save(saved, toy, toy.init(jax.random.key(2)), {})
    assert load(saved).digest != before


def test_failed_write_leaves_the_old_pair(
    saved: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(saved).digest

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(saved, toy, toy.init(jax.random.key(2)), {})
    assert load(saved).digest == before
    assert sorted(os.listdir(saved)) == ["card.json", "objective.safetensors"]


def test_names_are_listed_without_jax() -> None:
    code = (
        "import sys, learned_objectives.library as l; l.RULES, l.shipped();"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- rules and one's own files ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["lpg", "a2c", "random"])
def test_every_rule_is_made_and_can_be_saved(name: str, tmp_path: Path) -> None:
    fields = {"width": 4, "predictions": 3, "embedding": 2} if name == "lpg" else {}
    objective = make_rule(name, **fields)
    save(tmp_path, objective, objective.init(jax.random.key(0)), {})
    assert load(tmp_path).objective == objective


def test_unknown_names_and_fields_get_the_nearest(toy: Toy) -> None:
    with pytest.raises(UnknownObjective, match=r"unknown rule 'tox'; did you mean toy\?"):
        make_rule("tox")
    with pytest.raises(UnknownObjective, match=r"field .* 'widht'; did you mean width\?"):
        make_rule("toy", widht=3)
    with pytest.raises(ObjectiveError, match="width must be of type int, not 'x'"):
        make_rule("toy", width="x")
    with pytest.raises(UnknownObjective, match=r"did you mean random\?"):
        load("randm")
    with pytest.raises(ObjectiveError, match="toy has parameters to be learned"):
        load("toy")


def test_ones_own_objective(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    assert make_rule(f"{file}:make", size=5) == make_rule(f"{file}:make", size=5)
    trained = load(f"{file}:trained")
    assert trained.name == "own"
    assert trained.theta["w"].tolist() == [1, 1]
    objective = make_rule(f"{file}:make", size=3)
    save(tmp_path / "run", objective, {"w": jnp.arange(3.0)}, {})
    again = load(f"{file}:make@{tmp_path / 'run'}")
    assert again.objective == objective
    assert again.theta["w"].tolist() == [0, 1, 2]
    assert again.name == "run"


def test_nothing_a_card_says_is_executed(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    objective = make_rule(f"{file}:make")
    save(tmp_path, objective, {"w": jnp.zeros(2)}, {})
    trap = tmp_path / "trap.py"
    trap.write_text("raise SystemExit('executed')")
    for rule in ("trap.py:make", f"{trap}:make", "os:system", "trap:make"):
        edit_card(tmp_path, rule=rule)
        with pytest.raises(ObjectiveFileError, match="nothing that a file names is executed"):
            load(tmp_path)


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("mak", "did you mean make"),
        ("nothing", "returned int, no objective: it has no heads"),
        ("fails", "RuntimeError: no luck"),
        ("wrong", r"leaf 'w': expected F32 \[2\], found F32 \[3\]"),
        ("make", "parameters to be learned"),
        ("OWN_WORD", "did you mean|known"),
    ],
)
def test_ones_own_file_that_is_wrong(what: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(ObjectiveError, match=line):
        load(f"{tmp_path / 'own.py'}:{what}")


def test_ones_own_file_that_does_not_import(tmp_path: Path) -> None:
    with pytest.raises(ObjectiveError, match="cannot read"):
        load(f"{tmp_path / 'no.py'}:make")
    (tmp_path / "bad.py").write_text("def (:")
    with pytest.raises(ObjectiveError, match="fails at import: SyntaxError"):
        load(f"{tmp_path / 'bad.py'}:make")


# --- what goes wrong --------------------------------------------------------------------------


def test_theta_of_another_shape_is_not_saved(toy: Toy, tmp_path: Path) -> None:
    theta = Toy(width=4).init(jax.random.key(0))
    with pytest.raises(
        ObjectiveError, match=r"leaf 'cell/w': expected F32 \[3, 2\], found F32 \[4"
    ):
        save(tmp_path, toy, theta, {})
    with pytest.raises(ObjectiveError, match="sha256 is written by save"):
        save(tmp_path, toy, toy.init(jax.random.key(0)), {"sha256": "0"})
    assert not list(tmp_path.iterdir())


def test_two_leaves_of_one_name_are_refused() -> None:
    with pytest.raises(ObjectiveError, match="two leaves would be called 'a/b'"):
        library._flat({"a": {"b": 1}, "a/b": 2})


def test_cut_file_names_the_leaf(saved: Path) -> None:
    path = saved / "objective.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    with pytest.raises(ObjectiveFileError) as error:
        load(saved)
    assert str(error.value).startswith(f"{path}: cut in leaf ")
    assert str(error.value).endswith(f"expected {len(data)} bytes, found {len(data) - 20}")
    path.write_bytes(data[:5])
    with pytest.raises(ObjectiveFileError, match="expected a header, found 5 bytes"):
        load(saved)
    path.unlink()
    with pytest.raises(
        ObjectiveFileError, match=r"objective\.safetensors: cannot be read: No such"
    ):
        load(saved)


def test_flipped_bit_names_the_leaf(saved: Path) -> None:
    path = saved / "objective.safetensors"
    data = bytearray(path.read_bytes())
    arrays = safetensors.numpy.load(bytes(data))
    where = bytes(data).index(arrays["cell/w"].tobytes()) + 5
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(ObjectiveFileError, match=r"leaf 'cell/w': expected SHA-256 '\w+' as card"):
        load(saved)


def test_other_shapes_name_the_leaf(saved: Path) -> None:
    path = saved / "objective.safetensors"
    arrays = safetensors.numpy.load_file(path)

    def replace_by(changed: dict[str, Any]) -> None:
        path.write_bytes(safetensors.numpy.save(changed))

    replace_by(arrays | {"cell/b": np.zeros((10, 9), np.float32)})
    with pytest.raises(
        ObjectiveFileError, match=r"'cell/b': expected F32 \[3\], found F32 \[10, 9"
    ):
        load(saved)
    replace_by(arrays | {"cell/b": np.zeros(3)})
    with pytest.raises(ObjectiveFileError, match=r"expected F32 \[3\], found F64 \[3\]"):
        load(saved)
    replace_by({name: leaf for name, leaf in arrays.items() if name != "cell/b"})
    with pytest.raises(ObjectiveFileError, match=r"leaf 'cell/b': expected F32 \[3\], found none"):
        load(saved)
    replace_by(arrays | {"more": np.zeros(1)})
    with pytest.raises(ObjectiveFileError, match="leaf 'more': expected none"):
        load(saved)


def test_sizes_are_checked_before_memory_is_taken(saved: Path) -> None:
    path = saved / "objective.safetensors"
    entry = {"dtype": "F32", "shape": [3], "data_offsets": [0, 2**60]}
    header = json.dumps({"cell/b": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ObjectiveFileError, match="leaf"):
        load(saved)
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ObjectiveFileError, match="header of at most 2 bytes"):
        load(saved)
    with open(path, "r+b") as file:
        file.truncate(2**40)  # a sparse file: nothing on disk
    with pytest.raises(ObjectiveFileError, match="header of at most"):
        load(saved)
    fields = json.loads((saved / "card.json").read_text())["fields"]
    edit_card(saved, fields=fields | {"width": 10**12})
    with pytest.raises(ObjectiveFileError, match=r"fields\.width: expected at most 1048576"):
        load(saved)
    edit_card(saved, fields=fields | {"sizes": [2**20, 2**20]})
    with pytest.raises(ObjectiveFileError, match="would take 4398046511"):
        load(saved)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 5000, "is not JSON"),
        ("3", "expected an object, found int 3"),
        ("null", "expected an object, found null"),
        ("{}", "expected a field 'format', found none"),
        ('{"format": "1"}', "format: expected int, found str '1'"),
    ],
)
def test_card_of_nonsense(text: str, line: str, saved: Path) -> None:
    (saved / "card.json").write_text(text)
    with pytest.raises(ObjectiveFileError, match=line):
        load(saved)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"format": 2}, "format: expected 1, found 2"),
        ({"rule": "toz"}, "rule 'toz' is not one of ours"),
        ({"fields": {"widht": 3}}, "did you mean width"),
        ({"fields": {"width": 2.5}}, "width must be of type int"),
        ({"fields": {"width": -1}}, "cannot be laid out"),
        ({"fields": {"sizes": [[], {}]}}, "cannot be laid out"),
        ({"fields": {"scale": 2.0}}, "rule and fields: expected those the arrays were saved with"),
        ({"sha256": "0" * 64}, "expected SHA-256"),
    ],
)
def test_card_that_does_not_fit(changes: dict[str, Any], line: str, saved: Path) -> None:
    edit_card(saved, **changes)
    with pytest.raises(ObjectiveFileError, match=line):
        load(saved)


def test_folders_and_pipes_are_no_files(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ObjectiveFileError, match="found neither"):
        load(tmp_path)
    (saved / "card.json").unlink()
    os.mkfifo(saved / "card.json")
    with pytest.raises(ObjectiveFileError, match="found something else"):
        load(saved)


def damage(data: bytes, draw: Any) -> bytes:
    """Cut, flip, overwrite or splice."""
    at = draw(st.integers(0, len(data)))
    kind = draw(st.sampled_from(["cut", "flip", "overwrite", "splice"]))
    if kind == "cut":
        return data[:at]
    if kind == "flip":
        at = min(at, len(data) - 1)
        return data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
    words = [b"null", b"-1", b"1e999", b"[]", b"{", b'"', b"\xff", b"99999999999999999999", b"\0"]
    piece = draw(st.one_of(st.sampled_from(words), st.binary(max_size=12)))
    return data[:at] + piece + data[at + (len(piece) if kind == "overwrite" else 0) :]


@given(st.data())
def test_random_damage_is_our_error_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    objective = Toy()
    theta = objective.init(jax.random.key(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, Toy.__module__, sys.modules[__name__])
        patch.setitem(library.RULES, "toy", ("a toy", f"{Toy.__module__}:Toy"))
        save(folder, objective, theta, {"name": "toy"})
        file = folder / data.draw(st.sampled_from(["objective.safetensors", "card.json"]))
        file.write_bytes(damage(file.read_bytes(), data.draw))
        try:
            again = load(folder)
        except ObjectiveFileError as error:
            assert "\n" not in str(error)
            assert str(folder) in str(error)
            return
    # Then the damage was to something told, such as the notes.
    assert again.objective == objective
    jax.tree.map(np.testing.assert_array_equal, again.theta, theta)
