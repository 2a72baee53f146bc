"""The command line of a function: its parameters are what can be typed, and its docstring is the help.

`def count(path: Path, *, size: int = 3, rows: tuple[str, ...] = (), force: bool = False)` is typed as
`PATH [--size INT] [--rows [TEXT ...]] [--force]`. Values are typed as they print. `Annotated[Path, "--json FILE"]` is
an option of another name than its parameter, or shown with another word for what it takes.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from aevae_jax import suggestions, values
from aevae_jax.cli import device, fields, programs, repairs
from aevae_jax.cli.fields import Fields
from aevae_jax.cli.terminal import LONGEST, leave
from aevae_jax.types import InputError, shortened

BY_FIELD = "an option for each field"
"""Annotates a parameter whose value is typed as its fields, each of them an option; of type `Fields`, it is told which
were."""

_NO_CACHE = "--no-cache"
_NO_CACHE_HELP = (
    "leave the cache of compiled programs alone, which is in $AEVAE_CACHE_DIR or ~/.cache/aevae_jax and may be deleted "
    "at any moment: compile all of them anew, and keep none for the next start."
)

_DEVICE = "--device"
_DEVICE_HELP = "cpu, gpu, tpu, or one GPU of several, such as cuda:1; left out, JAX chooses."

_METAVARS = {int: "INT", float: "FLOAT", bool: "BOOL", str: "TEXT", Path: "PATH"}


def parse_arguments(
    command: Callable[..., Any],
    argv: Sequence[str],
    *,
    prog: str,
    more: str = "",
    compiles: bool = True,
    bases: Sequence[str] = (),
) -> Callable[[], Any]:
    """Return `command` with its arguments taken from `argv`, ready to be called.

    Args:
      command: a function whose annotations and docstring are the interface; options are its keyword-only parameters.
      argv: what was typed after `prog`.
      prog: for help and messages.
      more: text for the help, below the docstring's.
      compiles: whether it computes with JAX, so that compiled programs are kept from one start to the next, and
        `--no-cache` is an option, and so is `--device`.
      bases: parameters that give another value than the usual one for fields to be typed on top of: where one of them
        is given, the command finds out whether the fields are some of that value.

    Raises:
      SystemExit: 0 after showing help; 2 after one line on standard error that says what is wrong with `argv`.
      InputError: an argument of a length that nobody types.
    """
    long = next((text for text in argv if len(text) > values.MOST_CHARACTERS), None)
    if long is not None:
        raise InputError(
            "argument",
            got=f"{len(long):,} characters, {shortened(long, 40)}",
            expected=f"at most {values.MOST_CHARACTERS:,}",
            hint=f"type: {prog} --help",
        )
    parser = Parser(command, prog, more, compiles=compiles)
    try:
        given = parser.read(argv, bases)
    except InputError as error:
        parser.error(error.line(LONGEST - len(f"error: ; type: {prog} --help")))
    anew, where = given.pop(_NO_CACHE, False), given.pop(_DEVICE, "")
    if not compiles:
        return functools.partial(command, **given)
    return functools.partial(_compiling, command, not anew, where, **given)


def _compiling(command: Callable[..., Any], keep: bool, where: str, /, **given: Any) -> Any:
    """Return what a command does on a device, whose compiled programs are kept or not."""
    with programs.kept(keep), device.chosen(where):
        return command(**given)


class Parser(argparse.ArgumentParser):
    """Reads the arguments of one command: see `parse_arguments`."""

    def __init__(self, command: Callable[..., Any], prog: str, more: str = "", *, compiles: bool = True):
        paragraphs = (inspect.getdoc(command) or "").partition("\n\nArgs:")[0].split("\n\n")
        filled = [text if text.startswith("Example:") else textwrap.fill(text, 78) for text in paragraphs]
        super().__init__(
            prog=prog,
            description="\n\n".join(filter(None, [*filled, more])),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,  # defaults are the function's own
            allow_abbrev=False,
        )
        self._negative_number_matcher = re.compile(r"-\.?\d")  # -1e-3 is one, too
        self._arguments: dict[str, tuple[str, Any]] = {}  # name and type of parameters by what is typed
        self._usual: dict[str, Any] = {}  # by what is typed, too
        self._by_field: dict[str, Any] = {}
        self._example = next((text[len("Example: ") :] for text in paragraphs if text.startswith("Example: ")), "")
        self._add_parameters(command)
        if compiles:
            self._add_option(_DEVICE, "DEVICE", str, "", _DEVICE_HELP)
            self._add_option(_NO_CACHE, "", bool, False, _NO_CACHE_HELP)
            self._arguments |= {_DEVICE: (_DEVICE, str), _NO_CACHE: (_NO_CACHE, bool)}

    @property
    def kinds(self) -> dict[str, Any]:
        """The types of the arguments by what is typed: `run`, `--model`."""
        return {label: kind for label, (_, kind) in self._arguments.items()}

    def described(self) -> list[argparse.Action]:
        """Return the arguments as `argparse` has them, but `--help`."""
        return [action for action in self._actions if action.dest in self._arguments]

    def error(self, message: str) -> NoReturn:
        """End the program after one line, with what to type next: the example, where something was left out."""
        if message.endswith("?"):
            leave(f"error: {message}", 2)
        left_out = message.startswith("the following arguments are required") and self._example
        advice = f"; such as: {self._example}" if left_out else f"; type: {self.prog} --help"
        leave(f"error: {shortened(message, LONGEST - len(advice) - 10)}{advice}", 2)

    def read(self, argv: Sequence[str], bases: Sequence[str] = ()) -> dict[str, Any]:
        """Return the values of the parameters that were typed; `bases` as in `parse_arguments`. Raises `InputError`."""
        words, inner = fields.split(argv, [name for cls in self._by_field.values() for name in _names(cls)])
        typed, unknown = self.parse_known_args([self._dashed(word) for word in words])
        if unknown:
            self.error(f"unrecognized arguments: {shortened(' '.join(unknown), 60)}{self._meant(unknown)}")
        given = {}
        for label, text in vars(typed).items():
            name, kind = self._arguments[label]
            given[name] = _read(kind, text, label)
        for name, kind in self._by_field.items():
            names = _names(kind)
            own = {field: given.pop(field) for field in names if field in given}
            made = Fields(_class(kind), own, [(path, text) for path, text in inner if path.partition(".")[0] in names])
            given[name] = made if kind is not _class(kind) else made.value()
            if not given.keys() & set(bases):
                made.value()
        return given

    def _meant(self, unknown: Sequence[str]) -> str:
        """Return what was probably meant by the first of some words that looks like an option or a field."""
        index = next((i for i, word in enumerate(unknown) if word.startswith("--") or "=" in word), None)
        if index is None:
            return ""
        word, _, value = unknown[index].partition("=")
        value = value or " ".join(unknown[index + 1 : index + 2])
        own = {
            f"--{name.replace('_', '-')}": x
            for kind in self._by_field.values()
            for name, x in vars(_class(kind)()).items()
        }
        value = "" if value.startswith("-") else value
        meant = repairs.unknown_option(word, value, self.kinds, {**self._usual, **own}, dotted=own)
        return f"; did you mean {meant}?" if meant else ""

    def _dashed(self, word: str) -> str:
        """Return `--batch-size=3` for `--batch_size=3`."""
        option, equals, text = word.partition("=")
        label = option.replace("_", "-")
        return f"{label}{equals}{text}" if label in self._arguments else word

    def _add_parameters(self, thing: Any, *, fields: bool = False) -> None:
        hints, docs = typing.get_type_hints(thing, include_extras=True), _documented(thing)
        for name, parameter in inspect.signature(thing).parameters.items():
            kind, note = _kind(hints[name])
            text = docs.get(name, "").replace("%", "%%")
            if note == BY_FIELD:
                self._by_field[name] = kind
                self._add_parameters(_class(kind), fields=True)
            elif fields or parameter.kind is parameter.KEYWORD_ONLY:
                label, _, metavar = (note or f"--{name.replace('_', '-')}").partition(" ")
                self._add_option(label, metavar, kind, parameter.default, text)
                self._arguments[label], self._usual[label] = (name, kind), parameter.default
            else:
                nargs = None if parameter.default is parameter.empty else "?"
                self.add_argument(name, metavar=name.upper(), help=text, nargs=nargs)
                self._arguments[name] = name, kind

    def _add_option(self, label: str, metavar: str, kind: Any, default: Any, text: str) -> None:
        several = typing.get_origin(kind) is tuple
        item = typing.get_args(kind)[0] if several else kind
        metavar = metavar or _METAVARS.get(item, label[2:].upper())
        if typing.get_origin(item) is typing.Literal:
            choices = typing.get_args(item)
            braced = f"{{{','.join(choices)}}}"
            metavar, text = (braced, text) if len(braced) < 40 else (metavar, f"{text} One of {', '.join(choices)}.")
        if default is False:
            how: dict[str, Any] = {"action": "store_const", "const": "True"}
        else:
            how = {"metavar": metavar, **({"nargs": "*", "action": "extend"} if several else {})}
        required, shown = default is inspect.Parameter.empty, _default(default).replace("%", "%%")
        self.add_argument(label, dest=label, required=required, help=text + shown, **how)


def _class(kind: Any) -> Any:
    """Return the type of a value that is typed as its fields."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Fields else kind


