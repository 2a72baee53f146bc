"""How many bits does a picture need? Autoencoders trained for rate and distortion, against JPEG, WebP, JPEG XL and PCA.

Command:   python experiments/lossy.py                         (Fashion-MNIST; an hour on two CPU cores)
           python experiments/lossy.py --data digits           (small and bundled)
           with --record FILE the results are also written there, with a picture beside
Writes:    runs/lossy_DATA/results.json and curve.png; each run in a directory of its own, resumable at any step
Expected:  on Fashion-MNIST below JPEG, WebP and JPEG XL, a file for each image or one of all side by side, and below
           PCA with quantised coefficients, at every PSNR from 20 to 35 dB.

Each model is trained for one trade of bits and squared error, which is the scale of its likelihood; most begin at the
weights of another one. The figures of ours are those of a real .aev file of all test images, decoded again: headers,
checksums and the table of its chunks counted. The model is not counted, and its size is listed. Every other codec has
its bits as a file for each image, those without what the format needs for any image, and those of one file of all
images side by side: see lossy_codecs.py.
"""

from __future__ import annotations

import io
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import lossy_codecs as codecs
import lossy_picture as picture
import lossy_table

from aevae_jax import durable
from aevae_jax.cli import console, terminal
from aevae_jax.data import Data
from aevae_jax.lazy import jax, modules, np
from aevae_jax.models import CompressiveAutoencoder
from aevae_jax.models.architectures import MLP, Mixer
from aevae_jax.models.likelihoods import Normal
from aevae_jax.objectives.losses import ELBO
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import AdamW

if TYPE_CHECKING:
    from aevae_jax.compression import archive, container, files, lossy as coding
    from aevae_jax.runs import fitting, provenance, records
else:
    archive, container, files, coding = modules("aevae_jax.compression", "archive", "container", "files", "lossy")
    fitting, provenance, records = modules("aevae_jax.runs", "fitting", "provenance", "records")

FASHION = "fashion_mnist"
STEPS = (1.0, 0.85, 0.7)
"""Widths of a bin, times those of training, at which each model codes: a finer one costs bits and needs no training."""


class Row(NamedTuple):
    """A training: the trade, the networks, and at whose weights it begins."""

    scale: float
    network: MLP | Mixer
    latent: int
    levels: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float
    begins: str = ""


_PATCHES = (Mixer(4, 64, 2), 784, (49, 147, 245))
ROWS = {
    FASHION: {
        "0.05": Row(0.05, *_PATCHES, 8, 32, 2e-3),
        "0.05-factorised": Row(0.05, *_PATCHES[:2], (), 8, 32, 2e-3),
        "0.02": Row(0.02, *_PATCHES, 3, 32, 2e-3, "0.05"),
        "0.07": Row(0.07, *_PATCHES, 3, 32, 2e-3, "0.05"),
        "0.1": Row(0.1, *_PATCHES, 4, 32, 2e-3, "0.05"),
        "0.2": Row(0.2, *_PATCHES, 4, 32, 2e-3, "0.1"),
    },
    "digits": {
        "0.1": Row(0.1, MLP(()), 64, (8,), 40, 32, 5e-3),
        "0.3": Row(0.3, MLP(()), 64, (8,), 40, 32, 5e-3, "0.1"),
    },
}
"""By data set; other images are treated as digits are. What is factorised has a density of each code on its own, in
place of levels of which each is given those before."""


def lossy(*, data: str = FASHION, out: str = "", record: str = "", codecs_only: bool = False) -> None:
    """Train autoencoders for rate and distortion, code all test images, and compare with other codecs.

    Goes on where it was stopped.

    Args:
      data: fashion_mnist, or other grey images: digits is small and bundled.
      out: directory for the runs and the results; where none is named, runs/lossy_DATA.
      record: also write the results to this JSON file, and the picture beside it.
      codecs_only: measure the other codecs, and train nothing.
    """
    place = Path(out or f"runs/lossy_{data}")
    if record:
        durable.make_room(Path(record))
    terminal.begin(f"reading {data}")
    dataset = Data(data).load()
    results: dict[str, Any] = {
        "command": f"python experiments/lossy.py --data {data}",
        "data": data,
        "data_sha256": dataset.record()["sha256"],
        "images": len(dataset.test),
        "provenance": provenance.provenance(dataset),
    }
    others = _kept(place / "codecs.json", results, lambda: _others(dataset))
    ours = [] if codecs_only else _ours(data, dataset, place)
    results |= {**others, "ours": ours, "table": lossy_table.table(others, ours)}
    records.write_json(place / "results.json", results)
    picture.draw(place / "curve.png", results)
    if record:
        records.write_json(Path(record), results)
        picture.draw(Path(record).with_suffix(".png"), results)
    terminal.say(*lossy_table.lines(results))


