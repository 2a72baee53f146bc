"""Values: frozen dataclasses that print, compare, hash, and go to text and back.

Only types that an annotation lists can be built, from JSON or from what was typed; no name is ever imported and nothing
is executed. `ELBO(beta=4.0)` is `{"type": "ELBO", "beta": 4.0}` in JSON and `ELBO(beta=4)` on a command line.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import re
import sys
import types
import typing
from typing import Any

from aevae_jax.types import InputError

FROM_PYTHON = "an object given from Python"
"""How `describe` puts an annotation that no text can satisfy."""

_POSITIONAL = ("positional",)
"""The key of arguments without a name in what `parse` reads; no JSON object can have it."""

_PLAIN_NAME = re.compile(
    r"[A-Za-z_][\w:./\\+ -]*|[./~].*"
)  # a name of TFDS, with its configuration and version; a path


def to_tree(value: Any, annotation: Any = Any) -> Any:
    """A JSON tree of a value. Objects that are not values (a function, a module) become `{"custom": description}`.

    Where `annotation` asks for a float, 1 becomes 1.0: equal values have equal trees.
    """
    options = _options(annotation)
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and _is_value(type(value)):
        hints = typing.get_type_hints(type(value))
        fields = {
            field.name: to_tree(getattr(value, field.name), hints[field.name]) for field in dataclasses.fields(value)
        }
        return {"type": type(value).__name__, **fields}
    if isinstance(value, tuple):
        inner = next((typing.get_args(option)[0] for option in options if typing.get_origin(option) is tuple), Any)
        return [to_tree(item, inner) for item in value]
    if type(value) is int and float in options and int not in options:
        return float(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {"custom": getattr(value, "__name__", type(value).__name__)}


def from_tree(annotation: Any, tree: Any, where: str) -> Any:
    """The value that `tree` describes, if `annotation` allows it.

    Args:
      annotation: a value type, a union of them, a tuple, a `Literal`, or a plain type.
      tree: as `to_tree` made it.
      where: the file or option it came from, for messages.

    Raises:
      InputError: an unknown type or field, a value of the wrong type, or an object that only Python can supply.
    """
    options = _options(annotation)
    if isinstance(tree, dict):
        return _from_dict(annotation, tree, where)
    for option in options:
        origin, args = typing.get_origin(option), typing.get_args(option)
        if origin is typing.Literal and tree in args:
            return tree
        if origin is tuple and isinstance(tree, list):
            items = [args[0]] * len(tree) if args[-1:] == (Ellipsis,) else list(args)
            if len(items) == len(tree):
                return tuple(from_tree(a, t, f"{where}[{i}]") for i, (a, t) in enumerate(zip(items, tree, strict=True)))
        if option in (bool, str) and type(tree) is option:
            return tree
        if option is int and type(tree) is int and abs(tree) < 2**63:
            return tree
        if option is float and type(tree) in (int, float) and abs(tree) <= sys.float_info.max:
            return float(tree)
    raise InputError(where, got=_shown(tree), expected=describe(annotation))


def to_json(value: Any) -> str:
    """Canonical JSON of a value: the same text for equal values. Raises `InputError` for NaN and infinity."""
    try:
        return json.dumps(to_tree(value), sort_keys=True, allow_nan=False)
    except ValueError:
        raise InputError(type(value).__name__, got="a number that is not finite", expected="finite numbers") from None


def digest(value: Any) -> str:
    """sha256 of a value's canonical JSON."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def parse(annotation: Any, text: str, where: str) -> Any:
    """The value that `text` spells: `VAE(latent=8, network=Conv())`, `conv`, `4.0`, `(32, 64)`.

    The text is read as Python's syntax and never evaluated: names of listed types, keyword arguments and constants.
    Where only one type is possible and its first field is text, a plain name that is not the type's own stands for that
    field: `fashion_mnist` is `Data(name='fashion_mnist')`.
    """
    short = _first_field(annotation, text.strip())
    if short is not None:
        return from_tree(annotation, short, where)
    try:
        tree = _node_to_tree(ast.parse(text.strip(), mode="eval").body, where)
    except InputError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(where, got=repr(text), expected=describe(annotation)) from None
    return from_tree(annotation, tree, where)


def describe(annotation: Any) -> str:
    """What an annotation accepts, in words to be typed."""
    names = []
    for option in _options(annotation):
        if typing.get_origin(option) is typing.Literal:
            names += [repr(choice) for choice in typing.get_args(option)]
        elif _is_value(option):
            names.append(signature(option))
        elif typing.get_origin(option) is tuple:
            names.append(
                "(" + ", ".join("..." if a is Ellipsis else describe(a) for a in typing.get_args(option)) + ")"
            )
        elif option in (bool, int, float, str):
            names.append({bool: "True or False", int: "an integer", float: "a number", str: "text"}[option])
    return " or ".join(names) or FROM_PYTHON


