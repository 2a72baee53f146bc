"""The one place that decides how a loop of array programs is dispatched.

On accelerators, and for dense networks, the whole loop is one jitted `lax.scan`. On a CPU, XLA runs convolutions inside
any loop 12 to 26 times slower than outside; there the same body is jitted once and called step by step. Both give the
same numbers within float32 rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp

Body = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(carry, context, x) -> (carry, y). The context is the same in every step."""


def scan(body: Body, carry: Any, context: Any, xs: Any) -> tuple[Any, Any]:
    """`lax.scan` of `body` over the leading axis of `xs`, dispatched as this backend needs it.

    Args:
      body: a function with a stable identity: it is compiled once per identity and shape.
      carry: its buffers are donated, so the argument must not be used again.
      context: what every step sees.
      xs: one entry per step.

    Returns:
      The last carry, and the outputs of all steps stacked.
    """
    if jax.default_backend() == "cpu" and has_convolution(body, carry, context, xs):
        ys = []
        for x in _unstack(xs):
            carry, y = _step(body, carry, context, x)
            ys.append(y)
        return carry, jax.tree.map(lambda *y: jnp.stack(y), *ys)
    return _scan(body, carry, context, xs)


def has_convolution(body: Body, carry: Any, context: Any, xs: Any) -> bool:
    """Whether one step of `body` computes a convolution, gradients included."""
    leaves, structure = jax.tree.flatten((carry, context, jax.tree.map(_first, xs)))
    return _has_convolution(body, structure, tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _scan(body: Body, carry: Any, context: Any, xs: Any) -> tuple[Any, Any]:
    return jax.lax.scan(lambda c, x: body(c, context, x), carry, xs)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _step(body: Body, carry: Any, context: Any, x: Any) -> tuple[Any, Any]:
    return body(carry, context, x)


def _first(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype)


def _unstack(xs: Any) -> Iterator[Any]:
    leaves, structure = jax.tree.flatten(xs)
    return (jax.tree.unflatten(structure, row) for row in zip(*(jnp.unstack(leaf) for leaf in leaves), strict=True))


@lru_cache(maxsize=256)
def _has_convolution(body: Body, structure: Any, shapes: tuple[Any, ...]) -> bool:
    arguments = jax.tree.unflatten(structure, shapes)
    return "conv_general_dilated" in _primitives(jax.make_jaxpr(body)(*arguments))


def _primitives(jaxpr: Any) -> Iterator[str]:
    """Names of all primitives, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(value, "eqns"):
                yield from _primitives(value)
