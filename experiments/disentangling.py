"""Do penalties of the total correlation make single dimensions stand for single factors? Losses on sprites, by MIG.

Command:   python experiments/disentangling.py                  (about ten minutes on two idle CPU cores)
           with --record FILE the rows are added to those that the file has already
Writes:    runs/disentangling/results.json and table.md
Expected:  beta-TCVAE and FactorVAE raise the mutual information gap over the plain VAE at a cost in reconstruction; a
           larger beta raises it less, at a larger one (Chen et al. 2018; Kim & Mnih 2018).

Protocol: sprites at a threshold, 8,000 to train on, whose five factors are known; dense networks, 10 latent dimensions,
the Bernoulli likelihood, N(0, I), Adam at 0.001, batches of 128, the same number of epochs and the same seeds for all.
Parameters are those of the best epoch by the negative ELBO of validation data, whatever the loss weighs. Scores are of
the 3,000 test images, whose codes are the means of q(z|x); what the gap of codes that are the factors themselves would
be stands below the table: it is less than 1, as 20 bins do not tell 32 places apart. A row's difference from the plain
VAE is paired by seed: the mean and the 95 % interval of Student's t.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from written import markdown

from aevae_jax import durable
from aevae_jax.cli import console, terminal
from aevae_jax.data import Data, Threshold, built_in, prepare
from aevae_jax.lazy import modules, np
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Bernoulli
from aevae_jax.models.priors import StandardNormal
from aevae_jax.objectives.adversarial import Discriminator, FactorVAE
from aevae_jax.objectives.families import Loss
from aevae_jax.objectives.losses import ELBO
from aevae_jax.objectives.total_correlation import BetaTCVAE
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax import keys
    from aevae_jax.data import Dataset, Prepared
    from aevae_jax.evaluation import disentanglement, statistics
    from aevae_jax.runs import fitting, provenance, records
    from aevae_jax.training import loops
else:
    keys = modules("aevae_jax", "keys")
    disentanglement, statistics = modules("aevae_jax.evaluation", "disentanglement", "statistics")
    fitting, provenance, records = modules("aevae_jax.runs", "fitting", "provenance", "records")
    loops = modules("aevae_jax.training", "loops")

PLAIN = "VAE"
DATA = Data("sprites", Threshold())
MODEL = VAE(10, MLP(), Bernoulli(), StandardNormal())


def losses() -> dict[str, Loss]:
    """Return what is compared, by name."""
    return {
        PLAIN: ELBO(),
        "beta-VAE, beta = 4": ELBO(beta=4.0),
        "beta-TCVAE, 6 times TC": BetaTCVAE(6.0),
        "FactorVAE, 20 times TC": FactorVAE(20.0, Discriminator(learning_rate=1e-3)),
    }


def disentangling(
    *,
    rows: tuple[str, ...] = (),
    seeds: int = 5,
    epochs: int = 15,
    out: Path = Path("runs/disentangling"),
    record: str = "",
) -> None:
    """Train VAEs on sprites by several losses, and score how their codes stand for the factors.

    Goes on where it was stopped.

    Args:
      rows: names of losses; all of them, where it is left out.
      seeds: how many of each to train, all at once.
      epochs: of each training.
      out: directory for the results.
      record: also write the results to this JSON file, with those that it holds already.
    """
    known = losses()
    if unknown := [name for name in rows if name not in known]:
        raise InputError("--rows", got=repr(unknown[0]), expected=", ".join(map(repr, known)))
    for option, value, least in (("--seeds", seeds, 2), ("--epochs", epochs, 1)):
        if value < least:
            raise InputError(option, got=value, expected=f"at least {least}")
    path = out / "results.json"
    for each in (path, *([Path(record)] if record else [])):
        durable.make_room(each)
    terminal.begin(f"drawing sprites, to train what is not in {path} of {len(rows or known)} losses")
    dataset = DATA.load()
    prepared, made = prepare(DATA.preparation, dataset), provenance.provenance(dataset)
    key = {"seeds": seeds, "epochs": epochs, "sha256": made["data"]["sha256"]}
    old = [records.read_json(file) for file in (path, Path(record)) if file.is_file()]
    done = {name: row for found in old if {k: found.get(k) for k in key} == key for name, row in found["rows"].items()}
    results = {
        **key,
        "command": shlex.join(["python", "experiments/disentangling.py", *sys.argv[1:]]),
        "made": {"code": made["code"], "versions": made["versions"], **made["device"], **made["host"]},
        "rows": done,
    }
    for name in rows or known:
        if name not in done:
            done[name] = measured(name, known[name], dataset, prepared, seeds=seeds, epochs=epochs)
        results["rows"] = {each: done[each] for each in known if each in done}
        for each in (path, *([Path(record)] if record else [])):
            records.write_json(each, results)
    (out / "table.md").write_text(table(results))
    print(table(results), flush=True)


def measured(
    name: str, objective: Loss, dataset: Dataset, prepared: Prepared, *, seeds: int, epochs: int
) -> dict[str, list[float]]:
    """Return every score of a loss, one number per seed, and `by chance` those of the factors of other images.

    Args:
      name: of the row.
      objective: the loss.
      dataset: with its factors.
      prepared: the same, as the model sees it.
      seeds: how many to train.
      epochs: of each training.
    """
    with console.parts(name, of="steps") as show:
        on_steps = console.of_all_epochs(show)
        fitted = fitting.fit_seeds(
            Run(DATA, MODEL, objective, epochs=epochs), range(seeds), dataset, on_steps=on_steps, progress=False
        )
    ordered = [factor.ordered for factor in dataset.factors]
    found: dict[str, list[float]] = {}
    for seed, params in enumerate(loops.unstack(fitted.params)):
        key, test = keys.stream(keys.root(seed), keys.Stream.EVALUATE), prepared.test
        scores = disentanglement.of_model(fitted.model, params, test.x, test.factors, key, ordered=ordered)
        one = {measure: score.value for measure, score in scores.items()}
        one |= {f"{measure} by chance": score.chance for measure, score in scores.items()}
        figures = fitted.results["test"][seed]
        one |= {measure: figures[measure] for measure in ("distortion", "rate", "negative_elbo")}
        for measure, value in one.items():
            found.setdefault(measure, []).append(float(value))
    return found


def ceiling() -> float:
    """Return the mutual information gap of codes that are the factors of all sprites themselves."""
    factors = built_in.factors()
    return float(disentanglement.mig(factors.astype(np.float64), factors))


MEASURES = {
    "mig": ("MIG", "{:.3f}"),
    "sap": ("SAP", "{:.3f}"),
    "dci_disentanglement": ("disentanglement", "{:.3f}"),
    "dci_completeness": ("completeness", "{:.3f}"),
    "dci_informativeness": ("informativeness", "{:.3f}"),
    "factor_vae_score": ("FactorVAE score", "{:.3f}"),
    "modularity": ("modularity", "{:.3f}"),
    "distortion": ("distortion, nats", "{:.1f}"),
    "rate": ("rate, nats", "{:.1f}"),
}


def gains(results: dict[str, Any], measure: str = "mig") -> dict[str, Any]:
    """Return by how much each row exceeds the plain VAE in a measure: an interval, paired by seed."""
    rows = results["rows"]
    if PLAIN not in rows:
        return {}
    plain = np.array(rows[PLAIN][measure])
    return {name: statistics.interval(np.array(row[measure]) - plain) for name, row in rows.items() if name != PLAIN}


def of_readme(results: dict[str, Any], path: str) -> str:
    """Return the rows with a sentence that says which of them raise MIG, by their intervals.

    Args:
      results: as recorded.
      path: of the file.
    """
    gained = gains(results)
    raised = [name for name, more in gained.items() if more.low > 0]
    rest = [name for name in gained if name not in raised]
    says = [f"{' and '.join(raised) or 'none'} {'raises' if len(raised) == 1 else 'raise'} it by these intervals"]
    says += [f"{', '.join(rest)} not surely"] if rest else []
    return (
        f"**Single dimensions for single factors**, sprites at a threshold, {results['epochs']} epochs: the mutual "
        f"information gap (MIG), what it exceeds that of the plain VAE by, paired by seed, with 95 % intervals over "
        f"{results['seeds']} seeds, and other scores: {'; '.join(says)}. `python experiments/disentangling.py` "
        f"([protocol](experiments/disentangling.py), [figures]({path})).\n\n{rows_of(results)}"
    )


def table(results: dict[str, Any]) -> str:
    """Return the rows, and what is to be known of MIG to read them."""
    chance = np.mean([np.mean(row["mig by chance"]) for row in results["rows"].values()])
    return (
        f"{rows_of(results)}\nSprites, {results['epochs']} epochs, means of {results['seeds']} seeds. By chance MIG is "
        f"{chance:.3f}; of codes that are the factors it would be {ceiling():.2f}.\n"
    )


def rows_of(results: dict[str, Any]) -> str:
    """Return a Markdown table: means over seeds, and the difference in MIG from the plain VAE with its interval."""
    lines, gained = [], gains(results)
    for name, row in results["rows"].items():
        cells = [form.format(np.mean(row[measure])) for measure, (_, form) in MEASURES.items()]
        more = gained.get(name)
        lines.append([name, *cells[:1], "" if more is None else _spelled(more), *cells[1:]])
    names = [title for title, _ in MEASURES.values()]
    return markdown(["loss", *names[:1], "more than the VAE", *names[1:]], lines)


def _spelled(more: Any) -> str:
    return f"{more.mean:+.3f} [{more.low:+.3f}, {more.high:+.3f}]"


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(disentangling, sys.argv[1:], prog="disentangling.py")()
