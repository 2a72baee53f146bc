"""Functions as commands: what is typed becomes their arguments, or one line that says what is wrong with it."""

from __future__ import annotations

import re
import sys
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from aevae_jax.checkpoints.saving import Saving
from aevae_jax.cli.arguments import BY_FIELD, parse_arguments
from aevae_jax.models.architectures import Conv
from aevae_jax.models.vae import VAE
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError


def command(
    folder: Path,
    *,
    out: Annotated[Path, "--out FILE"],
    size: int = 3,
    rate: float = 0.5,
    seed: int | None = None,
    split: Literal["test", "validation"] = "test",
    force: bool = False,
) -> tuple[object, ...]:
    """Do something.

    Args:
      folder: where, at 100 %.
      out: a file to write to.
      size: how many.
      rate: how fast.
      seed: of everything.
      split: which part.
      force: do it.
    """
    print("it runs", file=sys.stderr)
    return folder, out, size, rate, seed, split, force


def test_arguments_are_bound_and_not_yet_used(capsys):
    bound = parse_arguments(command, ["a", "--out", "b", "--size", "-4", "--seed", "7", "--force"], prog="x")
    assert capsys.readouterr().err == ""
    assert bound() == (Path("a"), Path("b"), -4, 0.5, 7, "test", True)
    assert capsys.readouterr().err == "it runs\n"  # what a command prints is not swallowed with messages


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a"], "the following arguments are required: --out"),
        ([], "the following arguments are required: FOLDER, --out"),
        (["a", "--out", "b", "--sise", "3"], "unrecognized arguments: --sise 3; did you mean --size 3?"),
        (["a", "--out", "b", "--sise=3"], "unrecognized arguments: --sise=3; did you mean --size 3?"),
        (["a", "--out", "b", "--siz", "3"], "unrecognized arguments: --siz 3; did you mean --size 3?"),
        (["a", "--out", "b", "--no-force"], "unrecognized arguments: --no-force; did you mean --force?"),
        (["a", "--out", "b", "--place", "c"], "unrecognized arguments: --place c"),
        (["a", "--out", "b", "c", "-s", "--hlep"], "unrecognized arguments: c -s --hlep; did you mean --help?"),
        (["a", "--out", "b", "c"], "unrecognized arguments: c"),
        (["a", "--out"], "argument --out: expected one argument"),
        (["a", "--out", "b", "--force=1"], "argument --force: ignored explicit argument '1'"),
        (["a", "--out", "b", "--size", "1.5"], "--size: got 1.5, expected an integer"),
        (["a", "--out", "b", "--size="], "--size: got '', expected an integer"),
        (["a", "--out", "b", "--seed", "one"], "--seed: got one, expected an integer"),
        (["a", "--out", "b", "--seed", "None"], "--seed: got None, expected an integer"),
        (["a", "--out", "b", "--rate", "nan"], "--rate: got nan, expected a number"),
        (["a", "--out", "b", "--rate", "-1x"], "--rate: got '-1x', expected a number"),
        (["a", "--out", "b", "--split", "tset"], "--split: got 'tset', expected test or validation"),
    ],
)
@pytest.mark.parametrize("columns", ["60", "200"])
def test_what_cannot_be_bound_is_one_line_with_the_next_command(argv, message, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as stop:
        parse_arguments(command, argv, prog="x")
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(f"error: {message}")
    assert err.endswith("?\n" if "?" in err else "; type: x --help\n")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["a", "--out", "b"], (Path("a"), Path("b"), 3, 0.5, None, "test", False)),
        (["--split=validation", "a", "--out=b c"], (Path("a"), Path("b c"), 3, 0.5, None, "validation", False)),
        (["--out", "b", "--seed", "-1", "--rate", "-1e-3", "a"], (Path("a"), Path("b"), 3, -1e-3, -1, "test", False)),
        (["--out", "b", "--force", "--", "--a"], (Path("--a"), Path("b"), 3, 0.5, None, "test", True)),
        (["a", "--out", "b", "--size", "1", "--size", "2"], (Path("a"), Path("b"), 2, 0.5, None, "test", False)),
    ],
)
def test_arguments_are_typed_in_any_order_and_way(typed, expected):
    assert parse_arguments(command, typed, prog="x")() == expected


