"""`aevae evaluate` and `compare`: what there is to measure of a trained model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from aevae_jax import durable, evaluation, limits, runs, values
from aevae_jax.cli import classes, console, overview
from aevae_jax.cli.terminal import begin, report, say, show_table
from aevae_jax.data import files, prepare
from aevae_jax.lazy import modules, np
from aevae_jax.runs import data_of_runs, fitting, records
from aevae_jax.types import InputError, likelihood_of

if TYPE_CHECKING:
    from aevae_jax import keys
    from aevae_jax.data import Prepared
    from aevae_jax.evaluation import estimates, importance, statistics
    from aevae_jax.evaluation.importance import Estimate
    from aevae_jax.objectives import bounds
else:
    keys = modules("aevae_jax", "keys")
    bounds = modules("aevae_jax.objectives", "bounds")
    estimates, importance, statistics = modules("aevae_jax.evaluation", "estimates", "importance", "statistics")

Moved = Annotated[str, "--data DATA"]
Part = Literal["test", "validation"]


def evaluate(
    run: Path,
    *,
    split: Part = "test",
    samples: int | None = None,
    batch_size: int = 0,
    seed: int | None = None,
    data: Moved = "",
    json_file: Annotated[Path | None, "--json FILE"] = None,
    force: bool = False,
) -> None:
    """Measure a trained model: means over a data set, with standard errors.

    Example: aevae evaluate runs/first --samples 5000 --json test.json

    Args:
      run: a run directory.
      split: which part of the run's data set.
      samples: importance samples per example for the negative log likelihood, such as 5000; left out, there is none.
      batch_size: examples to compute at once, 0 for as many as suit; the numbers do not depend on it.
      seed: of the codes that are sampled; left out, the run's.
      data: where the run's data is by now, a name or path, if it has moved; its sha256 must be the same.
      json_file: a file to write the numbers to as well.
      force: replace that file if it exists.
    """
    if json_file is not None:
        files.check_output(json_file, (".json",), force=force, option="--json")
    if samples is not None:
        limits.check("--samples", samples, 1)
    fitted = loaded(run)
    model, seed = fitted.model, fitted.run.seed if seed is None else seed
    prepared = prepared_of(run, fitted.run, data)
    x = getattr(prepared, split).rows

    key = key_of(seed, keys.Stream.EVALUATE)
    _, measure = bounds.measures(model, fitted.params, x)
    if samples:
        importance.check_scorable(model, fitted.params, x)
    measured: dict[str, np.ndarray] = {}
    for metric in evaluation.shown_for(fitted.run.objective):
        with console.parts("measuring") as on_part:
            measured |= evaluation.per_example(
                metric, model, fitted.params, x, key, batch_size=batch_size, on_part=on_part
            )
    units = evaluation.UNITS | {"mse_at_mean": squared(prepared)}
    metrics: dict[str, dict[str, Any]] = {}
    for name, v in sorted(measured.items(), key=lambda item: _order(item[0])):
        if name in evaluation.WHOLE:
            metrics |= {figure: _single(value, units[figure]) for figure, value in evaluation.WHOLE[name](v).items()}
        else:
            metrics[name] = entry(v, units.get(name, "nats/example"))
    named, likelihood = fitted.run.data, values.spell(likelihood_of(model))
    protocol = (
        f"Means over {len(x)} examples, {named.name} {split}, {values.spell(named.preparation)}. "
        f"{_MEASURES[measure]} of {likelihood} at one z ~ q(z|x) per example, seed {seed}; "
        "mse at mean is at the mean of q(z|x)."
    )
    if samples:
        with console.parts("likelihood") as on_part:
            found = importance.estimate(model, fitted.params, x, key, num_samples=samples, on_part=on_part)
        metrics |= _likelihood(found, model, prepared)
        measured["negative_log_likelihood"] = found.nll
        protocol += f" {_trust(found)}"
    protocol = f"{protocol} {console.below_zero({name: entry['mean'] for name, entry in metrics.items()})}".strip()
    show(f"{run}, {named.name} {split}", metrics, protocol)
    of_classes = classes.means(
        {name: measured[name] for name in metrics if name in measured}, classes.rows_of(prepared, x)
    )
    classes.show("the same of each class", of_classes)
    if json_file is not None:
        means = {name: entry["mean"] if math.isfinite(entry["mean"]) else None for name, entry in metrics.items()}
        written = {name: {**entry, "mean": means[name]} for name, entry in metrics.items()}  # JSON has no infinity
        record = {"run": str(run), "split": split, "seed": seed, "protocol": protocol, "metrics": written}
        if of_classes:
            record["classes"] = {
                name: {entry: mean if math.isfinite(mean) else None for entry, mean in own.items()}
                for name, own in of_classes.items()
            }
        durable.write_bytes(json_file, f"{json.dumps(record, indent=2, allow_nan=False)}\n".encode())
        report(f"wrote {json_file}")


def compare(
    run: Path, other: Path, *, split: Part = "test", samples: int = 100, seed: int = 0, data: Moved = ""
) -> None:
    """Compare two models by the likelihood that they give to data.

    Differences are paired, example by example, with common noise.

    Runs whose data, preparation or unit differ are refused: their figures have no order.

    Example: aevae compare runs/first runs/second --samples 500

    Args:
      run: a run directory.
      other: another one.
      split: which part of their data set.
      samples: importance samples per example.
      seed: of the codes that are sampled, for both.
      data: where the run's data is by now, a name or path, if it has moved; its sha256 must be the same.
    """
    limits.check("--samples", samples, 1)
    for place in (run, other):
        overview.check_run(place)
    results = [_result(place, split, samples, seed, data) for place in (run, other)]

    better, worse = estimates.rank(results)
    found = estimates.difference(worse, better)
    for result in results:
        say(f"{result.name:<24} {result.mean:.4f} +- {result.standard_error:.2g} {result.protocol.unit}")
    say(
        f"{better.name} is better by {found.mean:.4f}, 95 % interval {found.low:.4f} to {found.high:.4f}"
        f"{'' if found.low > 0 else ': no difference is shown'}"
    )
    say(f"protocol: {results[0].protocol}")


# ------------------------------------------------------------------------------------------------------------- a run


def loaded(directory: Path) -> fitting.Fitted:
    """Return the run in a directory, as far as it has got; what is to be said of it is a note."""
    overview.check_run(directory)
    records.read_record(directory)  # refused at once, or said before JAX is imported
    begin(f"reading {directory}")
    return fitting.load_run(directory, unfinished=True, on_note=console.note)


def prepared_of(directory: Path, run: runs.Run, moved: str = "") -> Prepared:
    """Return the rows that a run's model sees, by split; validation and test data prepared. Data as
    `data_of_runs.load_data`.
    """
    begin(f"reading {moved or run.data.name}")
    return prepare(run.data.preparation, data_of_runs.load_data(directory, run.data, moved))


def key_of(seed: int, use: Any) -> Any:
    """Return the key for one use of a seed that was typed."""
    if not 0 <= seed < 2**32:
        raise InputError("--seed", got=seed, expected="0 to 4294967295")
    return keys.stream(keys.root(seed), use)


def _result(place: Path, split: Part, samples: int, seed: int, data: str) -> Any:
    fitted = loaded(place)
    prepared = prepared_of(place, fitted.run, data)

    key = key_of(seed, keys.Stream.EVALUATE)
    with console.parts(str(place)) as on_part:
        return importance.result(
            fitted.model,
            fitted.params,
            prepared,
            key,
            name=str(place),
            split=split,
            num_samples=samples,
            on_part=on_part,
        )[0]


# ----------------------------------------------------------------------------------------------------------- printing

_MEASURES = {
    "density": "Density",
    "mass": "Probability",
    "density and mass": "Density of numbers and probability of codes",
    "profile": "Largest density, of scales fitted to each example and so no likelihood,",
    "unknown": "Density or probability",
}
"""The base measures of likelihoods in words."""


def squared(prepared: Prepared) -> str:
    """Return the unit of squared errors of what a model sees."""
    return f"squared error per {'standardised ' if prepared.format.mean else ''}element"


def entry(v: Any, unit: str) -> dict[str, Any]:
    """Return a mean over examples with its standard error."""
    error = statistics.standard_error(v)
    return {
        "mean": float(v.mean(dtype="float64")),
        "standard_error": error if math.isfinite(error) else None,
        "unit": unit,
    }


def _single(value: float, unit: str) -> dict[str, Any]:
    """Return a figure of a data set as a whole."""
    return {"mean": value, "standard_error": None, "unit": unit}


def _likelihood(found: Estimate, model: Any, prepared: Prepared) -> dict[str, Any]:
    rows = {"negative_log_likelihood": entry(found.nll, "nats/example")}
    bits = importance.bits_per_dim(found.nll, model, prepared)
    if bits is not None:
        rows["bits_per_dim"] = entry(bits, "bits/dimension")
    rows["effective_samples"] = entry(found.effective_samples, f"of {found.num_samples}")
    return rows


def _trust(found: Estimate) -> str:
    """Return what the tails of the weights say."""
    text = (
        f"Negative log likelihood: an upper bound by importance sampling from q(z|x), {found.num_samples} samples "
        "per example."
    )
    if math.isnan(found.pareto_k[0]):
        return f"{text} Too few samples to judge their tail."
    share = 100 * float(found.untrusted.mean())
    if share < 1:
        return text

    limit = importance.trusted_pareto_k(found.num_samples)
    return (
        f"{text} WARNING: of {share:.0f} % of the examples the weights have too heavy a tail (Pareto k above "
        f"{limit:.2f}): the likelihood is larger than this bound says; take more samples."
    )


def _order(name: str) -> tuple[int, str]:
    """Return the terms before their sum; what is new comes last."""
    rows = ("distortion", "profile_distortion", "rate", "negative_elbo", "profile_loss", "mse_at_mean")
    return (rows.index(name) if name in rows else len(rows), name)


def show(title: str, metrics: Mapping[str, Mapping[str, Any]], caption: str) -> None:
    """Print a table of metrics: of each its mean and unit, and its standard error or that of data, if any."""
    columns = {"mean": ".6g", "standard_error": ".2g", "data": ".6g"}
    shown = {name: form for name, form in columns.items() if any(name in entry for entry in metrics.values())}
    rows = [
        [
            name.replace("_", " "),
            *("" if entry.get(column) is None else f"{entry[column]:{form}}" for column, form in shown.items()),
            entry["unit"],
        ]
        for name, entry in metrics.items()
    ]
    numbers = [column.replace("_", " ") for column in shown]
    show_table(title, ("metric", *numbers, "unit"), rows, right=numbers, caption=caption)