def _names(kind: Any) -> list[str]:
    return list(inspect.signature(_class(kind)).parameters)


def _documented(thing: Any) -> dict[str, str]:
    """Return the entries of a docstring's section `Args:`."""
    section = (inspect.getdoc(thing) or "").partition("Args:\n")[2]
    return {name: " ".join(text.split()) for name, text in re.findall(r"^  (\w+): (.*(?:\n    .*)*)", section, re.M)}


def _kind(hint: Any) -> tuple[Any, str]:
    """Return the type of what is typed and the note of `Annotated[int | None, note]`."""
    hint, note = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint, "")
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return (kinds[0] if union and len(kinds) == 1 else hint), note


def _read(kind: Any, text: Any, where: str) -> Any:
    """Return the value that a text spells, or those of several texts."""
    if typing.get_origin(kind) is tuple:
        return tuple(_read(typing.get_args(kind)[0], item, where) for item in text)
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        if text not in choices:
            meant = suggestions.meant_by(text, choices)
            hint = f"did you mean {where} {meant}?" if meant else ""
            raise InputError(where, got=repr(shortened(text, 60)), expected=" or ".join(choices), hint=hint)
        return text
    return kind(text) if kind in (str, Path) else repairs.parse(kind, text, where)


def _default(value: Any) -> str:
    """Return what the help says of a default; where that is nothing, the docstring does."""
    if value is inspect.Parameter.empty:
        return " (required)"
    if value is None or value is False or value in ("", ()):
        return ""
    words = value if isinstance(value, tuple) else [value]
    return f" (default: {' '.join(str(x) if isinstance(x, str | Path) else values.spell(x) for x in words)})"
