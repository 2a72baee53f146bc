"""A new thing is added in one file, as CONTRIBUTING.md says; it then works in `fit`, `evaluate` and as it is typed."""

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


Objective = Toy | '''

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
def _toy(path: Path, data: Data) -> Found:
    rows = np.array([list(line.encode()) for line in path.read_text().split()], np.uint8) * 4
    return Found({"train": Split(rows, None)}, 256)


_FILES: dict[str, Reader] = {".toy": _toy, """

METRIC = '''
def toy(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    """A metric: the length of the mean code."""
    return {"toy": jnp.linalg.norm(model.encode(params, x).mean(), axis=-1)}


@lru_cache(maxsize=64)
def _metric_body('''

TYPED = """
import sys
from aevae_jax.cli.main import main
for arguments in (["train", "run", "--epochs", "2", {more}], ["evaluate", "run"], ["train", "--help"]):
    main(arguments)
"""

OF_A_METRIC = """
import aevae_jax as ae
from aevae_jax.evaluation.metrics import toy
from aevae_jax.types import Validation

class Chosen(ae.ELBO):
    def validation(self):
        return Validation(toy, ("toy",))

fitted = ae.fit(ae.Run(model=ae.VAE(2, ae.architectures.MLP((4,))), objective=Chosen(), epochs=2))
x = fitted.run.data.load().test.x[:20] / 16
print(ae.evaluate(fitted.model, fitted.params, x.astype("float32"), ae.keys.root(0), metric=toy), fitted.results)
"""


def typed(*more):
    return TYPED.format(more=", ".join(map(repr, more)))


SMALL = "MLP((4,))"
TOYS = {
    "objective": (
        "objectives/losses.py",
        "\nObjective = ",
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
    "metric": ("evaluation/metrics.py", "\n@lru_cache(maxsize=64)\ndef _metric_body(", METRIC, OF_A_METRIC, "'toy': "),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", TOYS)
def test_a_new_thing_takes_one_place(what, tmp_path):
    file, place, toy, code, shown = TOYS[what]
    shutil.copytree(PACKAGE, tmp_path / "aevae_jax", ignore=shutil.ignore_patterns("__pycache__"))
    text = (tmp_path / "aevae_jax" / file).read_text()
    assert text.count(place) == 1
    (tmp_path / "aevae_jax" / file).write_text(text.replace(place, toy))
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
