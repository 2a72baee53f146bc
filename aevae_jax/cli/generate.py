"""`aevae sample`, `reconstruct`, `interpolate`, `traverse`, `encode`, `decode`: what a model makes, in files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from aevae_jax import evaluation, figures, limits, memory
from aevae_jax.cli import console, inputs
from aevae_jax.cli.evaluate import Moved, key_of, loaded, prepared_of
from aevae_jax.cli.inputs import Condition, Part
from aevae_jax.cli.terminal import note, report
from aevae_jax.data import files
from aevae_jax.discrete import Indexed, Snapping
from aevae_jax.lazy import jax, modules, np
from aevae_jax.objectives.nominal import has_nominal_prior
from aevae_jax.runs import data_of_runs, fitting
from aevae_jax.types import InputError, LatentModel, Params, Scaled, has_point_codes, shortened

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax import charts, conditions, keys
    from aevae_jax.evaluation import completion, traversal
    from aevae_jax.models import generation, parts
    from aevae_jax.runs import pictures
else:
    charts, conditions, keys = modules("aevae_jax", "charts", "conditions", "keys")
    generation, parts = modules("aevae_jax.models", "generation", "parts")
    completion, traversal = modules("aevae_jax.evaluation", "completion", "traversal")
    pictures = modules("aevae_jax.runs", "pictures")

Out = Annotated[Path, "--out FILE"]
Input = Annotated[Path | None, "--input PATH"]


def sample(
    run: Path,
    *,
    out: Out,
    num: int = 64,
    seed: int = 0,
    noise: bool = False,
    condition: Condition = "",
    guidance: float = 0.0,
    force: bool = False,
) -> None:
    """Draw codes from the prior and decode them.

    Example: aevae sample runs/first --out samples.png --num 100

    Args:
      run: a run directory.
      out: .png for a grid of images, .npy or .npz for numbers, .csv for a table.
      num: how many.
      seed: of the draws.
      noise: draw from p(x|z) as well, in place of its mean.
      condition: of a conditional model, the name or number of a class, or the numbers of a vector with commas between;
        of both, the class first; none, of a model that was trained with drop. Left out, the classes in turn.
      guidance: how far such a model is led away from what it makes without a condition, such as 1.
      force: replace the output file if it exists.
    """
    inputs.check_files(run, out, force=force)
    if num < 1:
        raise InputError("--num", got=num, expected="at least 1")
    fitted = loaded(run)
    made = _drawn if noise else _decoded
    _check_room(made, fitted, (num, *_code_shape(fitted)), "--num")

    if has_nominal_prior(fitted.model, fitted.params, fitted.run.objective):
        note("an autoencoder has no prior: random codes are drawn from N(0, I), and most decode to no data")
    told = inputs.condition_of(run, fitted, condition, num, in_turn=True)
    fitted = inputs.guided(fitted, guidance, condition, inputs.class_names(run))
    key = key_of(seed, keys.Stream.SAMPLE)
    draw = jax.jit(_codes, static_argnums=(0, 3)).lower(fitted.model, fitted.params, key, num, told).compile()
    if needs := draw.memory_analysis():  # a mixture of many components needs more than the codes and what they become
        memory.check(needs.temp_size_in_bytes + needs.output_size_in_bytes, what="--num", got=f"{num:,}")
    codes = conditions.beside(draw(fitted.params, key, told), told)
    images = _batched(made, fitted, codes, key_of(seed, keys.Stream.NOISE))
    said = f"{pictures.DRAWS if noise else pictures.MEANS}, z ~ {pictures.prior_of(fitted.run.model)}, seed {seed}"
    said += f", guidance {guidance:g}" if guidance else ""
    words: dict[str, Any] = {"title": "random codes, decoded", "note": said, "captions": inputs.names_told(run, told)}
    _save(out, run, fitted, images, columns=figures.columns_of(num), **words)


def reconstruct(
    run: Path,
    *,
    out: Out,
    input_file: Input = None,
    split: Part | None = None,
    num: int = 16,
    condition: Condition = "",
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
      condition: what a conditional model is told of all inputs, as of `aevae sample`; left out, a semi-supervised one
        infers the class of each.
      data: where the run's data is by now, a name or path, if it has moved; its sha256 must be the same.
      force: replace the output file if it exists.
    """
    inputs.check_files(run, out, force=force, inputs=input_file)
    if num < 1:
        raise InputError("--num", got=num, expected="at least 1")
    fitted = loaded(run)
    part = split or ("test" if input_file is None else None)
    if inputs.format_of(run).columns:
        _complete(out, run, fitted, input_file, split=part, num=num, data=data)
        return
    given, classes = inputs.read(run, fitted, input_file, part, data=data, condition=condition)
    count = len(given) if part is None else min(num, len(given))
    _check_room(_reconstruction, fitted, (count, *conditions.examples(given).shape[1:]), "inputs")
    rows = given[:count]
    y, x = _batched(_reconstruction, fitted, rows)["reconstructions"], conditions.examples(rows)
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
    inputs.check_files(run, out, force=force)
    if steps < 2:
        raise InputError("--steps", got=steps, expected="at least 2")
    fitted = loaded(run)
    _check_room(_decoded, fitted, (steps, *_code_shape(fitted)), "--steps")
    prepared = prepared_of(run, fitted.run, data)
    x = prepared.test.rows
    for option, index in (("--start", start), ("--end", end)):
        if not 0 <= index < len(x):
            raise InputError(option, got=index, expected=f"0 to {len(x) - 1}, an index of the test set")

    ends = x[start : start + 1], x[end : end + 1]
    codes = jax.jit(generation.path, static_argnums=(0, 4))(fitted.model, fitted.params, *ends, steps)[:, 0]
    told = inputs.between(x[np.array([start, end])], steps)
    images = _batched(_decoded, fitted, conditions.beside(codes, told))
    arrays = {**images, "inputs": np.concatenate([conditions.examples(each) for each in ends])}
    captions, given = inputs.captions_between(told, prepared.classes("test", [start, end]) or (start, end), steps)
    where = "that there are nearest to" if isinstance(fitted.model, Snapping) else "on"
    words = {
        "title": f"from test image {start} to test image {end}",
        "note": f"between the inputs, codes {where} the straight line between theirs, decoded{given}",
        "captions": captions,
        "xlabel": "share of the way; 0 and 1 are the reconstructions of the inputs",
    }
    lines = -(-len(captions) // 12)
    _save(out, run, fitted, arrays, {"codes": codes}, columns=-(-len(captions) // lines), **words)


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
    inputs.check_files(run, out, force=force)
    limits.check("--num", num, 1)
    limits.check("--steps", steps, 2)
    fitted = loaded(run)
    shape = _code_shape(fitted)
    _check_room(_decoded, fitted, (min(num, math.prod(shape)) * steps, *shape), "--steps")
    x = prepared_of(run, fitted.run, data).test.rows
    if not 0 <= start < len(x):
        raise InputError("--start", got=start, expected=f"0 to {len(x) - 1}, an index of the test set")

    with console.parts("encoding") as on_part:
        found = traversal.describe(fitted.model, fitted.params, x, at=start, on_part=on_part)
    chosen = np.argsort(-found.activity, kind="stable")[:num]
    z = found.loc if mean else _batched(_code, fitted, x[start : start + 1])["codes"][0].reshape(-1)
    values = np.linspace(-3.0, 3.0, steps)
    codes = traversal.codes(z, chosen, found, values).reshape(-1, *shape)
    told = conditions.condition_of(x[np.full(len(codes), start)])
    images = _batched(_decoded, fitted, conditions.beside(codes, told))
    arrays = {"codes": codes, "dimensions": chosen, "activity": found.activity[chosen], "values": values}
    points = has_point_codes(fitted.model)
    owner = "codes of test data" if points else "prior"
    others = f"at the mean of the {owner}" if mean else f"as in the code of test image {start}"
    given = "" if told is None else f", c of test image {start}"
    words = {
        "title": f"one dimension moved, the others {others}",
        "note": f"means of p(x|z{given}); variance: of the {'codes' if points else 'posterior means'} over test data",
        "captions": [*[""] * (len(codes) - steps), *(f"{value:+.3g}" if value else "0" for value in values)],
        "rows": [f"{traversal.place(dimension, shape)}  ({found.activity[dimension]:#.2g})" for dimension in chosen],
        "ylabel": "dimension  (variance)",
        "xlabel": f"standard deviations of the {owner}, from its mean",
    }
    _save(out, run, fitted, images, arrays, columns=steps, **words)


def encode(
    run: Path,
    *,
    out: Out,
    input_file: Input = None,
    split: Part | None = None,
    condition: Condition = "",
    data: Moved = "",
    force: bool = False,
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
      condition: what a conditional model is told of all inputs, as of `aevae sample`; left out, a semi-supervised one
        infers the class of each.
      data: where the run's data is by now, a name or path, if it has moved; its sha256 must be the same.
      force: replace the output file if it exists.
    """
    inputs.check_one(input_file, split)
    inputs.check_files(run, out, files.ARRAYS, force=force, inputs=input_file)
    fitted = loaded(run)
    x, _ = inputs.read(run, fitted, input_file, split, data=data, condition=condition)
    _save(out, run, fitted, {}, _batched(_code, fitted, x))


def decode(
    run: Path, *, input_file: Annotated[Path, "--input FILE"], out: Out, condition: Condition = "", force: bool = False
) -> None:
    """Turn codes into images: the means of p(x|z).

    Example: aevae decode runs/first --input codes.npy --out images.png

    Args:
      run: a run directory.
      input_file: codes, .npy or .npz with floats [N, latent], or [N, *latent] of maps.
      out: .png for a grid of images, .npy or .npz for numbers, .csv for a table.
      condition: what a conditional model is told of all codes, as of `aevae sample`.
      force: replace the output file if it exists.
    """
    inputs.check_files(run, out, force=force, inputs=input_file)
    fitted = loaded(run)
    codes = files.read_codes(input_file, fitted.run.model.latent)
    _check_room(_decoded, fitted, codes.shape, "codes")
    rows = conditions.beside(codes, inputs.condition_of(run, fitted, condition, len(codes)))
    images, title = _batched(_decoded, fitted, rows), f"codes of {shortened(input_file, 50)}, decoded"
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


def _codes(model: LatentModel, params: Params, key: Array, num: int, told: Any) -> Any:
    return generation.codes(conditions.given(model, told), params, key, num)


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
    row, own = jax.ShapeDtypeStruct((1, *shape[1:]), "float32"), conditions.at_any(fitted.model, 1)
    made = jax.eval_shape(lambda x: metric(own, fitted.params, x, keys.root(0)), row)
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
    format, inverse = inputs.format_of(directory), fitted.run.data.preparation.inverse
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
    inputs.check_one(path, split)
    format, reading = inputs.format_of(directory), fitted.run.data.reading
    if path is not None:
        done = completion.complete_file(fitted.model, fitted.params, fitted.run.data, format, path)
    else:
        rows = getattr(data_of_runs.load_data(directory, fitted.run.data, data), str(split)).x[:num]
        done = completion.complete_rows(fitted.model, fitted.params, fitted.run.data, format, rows)
    arrays = {"reconstructions": done.rows, "images": done.given}
    report(f"wrote {out}: {files.write(out, arrays, table=format.columns, reading=reading, given=done.texts)}")