def signature(cls: Any) -> str:
    """`ELBO(beta=1.0, free_bits=0.0)`: a type with its defaults, as it is typed."""
    parts = []
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING
        parts.append(field.name if required else f"{field.name}={spell(field.default)}")
    return f"{cls.__name__}({', '.join(parts)})"


def spell(value: Any) -> str:
    """The shortest text that `parse` reads back as `value`: fields at their defaults are left out."""
    if not _is_value(type(value)):
        return repr(value)
    fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
    given = [f"{field.name}={spell(item)}" for field, item in fields if item != field.default]
    return f"{type(value).__name__}({', '.join(given)})"


def vocabulary(annotation: Any) -> dict[str, list[str]]:
    """Everything that can be typed inside `annotation`: signatures by the name of the field that takes them.

    The types of `annotation` itself come first, under the empty name. Types that only Python can supply are left out.
    """
    found: dict[str, list[str]] = {}

    def visit(name: str, annotation: Any) -> None:
        types_ = [cls for cls in _options(annotation) if _is_value(cls) and _can_be_typed(cls)]
        if not types_ or name in found:
            return
        found[name] = [signature(cls) for cls in types_]
        for cls in types_:
            for field, hint in typing.get_type_hints(cls).items():
                visit(field, hint)

    visit("", annotation)
    return found


def _is_value(cls: Any) -> bool:
    """Frozen dataclasses of this project are values; other people's dataclasses (Linen modules too) are not."""
    return isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__.startswith("aevae_jax.")


def _can_be_typed(cls: Any) -> bool:
    hints = typing.get_type_hints(cls)
    required = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
    return all(describe(hints[name]) != FROM_PYTHON for name in required)


def _first_field(annotation: Any, text: str) -> Any:
    """The tree of a plain name that stands for the first field of the only possible type, else `None`."""
    cls, *others = _options(annotation)
    if others or not _is_value(cls) or not _PLAIN_NAME.fullmatch(text) or text.lower() == cls.__name__.lower():
        return None
    first = dataclasses.fields(cls)[0].name
    return {"type": cls.__name__, first: text} if typing.get_type_hints(cls)[first] is str else None


def _shown(tree: Any) -> str:
    """`repr` of what was given, which may be nested too deeply, or be a number too long, for that."""
    try:
        return repr(tree)
    except (RecursionError, ValueError):
        return "a value too large to show"


def _options(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [inner for option in typing.get_args(annotation) for inner in _options(option)]
    return [annotation]


def _from_dict(annotation: Any, tree: dict[Any, Any], where: str) -> Any:
    known = {cls.__name__: cls for cls in _options(annotation) if _is_value(cls)}
    if "custom" in tree:
        raise InputError(where, got=f"{_shown(tree['custom'])}, which was given from Python",
                         expected="a type that can be rebuilt from a file", hint="pass your own object")  # fmt: skip
    name = tree.get("type")
    matches = [cls for key, cls in known.items() if isinstance(name, str) and key.lower() == name.lower()]
    if not matches:
        got = name if isinstance(name, str) else _shown(name)
        raise InputError(where, got=got, expected=describe(annotation))
    cls = matches[0]
    fields = {field.name: field for field in dataclasses.fields(cls)}
    given = dict(tree)
    given.pop("type")
    for position, item in enumerate(given.pop(_POSITIONAL, [])):
        if position >= len(fields) or list(fields)[position] in given:
            raise InputError(f"{where}: {cls.__name__}", got="too many arguments", expected=signature(cls))
        given[list(fields)[position]] = item
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise InputError(f"{where}: {cls.__name__}", got=f"the unknown field {unknown[0]!r}", expected=signature(cls))
    missing = [n for n, field in fields.items() if n not in given and field.default is dataclasses.MISSING]
    if missing:
        raise InputError(f"{where}: {cls.__name__}", got=f"no {missing[0]!r}", expected=signature(cls))
    hints = typing.get_type_hints(cls)
    return cls(**{n: from_tree(hints[n], item, f"{where}.{n}") for n, item in given.items()})


def _node_to_tree(node: ast.expr, where: str) -> Any:
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool | int | float | str)):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _node_to_tree(node.operand, where)
        if isinstance(number, int | float):
            return -number
    if isinstance(node, ast.Tuple | ast.List):
        return [_node_to_tree(item, where) for item in node.elts]
    if isinstance(node, ast.Name):
        return {"type": node.id}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        given = {k.arg: _node_to_tree(k.value, where) for k in node.keywords}
        if len(given) == len(node.keywords) and not given.keys() & {None, "type", "custom"}:
            return {"type": node.func.id, _POSITIONAL: [_node_to_tree(a, where) for a in node.args], **given}
    raise InputError(
        where, got=repr(ast.unparse(node)), expected="a name, a number, text, a tuple or Name(field=value)"
    )
