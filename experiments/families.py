"""What does each family of models buy, and what does it cost? One table over the same data, networks and steps.

Command:   python experiments/families.py                     (digits; some minutes on two CPU cores)
           python experiments/families.py --data digits sprites fashion_mnist --seeds 3   (some hours)
           with --record FILE the rows are added to those that the file has already
Writes:    runs/families/results.json and table.md
Expected:  a regularised code costs reconstruction and makes random codes decode to data; a prior fitted to the codes
           makes a generator of every family; penalties of the total correlation raise the mutual information gap on
           sprites.

Protocol: each family has the dense networks, the optimizer and the batches that `aevae train` has when nothing is said,
16 latent dimensions where it does not ask for others, the Gaussian likelihood with one learned scale, and as many steps
as all others; parameters are those of the best epoch by the metric that its objective names, of validation data. All
figures are of test data, which choose nothing, and are means over seeds with the half width of their 95 % interval.
MSE is that at the mean of q(z|x). The bound is the negative ELBO in nats per image; a family whose codes are points has
none. Distances are Frechet distances of 2,000 decoded random codes from test images, in the features of three
classifiers, above that of validation images: of codes from the prior, and from a mixture of 10 Gaussians that was
fitted to the codes of training data. Active units are dimensions whose mean reacts to the data. Scores of
disentanglement are those of sprites, whose factors are known. Time is that of the processors in an epoch with its
validation, after the first one, which compiles, relative to the plain VAE.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from defaults import Clock, Judge, markdown

from aevae_jax import durable
from aevae_jax.cli import console, terminal
from aevae_jax.data import Data, prepare
from aevae_jax.lazy import modules, np
from aevae_jax.models import VAE, Autoencoder, Model, TwoLevelVAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.codes import TopK
from aevae_jax.models.likelihoods import NormalSharedScale
from aevae_jax.models.posteriors import IAF, FullNormal
from aevae_jax.models.priors import StandardNormal, VampPrior
from aevae_jax.objectives.adversarial import AAE, Discriminator, FactorVAE
from aevae_jax.objectives.contractive import Contractive
from aevae_jax.objectives.denoising import Denoising
from aevae_jax.objectives.families import Loss
from aevae_jax.objectives.losses import ELBO, IWAE, ReconstructionError
from aevae_jax.objectives.matching import MMD
from aevae_jax.objectives.moments import DIPVAE
from aevae_jax.objectives.sparse import Sparse
from aevae_jax.objectives.total_correlation import BetaTCVAE
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax import keys, training
    from aevae_jax.data import Dataset, Prepared, suited
    from aevae_jax.evaluation import disentanglement, image_quality, metrics, statistics
    from aevae_jax.models import generation, priors
    from aevae_jax.runs import fitting, judges, provenance, records
    from aevae_jax.training import loops
else:
    keys, training = modules("aevae_jax", "keys", "training")
    disentanglement, image_quality, metrics, statistics = modules(
        "aevae_jax.evaluation", "disentanglement", "image_quality", "metrics", "statistics"
    )
    generation, priors = modules("aevae_jax.models", "generation", "priors")
    suited = modules("aevae_jax.data", "suited")
    fitting, judges, provenance, records = modules("aevae_jax.runs", "fitting", "judges", "provenance", "records")
    loops = modules("aevae_jax.training", "loops")

SAMPLES = 2_000
"""Random codes per model and seed, and test images they are compared with, at most."""

CODES = 2_000
"""Images whose codes are looked at, at most."""

COMPONENTS = 10
"""Gaussians of the mixture that is fitted to codes."""

PLAIN = "VAE"
"""The family that times are relative to."""


class Family(NamedTuple):
    """What is trained."""

    model: Model
    objective: Loss


def families() -> dict[str, Family]:
    """Return what is compared, by name."""
    normal, flat, network = NormalSharedScale(), StandardNormal(), MLP()
    vae, points = VAE(16, network, normal, flat), Autoencoder(16, network, normal)
    told = Discriminator(learning_rate=1e-3)
    return {
        "autoencoder": Family(points, ReconstructionError()),
        "denoising autoencoder": Family(points, Denoising()),
        "sparse autoencoder, L1": Family(points, Sparse()),
        "k-sparse autoencoder, 4 of 16": Family(replace(points, code=TopK(4)), ReconstructionError()),
        "contractive autoencoder": Family(points, Contractive(samples=1)),
        PLAIN: Family(vae, ELBO()),
        "beta-VAE, beta = 4": Family(vae, ELBO(beta=4.0)),
        "denoising VAE": Family(vae, Denoising(objective=ELBO())),
        "beta-TCVAE, 6 times TC": Family(vae, BetaTCVAE(6.0)),
        "FactorVAE, 20 times TC": Family(vae, FactorVAE(20.0, told)),
        "DIP-VAE II": Family(vae, DIPVAE("II")),
        "InfoVAE": Family(vae, MMD(100.0, rate_weight=1.0)),
        "Wasserstein autoencoder": Family(points, MMD(1000.0)),
        "adversarial autoencoder": Family(points, AAE(10.0, told)),
        "IWAE, 5 samples": Family(vae, IWAE(5)),
        "VAE, VampPrior(100)": Family(replace(vae, latent_prior=VampPrior(100)), ELBO()),
        "VAE, full covariance": Family(replace(vae, posterior=FullNormal()), ELBO()),
        "VAE, IAF": Family(replace(vae, posterior=IAF()), ELBO()),
        "VAE of two levels": Family(TwoLevelVAE(16, network, normal, flat), ELBO()),
    }


def compare(
    *,
    data: tuple[str, ...] = ("digits",),
    rows: tuple[str, ...] = (),
    seeds: int = 3,
    steps: int = 2_000,
    out: Path = Path("runs/families"),
    record: str = "",
) -> None:
    """Train every family on each data set and measure it. Goes on where it was stopped.

    Args:
      data: names of labelled images: digits sprites fashion_mnist.
      rows: names of families; all of them, where it is left out.
      seeds: how many of each to train, all at once.
      steps: of each training, rounded up to whole epochs.
      out: directory for the results.
      record: also write the results to this JSON file, with those that it holds already.
    """
    known = families()
    if unknown := [name for name in rows if name not in known]:
        raise InputError("--rows", got=repr(unknown[0]), expected=", ".join(map(repr, known)))
    for option, value, least in (("--seeds", seeds, 2), ("--steps", steps, 1)):
        if value < least:
            raise InputError(option, got=value, expected=f"at least {least}")
    path = out / "results.json"
    for each in (path, *([Path(record)] if record else [])):
        durable.make_room(each)
    results = records.read_json(path) if path.exists() else {"data": {}}
    for name in data:
        terminal.begin(f"reading {name}, to train what is not in {path} of {len(rows or known)} families")
        measure_all(name, {title: known[title] for title in rows or known}, results, path, seeds=seeds, steps=steps)
        (out / "table.md").write_text("".join(map(table, results["data"], results["data"].values())))
        print(table(name, results["data"][name]), flush=True)
    if record:
        old = records.read_json(Path(record)) if Path(record).exists() else {"data": {}}
        records.write_json(Path(record), merged(old, results))


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return results with the rows of both; of data that were measured in another way, the new ones alone."""
    data = dict(old["data"])
    for name, found in new["data"].items():
        before = data.get(name, {})
        same = all(before.get(field) == found[field] for field in ("seeds", "steps", "sha256"))
        data[name] = {**found, "rows": {**(before["rows"] if same else {}), **found["rows"]}}
    return {"data": data}


