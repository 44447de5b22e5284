"""`check_objective` finds what is wrong, and nothing where nothing is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from discovery import check_objective
from learned_objectives.library import make_rule

OWN = Path(__file__).parents[2] / "data" / "own_objective.py"


def changed(**parts: Callable[..., Any]) -> Any:
    """One's own objective with other methods."""
    kind = type(make_rule(f"{OWN}:make"))
    return dataclass(frozen=True)(type("Changed", (kind,), parts))()


def test_an_objective_without_problems() -> None:
    assert check_objective(f"{OWN}:make", "chain") == []


def test_a_recurrent_objective_without_problems() -> None:
    rule = make_rule("lpg", width=4, predictions=3, embedding=2, clock="fraction")
    assert check_objective(rule, "chain") == []


def test_what_is_no_objective() -> None:
    [problem] = check_objective(object(), "chain")
    assert problem.startswith("no objective: it has no heads, ")
    [problem] = check_objective("nothing.py:make", "chain")
    assert problem.startswith("raises ")


def test_where_it_cannot_be_used() -> None:
    rule = changed(unsupported=lambda self, spec: "no chains")
    assert check_objective(rule, "chain") == ["cannot be used in chain: no chains"]


def test_what_cannot_be_hashed() -> None:
    rule = changed()
    kind = type("Mutable", (type(rule),), {"__hash__": None})
    assert check_objective(kind(), "chain") == ["cannot be hashed: make it a frozen dataclass"]


def own(self: Any, *inputs: Any) -> Any:
    """The update that is changed."""
    return super(type(self), self).update(*inputs)


def another_dtype(self: Any, *inputs: Any) -> Any:
    learner, report = own(self, *inputs)
    return learner._replace(params=jax.tree.map(jnp.int32, learner.params)), report


def a_while_loop(self: Any, theta: Any, *inputs: Any) -> Any:
    theta = jax.lax.while_loop(lambda x: x < 0, lambda x: x + 1, theta)
    return own(self, theta, *inputs)


def no_scalar(self: Any, *inputs: Any) -> Any:
    learner, report = own(self, *inputs)
    return learner, report._replace(metrics={"loss": jnp.zeros(2)})


def not_finite(self: Any, theta: Any, *inputs: Any) -> Any:
    return own(self, theta + jnp.inf, *inputs)


@pytest.mark.parametrize(
    ("update", "found"),
    [
        (another_dtype, "update: the learner.params"),
        (a_while_loop, "update: cannot be differentiated by its parameters, raises ValueError"),
        (no_scalar, "update: metrics: loss is no scalar but [2]"),
        (not_finite, "update: a parameter of the agent is not finite"),
    ],
)
def test_an_update_that_breaks_a_rule(update: Callable[..., Any], found: str) -> None:
    problems = check_objective(changed(update=update), "chain")
    assert any(problem.startswith(found) for problem in problems), problems
