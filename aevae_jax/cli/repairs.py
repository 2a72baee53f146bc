"""What was probably meant by what cannot be read, spelled so that it can be typed."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import os
import re
import shlex
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from aevae_jax import limits, suggestions, values
from aevae_jax.data import built_in
from aevae_jax.types import InputError, shortened

_TYPES = {
    "ae": ("Autoencoder",),
    "betavae": ("VAE", "ELBO(beta=4)"),
    "hvae": ("TwoLevelVAE",),
    "cnn": ("Conv",),
    "resnet": ("ResidualConv",),
    "dense": ("MLP",),
    "fc": ("MLP",),
    "adam": ("AdamW",),
    "mse": ("ReconstructionError", "NormalSharedScale"),
    "l2": ("ReconstructionError", "NormalSharedScale"),
    "gaussian": ("Normal", "StandardNormal"),
    "bce": ("Bernoulli",),
    "kl": ("ELBO",),
    "vae": ("ELBO",),
    "gmm": ("GaussianMixture",),
    "normalize": ("Standardize",),
    "binarize": ("StaticBinarization",),
}
"""What other libraries call the values of this one: of several, the first that fits."""

_FIELDS = {
    "dim": "latent",
    "latents": "latent",
    "z_dim": "latent",
    "zdim": "latent",
    "hidden_dim": "hidden",
    "hidden_dims": "hidden",
    "hidden_size": "hidden",
    "layers": "hidden",
    "filters": "channels",
    "encoder": "network",
    "decoder": "network",
    "prior": "latent_prior",
    "kl_weight": "beta",
    "decay": "weight_decay",
    "interval": "every",
}
"""The same of fields, and of options."""

_COMMANDS = {
    "fit": "train",
    "resume": "train",
    "eval": "evaluate",
    "test": "evaluate",
    "score": "evaluate",
    "generate": "sample",
    "generation": "sample",
    "predict": "reconstruct",
    "embed": "encode",
    "ls": "list",
    "runs": "list",
    "info": "show",
    "status": "show",
    "diff": "compare",
    "inspect": "data inspect",
    "prepare": "data prepare",
    "download": "data prepare",
}
"""The same of commands."""

_WORDS = {"gpu": "--device gpu", "cuda": "--device gpu", "cpu": "--device cpu", "tpu": "--device tpu"}
"""Options that are values of one."""


def parse(annotation: Any, text: str, where: str) -> Any:
    """Return what `values.parse` does.

    Raises:
      InputError: which says what was probably meant, as it is typed.
    """
    try:
        return values.parse(annotation, text, where)
    except InputError as error:
        meant = repaired(annotation, text)
        if not meant:
            raise
        fault = suggestions.unbalanced(text)
        got = limits.shown(text) if where.partition(".")[0] == error.what else error.got
        got = f"{limits.shown(text)}, {fault}" if fault else got
        raise InputError(error.what, got=got, expected="", hint=f"did you mean {option(where, meant)}?") from None


def option(label: str, text: str) -> str:
    """Return an option and its value as they are typed in a shell."""
    return f"{label} {quoted(text)}"


def quoted(text: str) -> str:
    """Return text as a word of a shell, in double quotes where that is enough."""
    word = shlex.quote(text)
    return word if word == text or set(text) & set('"$`\\!') else f'"{text}"'


def repaired(annotation: Any, text: str) -> str:
    """Return what was probably meant by a text that spells no value of `annotation`; empty where that is not known."""
    for spelled in _as_calls(annotation, suggestions.closed(text.strip())):
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            meant = ast.unparse(_repaired(annotation, ast.parse(spelled, mode="eval").body))
            values.parse(annotation, meant, "")
            return meant[:-2] if re.fullmatch(r"\w+\(\)", meant) else meant
    return ""


def command(name: str, rest: Sequence[str], names: Sequence[str], prog: str) -> InputError:
    """Return the error that there is no such command, with the one that was probably meant.

    Args:
      name: what was typed.
      rest: what was typed after it.
      names: the commands that there are.
      prog: what they are typed after.
    """
    word = name.strip("-").lower()
    meant = next((known for known in (_COMMANDS.get(word, ""), word) if known.split(" ")[0] in names), "")
    meant = meant or suggestions.meant_by(word, names)
    if not meant and (
        asked := suggestions.meant_by(word, ["help", "version"]) or {"h": "help", "v": "version"}.get(word)
    ):
        about = rest[0] if asked == "help" and rest and rest[0] in names else ""
        meant, rest = f"{about} --{asked}".strip(), ()
    if not meant and prog == "aevae data" and (name in built_in.BUILT_IN or os.path.exists(name)):
        meant, rest = "inspect", (name, *rest)
    hint = f"did you mean {prog} {shortened(shlex.join([*meant.split(), *rest]), 80)}?" if meant else ""
    expected, hint = ("", hint) if meant else ("one of its commands", f"type: {prog} --help")
    return InputError("command", got=limits.shown(name), expected=expected, hint=hint)


def unknown_option(
    word: str, value: str, kinds: Mapping[str, Any], defaults: Mapping[str, Any], *, dotted: Collection[str] = ()
) -> str:
    """Return what was probably meant by an option that there is not, as it is typed; empty where that is not known.

    Args:
      word: the option, such as `--lr`.
      value: what was typed after it; may be empty.
      kinds: the types of the options that there are.
      defaults: their defaults, where they have some.
      dotted: those whose fields are options, too: `--model.latent`.
    """
    name = word.strip("-").lower().replace("-", "_")
    if name in _WORDS:
        return _WORDS[name] if "--device" in kinds else ""
    places = [*_paths(kinds, defaults)]
    same = [
        (path, label)
        for path, label in places
        if name in ((field := path[-1][1]), "".join(part[0] for part in field.split("_"))) or _FIELDS.get(name) == field
    ]
    if same:
        path, label = next((each for each in same if _within(each[0], value, kinds[each[1]])), same[0])
        return _spelled(label, path, value, kinds[label], defaults.get(label) if label in dotted else None)
    meant = suggestions.meant_by(name, [*(label[2:] for label in kinds if label.startswith("--")), "help"])
    if meant:
        return f"--{meant}" if kinds.get(f"--{meant}", bool) is bool else f"--{meant} {value}".strip()
    for path, label in places:
        if path[-1][1] == suggestions.meant_by(name, [path[-1][1]]):
            return _spelled(label, path, value, kinds[label], defaults.get(label) if label in dotted else None)
    return ""


Path = list[tuple[Any, str]]
"""Types, each with the field that the next one is in; the last field is the one that is meant."""


def _paths(kinds: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield the fields of the values that options take, and those within these; of a default's type first."""
    nested = []
    for label, kind in kinds.items():
        for cls in sorted(values.types_of(kind).values(), key=lambda cls: cls is not type(defaults.get(label))):
            hints = typing.get_type_hints(cls)
            for field in dataclasses.fields(cls):
                yield [(cls, field.name)], label
                for inner in values.types_of(hints[field.name]).values():
                    nested += [([(cls, field.name), (inner, each.name)], label) for each in dataclasses.fields(inner)]
    yield from nested