def measure_all(
    name: str, chosen: dict[str, Family], results: dict[str, Any], path: Path, *, seeds: int, steps: int
) -> None:
    """Train and measure families on one data set, and write the file after each."""
    dataset = Data(name).load()
    prepared = prepare(Data().preparation, dataset)
    per_epoch = training.steps_per_epoch(prepared.train.x, suited.batch_size(len(prepared.train)))
    epochs = max(2, -(-steps // per_epoch))
    key = {"seeds": seeds, "steps": epochs * per_epoch, "sha256": dataset.record()["sha256"]}
    found = results["data"].get(name, {})
    if {field: found.get(field) for field in key} != key:
        found = {**key, "rows": {}}
    results["data"][name] = found
    judge: Judge | None = None
    for title, family in chosen.items():
        if title in found["rows"]:
            continue
        if judge is None:
            judge = judge_of(prepared, per_epoch)
            made = provenance.provenance(dataset)
            found |= {
                "command": " ".join(["python", "experiments/families.py", *sys.argv[1:]]),
                "made": {"code": made["code"], "versions": made["versions"], **made["device"], **made["host"]},
            }
        run, clock = Run(Data(name), family.model, family.objective, epochs=epochs), Clock()
        with console.parts(f"{name}, {title}", of="steps") as show:
            on_steps = console.of_all_epochs(show)
            fitted = fitting.fit_seeds(run, range(seeds), dataset, on_epoch=clock, on_steps=on_steps)
        each = [measure(fitted, seed, dataset, prepared, judge) for seed in range(seeds)]
        found["rows"][title] = {
            "epoch_seconds": clock.per_epoch(),
            **{measured: [one[measured] for one in each] for measured in each[0]},
        }
        records.write_json(path, results)


def judge_of(prepared: Prepared, per_epoch: int) -> Judge:
    """Return three classifiers of the training data, and their features of test images."""
    with console.parts("classifiers", of="steps") as on_part:
        ensemble = judges.ensemble(
            prepared,
            range(100, 103),
            steps=max(600, per_epoch),
            note=console.note,
            begin=terminal.begin,
            on_part=on_part,
        )
    return Judge(ensemble, ensemble.features(prepared.test.x[: 2 * SAMPLES]))


def measure(fitted: Any, seed: int, dataset: Dataset, prepared: Prepared, judge: Judge) -> dict[str, float | None]:
    """Return every measure of one seed; `None` for what a family or a data set has not.

    Args:
      fitted: several seeds.
      seed: which of them.
      dataset: with its factors, where these are known.
      prepared: the same as the model sees it.
      judge: of the pictures.
    """
    model, params = fitted.model, loops.unstack(fitted.params)[seed]
    figures, root = fitted.results["test"][seed], keys.root(seed)
    x, key = prepared.test.x[:CODES], keys.stream(root, keys.Stream.SAMPLE)
    codes = metrics.per_example(_means, model, params, x, root)["code"].reshape(len(x), -1)
    train = metrics.per_example(_means, model, params, prepared.rows("train", root)[:CODES], root)["code"]
    own = judged(model, params, key, judge)
    return {
        "mse": figures["mse_at_mean"],
        "nats": figures.get("negative_elbo"),
        "distance": own.samples - own.floor,
        "with mixture": with_mixture(model, params, train, key, judge),
        "active units": float(statistics.active_units(codes).sum()),
        "mig": None if dataset.test.factors is None else _mig(model, params, x, dataset.test.factors[:CODES], root),
    }


def judged(model: Any, params: Any, key: Any, judge: Judge) -> Any:
    """Return the distances of decoded random codes."""
    images = np.asarray(generation.sample(model, params, key, SAMPLES).mean()).clip(0, 1)
    return image_quality.frechet_distances(judge.held_out, judge.classifiers.features(images))


def with_mixture(model: Any, params: Any, codes: np.ndarray, key: Any, judge: Judge) -> float | None:
    """Return the distance of codes drawn from a mixture that is fitted; `None` where a model takes none."""
    try:
        found = judged(*priors.fit_mixture(model, params, codes, COMPONENTS), key, judge)
    except InputError:
        return None
    return float(found.samples - found.floor)


def _mig(model: Any, params: Any, x: Any, factors: np.ndarray, root: Any) -> float:
    return float(disentanglement.of_model(model, params, x, factors, root)["mig"].value)


def _means(model: Any, params: Any, x: Any, key: Any) -> dict[str, Any]:
    """Return a metric: the mean of the code of each example."""
    return {"code": model.encode(params, x).mean()}


# ------------------------------------------------------------------------------------------------------------ showing

MEASURES = {
    "mse": ("MSE", "{:.4f}"),
    "nats": ("negative ELBO, nats", "{:.2f}"),
    "distance": ("distance, prior", "{:.2f}"),
    "with mixture": ("distance, mixture", "{:.2f}"),
    "active units": ("active units", "{:.1f}"),
    "mig": ("MIG", "{:.3f}"),
}


def interval(values: list[Any]) -> tuple[float, float] | None:
    """Return the mean of seeds and the half width of its 95 % interval, of Student's t; `None` of what was not seen."""
    from scipy import stats

    if any(value is None for value in values):
        return None
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1) * error)


def table(name: str, found: dict[str, Any]) -> str:
    """Return the rows of a data set as Markdown."""
    rows = found["rows"]
    shown = [measure for measure in MEASURES if any(interval(row[measure]) for row in rows.values())]
    lines = []
    for title, row in rows.items():
        cells = []
        for measure in shown:
            value, spelled = interval(row[measure]), MEASURES[measure][1]
            cells.append("none" if value is None else f"{spelled.format(value[0])} ± {spelled.format(value[1])}")
        slower = f"{row['epoch_seconds'] / rows[PLAIN]['epoch_seconds']:.2f}" if PLAIN in rows else ""
        lines.append([title, *cells, slower])
    head = ["family", *(MEASURES[measure][0] for measure in shown), "time"]
    return f"{markdown(head, lines)}\n{name}, {found['steps']:,} steps, {found['seeds']} seeds.\n\n"


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(compare, sys.argv[1:], prog="families.py")()
