"""The workloads: which programs take turns, on how much."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import speed_minimal as minimal
import speed_programs as ours
from speed_cases import CONV, DIGITS, MLP, PUBLISHED, RESIDUAL, USUAL, Case, images_of
from speed_turns import HERE, Clock, Program, Torch, Unavailable, reason, take_turns, timed


class Settings(NamedTuple):
    """How much is done."""

    images: int
    """How many an epoch of dense networks has."""
    convolved: int
    """How many an epoch of convolutions has."""
    residual: int
    """How many an epoch of residual blocks has."""
    scored: int
    """Images whose likelihood is estimated."""
    samples: int
    """Importance samples of each."""
    turns: int
    quick: bool
    torch: Torch
    compiling: Torch
    """Another process of it, for `torch.compile`: should that take too long, the others go on."""
    python: str
    """An interpreter with PyTorch."""
    clock: Clock
    """The time of this workload."""

    @property
    def accelerated(self) -> bool:
        """Whether products are rounded by default, and compilations take more time than what they give."""
        return jax.default_backend() != "cpu"

    @property
    def threads(self) -> int:
        """How many programs are compiled at once."""
        return 8 if self.quick and self.accelerated else 1


def sizes(images: int, *, quick: bool) -> tuple[int, int, int, int, int]:
    """Return how many images each kind of workload takes, and importance samples: as the fields of `Settings`.

    Args:
      images: what dense networks train on; 0 for what suits the backend.
      quick: for a look.
    """
    if jax.default_backend() != "cpu":
        images = images or 60_000
        return images, images, max(128, images // 4), max(1, images // 60), 5_000
    images = images or (2_560 if quick else 12_800)
    return images, max(128, images // 5), max(128, images // 20), max(1, images // 256), 1_000 if quick else 5_000


def training(case: Case, images: int, settings: Settings, *, epochs: int = 1, few: bool = False) -> list[Program]:
    """Return the programs that train a network: ours, the minimal loop, the products alone, and PyTorch.

    On accelerators ours is timed both as it is, with products rounded as JAX does by default, and in full float32, as
    PyTorch is; and PyTorch with TF32, too.
    """
    torch, x = settings.torch, partial(images_of, case, images)
    usual, precise = "default" if settings.accelerated else "float32", "float32"
    made = [
        Program("ours", timed(lambda: ours.training(case, x(), epochs)), usual, base=True),
        Program("minimal JAX loop", timed(lambda: minimal.training(case, x(), epochs)), usual),
        torch.program("PyTorch", "training", case, images, epochs, "eager"),
        Program("products alone", timed(lambda: ours.training_alone(case, images, epochs)), usual),
    ]
    if settings.accelerated:
        made[2:2] = [
            Program(
                "ours, full float32",
                timed(lambda: ours.precisely(ours.training(case, x(), epochs))),
                precise,
                base=True,
            )
        ]
        made += [torch.program("PyTorch, CUDA graph", "training", case, images, epochs, "graph")]
        if not few:
            made += [torch.program("PyTorch, TF32", "training", case, images, epochs, "eager", tf32=True)]
        made += [torch.program("PyTorch, CUDA graph, TF32", "training", case, images, epochs, "graph", tf32=True)]
    if not few:
        made += [settings.compiling.program("PyTorch, torch.compile", "training", case, images, epochs, "compile")]
        made += [torch.program("PyTorch, DataLoader", "training", case, images, epochs, "loader")]
    return [program._replace(images=epochs * (images // case.batch * case.batch)) for program in made]


Found = dict[str, Any]
"""A workload's `what`, `unit` and `rows`."""


def timings(what: str, programs: list[Program], settings: Settings) -> Found:
    """Return the rows of programs that take turns."""
    return {"what": what, "rows": take_turns(programs, settings.turns, settings.clock, threads=settings.threads)}


def mlp(settings: Settings) -> Found:
    """Train 784-500-20-500-784 units in batches of 128."""
    count = settings.images
    return timings(f"an epoch of {MLP.what} on {count:,} images, batch 128", training(MLP, count, settings), settings)


