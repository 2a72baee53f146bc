"""Do examples without a label make a classifier better? A semi-supervised VAE beside its classifier alone.

Command:   python experiments/semi_supervised.py --record experiments/results/semi_supervised_digits.json
           (digits, 10 labels of each class, 5 seeds: some minutes on two CPU cores)
Writes:    a table, and the results to the file of --record
Expected:  the classifier is as good or better for the others (Kingma et al. 2014, table 1, on MNIST), by little where
           the labels leave little to learn from them

Protocol: of each class so many labels are told, others for each seed. The classifier is the encoder of dense layers
64-64 in both, from the same parameters. Alone it is trained on the labelled examples, all of them at each of 500 steps;
beside the VAE by `SemiSupervised()` on all training examples, in batches of 128. Adam at 0.001 for both. Nothing is
chosen by test data: the VAE's parameters are those of the best epoch by its bound on validation data without labels.
Accuracy is that of the test data; the difference is paired by seed: the mean and the 95 % interval of Student's t.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from written import markdown

from aevae_jax import durable, limits
from aevae_jax.cli import console
from aevae_jax.data import Data, prepare
from aevae_jax.lazy import jax, modules, np, optax
from aevae_jax.models import SemiSupervisedVAE
from aevae_jax.models.architectures import MLP
from aevae_jax.runs.run import Run

if TYPE_CHECKING:
    from aevae_jax import keys
    from aevae_jax.evaluation import statistics
    from aevae_jax.runs import fitting, provenance, records, resolution
else:
    keys = modules("aevae_jax", "keys")
    statistics = modules("aevae_jax.evaluation", "statistics")
    fitting, provenance, records, resolution = modules(
        "aevae_jax.runs", "fitting", "provenance", "records", "resolution"
    )

STEPS = 500
"""The classifier alone is trained for so many steps."""


def semi_supervised(
    *, labels: int = 10, seeds: int = 5, epochs: int = 80, latent: int = 8, data: str = "digits", record: str = ""
) -> None:
    """Train semi-supervised VAEs and classifiers alone, and compare how often they are right.

    Args:
      labels: how many of each class are told.
      seeds: how many trainings of each, counted from 0.
      epochs: of the VAE.
      latent: dimensions of its code.
      data: a data set with labels.
      record: also write the results to this JSON file.
    """
    limits.check("--seeds", seeds, 2)
    if record:
        durable.make_room(Path(record))
    found: dict[str, list[float]] = {"alone": [], "with the others": []}
    for seed in range(seeds):
        run = run_of(seed, labels=labels, epochs=epochs, latent=latent, data=data)
        with console.progress(f"seed {seed}") as shown:
            fitted = fitting.fit(run, on_epoch=shown, on_note=console.note, on_steps=shown)
        found["alone"].append(alone(run))
        found["with the others"].append(float(fitted.results["test"]["accuracy"]))
    made = provenance.provenance(run.data.load())
    results = {
        "data": data,
        "labels": labels,
        "epochs": epochs,
        "latent": latent,
        "seeds": seeds,
        "command": shlex.join(["python", "experiments/semi_supervised.py", *sys.argv[1:]]),
        "made": {"code": made["code"], "versions": made["versions"], **made["device"], **made["host"]},
        "accuracy": found,
    }
    if record:
        records.write_json(Path(record), results)
    print(table(results), flush=True)


def run_of(seed: int, *, labels: int, epochs: int, latent: int, data: str) -> Run:
    """Return the run of a seed: of its labels, its parameters and its noise."""
    told = Data(data, condition="label", labels_per_class=labels, hidden_seed=seed)
    return Run(told, SemiSupervisedVAE(latent, MLP((64, 64))), epochs=epochs, seed=seed)


def alone(run: Run, steps: int = STEPS) -> float:
    """Return the accuracy on test data of the classifier of a run, trained on its labelled examples alone."""
    resolved = resolution.resolve(run)
    model: Any = resolved.run.model
    x, label, params = labelled(run)
    tx = optax.adam(1e-3)

    @jax.jit
    def trained(params: Any) -> Any:
        def loss(own: Any) -> Any:
            log_q = model.log_classes({**params, "classifier": own}, x)
            return -log_q[np.arange(len(label)), label].mean()

        def step(state: Any, _: Any) -> Any:
            own, moments = state
            updates, moments = tx.update(jax.grad(loss)(own), moments, own)
            return (optax.apply_updates(own, updates), moments), None

        own = params["classifier"]
        return jax.lax.scan(step, (own, tx.init(own)), None, length=steps)[0][0]

    test = resolved.prepared.test
    log_q = model.log_classes({**params, "classifier": trained(params)}, np.asarray(test.x))
    return float((np.asarray(log_q).argmax(axis=1) == test.condition).mean())


def labelled(run: Run) -> tuple[Any, Any, Any]:
    """Return the examples of a run that are told a class, as its model sees them, the classes, and its parameters
    before the first step.
    """
    resolved = resolution.resolve(run)
    rows: Any = prepare(run.data.preparation, resolved.dataset).rows("train", keys.root(run.seed))
    known = np.flatnonzero(rows.condition >= 0)
    some = rows[known]
    params = resolved.run.model.init(keys.stream(keys.root(run.seed), keys.Stream.INIT))
    return np.asarray(some.x), some.condition, params


def table(results: dict[str, Any]) -> str:
    """Return a Markdown table of accuracies by seed, and the difference with its interval."""
    found = {name: np.array(row) for name, row in results["accuracy"].items()}
    lines = [[name, *(f"{one:.3f}" for one in row), f"{row.mean():.3f}"] for name, row in found.items()]
    head = markdown(["classifier", *(f"seed {n}" for n in range(results["seeds"])), "mean"], lines)
    more = statistics.interval(found["with the others"] - found["alone"])
    return (
        f"{head}\n{results['data']}, {results['labels']} labels of each class: more by {more.mean:+.3f} "
        f"[{more.low:+.3f}, {more.high:+.3f}]\n"
    )


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(semi_supervised, sys.argv[1:], prog="semi_supervised.py")()
