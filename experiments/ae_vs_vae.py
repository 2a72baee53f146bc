"""What is the difference between an autoencoder and a variational autoencoder? The main experiment.

Command:   python experiments/ae_vs_vae.py                       (about two minutes on two CPU cores)
           python experiments/ae_vs_vae.py --data fashion_mnist  (some 25 minutes; needs it prepared)
Writes:    runs/ae_vs_vae/results.json and runs/ae_vs_vae/report.png
Expected:  random codes decoded by the autoencoder are garbage, by the VAE digits; every claim of the table "holds".

Both models have the same networks, latent size, data, optimizer and number of steps, and both are selected by their
validation bound. The autoencoder minimises the squared error; the VAE the negative ELBO under a Gaussian likelihood
whose one scale it learns, so neither has a weight to tune. The third column is the same autoencoder with a Gaussian
mixture fitted to its training codes in place of its prior.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from claims import decide

from aevae_jax import models, runs, types
from aevae_jax.cli import console
from aevae_jax.data import Data, prepare
from aevae_jax.lazy import jax, jnp, modules, np
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import NormalSharedScale
from aevae_jax.training.optimizers import AdamW

if TYPE_CHECKING:
    from aevae_jax import distributions, training
    from aevae_jax.data import Prepared
    from aevae_jax.evaluation import classifiers, image_quality, statistics
    from aevae_jax.evaluation.classifiers import Ensemble
    from aevae_jax.models import generation, priors
    from aevae_jax.runs import directory, fitting, provenance, records
    from aevae_jax.runs.fitting import Fitted
    from aevae_jax.types import LatentModel, Params
else:
    distributions, training = modules("aevae_jax", "distributions", "training")
    classifiers, image_quality, statistics = modules(
        "aevae_jax.evaluation", "classifiers", "image_quality", "statistics"
    )
    generation, priors = modules("aevae_jax.models", "generation", "priors")
    directory, fitting, provenance, records = modules("aevae_jax.runs", "directory", "fitting", "provenance", "records")

STEPS = 2_850
"""Training steps where the number of epochs is not given: 150 epochs of the digits; never fewer than 15 epochs."""

SAMPLES = 2_000
"""Random codes per model and seed; the kernel distance uses as many points at most."""

PATHS, POINTS = 200, 21
"""Straight paths between two encoded inputs, and points on each."""


def ae_vs_vae(
    *,
    data: str = "digits",
    seeds: int = 5,
    epochs: int = 0,
    latent: int = 16,
    hidden: tuple[int, ...] = (256, 256),
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    out: Path = Path("runs/ae_vs_vae"),
    force: bool = False,
    record: str = "",
) -> None:
    """Train an autoencoder and a VAE on the same data and measure each claim about their difference.

    Args:
      data: digits (bundled), or a TensorFlow Datasets image data set that is prepared here.
      seeds: how many of each model to train, all at once; intervals are over seeds.
      epochs: passes over the training data; 0 means enough for 2,850 steps, and at least 15.
      latent: numbers in a code.
      hidden: sizes of the hidden layers of the encoder; the decoder has them in reverse.
      learning_rate: of Adam, decayed to 0 along a cosine.
      batch_size: examples per step.
      out: directory for results.json and report.png.
      force: overwrite the results that are in that directory.
      record: also write the results, without the values of single seeds, to this JSON file, and the picture beside it.
    """
    if seeds < 2:
        raise types.InputError("seeds", got=seeds, expected="at least 2: an interval needs repetitions")
    source = Data(data)
    dataset = source.load()
    per_epoch = training.steps_per_epoch(dataset.train.x, batch_size)
    epochs = epochs or max(15, -(-STEPS // per_epoch))
    optimizer = AdamW(learning_rate, cosine=True)
    folder = _output(out, force)
    fitted = {}
    vae = models.VAE(latent, MLP(hidden), NormalSharedScale(), priors.StandardNormal())
    both: dict[str, models.Model] = {"AE": models.Autoencoder(latent, MLP(hidden)), "VAE": vae}
    for name, model in both.items():
        run = runs.Run(source, model, optimizer=optimizer, batch_size=batch_size, epochs=epochs)
        with console.progress(name) as on_epoch:
            fitted[name] = fitting.fit_seeds(run, range(seeds), dataset, on_epoch=on_epoch)
    prepared = prepare(source.preparation, dataset)
    ensemble = classifiers.train_ensemble(prepared, range(100, 105), steps=max(600, per_epoch))
    judge = Judge(ensemble, ensemble.features(_held_out(prepared)))
    train = np.concatenate([x for _, x in prepared.seen("train", jax.random.key(0))])

    measured = [measure(fitted, seed, train, prepared, judge) for seed in range(seeds)]
    baseline = _baselines(train, prepared, judge, latent)
    table = {name: np.array([m[name] for m in measured]) for name in measured[0]}
    claims = [claim._asdict() for claim in decide(table, baseline, latent, int(np.prod(dataset.event_shape)))]
    results = {
        "command": " ".join(["python", "experiments/ae_vs_vae.py", *sys.argv[1:]]),
        "claims": claims,
        "measures": _summary(table),
        "rate per dimension, largest first, nats": table["rate per dimension | VAE"].mean(axis=0).tolist(),
        "baselines": baseline,
        "seeds": {name: v.tolist() for name, v in table.items()},
        "epochs": epochs,
        "training_seconds": {name: f.results["seconds"] for name, f in fitted.items()},
        "provenance": provenance.provenance(dataset),
    }
    records.write_json(folder / "results.json", results)
    _draw(folder / "report.png", fitted, train, prepared, results["measures"])
    if record:
        records.write_json(Path(record), {k: v for k, v in results.items() if k != "seeds"})
        shutil.copyfile(folder / "report.png", Path(record).with_suffix(".png"))
    show(results, folder)


def _output(out: Path, force: bool) -> Path:
    if force:
        out.mkdir(parents=True, exist_ok=True)
        return out
    try:
        return directory.create_directory(out)
    except types.InputError as error:
        raise types.InputError(
            "output directory", got=str(error), expected="a new one", hint="use --force or --out"
        ) from None


# ---------------------------------------------------------------------------------------------------------- measuring


class Judge(NamedTuple):
    """What pictures are measured by: classifiers, and their features `[M, N, F]` of held-out data."""

    classifiers: Ensemble
    held_out: np.ndarray


def measure(
    fitted: dict[str, Fitted], seed: int, train: np.ndarray, prepared: Prepared, judge: Judge
) -> dict[str, Any]:
    """Return every measure of one seed's models: `{"measure | column": number}`."""
    values: dict[str, Any] = {}
    for name, fit in fitted.items():
        params = jax.tree.map(lambda a: a[seed], fit.params)
        own = {
            "reconstruction MSE": fit.results["test"][seed]["mse_at_mean"],
            **_codes(fit.model, params, prepared, seed),
            **_samples(fit.model, params, judge, seed),
            **_paths(fit.model, params, prepared, judge.classifiers, seed),
        }
        values |= {f"{key} | {name}": value for key, value in own.items()}
        if name == "AE":
            codes = fit.model.encode(params, jnp.asarray(train[:20_000])).mean()
            model, with_mixture = priors.fit_mixture(fit.model, params, codes, seed=seed)
            after = _samples(model, with_mixture, judge, seed)
            values |= {f"{key} | AE + mixture": value for key, value in after.items()}
    return {key: np.float64(value) for key, value in values.items()}