def several(
    *,
    rows: tuple[str, ...] = ("vae",),
    hidden_sizes: tuple[int, ...] = (256, 256),
    only: tuple[Literal["a long name of a part", "another such name", "a third"], ...] = (),
    saving: Saving = Saving(best=2),
    other: Annotated[str, "--more DIR"] = "%d",
) -> tuple[object, ...]:
    """Do more.

    Args:
      rows: which.
      hidden_sizes: 100 % of them.
      only: these alone.
      saving: when.
      other: where.
    """
    return rows, hidden_sizes, only, saving, other


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ([], (("vae",), (256, 256), (), Saving(best=2), "%d")),
        (["--rows", "a", "b", "--hidden-sizes", "8"], (("a", "b"), (8,), (), Saving(best=2), "%d")),
        (["--rows", "--hidden_sizes", "-8", "9"], ((), (-8, 9), (), Saving(best=2), "%d")),
        (["--rows", "a", "b", "--rows", "c"], (("a", "b", "c"), (256, 256), (), Saving(best=2), "%d")),
        (["--hidden_sizes=8", "--more=a_b"], (("vae",), (8,), (), Saving(best=2), "a_b")),
        (
            ["--only", "a third", "--saving", "Saving(last=3)"],
            (("vae",), (256, 256), ("a third",), Saving(last=3), "%d"),
        ),
    ],
)
def test_several_words_values_and_options_of_another_name(typed, expected):
    assert parse_arguments(several, typed, prog="x")() == expected


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            ["--only", "a third", "fourth"],
            "--only: got 'fourth', expected a long name of a part or another such name or",
        ),
        (["--hidden-sizes", "8", "many"], "--hidden-sizes: got many, expected an integer"),
        (["--saving", "Saving(x=3)"], "--saving: Saving: got the unknown field 'x', expected"),
        (["--other", "x"], "unrecognized arguments: --other x"),
    ],
)
def test_what_is_wrong_with_one_of_several_words(typed, message, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(several, typed, prog="x")
    assert capsys.readouterr().err.startswith(f"error: {message}")


def shown_help(function, capsys, *typed):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(function, [*typed, "--help"], prog="x", more="Text below.")
    out, err = capsys.readouterr()
    assert (stop.value.code or 0, err) == (0, "")
    return out


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_help_fits_the_terminal(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    for function in (command, several):
        assert max(map(len, shown_help(function, capsys).splitlines())) <= int(columns)


def test_help_is_shown_with_code_0(capsys):
    out = " ".join(shown_help(command, capsys).split())
    for text in (
        "[-h] --out FILE [--size INT] [--rate FLOAT] [--seed INT] [--split {test,validation}] [--force] "
        "[--device DEVICE] [--no-cache] FOLDER Do some",
        "Do something. Text below. positional arguments: FOLDER where, at 100 %. options:",
        "--out FILE a file to write to. (required)",
        "--size INT how many. (default: 3)",
        "--seed INT of everything. --split {test,validation} which part. (default: test) --force do it.",
    ):
        assert text in out
    out = " ".join(shown_help(several, capsys).split())
    for text in (
        "--rows [TEXT ...] which. (default: vae)",
        "--hidden-sizes [INT ...] 100 % of them. (default: 256 256)",
        "--only [ONLY ...] these alone. One of a long name of a part, another such name, a third.",
        "--saving SAVING when. (default: Saving(best=2))",
    ):
        assert text in out
    assert "--more DIR where. (default: %d) --device DEVICE cpu, gpu, tpu, or one GPU of several" in out
    assert " left out, JAX chooses. --no-cache leave the cache of compiled programs alone" in out


def test_help_comes_whatever_else_is_wrong(capsys):
    assert shown_help(command, capsys) == shown_help(command, capsys, "--size", "x", "--split", "y", "--sise")


def test_an_example_is_one_line_however_long(capsys, monkeypatch):
    def long(*, size: int = 3) -> None:
        pass

    monkeypatch.setattr(long, "__doc__", f"Do {'much ' * 30}.\n\n    Example: do {'much ' * 30}.\n    ")
    lines = shown_help(long, capsys).splitlines()
    assert f"Example: do {'much ' * 30}." in lines
    assert sum(len(line) > 79 for line in lines) == 1


def run_command(run: Annotated[Run, BY_FIELD], *, out: str = "") -> Run:
    return run


def options_help(cls, capsys, monkeypatch):
    monkeypatch.setitem(run_command.__annotations__, "run", Annotated[cls, BY_FIELD])
    return " ".join(shown_help(run_command, capsys).split())


def test_every_field_of_a_run_is_an_option_with_its_help_and_default(capsys, monkeypatch):
    shown = options_help(Run, capsys, monkeypatch)
    for field in fields(Run):
        assert f" --{field.name.replace('_', '-')} " in shown
    assert "--batch-size INT examples per step; left at 0, what suits their number" in shown
    assert "--model MODEL what is trained;" in shown
    assert "(default: VAE())" in shown
    assert "ReconstructionError() for an Autoencoder" in shown


def test_a_new_field_appears_by_itself(capsys, monkeypatch):
    cls = make_dataclass("More", [("patch", int, 7)], bases=(Run,), frozen=True)
    assert "--patch INT (default: 7)" in options_help(cls, capsys, monkeypatch)
    assert parse_arguments(run_command, ["--patch", "3", "--epochs", "2"], prog="x")() == cls(patch=3, epochs=2)


def test_only_what_is_typed_is_given():
    argv = ["--epochs", "3", "--model", "vae(latent=4, network=conv)", "--out", "b"]
    bound = parse_arguments(run_command, argv, prog="x")
    assert bound() == Run(epochs=3, model=VAE(latent=4, network=Conv()))
    assert bound.keywords.keys() == {"run", "out"}
    assert parse_arguments(run_command, [], prog="x")() == Run()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("epochs", "many", r"--epochs: got many, expected an integer"),
        ("batch_size", "1.5", r"--batch-size: got 1.5, expected an integer"),
        ("model", "xyz", r"--model: got xyz, expected Autoencoder\(.*\) or VAE\("),
        ("model", "VAE(latent=", r"--model: got 'VAE\(latent=', which lacks \) at the end"),
        ("model", "VAE(xyz=3)", r"--model: VAE: got the unknown field 'xyz'"),
        ("objective", "ELBO(beta=many)", r"--objective.beta: got many, expected a number or LinearWarmup\("),
        ("data", "Data(3)", r"--data.name: got 3, expected text"),
        ("optimizer", "__import__('os')", r"--optimizer"),
        ("epochs", "", r"--epochs: got '', expected an integer"),
    ],
)
def test_a_text_that_its_field_does_not_accept_is_refused(name, text, message, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(run_command, [f"--{name}", text], prog="x")
    assert re.match(f"error: {message}.* type: x --help\n$", capsys.readouterr().err)


@pytest.mark.parametrize("argv", [["a", "--out", "x" * 10_001], ["x" * 10_000_000], ["--" + "x" * 10_001]])
def test_a_long_argument_is_refused_unread(argv, capsys):
    with pytest.raises(
        InputError, match=r"^argument: got 10,0\d\d?,?\d* characters, .{,50} expected at most 10,000"
    ) as error:
        parse_arguments(command, argv, prog="x")
    assert len(str(error.value)) <= 200


@pytest.mark.parametrize("typed", [["--" + "x" * 9_000], ["--size", "9" * 9_000 + "x"], ["--split", "s" * 9_000]])
def test_messages_about_arguments_are_short(typed, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(command, ["a", "--out", "b", *typed], prog="x")
    assert len(capsys.readouterr().err) <= 250
