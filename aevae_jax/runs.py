"""A run is a value; training is a pure function of it; a run directory is what it leaves behind.

`run.json` holds the value and what its bits rest on, `metrics.jsonl` a line per epoch, `weights.safetensors` the
selected parameters, `results.json` the final figures.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax import records, values
from aevae_jax.data import Data, Dataset, Prepared, datasets, prepare, tables
from aevae_jax.likelihoods import Tabular
from aevae_jax.models import VAE, Autoencoder, Model
from aevae_jax.objectives import ELBO, IWAE, Objective, ReconstructionError
from aevae_jax.optimizers import Adam
from aevae_jax.types import InputError, LatentModel, Params

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Run:
    """Everything that a training depends on.

    Args:
      data: the data set and its preparation.
      model: what is trained; its `event_shape` is taken from the data where it is left empty.
      objective: the loss; left out, it follows the model: ReconstructionError() for an Autoencoder, else ELBO().
      optimizer: how it is minimised.
      batch_size: examples per step.
      epochs: passes over the training data, at most.
      seed: of everything random.
      ema: decay of the moving average of the parameters that evaluation uses, 0 for none.
      patience: stop after so many epochs without a better validation bound, 0 for never.
    """

    data: Data = Data()
    model: Model = VAE()
    objective: Objective = None  # type: ignore[assignment]  # never None after __post_init__
    optimizer: Adam = Adam()
    batch_size: int = 128
    epochs: int = 100
    seed: int = 0
    ema: float = 0.0
    patience: int = 0

    def __post_init__(self) -> None:
        if self.objective is None:
            default = ReconstructionError() if isinstance(self.model, Autoencoder) else ELBO()
            object.__setattr__(self, "objective", default)
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise InputError(name, got=getattr(self, name), expected="at least 1")
        if not 0 <= self.seed < 2**32:
            raise InputError("seed", got=self.seed, expected="0 to 4294967295")
        if not 0 <= self.ema < 1:
            raise InputError("ema", got=self.ema, expected="at least 0 and less than 1")
        if self.patience < 0:
            raise InputError("patience", got=self.patience, expected="at least 0")
        if isinstance(self.model, Autoencoder) and isinstance(self.objective, ELBO | IWAE):
            raise InputError("objective of an Autoencoder", got=type(self.objective).__name__,
                             expected="ReconstructionError(): its codes are points, which have no KL")  # fmt: skip


class Epoch(NamedTuple):
    """What is known after an epoch; with several seeds, means over them."""

    epoch: int
    epochs: int
    step: int
    train: dict[str, float]
    validation: dict[str, float]
    examples_per_second: float


class Fitted(NamedTuple):
    """A trained model, ready to call."""

    run: Run
    model: LatentModel
    params: Params
    """The parameters of the epoch with the best validation bound; with several seeds, each leaf has a leading axis."""
    history: list[dict[str, Any]]
    """One entry per epoch: epoch, step, train and validation metrics."""
    results: dict[str, Any]
    """Validation and test metrics of `params`; with several seeds, one list entry per seed."""


OnEpoch = Callable[[Epoch], None]


def fit(
    run: Run,
    dataset: Dataset | None = None,
    *,
    directory: str | Path | None = None,
    stream: bool | None = None,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Train one model.

    Args:
      run: the value.
      dataset: data of your own, in place of what `run.data` names.
      directory: a new directory to leave the run in; `None` writes nothing.
      stream: read batches ahead from where the data is (True), or keep all of it on the device (False). By default it
        is kept if it is at most 1 GiB. The numbers are the same.
      on_epoch: called after every epoch.

    Raises:
      InputError: before anything is written, if the run, the data and the directory do not fit; or when the loss
        stops being a number.
    """
    plan = _plan(run, dataset, stream)
    if directory is None:
        return _train(plan, None, on_epoch)
    record = {
        "run": values.to_tree(plan.run),
        "digest": values.digest(plan.run),
        "format": values.to_tree(plan.prepared.format),
        "provenance": records.provenance(plan.dataset),
    }
    folder = records.create_directory(Path(directory))
    records.write_json(folder / "run.json", record)
    with (folder / "metrics.jsonl").open("w") as file:

        def log(epoch: Epoch) -> None:
            line = {"epoch": epoch.epoch, "step": epoch.step, "train": epoch.train, "validation": epoch.validation}
            file.write(json.dumps(line) + "\n")
            file.flush()
            if on_epoch is not None:
                on_epoch(epoch)

        fitted = _train(plan, None, log)
    from aevae_jax.weights import save_weights

    save_weights(folder / "weights.safetensors", fitted.params)
    records.write_json(folder / "results.json", fitted.results)
    _save_pictures(folder, plan, fitted)
    return fitted


