"""Into how few bits go images that a model has not seen? Whole files, against the codecs that everybody has.

Command:   python experiments/lossless.py                      (digits, no download; some minutes on two CPU cores)
           python experiments/lossless.py --rows all           (Fashion-MNIST, too, as bytes and as bits: hours)
           with --record FILE the results are added to those that the file has already, and drawn beside it
Writes:    runs/lossless/results.json, results.png and table.md; each run in a directory of its own, resumable
Expected:  digits below 2.10 bits per pixel (JPEG XL 2.455, xz 2.846); Fashion-MNIST below 3.10 (xz 3.855; JPEG XL 3.673
           with its usual effort 7, 3.661 with 9, and with 10, in a minute or more, 3.248); its bits at most at 0.425
           (xz 0.605; JPEG XL 0.540 with effort 7, 0.533 with 9). A file of 10,000 images within 0.5 % of its bound; of
           360 small ones the header, and the bits that coding begins with, are some 7 %.

Protocol: the test split, in its order, by a model of the training split whose epoch validation data chose. The file is
that of `aevae compress`, complete; `aevae decompress` reads it in a process of its own, and gives back every byte. What
is not counted is the model, without which no file is read: its size stands beside, and the number of images from which
on it is paid back. The bits are the published static binarisation. The bound is the negative ELBO, one draw of each
code, of the model with all that it says rounded as the coder does. Speeds are of the coder on up to 4,000 images, in
a process that has coded before; those of the other codecs are on one core.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import density
import lossless_codecs as codecs
import lossless_table as tables

from aevae_jax import durable
from aevae_jax.cli import console, terminal
from aevae_jax.data import Data, prepare
from aevae_jax.lazy import modules, np
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP, Conv
from aevae_jax.models.likelihoods import DiscretizedLogistic, InterlacedLogisticMixture
from aevae_jax.models.priors import StandardNormal
from aevae_jax.objectives.losses import ELBO
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax.compression import chunks
    from aevae_jax.data import datasets
    from aevae_jax.runs import fitting, provenance, records
    from aevae_jax.runs.fitting import Fitted
    from aevae_jax.training import loops
else:
    datasets = modules("aevae_jax.data", "datasets")
    chunks = modules("aevae_jax.compression", "chunks")
    fitting, provenance, records = modules("aevae_jax.runs", "fitting", "provenance", "records")
    loops = modules("aevae_jax.training", "loops")


class Row(NamedTuple):
    """A model, and what it codes."""

    images: str
    """What the test data is called; rows of one name are compared."""
    words: str
    """What the model is."""
    run: Run
    samples: int = 1
    """How many codes it has to choose from."""
    chunk: int = 1_000
    """Images of a chunk of the file. Each chunk begins with bits of its own, which count where images take few."""


TIMED = 4_000
"""Images that speeds are measured on, at most."""

TIMED_AT_ONCE = 1_000
"""Images of a chunk where speeds are measured, so that there are chunks for every thread."""

ROWS = {
    "digits": Row(
        "digits",
        "MLP, 16 latents, rounded logistics",
        Run(
            Data("digits"),
            VAE(16, MLP((256, 256)), DiscretizedLogistic(17), StandardNormal()),
            ELBO(sticking_the_landing=True),
            AdamW(1e-3, warmup=200, weight_decay=0.3, cosine=True),
            batch_size=32,
            epochs=150,
            ema=0.999,
        ),
    ),
    "fashion_mnist": Row(
        "Fashion-MNIST",
        "convolutions, 64 latents, pixels in four passes",
        Run(
            Data("fashion_mnist"),
            VAE(64, Conv((32, 64)), InterlacedLogisticMixture(), StandardNormal()),
            ELBO(sticking_the_landing=True),
            AdamW(1e-3, warmup=500, cosine=True),
            batch_size=100,
            epochs=30,
            ema=0.999,
        ),
    ),
    "fashion_mnist_mlp": Row(
        "Fashion-MNIST",
        "MLP, 40 latents, rounded logistics",
        Run(
            Data("fashion_mnist"),
            VAE(40, MLP((512,)), DiscretizedLogistic(), StandardNormal()),
            ELBO(sticking_the_landing=True),
            AdamW(1e-3, warmup=500, cosine=True),
            batch_size=128,
            epochs=10,
            ema=0.999,
        ),
    ),
    "fashion_mnist_bits": Row(
        "Fashion-MNIST, bits",
        "gated MLP, two levels of 40 latents, VampPrior; chunks of 5,000",
        density.run_of("two_level_vampprior", 0, "fashion_mnist", examples=50_000),
        chunk=5_000,
    ),
}


class Test(NamedTuple):
    """What is coded: a test split as integers."""

    images: str
    symbols: np.ndarray
    """`[N, *event]`, uint8."""
    levels: int

    @property
    def sha256(self) -> str:
        """What tells it from other data."""
        return datasets.digest_of(self.symbols)


def lossless(
    *, rows: tuple[str, ...] = ("digits",), again: bool = False, out: Path = Path("runs/lossless"), record: str = ""
) -> None:
    """Train models, compress test images with them and with other codecs, and compare sizes and speeds.

    Goes on where it was stopped; what was measured before, by the same code, is not measured again.

    Args:
      rows: which: digits fashion_mnist fashion_mnist_mlp fashion_mnist_bits, or all.
      again: measure again, with the models that are trained already: speeds that others disturbed are no speeds.
      out: directory for the runs, the files and the results.
      record: also write the results to this JSON file, with those that it holds already, and the picture beside it.
    """
    names = tuple(ROWS) if rows == ("all",) else rows
    if unknown := [name for name in names if name not in ROWS]:
        raise InputError("--rows", got=unknown[0], expected=", ".join([*ROWS, "all"]))
    results = out / "results.json"
    for path in (*([Path(record)] if record else []), results):
        durable.make_room(path)
    if again:
        for path in (*out.glob("codecs-*.json"), *(out / f"{name}.json" for name in names)):
            path.unlink(missing_ok=True)
    for name in names:
        publish([measure(name, ROWS[name], out)], results)
    sets = records.read_json(results)["sets"]
    if record:
        publish(sets, Path(record))
    (out / "table.md").write_text(tables.table(sets))
    print(tables.table(sets))


def publish(sets: list[dict[str, Any]], path: Path) -> None:
    """Add sets to the results in a file, and draw all of them beside it."""
    old = records.read_json(path)["sets"] if path.exists() else []
    merged = tables.merged(old, sets)
    records.write_json(path, {"sets": merged})
    tables.draw(path.with_suffix(".png"), merged)


def measure(name: str, row: Row, out: Path) -> dict[str, Any]:
    """Return what a row's model and other codecs make of its test images; train it, or go on with it, before."""
    terminal.begin(f"reading {row.images}, to compress its test images")
    dataset = row.run.data.load()
    test = test_of(row, prepare(row.run.data.preparation, dataset).test.x[:])
    measured, missing = others(test, out / f"codecs-{test.sha256[:16]}.json")
    with console.progress(name) as shown:
        fitted = fitting.fit(
            row.run, dataset, directory=out / name, on_epoch=shown, on_note=console.note, on_steps=shown
        )
    return {
        "images": test.images,
        "sha256": test.sha256,
        "count": len(test.symbols),
        "event_shape": list(test.symbols.shape[1:]),
        "pixels": test.symbols.size,
        "levels": test.levels,
        "codecs": measured,
        "missing": missing,
        "ours": [ours(name, row, fitted, test, out)],
    }