def conv(settings: Settings) -> Found:
    """Train the default `Conv`, the same in PyTorch, and the usual convolutional VAE."""
    count = settings.convolved
    programs = training(CONV, count, settings)
    usual = "default" if settings.accelerated else "float32"
    if not (settings.quick and settings.accelerated):
        programs += [
            Program(
                "minimal JAX loop, usual network",
                timed(lambda: minimal.training(USUAL, images_of(USUAL, count))),
                usual,
                images=count // 128 * 128,
            )
        ]
    name = "PyTorch, usual network"
    programs += [settings.torch.program(name, "training", USUAL, count, 1, "eager")._replace(images=count // 128 * 128)]
    what = f"an epoch of {CONV.what} on {count:,} images, batch 128 (usual network: {USUAL.what})"
    return timings(what, programs, settings)


def digits(settings: Settings) -> Found:
    """Train the default VAE on images of the digits' shape, and by `fit` on the digits."""
    epochs = 5 if settings.quick else 20
    programs = training(DIGITS, 1_437, settings, epochs=epochs, few=settings.quick)
    usual = "default" if settings.accelerated else "float32"
    programs[1:1] = [Program("ours, a whole fit", timed(lambda: ours.fits(0, epochs)), usual)]
    return timings(f"{epochs} epochs of {DIGITS.what} on 1,437 images, batch 128", programs, settings)


def seeds(settings: Settings) -> Found:
    """Train the default VAE on the digits with several seeds at once, and by whole calls of `fit_seeds`."""
    epochs = 5 if settings.quick else 20
    counts = [1, 5, 16, *([32] if settings.accelerated else [])]
    programs = [
        Program(
            f"{count} seed{'s' * (count > 1)}",
            timed(partial(ours.seeds, count, epochs)),
            base=count == 1,
            images=count * epochs * (1_437 // 128 * 128),
        )
        for count in counts
    ]
    if not settings.accelerated:
        alone = timed(lambda: ours.training_alone(DIGITS, 1_437, 16 * epochs))
        programs.append(Program("products of 16 seeds alone", alone))
    for count in counts if not settings.quick else ():
        programs.append(
            Program(
                f"fit_seeds of {count}, with evaluation",
                timed(partial(ours.fits, count, epochs)),
                base=count == 1,
                group="fit_seeds",
            )
        )
    return timings(f"{epochs} epochs of the default VAE on the digits, seeds at once", programs, settings)


def likelihood(settings: Settings) -> Found:
    """Estimate likelihoods under the published network by importance weights, in full float32."""
    case, count, samples = PUBLISHED, settings.scored, settings.samples
    x = partial(images_of, case, count)
    programs = [
        Program("ours", timed(lambda: ours.likelihood(case, x(), samples)), base=True),
        Program("minimal JAX loop", timed(lambda: minimal.likelihood(case, x(), samples))),
        settings.torch.program("PyTorch", "likelihood", case, count, samples),
        Program("products alone", timed(lambda: ours.likelihood_alone(case, count, samples))),
    ]
    programs = [program._replace(images=count) for program in programs]
    return timings(f"likelihood of {count:,} images, {samples:,} samples, {case.what}", programs, settings)


def evaluation(settings: Settings) -> Found:
    """Evaluate a data set in full float32."""
    count = settings.images // 256 * 256
    x = partial(images_of, MLP, count)
    programs = [
        Program("ours, with errors at the mean", timed(lambda: ours.evaluation(MLP, x())), base=True),
        Program("minimal JAX loop", timed(lambda: minimal.evaluation(MLP, x()))),
        settings.torch.program("PyTorch", "evaluation", MLP, count),
        Program("products alone", timed(lambda: ours.evaluation_alone(MLP, count))),
    ]
    programs = [program._replace(images=count) for program in programs]
    return timings(f"evaluation of {count:,} images, {MLP.what}", programs, settings)


def sampling(settings: Settings) -> Found:
    """Draw from the prior and decode."""
    count, usual = settings.images, "default" if settings.accelerated else "float32"
    programs = [
        Program("ours", timed(lambda: ours.sampling(MLP, count)), usual, base=True),
        Program("minimal JAX loop", timed(lambda: minimal.sampling(MLP, count)), usual),
        settings.torch.program("PyTorch", "sampling", MLP, count, tf32=settings.accelerated),
        Program("products alone", timed(lambda: ours.sampling_alone(MLP, count)), usual),
    ]
    return timings(f"sampling {count:,} images, {MLP.what}", [p._replace(images=count) for p in programs], settings)


def bf16(settings: Settings) -> Found:
    """Train with bfloat16 arithmetic; parameters and losses are float32."""
    if not settings.accelerated:
        raise Unavailable("on accelerators only")
    programs = []
    for case, count in ((MLP, settings.images), (CONV, settings.convolved)):
        for dtype in ("float32", "bfloat16"):
            made = timed(partial(_in_dtype, case, count, dtype))
            name = f"{case.what}, {dtype}"
            precision, base = "default" if dtype == "float32" else dtype, dtype == "float32"
            programs.append(Program(name, made, precision, base, case.what, count // 128 * 128))
    return timings("an epoch with products in bfloat16, batch 128", programs, settings)


def _in_dtype(case: Case, count: int, dtype: Any) -> Callable[[], float]:
    return ours.training(case, images_of(case, count), dtype=dtype)


def residual(settings: Settings) -> Found:
    """Train `ResidualConv` on colour images."""
    count = settings.residual
    programs = training(RESIDUAL, count, settings, few=settings.quick)
    return timings(f"an epoch of {RESIDUAL.what} on {count:,} images, batch 128", programs, settings)


def growth(settings: Settings) -> Found:
    """Train with more images, small ones, as two million must be in memory, larger batches, more latent dimensions."""
    count, few = settings.images, settings.quick
    axes: dict[str, list[tuple[int, Case, int]]] = {
        "images": [(n, DIGITS, n) for n in ((10_000, 40_000) if few else (10_000, 50_000, 250_000, 2_000_000))],
        "batch": [
            (n, dataclasses.replace(MLP, batch=n), count)
            for n in ((32, 128, 512) if few else (16, 32, 64, 128, 256, 512, 1024))
        ],
        "latent": [
            (n, dataclasses.replace(MLP, latent=n), count) for n in ((2, 200) if few else (2, 10, 50, 100, 200))
        ],
    }
    usual = "default" if settings.accelerated else "float32"
    programs = []
    for axis, points in axes.items():
        for value, case, images in points:
            if case.batch > images:
                continue
            made = timed(partial(_of_size, case, images))
            base = axis == "batch" and value == MLP.batch
            programs.append(Program(f"{axis} {value}", made, usual, base=base, images=images))
    return {
        **timings(
            f"an epoch of {MLP.what} on {count:,} images, batch 128; growth with images: of {DIGITS.what}",
            programs,
            settings,
        ),
        "axes": list(axes),
    }


def _of_size(case: Case, images: int) -> Callable[[], float]:
    return ours.training(case, images_of(case, images))


# -------------------------------------------------------------------------------------------- in processes of their own


def start(settings: Settings) -> Found:
    """Time the way from the start of a process to its first step, and its memory after two epochs."""
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        cached = {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        for name, what, environment in (
            ("ours, cold", "ours", cached),
            ("ours, JAX's cache of compiled programs", "ours", cached),
            ("PyTorch", "torch", {}),
            ("minimal JAX loop, cold", "minimal", {}),
        ):
            row: dict[str, Any] = {"program": name, "precision": ""}
            try:
                row |= _started(what, settings, environment)
            except Exception as error:
                row["reason"] = reason(error)
            rows.append(row)
    return {
        "what": f"from the start of a process, {MLP.what}; memory after 2 epochs of {settings.images:,} images",
        "rows": rows,
    }


def _started(what: str, settings: Settings, environment: dict[str, str]) -> dict[str, Any]:
    if not settings.clock.left():
        raise Unavailable("no time left in the budget")
    python = settings.python if what == "torch" else sys.executable
    inherited = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    inherited |= {"SPEED_BACKEND": jax.default_backend(), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [python, str(HERE / "speed_start.py"), what, str(settings.images), repr(time.time())]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=min(300, settings.clock.left() + 60),
        env={**inherited, **environment},
        check=False,
    )
    if done.returncode:
        raise Unavailable((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "reason" in found:
        raise Unavailable(found["reason"])
    return found


def repeatable(settings: Settings) -> Found:
    """Train twice in processes of their own, with and without the switch, and compare parameters and losses."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        options = {"aevae train --deterministic": ["--deterministic"], "aevae train": list[str]()}
        started = {
            (name, trial): _train(Path(folder) / f"{i}-{trial}", extra)
            for i, (name, extra) in enumerate(options.items())
            for trial in range(2)
        }
        for (name, trial), (process, directory) in started.items():
            row: dict[str, Any] = rows[-1] if trial else {"program": name, "precision": "", "sha256": []}
            if not trial:
                rows.append(row)
            try:
                _, error = process.communicate(timeout=min(300, settings.clock.left() + 120))
                if process.returncode:
                    raise Unavailable((error.strip().splitlines() or [f"exit code {process.returncode}"])[-1][:300])
                row["sha256"].append([_sha256(directory / file) for file in ("weights.safetensors", "losses.npy")])
            except Exception as error:
                process.kill()
                row["reason"] = reason(error)
    for row in rows:
        if "reason" not in row:
            row["repeatable"] = row["sha256"][0] == row["sha256"][1]
    return {"what": "two trainings of VAE(latent=8, network=Conv()) on the digits, 3 epochs: equal bits?", "rows": rows}


def _train(directory: Path, extra: list[str]) -> tuple[subprocess.Popen[str], Path]:
    program = "import sys; from aevae_jax.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "train", str(directory), "--epochs", "3"]
    command += ["--model", "VAE(latent=8, network=Conv())", *extra]
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    return process, directory


def _sha256(path: Path) -> str:
    """Return the sha256 of a file's arrays; the weights' header names the run, which is the same."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


WORKLOADS: dict[str, Callable[[Settings], Found]] = {
    workload.__name__: workload
    for workload in (
        mlp,
        conv,
        seeds,
        digits,
        likelihood,
        repeatable,
        bf16,
        residual,
        start,
        growth,
        sampling,
        evaluation,
    )
}
"""By name, the most important first."""
