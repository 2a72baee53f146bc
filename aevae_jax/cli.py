"""The command line: argv -> values -> the package's functions -> files. JAX is imported when a command runs."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, TypeAlias

from tyro.conf import Positional, arg

from aevae_jax import (
    __version__,
    console,
    data_commands,
    environment,
    evaluation_commands,
    files,
    fitting,
    records,
    run_commands,
    runs,
    values,
)
from aevae_jax.checkpoints import Saving
from aevae_jax.evaluation_commands import MaybeData, key_of, prepared_of
from aevae_jax.terminal import report, say
from aevae_jax.types import Columned, InputError, LatentModel, Params, Scaled

if TYPE_CHECKING:
    import numpy as np
    from jax import Array

    from aevae_jax.data import Format

    RunOptions: TypeAlias = Any
else:
    RunOptions = console.options_of(runs.Run)

Out = Annotated[Path, arg(metavar="FILE")]
Input = Annotated[Path, arg(name="input", metavar="FILE")]
# Optional, not `| None`: tyro checks the latter with typeguard, whose import takes 0.1 s
MaybeInput = Annotated[Optional[Path], arg(name="input", metavar="FILE", help_behavior_hint="(default: test images)")]  # noqa: UP045


@console.one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
      argv: what is typed after `aevae`; by default what was.

    Raises:
      SystemExit: 0 after showing help, 2 after a mistake of the user's, 130 after Ctrl-C.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
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
        meant = values.meant_by(name, names)
        advice = f"did you mean {meant}? type: {prog} --help" if meant else f"type: {prog} --help"
        raise InputError("command", got=repr(name[:40]), expected=", ".join(names), hint=advice)
    command = commands[name]
    purpose = inspect.cleandoc(command.__doc__ or "").partition("\n\nArgs:")[0]
    if command is train:
        purpose += f"\n\n{_VALUES.format(grammar=console.grammar(runs.Run))}"
    console.parse_arguments(command, rest, prog=f"{prog} {name}", description=purpose)()


# tyro joins lines, unless the next one is indented
_VALUES = """\
What can be typed; fields that are left out have the value shown:
{grammar}
  Names alone are enough where nothing is changed: conv is Conv(), and
  --data fashion_mnist is Data(name='fashion_mnist'), --data ./photos is
  Data(name='./photos'). Quote parentheses."""


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
    directory: Positional[Path],
    options: Annotated[RunOptions, arg(name="")],
    *,
    stream: Literal["auto", "yes", "no"] = "auto",
    saving: Annotated[str, arg(metavar="SAVING")] = values.spell(Saving()),
    fresh: bool = False,
    deterministic: bool = False,
) -> None:
    """Train a model; the same command goes on where it was stopped.

    Example: aevae train runs/first --model "VAE(latent=8, network=Conv())" --epochs 50

    Exit code 75: stopped by SIGTERM, SIGUSR1 or Ctrl-C, and saved.

    Args:
      directory: for the run: new, empty, or with this run in it, which then goes on.
      options: what a run depends on.
      stream: read batches from disk while training, or keep all data on the device; auto keeps up to 1 GiB there. The
        numbers are the same.
      saving: when to write checkpoints and which to keep, such as "Saving(seconds=600, last=3, every=50)": at most so
        many seconds are lost in a crash; the last 3, the best and one every 50 epochs are kept.
      fresh: delete the run that is in the directory, and start over.
      deterministic: compute the same bits each time on a GPU, too, at some cost. CPUs do so anyway.
    """
    run = runs.Run(**console.values_of(runs.Run, options))
    kept = values.parse(Saving, saving, "--saving")
    if deterministic:
        environment.make_deterministic()
    finished = not fresh and records.holds(directory, records.RESULTS)
    with console.progress() as on_epoch:
        fitted = fitting.fit(
            run,
            directory=directory,
            stream={"auto": None, "yes": True, "no": False}[stream],
            saving=kept,
            fresh=fresh,
            on_epoch=on_epoch,
            on_note=console.note,
        )
    if finished:
        console.note(f"{directory} was finished before; --fresh would train again")
    results, place = fitted.results, shlex.quote(str(directory))
    test = results["test"]
    terms = console.loss_terms({**test, "mse": test["mse_at_mean"]})
    suffix = ".png" if len(fitted.run.model.event_shape) == 3 else ".npy"
    if isinstance(fitted.run.model.likelihood, Columned):
        suffix = ".csv"
    report(
        f"test   {terms}; best epoch {results['best_epoch']} of {len(fitted.history)}, {results['seconds']:.1f} s",
        f"wrote  {directory}: {', '.join(sorted(path.name for path in directory.iterdir()))}",
        f"next   aevae evaluate {place}",
        f"       aevae sample {place} --out samples{suffix}",
    )


def sample(
    run: Positional[Path], *, out: Out, num: int = 64, seed: int = 0, noise: bool = False, force: bool = False
) -> None:
    """Draw codes from the prior and decode them.

    Example: aevae sample runs/first --out samples.png --num 100

    Args:
      run: a run directory.
      out: .png for a sheet of images, .npy or .npz for numbers.
      num: how many.
      seed: of the draws.
      noise: draw from p(x|z) as well, in place of its mean.
      force: replace the output file if it exists.
    """
    files.check_output(out, files.DATA, force=force)
    if num < 1:
        raise InputError("--num", got=num, expected="at least 1")
    fitted = fitting.load_run(run)
    import jax

    from aevae_jax import generation, keys

    draw = jax.jit(generation.sample, static_argnums=(0, 3))
    drawn = draw(fitted.model, fitted.params, key_of(seed, keys.Stream.SAMPLE), num)
    images = drawn.sample(key_of(seed, keys.Stream.NOISE)) if noise else drawn.mean()
    _save(out, fitted, _format(run), {"images": images})


def reconstruct(
    run: Positional[Path],
    *,
    out: Out,
    input_file: MaybeInput = None,
    num: int = 16,
    data: MaybeData = "",
    force: bool = False,
) -> None:
    """Encode images and decode them again, both at the mean.

    Example: aevae reconstruct runs/first --out reconstructions.png

    Args:
      run: a run directory.
      out: .png for a sheet with each row of inputs above its reconstructions, .npy or .npz for numbers.
      input_file: images: .npy or .npz with raw uint8, or floats in [0, 1], [N, H, W, C]; or one .png. Of a table:
        rows as .csv or .parquet.
      num: how many of the first test images to take where there is no input.
      data: where the run's data is by now, a name or path: it must be the same data, by its sha256.
      force: replace the output file if it exists.
    """
    files.check_output(out, files.DATA, force=force)
    if num < 1:
        raise InputError("--num", got=num, expected="at least 1")
    fitted = fitting.load_run(run)
    x = prepared_of(run, fitted.run, data).test.x[:num] if input_file is None else _images(input_file, run, fitted)
    y = _batched(_reconstruction, fitted, x)["reconstructions"]
    _save(out, fitted, _format(run), {"reconstructions": y, "images": x}, columns=min(len(x), 16), paired=True)


def interpolate(
    run: Positional[Path],
    *,
    out: Out,
    start: int = 0,
    end: int = 1,
    steps: int = 10,
    data: MaybeData = "",
    force: bool = False,
) -> None:
    """Decode the codes on a straight line between those of two test images.

    Example: aevae interpolate runs/first --out path.png --start 3 --end 8

    Args:
      run: a run directory.
      out: .png for a row of images, .npy or .npz for numbers.
      start: index of the first image in the test set.
      end: index of the last one.
      steps: how many images, the two ends included.
      data: where the run's data is by now, a name or path: it must be the same data, by its sha256.
      force: replace the output file if it exists.
    """
    files.check_output(out, files.DATA, force=force)
    if steps < 2:
        raise InputError("--steps", got=steps, expected="at least 2")
    fitted = fitting.load_run(run)
    x = prepared_of(run, fitted.run, data).test.x
    for option, index in (("--start", start), ("--end", end)):
        if not 0 <= index < len(x):
            raise InputError(option, got=index, expected=f"0 to {len(x) - 1}, an index of the test set")
    import jax

    from aevae_jax import generation

    arguments = fitted.model, fitted.params, x[start : start + 1], x[end : end + 1], steps
    images = jax.jit(generation.interpolate, static_argnums=(0, 4))(*arguments)
    codes = jax.jit(generation.path, static_argnums=(0, 4))(*arguments)
    _save(out, fitted, _format(run), {"images": images[:, 0]}, {"codes": codes[:, 0]}, columns=min(steps, 20))


def encode(run: Positional[Path], *, input_file: Input, out: Out, force: bool = False) -> None:
    """Turn images into codes: the means of q(z|x).

    Example: aevae encode runs/first --input images.npy --out codes.npy

    Args:
      run: a run directory.
      input_file: images: .npy or .npz with raw uint8, or floats in [0, 1], [N, H, W, C]; or one .png. Of a table:
        rows as .csv or .parquet.
      out: .npy for the codes [N, latent]; .npz for "codes" and, of a VAE, "scale", the standard deviations.
      force: replace the output file if it exists.
    """
    files.check_output(out, files.ARRAYS, force=force)
    fitted = fitting.load_run(run)
    _save(out, fitted, _format(run), {}, _batched(_code, fitted, _images(input_file, run, fitted)))


def decode(run: Positional[Path], *, input_file: Input, out: Out, force: bool = False) -> None:
    """Turn codes into images: the means of p(x|z).

    Example: aevae decode runs/first --input codes.npy --out images.png

    Args:
      run: a run directory.
      input_file: codes, .npy or .npz with floats [N, latent].
      out: .png for a sheet of images, .npy or .npz for numbers.
      force: replace the output file if it exists.
    """
    files.check_output(out, files.DATA, force=force)
    fitted = fitting.load_run(run)
    codes = files.read_codes(input_file, fitted.run.model.latent)
    _save(out, fitted, _format(run), _batched(_decoded, fitted, codes))


COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command
    for command in (
        train,
        evaluation_commands.evaluate,
        evaluation_commands.compare,
        evaluation_commands.diagnose,
        evaluation_commands.quality,
        sample,
        reconstruct,
        interpolate,
        encode,
        decode,
        run_commands.reproduce,
        run_commands.replay,
    )
}
DATA_COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command for command in (data_commands.inspect, data_commands.prepare)
}


# ------------------------------------------------------------------------------- what is computed of every example


def _code(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    posterior = model.encode(params, x)
    return {"codes": posterior.mean(), **({"scale": posterior.scale} if isinstance(posterior, Scaled) else {})}


def _decoded(model: LatentModel, params: Params, z: Array, key: Array) -> dict[str, Array]:
    return {"images": model.decode(params, z).mean()}


def _reconstruction(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    from aevae_jax import generation

    return {"reconstructions": generation.reconstruct(model, params, x)}


def _batched(metric: Any, fitted: fitting.Fitted, x: Any) -> dict[str, np.ndarray]:
    """`metric`, which uses no noise, of every example, in batches that fit into memory."""
    from aevae_jax import evaluation, keys

    return evaluation.per_example(metric, fitted.model, fitted.params, x, keys.root(0))


def _save(
    out: Path,
    fitted: fitting.Fitted,
    format: Format,
    data: Mapping[str, Any],
    codes: Mapping[str, Any] | None = None,
    **sheet: Any,
) -> None:
    """Write what the model made, `data` in the units of the data set and `codes` as they are."""
    import numpy as np

    inverse = fitted.run.data.preparation.inverse
    arrays = {**{name: inverse(np.asarray(x), format) for name, x in data.items()}, **(codes or {})}
    report(f"wrote {out}: {files.write(out, arrays, table=format.columns, **sheet)}")


# -------------------------------------------------------------------------------------------- the data of a run


def _format(directory: Path) -> Format:
    """What `run.json` says of the form of the training data."""
    from aevae_jax.data import Format

    path = directory / "run.json"
    record = records.read_json(path)
    if not isinstance(record, dict) or "format" not in record:
        raise InputError("run.json", where=str(directory), got="no record of the form of its data",
                         expected='an object "format"')  # fmt: skip
    return values.from_tree(Format, record["format"], f"{path}, format")


def _images(path: Path, directory: Path, fitted: fitting.Fitted) -> np.ndarray:
    return files.read_images(path, fitted.model, fitted.run.data.preparation, _format(directory))
