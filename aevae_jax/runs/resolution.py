"""A run and its data seen to fit together, before anything is computed or written."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aevae_jax import conditions, evaluation, keys, limits, memory, training, values
from aevae_jax.checkpoints.store import Store
from aevae_jax.conditions import Conditional, ConditionShaped
from aevae_jax.data import Dataset, Prepared, datasets, prepare, suited, tables
from aevae_jax.data.suited import Suited
from aevae_jax.discrete import Demanding
from aevae_jax.objectives import bounds, losses
from aevae_jax.objectives.losses import LinearWarmup
from aevae_jax.runs.run import Run, usual_objective
from aevae_jax.training import loops
from aevae_jax.training.devices import Layout
from aevae_jax.training.step import TrainState
from aevae_jax.types import (
    Columned,
    InputError,
    Params,
    RateWeighted,
    Shaped,
    SizeNeeding,
    TrainingPart,
    left_open,
    likelihood_of,
    support_of,
)


class Beginning(NamedTuple):
    """What a training takes over from another run: see `beginnings.find`."""

    entries: dict[str, Any]
    """What `run.json` says of it."""
    text: str
    """In a line."""
    params: Params | None = None
    """The parameters before the first step; `None` where they are drawn."""
    state: TrainState | None = None
    """The state of the optimizer with them, where that is kept."""
    earlier: Store | None = None
    """The checkpoints to go on from, of a run that is the same but for having fewer epochs."""


class ResolvedRun(NamedTuple):
    """A run whose parts have been seen to fit together."""

    run: Run
    dataset: Dataset
    prepared: Prepared
    stream: bool
    selects: str
    """The entry of the validation metrics that parameters are selected by: the least."""
    chosen: str
    """What the run left open and took from its data, in a line; empty where it left nothing open."""
    warning: str
    """What its likelihood should not be used for, in a line; else empty."""
    layout: Layout = Layout()
    """The devices to train on; those of a population are one."""
    beginning: Beginning | None = None
    """What it takes over from another run, if it does not begin anew."""


def resolve(run: Run, dataset: Dataset | None = None, stream: bool | None = None) -> ResolvedRun:
    """Return the resolved run; `dataset` and `stream` as in `fitting.fit`.

    Raises:
      InputError: the model, the loss, the data and the batch size do not fit.
    """
    dataset = run.data.load() if dataset is None else dataset
    if not isinstance(dataset, Dataset):
        raise InputError(
            "dataset",
            got=f"a {type(dataset).__name__}",
            expected="a Dataset",
            hint="of arrays, type: ae.from_arrays(x); of a file or folder: ae.Data('PATH').load()",
        )
    dataset = run.data.with_told(dataset)
    for part in datasets.PARTS:
        if len(getattr(dataset, part)) == 0:
            raise InputError(f"{dataset.name} {part}", got="0 examples", expected="at least 1")
    prepared = prepare(run.data.preparation, dataset)
    chosen = _suiting(run.model, prepared)
    count = len(prepared.train)
    explained = suited.explained(run.model, chosen, 0 if run.batch_size else count)
    size = run.batch_size or suited.batch_size(count)
    run = replace(run, model=_shaped(_closed(run.model, chosen), prepared), batch_size=size)
    run = replace(run, objective=_sized(run.objective, prepared))
    _check_classifier(run)
    if isinstance(run.model, Demanding):
        run.model.check_examples(count)
    steps = training.steps_per_epoch(prepared.train.x, run.batch_size)
    limits.check("epochs", run.epochs, 1, limits.MOST // steps)  # a step is counted in 32 bits
    support = support_of(run.model)
    if support is not None:
        suited.check(support, prepared)
    if stream is None:
        stream = datasets.size_in_bytes(prepared.train.x) > datasets.RESIDENT_BYTES

    # the networks, the loss and the measures fit the shapes; nothing is computed
    traced = jax.make_jaxpr(partial(everything, run, prepared), return_shape=True)
    program, (params, (loss, metrics), measured) = traced(*first_inputs(run, prepared))
    for name, metric in {"loss": loss, **metrics}.items():
        if metric.shape != ():
            raise InputError(
                f"{name} of the objective",
                got=f"an array of shape {metric.shape}",
                expected="a scalar",
                hint="take its mean over the batch",
            )
    _check_memory(run, program, params)
    selects = evaluation.minimised(run.objective, measured)
    _check_schedule(run.objective)
    warning = suited.warning(likelihood_of(run.model), prepared, chosen.likelihood)
    return ResolvedRun(run, dataset, prepared, stream, selects, explained, warning)


def _check_classifier(run: Run) -> None:
    """Refuse a model that infers classes with a loss that leaves its classifier as it is drawn."""
    if not isinstance(run.model, conditions.Inferring):
        return
    if not isinstance(run.objective, conditions.TrainsClassifier | TrainingPart):
        got = f"{type(run.objective).__name__}, which trains no classifier"
        raise InputError(f"objective of a {type(run.model).__name__}", got=got, expected="SemiSupervised()")


def _check_schedule(objective: Any) -> None:
    """Refuse a schedule of one's own that does not begin with a weight."""
    weight = objective.beta if isinstance(objective, RateWeighted) else None
    if callable(weight) and not isinstance(weight, LinearWarmup):
        losses.check_weight("beta at step 0", float(weight(jnp.zeros((), int))))


