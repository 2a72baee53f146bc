"""`aevae data inspect` and `aevae data prepare`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from aevae_jax import values
from aevae_jax.data import Data, datasets, tables
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from aevae_jax.data import Dataset


def inspect(data: Positional[str], *, out: Annotated[str, arg(metavar="FILE")] = "", num: int = 64) -> None:
    """Show what is in a data set: shapes, ranges, splits, hashes, a contact sheet, fitting likelihoods.

    Example: aevae data inspect ./photos

    Args:
      data: a name or path, or "Data('PATH', ...)", as for --data of aevae train.
      out: .png for the contact sheet of images; left out, runs/inspect/NAME.png, which is replaced if it exists.
      num: how many training examples to show there.
    """
    value: Data = values.parse(Data, data, "data")
    if num < 1:
        raise InputError("--num", got=num, expected="at least 1")
    if out and not out.endswith(".png"):
        raise InputError("--out", got=out, expected="a name ending in .png")
    dataset = value.load()
    from rich.console import Console

    from aevae_jax.data import inspection

    show = Console().print
    summaries = {part: inspection.summarize(getattr(dataset, part)) for part in datasets.PARTS}
    show(_splits(dataset, summaries))
    if dataset.left_out:
        show(f"{dataset.left_out} examples of train or validation are left out: they also stand in a later split.")
    if dataset.columns:
        show(_columns(tables.describe(dataset.train.x, dataset.columns)))
    elif summaries["train"].labels:
        shown = ", ".join(f"{label}: {count}" for label, count in enumerate(summaries["train"].labels[:20]))
        show(f"labels of train: {shown}{', ...' if len(summaries['train'].labels) > 20 else ''}")
    fits = inspection.suitable(dataset, summaries["train"])
    show(_likelihoods(fits))
    show(f"sha256 {dataset.digest()}", soft_wrap=True)
    if len(dataset.event_shape) == 3:
        _sheet(Path(out) if out else _default_sheet(dataset.name), dataset, num)
    show(f"next   aevae train runs/first {_arguments(value, dataset, fits)}", soft_wrap=True, markup=False)


def prepare(
    name: Positional[str],
    *,
    directory: Annotated[str, arg(metavar="DIR")] = "",
    manual_dir: Annotated[str, arg(metavar="DIR")] = "",
) -> None:
    """Download a TensorFlow Datasets image set once and store it for runs without network.

    Example: aevae data prepare fashion_mnist

    Args:
      name: such as mnist, cifar10 or name/config:version.
      directory: where to store it; left out, $TFDS_DATA_DIR, then ~/tensorflow_datasets.
      manual_dir: a folder that holds files fetched elsewhere, for machines without network.
    """
    from aevae_jax.data import tfds

    place = tfds.prepare(name, directory, manual_dir)
    print(f"wrote {place}")
    print(f"next   aevae data inspect {shlex.quote(name)}")


def _splits(dataset: Dataset, summaries: dict[str, Any]) -> Table:
    first = summaries["train"]
    missing = ["missing"] if dataset.columns else []
    shape = "x".join(map(str, first.shape))
    table = _table(f"{dataset.name}: {first.dtype}, {shape} each", "split", "examples", "range", "values", *missing,
                   "sha256")  # fmt: skip
    digests = {part: split["sha256"][:16] for part, split in dataset.record()["splits"].items()}
    for part, s in summaries.items():
        levels = f"{len(s.values)} levels" if s.values else "floats"
        extent = f"{s.low:.6g} to {s.high:.6g}" if s.low <= s.high else "none"
        table.add_row(part, f"{s.count:,}", extent, levels, *[f"{s.missing:,}"] * len(missing), digests[part])
    return table


def _columns(rows: list[dict[str, Any]]) -> Table:
    table = _table("columns of train", "column", "kind", "missing", "values")
    for row in rows:
        if "counts" in row:
            shown = ", ".join(f"{text}: {count}" for text, count in list(row["counts"].items())[:6])
        else:
            shown = "none" if row["min"] is None else f"{row['min']:.6g} to {row['max']:.6g}, mean {row['mean']:.6g}"
        table.add_row(row["name"], row["kind"], str(row["missing"]), shown)
    return table


def _likelihoods(fits: dict[str, list[Any]]) -> Table:
    table = _table("likelihoods that can score it", "likelihood", "with preparation")
    for likelihood, preparations in fits.items():
        table.add_row(likelihood, ", ".join(values.spell(preparation) for preparation in preparations))
    return table


def _table(title: str, *headings: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _default_sheet(name: str) -> Path:
    folder = Path("runs/inspect")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name).strip('_') or 'data'}.png"


def _sheet(path: Path, dataset: Dataset, num: int) -> None:
    """A sheet of training examples, spread evenly over the split."""
    from aevae_jax import figures, files
    from aevae_jax.data import inspection

    raw = inspection.examples(dataset.train, num)
    span = (0.0, dataset.levels - 1.0) if dataset.levels else figures.span_of(raw, 0)
    files.check_output(path, (".png",), force=True)
    sheet = figures.contact_sheet(raw, 8, span=span)
    figures.save_png(path, sheet.pixels)
    print(f"wrote {path}: {sheet.shown} images")


def _arguments(value: Data, dataset: Dataset, fits: dict[str, list[Any]]) -> str:
    """Options of `aevae train` that take this data as it is."""
    from dataclasses import replace

    if dataset.columns:
        value = replace(value, preparation=fits["Tabular()"][0])
        return f'--data {_quoted(value)} --model "VAE(likelihood=Tabular())"'
    return f"--data {shlex.quote(value.name) if value == Data(value.name) else _quoted(value)}"


def _quoted(value: Any) -> str:
    """A value as it is typed in a shell, in double quotes where that is enough."""
    text = values.spell(value)
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'
