"""The one place that decides how a loop of array programs is dispatched.

On accelerators, and for the networks of this library, the whole loop is one jitted `lax.scan`. On a CPU, XLA runs
gradients of `lax.conv_general_dilated` inside any loop 12 to 26 times slower than outside: a body that has them is
jitted once and called step by step. Both give the same numbers within float32 rounding. Gradients of
`convolutions.convolve` are fast in loops, too. Members of a population are one program on accelerators, and one by one
on a CPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr

from aevae_jax import cores
from aevae_jax.training import devices

T = TypeVar("T")
R = TypeVar("R")

Body = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(carry, context, x) -> (carry, y). The context is the same in every step."""


def scan(body: Body, carry: Any, context: Any, xs: Any) -> tuple[Any, Any]:
    """Return `lax.scan` of `body` over the leading axis of `xs`, dispatched as this backend needs it.

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


def scan_between(
    body: Body, carry: Any, context: Any, xs: Any, ys: Any, *, start: int, stop: int, first: int = 0
) -> tuple[Any, Any]:
    """Return some steps of a scan, `start` to `stop - 1`; one compiled program whatever these are, so cutting changes
    no bit.

    Args:
      body: as in `scan`.
      carry: its buffers are donated, so the argument must not be used again.
      context: what every step sees.
      xs: one entry per step, of which the first belongs to step `first`.
      ys: outputs of all steps, `[T, ...]`; see `empty_outputs`.
      start: the first step to take.
      stop: the step to take no more.
      first: the step of `xs[0]`.

    Returns:
      The last carry, and `ys` with the outputs of these steps put in.
    """
    if jax.default_backend() == "cpu" and has_convolution(body, carry, context, xs):
        ys = devices.beside(carry, ys)
        for index, x in enumerate(list(_unstack(xs))[start - first : stop - first], start):
            carry, ys = _step_into(body, carry, (ys, context, x, devices.beside(carry, np.int32(index))))
        return carry, ys
    ys, bounds = devices.beside(carry, (ys, np.asarray([start, stop, first], np.int32)))
    return _scan_between(body, carry, (ys, context, xs, bounds))


def scan_members_between(
    body: Body, carry: Any, context: tuple[Any, Any], xs: Any, ys: Any, *, start: int, stop: int, first: int = 0
) -> tuple[Any, Any]:
    """Return what `scan_between` does, of members that do not see each other.

    An accelerator computes all in one program, by `vmap`. A CPU takes them one by one, as many at a time as it has
    cores: XLA keeps hardly more than one core at work with one member, nor with many in one program. There each member
    is computed by the program of one that is alone, and has the same bits.

    Args:
      body: of one member, as in `scan`.
      carry: `[S, ...]`, one entry per member; must not be used again.
      context: what all members see, and what each has of its own, `[S, ...]`.
      xs: `[T, S, ...]`, one entry per step, of which the first belongs to step `first`.
      ys: outputs of all steps, `[T, S, ...]`; see `empty_outputs_of_members`.
      start: the first step to take.
      stop: the step to take no more.
      first: the step of `xs[0]`.

    Returns:
      The last carry `[S, ...]`, and `ys` with the outputs of these steps put in.
    """
    if jax.default_backend() != "cpu":
        return scan_between(_of_members(body), carry, context, xs, ys, start=start, stop=stop, first=first)
    shared, owns = context
    workers = cores.available() if jax.local_device_count() == 1 else 1
    parts: list[Any] = list(zip(unstack(carry), unstack(jax.device_put(ys), axis=1), strict=True))
    seen = list(zip(unstack(owns), unstack(xs, axis=1), strict=True))
    middle = -(-(start + stop) // 2)  # in two halves where otherwise the last members would leave cores idle
    spans = [(start, middle), (middle, stop)] if len(parts) > workers and len(parts) % workers else [(start, stop)]

    def steps(part: Any, own: Any, rows: Any, span: tuple[int, int]) -> tuple[Any, Any]:
        carry, ys = part.result() if isinstance(part, Future) else part  # a half that is waited for was begun before
        found = scan_between(body, carry, (shared, own), rows, ys, start=span[0], stop=span[1], first=first)
        return jax.block_until_ready(found)

    new = next(_calls(body, *_flat((carry, context, xs)))) == 0
    pool = ThreadPoolExecutor(workers)
    try:
        for span in spans:
            for index, (own, rows) in enumerate(seen):
                parts[index] = pool.submit(steps, parts[index], own, rows, span)
                if new:  # alone, so that all programs are compiled once
                    parts[index].result()
                    new = False
        carries, outputs = zip(*(part.result() for part in parts), strict=True)
    finally:  # after an error or Ctrl-C, nothing that has not begun
        pool.shutdown(cancel_futures=True)
    return stack(carries), stack(outputs, axis=1)


def map_in_threads(function: Callable[[T], R], items: Iterable[T], *, compiled: bool = False) -> Iterator[R]:
    """Yield `function` of every item, in their order; on a CPU two are computed at a time, in threads.

    XLA divides matrix products among the cores of a CPU, but not all that stands between them: alone, a program leaves
    cores idle there, which another one can use. Other devices, and several, take one program after the other.

    Args:
      function: runs array programs and waits for their results. It does not see settings that its caller made for one
        thread by a `with`, such as `jax.default_matmul_precision`.
      items: what `function` takes.
      compiled: whether all programs are compiled, or each item has its own. If not, the first item is done alone, so
        that what all share is compiled once.
    """
    items = iter(items)
    yield from map(function, itertools.islice(items, 0 if compiled else 1))
    if jax.default_backend() != "cpu" or jax.local_device_count() > 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(2)
    try:
        yield from pool.map(function, items)
    finally:  # after an error or Ctrl-C, nothing that has not begun
        pool.shutdown(cancel_futures=True)


def cond(predicate: Array, true: Callable[..., Any], false: Callable[..., Any], *operands: Any) -> Any:
    """Return `true(*operands)` where the scalar `predicate` holds, else `false(*operands)`.

    A branch on a CPU, where selecting would copy large arrays; a selection elsewhere, where a branch would wait.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.cond(predicate, true, false, *operands)
    return jax.tree.map(lambda t, f: jnp.where(predicate, t, f), true(*operands), false(*operands))