def _codes(model: LatentModel, params: Params, prepared: Prepared, seed: int) -> dict[str, Any]:
    """Measure determinism of the encoder, and how the codes of held-out data are distributed."""
    x = jnp.asarray(_held_out(prepared))
    key = jax.random.key(seed)
    first, second, third = (jax.random.fold_in(key, i) for i in range(3))
    q = model.encode(params, x)
    z, again = np.asarray(q.sample(first)), np.asarray(model.encode(params, x).sample(second))
    normal = np.asarray(jax.random.normal(third, z.shape))
    measures = {
        "equal when encoded twice": (z == again).all(axis=1).mean(),
        "difference of two encodings": np.abs(z - again).mean(),
        "KL of aggregate posterior": statistics.kl_of_gaussian_fit(z),
        "MMD of aggregate posterior": statistics.mmd(z[:SAMPLES], normal[:SAMPLES]),
        "active units": statistics.active_units(np.asarray(q.mean())).sum(),
    }
    if isinstance(q, distributions.Normal):
        terms = np.asarray(q.kl_terms(model.prior(params, len(x)))).mean(axis=0)
        measures["posterior standard deviation"] = np.asarray(q.scale).mean()
        measures["rate"] = terms.sum()
        measures["rate per dimension"] = np.sort(terms)[::-1]
    return measures