def test_of(row: Row, x: np.ndarray) -> Test:
    """Return test data as the integers that are coded, from what a model sees."""
    levels = row.run.model.likelihood.support.levels or 0  # all have some
    return Test(row.images, np.rint(np.asarray(x, np.float64) * (levels - 1)).astype(np.uint8), levels)


def others(test: Test, path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what other codecs make of test images, and the names of those that are not installed.

    What has been measured lies in the file at `path`, and is not measured again by the same version.
    """
    kept = records.read_json(path) if path.exists() else []
    images, found, missing = test.symbols[..., 0], [], []
    todo = [(codec, way) for codec in codecs.everything() for way in codec.ways]
    with console.parts(f"{test.images}, other codecs", of="files") as on_part:
        for done, (codec, way) in enumerate(todo):
            on_part(done, len(todo))
            key = {"codec": codec.name, "setting": codec.setting, "way": way, "version": codec.version}
            entry = next((one for one in kept if key.items() <= one.items()), None)
            if not codec.version:
                missing.append(codec.name)
                continue
            if entry is None:
                entry = codecs.measure(codec, way, images, test.levels)
                records.write_json(path, kept := [*kept, entry])
            found.append(entry)
    return found, list(dict.fromkeys(missing))


def ours(name: str, row: Row, fitted: Fitted, test: Test, out: Path) -> dict[str, Any]:
    """Return what a trained model makes of test images: its file, read again by a process of its own; bound; speeds.

    They lie in `<out>/<name>.json`, and are taken from there where they are of these weights, images and code.

    Raises:
      InputError: a command fails, or other bytes come back.
    """
    coder, path = chunks.Coder(fitted.model, fitted.params, samples=row.samples), out / f"{name}.json"
    made = provenance.environment()
    key = {
        "row": name,
        "samples": row.samples,
        "chunk": row.chunk,
        "model_sha256": coder.sha256,
        "data_sha256": test.sha256,
        "code": made["code"],
    }
    if path.exists() and key.items() <= (found := records.read_json(path)).items():
        return found
    size = written_and_read(out / name, test.symbols, out, row)
    encoding, decoding = seconds(coder, test.symbols)
    entry = {
        **key,
        "words": row.words,
        "command": shlex.join(["python", "experiments/lossless.py", *sys.argv[1:]]),
        "bytes": size,
        "bound_bits": float(coder.bound(test.symbols).sum()),
        "encode_seconds": encoding,
        "decode_seconds": decoding,
        "model_bytes": (out / name / records.WEIGHTS).stat().st_size,
        "negative_elbo": fitted.results["test"]["negative_elbo"],
        "best_epoch": fitted.results["best_epoch"],
        "epochs": len(fitted.history),
        "training_seconds": fitted.results["seconds"],
        "training_cores": records.read_record(out / name)["provenance"]["host"]["cores"],
        "made": {"versions": made["versions"], **made["device"], "host": made["host"]},
    }
    records.write_json(path, entry)
    return entry


def seconds(coder: chunks.Coder, symbols: np.ndarray) -> tuple[float, float]:
    """Return how long symbols take to be encoded and decoded in chunks, once all programs are compiled.

    Of more than `TIMED` those are timed, and the others taken to be alike.
    """
    timed = symbols[:TIMED]
    blocks = [timed[first : first + TIMED_AT_ONCE] for first in range(0, len(timed), TIMED_AT_ONCE)]
    coder.decode(coder.encode(timed[:2]), 2)  # compiles
    began = time.perf_counter()
    payloads = list(loops.map_in_threads(coder.encode, blocks, compiled=True))
    encoded = time.perf_counter()
    coded = zip(payloads, map(len, blocks), strict=True)
    deque(loops.map_in_threads(lambda one: coder.decode(*one), coded, compiled=True), maxlen=0)
    share = len(symbols) / len(timed)
    return share * (encoded - began), share * (time.perf_counter() - encoded)


def written_and_read(run: Path, symbols: np.ndarray, out: Path, row: Row) -> int:
    """Return how many bytes `aevae compress` needs for symbols, that `aevae decompress` has given back.

    Raises:
      InputError: a command fails, or other bytes come back.
    """
    given, file, back = (out / f"{run.name}.{end}" for end in ("npy", "aev", "back.npy"))
    np.save(given, symbols, allow_pickle=False)
    for path in (file, back):
        path.unlink(missing_ok=True)
    _command("compress", run, given, file, "--samples", row.samples, "--chunk", row.chunk)
    _command("decompress", file, back, "--run", run)
    found = np.load(back, allow_pickle=False)
    if found.dtype != symbols.dtype or not np.array_equal(found, symbols):
        raise InputError(str(file), got="other bytes than were compressed", expected="the same")
    return file.stat().st_size


def _command(*words: object) -> None:
    """Run a command of this project in a process of its own."""
    command = [sys.executable, "-m", "aevae_jax", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise InputError(f"aevae {words[0]}", got=done.stderr.strip()[-200:], expected="exit code 0")


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(lossless, sys.argv[1:], prog="lossless.py")()
