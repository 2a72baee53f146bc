"""What the command line and the experiments share: arguments and a line of progress.

Imports neither JAX nor, before it is needed, rich: help must come at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import textwrap
import typing
from pathlib import Path
from typing import Any

from aevae_jax import values
from aevae_jax.cli import arguments, repairs, terminal
from aevae_jax.runs import progress as said
from aevae_jax.runs.run import unsized
from aevae_jax.types import InputError, Shaped

one_line_errors, note = terminal.one_line_errors, terminal.note  # so that experiments need this file alone
parse_arguments = arguments.parse_arguments
progress, parts, duration, of_all_epochs = said.progress, said.parts, said.duration, said.of_all_epochs
loss_terms, below_zero = said.loss_terms, said.below_zero


# ------------------------------------------------------------------------------------------- values as they are typed


def grammar(cls: Any) -> str:
    """Return the values that the fields of `cls` accept, by the option or field that takes them, in lines of 78
    columns.
    """
    rows = []
    for option, hint in typing.get_type_hints(cls).items():
        for field, signatures in values.vocabulary(hint).items():
            label = f"  {field}" if field else f"--{option}"
            for text in signatures:
                first, *more = textwrap.wrap(text, 62, subsequent_indent="  ", break_long_words=False)
                rows += [f"{label:<16}{first}", *(" " * 16 + row for row in more)]
                label = ""
    return "\n".join(rows)


def train_command(directory: str | Path, run: Any) -> str:
    """Return the line that trains `run`, as it is typed in a shell; empty where a part of it can only be given from
    Python.

    Args:
      directory: for the run.
      run: a `runs.Run`. What follows from its data or is as usual is left out.
    """
    model = run.model
    if isinstance(model, Shaped):
        model = dataclasses.replace(model, event_shape=())  # type: ignore[type-var]
    usual = {**vars(type(run)()), "objective": type(run)(model=model).objective}
    hints, typed = typing.get_type_hints(type(run)), []
    for name, value in {**vars(run), "model": model, "objective": unsized(run.objective)}.items():
        if name != "data" and value == usual[name]:
            continue
        option = f"--{name.replace('_', '-')}"
        for text in ([value.name] if name == "data" else []) + [values.spell(value)]:
            with contextlib.suppress(InputError):
                if values.parse(hints[name], text, option) == value:
                    typed.append(f"{option} {repairs.quoted(text)}")
                    break
        else:
            return ""
    return " ".join(["aevae train", shlex.quote(str(directory)), *typed])
