"""`aevae completion`: what a shell proposes after TAB, as a script that starts no Python. shtab writes it."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import shtab

from aevae_jax import values
from aevae_jax.cli import arguments
from aevae_jax.data import built_in

RUNS = {"bash": "_aevae_runs", "zsh": "_aevae_runs", "fish": "(_aevae_runs)"}
DATA = {"bash": "_aevae_data", "zsh": "_aevae_data", "fish": "(_aevae_data)"}
"""What completes directories of runs, and data: functions of the shells, which `_FUNCTIONS` defines."""

_FUNCTIONS = {
    "bash": """
_aevae_runs() {
  local each found=
  for each in "$1"*/run.json "$1"*/*/run.json; do
    if [ -e "$each" ]; then found=1; echo "${each%/run.json}"; fi
  done
  if [ -z "$found" ]; then compgen -d -- "$1"; fi
}
_aevae_data() {
  compgen -W "NAMES" -- "$1"
  compgen -f -- "$1"
}""",
    "zsh": """
_aevae_runs() {
  local -a found
  found=(${(Q)PREFIX}*/run.json(N:h) ${(Q)PREFIX}*/*/run.json(N:h))
  if (( $#found )); then compadd -f -a found; else _files -/; fi
}
_aevae_data() {
  _alternative 'names:data:(NAMES)' 'files:file:_files'
}""",
    "fish": """
function _aevae_runs
  set -l word (commandline -ct)
  set -l found $word*/run.json $word*/*/run.json
  if test (count $found) -gt 0
    string replace -r '/run.json$' '' $found
  else
    __fish_complete_directories $word
  end
end
function _aevae_data
  string split ' ' 'NAMES'
  __fish_complete_path (commandline -ct)
end""",
}


def script(
    shell: str, commands: Mapping[str, Callable[..., None]], data_commands: Mapping[str, Callable[..., None]]
) -> str:
    """Return the script for bash, zsh or fish.

    Args:
      shell: which.
      commands: by name.
      data_commands: those of `aevae data`.
    """
    parser = argparse.ArgumentParser(prog="aevae", description="Autoencoders and variational autoencoders.")
    parser.add_argument("--version", action="store_true", help="show the version")
    group = _add(parser, commands)
    _add(group.add_parser("data", help="Look at data, or prepare it."), data_commands)
    return shtab.complete(parser, shell, preamble=_FUNCTIONS[shell].replace("NAMES", " ".join(built_in.BUILT_IN)))


def _add(parser: argparse.ArgumentParser, commands: Mapping[str, Callable[..., None]]) -> Any:
    """Add commands to a parser."""
    made: Any = _Commands(commands).parser  # argparse calls it as it would a class
    group = parser.add_subparsers(parser_class=made)
    for name, command in commands.items():
        group.add_parser(name, help=(command.__doc__ or "").splitlines()[0])
    return group


class _Commands:
    """Makes the parser of each of some commands, which knows what completes each of its arguments."""

    def __init__(self, commands: Mapping[str, Callable[..., None]]):
        self._commands = commands

    def parser(self, *, prog: str, **_: Any) -> argparse.ArgumentParser:
        """Return the parser of the command whose name `prog` ends with; one without arguments where there is none."""
        command = self._commands.get(prog.rpartition(" ")[2])
        if command is None:
            return argparse.ArgumentParser(prog=prog)
        parser = arguments.Parser(command, prog)
        for action in parser.described():
            _complete(action, parser.kinds.get(action.dest))
        return parser


def _complete(action: Any, kind: Any) -> None:
    """Say what completes an argument of a type, in the way of shtab."""
    item = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind
    action.help = (action.help or "").partition(". ")[0]  # what a line has room for
    if typing.get_origin(item) is typing.Literal:
        action.choices = typing.get_args(item)
    elif action.dest in ("data", "--data"):
        action.complete = DATA
    elif names := list(values.types_of(item)):
        action.choices = names
    elif item is Path:
        action.complete = RUNS if action.dest in ("run", "other", "directory", "--from", "--run") else shtab.FILE
