"""A new thing is added in one place, as CONTRIBUTING.md says; it then works in `fit`, `evaluate` and as it is typed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import aevae_jax

PACKAGE = Path(aevae_jax.__file__).parent

OBJECTIVE = '''
@dataclass(frozen=True)
class Toy:
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


Loss = Toy | '''

LIKELIHOOD = '''
@dataclass(frozen=True)
class Toy:
    """A Gaussian of unit scale around a softplus."""

    outputs: ClassVar[int] = 1
    support: ClassVar[Support] = REAL

    def init(self) -> Params:
        return {}

    def __call__(self, params: Params, raw: Array) -> Distribution:
        return distributions.Normal(jnp.logaddexp(raw[..., 0], 0.0), jnp.zeros(()))


Likelihood = (
    Toy
    | '''

ARCHITECTURE = '''
@dataclass(frozen=True)
class Toy:
    """One dense layer, whatever is asked for."""

    def encoder(self, event_shape: tuple[int, ...], outputs: int) -> Any:
        return networks.MLP((), (outputs,), False, "float32")

    def decoder(self, event_shape: tuple[int, ...], outputs: int) -> Any:
        return networks.MLP((), (*event_shape, outputs), False, "float32")

    def joint(self, event_shape: tuple[int, ...], outputs: int) -> Any:
        return networks.JointMLP((), (*event_shape, outputs), False, "float32")


Architecture = Toy | '''

DATA = """
from aevae_jax.data.datasets import Split
from aevae_jax.lazy import np


def _toy(path: Path, data: Data) -> Found:
    rows = np.array([list(line.encode()) for line in path.read_text().split()], np.uint8) * 4
    return Found({"train": Split(rows, None)}, 256)


_FILES: dict[str, Reader] = {".toy": _toy, """

PRIOR = '''
@dataclass(frozen=True)
class Toy:
    """A Gaussian around a point that is learned."""

    def init(self, key: Array, model: Coder) -> Params:
        return {"loc": jax.random.normal(key, (model.latent,))}

    def __call__(self, model: Coder, params: Params, n: int) -> Distribution:
        loc = jnp.broadcast_to(params["prior"]["loc"], (n, model.latent))
        return distributions.Normal(loc, jnp.zeros_like(loc))


Prior = Toy | '''

MODEL = '''"""A VAE whose posterior has a scale that is given."""

from dataclasses import dataclass

from aevae_jax import distributions
from aevae_jax.lazy import jnp
from aevae_jax.models import likelihoods, parts, priors
from aevae_jax.models.architectures import MLP, Architecture
from aevae_jax.models.likelihoods import Likelihood
from aevae_jax.models.priors import Prior


@dataclass(frozen=True)
class Toy:
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
import sys
from aevae_jax.cli.main import main
for arguments in (["train", "run", "--epochs", "2", {more}], ["evaluate", "run"], ["train", "--help"]):
    main(arguments)
"""


def typed(*more):
    return TYPED.format(more=", ".join(map(repr, more)))


SMALL = "MLP((4,))"
TOYS = {
    "objective": (
        "objectives/losses.py",
        "\nLoss = ",
        OBJECTIVE,
        typed("--objective", "Toy()", "--model", f"VAE(2, {SMALL})"),
        "Toy()",
    ),
    "likelihood": (
        "models/likelihoods.py",
        "\nLikelihood = (\n    ",
        LIKELIHOOD,
        typed("--model", f"VAE(2, {SMALL}, Toy())"),
        "Toy()",
    ),
    "architecture": (
        "models/architectures.py",
        "\nArchitecture = ",
        ARCHITECTURE,
        typed("--model", "VAE(2, Toy())"),
        "Toy()",
    ),
    "data set": (
        "data/loading.py",
        "\n_FILES: dict[str, Reader] = {",
        DATA,
        typed("--data", "x.toy", "--model", f"VAE(2, {SMALL})", "--batch-size", "4"),
        "x.toy test",
    ),
    "prior": (
        "models/priors.py",
        "\nPrior = ",
        PRIOR,
        typed("--model", f"VAE(2, {SMALL}, latent_prior=Toy())"),
        "Toy()",
    ),
    "model": (
        "models/families.py",
        "\nModel = ",
        "from aevae_jax.models.toy import Toy\n\nModel = Toy | ",
        typed("--model", f"Toy(2, {SMALL})"),
        "Toy(",
    ),
    "metric": (
        "evaluation/metrics.py",
        "\nSHOWN: tuple[Metric, ...] = (",
        METRIC,
        typed("--model", f"VAE(2, {SMALL})"),
        "\n  toy ",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", TOYS)
def test_a_new_thing_takes_one_place(what, tmp_path):
    file, place, toy, code, shown = TOYS[what]
    shutil.copytree(PACKAGE, tmp_path / "aevae_jax", ignore=shutil.ignore_patterns("__pycache__"))
    text = (tmp_path / "aevae_jax" / file).read_text()
    assert text.count(place) == 1
    (tmp_path / "aevae_jax" / file).write_text(text.replace(place, toy))
    if what == "model":
        (tmp_path / "aevae_jax" / "models" / "toy.py").write_text(MODEL)
    (tmp_path / "x.toy").write_text("\n".join(f"{i:05}" for i in range(60)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
