"""Which operation first made this NaN or infinity?

A function is traced to a jaxpr and evaluated operation by operation. Every value that is not finite carries its origin:
an operation whose inputs are all finite is the origin of what it makes, any other hands on the origin of an input.
Arrays are followed whole, not element by element.
"""

from __future__ import annotations

import inspect
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import Literal, jaxpr_as_fun, primitives, valid_jaxtype


class Culprit(NamedTuple):
    """Where a value that is not finite came from."""

    operation: str
    """The primitive, such as "log"; "input" for a value from outside, "literal" for a number in the code."""
    where: str
    """The line and its function, as "model.py:12 (loss)"; for an input its path, as "params/decoder/out/kernel"."""
    value: str
    """What the operation made, "nan" or "inf"; what is a NaN at the output may have begun as an infinity."""
    shape: tuple[int, ...]
    """Shape of what the operation made."""
    output: str
    """Path of the output that it reached, as "1/encoder/out/bias"; empty where the output is a single array."""


class _Traced(NamedTuple):
    """A concrete value and, if it is not finite, where that came from."""

    value: Any
    kind: str = ""  # "nan" or "inf", of the value itself
    order: tuple[float, ...] = ()  # of the origin: origins compare as earlier and later
    culprit: Culprit | None = None


_CALLS = (
    primitives.jit_p,
    primitives.call_p,
    primitives.closed_call_p,
    primitives.remat_p,
    primitives.custom_jvp_call_p,
    primitives.custom_vjp_call_p,
)
_CONSTANT = (math.inf,)  # the order of constants, such as masks of -inf: blamed where nothing else explains the value
_LAYERS = flax.__path__[0]  # the line of a network says more than those inside its layers
_spelled = partial(jax.tree_util.keystr, simple=True, separator="/")


def first_non_finite(function: Callable[..., Any], *args: Any) -> Culprit | None:
    """Return the origin of the first output of `function(*args)` that is not finite, NaN before infinity.

    Infinities that are masked on their way are not blamed. A NaN made of infinities, as by inf - inf, is traced to what
    made the infinity. Operations are dispatched one by one, which takes seconds; callbacks may run more than once.

    Args:
      function: anything JAX can trace, with gradients, loops and `jit` inside; mutable references are not supported.
      args: pytrees of arrays; what is none, such as a model, is handed over as it is.

    Returns:
      The origin, or `None` where all outputs are finite.
    """
    named = inspect.signature(function).bind(*args).arguments.items()
    static = [i for i, argument in enumerate(args) if set(map(valid_jaxtype, jax.tree.leaves(argument))) == {False}]
    with jax.debug_key_reuse(False), jax.debug_nans(False), jax.debug_infs(False):  # to repeat operations is no mistake
        jaxpr, shapes = jax.make_jaxpr(function, static_argnums=static, return_shape=True)(*args)
        leaves = [
            ((jax.tree_util.GetAttrKey(name), *path), leaf)
            for name, argument in named
            for path, leaf in jax.tree_util.tree_leaves_with_path(argument)
            if valid_jaxtype(leaf)
        ]
        inputs = [_source(jnp.asarray(a), "input", _spelled(path), (-1, i)) for i, (path, a) in enumerate(leaves)]
        outputs = _enter(jaxpr, inputs, (), "unknown")
    paths = [_spelled(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    bad = [(t.kind, t.culprit._replace(output=p)) for t, p in zip(outputs, paths, strict=True) if t.culprit]
    return min(bad, key=lambda found: found[0] != "nan")[1] if bad else None


def _line(equation: Any) -> str:
    """Return the user's line as "file.py:12 (function)"; empty inside functions of JAX, whose caller is what counts."""
    frames = source_info_util.summarize(equation.source_info, 16).splitlines()[::-1]
    frame = next((f for f in frames if not f.startswith(_LAYERS)), "".join(frames[:1]))
    parts = re.fullmatch(r"(?:.*[\\/])?([^:]+:\d+)(?::\d+)?( .*)", frame)
    return "".join(parts.groups()) if parts else ""


def _kind(value: Any) -> str:
    if not jnp.issubdtype(getattr(value, "dtype", bool), jnp.inexact) or np.isfinite(value).all():
        return ""
    return "nan" if np.isnan(value).any() else "inf"


def _source(value: Any, operation: str, where: str, order: tuple[float, ...]) -> _Traced:
    """Return a value that begins here."""
    kind = _kind(value)
    return _Traced(value, kind, order, Culprit(operation, where, kind, np.shape(value), "")) if kind else _Traced(value)


def _heir(value: Any, candidates: Iterable[_Traced]) -> _Traced:
    """Return a value whose origin is that of a candidate: of the value's own kind if there is one, then the
    earliest.
    """
    if kind := _kind(value):
        return min(candidates, key=lambda c: (c.kind != kind, c.order))._replace(value=value, kind=kind)
    return _Traced(value)


def _enter(jaxpr: Any, inputs: Sequence[_Traced], at: tuple[float, ...], where: str) -> list[_Traced]:
    """Evaluate a program; `at` is its place in the order of operations, `where` the line that called it."""
    constants = [_source(value, "input", "closed over", _CONSTANT) for value in getattr(jaxpr, "consts", ())]
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))
    uses = [*(equation.invars for equation in jaxpr.eqns), jaxpr.outvars]
    last = {v: i for i, atoms in enumerate(uses) for v in atoms if not isinstance(v, Literal)}

    def read(atoms: Iterable[Any], where: str) -> list[_Traced]:
        return [_source(a.val, "literal", where, _CONSTANT) if isinstance(a, Literal) else env[a] for a in atoms]

    for i, equation in enumerate(jaxpr.eqns):
        here = _line(equation) or where
        made = _evaluate(equation, read(equation.invars, here), (*at, i), here)
        env.update(zip(equation.outvars, made, strict=True))
        for v in [*equation.invars, *equation.outvars]:  # arrays do not outlive their last use
            if not isinstance(v, Literal) and last.get(v, i) == i:
                env.pop(v, None)
    return read(jaxpr.outvars, where)


