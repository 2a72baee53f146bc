"""A new thing is added in one place, as CONTRIBUTING.md says; it then works in `fit`, `evaluate` and as it is typed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import aevae_jax

PACKAGE = Path(aevae_jax.__file__).parent

OBJECTIVE = '''"""The distortion and a tenth of the rate, as a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aevae_jax.lazy import modules
from aevae_jax.types import LatentModel, Metrics, Params, Validation

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.objectives import bounds
else:
    bounds = modules("aevae_jax.objectives", "bounds")


@dataclass(frozen=True)
class ToyLoss:
    """The distortion and a tenth of the rate."""

    def __call__(
        self, model: LatentModel, params: Params, x: Array, key: Array, step: Array | None = None
    ) -> tuple[Array, Metrics]:
        bound = bounds.elbo(model, params, x, key)
        loss = (bound.distortion + 0.1 * bound.rate).mean()
        return loss, {"loss": loss}

    def validation(self) -> Validation:
        return Validation(_tenth, ("a_tenth",))


def _tenth(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    bound = bounds.elbo(model, params, x, key)
    return {"a_tenth": bound.distortion + 0.1 * bound.rate}
'''

LIKELIHOOD = '''
@dataclass(frozen=True)
class ToyLikelihood:
    """A Gaussian of unit scale around a softplus."""

    outputs: ClassVar[int] = 1
    support: ClassVar[Support] = REAL

    def init(self) -> Params:
        return {}

    def __call__(self, params: Params, raw: Array) -> Distribution:
        return distributions.Normal(jnp.logaddexp(raw[..., 0], 0.0), jnp.zeros(()))


Likelihood = (
    ToyLikelihood
    | '''

ARCHITECTURE = '''
@dataclass(frozen=True)
class ToyNetwork:
    """One dense layer, whatever is asked for."""

    def encoder(self, event_shape: tuple[int, ...], outputs: int) -> Any:
        return networks.MLP((), (outputs,), False, "float32")

    def decoder(self, event_shape: tuple[int, ...], outputs: int) -> Any:
        return networks.MLP((), (*event_shape, outputs), False, "float32")

    def joint(self, event_shape: tuple[int, ...], outputs: int) -> Any:
        return networks.JointMLP((), (*event_shape, outputs), False, "float32")


Architecture = ToyNetwork | '''

DATA = """
from aevae_jax.data.datasets import Split
from aevae_jax.lazy import np


def _toy(path: Path, data: Data) -> Found:
    rows = np.array([list(line.encode()) for line in path.read_text().split()], np.uint8) * 4
    return Found({"train": Split(rows, None)}, 256)


_FILES: dict[str, Reader] = {".toy": _toy, """

PRIOR = '''
@dataclass(frozen=True)
class ToyPrior:
    """A Gaussian around a point that is learned."""

    def init(self, key: Array, model: Coder) -> Params:
        return {"loc": jax.random.normal(key, (model.latent,))}

    def __call__(self, model: Coder, params: Params, n: int) -> Distribution:
        loc = jnp.broadcast_to(params["prior"]["loc"], (n, model.latent))
        return distributions.Normal(loc, jnp.zeros_like(loc))


Prior = ToyPrior | '''

MODEL = '''"""A VAE whose posterior has a scale that is given."""

from dataclasses import dataclass

from aevae_jax import distributions
from aevae_jax.lazy import jnp
from aevae_jax.models import likelihoods, parts, priors
from aevae_jax.models.architectures import MLP, Architecture
from aevae_jax.models.likelihoods import Likelihood
from aevae_jax.models.priors import Prior


@dataclass(frozen=True)
class ToyModel:
    """A VAE whose posterior has the standard deviation `scale`."""

    latent: int = 2
    network: Architecture = MLP()
    likelihood: Likelihood = likelihoods.NormalSharedScale()
    latent_prior: Prior = priors.StandardNormal()
    scale: float = 0.5
    event_shape: tuple[int, ...] = ()

    def init(self, key):
        return parts.init(self, key, codes=self.latent)

    def encode(self, params, x):
        loc = parts.encoder_outputs(self, params, x, codes=self.latent)
        return distributions.Normal(loc, jnp.full_like(loc, jnp.log(self.scale)))

    def decode(self, params, z):
        return parts.decode(self, params, z)

    def prior(self, params, n):
        return self.latent_prior(self, params, n)
'''

METRIC = '''
def toy(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    """A metric: the length of the mean code."""
    return {"toy": jnp.linalg.norm(model.encode(params, x).mean(), axis=-1)}


SHOWN: tuple[Metric, ...] = (toy, '''

TYPED = """
import contextlib, io, json, os, sys, traceback
from aevae_jax.cli.main import main

said = {}
for what, more in json.loads(sys.argv[1]).items():
    os.mkdir(what)
    os.chdir(what)
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            for arguments in (["train", "run", "--epochs", "2", *more], ["evaluate", "run"], ["train", "--help"]):
                main(arguments)
    except SystemExit as end:
        error = f"exit code {end.code}" if end.code else ""
    except Exception:
        error = traceback.format_exc()
    else:
        error = ""
    said[what] = out.getvalue(), error
    os.chdir("..")
print(json.dumps(said))
"""
"""Trains, evaluates and asks for help, with each new thing in a folder of its own; prints what it said."""


SMALL = "MLP((4,))"
TOYS = {
    "objective": (
        "objectives/families.py",
        "\nLoss = (\n    ",
        "from aevae_jax.objectives.toy import ToyLoss\n\nLoss = (\n    ToyLoss\n    | ",
        ("--objective", "ToyLoss()", "--model", f"VAE(2, {SMALL})"),
        "ToyLoss()",
    ),
    "likelihood": (
        "models/likelihoods.py",
        "\nLikelihood = (\n    ",
        LIKELIHOOD,
        ("--model", f"VAE(2, {SMALL}, ToyLikelihood())"),
        "ToyLikelihood()",
    ),
    "architecture": (
        "models/architectures.py",
        "\nArchitecture = ",
        ARCHITECTURE,
        ("--model", "VAE(2, ToyNetwork())"),
        "ToyNetwork()",
    ),
    "data set": (
        "data/loading.py",
        "\n_FILES: dict[str, Reader] = {",
        DATA,
        ("--data", "../x.toy", "--model", f"VAE(2, {SMALL})", "--batch-size", "4"),
        "x.toy test",
    ),
    "prior": (
        "models/priors.py",
        "\nPrior = ",
        PRIOR,
        ("--model", f"VAE(2, {SMALL}, latent_prior=ToyPrior())"),
        "ToyPrior()",
    ),
    "model": (
        "models/families.py",
        "\nModel = ",
        "from aevae_jax.models.toy import ToyModel\n\nModel = ToyModel | ",
        ("--model", f"ToyModel(2, {SMALL})"),
        "ToyModel(",
    ),
    "metric": (
        "evaluation/metrics.py",
        "\nSHOWN: tuple[Metric, ...] = (",
        METRIC,
        ("--model", f"VAE(2, {SMALL})"),
        "\n  toy ",
    ),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What one process prints, and its errors, for each new thing, in a copy of the package that has them all."""
    folder = tmp_path_factory.mktemp("one_place")
    shutil.copytree(PACKAGE, folder / "aevae_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for file, place, toy, *_ in TOYS.values():
        text = (folder / "aevae_jax" / file).read_text()
        assert text.count(place) == 1
        (folder / "aevae_jax" / file).write_text(text.replace(place, toy))
    (folder / "aevae_jax" / "models" / "toy.py").write_text(MODEL)
    (folder / "aevae_jax" / "objectives" / "toy.py").write_text(OBJECTIVE)
    (folder / "x.toy").write_text("\n".join(f"{i:05}" for i in range(60)))
    done = subprocess.run(
        [sys.executable, "-c", TYPED, json.dumps({what: more for what, (_, _, _, more, _) in TOYS.items()})],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("what", TOYS)
def test_a_new_thing_takes_one_place(what, said):
    out, error = said[what]
    assert error == ""
    assert TOYS[what][-1] in out