def _samples(model: LatentModel, params: Params, judge: Judge, seed: int) -> dict[str, Any]:
    """Return how pictures decoded from random codes compare with held-out data, clipped to the data's range as when
    shown.
    """
    images = np.asarray(generation.sample(model, params, jax.random.key(1_000 + seed), SAMPLES).mean()).clip(0, 1)
    found = image_quality.frechet_distances(judge.held_out, judge.classifiers.features(images))
    return {
        "Frechet distance": found.samples,
        "... above that of data to data": found.samples - found.floor,
        "confident samples": judge.classifiers.confident(images),
    }


def _paths(model: LatentModel, params: Params, prepared: Prepared, classifier: Ensemble, seed: int) -> dict[str, Any]:
    """Return how evenly the picture changes along straight paths between two codes, and whether it stays
    recognisable.
    """
    x = _held_out(prepared)
    a, b = np.random.RandomState(seed).permutation(len(x))[: 2 * PATHS].reshape(2, -1)
    images = np.asarray(generation.interpolate(model, params, jnp.asarray(x[a]), jnp.asarray(x[b]), POINTS))
    steps = np.sqrt(((images[1:] - images[:-1]) ** 2).reshape(POINTS - 1, len(a), -1).sum(axis=-1))
    fade = np.sqrt(((images[-1] - images[0]) ** 2).reshape(len(a), -1).sum(axis=-1))
    inner = images[1:-1].reshape(-1, *images.shape[2:]).clip(0, 1)
    return {
        "steepest step of a path": (steps.max(axis=0) / steps.mean(axis=0)).mean(),
        "length of a path": (steps.sum(axis=0) / fade).mean(),
        "confident on paths": classifier.confident(inner),
    }


def _held_out(prepared: Prepared) -> np.ndarray:
    """Return validation and test data, at most 5,000 examples from the end: data that no model was fitted to."""
    return np.concatenate([prepared.validation.x, prepared.test.x])[-5_000:]


def _baselines(train: np.ndarray, prepared: Prepared, judge: Judge, latent: int) -> dict[str, float]:
    """Return what real data score, and what PCA reconstructs with as many numbers."""
    found = image_quality.frechet_distances(judge.held_out, judge.classifiers.features(train[:SAMPLES]))
    right = judge.classifiers.probabilities(prepared.test.x[:]).argmax(axis=1) == prepared.test.labels
    return {
        "reconstruction MSE of PCA": statistics.pca_error(train, prepared.test.x[:], latent),
        "Frechet distance of training data": found.samples,
        "Frechet distance of data to data": found.floor,
        "confident held-out data": judge.classifiers.confident(_held_out(prepared)),
        "accuracy of the classifiers": float(right.mean()),
        "pictures compared": found.num_samples,
    }


