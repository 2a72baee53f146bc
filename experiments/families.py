"""What does each family of models buy, and what does it cost? One table over the same data, networks and steps.

Command:   python experiments/families.py                     (digits; a quarter of an hour on two CPU cores)
           python experiments/families.py --data sprites fashion_mnist --steps 900    (hours)
           with --record FILE the rows are added to those that the file has already
Writes:    runs/families/results.json and table.md
Expected:  a regularised code costs reconstruction and makes random codes decode to data; a prior fitted to the codes
           makes a generator of every family, and lowers the bound of those that have one; penalties of the total
           correlation raise the mutual information gap on sprites.

Protocol: each family (families_rows.py) has the dense networks, the optimizer and the batches that `aevae train` has
when nothing is said, or convolutions where its codes are maps; 16 latent numbers or as many indices where it does not
ask for others, the Gaussian likelihood with one learned scale, and as many steps as all others; a prior that is fitted
after training has as many again, all else held. Parameters are those of the best epoch by the metric that the objective
names, of validation data. All figures are of test data, which choose nothing, and are means over seeds with the half
width of their 95 % interval. MSE is that at the mean of q(z|x). The bound is the negative ELBO in nats per image, a
density: reconstruction + KL, or - log p(indices) where codes are discrete; of a model that is told the class it is
that given the class. A family whose codes are points has none: the density of a point is no probability. Distances are
Frechet distances of 2,000 decoded random codes from test images, in the features of three classifiers, above that of
validation images: of codes from the prior, the fitted one where one is fitted, and from a mixture of 10 Gaussians that
was fitted to the codes of training data, of continuous codes. Active units are dimensions whose mean reacts to the
data; of discrete codes it is the perplexity of the indices, of so many. Scores of disentanglement are those of sprites,
whose factors are known. Time is that of the processors in an epoch with its validation, after the first one, which
compiles, relative to the plain VAE; that of fitting a prior is added. It is
the clock of this process, which others at work on the machine still slow down, up to three times: the README leaves
it out.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from defaults import Clock, Judge
from families_rows import families
from families_table import table

from aevae_jax import durable
from aevae_jax.cli import console, terminal
from aevae_jax.data import Data, prepare
from aevae_jax.lazy import jax, modules, np
from aevae_jax.objectives.fitted_priors import PriorLikelihood
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax import conditions, keys, training
    from aevae_jax.data import Dataset, Prepared, suited
    from aevae_jax.evaluation import code_usage, disentanglement, image_quality, metrics, statistics
    from aevae_jax.models import generation, priors
    from aevae_jax.objectives import quantization
    from aevae_jax.runs import fitting, judges, provenance, records
    from aevae_jax.training import loops
else:
    conditions, keys, training = modules("aevae_jax", "conditions", "keys", "training")
    code_usage, disentanglement, image_quality, metrics, statistics = modules(
        "aevae_jax.evaluation", "code_usage", "disentanglement", "image_quality", "metrics", "statistics"
    )
    generation, priors = modules("aevae_jax.models", "generation", "priors")
    quantization = modules("aevae_jax.objectives", "quantization")
    suited = modules("aevae_jax.data", "suited")
    fitting, judges, provenance, records = modules("aevae_jax.runs", "fitting", "judges", "provenance", "records")
    loops = modules("aevae_jax.training", "loops")

SAMPLES = 2_000
"""Random codes per model and seed, and test images they are compared with, at most."""

CODES = 2_000
"""Images whose codes are looked at, at most."""

COMPONENTS = 10
"""Gaussians of the mixture that is fitted to codes."""


class Trained(NamedTuple):
    """A model, and what each of its seeds has become."""

    model: Any
    params: list[Any]
    figures: list[dict[str, float]]
    """Test metrics of each."""
    epoch_seconds: float
    """Processor time of an epoch of all seeds, with its validation."""


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
    names = list(families((8, 8, 1)))
    if unknown := [name for name in rows if name not in names]:
        raise InputError("--rows", got=repr(unknown[0]), expected=", ".join(map(repr, names)))
    for option, value, least in (("--seeds", seeds, 2), ("--steps", steps, 1)):
        if value < least:
            raise InputError(option, got=value, expected=f"at least {least}")
    path = out / "results.json"
    for each in (path, *([Path(record)] if record else [])):
        durable.make_room(each)
    results = records.read_json(path) if path.exists() else {"data": {}}
    for name in data:
        terminal.begin(f"reading {name}, to train what is not in {path} of {len(rows or names)} families")
        measure_all(name, list(rows or names), results, path, seeds=seeds, steps=steps)
        (out / "table.md").write_text("".join(map(table, results["data"], results["data"].values())))
        print(table(name, results["data"][name]), flush=True)
        if record:
            old = records.read_json(Path(record)) if Path(record).exists() else {"data": {}}
            records.write_json(Path(record), merged(old, results))


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return results with the rows of both, as families are listed; of data that were measured in another way, the new
    ones alone.
    """
    data = dict(old["data"])
    for name, found in new["data"].items():
        before = data.get(name, {})
        same = all(before.get(field) == found[field] for field in ("seeds", "steps", "sha256"))
        rows = {**(before["rows"] if same else {}), **found["rows"]}
        data[name] = {**found, "rows": ordered(rows)}
    return {"data": data}