def first_inputs(run: Run, prepared: Prepared) -> tuple[Any, Any, jax.Array]:
    """Return a training batch as it was loaded, one validation example and a key."""
    return prepared.train.rows[: run.batch_size], prepared.validation.rows[:1], keys.root(0)


def everything(run: Run, prepared: Prepared, raw: Any, row: Any, key: jax.Array) -> Any:
    """Compute what a training needs, once: parameters, the loss and its metrics of a batch, what is measured of one
    row.
    """
    k1, k2, k3, k4 = jax.random.split(key, 4)
    params = training.parameters.initial(run.model, run.objective, k1)
    step, (bound, x) = jnp.zeros((), int), conditions.bound_to(run.model, prepared.batch(raw, k2))
    loss = training.parameters.outcome(run.objective(bound, params, x, k3, step), params)
    if loss.statistics is None and training.parameters.split(params)[1] is not None:
        raise InputError(
            f"objective of a {type(run.model).__name__}",
            got=f"{type(run.objective).__name__}, which leaves its statistics as they are at the start",
            expected=f"one that returns them: leave it out for {values.spell(usual_objective(run.model))}",
        )
    bound, x = conditions.bound_to(run.model, row)
    return params, loss[:2], evaluation.validation_of(run.objective).metric(bound, params, x, k4)


def _check_memory(run: Run, program: Any, params: Any) -> None:
    """Refuse what cannot be held where it is computed.

    That is the parameters with their gradient and two moments, or an array of one step that alone is larger than all
    memory: both are less than what a training needs.
    """
    statistics = jax.local_devices()[0].memory_stats() or {}  # CPUs have none: the system says what is free
    available = statistics.get("bytes_limit")
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    memory.check(
        4 * size,
        what=f"size of the {type(run.model).__name__}",
        got=f"{size // 4:,} parameters",
        expected="smaller networks, a smaller latent or fewer components",
        available=available,
    )
    shape, size = loops.largest(program.jaxpr)
    memory.check(
        size,
        what="size of a step",
        got=f"an array of shape {shape}",
        expected="a smaller batch size, fewer samples or a smaller model",
        available=available,
    )


def _suiting(model: Any, prepared: Prepared) -> Suited:
    """Return what suits the data and the posterior of the model."""
    chosen = suited.suited(prepared)
    if "latent_prior" in left_open(model):
        shaped = _shaped(_closed(model, chosen), prepared)
        params = jax.eval_shape(shaped.init, keys.root(0))
        if bounds.has_flow_posterior(shaped, params, prepared.event_shape):
            return suited.without_mixtures_of_posteriors(chosen)
    return chosen


def _closed(model: Any, chosen: Suited) -> Any:
    """Return the model with what suits the data in place of the likelihood or prior that it leaves open."""
    found = {name: getattr(chosen, name) for name in left_open(model)}
    return replace(model, **found) if found else model


