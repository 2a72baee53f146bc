"""The command line: argv -> values -> the package's functions -> files. JAX is imported when a command runs."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from aevae_jax import __version__, limits, runs, values
from aevae_jax.checkpoints.saving import Saving
from aevae_jax.cli import (
    compress,
    console,
    data,
    diagnose,
    evaluate,
    generate,
    overview,
    rehearsing,
    repairs,
    reruns,
    supervision,
)
from aevae_jax.cli.arguments import BY_FIELD, parse_arguments
from aevae_jax.cli.fields import Fields
from aevae_jax.cli.terminal import begin, report, say
from aevae_jax.lazy import modules
from aevae_jax.runs import (
    directory as places,
    fitting,
    processes as joining,
    provenance,
    records,
    run as reading,
    same_run,
)
from aevae_jax.runs.fitted import Fitted
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax.cli import completion as scripts
else:
    scripts = modules("aevae_jax.cli", "completion")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command of the command line.

    Args:
      argv: what is typed after `aevae`; by default what was, and then the process is this program's, which ends by
        Ctrl-C, SIGTERM or SIGHUP once what it was writing is removed.

    Raises:
      SystemExit: 0 after showing help, 2 after a mistake of the user's, 130 after Ctrl-C.
    """
    with console.one_line_errors(program=argv is None):
        _command(*((sys.argv[1:] if argv is None else argv) or ["--help"]))


def _command(name: str, *rest: str) -> None:
    """Run one command of the command line, by its name and what is typed after that."""
    if name in ("-h", "--help"):
        say(*_OVERVIEW.format(commands=_rows(COMMANDS)).splitlines())
    elif name == "--version":
        say(f"aevae {__version__}")
    elif name == "data" and (not rest or rest[0] in ("-h", "--help")):
        say(*_DATA_OVERVIEW.format(commands=_rows(DATA_COMMANDS)).splitlines())
    elif name == "data":
        _run(DATA_COMMANDS, rest[0], rest[1:], "aevae data")
    else:
        _run(COMMANDS, name, rest, "aevae")


def _run(commands: Mapping[str, Callable[..., None]], name: str, rest: Sequence[str], prog: str) -> None:
    if name not in commands:
        names = [*commands, *(["data"] if commands is COMMANDS else [])]
        raise repairs.command(name, rest, names, prog)
    command = commands[name]
    more = _VALUES.format(grammar=console.grammar(runs.Run)) if command is train else ""
    compiles = commands is COMMANDS and name not in AT_ONCE
    bases = ("config", "origin") if command is train else ()
    parse_arguments(command, rest, prog=f"{prog} {name}", more=more, compiles=compiles, bases=bases)()


_VALUES = """\
What can be typed; fields that are left out have the value shown:
{grammar}
  Names alone are enough where nothing is changed: conv is Conv(), and
  --data fashion_mnist is Data(name='fashion_mnist'), --data ./photos is
  Data(name='./photos'). Quote parentheses.
  batch-size 0: as many as suit the number of examples, at most 128.
  size=(): pictures in a folder that are not of one size are scaled to the
  smallest height and width among them, and what juts out is cut off;
  size=(64, 64) scales all to that."""


def _rows(commands: Mapping[str, Callable[..., None]]) -> str:
    return "\n".join(f"  {name:<12} {(command.__doc__ or '').splitlines()[0]}" for name, command in commands.items())


_OVERVIEW = """\
usage: aevae COMMAND ...

Autoencoders and variational autoencoders: train them, measure them, use them.

commands (each explains itself: aevae COMMAND --help):
{commands}
  data         Look at data, or prepare it: aevae data --help

example:
  aevae train runs/first --data digits --model vae --epochs 50
  aevae evaluate runs/first
  aevae sample runs/first --out samples.png

options:
  -h, --help   show this
  --version    show the version"""


_DATA_OVERVIEW = """\
usage: aevae data COMMAND ...

commands (each explains itself: aevae data COMMAND --help):
{commands}

example:
  aevae data inspect ./photos
  aevae data prepare fashion_mnist"""


# ---------------------------------------------------------------------------------------------------------- commands