def empty_outputs(body: Body, carry: Any, context: Any, xs: Any, steps: int) -> Any:
    """Return zeros for the outputs of `steps` steps of `body`, in host memory; only shapes are looked at."""
    y = _output(body, *_flat((carry, context, jax.tree.map(_first, xs))))
    return jax.tree.map(lambda a: np.zeros((steps, *a.shape), a.dtype), y)


def empty_outputs_of_members(body: Body, carry: Any, context: tuple[Any, Any], xs: Any, steps: int) -> Any:
    """Return zeros for the outputs of `steps` steps of members, `[steps, S, ...]`; arguments as in
    `scan_members_between`.
    """
    shared, owns = context
    one, own = jax.tree.map(_first, (carry, owns))
    xs = jax.tree.map(lambda a: jax.ShapeDtypeStruct((a.shape[0], *a.shape[2:]), a.dtype), xs)
    count = jax.tree.leaves(owns)[0].shape[0]
    ys = empty_outputs(body, one, (shared, own), xs, steps)
    return jax.tree.map(lambda a: np.repeat(a[:, None], count, axis=1), ys)


def has_convolution(body: Body, carry: Any, context: Any, xs: Any) -> bool:
    """Return whether one step of `body` computes a convolution of `lax`, gradients included."""
    return _has_convolution(body, *_flat((carry, context, jax.tree.map(_first, xs))))


def largest_array(body: Body, carry: Any, context: Any, xs: Any) -> int:
    """Return the bytes of the largest array that one step of `body` computes; only shapes are looked at."""
    return _largest_array(body, *_flat((carry, context, jax.tree.map(_first, xs))))


def largest(jaxpr: Any) -> tuple[tuple[int, ...], int]:
    """Return the shape and bytes of the largest array that a program computes, in the programs that it calls, too."""
    found = [
        (var.aval.shape, var.aval.size * var.aval.dtype.itemsize)
        for equation in jaxpr.eqns
        for var in equation.outvars
        if hasattr(var.aval, "shape")
    ]
    inner = [value for equation in jaxpr.eqns for value in jax.tree.leaves(list(equation.params.values()))]
    found += [largest(getattr(value, "jaxpr", value)) for value in inner if isinstance(value, ClosedJaxpr | Jaxpr)]
    return max(found, key=lambda each: each[1], default=((), 0))