def fit_seeds(
    run: Run,
    seeds: Sequence[int],
    dataset: Dataset | None = None,
    *,
    stream: bool | None = None,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Train one model per seed, all at once, by `vmap` of the same step. `run.seed` is not used.

    Each seed has its own initialisation, order and noise, as if trained alone, within float32 rounding. `stream` is as
    in `fit`; every seed reads its own batches.
    """
    if not seeds or any(not 0 <= seed < 2**32 for seed in seeds):
        raise InputError("seeds", got=list(seeds), expected="at least one, each from 0 to 4294967295")
    return _train(_plan(run, dataset, stream), tuple(seeds), on_epoch)


def load_run(directory: str | Path, model: LatentModel | None = None) -> Fitted:
    """A run directory as a model and parameters ready to call.

    Args:
      directory: written by `fit`.
      model: needed only if the run was trained with modules, losses or likelihoods of your own. The objective of the
        run that is given back is then the default of that model.

    Raises:
      InputError: no run there, a damaged file, a field or type that no run can have, weights of another model.
    """
    import jax

    from aevae_jax.weights import load_weights

    folder = Path(directory)
    record = records.read_json(folder / "run.json")
    tree = record.get("run") if isinstance(record, dict) else None
    if not isinstance(tree, dict):
        raise InputError("run", got="a file without one", expected='an object "run"', where=str(folder / "run.json"))
    if model is not None:  # objects given from Python cannot be rebuilt, and need not be
        tree = {name: field for name, field in tree.items() if name not in ("model", "objective")}
    run = values.from_tree(Run, tree, str(folder / "run.json"))
    if model is not None:
        run = replace(run, model=model, objective=None)
    shapes = jax.eval_shape((model or run.model).init, jax.random.key(0))
    params = load_weights(folder / "weights.safetensors", shapes)
    history = records.read_json(folder / "metrics.jsonl", lines=True)
    return Fitted(run, model or run.model, params, history, records.read_json(folder / "results.json"))


class _Plan(NamedTuple):
    """A run whose parts have been seen to fit together."""

    run: Run
    dataset: Dataset
    prepared: Prepared
    stream: bool


def _plan(run: Run, dataset: Dataset | None, stream: bool | None) -> _Plan:
    import jax

    from aevae_jax import evaluation, keys
    from aevae_jax.training import steps_per_epoch

    dataset = run.data.load() if dataset is None else dataset
    for part in datasets.PARTS:
        if len(getattr(dataset, part)) == 0:
            raise InputError(f"{dataset.name} {part}", got="0 examples", expected="at least 1")
    prepared = prepare(run.data.preparation, dataset)
    run = replace(run, model=_shaped(run.model, prepared))
    steps_per_epoch(prepared.train.x, run.batch_size)
    support = getattr(getattr(run.model, "likelihood", None), "support", None)
    if support is not None:
        _check_support(support, prepared)
    if stream is None:
        stream = datasets.size_in_bytes(prepared.train.x) > datasets.RESIDENT_BYTES

    def everything(raw: jax.Array, x: jax.Array, key: jax.Array) -> Any:
        k1, k2, k3, k4 = jax.random.split(key, 4)
        params = run.model.init(k1)
        batch = prepared.batch(raw, k2)
        step = jax.numpy.zeros((), int)
        return run.objective(run.model, params, batch, k3, step), evaluation.bound_terms(run.model, params, x, k4)

    # the networks, the loss and the measures fit the shapes; nothing is computed
    jax.eval_shape(everything, prepared.train.x[: run.batch_size], prepared.validation.x[:1], keys.root(0))
    return _Plan(run, dataset, prepared, stream)


def _shaped(model: Any, prepared: Prepared) -> Any:
    """The model with what its value leaves to the data: the shape of an event, and the columns of a table."""
    shape, likelihood = getattr(model, "event_shape", None), getattr(model, "likelihood", None)
    if shape == ():
        model = replace(model, event_shape=prepared.event_shape)
    elif shape is not None and shape != prepared.event_shape:
        raise InputError("event_shape of the model", got=shape,
                         expected=f"{prepared.event_shape}, as in {prepared.name}")  # fmt: skip
    if isinstance(likelihood, Tabular):
        columns = tables.widths(prepared.format.columns)
        if not columns:
            raise InputError("likelihood", got="Tabular()", expected=f"another one: {prepared.name} is not a table")
        if likelihood.columns not in ((), columns):
            raise InputError("columns of the likelihood", got=likelihood.columns,
                             expected=f"{columns}, as in {prepared.name}")  # fmt: skip
        model = replace(model, likelihood=replace(likelihood, columns=columns))
    elif prepared.format.columns and likelihood is not None:
        raise InputError(f"likelihood of a table ({prepared.name})", got=type(likelihood).__name__,
                         expected="Tabular()", hint="type: --model 'VAE(likelihood=Tabular())'")  # fmt: skip
    return model


def _check_support(support: Any, prepared: Prepared) -> None:
    """Refuse data that the likelihood cannot score. Of integer levels, those that occur are checked, each once."""
    import jax
    import numpy as np

    for part in ("validation", "test"):
        for _, x in datasets.blocks(getattr(prepared, part).x):
            support.check(x, f"{prepared.name} {part}")
    if prepared.train.x.dtype == np.uint8:
        occurs = np.zeros(256, bool)
        for _, raw in datasets.blocks(prepared.train.x):
            occurs[raw] = True
        levels = np.flatnonzero(occurs).astype(np.uint8)[:, None]
        support.check(np.asarray(prepared.batch(levels, jax.random.key(0))), f"{prepared.name} train, levels")
        return
    for _, raw in datasets.blocks(prepared.train.x):
        support.check(np.asarray(prepared.batch(raw, jax.random.key(0))), f"{prepared.name} train")


def _train(plan: _Plan, seeds: tuple[int, ...] | None, on_epoch: OnEpoch | None) -> Fitted:
    """The one training loop: host code between epochs, array programs inside them."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from aevae_jax import evaluation, keys, training
    from aevae_jax.data import streams

    run, _, prepared, stream = plan
    source, validation, test = (getattr(prepared, part).x for part in datasets.PARTS)
    per_epoch = training.steps_per_epoch(source, run.batch_size)
    tx = run.optimizer.build(run.epochs * per_epoch)
    step = training.make_train_step(run.model, run.objective, tx, prepare=prepared.batch, ema_decay=run.ema)
    if datasets.in_memory(validation):
        validation, test = jax.device_put((validation, test))
    data = None if stream else jax.device_put(source[:])

    def start(key: jax.Array) -> training.TrainState:
        return training.init_state(run.model, tx, key, ema=run.ema > 0)

    if seeds is None:
        lone_key = keys.root(run.seed)
        key, state, lane_keys = lone_key, jax.jit(start)(lone_key), [lone_key]
    else:
        key = jax.vmap(keys.root)(jnp.asarray(seeds, jnp.uint32))
        state, lane_keys = jax.jit(jax.vmap(start))(key), list(key)

    def lanes(params: Params) -> list[Params]:
        """The parameters of each seed."""
        if seeds is None:
            return [params]
        return [jax.tree.map(lambda a, lane=lane: a[lane], params) for lane in range(len(seeds))]

    def measure(params: Params, x: Any) -> list[dict[str, float]]:
        return [
            evaluation.evaluate(run.model, p, x, keys.stream(k, keys.Stream.EVALUATE))
            for p, k in zip(lanes(params), lane_keys, strict=True)
        ]

    best_value = np.full(len(lane_keys), math.inf)
    best_epoch = np.zeros(len(lane_keys), int)
    best = jax.tree.map(jnp.copy, state.averaged)
    history: list[dict[str, Any]] = []
    started = time.perf_counter()
    for epoch in range(1, run.epochs + 1):
        began = time.perf_counter()
        rows = training.batch_rows(key, state.step, len(source), batch_size=run.batch_size)
        windows = streams.windows(source, np.asarray(rows)) if data is None else ()
        with jax.transfer_guard("disallow"):  # an epoch never waits for the host
            if data is None:
                state, metrics = training.train_windows(step, state, windows, key)
            else:
                state, metrics = training.train_rows(step, state, data, rows, key)
        train = {name: np.asarray(m, np.float64).mean(axis=0) for name, m in metrics.items()}
        took = time.perf_counter() - began
        measured = measure(state.averaged, validation)
        value = np.array([evaluation.selection(m) for m in measured])
        if not (np.isfinite(value).all() and np.isfinite(train["loss"]).all()):
            raise InputError("loss", got=f"a value that is not finite in epoch {epoch}", expected="a number",
                             hint="lower the learning rate or set clip_norm")  # fmt: skip
        waiting = (epoch - best_epoch <= run.patience) | (run.patience == 0)  # seeds that have not stopped yet
        better = waiting & (value < best_value)
        best_value, best_epoch = np.where(better, value, best_value), np.where(better, epoch, best_epoch)
        if better.any():
            best = _choose(better[0] if seeds is None else better, state.averaged, best)
        mean = {name: float(np.mean([m[name] for m in measured])) for name in measured[0]}
        report = Epoch(
            epoch, run.epochs, epoch * per_epoch, {name: float(m.mean()) for name, m in train.items()}, mean,
            len(lane_keys) * per_epoch * run.batch_size / took,
        )  # fmt: skip
        history.append({"epoch": epoch, "step": report.step, "train": report.train, "validation": mean})
        if on_epoch is not None:
            on_epoch(report)
        if run.patience and (epoch - best_epoch >= run.patience).all():
            break
    results = {
        "protocol": "data set means; one sample of z per example; parameters of the best validation bound (beta = 1)",
        "best_epoch": best_epoch.tolist() if seeds is not None else int(best_epoch[0]),
        "seconds": round(time.perf_counter() - started, 3),
        "validation": _results(measure(best, validation), seeds),
        "test": _results(measure(best, test), seeds),
    }
    return Fitted(run, run.model, best, history, results)


def _choose(better: np.ndarray, new: Params, old: Params) -> Params:
    """`new` where better, else `old`, per seed; always a copy, since the state's buffers are donated."""
    import jax
    import jax.numpy as jnp

    def pick(n: jax.Array, o: jax.Array) -> jax.Array:
        return jnp.where(jnp.asarray(better).reshape(better.shape + (1,) * (n.ndim - better.ndim)), n, o)

    return jax.tree.map(pick, new, old)


def _results(measured: list[dict[str, float]], seeds: tuple[int, ...] | None) -> Any:
    return measured[0] if seeds is None else measured


def _save_pictures(folder: Path, plan: _Plan, fitted: Fitted) -> None:
    """Samples from the prior, and inputs above their reconstructions; nothing where events are not images."""
    prepared = plan.prepared
    if len(prepared.event_shape) != 3:
        return
    import jax
    import numpy as np

    from aevae_jax import figures, generation, keys

    key = keys.stream(keys.root(fitted.run.seed), keys.Stream.SAMPLE)
    scale = max(1, 56 // prepared.event_shape[0])
    x = jax.device_put(prepared.test.x[:16])

    @jax.jit
    def decoded(params: Params) -> tuple[jax.Array, jax.Array]:
        samples = generation.sample(fitted.model, params, key, 64).mean()
        return samples, generation.reconstruct(fitted.model, params, x)

    samples, reconstructions = (np.asarray(images) for images in decoded(fitted.params))
    pairs = np.concatenate([np.asarray(x), reconstructions])
    for name, images, columns in (("samples", samples, 8), ("reconstructions", pairs, len(x))):
        shown = prepared.preparation.inverse(images, prepared.format)
        figures.save_png(folder / f"{name}.png", figures.grid(shown, columns, scale=scale))
