"""What is the difference between an autoencoder and a variational autoencoder? The main experiment.

Command:   python experiments/ae_vs_vae.py                       (a minute or two on two CPU cores)
           python experiments/ae_vs_vae.py --data sprites
           python experiments/ae_vs_vae.py --data fashion_mnist  (needs it prepared)
           python experiments/ae_vs_vae.py --data ./photos        (or Data('./photos', ...), as for aevae train)
Writes:    runs/ae_vs_vae/results.json and runs/ae_vs_vae/report.png
Expected:  random codes decoded by the autoencoder are garbage, by the VAEs they are data; of every claim the table says
           whether it holds, and of what does not hold, what was measured of the reason.

All models have the same networks, latent size, data, optimizer and number of steps, and keep the parameters of their
best epoch by their own validation bound. The columns:

    AE              squared error, by weight decay: the one of `DECAYS` that is chosen
    VAE             negative ELBO, prior N(0, I), a Gaussian likelihood whose one scale it learns: maximum likelihood
    VAE, beta       the same with the rate weighted: the one of `BETAS` that is chosen
    VAE + VampPrior the VAE with a learned prior: the mixture of the codes of learned pseudo-inputs
    AE + mixture    the AE, a Gaussian mixture fitted to its training codes in place of N(0, I)
    VAE + mixture   the VAE likewise

The rule of choice is one for both sides: of all candidates, each trained with every seed, the one whose random codes
decode nearest to the validation data, in Frechet distance, mean over seeds. Of these candidates nothing is chosen on
test data, and all that is reported is measured on them. What the options are when nothing is said (sizes, batches,
rates) was found by trying some on the digits, test data and all, for the same claims in less time; other data had no
part in it, except that 0.5 left `BETAS` after three data sets had been seen. Distances and what is recognised are
judged by classifiers of the training data, which no model is trained with. They are trained until they know validation
data: on the digits 600 steps do; on sprites these left them unsure of two thirds of the data, whose shares of
recognised pictures then said nothing. The distance depends on the judge: by one that is trained three times as long on
the digits, the VAE at maximum likelihood is 2.4 times nearer than the AE, not 2.5.

Into how few bits a VAE turns images that it has not seen, as a file, is what lossless.py measures: that takes another
likelihood, one of levels, so other models, and with them half a minute of processor time more.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import claims

from aevae_jax import durable, models, runs, types
from aevae_jax.cli import console, terminal
from aevae_jax.data import Data, prepare
from aevae_jax.lazy import jax, jnp, modules, np
from aevae_jax.models import likelihoods
from aevae_jax.models.architectures import MLP
from aevae_jax.models.priors import StandardNormal, VampPrior
from aevae_jax.objectives import ELBO, ReconstructionError
from aevae_jax.training.optimizers import AdamW

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ae_vs_vae_measures import Judge, Pictures

    from aevae_jax import training
    from aevae_jax.data import Dataset, Prepared
    from aevae_jax.evaluation import classifiers, image_quality, statistics
    from aevae_jax.models import priors
    from aevae_jax.runs import directory, fitting, judges, provenance, records
    from aevae_jax.runs.fitting import Fitted
    from aevae_jax.runs.snapshots import Steps
    from aevae_jax.training import loops
else:
    training = modules("aevae_jax", "training")
    loops = modules("aevae_jax.training", "loops")
    classifiers, image_quality, statistics = modules(
        "aevae_jax.evaluation", "classifiers", "image_quality", "statistics"
    )
    priors = modules("aevae_jax.models", "priors")
    directory, fitting, judges, provenance, records = modules(
        "aevae_jax.runs", "directory", "fitting", "judges", "provenance", "records"
    )

STEPS, EPOCHS = 2_400, 4
"""Training takes so many steps, and at least so many epochs, where the number of epochs is not given."""

DECAYS = (0.0, 0.3)
"""Weight decays of the autoencoder."""

BETAS = (1.0, 2.0, 4.0)
"""Weights of the VAE's rate; 1 is maximum likelihood. 0.5 was one of them until it had been chosen on none of three
data sets: its random codes decode further from the digits than those of 1, on sprites and Fashion-MNIST not surely."""

PSEUDO_INPUTS = 100
"""Components of the VampPrior."""

CYCLES = 6
"""How often the judge is trained for 600 steps, at most: as long as validation data say that it still learns."""

SCALE = 0.15
"""Where the scale of the likelihood starts: near where it comes to rest, some .1, else few steps do not get there."""

SMALL = 100
"""Numbers in an image, up to which trainings take seconds, about as long as compiling them does."""

SOONER = "--xla_backend_optimization_level=1"
"""Compiles sooner what runs as fast on a CPU; rounding differs."""


def ae_vs_vae(
    *,
    data: Data = Data(),
    seeds: int = 5,
    epochs: int = 0,
    latent: int = 16,
    hidden: tuple[int, ...] = (192, 96),
    learning_rate: float = 3e-3,
    batch_size: int = 32,
    out: Path = Path("runs/ae_vs_vae"),
    force: bool = False,
    record: str = "",
) -> None:
    """Train autoencoders and VAEs on the same images and measure each claim about their difference.

    Args:
      data: digits or sprites, which need no network, images of TensorFlow Datasets prepared here, a path, or
        "Data('PATH', ...)", as for aevae train.
      seeds: how many of each model to train, all at once; intervals are over seeds.
      epochs: passes over the training data; 0 means enough for 2,400 steps, and at least 4.
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
    terminal.begin(f"reading {data.name}, to compare autoencoders and VAEs, {seeds} of each kind")
    dataset = data.load()
    if len(dataset.event_shape) != 3:
        raise types.InputError("data", got=f"examples of shape {dataset.event_shape}", expected="images")
    compile_sooner(dataset.event_shape)
    per_epoch = training.steps_per_epoch(dataset.train.x, batch_size)
    epochs = epochs or max(EPOCHS, -(-STEPS // per_epoch))
    if record:
        durable.make_room(Path(record))
    folder = _output(out, force)

    import ae_vs_vae_measures as measures  # with it comes JAX, for which --help does not wait

    prepared = prepare(data.preparation, dataset)
    train, test = _training_images(prepared), prepared.test.x[:]
    vae = models.VAE(latent, MLP(hidden), likelihoods.NormalSharedScale(SCALE), StandardNormal())
    optimizer = AdamW(learning_rate, cosine=True)
    base = runs.Run(data, vae, ELBO(), optimizer, batch_size=batch_size, epochs=epochs)
    autoencoder = replace(base, model=models.Autoencoder(latent, MLP(hidden)), objective=ReconstructionError())
    learned = replace(base, model=replace(vae, latent_prior=VampPrior(PSEUDO_INPUTS)))
    populations: list[Population] = [
        (base, "objective.beta", BETAS),
        (learned, "objective.beta", (1.0,)),
        (autoencoder, "optimizer.weight_decay", DECAYS),
    ]
    left_out = image_quality.why_no_judge(dataset, "validation", "test")
    if left_out:
        terminal.note(f"without a judge, nothing is chosen, no distances, nothing is recognised: {left_out}")
    elif doubt := image_quality.doubt(min(len(dataset.validation), len(dataset.test))):
        terminal.note(doubt)

    def train_judge() -> classifiers.Ensemble | None:
        if left_out:
            return None
        return judges.ensemble(prepared, range(100, 105), cycles=CYCLES, note=terminal.note, begin=terminal.begin)

    (vaes, [vamp], autoencoders), ensemble = train_all(populations, seeds, dataset, train_judge)
    judge, decay, likeliest = None, 0, BETAS.index(1.0)
    beta = likeliest
    if ensemble is not None:

        def see(members: list[Member]) -> list[Pictures]:
            return [measures.pictures(ensemble, *member, seed) for seed, member in enumerate(members)]

        seen = _together("judging random codes", see, [members_of(fit) for fit in (*vaes, *autoencoders, vamp)])
        by_beta, by_decay, [of_vamp] = seen[: len(vaes)], seen[len(vaes) : -1], seen[-1:]
        terminal.begin("choosing by validation data")
        choosing = measures.Judge.of(ensemble, prepared.validation.x[:])
        decay, beta = choose(by_decay, choosing), choose(by_beta, choosing)
        judge = measures.Judge.of(ensemble, test)

    encoders = {"AE": autoencoders[decay], "VAE": vaes[likeliest], "VAE, beta": vaes[beta], "VAE + VampPrior": vamp}
    measured = _together(
        "measuring", lambda fit: [measures.measure(fit, seed, test, judge) for seed in range(seeds)], encoders.values()
    )
    table = _stacked(dict(zip(encoders, measured, strict=True)))
    curve = []
    if judge is not None:
        random_codes = {"AE": by_decay[decay], "VAE": by_beta[likeliest], "VAE, beta": by_beta[beta]}
        plain = ("AE", "VAE")
        mixtures = _together("fitting mixtures", lambda name: see(with_mixtures(encoders[name], train)), plain)
        random_codes |= {
            "VAE + VampPrior": of_vamp,
            **dict(zip(("AE + mixture", "VAE + mixture"), mixtures, strict=True)),
        }
        table |= _stacked({name: [judge.measures(one) for one in seen] for name, seen in random_codes.items()})
        curve = [_point(*point, judge) for point in zip(BETAS, vaes, by_beta, strict=True)]
    baseline = measures.baselines(train, prepared.test, judge, latent)
    decided, table = claims.decide(table, baseline), _measured(table)
    results = {
        "command": shlex.join(["python", "experiments/ae_vs_vae.py", *sys.argv[1:]]),
        "left out": left_out,
        "chosen": {} if judge is None else {"weight decay of the AE": DECAYS[decay], "beta": BETAS[beta]},
        "facts": claims.facts(table, latent, int(np.prod(dataset.event_shape))),
        "claims": [claim._asdict() for claim in decided],
        "measures": {n: statistics.interval(v)._asdict() for n, v in table.items() if v.ndim == 1},
        "rate per dimension, largest first, nats": table["rate per dimension | VAE"].mean(axis=0).tolist(),
        "curve": curve,
        "baselines": baseline,
        "seeds": {name: v.tolist() for name, v in table.items()},
        "epochs": epochs,
        "training_seconds": {"AE": autoencoders[0].results["seconds"], "VAE": vaes[0].results["seconds"]},
        "provenance": provenance.provenance(dataset),
    }
    records.write_json(folder / "results.json", results)
    terminal.begin("drawing")
    draw(folder / "report.png", encoders, prepared, results)
    if record:
        records.write_json(Path(record), {k: v for k, v in results.items() if k != "seeds"})
        shutil.copyfile(folder / "report.png", Path(record).with_suffix(".png"))
    claims.show(results, folder)


def compile_sooner(event_shape: tuple[int, ...]) -> None:
    """Let XLA spend less time on the programs of small images, unless XLA_FLAGS says how much it is to spend; to be
    called before JAX has computed anything.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if math.prod(event_shape) <= SMALL and SOONER.partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {SOONER}".strip()


Population = tuple[runs.Run, str, tuple[float, ...]]
"""A run, and the values that one of its fields takes, each with every seed."""


def train_all(
    populations: list[Population], seeds: int, dataset: Dataset, train_judge: Callable[[], classifiers.Ensemble | None]
) -> tuple[list[list[Fitted]], classifiers.Ensemble | None]:
    """Return the populations, trained, and the judge, two at a time: while one is compiled, which keeps one core busy,
    another one trains. An error of one ends all.
    """
    sizes = [seeds * len(values) for _, _, values in populations]
    done, stopped = [0] * len(populations), threading.Event()
    terminal.begin(f"training {sum(sizes)} models, {populations[0][0].epochs} epochs each")
    with console.parts("training", of="steps") as on_part:

        def train(index: int) -> list[Fitted]:
            run, field, values = populations[index]

            def on_steps(told: Steps) -> None:
                if stopped.is_set():
                    raise KeyboardInterrupt
                taken, steps = told.part
                done[index] = sizes[index] * taken
                on_part(sum(done), steps * sum(sizes))

            return fitting.fit_sweep(run, {field: values}, range(seeds), dataset, on_steps=on_steps)

        pool = ThreadPoolExecutor(2 if jax.local_device_count() == 1 else 1)
        judge = pool.submit(train_judge)
        fits = [pool.submit(train, index) for index in range(len(populations))]
        every: list[Future[Any]] = [judge, *fits]
        try:
            for each in as_completed(every):
                each.result()
        finally:  # after an error or Ctrl-C, the others end within some steps
            stopped.set()
            pool.shutdown(cancel_futures=True)
        return [fit.result() for fit in fits], judge.result()


def _together(title: str, function: Callable[[Any], Any], items: Collection[Any]) -> list[Any]:
    """Return `function` of every item; two programs are compiled, and run, at a time."""
    terminal.begin(title)
    found = []
    with console.parts(title, of="models") as on_part:
        for each in loops.map_in_threads(function, items, compiled=True):
            found.append(each)
            on_part(len(found), len(items))
    return found


def choose(candidates: Sequence[Sequence[Pictures]], judge: Judge) -> int:
    """Return which of `candidates`, each seen with every seed, makes the best random codes: the one whose pictures lie
    nearest to the judge's, mean over seeds.
    """
    distances = []
    with console.parts("choosing", of="candidates") as on_part:
        for candidate in candidates:
            distances.append(np.mean([judge.measures(seen)["Frechet distance"] for seen in candidate]))
            on_part(len(distances), len(candidates))
    return int(np.argmin(distances))


Member = tuple[Any, Any]
"""A model and the parameters of one seed."""


def members_of(fit: Fitted) -> list[Member]:
    """Return the model with the parameters of each seed."""
    return [(fit.model, params) for params in loops.unstack(fit.params)]


def with_mixtures(fit: Fitted, train: np.ndarray) -> list[Member]:
    """Return the model of each seed with a Gaussian mixture fitted to its codes of training data as its prior."""
    encode = jax.jit(lambda params: fit.model.encode(params, jnp.asarray(train)).mean())
    codes = [(model, params, encode(params)) for model, params in members_of(fit)]
    return [priors.fit_mixture(*member, seed=seed) for seed, member in enumerate(codes)]


def _point(beta: float, fit: Fitted, seen: list[Pictures], judge: Judge) -> dict[str, Any]:
    """Return what a weight of the rate makes of reconstruction and of generation: intervals over seeds."""
    found = [judge.measures(one) for one in seen]
    measures = {
        "reconstruction MSE": [test["mse_at_mean"] for test in fit.results["test"]],
        "rate": [test["rate"] for test in fit.results["test"]],
        **{name: [seed[name] for seed in found] for name in ("... above that of data to data", "confident samples")},
    }
    intervals = {name: statistics.interval(np.array(values))._asdict() for name, values in measures.items()}
    return {"beta": beta, **intervals}


def _stacked(columns: dict[str, list[dict[str, Any]]]) -> dict[str, np.ndarray]:
    """Return `{"measure | column": values [S, ...]}`."""
    return {
        f"{measure} | {column}": np.array([seed[measure] for seed in seeds], np.float64)
        for column, seeds in columns.items()
        for measure in seeds[0]
    }


def _measured(table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the measures that are numbers: the Gaussian fit to fewer codes than these have numbers has no density."""
    found = {name: values for name, values in table.items() if np.isfinite(values).all()}
    missing = sorted({name.split(" | ")[0] for name in table.keys() - found.keys()})
    if missing:
        terminal.note(f"left out, with what is claimed of it, as it is no number on these images: {', '.join(missing)}")
    return found


def _training_images(prepared: Prepared) -> np.ndarray:
    """Return training images as the models see them, at most 20,000."""
    return np.asarray(prepared.rows("train", jax.random.key(0))[:20_000])


def _output(out: Path, force: bool) -> Path:
    if not (out.is_dir() and any(out.iterdir())):
        return directory.create_directory(out)
    if not force:
        raise types.InputError(
            "--out",
            got=f"{out}, which is not empty",
            expected="a new directory",
            hint=f"type --force to replace the results in it, or --out {durable.unused(out)}",
        )
    return out


def draw(path: Path, encoders: dict[str, Fitted], prepared: Prepared, results: dict[str, Any]) -> None:
    """Draw the picture: everything of the first seed."""
    import ae_vs_vae_picture as picture

    shown = picture.panels({name: members_of(encoders[name])[0] for name in picture.COLUMNS}, prepared)
    words = {"headings": picture.headings(results), "verdicts": picture.verdicts(results)}
    picture.comparison(path, shown, title=prepared.name, results=results, **words)


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(ae_vs_vae, sys.argv[1:], prog="ae_vs_vae")()
