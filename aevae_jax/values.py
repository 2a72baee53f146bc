"""Values: frozen dataclasses that print, compare, hash, and go to text and back.

Only types that an annotation lists can be built, from JSON or from what was typed; no name is ever imported and nothing
is executed. `ELBO(beta=4.0)` is `{"type": "ELBO", "beta": 4.0}` in JSON and `ELBO(beta=4)` on a command line.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
import math
import numbers
import os
import re
import types
import typing
import warnings
from typing import Any

from aevae_jax import limits, renamed, suggestions
from aevae_jax.types import InputError

FROM_PYTHON = "an object given from Python"
"""How `describe` puts an annotation that no text can satisfy."""

_POSITIONAL = ("positional",)
"""The key of arguments without a name in all that `parse` reads; no JSON object can have it."""

_CALL = re.compile(r"\w+\s*\(.*\)|'.*'|\".*\"", re.DOTALL)
"""What is no plain name: `Name(...)`, or text in quotes."""

MOST_CHARACTERS = 10_000
"""Longer texts are refused unread."""

_hints = functools.cache(typing.get_type_hints)  # of hundreds of records it would take seconds

_ROOM = 90
"""Characters of a message that say what is expected: with what was given, it stays below 200."""


def to_tree(value: Any, annotation: Any = Any) -> Any:
    """Return the JSON tree of a value.

    What is no value of this project becomes `{"custom": name, "fields": {...}}` where its fields can be written: a
    dataclass, a named tuple, an array (its digest), a function (its compiled code, and what it refers to). Anything
    else becomes `{"custom": name, "opaque": true}`: two equal trees with that in them may be of unequal things, see
    `comparable`. A class is known by its name alone.

    Where `annotation` asks for a float, 1 becomes 1.0: equal values have equal trees.
    """
    allowed = options(annotation)
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and _is_value(type(value)):
        hints = _hints(type(value))
        trees = {f.name: to_tree(getattr(value, f.name), hints[f.name]) for f in dataclasses.fields(value)}
        absent = renamed.ABSENT.get(type(value).__name__, {})  # left out: values of old records keep their sha256
        given = {name: tree for name, tree in trees.items() if name not in absent or tree != absent[name]}
        return {"type": type(value).__name__, **given}
    if type(value) in (tuple, list):
        inner = next((typing.get_args(option)[0] for option in allowed if typing.get_origin(option) is tuple), Any)
        return [to_tree(item, inner) for item in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral) and (int in allowed or float not in allowed):
        return int(value)
    if isinstance(value, numbers.Real):
        if annotation is Any and not math.isfinite(value):
            return {"custom": str(float(value)), "fields": {}}  # JSON has no such number
        return float(value)
    name, fields = getattr(value, "__name__", type(value).__name__), _own_fields(value)
    return {"custom": name, "opaque": True} if fields is None else {"custom": name, "fields": fields}


def comparable(tree: Any) -> bool:
    """Return whether equal trees are of equal values: there is nothing in `tree` that could not be written."""
    if isinstance(tree, dict):
        return ("custom" not in tree or "fields" in tree) and all(comparable(item) for item in tree.values())
    return not isinstance(tree, list) or all(comparable(item) for item in tree)


def from_tree(annotation: Any, tree: Any, where: str) -> Any:
    """Return the value that `tree` describes, if `annotation` allows it.

    Args:
      annotation: a value type, a union of them, a tuple, a `Literal`, or a plain type.
      tree: as `to_tree` made it.
      where: the file or option it came from, for messages.

    Raises:
      InputError: an unknown type or field, a value of the wrong type, or an object that only Python can supply.
    """
    if isinstance(tree, dict):
        return _from_dict(annotation, tree, where)
    for option in options(annotation):
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
        if option is float and type(tree) in (int, float) and abs(tree) <= limits.LARGEST:
            return float(tree)
        if origin is tuple and args[1:] == (Ellipsis,) and type(tree) in (int, float, str) and type(tree) is args[0]:
            shown = limits.shown(tree)
            raise InputError(where, got=shown, expected=describe(annotation), hint=f"of one: ({shown},)")
    raise _refusal(annotation, limits.shown(tree), where, tree if isinstance(tree, str) else "")


def to_json(value: Any) -> str:
    """Return the canonical JSON of a value: the same text for equal values. Raises `InputError` for NaN and
    infinity.
    """
    try:
        return json.dumps(to_tree(value), sort_keys=True, allow_nan=False)
    except ValueError:
        raise InputError(type(value).__name__, got="a number that is not finite", expected="finite numbers") from None


def digest(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def parse(annotation: Any, text: str, where: str) -> Any:
    """Return the value that `text` spells: `VAE(latent=8, network=Conv())`, `conv`, `4.0`, `(32, 64)`.

    The text is read as Python's syntax and never evaluated: names of listed types, keyword arguments and constants.
    Where only one type is possible and its first field is text, whatever is not spelled as a call, nor as the type's
    own name, stands for that field: `fashion_mnist` is `Data(name='fashion_mnist')`.

    Raises:
      InputError: a text that spells nothing that `annotation` allows; the message is short, and says what was meant.
    """
    text = text.strip()
    if len(text) > MOST_CHARACTERS:
        raise InputError(where, got=f"{len(text):,} characters", expected=f"at most {MOST_CHARACTERS:,}")
    short = _first_field(annotation, text)
    if short is not None:
        return from_tree(annotation, short, where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python would print what it thinks of "1if"
            tree = _node_to_tree(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _refusal(annotation, limits.shown(text), where, text, suggestions.unbalanced(text)) from None
    return from_tree(annotation, tree, where)


def describe(annotation: Any) -> str:
    """Return what an annotation accepts, as it is typed, in at most about 100 characters: `--help` has the rest."""
    names = []
    for option in options(annotation):
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
    if len(" or ".join(names)) > _ROOM:
        names = [name.split("(")[0] + "(...)" if name.endswith(")") else name for name in names]
    if len(" or ".join(names)) > _ROOM:
        names = [*names[:3], "another that --help lists"]
    return " or ".join(names) or FROM_PYTHON


def signature(cls: Any) -> str:
    """Return `ELBO(beta=1.0, free_bits=0.0)`: a type with its defaults, as it is typed."""
    parts = []
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING
        parts.append(field.name if required else f"{field.name}={spell(field.default)}")
    return f"{cls.__name__}({', '.join(parts)})"


def spell(value: Any) -> str:
    """Return the shortest text that `parse` reads back as `value`: fields at their defaults are left out."""
    if not _is_value(type(value)):
        return repr(value)
    fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
    given = [f"{field.name}={spell(item)}" for field, item in fields if item != field.default]
    return f"{type(value).__name__}({', '.join(given)})"


def vocabulary(annotation: Any) -> dict[str, list[str]]:
    """Return everything that can be typed inside `annotation`: signatures by the name of the field that takes them.

    The types of `annotation` itself come first, under the empty name. Types that only Python can supply are left out.
    """
    found: dict[str, list[str]] = {}

    def visit(name: str, annotation: Any) -> None:
        types_ = [cls for cls in options(annotation) if _is_value(cls) and _can_be_typed(cls)]
        known = found.setdefault(name, []) if types_ else []  # fields of one name may take others in other types
        new = [cls for cls in types_ if signature(cls) not in known]
        known += [signature(cls) for cls in new]
        for cls in new:
            for field, hint in _hints(cls).items():
                visit(field, hint)

    visit("", annotation)
    return found


def types_of(annotation: Any) -> dict[str, Any]:
    """Return the value types that `annotation` lists, by name."""
    return {cls.__name__: cls for cls in options(annotation) if _is_value(cls)}


def _is_value(cls: Any) -> bool:
    """Return whether a type is a value: frozen dataclasses of this project are; other people's are not."""
    return isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__.startswith("aevae_jax.")


