"""What should a VAE be made of when nothing is said? Likelihoods, priors, weights of the rate and sizes, side by side.

Command:   python experiments/defaults.py --data digits           (some four minutes on two CPU cores)
           python experiments/defaults.py                         (about an hour, half of it for DiscretizedLogistic)
Writes:    runs/defaults.json, or --record FILE: rows that are there already, of the same protocol, are kept
Expected:  a prior that is learned makes better pictures of random codes than any weight of the rate under N(0, I).

Protocol: every candidate differs from the first, which was the default of version 0.1, in what its name says. All have
the network, optimizer and batches that `aevae train` has when nothing is said, and as many steps; the parameters of the
best validation bound count. Everything is measured on validation data, of which the choice is made; test data are not
looked at. 2,000 random codes are decoded, and their means compared with as many validation images by Frechet distances
in the features of three classifiers of the training data, above the distance of other validation images in their place.
The code lengths are bounds, in bits per element; only those of one likelihood and data set can be compared, since a
density of grey levels, a probability of levels and one of bits are three different things. Time is that of the
processors in an epoch with its validation, after the first one, which compiles, relative to the first candidate.

Rule: of the candidates that leave the latent size and the objective as they are, and that take at most `SLOWER` times
as long as the first, the one with the least distance is the default, by the geometric mean over the data sets of the
distance relative to the first candidate's: of grey images and of colour images each. The others are there to see what
else would help.

`photographs` are a folder of pictures as anyone has them: patches of scikit-learn's two, by left, middle and right part
of the photograph for training, validation and test.
"""

from __future__ import annotations

import math
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from written import markdown

from aevae_jax import durable
from aevae_jax.cli import console, terminal
from aevae_jax.data import Data, DynamicBinarization, prepare
from aevae_jax.lazy import modules, np
from aevae_jax.models import VAE, Model, TwoLevelVAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Likelihood,
    NormalSharedScale,
)
from aevae_jax.models.priors import GaussianMixture, Prior, StandardNormal, VampPrior
from aevae_jax.objectives.losses import ELBO, LinearWarmup
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax import keys, training
    from aevae_jax.data import Dataset, Prepared, suited
    from aevae_jax.evaluation import classifiers, image_quality, latents, metrics, statistics
    from aevae_jax.models import generation
    from aevae_jax.runs import fitting, judges, provenance, records
    from aevae_jax.training import loops
else:
    keys, training = modules("aevae_jax", "keys", "training")
    classifiers, image_quality, latents, metrics, statistics = modules(
        "aevae_jax.evaluation", "classifiers", "image_quality", "latents", "metrics", "statistics"
    )
    generation = modules("aevae_jax.models", "generation")
    suited = modules("aevae_jax.data", "suited")
    fitting, judges, provenance, records = modules("aevae_jax.runs", "fitting", "judges", "provenance", "records")
    loops = modules("aevae_jax.training", "loops")

KINDS = {"grey": ("digits", "sprites", "fashion_mnist"), "colour": ("photographs",)}
"""The data sets that decide for each kind of images."""

SETS = tuple(name for names in KINDS.values() for name in names)

SAMPLES = 2_000
"""Random codes per model and seed."""

CODES = 1_000
"""Validation images whose codes are compared with the prior, at most."""

SLOWER = 2.0
"""How many times the training time of the first candidate a default may take."""

NEAREST = 0.1
"""Relative distances below this count as this: what is left of them is noise of few images."""

SIDE = 24
"""Height and width of a patch of a photograph."""


class Candidate(NamedTuple):
    """What is trained: a model, the weight of its rate, and whether it sees bits in place of levels."""

    model: Model
    objective: ELBO = ELBO()
    bits: bool = False
    eligible: bool = True
    """Whether it differs from the first in likelihood and prior alone."""


