"""How likely does a model find images it has not seen? Published test likelihoods, in exactly their protocol.

Command:   python experiments/density.py --rows vae --seeds 3       (Fashion-MNIST; it says first how long it takes)
           python experiments/density.py --rows all --data digits   (small data, no download)
           with --record FILE the rows are added to those that the file has already, from other days or machines
Writes:    runs/density_DATA/results.json and table.md; each run in a directory of its own, resumable at any step
Expected:  on Fashion-MNIST at most 228.70 nats for `vae`, 227.35 for `vampprior`, 227.37 and 226.72 for the two-level
           rows, and never less than the floor, the entropy of the pixels: no model can know which bits will be drawn.

Protocol (Exemplar VAE; Tomczak & Welling 2018): first 50,000 images for training, last 10,000 of these files for
validation, 10,000 for test. Training bits are redrawn at every step, those of validation and test once, with seed 777.
Gated dense layers 300-300 both ways, 40 latent dimensions (a level), log variances within [-6, 2], batches of 100, KL
warm-up over 100 epochs, the best validation bound, at most 50 epochs without a better one. The test likelihood is
importance-weighted with 5,000 samples per image. What training adds to theirs, and no network does: a larger learning
rate that falls along a cosine, weight decay, a moving average of the parameters, and gradients without the score of q
("sticking the landing"). At the larger rate weak latent units die while the KL has its whole weight, and stay dead, so
under N(0, I) the warm-up takes half of the training. With a VampPrior batches are of 200: each step encodes all of its
inputs. The rows of importance-weighted objectives are there to be compared with each other: 40 epochs, as K = 50 costs
25 times as much, and doubly reparameterised gradients.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from density_table import FASHION, ROWS, entries, summary, table

from aevae_jax import durable, evaluation
from aevae_jax.cli import console, terminal
from aevae_jax.data import Data, DynamicBinarization, prepare
from aevae_jax.lazy import jax, jnp, modules, np
from aevae_jax.models import VAE, TwoLevelVAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Bernoulli
from aevae_jax.models.priors import StandardNormal, VampPrior
from aevae_jax.objectives.families import Loss
from aevae_jax.objectives.losses import ELBO, IWAE, LinearWarmup
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax import keys
    from aevae_jax.data import Dataset, Prepared
    from aevae_jax.evaluation import ais, importance, statistics
    from aevae_jax.runs import fitting, provenance, records, weights
    from aevae_jax.runs.fitting import Fitted
else:
    keys = modules("aevae_jax", "keys")
    ais, importance, statistics = modules("aevae_jax.evaluation", "ais", "importance", "statistics")
    fitting, provenance, records, weights = modules("aevae_jax.runs", "fitting", "provenance", "records", "weights")


EVALUATION_SEED = 0
BOUNDS = (1, 5, 50, 500)
"""Numbers of samples at which the importance-weighted bound is shown to rise."""

TEMPERATURES = 500
"""Temperatures of annealed importance sampling."""

STEPS = 6_000
"""Training steps on other data than Fashion-MNIST, where the number of epochs is not given."""


def density(
    *,
    rows: tuple[str, ...] = ("vae",),
    seeds: int = 1,
    data: str = FASHION,
    epochs: int = 0,
    samples: int = 5_000,
    annealed: int = 0,
    out: str = "",
    record: str = "",
) -> None:
    """Train density models by the published protocol and measure their test likelihood. Goes on where it was stopped.

    Args:
      rows: which: vae vampprior two_level two_level_vampprior iwae_1 iwae_5 iwae_50, or all.
      seeds: how many of each, counted from 0.
      data: fashion_mnist, or any images with integer levels: digits is small and bundled.
      epochs: passes over the training data; 0 means 40 to 600 for Fashion-MNIST, else enough for 6,000 steps.
      samples: importance samples per image.
      annealed: also bound the likelihood of so many test images by annealed importance sampling, and bracket that of
        as many images drawn from the model. With 100 it takes minutes on two CPU cores.
      out: directory for the runs and the table; where none is named, runs/density_DATA.
      record: also write the table to this JSON file, with the rows that it holds already.
    """
    names = tuple(ROWS) if rows == ("all",) else rows
    if unknown := [name for name in names if name not in ROWS]:
        raise InputError("--rows", got=unknown[0], expected=", ".join([*ROWS, "all"]))
    for option, value, least in (("--seeds", seeds, 1), ("--samples", samples, 1), ("--annealed", annealed, 0)):
        if value < least:
            raise InputError(option, got=value, expected=f"at least {least}")
    if record:
        durable.make_room(Path(record))
    place = Path(out or f"runs/density_{data}")
    source = Data(data, DynamicBinarization())
    terminal.begin(f"reading {data}, to train {' '.join(names)}, {seeds} of each, and estimate their likelihoods")
    dataset = source.load()
    prepared = prepare(source.preparation, dataset)
    plan = {
        (name, seed): run_of(name, seed, data, examples=len(dataset.train), epochs=epochs)
        for seed in range(seeds)
        for name in names
    }
    todo = [key for key in plan if not (place / f"{key[0]}-{key[1]}.json").exists()]
    if todo:
        print(expected_time([(plan[key], key[0]) for key in todo], prepared, samples), flush=True)
    for (name, seed), run in plan.items():
        fitted = measure(run, dataset, prepared, place=place / f"{name}-{seed}", samples=samples)
        if annealed:
            anneal(fitted, prepared, place / f"{name}-{seed}.json", annealed)
    key = {"data": data, "data_sha256": dataset.record()["sha256"], "num_samples": samples}
    results = {**key, "floor": floor(dataset, prepared), "rows": summary(entries(place, record, key))}
    records.write_json(place / "results.json", results)
    (place / "table.md").write_text(table(results))
    if record:
        records.write_json(Path(record), results)
    print(table(results))


# ----------------------------------------------------------------------------------------------------------- measuring


def measure(run: Run, dataset: Dataset, prepared: Prepared, *, place: Path, samples: int) -> Fitted:
    """Train a run, or go on with it, and leave its figures in `<place>.json` and the likelihoods of all images beside.

    Raises:
      InputError: the figures there are of another run or protocol.
    """
    with console.progress(place.name) as shown:
        fitted = fitting.fit(run, dataset, directory=place, on_epoch=shown, on_note=console.note, on_steps=shown)
    digest, path = weights.params_digest(fitted.params), place.with_suffix(".json")
    if path.exists():
        found = records.read_json(path)
        if (found["weights_sha256"], found["num_samples"]) != (digest, samples):
            raise InputError(
                str(path),
                got=f"figures of other weights or {found['num_samples']} samples",
                expected=f"those of {place}, {samples} samples",
                hint="remove it",
            )
        return fitted
    key, began = keys.stream(keys.root(EVALUATION_SEED), keys.Stream.EVALUATE), time.monotonic()
    with console.parts(f"{place.name}, likelihood") as on_part:
        result, found = importance.result(
            fitted.model,
            fitted.params,
            prepared,
            key,
            name=place.name,
            split="test",
            num_samples=samples,
            on_part=on_part,
        )
    seconds = time.monotonic() - began
    codes = evaluation.per_example(_posterior_means, fitted.model, fitted.params, prepared.test.x, key)["code"]
    bound = evaluation.evaluate(fitted.model, fitted.params, prepared.test.x, key)
    few = [
        importance.estimate(fitted.model, fitted.params, prepared.test.x[:1_000], key, num_samples=k).nll.mean()
        for k in BOUNDS
    ]
    np.save(place.with_suffix(".npy"), result.values, allow_pickle=False)
    made = provenance.provenance(dataset)
    records.write_json(
        path,
        {
            "seed": run.seed,
            "command": shlex.join(["python", "experiments/density.py", *sys.argv[1:]]),
            "made": {"code": made["code"], "versions": made["versions"], **made["device"], **made["host"]},
            "nll": result.mean,
            "standard_error": result.standard_error,
            "sampling_error": float(np.sqrt((found.sampling_error**2).sum()) / len(found.nll)),
            "effective_samples": float(found.effective_samples.mean()),
            "untrusted": float(found.untrusted.mean()),
            "protocol": str(result.protocol),
            "num_samples": samples,
            "test": bound,
            "bound_with": {str(k): float(v) for k, v in zip(BOUNDS, few, strict=True)},
            "bound_images": min(1_000, len(result.values)),
            "active_units": int(statistics.active_units(codes).sum()),
            "best_epoch": fitted.results["best_epoch"],
            "epochs": len(fitted.history),
            "training_seconds": fitted.results["seconds"],
            "likelihood_seconds": round(seconds, 1),
            "weights_sha256": digest,
        },
    )
    return fitted


def anneal(fitted: Fitted, prepared: Prepared, path: Path, num: int) -> None:
    """Add to the figures of a run what annealing says of `num` test images, and how far off it is at most.

    How far: on images drawn from the model its two bounds enclose the truth.
    """
    entry = records.read_json(path)
    if entry.get("annealed", {}).get("images") == num:
        return
    model, params, x = fitted.model, fitted.params, jnp.asarray(prepared.test.x[:num])
    key, chains = keys.stream(keys.root(EVALUATION_SEED), keys.Stream.EVALUATE), 8
    key_pilot, key_chains, key_bracket = jax.random.split(key, 3)
    console.note(f"{path.stem}: annealing {num} test images, then {num} drawn from the model")
    schedule = ais.tune(model, params, x, key_pilot, num_temperatures=TEMPERATURES, leapfrogs=5)
    lower = ais.lower_bound(model, params, x, key_chains, schedule, num_chains=chains)
    weighted = importance.estimate(model, params, x, jax.random.clone(key), num_samples=entry["num_samples"])
    drawn = ais.bracket(
        model, params, key_bracket, num=num, num_temperatures=TEMPERATURES, leapfrogs=5, num_chains=chains
    )
    entry["annealed"] = {
        "images": num,
        "temperatures": TEMPERATURES,
        "nll": float(-lower.log_likelihood.mean()),
        "nll_by_importance_sampling": float(weighted.nll.mean()),
        "acceptance": lower.acceptance,
        "nll_of_drawn_images_at_least": float(-drawn.upper.log_likelihood.mean()),
        "nll_of_drawn_images_at_most": float(-drawn.lower.log_likelihood.mean()),
    }
    records.write_json(path, entry)


def floor(dataset: Dataset, prepared: Prepared) -> dict[str, float]:
    """Return nats per test image that no model can save: the pixels' entropy, and what the drawn bits cost under
    them.
    """
    from scipy.special import xlog1py, xlogy

    pixels = dataset.test.x[:].ravel()
    p = np.arange(dataset.levels) / (dataset.levels - 1)
    counts = np.bincount(pixels, minlength=len(p))  # of each level: pixels that are equal cost the same

    def cost(ones: np.ndarray) -> float:
        return float(-(xlogy(ones, p) + xlog1py(counts - ones, -p)).sum() / len(dataset.test))

    bits = np.asarray(prepared.test.x[:], np.float64)
    return {"entropy": cost(counts * p), "drawn_bits": cost(np.bincount(pixels, bits.ravel(), len(p)))}


def expected_time(runs: list[tuple[Run, str]], prepared: Prepared, samples: int) -> str:
    """Return how long it will take at most, from the products in a step and the speed of this machine: within a factor
    of two.

    Training may stop early, and what was trained before counts as if it were not.
    """
    a = jnp.ones((1000, 1000))
    product = jax.jit(lambda a: jax.lax.fori_loop(0, 20, lambda _, b: a @ b * 1e-3, a))
    jax.block_until_ready(product(a))
    began = time.monotonic()
    jax.block_until_ready(product(a))
    speed = 20 * 2e9 / (time.monotonic() - began)  # operations per second
    total, parts = 0.0, []
    for run, name in runs:
        params = jax.eval_shape(replace(run.model, event_shape=prepared.event_shape).init, jax.random.key(0))
        encode, decode = (
            2 * sum(leaf.size for leaf in jax.tree.leaves(params[part])) for part in ("encoder", "decoder")
        )
        draws = run.objective.num_samples if isinstance(run.objective, IWAE) else 1
        prior = run.model.latent_prior if isinstance(run.model, VAE | TwoLevelVAE) else None
        rows = run.batch_size + (prior.components if isinstance(prior, VampPrior) else 0)
        training = (
            3 * run.epochs * (len(prepared.train) // run.batch_size) * (rows * encode + run.batch_size * draws * decode)
        )
        seconds = 1.4 * (training + len(prepared.test) * samples * decode) / speed
        parts.append(f"{name} {console.duration(seconds)}")
        total += seconds
    return f"expected: about {console.duration(total)} on this machine ({', '.join(parts)}); stop and go on at any time"


def _posterior_means(model: Any, params: Any, x: Any, key: Any) -> dict[str, Any]:
    """Return a metric: the code of each example."""
    return {"code": model.encode(params, x).mean()}


def run_of(row: str, seed: int, data: str, *, examples: int, epochs: int = 0) -> Run:
    """Return the run of a row on so many training examples: a value, whose digest is what was trained."""
    recipe = ROWS[row]
    per_epoch = examples // recipe.batch
    epochs = epochs or (recipe.epochs if data == FASHION else -(-STEPS // per_epoch))
    # the same share of a shorter training
    rising = LinearWarmup(max(1, per_epoch * recipe.warmup * epochs // recipe.epochs))
    objective: Loss = ELBO(rising, sticking_the_landing=True)
    network, limits = MLP((300, 300), gated=True), (-3.0, 1.0)
    model: VAE | TwoLevelVAE = VAE(40, network, Bernoulli(), StandardNormal(), limits)
    if row.startswith("two_level"):  # 40 dimensions each
        model = TwoLevelVAE(80, network, Bernoulli(), StandardNormal(), limits)
    if row.endswith("vampprior"):
        model = replace(model, latent_prior=VampPrior(500))
    if row.startswith("iwae"):
        objective = IWAE(int(row.removeprefix("iwae_")), doubly_reparameterised=True)
    return Run(
        Data(data, DynamicBinarization()),
        model,
        objective,
        AdamW(2e-3, warmup=500, weight_decay=recipe.weight_decay, cosine=True),
        batch_size=recipe.batch,
        epochs=epochs,
        seed=seed,
        ema=0.9995,
        patience=50,
    )


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(density, sys.argv[1:], prog="density.py")()