def _can_be_typed(cls: Any) -> bool:
    hints = _hints(cls)
    required = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
    return all(describe(hints[name]) != FROM_PYTHON for name in required)


def _first_field(annotation: Any, text: str) -> Any:
    """Return the tree of a plain name that stands for the first field of the only possible type, else `None`."""
    cls, *others = options(annotation)
    if others or not _is_value(cls) or not text or not text.isprintable():
        return None
    if _CALL.fullmatch(text) and not os.path.exists(text):  # photos (1) may well be a folder
        return None
    if re.match(rf"{cls.__name__}\s*($|\()", text, re.IGNORECASE):  # the type's own name, or a call cut short
        return None
    first = dataclasses.fields(cls)[0].name
    return {"type": cls.__name__, first: text} if _hints(cls)[first] is str else None


def _refusal(annotation: Any, got: str, where: str, typed: str = "", fault: str = "") -> InputError:
    """Return the error that `got` is nothing that `annotation` allows, with what was probably meant.

    Args:
      annotation: what is allowed.
      got: what was given, to be shown.
      where: the file or option it came from.
      typed: the text in which a name may be misspelled.
      fault: what is wrong with it, where that is known.
    """
    known = types_of(annotation)
    meant = "" if fault else suggestions.meant_by(re.split(r"[\s(\[]", typed, maxsplit=1)[0], list(known))
    if fields := dataclasses.fields(known[meant]) if meant else ():
        default = "" if fields[0].default is dataclasses.MISSING else f"={spell(fields[0].default)}"
        meant += f"({fields[0].name}{default})"
    return InputError(
        where,
        got=f"{got}, {fault}" if fault else got,
        expected=describe(annotation),
        hint=f"did you mean {meant}?" if meant else "",
    )