def ordered(rows: dict[str, Any]) -> dict[str, Any]:
    """Return rows as families are listed, and those of no family of today after them."""
    names = list(families((8, 8, 1)))
    return {name: rows[name] for name in [*names, *(row for row in rows if row not in names)] if name in rows}


def measure_all(name: str, chosen: list[str], results: dict[str, Any], path: Path, *, seeds: int, steps: int) -> None:
    """Train and measure families on one data set, and write the file after each."""
    plain = Data(name).load()
    prepared = prepare(Data().preparation, plain)
    per_epoch = training.steps_per_epoch(prepared.train.x, suited.batch_size(len(prepared.train)))
    epochs = max(2, -(-steps // per_epoch))
    key = {"seeds": seeds, "steps": epochs * per_epoch, "sha256": plain.record()["sha256"]}
    found = results["data"].get(name, {})
    if {field: found.get(field) for field in key} != key:
        found = {**key, "rows": {}}
    results["data"][name] = found
    judge: Judge | None = None
    known, before = families(prepared.event_shape), list[tuple[Run, Trained]]()
    for title in chosen:
        if title in found["rows"]:
            continue
        if judge is None:
            judge = judge_of(prepared, per_epoch)
            made = provenance.provenance(plain)
            found |= {
                "command": shlex.join(["python", "experiments/families.py", *sys.argv[1:]]),
                "made": {"code": made["code"], "versions": made["versions"], **made["device"], **made["host"]},
            }
        family = known[title]
        told = Data(name, condition=family.condition)
        run, dataset = Run(told, family.model, family.objective, epochs=epochs), told.load()
        with console.parts(f"{name}, {title}", of="steps") as show:
            on_steps = console.of_all_epochs(show)
            if not before or before[-1][0] != run:  # a prior that is fitted goes on from the row before it
                before = [(run, train(run, seeds, dataset, on_steps))]
            trained = before[-1][1]
            if family.then is not None:
                trained = with_prior(run, trained, family.then, dataset, on_steps)
        seen = prepared if dataset is plain else prepare(Data().preparation, dataset)
        each = [measure(trained, seed, dataset, seen, judge) for seed in range(seeds)]
        found["rows"][title] = {
            "epoch_seconds": trained.epoch_seconds,
            **{measured: [one[measured] for one in each] for measured in each[0]},
        }
        found["rows"] = ordered(found["rows"])
        records.write_json(path, results)


def train(run: Run, seeds: int, dataset: Dataset, on_steps: Callable[..., None]) -> Trained:
    """Train all seeds as one program."""
    clock = Clock()
    fitted = fitting.fit_seeds(run, range(seeds), dataset, on_epoch=clock, on_steps=on_steps)
    return Trained(fitted.model, loops.unstack(fitted.params), fitted.results["test"], clock.per_epoch())


def with_prior(run: Run, trained: Trained, prior: Any, dataset: Dataset, on_steps: Callable[..., None]) -> Trained:
    """Return the same with a prior that is fitted to the codes of each seed, all else held; figures are those with it.

    Args:
      run: that was trained.
      trained: what came of it.
      prior: to be fitted, in as many steps.
      dataset: what was trained on.
      on_steps: is told of the steps.
    """
    model: Any = run.model
    fit = replace(run, model=replace(model, latent_prior=prior), objective=PriorLikelihood())
    found, seconds = [], trained.epoch_seconds
    for seed, params in enumerate(trained.params):
        clock, held = Clock(), {name: own for name, own in params.items() if name != "prior"}
        own = replace(fit, seed=seed)
        found.append(fitting.fit(own, dataset, initial=held, on_epoch=clock, on_steps=on_steps))
        seconds += clock.per_epoch()
    figures = [{**old, **one.results["test"]} for old, one in zip(trained.figures, found, strict=True)]
    return Trained(found[0].model, [one.params for one in found], figures, seconds)


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
    return Judge(ensemble, image_quality.Halves(ensemble.features(prepared.test.x[: 2 * SAMPLES])))


def measure(trained: Trained, seed: int, dataset: Dataset, prepared: Prepared, judge: Judge) -> dict[str, float | None]:
    """Return every measure of one seed; `None` for what a family or a data set has not.

    Args:
      trained: several seeds.
      seed: which of them.
      dataset: with its factors, where these are known.
      prepared: the same as the model sees it.
      judge: of the pictures.
    """
    model, params, figures = trained.model, trained.params[seed], trained.figures[seed]
    root = keys.root(seed)
    rows, key, told = prepared.test.rows[:CODES], keys.stream(root, keys.Stream.SAMPLE), prepared.told(SAMPLES)
    choices = code_usage.choices_of(model, params, rows)

    def judged_at(model: Any, params: Any) -> Any:
        given = model if told is None else conditions.given(model, told)
        images = np.asarray(generation.sample(given, params, jax.random.clone(key), SAMPLES).mean()).clip(0, 1)
        return judge.held_out.distances(judge.classifiers.features(images))

    own = judged_at(model, params)
    found = {
        "mse": figures["mse_at_mean"],
        "nats": figures.get("negative_elbo"),
        "distance": own.samples - own.floor,
        **dict.fromkeys(("with mixture", "active units", "perplexity", "choices", *SCORES)),
    }
    if choices:
        index = metrics.per_example(_indices, model, params, rows, root)["indices"]
        found |= {"perplexity": quantization.usage(index)["perplexity"], "choices": float(choices)}
    else:
        codes = metrics.per_example(_means, model, params, rows, root)["code"].reshape(len(rows), -1)
        of_train = metrics.per_example(_means, model, params, prepared.rows("train", root)[:CODES], root)["code"]
        found["active units"] = float(statistics.active_units(codes).sum())
        found["with mixture"] = with_mixture(model, params, of_train, judged_at)
    if dataset.test.factors is not None:
        ordered = [factor.ordered for factor in dataset.factors]
        scores = disentanglement.of_model(model, params, rows, dataset.test.factors[:CODES], root, ordered=ordered)
        found |= {name: float(scores[name].value) for name in SCORES}
    return found


SCORES = ("mig", "dci_disentanglement", "sap")
"""The scores of disentanglement that are recorded."""


def with_mixture(model: Any, params: Any, codes: np.ndarray, judged_at: Callable[[Any, Any], Any]) -> float:
    """Return the distance of codes drawn from a mixture that is fitted; of two levels, to the upper one.

    Args:
      model, params: of which the prior is replaced.
      codes: of training data.
      judged_at: the distances of decoded random codes of a model and its parameters.
    """
    other = replace(model, latent_prior=priors.FullGaussianMixture(COMPONENTS))
    size = jax.eval_shape(other.init, keys.root(0))["prior"]["loc"].shape[1]
    found = judged_at(*priors.fit_mixture(model, params, codes.reshape(len(codes), -1)[:, -size:], COMPONENTS))
    return float(found.samples - found.floor)


def _means(model: Any, params: Any, x: Any, key: Any) -> dict[str, Any]:
    """Return a metric: the mean of the code of each example."""
    return {"code": model.encode(params, x).mean()}


def _indices(model: Any, params: Any, x: Any, key: Any) -> dict[str, Any]:
    """Return a metric: which entries of a book a draw of the code of each example is made of."""
    q = model.encode(params, x)
    return {"indices": q.indices(q.sample(key))}


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(compare, sys.argv[1:], prog="families.py")()
