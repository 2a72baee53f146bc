"""A value as it is typed: whole fields, such as `--model VAE`, and fields of these, such as `--model.latent 8`."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aevae_jax import suggestions, values
from aevae_jax.cli import repairs
from aevae_jax.types import InputError

T = TypeVar("T")

_PATH = re.compile(r"--(?P<field>[a-z][a-z_-]*)(?P<rest>(?:\.[A-Za-z_-]+)+)(?:=(?P<text>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Fields(Generic[T]):
    """The fields of a value that were typed.

    Args:
      cls: its type, a frozen dataclass.
      typed: whole fields by name.
      inner: fields of fields, and the text that was typed for each, by a path such as `model.network.sizes`.
    """

    cls: type[T]
    typed: Mapping[str, Any]
    inner: Sequence[tuple[str, str]] = ()

    def value(self, base: T | None = None) -> T:
        """Return the value, whose other fields are those of `base`, or have their defaults.

        Raises:
          InputError: a field that does not exist, or does not accept what was typed.
        """
        value: Any = self.cls(**self.typed) if base is None else _changed(base, self.typed)
        for path, text in self.inner:
            value = _placed(value, path.split("."), text, f"--{path}")
        return value


def split(argv: Sequence[str], names: Collection[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return what is typed without the options that are paths into a field of these names, and the paths with their
    texts.

    Raises:
      InputError: a path into no field of these names, or without a text.
    """
    rest, inner, words = list[str](), list[tuple[str, str]](), iter(argv)
    for word in words:
        found = _PATH.fullmatch(word) if names else None
        if found is None:
            rest.append(word)
            continue
        field = found["field"].replace("-", "_")
        if field not in names:
            meant = suggestions.meant_by(field, list(names))
            raise InputError(
                word.partition("=")[0],
                got=f"no field {field!r}",
                expected=", ".join(names),
                hint=f"did you mean --{meant}{found['rest']}?" if meant else "",
            )
        text = found["text"] if found["text"] is not None else next(words, None)
        if text is None:
            raise InputError(word, got="nothing", expected=f"a value: {word} VALUE")
        inner.append((field + found["rest"].replace("-", "_"), text))
    return rest, inner


def _changed(value: Any, fields: Mapping[str, Any]) -> Any:
    """Return a frozen dataclass with other fields; those that it is only told when it is made are left out."""
    kept = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return type(value)(**{**kept, **fields})


def _placed(value: Any, path: Sequence[str], text: str, where: str) -> Any:
    """Return a value with what a text spells at a path."""
    name, *inner = path
    known = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    if name not in known:
        meant = suggestions.meant_by(name, known)
        raise InputError(
            where,
            got=f"no field {name!r} in {values.spell(value)}",
            expected=", ".join(known) or "a value that has fields",
            hint=f"did you mean {where.removesuffix('.'.join(path))}{'.'.join([meant, *inner])} {text}?"
            if meant
            else "",
        )
    if inner:
        return _changed(value, {name: _placed(getattr(value, name), inner, text, where)})
    return _changed(value, {name: repairs.parse(typing.get_type_hints(type(value))[name], text, where)})