def _refused_field(cls: Any, got: str, where: str, typed: str = "") -> InputError:
    """Return the error that a call of `cls` has `got`, with the field that was probably meant."""
    names = [field.name for field in dataclasses.fields(cls)]
    whole, meant = signature(cls), suggestions.meant_by(typed, names)
    expected = whole if len(whole) <= _ROOM else f"{cls.__name__}({', '.join(names)})"
    return InputError(
        f"{where}: {cls.__name__}", got=got, expected=expected, hint=f"did you mean {meant}?" if meant else ""
    )


def _own_fields(value: Any) -> dict[str, Any] | None:
    """Return the trees of the fields of an object that is no value of this project; `None` where they cannot be
    known.
    """
    try:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: to_tree(getattr(value, field.name, None)) for field in dataclasses.fields(value)}
            defaults = {field.name: field.default for field in dataclasses.fields(value)}
            # a default that cannot be written, such as an initializer of a Linen module, is known by its class
            return {
                name: tree
                for name, tree in fields.items()
                if comparable(tree) or getattr(value, name, None) is not defaults[name]
            }
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return {name: to_tree(item) for name, item in value._asdict().items()}
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {key: to_tree(item) for key, item in value.items()}
        if hasattr(value, "__array__") and not isinstance(value, type):
            array = value.__array__()
            if not array.dtype.hasobject:
                sha256 = hashlib.sha256(array.tobytes()).hexdigest()
                return {"dtype": str(array.dtype), "shape": to_tree(array.shape), "sha256": sha256}
        return _function_fields(value)
    except (TypeError, ValueError, RecursionError):  # a traced array; an empty cell; a module that holds its parent
        return None