def train(
    directory: Path,
    run: Annotated[Fields[runs.Run], BY_FIELD],
    *,
    config: Annotated[Path | None, "--config FILE"] = None,
    origin: Annotated[Path | None, "--from RUN"] = None,
    keep_optimizer: bool = False,
    print_config: bool = False,
    dry_run: bool = False,
    stream: Literal["auto", "yes", "no"] = "auto",
    saving: Saving = Saving(),
    fresh: bool = False,
    deterministic: bool = False,
    devices: int = 0,
    shard_params: bool = False,
    processes: str = "",
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = (),
    seeds: int = 1,
    sweep: Annotated[tuple[str, ...], "--sweep FIELD=V,V"] = (),
) -> None:
    """Train a model; the same command resumes it where it was stopped.

    Example: aevae train runs/first --model "VAE(latent=8, network=Conv())" --epochs 50

    With --seeds or --sweep, it trains a model for each seed and number, all as one program, and leaves each as a run of
    its own in DIRECTORY/members; of a sweep, rate_distortion.png shows rate against distortion.

    Example: aevae train runs/betas --sweep objective.beta=0.5,1,2,4 --seeds 5

    With --from, it goes on from a finished run, whose value is taken where nothing else is typed. With more epochs and
    nothing else changed, that is exact: the bits are those of all epochs at once.

    Example: aevae train runs/longer --from runs/first --epochs 100

    A field of a field is an option, too: --model.latent 8, --objective.beta 4.

    Exit code 75: stopped by SIGTERM, SIGUSR1 or Ctrl-C, and saved.

    Args:
      directory: for the run: new, empty, or with this run in it, which is then resumed.
      run: what a training depends on.
      config: a run.json, or what --print-config printed, whose value is taken where nothing else is typed.
      origin: a finished run to go on from: from where it ended, if only epochs are added and its learning rate does not
        follow their number; else from its selected weights, with a new optimizer.
      keep_optimizer: with --from, begin with the weights of its last step, and with the state of its optimizer.
      print_config: print the value as JSON, and do nothing else.
      dry_run: say parameters, memory, steps and about how long it takes, by timing some steps; leave nothing.
      stream: read batches from disk while training, or keep all data on the device; auto keeps up to 1 GiB there. The
        numbers are the same.
      saving: when to write checkpoints and which to keep, such as "Saving(seconds=600, last=3, every=50)": at most so
        many seconds are lost in a crash; the last 3, the best and one every 50 epochs are kept.
      fresh: delete the run that is in the directory, and start over.
      deterministic: compute the same bits each time on a GPU, too, at some cost. CPUs do so anyway.
      devices: how many of this process to divide each batch among; 0 for as many as there are and divide it. The noise
        is the same on any number, the order of sums is not.
      shard_params: divide large parameters, and what the optimizer keeps of them, among the devices, too.
      processes: train as one of several processes, each with devices of its own: cluster, where Slurm or Open MPI says
        which; or HOST:PORT,INDEX,COUNT, of the first process, which alone writes and prints.
      track: trackers that are told of the training, each of which needs its package: tensorboard writes into
        DIRECTORY/tensorboard; wandb and mlflow follow their own environment variables.
      seeds: how many, from --seed on.
      sweep: a number of the run by its path, and two values or more, such as objective.beta=0.5,1,2,4 or
        optimizer.learning_rate=1e-3,1e-4; of several, all combinations.
    """
    value = _value(run, config, origin)
    if print_config:
        say(*json.dumps(values.to_tree(value), indent=2, allow_nan=False).splitlines())
        return
    if keep_optimizer and origin is None:
        raise InputError("--keep-optimizer", got="no --from", expected="--from RUN, whose optimizer is kept")
    limits.check("--seeds", seeds, 1, 1000)
    numbers = dict(map(_numbers, sweep))
    if len(numbers) < len(sweep):
        raise InputError("--sweep", got=" ".join(sweep), expected="every field once")
    if (numbers or seeds > 1) and (devices > 1 or shard_params):
        raise InputError("--devices", got="several for --seeds or --sweep", expected="1: members are trained on one")
    if (numbers or seeds > 1) and track:
        raise InputError("--track", got="it with --seeds or --sweep", expected="one run, which trackers are told of")
    where = joining.place(processes)
    if where is not None:
        supervision.begin(joining.LOST.format(index=where.index))
    if deterministic:
        provenance.make_deterministic()
    places.check_contents(directory, fresh=fresh)
    if not (fresh or numbers or seeds > 1):
        same_run.check_typed(directory, value)
    leads = where is None or where.index == 0
    if leads:
        begin(f"reading {value.data.name}")
    value.data.check()
    if where is not None:
        joining.join(where)
    finished = not fresh and records.holds(directory, records.RESULTS)
    streamed = {"auto": None, "yes": True, "no": False}[stream]
    if dry_run:
        swept = (numbers, range(value.seed, value.seed + seeds)) if numbers or seeds > 1 else None
        placed = {"devices": devices, "shard_params": shard_params, "initial": origin, "keep_optimizer": keep_optimizer}
        rehearsing.say_what_it_takes(value, streamed, swept, **placed)
        return
    with console.progress() as shown:
        options: dict[str, Any] = {
            "directory": directory,
            "stream": streamed,
            "saving": saving,
            "fresh": fresh,
            "initial": origin,
            "on_epoch": shown if leads else None,
            "on_steps": shown if leads else None,
            "on_note": console.note if leads else lambda text: None,
        }
        if numbers or seeds > 1:
            found = fitting.fit_members(value, numbers, range(value.seed, value.seed + seeds), **options)
        else:
            options |= {
                "devices": devices,
                "shard_params": shard_params,
                "keep_optimizer": keep_optimizer,
                "track": track,
            }
            fitted = fitting.fit(value, **options)
    if not leads:
        return
    if finished:
        console.note(f"{directory} was finished before; --fresh would train again")
    if numbers or seeds > 1:
        _report_members(directory, numbers, seeds, found)
        return
    results, place = fitted.results, shlex.quote(str(directory))
    test = results["test"]
    terms, below = console.loss_terms(test), console.below_zero(test)
    report(
        f"test   {terms}; best epoch {results['best_epoch']} of {len(fitted.history)}, {results['seconds']:.1f} s",
        *([f"       {below}"] if below else []),
        f"wrote  {directory}: {', '.join(sorted(path.name for path in directory.iterdir()))}",
        f"next   aevae evaluate {place}",
        f"       aevae sample {place} --out samples{overview.suffix_of(fitted.run)}",
    )


