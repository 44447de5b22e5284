"""The agent's own step: a clip of each head's gradient, then SGD or Adam.

Differentiable everywhere, since a meta-gradient passes through it: the norm of a zero gradient and
the square root of a zero second moment have an infinite slope, which would give NaN for every table
row that was never visited.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

Kind = Literal["sgd", "adam"]
Rate = float | Float[Array, ""]

# Inside Adam's square root: (1e-8)^2, so that the step of a head that has seen a gradient is the
# textbook's to float32 precision, and the slope at a zero second moment is finite.
EPSILON_ROOT = 1e-16


def _transform(kind: Kind, epsilon: float) -> optax.GradientTransformation:
    if kind == "adam":
        return optax.flatten(optax.scale_by_adam(eps=epsilon, eps_root=EPSILON_ROOT))
    return optax.identity()


def norm(tree: PyTree) -> Float[Array, ""]:
    """Euclidean norm of a tree, with slope zero where the tree is zero; NaN if a leaf has one."""
    square = jnp.sum(jnp.square(ravel_pytree(tree)[0]))
    zero = square == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))


def clip(tree: PyTree, limit: Rate) -> PyTree:
    r"""Scale a tree to norm ``limit`` where its norm is above: :math:`g \min(1, c/\|g\|)`."""
    size = norm(tree)
    scale = jnp.where(size > limit, limit / jnp.where(size > limit, size, 1), 1)
    flat, unravel = ravel_pytree(tree)
    return unravel(flat * scale.astype(flat.dtype))


def init(kind: Kind, params: PyTree) -> PyTree:
    """State of the agent's optimiser at birth."""
    return _transform(kind, 1e-8).init(params)


def step(
    kind: Kind,
    gradient: Mapping[str, PyTree],
    state: PyTree,
    params: Mapping[str, PyTree],
    rates: Mapping[str, Rate],
    limit: Rate | None,
    epsilon: float = 1e-8,
) -> tuple[dict[str, PyTree], PyTree]:
    r"""One descent step, each head clipped apart and moved at its own rate.

    :math:`w \leftarrow w - \eta_h \, \mathrm{opt}(g_h \min(1, c / \|g_h\|))` for every head ``h``.

    Args:
      kind: ``sgd`` or ``adam`` (betas .9, .999).
      gradient: of the loss, by head.
      state: from :func:`init`.
      params: by head.
      rates: learning rate of each head.
      limit: the clip ``c``; ``None`` for none, without a look at the norms.
      epsilon: Adam's.

    Returns:
      New parameters and optimiser state.
    """
    if limit is not None:
        gradient = {head: clip(tree, limit) for head, tree in gradient.items()}
    direction, state = _transform(kind, epsilon).update(dict(gradient), state)
    moved = {
        head: jax.tree.map(
            lambda w, d, rate=rates[head]: w - (rate * d).astype(w.dtype),
            params[head],
            direction[head],
        )
        for head in params
    }
    return moved, state