def _kept(path: Path, of: dict[str, Any], measure: Any) -> dict[str, Any]:
    """Return what was measured before of the same images, else measure it."""
    if path.exists():
        found: dict[str, Any] = records.read_json(path)
        if found["data_sha256"] == of["data_sha256"]:
            return found
    found = {**measure(), "data_sha256": of["data_sha256"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    records.write_json(path, found)
    return found


def _grey(split: Any, levels: int) -> Any:
    """Return images `[N, H, W]` as 8 bits."""
    images = np.asarray(split.x[:])[..., 0].astype(np.float64)
    return np.rint(images * (255 / (levels - 1))).astype(np.uint8)


def _others(dataset: Any) -> dict[str, Any]:
    train, test = (_grey(split, dataset.levels) for split in (dataset.train, dataset.test))
    found, absent = codecs.codecs()
    curves, mosaics = {}, {}
    for name, codec in found.items():
        terminal.begin(f"{name} at {len(codec.qualities)} qualities, {len(test):,} images")
        curves[name], mosaics[name] = codecs.curve(name, codec, test), codecs.mosaic(codec, test)
    terminal.begin("PCA with quantised coefficients")
    steps = [1.1 * 1.5**-i for i in range(8)]
    curves["PCA"] = codecs.pca(train, test, steps)
    return {"curves": curves, "mosaics": mosaics, "absent": absent}


# ---------------------------------------------------------------------------------------------------------------- ours


def run_of(row: Row, data: str) -> Run:
    """Return the run of a row: a value, whose digest is what was trained."""
    model = CompressiveAutoencoder(row.latent, row.network, Normal(row.scale), row.levels, step=3.5 * row.scale)
    optimizer = AdamW(row.learning_rate, warmup=100, cosine=True)
    return Run(Data(data), model, ELBO(), optimizer, row.batch_size, row.epochs, ema=0.99)


def _ours(data: str, dataset: Any, place: Path) -> list[dict[str, Any]]:
    """Train each row, or go on with it, and code the test images."""
    points = []
    for name, row in ROWS.get(data, ROWS["digits"]).items():
        began, initial = time.process_time(), place / row.begins if row.begins else None
        run = run_of(row, data)
        with console.progress(name) as shown:
            options: dict[str, Any] = {"on_epoch": shown, "on_steps": shown, "on_note": console.note}
            fitted = fitting.fit(run, dataset, directory=place / name, initial=initial, **options)
        took = time.process_time() - began
        for step in STEPS:
            path = place / f"{name}-{step}.json"
            if not path.exists():
                terminal.begin(f"coding {len(dataset.test):,} images with {name}, bins times {step}")
                model: Any = fitted.model
                point = code(replace(model, step=step * model.step), fitted.params, dataset)
                about = {"row": name, "scale": row.scale, "step": step, "training_seconds": round(took)}
                records.write_json(path, {**about, **point, "parameters": _size(fitted.params)})
            points.append(records.read_json(path))
    return points


def code(model: Any, params: Any, dataset: Any) -> dict[str, Any]:
    """Return what came of a real file of all test images, decoded again."""
    codec = coding.LossyCoder(model, params, dataset.levels)
    rows, file = files.of_array(dataset.test.x), io.BytesIO()
    done = archive.compress(codec, rows, archive.header_of(codec, rows), file)
    file.seek(0)
    found: list[Any] = []
    read = archive.decompress(codec, container.Reader(file), lambda first, block: found.append(block.copy()))
    pictures, images = np.concatenate(found).astype(np.float64), np.asarray(dataset.test.x[:], np.float64)
    error = ((pictures - images) ** 2).reshape(len(images), -1).mean(1) * (255 / (dataset.levels - 1)) ** 2
    return {
        "bits": done.bits_per_dim,
        "bytes": done.size,
        "psnr": codecs.psnr(error.mean()),
        "mean_of_psnr": float(np.mean([codecs.psnr(max(e, 1e-3)) for e in error])),
        "over_model_percent": 100 * (done.measured_bits / done.bound_bits - 1),
        "encoded_per_second": round(len(images) / done.encoding),
        "decoded_per_second": round(len(images) / read.decoding),
    }


def _size(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(lossy, sys.argv[1:], prog="lossy.py")()