def _sized(objective: Any, prepared: Prepared) -> Any:
    """Return the objective with the number of training examples, where its value leaves that to the data."""
    if not isinstance(objective, SizeNeeding):
        return objective
    count = len(prepared.train)
    if objective.num_examples not in (0, count):
        raise InputError(
            "num_examples of the objective",
            got=objective.num_examples,
            expected=f"{count}, as in {prepared.name}",
            hint="leave it out: it is taken from the data",
        )
    return replace(objective, num_examples=count)  # type: ignore[type-var]


def _told(model: Any, prepared: Prepared) -> Any:
    """Return the model with the form of what it is told of each example; refuse a condition without a model that takes
    it, and the other way round.
    """
    condition, name = prepared.train.condition, type(model).__name__
    if condition is not None and not isinstance(model, Conditional):
        hint = "leave condition out of --data, or take --model 'ConditionalVAE()'"
        raise InputError(f"condition of {prepared.name}", got="one", expected=f"none: {name} takes none", hint=hint)
    if condition is None and isinstance(model, Conditional):
        hint = f"type: --data \"Data({prepared.name!r}, condition='label')\""
        raise InputError(f"condition of {prepared.name}", got="none", expected=f"what {name} is told", hint=hint)
    if not isinstance(model, ConditionShaped):
        return model
    parts = conditions.parts(condition)
    if "label" in parts:
        _check_trained(prepared)
    sizes = {
        "classes": max(len(prepared.class_names), int(np.max(parts["label"])) + 1) if "label" in parts else 0,
        "vector": parts["vector"].shape[1] if "vector" in parts else 0,
    }
    for field, size in sizes.items():
        if getattr(model, field) not in (0, size):
            expected = f"{size}, as in {prepared.name}"
            raise InputError(f"{field} of the {name}", got=getattr(model, field), expected=expected)
    whole: Any = model
    try:
        return replace(whole, **{field: size for field, size in sizes.items() if getattr(model, field) != size})
    except TypeError:  # it has no such field
        got = " and ".join(parts)
        raise InputError(f"condition of {prepared.name}", got=got, expected=f"a label alone, for {name}") from None


def _check_trained(prepared: Prepared) -> None:
    """Refuse classes of validation or test data of which no training example is told."""
    seen = np.unique(conditions.parts(prepared.train.condition)["label"])
    for part in ("validation", "test"):
        label = conditions.parts(getattr(prepared, part).condition)["label"]
        if others := np.setdiff1d(label, [*seen.tolist(), -1]).tolist():
            got = f"{datasets.class_texts(np.array(others[:1]), prepared.class_names)[0]} in {part}"
            raise InputError(f"class of {prepared.name}", got=got, expected="one that training examples have")


def _shaped(model: Any, prepared: Prepared) -> Any:
    """Return the model with what its value leaves to the data: the shape of an event, and the columns of a table."""
    likelihood = likelihood_of(model)
    if isinstance(model, Shaped):
        if model.event_shape not in ((), prepared.event_shape):
            raise InputError(
                "event_shape of the model",
                got=model.event_shape,
                expected=f"{prepared.event_shape}, as in {prepared.name}",
            )
        model = replace(model, event_shape=prepared.event_shape)  # type: ignore[type-var]
    model = _told(model, prepared)
    if isinstance(likelihood, Columned):
        fitting, name = tables.likelihood(prepared.format), type(likelihood).__name__
        if not fitting.columns:
            raise InputError("likelihood", got=f"{name}()", expected=f"another one: {prepared.name} is not a table")
        if likelihood.columns not in ((), fitting.columns) or likelihood.counts not in ((), fitting.counts):
            raise InputError(
                "columns of the likelihood",
                got=values.spell(likelihood),
                expected=f"{name}(), or {values.spell(fitting)} as in {prepared.name}",
            )
        filled: Any = likelihood
        model = replace(model, likelihood=replace(filled, columns=fitting.columns, counts=fitting.counts))
    elif prepared.format.columns and likelihood is not None:
        raise InputError(
            f"likelihood of a table ({prepared.name})",
            got=type(likelihood).__name__,
            expected="Tabular()",
            hint="leave it out of VAE(), or type: --model 'VAE(likelihood=Tabular())'",
        )
    return model
