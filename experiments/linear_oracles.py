"""Do linear models reach the optimum that linear algebra gives? The whole training pipeline against closed forms.

Command:   python experiments/linear_oracles.py                 (a few minutes on two CPU cores; Fashion-MNIST, k = 32)
           python experiments/linear_oracles.py --data digits --latent 8 --batch-size 256 --learning-rate 3e-2
Expected:  every row within 0.1 % of its optimum, on test data too.

A linear autoencoder's best error is that of PCA, and all its other critical points are saddles (Baldi & Hornik 1989).
A linear VAE with one learned noise scale has the maximum likelihood of probabilistic PCA (Tipping & Bishop 1999; Lucas,
Tucker, Grosse & Norouzi 2019), and its ELBO is tight there. Likelihoods are computed in closed form, in float64, from
the trained decoder.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax import durable, models, runs
from aevae_jax.cli import console, terminal
from aevae_jax.data import Data, Dataset, Split
from aevae_jax.lazy import jnp, modules, np
from aevae_jax.models import likelihoods, priors
from aevae_jax.models.architectures import MLP
from aevae_jax.training.optimizers import AdamW

if TYPE_CHECKING:
    from aevae_jax import distributions
    from aevae_jax.models import generation
    from aevae_jax.runs import fitting, provenance, records
    from aevae_jax.runs.fitting import Fitted
    from aevae_jax.types import Params
else:
    distributions = modules("aevae_jax", "distributions")
    generation = modules("aevae_jax.models", "generation")
    fitting, provenance, records = modules("aevae_jax.runs", "fitting", "provenance", "records")


class Row(NamedTuple):
    """One quantity, as trained and as linear algebra gives it."""

    quantity: str
    split: str
    trained: float
    optimum: float

    @property
    def gap(self) -> float:
        """Distance from the optimum as a share of it."""
        return abs(self.trained - self.optimum) / abs(self.optimum)


def linear_oracles(
    *,
    data: str = "fashion_mnist",
    latent: int = 32,
    steps: int = 15_000,
    batch_size: int = 500,
    learning_rate: float = 1e-2,
    record: str = "",
) -> None:
    """Train a linear autoencoder and a linear VAE and compare them with PCA and probabilistic PCA.

    Args:
      data: digits (all its rows, as train and as test), or a TensorFlow Datasets image data set with all its training
        rows; both scaled to [0, 1].
      latent: the number of components k.
      steps: training steps, at least.
      batch_size: examples per step.
      learning_rate: of Adam, decayed to 0 along a cosine.
      record: write the results to this JSON file.
    """
    if record:
        durable.make_room(Path(record))
    terminal.begin(f"reading {data}, to train a linear autoencoder and a linear VAE")
    train, test = _rows(data)
    # the optimum is one of all rows: validation is a part of the training data here, and chooses among its epochs only
    dataset = Dataset(data, Split(train), Split(train[:10_000]), Split(test), levels=0)
    batch_size = min(batch_size, len(train))
    epochs = -(-steps // (len(train) // batch_size))
    linear: dict[str, models.Model] = {
        "linear AE": models.Autoencoder(latent, MLP(())),
        "linear VAE": models.VAE(latent, MLP(()), likelihoods.NormalSharedScale(), priors.StandardNormal()),
    }
    fitted = {}
    for name, model in linear.items():
        run = runs.Run(model=model, optimizer=AdamW(learning_rate, cosine=True), batch_size=batch_size, epochs=epochs)
        with console.progress(name) as shown:
            fitted[name] = fitting.fit(run, dataset, on_epoch=shown, on_steps=shown)

    mean = train.mean(axis=0, dtype=np.float64)
    variances, directions = np.linalg.eigh(np.cov(train, rowvar=False, bias=True))
    kept, noise = directions[:, -latent:], variances[:-latent].mean()
    best = kept * np.sqrt(variances[-latent:] - noise)
    own = decoder_of(fitted["linear VAE"].params)
    rows = []
    for split, x in {"train": train, "test": test}.items():
        optimum = ((x - mean) ** 2).mean() - (((x - mean) @ kept) ** 2).sum(axis=1).mean() / x.shape[1]
        rows += [
            Row("linear AE, squared error per pixel", split, squared_error(fitted["linear AE"], x), float(optimum)),
            Row(
                "linear VAE, log likelihood in nats",
                split,
                log_likelihood(x, *own),
                log_likelihood(x, best, mean, noise),
            ),
        ]
    results = {
        "command": shlex.join(["python", "experiments/linear_oracles.py", *sys.argv[1:]]),
        "data": data,
        "latent": latent,
        "rows": [{**row._asdict(), "gap": row.gap} for row in rows],
        "elbo_of_the_linear_vae": {"test": -fitted["linear VAE"].results["test"]["negative_elbo"]},
        "provenance": provenance.provenance(dataset),
    }
    if record:
        records.write_json(Path(record), results)
    _show(results)


def _rows(data: str) -> tuple[np.ndarray, np.ndarray]:
    """Return all training rows and the test rows, flat, scaled to [0, 1]; of the digits all rows twice."""
    dataset = Data(data).load()
    splits = [split.x[:].reshape(len(split), -1) for split in (dataset.train, dataset.validation, dataset.test)]
    train, test = np.concatenate(splits[:2]), splits[2]
    if data == "digits":
        train = test = np.concatenate(splits)
    scale = np.float32(dataset.levels - 1)
    return train.astype(np.float32) / scale, test.astype(np.float32) / scale


def squared_error(fitted: Fitted, x: np.ndarray) -> float:
    """Return the mean over `[N, D]` of the squared error per element."""
    decoded = np.asarray(generation.reconstruct(fitted.model, fitted.params, jnp.asarray(x)))
    return float(((decoded - x) ** 2).mean(dtype=np.float64))


def decoder_of(params: Params) -> tuple[np.ndarray, np.ndarray, float]:
    """Return W `[D, k]`, mean `[D]` and noise variance of a linear decoder, in float64."""
    layer = params["decoder"]["out"]
    log_scale = distributions.bounded(params["likelihood"]["log_scale"], *likelihoods.SCALE_RANGE)
    kernel, bias = (np.asarray(layer[name], np.float64) for name in ("kernel", "bias"))
    return kernel.T, bias, float(np.exp(2 * np.float64(log_scale)))


def log_likelihood(x: np.ndarray, w: np.ndarray, mean: np.ndarray, noise: float) -> float:
    """Return the mean of log N(x; mean, W W^T + noise I) over `[N, D]`, in nats per example."""
    size = x.shape[1]
    covariance = w @ w.T + noise * np.eye(size)
    centred = x - mean
    distance = (centred * np.linalg.solve(covariance, centred.T).T).sum(axis=1).mean()
    return float(-0.5 * (distance + np.linalg.slogdet(covariance)[1] + size * np.log(2 * np.pi)))


def _show(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("quantity", "split", "trained", "optimum", "gap", title=f"{results['data']}, k = {results['latent']}")
    for row in results["rows"]:
        numbers = (f"{row[name]:.7g}" for name in ("trained", "optimum"))
        table.add_row(row["quantity"], row["split"], *numbers, f"{100 * row['gap']:.4f} %")
    output = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    output.print(table)
    output.print(f"ELBO of the linear VAE on test data: {results['elbo_of_the_linear_vae']['test']:.4f} nats")


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(linear_oracles, sys.argv[1:], prog="linear_oracles.py")()