def _spelled(label: str, path: Path, value: str, kind: Any, default: Any) -> str:
    """Return a field of the value of an option as it is typed: as an option of its own where it is one of the default
    of the other, else within that: `--model.latent 8`, `--saving "Saving(every=5)"`.
    """
    inner: Any = default
    for cls, name in path:
        if type(inner) is not cls:
            return option(label, _nested(path, value, kind))
        hint, inner = typing.get_type_hints(cls)[name], getattr(inner, name)
    meant = repaired(hint, value) or values.spell(inner)
    with contextlib.suppress(InputError):
        meant = value if values.parse(hint, value, label) is not None else meant
    return option(".".join([label, *(name for _, name in path)]), meant)


def _nested(path: Path, value: str, kind: Any) -> str:
    """Return a value as it is typed: `VAE(network=MLP(hidden=8))`; with the default, where the one given is none."""
    cls, name = path[-1]
    default = next(field.default for field in dataclasses.fields(cls) if field.name == name)
    usual = "" if default is dataclasses.MISSING else values.spell(default)
    return _within(path, value, kind) or _within(path, usual, kind) or path[0][0].__name__


def _within(path: Path, text: str, kind: Any) -> str:
    """Return a text at its place within a value, as it is typed; empty where it is accepted by none."""
    spelled = text
    for cls, name in reversed(path):
        spelled = f"{cls.__name__}({name}={spelled})"
    return repaired(kind, spelled) if text else ""