def _evaluate(equation: Any, inputs: Sequence[_Traced], at: tuple[float, ...], where: str) -> list[_Traced]:
    primitive, params = equation.primitive, equation.params
    if primitive in _CALLS:
        return _enter(params["call_jaxpr" if "call_jaxpr" in params else "jaxpr"], inputs, at, where)
    if primitive is primitives.cond_p:
        return _enter(params["branches"][int(inputs[0].value)], inputs[1:], at, where)
    if primitive is primitives.scan_p and params["length"]:
        return _scan(equation, inputs, at, where)
    if primitive is primitives.while_p:
        return _while(params, inputs, at, where)

    def run(*values: Any) -> Any:
        made = primitive.bind(*values, **primitive.get_bind_params(params))
        return made if primitive.multiple_results else [made]

    return _operation(run, inputs, at, where, primitive.name)


def _operation(run: Any, inputs: Sequence[_Traced], at: tuple[float, ...], where: str, name: str) -> list[_Traced]:
    outputs = run(*(t.value for t in inputs))
    suspects = [t for t in inputs if t.kind]
    if not suspects or not any(map(_kind, outputs)):
        return [_source(output, name, where, at) for output in outputs]
    # what is masked has no part in it: see what each suspect does while the others are finite
    finite = [
        np.where(np.isfinite(t.value), t.value, np.asarray(0.5, t.value.dtype)) if t.kind else t.value for t in inputs
    ]
    alone = [run(*(t.value if t is s else f for t, f in zip(inputs, finite, strict=True))) for s in suspects]
    acts = [[s._replace(kind=_kind(o)) for s, o in zip(suspects, by, strict=True)] for by in zip(*alone, strict=True)]
    return [_heir(o, [s for s in found if s.kind] or suspects) for o, found in zip(outputs, acts, strict=True)]


def _step(jaxpr: Any, run: Any, inputs: Sequence[_Traced], at: tuple[float, ...], where: str) -> list[_Traced]:
    """Return the body of a loop, looked into only where the compiled one makes something that is not finite."""
    outputs = run(*(t.value for t in inputs))
    return _enter(jaxpr, inputs, at, where) if any(map(_kind, outputs)) else [_Traced(output) for output in outputs]


def _scan(equation: Any, inputs: Sequence[_Traced], at: tuple[float, ...], where: str) -> list[_Traced]:
    body, length = equation.params["jaxpr"], equation.params["length"]
    # what is scanned over has one axis more outside; versions of JAX differ in how else they tell
    xs = sum(len(v.aval.shape) > len(a.shape) for v, a in zip(equation.invars, body.in_avals, strict=True))
    ys = sum(len(v.aval.shape) > len(a.shape) for v, a in zip(equation.outvars, body.out_avals, strict=True))
    carries, first = len(body.out_avals) - ys, len(inputs) - xs
    constants, carry = inputs[: first - carries], inputs[first - carries : first]
    run, rows, direction = jax.jit(jaxpr_as_fun(body)), [], -1 if equation.params["reverse"] else 1
    for n, i in enumerate(range(length)[::direction]):
        x = [_heir(t.value[i], [t]) for t in inputs[first:]]
        made = _step(body, run, [*constants, *carry, *x], (*at, n), where)
        carry = made[:carries]
        rows.append(made[carries:])
    columns = zip(*rows[::direction], strict=True)
    return [*carry, *(_heir(jnp.stack([t.value for t in c]), [t for t in c if t.kind]) for c in columns)]


def _while(params: Any, inputs: Sequence[_Traced], at: tuple[float, ...], where: str) -> list[_Traced]:
    test, run = jax.jit(jaxpr_as_fun(params["cond_jaxpr"])), jax.jit(jaxpr_as_fun(params["body_jaxpr"]))
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    carry, count = list(inputs[second:]), itertools.count()
    while (going := test(*(t.value for t in [*inputs[:first], *carry]))[0]).any():
        made = _step(params["body_jaxpr"], run, [*inputs[first:second], *carry], (*at, next(count)), where)
        if going.ndim:  # under `vmap` each entry stops by itself
            pairs = zip(made, carry, strict=True)
            made = [_operation(_keep, (_Traced(going), *pair), at, where, "while")[0] for pair in pairs]
        carry = made
    return carry


def _keep(going: Any, new: Any, old: Any) -> list[Any]:
    return [jnp.where(jnp.expand_dims(going, range(going.ndim, new.ndim)), new, old)]