def primitives(jaxpr: Any) -> Iterator[str]:
    """Yield the names of all primitives of a program, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(value, "eqns"):
                yield from primitives(value)


def unstack(tree: Any, axis: int = 0) -> list[Any]:
    """Return the trees whose arrays lie along an axis of those of `tree`."""
    leaves, structure = jax.tree.flatten(tree)
    each = zip(*(_slices(leaf, axis) for leaf in leaves), strict=True)
    return [jax.tree.unflatten(structure, one) for one in each]


def stack(trees: Sequence[Any], axis: int = 0) -> Any:
    """Return the tree of the arrays of `trees`, stacked along a new axis."""
    on_host = jax.default_backend() == "cpu" and not any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves(trees))
    if not on_host:
        return jax.tree.map(lambda *arrays: jnp.stack(arrays, axis), *trees)
    return jax.device_put(jax.tree.map(lambda *arrays: np.stack(arrays, axis), *trees))


@jax.jit
def copied(tree: Any) -> Any:
    """Return a copy of each array of `tree`, by one program: where the arrays themselves are to be donated."""
    return jax.tree.map(jnp.copy, tree)


def _slices(array: Any, axis: int) -> Sequence[Any]:
    """Return the entries of an array along an axis.

    On a CPU they are views of host memory, as a program of so many small outputs would take XLA seconds to compile.
    Of random keys NumPy sees the words alone.
    """
    if jax.default_backend() != "cpu":
        return list(jnp.moveaxis(array, axis, 0))
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        words = jax.device_put(_slices(jax.random.key_data(array), axis))
        return [jax.random.wrap_key_data(own, impl=jax.random.key_impl(array)) for own in words]
    return list(np.moveaxis(np.asarray(array), axis, 0))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _scan(body: Body, carry: Any, context: Any, xs: Any) -> tuple[Any, Any]:
    return jax.lax.scan(lambda c, x: _traced(body)(c, context, x), carry, xs)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _step(body: Body, carry: Any, context: Any, x: Any) -> tuple[Any, Any]:
    return _traced(body)(carry, context, x)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _scan_between(body: Body, carry: Any, rest: tuple[Any, Any, Any, Array]) -> tuple[Any, Any]:
    ys, context, xs, (start, stop, first) = rest

    def step(index: Any, loop: tuple[Any, Any]) -> tuple[Any, Any]:
        x = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index - first, keepdims=False), xs)
        return _put(_traced(body)(loop[0], context, x), loop[1], index)

    return jax.lax.fori_loop(start, stop, step, (carry, ys))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _step_into(body: Body, carry: Any, rest: tuple[Any, Any, Any, Array]) -> tuple[Any, Any]:
    ys, context, x, index = rest
    return _put(_traced(body)(carry, context, x), ys, index)


def _put(result: tuple[Any, Any], ys: Any, index: Any) -> tuple[Any, Any]:
    carry, y = result
    return carry, jax.tree.map(lambda a, b: jax.lax.dynamic_update_index_in_dim(a, b, index, 0), ys, y)


def _first(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype)


def _unstack(xs: Any) -> Iterator[Any]:
    leaves, structure = jax.tree.flatten(xs)
    return (jax.tree.unflatten(structure, row) for row in zip(*(jnp.unstack(leaf) for leaf in leaves), strict=True))


@lru_cache(maxsize=256)
def _traced(body: Body) -> Body:
    """Return `body` as a function that is traced once per shape, whoever looks at its program or makes a loop of it."""
    return jax.jit(body, inline=True)


@lru_cache(maxsize=256)
def _of_members(body: Body) -> Body:
    """Return `body` for members at once."""
    return jax.vmap(_traced(body), in_axes=(0, (None, 0), 0))


@lru_cache(maxsize=256)
def _calls(body: Body, structure: Any, shapes: tuple[Any, ...]) -> Iterator[int]:
    """Return what counts the calls with arguments of these shapes."""
    return itertools.count()


def _flat(arguments: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the structure and the shapes of arguments."""
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves)


@lru_cache(maxsize=256)
def _output(body: Body, structure: Any, shapes: tuple[Any, ...]) -> Any:
    return jax.eval_shape(_traced(body), *jax.tree.unflatten(structure, shapes))[1]


@lru_cache(maxsize=256)
def _has_convolution(body: Body, structure: Any, shapes: tuple[Any, ...]) -> bool:
    arguments = jax.tree.unflatten(structure, shapes)
    return "conv_general_dilated" in primitives(jax.make_jaxpr(_traced(body))(*arguments))


@lru_cache(maxsize=256)
def _largest_array(body: Body, structure: Any, shapes: tuple[Any, ...]) -> int:
    return largest(jax.make_jaxpr(_traced(body))(*jax.tree.unflatten(structure, shapes)).jaxpr)[1]