def candidates(levels: int, steps: int) -> dict[str, Candidate]:
    """Return what is compared, by name, on data with so many levels in so many steps of training."""
    normal, logistic, flat = NormalSharedScale(), DiscretizedLogistic(levels), StandardNormal()

    def vae(latent: int = 16, likelihood: Likelihood = normal, prior: Prior = flat) -> VAE:
        return VAE(latent, MLP(), likelihood, prior)

    first = vae()
    hundred = VampPrior(100)
    return {
        "Normal, N(0, I)": Candidate(first),
        "bits, Bernoulli": Candidate(vae(likelihood=Bernoulli()), bits=True),
        "DiscretizedLogistic": Candidate(vae(likelihood=logistic)),
        "ContinuousBernoulli": Candidate(vae(likelihood=ContinuousBernoulli())),
        "beta = 2": Candidate(first, ELBO(2.0), eligible=False),
        "beta = 4": Candidate(first, ELBO(4.0), eligible=False),
        "KL warm-up over half": Candidate(first, ELBO(LinearWarmup(max(1, steps // 2))), eligible=False),
        "8 latents": Candidate(vae(8), eligible=False),
        "32 latents": Candidate(vae(32), eligible=False),
        "GaussianMixture(100)": Candidate(vae(prior=GaussianMixture(100))),
        "VampPrior(50)": Candidate(vae(prior=VampPrior(50))),
        "VampPrior(100)": Candidate(vae(prior=hundred)),
        "VampPrior(500)": Candidate(vae(prior=VampPrior(500))),
        "VampPrior(100), 32 latents": Candidate(vae(32, prior=hundred), eligible=False),
        "VampPrior(100), beta = 2": Candidate(vae(prior=hundred), ELBO(2.0), eligible=False),
        "VampPrior(100), DiscretizedLogistic": Candidate(vae(likelihood=logistic, prior=hundred)),
        "two levels": Candidate(TwoLevelVAE(16, MLP(), normal, flat), eligible=False),
        "two levels, VampPrior(100)": Candidate(TwoLevelVAE(16, MLP(), normal, hundred), eligible=False),
    }


def defaults(
    *, data: tuple[str, ...] = SETS, seeds: int = 2, steps: int = 1_000, record: str = "runs/defaults.json"
) -> None:
    """Train every candidate on each data set and measure it on validation data. Goes on where it was stopped.

    Args:
      data: which: digits sprites photographs fashion_mnist.
      seeds: how many of each to train, all at once.
      steps: of each training, rounded up to whole epochs.
      record: the JSON file that rows are added to.
    """
    if unknown := [name for name in data if name not in SETS]:
        raise InputError("--data", got=unknown[0], expected=" ".join(SETS))
    for option, value in (("--seeds", seeds), ("--steps", steps)):
        if value < 1:
            raise InputError(option, got=value, expected="at least 1")
    path = Path(record)
    durable.make_room(path)
    results = records.read_json(path) if path.exists() else {"data": {}}
    for name in data:
        terminal.begin(f"reading {name}, to train what is not in {record} of {len(candidates(256, 1))} candidates")
        with tempfile.TemporaryDirectory() as folder:
            source = photographs(Path(folder)) if name == "photographs" else name
            measure_all(name, source, results, path, seeds=seeds, steps=steps)
        print(table(name, results["data"][name]), flush=True)
    for kind, own in by_kind(results["data"]).items():
        print(f"chosen for {kind} images, by {', '.join(own)}: {chosen(relative(own))}")


def measure_all(name: str, source: str, results: dict[str, Any], path: Path, *, seeds: int, steps: int) -> None:
    """Train and measure the candidates on one data set, and write the file after each."""
    dataset = without_test(Data(source).load())
    prepared = prepare(Data().preparation, dataset)
    per_epoch = training.steps_per_epoch(prepared.train.x, suited.batch_size(len(prepared.train)))
    epochs = max(2, -(-steps // per_epoch))
    key = {"seeds": seeds, "steps": epochs * per_epoch, "sha256": dataset.record()["sha256"]}
    found = results["data"].get(name, {})
    if {field: found.get(field) for field in key} != key:
        found = {**key, "epochs": epochs, "elements": math.prod(dataset.event_shape), "rows": {}}
    results["data"][name] = found
    judge: Judge | None = None
    for title, candidate in candidates(dataset.levels, key["steps"]).items():
        if title in found["rows"]:
            continue
        if judge is None:
            with console.parts("classifiers", of="steps") as on_part:
                ensemble = judges.ensemble(
                    prepared,
                    range(100, 103),
                    steps=max(600, per_epoch),
                    note=console.note,
                    begin=terminal.begin,
                    on_part=on_part,
                )
            judge = Judge(ensemble, image_quality.Halves(ensemble.features(prepared.validation.x[:])))
            made = provenance.provenance(dataset)
            found |= {
                "command": shlex.join(["python", "experiments/defaults.py", *sys.argv[1:]]),
                "made": {"code": made["code"], "versions": made["versions"], **made["device"], **made["host"]},
                "confident data": ensemble.confident(prepared.validation.x[:]),
            }
        bits = DynamicBinarization()
        run = Run(Data(source, bits if candidate.bits else Data().preparation), candidate.model, candidate.objective)
        seen = prepare(run.data.preparation, dataset) if candidate.bits else prepared
        clock, run = Clock(), replace(run, epochs=epochs)
        with console.parts(f"{name}, {title}", of="steps") as show:
            on_steps = console.of_all_epochs(show)
            fitted = fitting.fit_seeds(run, range(seeds), dataset, on_epoch=clock, on_steps=on_steps)
        each = [measure(fitted, seed, seen, judge) for seed in range(seeds)]
        found["rows"][title] = {
            "epoch_seconds": clock.per_epoch(),
            **{measured: [float(one[measured]) for one in each] for measured in each[0]},
        }
        records.write_json(path, results)
        console.note(f"{name}, {title}: {' '.join(cells(found, title))}")


def without_test(dataset: Dataset) -> Dataset:
    """Return the data with as many validation images as are looked at, the last ones, and a few of them for test."""
    few = dataset.validation[-2 * SAMPLES :]
    return replace(dataset, validation=few, test=few[:100])


class Clock:
    """The processor time of epochs, without the first, which compiles."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def __call__(self, epoch: Any) -> None:
        """Take the time at which an epoch ends."""
        self._ends.append(time.process_time())

    def per_epoch(self) -> float:
        """Return the seconds of an epoch, with its validation."""
        return (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)


class Judge(NamedTuple):
    """What pictures are measured by: classifiers, and their features of held-out images."""

    classifiers: Any
    held_out: image_quality.Halves


def measure(fitted: Any, seed: int, seen: Prepared, judge: Judge) -> dict[str, float]:
    """Return every measure of one seed.

    Args:
      fitted: several seeds.
      seed: which of them.
      seen: the data as the model sees it.
      judge: of the pictures.
    """
    model, params = fitted.model, loops.unstack(fitted.params)[seed]
    figures, key = fitted.results["validation"][seed], keys.stream(keys.root(seed), keys.Stream.SAMPLE)
    images = np.asarray(generation.sample(model, params, key, SAMPLES).mean()).clip(0, 1)
    distance = judge.held_out.distances(judge.classifiers.features(images))
    x = seen.validation.x[:CODES]
    codes = metrics.per_example(_means, model, params, x, keys.root(seed))["code"]
    return {
        "nats": figures["negative_elbo"],
        "rate": figures["rate"],
        "mse": figures["mse_at_mean"],
        "distance": distance.samples - distance.floor,
        "floor": distance.floor,
        "confident": judge.classifiers.confident(images),
        "active units": statistics.active_units(codes).sum(),
        "gap": latents.prior_gap(model, params, x, keys.root(1_000 + seed)),
    }


def _means(model: Any, params: Any, x: Any, key: Any) -> dict[str, Any]:
    """Return a metric: the mean of the code of each example."""
    return {"code": model.encode(params, x).mean()}


def photographs(folder: Path) -> str:
    """Write patches of scikit-learn's two photographs as PNG files into `folder`, a folder for each; return its name.

    The left three fifths of each are for training, the next fifth for validation and the last for test; patches of
    different parts share no pixel.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    bunch = load_sample_images()
    for name, photograph in zip(bunch.filenames, bunch.images, strict=True):
        height, width = photograph.shape[:2]
        ends = (0, width * 3 // 5, width * 4 // 5, width)
        for part, left, right in zip(("train", "validation", "test"), ends[:-1], ends[1:], strict=True):
            place = folder / part / Path(name).stem
            place.mkdir(parents=True)
            for top in range(0, height - SIDE + 1, SIDE // 3):
                for start in range(left, right - SIDE + 1, SIDE // 3):
                    patch = photograph[top : top + SIDE, start : start + SIDE]
                    Image.fromarray(patch).save(place / f"{top:03}-{start:03}.png")
    return str(folder)


# ------------------------------------------------------------------------------------------------------------ showing

HEADINGS = ("candidate", "bits / element", "MSE", "distance", "confident", "active", "gap", "time")


def table(name: str, found: dict[str, Any]) -> str:
    """Return the rows of a data set as Markdown."""
    text = markdown(HEADINGS, [[title, *cells(found, title)] for title in found["rows"]])
    floor = np.mean([row["floor"] for row in found["rows"].values()])
    return f"{text}\n{name}, {found['steps']:,} steps, {found['seeds']} seeds; floor of the distance {floor:.2f}.\n"


def cells(found: dict[str, Any], title: str) -> list[str]:
    """Return the cells of a row: means over its seeds."""
    row = found["rows"][title]
    mean = {name: float(np.mean(value)) for name, value in row.items()}
    return [
        f"{mean['nats'] / found['elements'] / math.log(2):.3f}",
        f"{mean['mse']:.4f}",
        f"{mean['distance']:.2f}",
        f"{mean['confident']:.2f}",
        f"{mean['active units']:.3g}",
        f"{mean['gap']:.1f}",
        f"{slower(found, title):.2f}",
    ]


def slower(found: dict[str, Any], title: str) -> float:
    """Return how many times as long a candidate takes as the first."""
    rows = found["rows"]
    return float(rows[title]["epoch_seconds"] / next(iter(rows.values()))["epoch_seconds"])


def by_kind(sets: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the data sets of each kind of images, of which there are any."""
    each = {kind: {name: sets[name] for name in names if name in sets} for kind, names in KINDS.items()}
    return {kind: own for kind, own in each.items() if own}


def relative(sets: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return distance and time of each candidate that all data sets have, relative to the first: geometric means."""
    found: dict[str, tuple[float, float]] = {}
    for title in candidates(256, 1):
        if not all(title in own["rows"] for own in sets.values()):
            continue
        distances, times = [], []
        for own in sets.values():
            first = next(iter(own["rows"].values()))
            distances.append(np.mean(own["rows"][title]["distance"]) / np.mean(first["distance"]))
            times.append(slower(own, title))
        found[title] = geometric(np.maximum(distances, NEAREST)), geometric(times)
    return found


def geometric(x: Any) -> float:
    """Return the geometric mean of positive numbers."""
    return float(np.exp(np.mean(np.log(x))))


def chosen(found: dict[str, tuple[float, float]]) -> str:
    """Return what the rule chooses of the candidates with this relative distance and time."""
    known = candidates(256, 1)
    allowed = [title for title, (_, time) in found.items() if known[title].eligible and time <= SLOWER]
    return min(allowed, key=lambda title: found[title][0])


def of_readme(results: dict[str, Any], path: str) -> str:
    """Return the section of the README: the distances on every data set, and what the rule chooses."""
    sets = results["data"]
    kinds = {kind: relative(own) for kind, own in by_kind(sets).items()}
    best = {kind: chosen(found) for kind, found in kinds.items()}
    rows = []
    for title in candidates(256, 1):
        own = [each["rows"].get(title) for each in sets.values()]
        cells = [
            f"{np.mean(row['distance']):.2f} ({100 * np.mean(row['confident']):.0f} %)" if row else "" for row in own
        ]
        taken = " and ".join(kind for kind in kinds if best[kind] == title)
        if any(own):
            compared = [f"{number:.2f}" for found in kinds.values() for number in found.get(title, ())]
            compared += [""] * (2 * len(kinds) - len(compared))
            rows.append([f"**{title}**, {taken}" if taken else title, *cells, *compared])
    named = [name.replace("_", "-") for name in sets]
    head = ["VAE", *named, *(f"relative {what}, {kind}" for kind in kinds for what in ("distance", "time"))]
    floors = ", ".join(
        f"{name} {np.mean([row['floor'] for row in own['rows'].values()]):.2f} ({100 * own['confident data']:.0f} %)"
        for name, own in zip(named, sets.values(), strict=True)
    )
    return (
        "**What a VAE is made of when nothing is said**: Frechet distance of random codes, decoded, above that of "
        "validation data to validation data, and the share of which classifiers are confident; "
        f"{min(own['seeds'] for own in sets.values())} seeds, {min(own['steps'] for own in sets.values()):,} steps or "
        f"more. `python experiments/defaults.py` ([protocol and rule](experiments/defaults.py), [figures]({path})). "
        f"Real data: {floors}.\n\n{markdown(head, rows)}"
    )


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(defaults, sys.argv[1:], prog="defaults.py")()
