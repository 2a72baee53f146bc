"""`aevae data inspect` and `aevae data prepare`."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from aevae_jax import durable, figures, limits, values
from aevae_jax.cli import console
from aevae_jax.cli.terminal import begin, report, say, show_table
from aevae_jax.data import Data, Standardize, datasets, files, tables
from aevae_jax.lazy import modules
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError, shortened

if TYPE_CHECKING:
    from aevae_jax import charts
    from aevae_jax.data import Dataset, inspection, prepared, suited, tfds_prepare
    from aevae_jax.data.inspection import Summary
else:
    charts = modules("aevae_jax", "charts")
    inspection, prepared, suited, tfds_prepare = modules(
        "aevae_jax.data", "inspection", "prepared", "suited", "tfds_prepare"
    )

MOST_EXAMPLES = 1_000
"""What is drawn at most."""


def inspect(data: Data, *, out: Annotated[Path | None, "--out FILE"] = None, num: int = 64) -> None:
    """Show what is in a data set: shapes, ranges, splits, hashes, examples as a picture, fitting likelihoods.

    Example: aevae data inspect ./photos

    Args:
      data: a name or path, or "Data('PATH', ...)", as for --data of aevae train.
      out: .png for a picture of some images; left out, runs/inspect/NAME.png, which is replaced if it exists.
      num: how many training examples to show there.
    """
    limits.check("--num", num, 1, MOST_EXAMPLES)
    if out is not None:
        files.check_output(out, (".png",), force=True)
    begin(f"reading {data.name}")
    dataset = data.load()

    summaries = {part: inspection.summarize(getattr(dataset, part), dataset.levels) for part in datasets.PARTS}
    first = summaries["train"]
    _show_splits(dataset, summaries)
    say(*([f"splits: {dataset.cut}"] if dataset.cut else []), *dataset.notes)
    if dataset.columns:
        _show_columns(tables.describe(dataset.train.x, dataset.columns))
    if dataset.classes:
        say(f"labels of train: {_labels(dataset)}")
    if dataset.factors:
        say(f"known factors: {_factors(dataset)}")
    fits = inspection.suitable(dataset, first)
    but = {likelihood: f"; not advised: {why}" for likelihood, why in inspection.unsuited(first).items()}
    rows = [(name, ", ".join(map(values.spell, fit)) + but.get(name, "")) for name, fit in fits.items()]
    show_table("likelihoods that can score it", ("likelihood", "with preparation"), rows)
    say(*(f"WARNING: {text}" for text in inspection.warnings(dataset)))
    run = _first_run(data, dataset, first, fits)
    try:
        chosen = suited.suited(prepared.prepare(run.data.preparation, dataset))
    except InputError as error:  # as training would
        say(f"WARNING: {error}")
    else:
        say(suited.explained(run.model, chosen, len(dataset.train)), f"why    {chosen.reason}")
    say(f"sha256 {dataset.digest()}")
    if len(dataset.event_shape) == 3:
        _sheet(out, dataset, num)
    say(f"next   {console.train_command(durable.unused('runs/first'), run)}")


def prepare(
    name: str, *, directory: Annotated[str, "--directory DIR"] = "", manual_dir: Annotated[str, "--manual-dir DIR"] = ""
) -> None:
    """Download a TensorFlow Datasets image set once and store it for runs without network.

    Example: aevae data prepare fashion_mnist

    Args:
      name: such as mnist, cifar10 or name/config:version.
      directory: where to store it; left out, $TFDS_DATA_DIR, then ~/tensorflow_datasets.
      manual_dir: a folder that holds files fetched elsewhere, for machines without network.
    """
    begin(f"preparing {name}")
    place = tfds_prepare.prepare(name, directory, manual_dir)
    report(f"wrote {place}", f"next   aevae data inspect {shlex.quote(name)}")


def _show_splits(dataset: Dataset, summaries: dict[str, Summary]) -> None:
    first = summaries["train"]
    headings = ["split", "examples", "range", "values", *(["missing"] if dataset.columns else []), "sha256"]
    digests = {part: split["sha256"][:16] for part, split in dataset.record()["splits"].items()}
    rows = []
    for part, s in summaries.items():
        extent = f"{s.low:.6g} to {s.high:.6g}" if s.low <= s.high else "none"
        distinct = f"{len(s.values)} distinct" if s.values else "floats"
        missing = [f"{s.missing:,}"] if dataset.columns else []
        rows.append([part, f"{s.count:,}", extent, distinct, *missing, digests[part]])
    levels = f", {dataset.levels} levels" if dataset.levels else ""
    show_table(f"{dataset.name}: {first.dtype}, {'x'.join(map(str, first.shape))} each{levels}", headings, rows)


def _show_columns(columns: list[dict[str, Any]]) -> None:
    rows = []
    for column in columns:
        if "counts" in column:
            shown = ", ".join(f"{text}: {count}" for text, count in list(column["counts"].items())[:6])
        elif column["min"] is None:
            shown = "none"
        else:
            digits = 6 if f"{column['min']:.6g}" != f"{column['max']:.6g}" else 15
            shown = f"{column['min']:.{digits}g} to {column['max']:.{digits}g}, mean {column['mean']:.{digits}g}"
        rows.append([column["name"], column["kind"], str(column["missing"]), shown])
    show_table("columns of train", ("column", "kind", "missing", "values"), rows)


def _labels(dataset: Dataset) -> str:
    """Return how many training examples there are of each class, by its name; -1 says that there is none."""
    counts = dataset.class_counts("train")
    called = dict(zip(dataset.classes, dataset.class_names, strict=True))
    known = [f"{called[label]}: {count}" for label, count in counts.items() if label != -1]
    shown = ", ".join([*known[:20], *([f"... ({len(known)} classes)"] if len(known) > 20 else [])])
    return f"{shown}; {counts[-1]} are -1, which means none" if counts[-1] else shown


def _factors(dataset: Dataset) -> str:
    """Return what the training examples were made of, and how many values of each factor occur."""
    values = dataset.train.factors
    counts = [] if values is None else [len(set(column.tolist())) for column in values.T]
    return ", ".join(f"{factor.name} ({count} values)" for factor, count in zip(dataset.factors, counts, strict=True))


def _sheet(out: Path | None, dataset: Dataset, num: int) -> None:
    """Draw training examples, spread evenly over the split; where nobody asked for it, only if that is possible."""
    shown = inspection.examples(dataset.train, num)
    raw = shown.x[:]
    span = (0.0, dataset.levels - 1.0) if dataset.levels else figures.span_of(raw, 0)
    base = os.path.basename(os.path.abspath(os.path.expanduser(dataset.name))) if "/" in dataset.name else dataset.name
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", base).strip("_")[:100] or "data"
    path = out or Path("runs/inspect", f"{name}.png")
    size = "x".join(map(str, dataset.event_shape))
    words: dict[str, Any] = {
        "title": f"{shortened(dataset.name, 50)}: training images, {len(raw):,} of {len(dataset.train):,}",
        "note": f"{size} each, spread evenly over the split; {span[0]:.4g} is black, {span[1]:.4g} white",
        "captions": datasets.class_texts(shown.labels, dataset.class_names),
    }
    try:
        if out is None:
            path.parent.mkdir(parents=True, exist_ok=True)
        count = charts.sheet(path, raw, figures.columns_of(len(raw)), span=span, **words)
    except (InputError, OSError) as error:
        if out is not None:
            raise
        console.note(f"no picture of the images: {error}; name a place with --out")
        return
    report(f"wrote {path}: {count} images")


def _first_run(value: Data, dataset: Dataset, train: Summary, fits: dict[str, list[Any]]) -> Run:
    """Return a run that takes this data as it is."""
    preparation = value.preparation
    if dataset.columns:
        preparation = fits["Tabular()"][0]
    elif not dataset.levels and max(abs(train.low), abs(train.high)) > 10:  # far from what networks start at
        preparation = next((p for found in fits.values() for p in found if isinstance(p, Standardize)), preparation)
    return Run(data=replace(value, preparation=preparation))
