"""`aevae sample`, `reconstruct`, `interpolate`, `traverse`, `encode`, `decode`: what a model makes, in files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from aevae_jax import evaluation, figures, limits, memory, values
from aevae_jax.cli import console, overview
from aevae_jax.cli.evaluate import Moved, key_of, loaded, prepared_of
from aevae_jax.cli.terminal import note, report
from aevae_jax.data import Format, files
from aevae_jax.discrete import Indexed
from aevae_jax.lazy import jax, modules, np
from aevae_jax.runs import data_of_runs, fitting, records
from aevae_jax.types import InputError, LatentModel, Params, Scaled, has_nominal_prior, has_point_codes, shortened

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax import charts, conditions, keys
    from aevae_jax.conditions import Conditioned
    from aevae_jax.data import Format, Source
    from aevae_jax.evaluation import completion, traversal
    from aevae_jax.models import generation, parts
    from aevae_jax.runs import pictures
else:
    charts, conditions, keys = modules("aevae_jax", "charts", "conditions", "keys")
    generation, parts = modules("aevae_jax.models", "generation", "parts")
    completion, traversal = modules("aevae_jax.evaluation", "completion", "traversal")
    pictures = modules("aevae_jax.runs", "pictures")

Out = Annotated[Path, "--out FILE"]
Part = Literal["train", "validation", "test"]
Input = Annotated[Path | None, "--input PATH"]


def sample(run: Path, *, out: Out, num: int = 64, seed: int = 0, noise: bool = False, force: bool = False) -> None:
    """Draw codes from the prior and decode them.

    Example: aevae sample runs/first --out samples.png --num 100

    Args:
      run: a run directory.
      out: .png for a grid of images, .npy or .npz for numbers, .csv for a table.
      num: how many.
      seed: of the draws.
      noise: draw from p(x|z) as well, in place of its mean.
      force: replace the output file if it exists.
    """
    _check_files(run, out, force=force)
    if num < 1:
        raise InputError("--num", got=num, expected="at least 1")
    fitted = loaded(run)
    made = _drawn if noise else _decoded
    _check_room(made, fitted, (num, *_code_shape(fitted)), "--num")

    if has_nominal_prior(fitted.model, fitted.params):
        note("an autoencoder has no prior: random codes are drawn from N(0, I), and most decode to no data")
    key = key_of(seed, keys.Stream.SAMPLE)
    draw = jax.jit(generation.codes, static_argnums=(0, 3)).lower(fitted.model, fitted.params, key, num).compile()
    if needs := draw.memory_analysis():  # a mixture of many components needs more than the codes and what they become
        memory.check(needs.temp_size_in_bytes + needs.output_size_in_bytes, what="--num", got=f"{num:,}")
    codes = draw(fitted.params, key)
    images = _batched(made, fitted, codes, key_of(seed, keys.Stream.NOISE))
    said = f"{pictures.DRAWS if noise else pictures.MEANS}, z ~ {pictures.prior_of(fitted.model)}, seed {seed}"
    _save(out, run, fitted, images, columns=figures.columns_of(num), title="random codes, decoded", note=said)


def reconstruct(
    run: Path,
    *,
    out: Out,
    input_file: Input = None,
    split: Part | None = None,
    num: int = 16,
    data: Moved = "",
    force: bool = False,
) -> None:
    """Encode and decode images, both at the mean; complete rows of tables.

    In a row of a table, what is missing is filled in, and what is given stays as it is.

    Example: aevae reconstruct runs/first --out reconstructions.png

    Args:
      run: a run directory.
      out: .png for a grid with each row of inputs above its reconstructions, .npy or .npz for numbers, .csv for a
        table.
      input_file: .npy or .npz with raw uint8 or floats in [0, 1], [N, H, W, C]; a picture (.png, .jpg, .webp, .tif); or
        a folder of pictures. Of a table: .csv or .parquet.
      split: a part of the run's own data; test, where there is no input either.
      num: how many of the first examples of that part.
      data: where the run's data is by now, a name or path, if it has moved; its sha256 must be the same.
      force: replace the output file if it exists.
    """
    _check_files(run, out, force=force, inputs=input_file)
    if num < 1:
        raise InputError("--num", got=num, expected="at least 1")
    fitted = loaded(run)
    part = split or ("test" if input_file is None else None)
    if _format(run).columns:
        _complete(out, run, fitted, input_file, split=part, num=num, data=data)
        return
    given, classes = _inputs(run, fitted, input_file, part, data)
    count = len(given) if part is None else min(num, len(given))
    _check_room(_reconstruction, fitted, (count, *conditions.examples(given).shape[1:]), "inputs")
    x = given[:count]
    y = _batched(_reconstruction, fitted, x)["reconstructions"]
    words: dict[str, Any] = {
        "title": f"{f'{part} images' if part else shortened(input_file, 50)} and their reconstructions",
        "note": pictures.reconstruction_of(fitted.model),
        "rows": pictures.PAIR,
        "captions": classes[:count],
    }
    _save(out, run, fitted, {"reconstructions": y, "images": x}, columns=figures.columns_of(2 * count), **words)


def interpolate(
    run: Path, *, out: Out, start: int = 0, end: int = 1, steps: int = 10, data: Moved = "", force: bool = False
) -> None:
    """Decode the codes on a straight line between those of two test images.

    Example: aevae interpolate runs/first --out path.png --start 3 --end 8

    Args:
      run: a run directory.
      out: .png for a picture of the two images and what lies between, .npy or .npz for numbers, .csv for a table.
      start: index of the first image in the test set.
      end: index of the last one.
      steps: how many images, the two ends included.
      data: where the run's data is by now, a name or path, if it has moved; its sha256 must be the same.
      force: replace the output file if it exists.
    """
    _check_files(run, out, force=force)
    if steps < 2:
        raise InputError("--steps", got=steps, expected="at least 2")
    fitted = loaded(run)
    _check_room(_decoded, fitted, (steps, *_code_shape(fitted)), "--steps")
    prepared = prepared_of(run, fitted.run, data)
    x = prepared.test.x
    for option, index in (("--start", start), ("--end", end)):
        if not 0 <= index < len(x):
            raise InputError(option, got=index, expected=f"0 to {len(x) - 1}, an index of the test set")

    ends = x[start : start + 1], x[end : end + 1]
    codes = jax.jit(generation.path, static_argnums=(0, 4))(fitted.model, fitted.params, *ends, steps)[:, 0]
    arrays = {**_batched(_decoded, fitted, codes), "inputs": np.concatenate(ends)}
    classes = prepared.classes("test", [start, end])
    first, last = (f"input\n{text}" for text in classes or (start, end))
    words = {
        "title": f"from test image {start} to test image {end}",
        "note": "between the inputs, codes on the straight line between theirs, decoded",
        "captions": [first, *(f"{share:.2f}" for share in np.linspace(0, 1, steps)), last],
        "xlabel": "share of the way; 0 and 1 are the reconstructions of the inputs",
    }
    lines = -(-len(words["captions"]) // 12)
    _save(out, run, fitted, arrays, {"codes": codes}, columns=-(-len(words["captions"]) // lines), **words)


def traverse(
    run: Path,
    *,
    out: Out,
    start: int = 0,
    mean: bool = False,
    num: int = 10,
    steps: int = 7,
    data: Moved = "",
    force: bool = False,
) -> None:
    """Move each latent dimension over what is likely of it, and decode.

    From -3 to 3 standard deviations of the prior around its mean, one dimension at a time; of an autoencoder, which has
    no prior, of the codes of test data. Rows are dimensions, those first whose posterior means vary most.

    Example: aevae traverse runs/first --out traverse.png

    Args:
      run: a run directory.
      out: .png for a row of images per dimension, .npy or .npz for numbers, .csv for a table.
      start: index of the test image whose code is moved.
      mean: move the prior's mean in place of that code.
      num: how many dimensions, at most.
      steps: how many values of each.
      data: where the run's data is by now, a name or path, if it has moved; its sha256 must be the same.
      force: replace the output file if it exists.
    """
    _check_files(run, out, force=force)
    limits.check("--num", num, 1)
    limits.check("--steps", steps, 2)
    fitted = loaded(run)
    shape = _code_shape(fitted)
    _check_room(_decoded, fitted, (min(num, math.prod(shape)) * steps, *shape), "--steps")
    x = prepared_of(run, fitted.run, data).test.x
    if not 0 <= start < len(x):
        raise InputError("--start", got=start, expected=f"0 to {len(x) - 1}, an index of the test set")

    with console.parts("encoding") as on_part:
        found = traversal.describe(fitted.model, fitted.params, x, on_part=on_part)
    chosen = np.argsort(-found.activity, kind="stable")[:num]
    z = found.loc if mean else _batched(_code, fitted, x[start : start + 1])["codes"][0].reshape(-1)
    values = np.linspace(-3.0, 3.0, steps)
    codes = traversal.codes(z, chosen, found, values).reshape(-1, *shape)
    images = _batched(_decoded, fitted, codes)
    arrays = {"codes": codes, "dimensions": chosen, "activity": found.activity[chosen], "values": values}
    points = has_point_codes(fitted.model)
    owner = "codes of test data" if points else "prior"
    others = f"at the mean of the {owner}" if mean else f"as in the code of test image {start}"
    words = {
        "title": f"one dimension moved, the others {others}",
        "note": f"means of p(x|z); variance: of the {'codes' if points else 'posterior means'} over test data",
        "captions": [*[""] * (len(codes) - steps), *(f"{value:+.3g}" if value else "0" for value in values)],
        "rows": [f"{traversal.place(dimension, shape)}  ({found.activity[dimension]:#.2g})" for dimension in chosen],
        "ylabel": "dimension  (variance)",
        "xlabel": f"standard deviations of the {owner}, from its mean",
    }
    _save(out, run, fitted, images, arrays, columns=steps, **words)


def encode(
    run: Path, *, out: Out, input_file: Input = None, split: Part | None = None, data: Moved = "", force: bool = False
) -> None:
    """Turn images into codes: the means of q(z|x).

    Example: aevae encode runs/first --input images.npy --out codes.npy

    Args:
      run: a run directory.
      out: .npy for the codes [N, latent], or [N, *latent] of maps; .npz for "codes" and, of a VAE, "scale", the
        standard deviations; of discrete codes, "indices", [N, places, levels].
      input_file: .npy or .npz with raw uint8 or floats in [0, 1], [N, H, W, C]; a picture (.png, .jpg, .webp, .tif); or
        a folder of pictures, in the order of their names. Of a table: .csv or .parquet.
      split: a part of the run's own data, in place of an input.
      data: where the run's data is by now, a name or path, if it has moved; its sha256 must be the same.
      force: replace the output file if it exists.
    """
    _check_one(input_file, split)
    _check_files(run, out, files.ARRAYS, force=force, inputs=input_file)
    fitted = loaded(run)
    x, _ = _inputs(run, fitted, input_file, split, data)
    _save(out, run, fitted, {}, _batched(_code, fitted, x))


def decode(run: Path, *, input_file: Annotated[Path, "--input FILE"], out: Out, force: bool = False) -> None:
    """Turn codes into images: the means of p(x|z).

    Example: aevae decode runs/first --input codes.npy --out images.png

    Args:
      run: a run directory.
      input_file: codes, .npy or .npz with floats [N, latent], or [N, *latent] of maps.
      out: .png for a grid of images, .npy or .npz for numbers, .csv for a table.
      force: replace the output file if it exists.
    """
    _check_files(run, out, force=force, inputs=input_file)
    fitted = loaded(run)
    codes = files.read_codes(input_file, fitted.run.model.latent)
    _check_room(_decoded, fitted, codes.shape, "codes")
    images, title = _batched(_decoded, fitted, codes), f"codes of {shortened(input_file, 50)}, decoded"
    _save(out, run, fitted, images, columns=figures.columns_of(len(codes)), title=title, note=pictures.MEANS)


# ------------------------------------------------------------------------------- what is computed of every example


def _code(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    posterior = model.encode(params, x)
    more = {"scale": posterior.scale} if isinstance(posterior, Scaled) else {}
    if isinstance(posterior, Indexed):
        more = {"indices": posterior.indices(posterior.mean())}
    return {"codes": posterior.mean(), **more}


def _decoded(model: LatentModel, params: Params, z: Array, key: Array) -> dict[str, Array]:
    return {"images": model.decode(params, z).mean()}


def _drawn(model: LatentModel, params: Params, z: Array, key: Array) -> dict[str, Array]:
    return {"images": model.decode(params, z).sample(key)}


def _code_shape(fitted: fitting.Fitted) -> tuple[int, ...]:
    return parts.code_shape(fitted.run.model.latent)


def _reconstruction(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    return {"reconstructions": generation.reconstruct(model, params, x)}


def _batched(metric: Any, fitted: fitting.Fitted, x: Any, key: Array | None = None) -> dict[str, np.ndarray]:
    """Return `metric` of every example, in batches that fit into memory; it needs a key if it uses noise."""
    key = keys.root(0) if key is None else key
    with console.parts("computing") as on_part:
        return evaluation.per_example(metric, fitted.model, fitted.params, x, key, on_part=on_part)


_COPIES = 3
"""What is made is held as it is computed, in the units of the data, and for a moment in between."""


def _check_room(metric: Any, fitted: fitting.Fitted, shape: tuple[int, ...], what: str) -> None:
    """Refuse to compute `metric` of all rows of an array of this shape, if what it makes of them fits in no memory."""
    row = jax.ShapeDtypeStruct((1, *shape[1:]), "float32")
    made = jax.eval_shape(lambda x: metric(fitted.model, fitted.params, x, keys.root(0)), row)
    size = sum(math.prod(a.shape) * a.dtype.itemsize for a in (row, *jax.tree.leaves(made)))
    memory.check(_COPIES * size * shape[0], what=what, got=f"{shape[0]:,}")


def _save(
    out: Path,
    directory: Path,
    fitted: fitting.Fitted,
    data: Mapping[str, Any],
    codes: Mapping[str, Any] | None = None,
    **words: Any,
) -> None:
    """Write what the model made, `data` in the units of the data set and `codes` as they are; a picture with words."""
    format, inverse = _format(directory), fitted.run.data.preparation.inverse
    arrays = {name: inverse(np.asarray(x), format) for name, x in data.items()}
    if out.suffix == ".png" and len(format.event_shape) == 3:
        report(f"wrote {out}: {_draw(out, directory, arrays, format.levels, **words)}")
        return
    arrays |= codes or {}
    report(f"wrote {out}: {files.write(out, arrays, table=format.columns, reading=fitted.run.data.reading)}")


def _draw(
    out: Path, directory: Path, arrays: dict[str, np.ndarray], levels: int, *, title: str, note: str, **words: Any
) -> str:
    """Draw images: above their reconstructions, where there are any; between two inputs, where there are any.

    Returns:
      How many, in words.
    """
    images, span = arrays["images"], figures.span_of(arrays.get("inputs", arrays["images"]), levels)
    shown: Any = [images, arrays["reconstructions"]] if "reconstructions" in arrays else images
    if "inputs" in arrays:
        shown = np.concatenate([arrays["inputs"][:1], images, arrays["inputs"][1:]])
    note += pictures.ends_of(span, levels)
    count = charts.sheet(out, shown, title=f"{shortened(directory, 50)}: {title}", note=note, span=span, **words)
    total = len(shown[0]) if isinstance(shown, list) else len(shown)
    return f"{total} images" if count == total else f"the first {count} of {total} images"


def _complete(
    out: Path, directory: Path, fitted: fitting.Fitted, path: Path | None, *, split: Part | None, num: int, data: str
) -> None:
    """Write the rows of a table with what was missing in them."""
    _check_one(path, split)
    format, reading = _format(directory), fitted.run.data.reading
    if path is not None:
        done = completion.complete_file(fitted.model, fitted.params, fitted.run.data, format, path)
    else:
        rows = getattr(data_of_runs.load_data(directory, fitted.run.data, data), str(split)).x[:num]
        done = completion.complete_rows(fitted.model, fitted.params, fitted.run.data, format, rows)
    arrays = {"reconstructions": done.rows, "images": done.given}
    report(f"wrote {out}: {files.write(out, arrays, table=format.columns, reading=reading, given=done.texts)}")


# -------------------------------------------------------------------------------------------- the data of a run


def _format(directory: Path) -> Format:
    """Return what `run.json` says of the form of the training data."""
    return values.from_tree(Format, records.read_record(directory)["format"], f"{directory}, format")


def _inputs(
    directory: Path, fitted: fitting.Fitted, path: Path | None, split: Part | None, data: str
) -> tuple[Source | Conditioned, list[str]]:
    """Return what a model is to see, with what it is told of it, and the names of its classes, where there are any: a
    file or folder of the user's, or a part of the run's data, which may have moved.
    """
    _check_one(path, split)
    if path is not None:
        return files.read_images(path, fitted.model, fitted.run.data, _format(directory), note=note), []

    prepared = prepared_of(directory, fitted.run, data)
    return prepared.rows(str(split), keys.root(0)), prepared.classes(str(split))


def _check_one(path: Path | None, split: Part | None) -> None:
    if (path is None) == (split is None):
        given = "neither --input nor --split" if path is None else "--input and --split"
        raise InputError("input", got=given, expected="one of them", hint="such as: --split test")


def _check_files(
    run: Path, out: Path, suffixes: tuple[str, ...] = files.DATA, *, force: bool, inputs: Path | None = None
) -> None:
    """Refuse what can be seen before JAX is imported: files and directories that are not there, or are."""
    files.check_output(out, suffixes, force=force)
    if inputs is not None:
        files.check_input(inputs)
    overview.check_run(run)
    files.check_contents(out, _format(run))