def _summary(table: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Return the mean and ends of the interval of every measure that is one number per seed."""
    return {name: statistics.interval(values)._asdict() for name, values in table.items() if values.ndim == 1}


# ------------------------------------------------------------------------------------------------------------ showing

UNITS = {
    "reconstruction MSE": "per pixel, test",
    "KL of aggregate posterior": "nats",
    "MMD of aggregate posterior": "",
    "Frechet distance": "features",
    "... above that of data to data": "features",
    "confident samples": "share",
    "equal when encoded twice": "share",
    "difference of two encodings": "per dimension",
    "posterior standard deviation": "",
    "steepest step of a path": "of the mean step",
    "length of a path": "of a fade of pixels",
    "confident on paths": "share",
    "rate": "nats per image",
    "active units": "",
}


def show(results: dict[str, Any], folder: Path) -> None:
    """Print the measures and the claims as tables, and where the picture is."""
    from rich.console import Console
    from rich.table import Table

    output = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    columns = ("AE", "VAE", "AE + mixture")
    measures = Table("measure", *columns, "unit", title="Means over seeds ± half the 95 % interval")
    for name, unit in UNITS.items():
        measures.add_row(name, *(_cell(results["measures"].get(f"{name} | {column}")) for column in columns), unit)
    output.print(measures)
    rates = results["rate per dimension, largest first, nats"]
    output.print("The VAE's nats per dimension, largest first: " + " ".join(f"{rate:.2f}" for rate in rates))
    base = results["baselines"]
    output.print(
        f"For comparison: PCA's error {base['reconstruction MSE of PCA']:.5f}; Frechet distance of data to data "
        f"{base['Frechet distance of data to data']:.2f}, of training data "
        f"{base['Frechet distance of training data']:.2f}; share of held-out data of which classifiers are confident "
        f"{base['confident held-out data']:.3f}.\nFrechet distances are of {base['pictures compared']:,} pictures "
        "to as many, and comparable within this project only.\n"
    )
    claims = Table("about", "claim", "decided by [95 % interval]", "verdict", title="Claims", show_lines=False)
    colours = {"holds": "green", "does not hold": "red", "undecided": "yellow"}
    for c in results["claims"]:
        number = f"{c['number']} = {c['mean']:.3g} \\[{c['low']:.3g}, {c['high']:.3g}] > {c['limit']:g}"
        claims.add_row(c["about"], c["claim"], number, f"[{colours[c['verdict']]}]{c['verdict']}[/]")
        if c["remark"]:
            claims.add_row("", f"[dim]  ({c['remark']})[/]", "", "")
    output.print(claims)
    held = sum(c["verdict"] == "holds" for c in results["claims"])
    output.print(f"{held} of {len(results['claims'])} claims hold. Picture: {folder / 'report.png'}")


def _cell(interval: dict[str, float] | None) -> str:
    if interval is None:
        return ""
    return f"{interval['mean']:.4g} ± {(interval['high'] - interval['low']) / 2:.2g}"


def _draw(path: Path, fitted: dict[str, Fitted], train: np.ndarray, prepared: Prepared, measures: Any) -> None:
    """Draw the picture: everything of the first seed."""
    import ae_vs_vae_picture as picture

    x, labels = prepared.test.x, np.asarray(prepared.test.labels)
    first = jnp.asarray(x[:10])
    other = int(np.flatnonzero(labels != labels[0])[0])
    ends = jnp.asarray(x[:1]), jnp.asarray(x[other : other + 1])
    panels = {}
    for name, fit in fitted.items():
        params = jax.tree.map(lambda a: a[0], fit.params)
        key = jax.random.key(0)
        panels[name] = picture.Panel(
            reconstructions=np.asarray(generation.reconstruct(fit.model, params, first)),
            samples=np.asarray(generation.sample(fit.model, params, key, 30).mean()),
            interpolation=np.asarray(generation.interpolate(fit.model, params, *ends, 10))[:, 0],
            codes=np.asarray(fit.model.encode(params, jnp.asarray(x[:2_000])).mean()),
        )
        if name == "AE":
            codes = fit.model.encode(params, jnp.asarray(train[:20_000])).mean()
            model, params = priors.fit_mixture(fit.model, params, codes)
            mixture = np.asarray(generation.sample(model, params, key, 30).mean())
    captions = {
        name: f"Frechet distance {measures[f'Frechet distance | {name}']['mean']:.1f}"
        for name in ("AE", "VAE", "AE + mixture")
    }
    picture.comparison(
        path,
        title=prepared.name,
        inputs=np.asarray(first),
        labels=labels[:2_000],
        panels=panels,
        mixture=mixture,
        captions=captions,
    )


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(ae_vs_vae, sys.argv[1:], prog="ae_vs_vae.py")()