def _value(typed: Fields[runs.Run], config: Path | None, origin: Path | None) -> runs.Run:
    """Return the run that is typed, on top of that of a file or of an old run."""
    if config is None and origin is None:
        return typed.value()
    if config is not None:
        base = reading.read(records.read_value(config), str(config), recorded=False)
    else:
        assert origin is not None
        overview.check_run(origin)
        base = reading.read(records.read_record(origin)["run"], str(origin / records.RECORD))
    base = dataclasses.replace(base, objective=reading.unsized(base.objective))
    if "model" in typed.typed and base.objective == runs.Run(model=base.model).objective:  # that of the new model
        typed = dataclasses.replace(typed, typed={"objective": None, **typed.typed})
    return typed.value(base)


def _numbers(text: str) -> tuple[str, tuple[float, ...]]:
    """Return the field and the numbers of `objective.beta=0.5,1,2`."""
    field, _, numbers = text.partition("=")
    found: tuple[float, ...] = ()
    with contextlib.suppress(ValueError):
        found = tuple(map(float, numbers.split(",")))
    if len(found) < 2:
        raise InputError("--sweep", got=repr(text), expected="a field and two numbers or more: objective.beta=0.5,1,2")
    return field, found


def _report_members(
    directory: Path, numbers: Mapping[str, Sequence[float]], seeds: int, fitted: Sequence[Fitted]
) -> None:
    """Say what became of each combination of numbers, on average over its seeds."""
    lines = []
    for index, own in enumerate(itertools.product(*numbers.values())):
        tests = [each.results["test"] for each in fitted[index * seeds : (index + 1) * seeds]]
        mean = {name: sum(test[name] for test in tests) / seeds for name in tests[0]}
        at = "".join(f"{field} {number:g}: " for field, number in zip(numbers, own, strict=True))
        lines.append(f"test   {at}{console.loss_terms(mean)}")
    members = directory / records.MEMBERS
    first = min(members.iterdir())
    report(
        *lines,
        f"wrote  {directory}: {', '.join(sorted(path.name for path in directory.iterdir()))}",
        f"next   aevae evaluate {shlex.quote(str(first))}",
    )


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print what completes commands, options, names and runs in a shell.

    For bash: aevae completion bash > ~/.local/share/bash-completion/completions/aevae

    For zsh, into a folder of its $fpath: aevae completion zsh > ~/.zfunc/_aevae

    For fish: aevae completion fish > ~/.config/fish/completions/aevae.fish

    Example: aevae completion bash

    Args:
      shell: bash, zsh or fish.
    """
    say(*scripts.script(shell, COMMANDS, DATA_COMMANDS).splitlines())


COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__.rstrip("_"): command
    for command in (
        train,
        overview.list_,
        overview.show,
        evaluate.evaluate,
        evaluate.compare,
        diagnose.diagnose,
        diagnose.quality,
        generate.sample,
        generate.reconstruct,
        generate.interpolate,
        generate.traverse,
        generate.encode,
        generate.decode,
        compress.compress,
        compress.decompress,
        compress.info,
        reruns.reproduce,
        reruns.replay,
        completion,
    )
}
AT_ONCE = ("list", "show", "info", "completion")
"""Those that do not import JAX."""
DATA_COMMANDS: dict[str, Callable[..., None]] = {command.__name__: command for command in (data.inspect, data.prepare)}