def _as_calls(annotation: Any, text: str) -> Iterator[str]:
    """Yield readings of a text: as it is, `VAE latent=8` as a call, `latent=8` as one of the type that has the field,
    and `beta-vae` as a word.
    """
    yield text
    if found := re.fullmatch(r"(\w+)[\s:,]+(\w+\s*=.*)", text, re.DOTALL):
        yield f"{found[1]}({found[2]})"
    if re.match(r"\w+\s*=", text):
        yield from (f"{name}({text})" for name in values.types_of(annotation))
    if re.fullmatch(r"[\w-]+", text):
        yield re.sub(r"\W", "", text)


def _repaired(annotation: Any, node: ast.expr) -> ast.expr:
    """Return a syntax tree with names, fields and numbers in place of those that were probably meant.

    Raises:
      ValueError: what was meant is not known.
    """
    known, options = values.types_of(annotation), values.options(annotation)
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and known and str not in options:
        node = ast.Name(node.value)  # network='conv'
    if isinstance(node, ast.Name) and not known and str in options:
        return ast.Constant(node.id)  # Data(mnist)
    if isinstance(node, ast.Name | ast.Call) and known:
        return _repaired_call(known, node)
    items = next((typing.get_args(each)[0] for each in options if typing.get_origin(each) is tuple), None)
    if isinstance(node, ast.Tuple | ast.List) and items is not None:
        return ast.Tuple([_repaired(items, item) for item in node.elts])
    if isinstance(node, ast.Constant) and items is type(node.value) and items not in options:
        return ast.Tuple([node])  # channels=32
    number = node.value if isinstance(node, ast.Constant) else None
    if isinstance(number, float) and number.is_integer() and int in options and float not in options:
        return ast.Constant(int(number))  # 1e3
    return node


def _repaired_call(known: dict[str, Any], node: ast.Name | ast.Call) -> ast.expr:
    called = node.func if isinstance(node, ast.Call) else node
    if not isinstance(called, ast.Name):
        raise ValueError("no name is called")
    word = called.id.lower()
    same = next((name for name in known if name.lower() == word), "")
    usual = next((text for text in _TYPES.get(word, ()) if text.partition("(")[0] in known), "")
    meant = same or usual or suggestions.meant_by(called.id, list(known))
    if not meant:
        raise ValueError(f"no {called.id}")
    if "(" in meant:
        return ast.parse(meant, mode="eval").body
    cls = known[meant]
    if isinstance(node, ast.Name):
        return ast.Call(ast.Name(meant), [], [])
    hints, names = typing.get_type_hints(cls), [field.name for field in dataclasses.fields(cls)]
    if len(node.args) > len(names):
        raise ValueError("too many arguments")
    args = [_repaired(hints[name], item) for name, item in zip(names, node.args, strict=False)]
    keywords: dict[str, ast.expr] = {}
    for keyword in node.keywords:
        field, item = _field(cls, (keyword.arg or "").lower(), keyword.value)
        keywords[field] = _repaired(hints[field], item)
    return ast.Call(ast.Name(meant), args, [ast.keyword(field, item) for field, item in keywords.items()])


def _field(cls: Any, typed: str, item: ast.expr) -> tuple[str, ast.expr]:
    """Return the field of a type that was probably meant, and what it is given: `hidden=8` of a VAE is
    `network=MLP(hidden=8)`.
    """
    hints, names = typing.get_type_hints(cls), [field.name for field in dataclasses.fields(cls)]
    usual = _FIELDS.get(typed, "")
    if found := next((name for name in (typed, usual) if name in names), ""):
        return found, item
    for name in names:
        for inner in values.types_of(hints[name]).values():
            own = [field.name for field in dataclasses.fields(inner)]
            if found := next((each for each in (typed, usual) if each in own), ""):
                return name, ast.Call(ast.Name(inner.__name__), [], [ast.keyword(found, item)])
    found = suggestions.meant_by(typed, names)
    if not found:
        raise ValueError(f"no field {typed}")
    return found, item