def _function_fields(value: Any) -> dict[str, Any] | None:
    """Return what makes a function: its code, the numbers, texts and arrays of its module that it names, and what it
    encloses.

    Other functions and classes of the module are known by their names, which are in the code.
    """
    if isinstance(value, functools.partial):
        return {name: to_tree(getattr(value, name)) for name in ("func", "args", "keywords")}
    function = inspect.unwrap(value) if callable(value) and not isinstance(value, type) else None
    if isinstance(function, types.BuiltinFunctionType):
        return {"module": function.__module__} if isinstance(function.__self__, types.ModuleType) else None
    if not isinstance(function, types.FunctionType):
        return None
    code, found = function.__code__, function.__globals__
    known = {name: to_tree(found[name]) for name in code.co_names if name in found and not callable(found[name])}
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    return {
        "code": hashlib.sha256(_code_bytes(code)).hexdigest(),
        "defaults": to_tree((function.__defaults__ or (), function.__kwdefaults__ or {})),
        "globals": {name: tree for name, tree in known.items() if comparable(tree)},
        "enclosed": {name: to_tree(cell.cell_contents) for name, cell in cells},
    }


def _code_bytes(code: types.CodeType) -> bytes:
    """Return the instructions, names and constants of a function and of those within it, but not where they stand."""
    constants = [_code_bytes(c) if isinstance(c, types.CodeType) else _stable(c) for c in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants)).encode()


def _stable(constant: Any) -> str:
    """Return `repr` with one order for sets, which have another in each process."""
    return repr(sorted(map(repr, constant))) if isinstance(constant, frozenset) else repr(constant)


def options(annotation: Any) -> list[Any]:
    """Return what a union is of; of another annotation, that alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [inner for option in typing.get_args(annotation) for inner in options(option)]
    return [annotation]


def _from_dict(annotation: Any, tree: dict[Any, Any], where: str) -> Any:
    known = types_of(annotation)
    if "custom" in tree:
        raise InputError(
            where,
            got=f"{limits.shown(tree['custom'])}, which was given from Python",
            expected="a type that can be rebuilt from a file",
            hint="pass your own object",
        )
    name = tree.get("type")
    if isinstance(name, str) and name not in known:  # as version 0.1 wrote it
        name = renamed.TYPES.get(name, name)
    matches = [cls for key, cls in known.items() if isinstance(name, str) and key.lower() == name.lower()]
    if not matches:
        raise _refusal(annotation, limits.shown(name).strip("'"), where, str(name))
    cls = matches[0]
    fields = {field.name: field for field in dataclasses.fields(cls)}
    old = renamed.FIELDS.get(cls.__name__, {})
    given = {old.get(field, field): item for field, item in tree.items() if field != "type"}
    if _POSITIONAL not in given:  # recorded, not typed
        given = {**renamed.ABSENT.get(cls.__name__, {}), **given}
    for position, item in enumerate(given.pop(_POSITIONAL, [])):
        if position >= len(fields) or list(fields)[position] in given:
            raise _refused_field(cls, "too many arguments", where)
        given[list(fields)[position]] = item
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise _refused_field(cls, f"the unknown field {limits.shown(unknown[0])}", where, unknown[0])
    missing = [n for n, field in fields.items() if n not in given and field.default is dataclasses.MISSING]
    if missing:
        raise _refused_field(cls, f"no {missing[0]!r}", where)
    hints = _hints(cls)
    return cls(**{n: from_tree(hints[n], item, f"{where}.{n}") for n, item in given.items()})


def _node_to_tree(node: ast.expr) -> Any:
    """Return the tree that a syntax tree spells. Raises `ValueError` where it spells none."""
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool | int | float | str)):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _node_to_tree(node.operand)
        if isinstance(number, int | float):
            return -number
    if isinstance(node, ast.Tuple | ast.List):
        return [_node_to_tree(item) for item in node.elts]
    if isinstance(node, ast.Name):
        return {"type": node.id, _POSITIONAL: []}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        given = {k.arg: _node_to_tree(k.value) for k in node.keywords}
        if len(given) == len(node.keywords) and not given.keys() & {None, "type", "custom"}:
            return {"type": node.func.id, _POSITIONAL: [_node_to_tree(a) for a in node.args], **given}
    raise ValueError("neither a name, a number, text, a tuple nor Name(field=value)")
