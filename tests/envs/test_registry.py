"""The front door: names, files of one's own, and what happens when something is missing."""

import importlib
import subprocess
import sys

import pytest

import envs
from envs.base import Environment
from envs.registry import REGISTRY, MissingExtra, UnknownName, make, names

OWN = [entry.name for entry in REGISTRY if "adapter" not in entry.target]


def test_names_are_known_without_jax():
    code = "import sys, envs.registry as r; r.names(); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_importing_envs_touches_no_device():
    modules = (
        "base brax_adapter chain check dynamic gridworld gym_style gymnax_adapter levels mazes "
        "registry"
    )
    code = (
        f"import importlib, sys\n"
        f"for name in '{modules}'.split(): importlib.import_module('envs.' + name)\n"
        "from jax._src import xla_bridge\n"
        "print(bool(xla_bridge._backends), 'gymnax' in sys.modules, 'brax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]


def test_every_entry_leads_somewhere():
    assert len(set(names())) == len(names())
    for entry in REGISTRY:
        module, attribute = entry.target.split(":")
        assert callable(getattr(importlib.import_module(module), attribute)), entry
        assert entry.line


@pytest.mark.parametrize("name", OWN)
def test_ours_are_made_by_name(name):
    env = envs.make(name)
    assert isinstance(env, Environment) and env.spec.name == name


def test_making_one_twice_gives_one_object():
    # Its functions are then the same, and what was compiled for one serves the other.
    assert make("small") is make("small")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("smal", "small"), ("cartpole", "CartPole-v1"), ("breakout-minatar", "Breakout-MinAtar")],
)
def test_an_unknown_name_answers_with_near_ones(wrong, right):
    with pytest.raises(UnknownName) as caught:
        make(wrong)
    assert right in caught.value.nearest and right in str(caught.value)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, KeyError)
    assert str(caught.value).startswith(f"unknown environment {wrong!r}: did you mean")


def test_a_name_like_nothing_gets_no_advice():
    with pytest.raises(UnknownName) as caught:
        make("zzzz")
    assert str(caught.value) == "unknown environment 'zzzz'"


def test_a_missing_gymnax_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnax", None)
    with pytest.raises(MissingExtra) as caught:
        make("CartPole-v1")
    assert str(caught.value) == "CartPole-v1 needs an extra: pip install 'kairos-rl[gym]'"


MINE = """
from envs.chain import Chain, chain
from envs import registry

def environment():
    return chain()

def pair(limit=4):
    env = Chain()
    return env, env.default_params.replace(max_steps_in_episode=limit)

ready = chain()
Mine = Chain
number = lambda: 7
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def test_files_of_ones_own(mine):
    assert make(f"{mine}:environment").spec.name == "chain"
    assert make(f"{mine}:ready").spec.name == "chain"
    assert make(f"{mine}:pair", limit=6).spec.max_steps == 6
    assert make(f"{mine}:Mine").spec.max_steps == 10


def test_what_is_wrong_with_a_file_of_ones_own(mine):
    with pytest.raises(UnknownName, match=r"unknown file .*mime.py': did you mean .*mine.py\?"):
        make(f"{mine.parent / 'mime.py'}:pair")
    with pytest.raises(UnknownName, match=r"unknown name in .*mine.py 'pear': did you mean pair\?"):
        make(f"{mine}:pear")
    with pytest.raises(ValueError, match=r"neither .* nor gymnax-style: it has no reset, step"):
        make(f"{mine}:number")
