"""What every exported thing must keep. Classes are found in their modules: a new one is tested by being there."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import types
import typing
from functools import partial
from typing import Any

import chex
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import random_params

import aevae_jax
from aevae_jax import VAE, Autoencoder, data, models, objectives, values
from aevae_jax.conditions import Conditional
from aevae_jax.data import datasets, preparation
from aevae_jax.distributions import (
    bijections,
    books,
    discrete,
    elementary,
    flows,
    interlaced,
    joint,
    logistic,
    rounded,
    tabular,
)
from aevae_jax.models import (
    architectures,
    code_priors,
    codes,
    flow_priors,
    likelihoods,
    parts,
    posteriors,
    priors,
    quantizers,
)
from aevae_jax.objectives import bounds, denoising, losses, nominal, sparse, total_correlation, wrapping
from aevae_jax.objectives.families import Loss
from aevae_jax.training import parameters
from aevae_jax.types import Distribution, InputError, LatentModel, Measure, Objective, SizeNeeding, Validated

B, EVENT, LATENT = 4, (3,), 2


def public_classes(module: types.ModuleType) -> list[type]:
    return [
        cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and cls.__module__ == module.__name__ and not name.startswith("_")
    ]


def having(module: types.ModuleType, *names: str) -> list[type]:
    """Public classes of a module with these attributes of their own."""
    return [cls for cls in public_classes(module) if all(hasattr(cls, name) for name in names)]


def parameters_of(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def named(cls: type) -> str:
    return cls.__name__


NO_FAMILIES = {
    "architectures",
    "codes",
    "flow_networks",
    "flow_priors",
    "generation",
    "likelihoods",
    "networks",
    "parts",
}
NO_FAMILIES |= {"code_networks", "code_priors", "quantizers"}
FAMILIES = [
    importlib.import_module(f"aevae_jax.models.{file.name}")
    for file in pkgutil.iter_modules(models.__path__)
    if file.name not in NO_FAMILIES | {"posteriors", "priors"}
]
LOSSES = [
    importlib.import_module(f"aevae_jax.objectives.{file.name}")
    for file in pkgutil.iter_modules(objectives.__path__)
    if file.name != "bounds"
]
OF_DISTRIBUTIONS = (discrete, elementary, flows, interlaced, joint, logistic, rounded, tabular)
DISTRIBUTIONS = [cls for module in OF_DISTRIBUTIONS for cls in having(module, "log_prob")]
BIJECTIONS = [cls for cls in having(bijections, "forward", "inverse") if dataclasses.is_dataclass(cls)]
LIKELIHOODS = having(likelihoods, "outputs")
ARCHITECTURES = having(architectures, "encoder")
PRIORS = [*having(priors, "init"), *having(flow_priors, "init")]
POSTERIORS = having(posteriors, "outputs")
CODE_PRIORS = having(code_priors, "init")
QUANTIZERS = having(quantizers, "book")
MODELS = [cls for module in FAMILIES for cls in having(module, "encode")]


def called_with(*names: str) -> list[type]:
    """Classes of losses, and of what they are made of, whose instances are called with these arguments."""
    return [cls for module in LOSSES for cls in public_classes(module) if parameters_of(cls.__call__) == list(names)]


OBJECTIVES = called_with(*parameters_of(Objective.__call__))
WEIGHTS = called_with("step")
CORRUPTIONS = called_with("x", "key")
PENALTIES = called_with("model", "z")
DISCRIMINATORS = called_with("params", "z")
CODES = having(codes, "range")
PREPARATIONS = having(preparation, "fit", "train", "evaluation")
SPLITS = list(typing.get_args(data.Splits))
OF_LOSSES = [*OBJECTIVES, *WEIGHTS, *CORRUPTIONS, *PENALTIES, *DISCRIMINATORS]
OF_MODELS = [*LIKELIHOODS, *ARCHITECTURES, *PRIORS, *POSTERIORS, *CODES, *CODE_PRIORS, *QUANTIZERS, *MODELS]
VALUES = [*OF_MODELS, *OF_LOSSES, *PREPARATIONS, *SPLITS]


def numbers(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).uniform(0.1, 0.9, size=shape), jnp.float32)


# --- nothing escapes ---


def test_every_public_class_is_of_a_known_kind():
    """A class of a new kind must be given its contract here."""
    of_models = (likelihoods, architectures, priors, flow_priors, posteriors, codes, code_priors, quantizers)
    of_values = (*of_models, *FAMILIES, *LOSSES, preparation)
    found = {cls for module in (*OF_DISTRIBUTIONS, bijections, *of_values) for cls in public_classes(module)}
    others = {
        bijections.Bijection,
        discrete.Network,
        likelihoods.Support,
        denoising.Seeing,
        nominal.PriorMatching,
        wrapping.Wrapping,
        total_correlation.Terms,
    }
    assert found == {*DISTRIBUTIONS, *BIJECTIONS, *VALUES, *others} - {*SPLITS}
    kinds = (DISTRIBUTIONS, BIJECTIONS, LIKELIHOODS, ARCHITECTURES, PRIORS, POSTERIORS, MODELS, OBJECTIVES, WEIGHTS)
    counts = [len(kind) for kind in kinds]
    assert all(count >= least for count, least in zip(counts, (16, 6, 10, 5, 4, 5, 4, 3, 1), strict=True))


@pytest.mark.parametrize(
    ("union", "found"),
    [
        (likelihoods.Likelihood, LIKELIHOODS),
        (architectures.Architecture, ARCHITECTURES),
        (priors.Prior, PRIORS),
        (posteriors.Posterior, POSTERIORS),
        (models.Model, MODELS),
        (codes.Code, CODES),
        (code_priors.CodePrior, CODE_PRIORS),
        (quantizers.Quantizer, QUANTIZERS),
        (Loss, OBJECTIVES),
        (denoising.Corruption, CORRUPTIONS),
        (sparse.Penalty, PENALTIES),
        (preparation.Preparation, PREPARATIONS),
    ],
    ids=[
        "likelihoods",
        "architectures",
        "priors",
        "posteriors",
        "models",
        "codes",
        "priors of codes",
        "quantizers",
        "objectives",
        "corruptions",
        "penalties",
        "preparations",
    ],
)
def test_a_run_may_name_every_one(union, found):
    assert set(typing.get_args(union)) == set(found)


MODULES = sorted(name for _, name, _ in pkgutil.walk_packages(aevae_jax.__path__, "aevae_jax."))


DOORS = {
    "distributions": "Bernoulli Categorical Chained ContinuousBernoulli Delta DiscretizedLogistic "
    "DiscretizedLogisticMixture Flow Householder IndependentCodes InterlacedLogisticMixture Marginal Mixture "
    "MultivariateNormal Normal NormalOptimalScale OneHot Quantized Reshaped SequentialCodes SmoothedLogisticMixture "
    "Tabular Uniform VectorQuantized bijections bounded pairwise_normal_log_prob rotated straight_through sum_event "
    "unbounded",
    "models": "Autoencoder CategoricalVAE CompressiveAutoencoder ConditionalAutoencoder ConditionalVAE Model "
    "SemiSupervisedVAE TwoLevelVAE VAE VQVAE architectures code_priors codes flow_priors generation likelihoods "
    "networks posteriors priors quantizers",
    "objectives": "AAE ActivationKL BetaTCVAE Capacity Contractive Cyclical DIPVAE Denoising Discriminator ELBO "
    "FactorVAE GaussianNoise GumbelSoftmax IWAE L1 LinearWarmup Loss MMD Masking PriorLikelihood ReconstructionError "
    "SaltAndPepper Seeing SemiSupervised Sparse VQ Weight bounds doubly_reparameterised_bound elbo "
    "importance_weighted_bound log_weights weight_at",
}


@pytest.mark.parametrize("wing", DOORS)
def test_doors_hand_on_what_goes_by_each_name(wing):
    door = importlib.import_module(f"aevae_jax.{wing}")
    assert sorted(door.__all__) == DOORS[wing].split()
    for name in door.__all__:
        thing = getattr(door, name)
        assert getattr(thing, "__name__", name).rpartition(".")[2] in (name, "Union"), name


def public_functions_and_classes(module: types.ModuleType) -> list[Any]:
    return [
        thing
        for name, thing in vars(module).items()
        if (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__ == module.__name__
        and not name.startswith("_")
    ]


def documented(doc: str) -> list[str]:
    """The names under `Args:`."""
    section = doc.partition("Args:\n")[2].split("\n\n")[0]
    return [name for names in re.findall(r"^  (\w+(?:, \w+)*): ", section, re.MULTILINE) for name in names.split(", ")]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_thing_says_what_it_is_and_what_it_takes(name):
    """A first paragraph that ends like a sentence, not made by `dataclass`; `Args:` has each argument, and no other."""
    module = importlib.import_module(name)
    assert module.__doc__
    for thing in public_functions_and_classes(module):
        doc = inspect.getdoc(thing) or ""
        assert re.fullmatch(r"\S.{15,}[.:?]", doc.split("\n\n")[0], re.DOTALL), thing
        assert not (inspect.isclass(thing) and doc.startswith(f"{thing.__name__}(")), thing
        if "Args:" in doc:
            assert sorted(documented(doc)) == sorted(parameters_of(thing)), thing


def test_arguments_are_found_in_a_docstring():
    """Else the test above would hold for anything."""
    doc = inspect.cleandoc("""Do something.

    Args:
      one, two: which
        three: of a line that goes on.
      four: another.

    Returns:
      five: nothing.
    """)
    assert documented(doc) == ["one", "two", "four"]


@pytest.mark.parametrize("name", MODULES)
def test_no_function_has_a_default_key(name):  # mistake 8, mistake 31
    for thing in public_functions_and_classes(importlib.import_module(name)):
        methods = [m for n, m in vars(thing).items() if inspect.isfunction(m)] if inspect.isclass(thing) else [thing]
        for function in methods:
            key = inspect.signature(function).parameters.get("key")
            assert key is None or key.default is inspect.Parameter.empty, function


# --- what all array programs keep ---


def finite(tree: Any) -> bool:
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree))


def fresh(leaf: Any, scale: float = 1.0) -> Any:
    """A float times `scale`; a key as if it had not been used."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.clone(leaf)
    return jnp.asarray(np.asarray(leaf) * np.float32(scale)) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def operations(function: Any, arguments: tuple[Any, ...], *, seen: bool) -> list[tuple[str, list[str]]]:
    """What a call does, in order, those of programs within it where these stand: operations with what they are told,
    and the types of all values.

    Constants stand there by their values, but for those that are arguments, as all are where these are `seen`.
    """
    own = [_value(leaf) for leaf in jax.tree.leaves(arguments)]
    closed = jax.make_jaxpr(lambda: function(*arguments))() if seen else jax.make_jaxpr(function)(*arguments)
    constants, found = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True)), []

    def told(variable: Any) -> str:
        is_literal = isinstance(variable, jax.extend.core.Literal)
        if not is_literal and variable not in constants:
            return str(variable.aval)
        value = _value(variable.val if is_literal else constants[variable])
        return str(variable.aval) if any(np.array_equal(value, each) for each in own) else f"{variable.aval} {value}"

    def visit(program: jax.extend.core.Jaxpr) -> None:
        for equation in program.eqns:
            inner = list(jax.extend.core.jaxprs_in_params(equation.params))
            how = [] if inner else [f"{name}={value}" for name, value in equation.params.items()]
            values = [told(variable) for variable in (*equation.invars, *equation.outvars)]
            found.append((str(equation.primitive), [*how, *values]))
            for each in inner:
                visit(each)

    visit(closed.jaxpr)
    return found


def _value(leaf: Any) -> np.ndarray:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


@pytest.mark.parametrize(
    "looks",
    [
        lambda x, traced: x + 1 if traced else x * 2,
        lambda x, traced: x + 0.5 * traced,
        lambda x, traced: x + np.full((B, B), traced),
        lambda x, traced: x.sum(axis=int(traced)),
        lambda x, traced: jax.jit(lambda y: y + 0.5 * traced)(x),
    ],
)
def test_who_looks_whether_it_is_traced_is_seen_by_its_operations(looks):
    """Else the comparison below would hold for anything."""
    arguments = (numbers(0, B, B),)

    def looking(x):
        return looks(x, isinstance(x, jax.core.Tracer))

    assert operations(looking, arguments, seen=True) != operations(looking, arguments, seen=False)


def assert_program(function: Any, *arguments: Any) -> Any:
    """One trace for two calls with other numbers; without jit the same operations; finite. Returns the values."""
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def counted(*arguments):
        return function(*arguments)

    out = counted(*jax.tree.map(fresh, arguments))
    counted(*jax.tree.map(lambda a: fresh(a, scale=1.01), arguments))
    seen, traced = (operations(function, jax.tree.map(fresh, arguments), seen=seen) for seen in (True, False))
    assert seen == traced
    assert finite(out)
    return out


def assert_gradient(function: Any, tree: Any) -> None:
    """The gradient of a scalar function of a tree is finite, and not zero everywhere."""
    leaves, structure = jax.tree.flatten(tree)
    floats = {place: leaf for place, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)}

    def of_floats(floats: dict[int, Any]) -> Any:
        return function(jax.tree.unflatten(structure, [floats.get(i, leaf) for i, leaf in enumerate(leaves)]))

    gradient = jax.jit(jax.grad(of_floats))(floats)
    assert finite(gradient)
    assert not floats or any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


# --- distributions ---


def a_normal_at(scale: jax.Array, z: jax.Array) -> elementary.Normal:
    return elementary.Normal(scale * z, 0.1 * z)


def moves(scale: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of each element by those before it, all but the first."""
    before = jnp.pad(z[:, :-1], ((0, 0), (1, 0)))
    return scale * before, jnp.tanh(scale * before)


def moves_the_rest(scale: jax.Array, a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of the two elements of three that do not stay."""
    return scale * jnp.concatenate([a, a], axis=1), jnp.tanh(scale * jnp.concatenate([a, -a], axis=1))


def every_map() -> tuple[Any, ...]:
    """Bijections of three elements, one of each kind."""
    autoregressive = bijections.Autoregressive(jax.tree_util.Partial(moves, numbers(3, B, 1)))
    return (
        bijections.Affine(numbers(0, B, *EVENT), numbers(1, B, *EVENT)),
        autoregressive,
        bijections.Reverse(),
        bijections.Coupling(jax.tree_util.Partial(moves_the_rest, numbers(4, B, 1)), 1),
        bijections.Inverse(autoregressive),
        bijections.PlanarMap(numbers(5, B, *EVENT), numbers(6, B, *EVENT), numbers(7, B)),
    )


def indices(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 5, shape), jnp.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """What follows each of K indices has its log-odds in a table `[K, K]`; before the first stands 0."""

    table: jax.Array

    def logits(self, tokens):
        return self.table[jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)))]

    def start(self, size):
        return ()

    def step(self, state, previous, position):
        return self.table[jnp.where(position == 0, 0, previous)], state


# those whose leaves are not all of one shape, or that have other fields
EXAMPLES: dict[str, Any] = {
    "Mixture": lambda: joint.Mixture(numbers(0, 5), elementary.Normal(numbers(1, 5, *EVENT), numbers(2, 5, *EVENT)), B),
    "Chained": lambda: joint.Chained(
        elementary.Normal(numbers(0, B, 2), numbers(1, B, 2)), jax.tree_util.Partial(a_normal_at, numbers(2, 1, 2)), 2
    ),
    "Marginal": lambda: joint.Marginal(
        elementary.Normal(numbers(0, B, 3), numbers(1, B, 3)),
        *(jax.tree_util.Partial(a_normal_at, numbers(seed, 1, 3)) for seed in (2, 3)),
    ),
    "MultivariateNormal": lambda: elementary.MultivariateNormal(
        numbers(0, B, *EVENT), numbers(1, B, *EVENT, *EVENT) + jnp.eye(*EVENT)[None]
    ),
    "Reshaped": lambda: joint.Reshaped(elementary.Normal(numbers(0, B, 6), numbers(1, B, 6)), (3, 2)),
    "InterlacedLogisticMixture": lambda: interlaced.InterlacedLogisticMixture(
        numbers(0, B, *EVENT, 2), numbers(1, 36, 4, 2), numbers(2, 4, 2, 6), numbers(3, 36, 4, 6), numbers(4, 4, 6)
    ),
    "Householder": lambda: flows.Householder(numbers(0, B, *EVENT), numbers(1, B, *EVENT), numbers(2, B, 2, *EVENT)),
    "Flow": lambda: flows.Flow(elementary.Normal(numbers(0, B, *EVENT), numbers(1, B, *EVENT)), every_map()),
    "Quantized": lambda: discrete.Quantized(numbers(0, B, 3, 2), indices(B, 3, 1), 5),
    "VectorQuantized": lambda: discrete.VectorQuantized(
        numbers(0, B, 3, 2), indices(B, 3, 2), numbers(1, B, 3, 2, 2), numbers(2, B, 3, 2, 2), 5
    ),
    "IndependentCodes": lambda: discrete.IndependentCodes(
        books.Codebooks(numbers(0, 2, 5, 3)), numbers(1, 4, 2, 5), (4, 6), B
    ),
    "SequentialCodes": lambda: discrete.SequentialCodes(
        books.Codebooks(numbers(0, 2, 5, 3)), Chain(numbers(1, 5, 5)), (4, 6), B
    ),
    "Tabular": lambda: tabular.Tabular(numbers(0, B, 7), (0, 2, 3)),
}


def example_distribution(cls: type) -> Any:
    """From `EXAMPLES`, or with an array `[B, 3, 2]` for each field that is one: a last axis of parameters or not."""
    if cls.__name__ in EXAMPLES:
        return EXAMPLES[cls.__name__]()
    fields = [field for field in dataclasses.fields(cls) if not field.metadata.get("static")]
    return cls(*(numbers(seed, B, 3, 2) for seed, _ in enumerate(fields)))


each_distribution = pytest.mark.parametrize("cls", DISTRIBUTIONS, ids=named)


@each_distribution
def test_distribution_has_the_signatures_of_the_contract(cls):
    assert isinstance(example_distribution(cls), Distribution)
    for name in ("sample", "log_prob", "mean", "kl"):
        assert parameters_of(getattr(cls, name)) == parameters_of(getattr(Distribution, name))


@each_distribution
def test_distribution_is_a_frozen_pytree(cls):
    q = example_distribution(cls)
    leaves, structure = jax.tree.flatten(q)
    assert leaves
    assert type(jax.tree.unflatten(structure, leaves)) is cls
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(q, dataclasses.fields(cls)[0].name, 0)
    # of some, rows share a distribution, or what makes it; so may the maps of a flow
    shared = {joint.Mixture, joint.Chained, joint.Marginal, interlaced.InterlacedLogisticMixture}
    if cls not in shared | {discrete.IndependentCodes, discrete.SequentialCodes}:
        assert all(leaf.shape[0] == B for leaf in leaves)


@each_distribution
def test_distribution_is_a_program(cls):
    def program(q, key):
        key, key_density = bounds.split_for(q, key)
        value = q.sample(key)
        return value, bounds.log_density(q, value, "a draw", key_density=key_density), q.mean()

    def of_draw(q):
        key = bounds.split_for(q, jax.random.key(0))[1]
        return bounds.log_density(q, jax.lax.stop_gradient(value), "a draw", key_density=key).sum() + q.mean().sum()

    q = example_distribution(cls)
    value, log_prob, mean = assert_program(program, q, jax.random.key(0))
    assert value.shape == mean.shape
    assert value.dtype == mean.dtype == log_prob.dtype == jnp.float32
    assert log_prob.shape == (B,)
    assert q.measure in typing.get_args(Measure)
    kl = jax.eval_shape(lambda: q.kl(q) if q.kl(q) is not NotImplemented else ())
    assert kl == () or kl.shape == (B,)
    if cls is not elementary.Delta:  # where its log_prob is finite it is constant
        assert_gradient(of_draw, q)


def test_there_is_an_example_of_each_bijection():
    assert {type(of) for of in every_map()} == set(BIJECTIONS)


@pytest.mark.parametrize("of", every_map(), ids=lambda of: type(of).__name__)
def test_bijection_is_a_program(of):
    """Also that it leads there and back; test_bijections.py has the mathematics."""
    assert isinstance(of, bijections.Bijection)

    def program(of, z):
        y, log_det = of.forward(z)
        return y, log_det, *of.inverse(y)

    z = numbers(8, B, *EVENT)
    y, log_det, again, log_det_there = assert_program(program, of, z)
    np.testing.assert_allclose(again, z, atol=1e-5)
    assert y.dtype == log_det.dtype == jnp.float32
    assert log_det.shape == log_det_there.shape == (B,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        of.forward = None


# --- values ---


def instance(cls: type) -> Any:
    """With defaults, and a small number or `None` for a field that has none."""
    needed = {field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
    hints = typing.get_type_hints(cls)
    return cls(**{name: 2 if hints[name] is int else None for name in needed})


def variations(value: Any) -> list[Any]:
    """The value with one field changed at a time."""
    hints = typing.get_type_hints(type(value))
    return [
        dataclasses.replace(value, **{field.name: another(hints[field.name], getattr(value, field.name))})
        for field in dataclasses.fields(value)
        if hints[field.name] is not Any
    ]


def another(hint: Any, old: Any) -> Any:
    """Something that the annotation allows, other than `old`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return next(choice for choice in arguments if choice != old)
    if origin is tuple and typing.get_origin(arguments[0]) is tuple:
        return (*old, (3, -0.5, 0.25))
    if origin is tuple:
        return (-5.0, 2.5) if arguments == (float, float) else (*old, 3)
    if hint is architectures.MLP:
        return architectures.MLP((5,))
    if dataclasses.is_dataclass(hint):
        return variations(old)[0]
    if hint == parts.LatentShape:
        return (*old[:-1], old[-1] + 1) if isinstance(old, tuple) else old + 1
    if isinstance(hint, types.UnionType):
        return instance(
            next(c for c in arguments if dataclasses.is_dataclass(c) and c not in (type(old), architectures.Modules))
        )
    return {bool: lambda: not old, int: lambda: old + 1, float: lambda: old / 2 if old else 0.25}[hint]()


REBUILT = [cls for cls in VALUES if cls is not architectures.Modules]
each_value = pytest.mark.parametrize("cls", REBUILT, ids=named)


@each_value
def test_value_goes_to_json_and_back(cls):
    for value in (instance(cls), *variations(instance(cls))):
        again = values.from_tree(cls, json.loads(values.to_json(value)), "here")
        assert again == value
        assert type(again) is cls
        assert values.digest(again) == values.digest(value)


@each_value
def test_value_prints_as_it_is_typed(cls):
    for value in (instance(cls), *variations(instance(cls))):
        assert values.parse(cls, repr(value), "here") == value


@each_value
def test_value_refuses_a_field_that_it_does_not_have(cls):
    tree = {**values.to_tree(instance(cls)), "no_such_field": 1}
    with pytest.raises(InputError, match="unknown field 'no_such_field'") as error:
        values.from_tree(cls, tree, "here")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cls", VALUES, ids=named)
def test_value_compares_and_hashes_by_its_fields(cls):
    value = instance(cls)
    twin = copy.deepcopy(value)
    assert twin == value
    assert hash(twin) == hash(value)
    changed = variations(value)
    assert all(other != value for other in changed)
    assert len({value, twin, *changed}) == 1 + len(changed)
    if dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(cls)[0].name, 0)


def test_modules_of_ones_own_cannot_be_rebuilt_from_a_file():
    tree = values.to_tree(architectures.Modules(lambda x: x, lambda z: z))
    with pytest.raises(InputError, match="given from Python"):
        values.from_tree(architectures.Architecture, tree, "here")


# --- preparations ---


@pytest.mark.parametrize("cls", PREPARATIONS, ids=named)
def test_preparation_keeps_its_contract(cls):
    """One program for training; evaluation data of the same shape, float32, finite, always the same."""
    assert parameters_of(cls.fit) == ["dataset"]
    assert parameters_of(cls.train) == ["raw", "key", "format"]
    assert parameters_of(cls.evaluation) == ["parts", "format"]
    assert parameters_of(cls.units) == parameters_of(cls.inverse) == ["x", "format"]
    raw = np.random.default_rng(0).integers(0, 256, (9, 4, 3, 1)).astype(np.uint8)
    dataset = datasets.Dataset(
        "raw", *(datasets.Split(raw[rows]) for rows in (slice(4), slice(4, 6), slice(6, 9))), 256
    )
    format = cls().fit(dataset)
    assert values.from_tree(datasets.Format, json.loads(values.to_json(format)), "here") == format
    batch = assert_program(lambda x, key: cls().train(x, key, format), jnp.asarray(raw[:4]), jax.random.key(0))
    prepared = [cls().evaluation([dataset.validation.x, dataset.test.x], format) for _ in range(2)]
    for x, again, split in zip(*prepared, (dataset.validation, dataset.test), strict=True):
        assert x.shape == split.x.shape
        assert x.dtype == batch.dtype == np.float32
        assert np.isfinite(x).all()
        assert np.array_equal(x, again)


# --- likelihoods, architectures, priors ---


@pytest.mark.parametrize("cls", LIKELIHOODS, ids=named)
def test_likelihood_keeps_its_contract(cls):
    likelihood = cls(EVENT) if "columns" in parameters_of(cls) else instance(cls)  # one column of three categories
    assert parameters_of(cls.init) == []
    assert parameters_of(cls.__call__) == ["params", "raw"]
    assert isinstance(likelihood.outputs, int)
    assert likelihood.outputs >= 1
    assert isinstance(likelihood.support, likelihoods.Support)
    raw, x = numbers(0, B, *EVENT, likelihood.outputs), jnp.ones((B, *EVENT))

    def program(params, raw):
        p = likelihood(params, raw)
        return p.log_prob(x), p.mean()

    log_prob, mean = assert_program(program, likelihood.init(), raw)
    assert log_prob.shape == (B,)
    assert mean.shape == (B, *EVENT)
    assert_gradient(lambda tree: program(*tree)[0].sum(), (likelihood.init(), raw))


@pytest.mark.parametrize("cls", [cls for cls in ARCHITECTURES if cls is not architectures.Modules], ids=named)
def test_architecture_keeps_its_contract(cls):
    small = (
        {"channels": (2,)}
        if "channels" in parameters_of(cls)
        else {"hidden": (3,)}
        if "hidden" in parameters_of(cls)
        else {"patch": 3, "width": 2, "blocks": 1}
        if "patch" in parameters_of(cls)
        else {}
    )
    architecture, image = cls(**small), (4, 4, 1)
    for name, x, shape in [("encoder", numbers(0, B, *image), (5,)), ("decoder", numbers(0, B, LATENT), (*image, 5))]:
        assert parameters_of(getattr(cls, name)) == ["event_shape", "outputs"]
        module = getattr(architecture, name)(image, 5)
        variables = random_params(types.SimpleNamespace(init=lambda key, module=module, x=x: module.init(key, x)))
        assert set(variables) == {"params"}  # no mutable collections
        out = assert_program(module.apply, variables, x)
        assert out.shape == (B, *shape)
        assert out.dtype == jnp.float32
        assert_gradient(lambda v, module=module, x=x: (module.apply(v, x) ** 2).sum(), variables)
        assert hash(module) == hash(getattr(architecture, name)(image, 5))


def small_model(**fields: Any) -> VAE:
    return VAE(LATENT, architectures.MLP(()), likelihoods.Normal(), event_shape=EVENT, **fields)


@pytest.mark.parametrize("cls", PRIORS, ids=named)
def test_prior_keeps_its_contract(cls):
    assert parameters_of(cls.init) == ["key", "model"]
    assert parameters_of(cls.__call__) == ["model", "params", "n"]
    fewer = {"components": 3} if "components" in parameters_of(cls) else {}
    prior = cls(**fewer)
    model = small_model(latent_prior=prior)
    params = jax.jit(model.init)(jax.random.key(0))
    assert jax.tree.structure(
        jax.eval_shape(partial(prior.init, model=model), jax.random.key(0))
    ) == jax.tree.structure(params["prior"])
    z = numbers(0, B, LATENT)

    def program(params, z):
        p = prior(model, params, B)
        return bounds.log_density(p, z, "a code", key_density=bounds.split_for(p, jax.random.key(0))[1]), p.mean()

    log_prob, mean = assert_program(program, params, z)
    assert isinstance(prior(model, params, B), Distribution)
    assert log_prob.shape == (B,)
    assert mean.shape == (B, LATENT)
    if params["prior"]:
        assert_gradient(lambda own: program({**params, "prior": own}, z)[0].sum(), params["prior"])


@pytest.mark.parametrize("cls", CODE_PRIORS, ids=named)
def test_prior_of_codes_keeps_its_contract(cls):
    assert parameters_of(cls.init) == ["key", "model"]
    assert parameters_of(cls.__call__) == ["model", "params", "n"]
    prior = cls(width=4, heads=2) if "width" in parameters_of(cls) else cls()
    shape = {**SMALL, "latent": (3, 2)}
    model = models.VQVAE(quantizer=quantizers.Codebook(5, 2), latent_prior=prior, **shape)
    params = random_params(model)

    def program(params, z):
        p = prior(model, params, B)
        return p.log_prob(z), p.mean()

    log_prob, mean = assert_program(program, params, numbers(0, B, 3, 2))
    assert isinstance(prior(model, params, B), Distribution)
    assert prior(model, params, B).measure == "mass"
    assert log_prob.shape == (B,)
    assert mean.shape == (B, 3, 2)
    if params["prior"]:
        assert_gradient(lambda own: program({**params, "prior": own}, numbers(0, B, 3, 2))[0].sum(), params["prior"])


@pytest.mark.parametrize("cls", QUANTIZERS, ids=named)
def test_quantizer_keeps_its_contract(cls):
    """Codes are those of its book, their indices lead to them, and gradients reach the outputs."""
    assert parameters_of(cls.init) == ["latent"]
    assert parameters_of(cls.__call__) == ["params", "raw"]
    quantizer = cls(codes=5, levels=2) if "codes" in parameters_of(cls) else cls()
    params = random_params(types.SimpleNamespace(init=lambda key: quantizer.init((3, 4))))
    raw = 4 * numbers(0, B, *quantizer.outputs((3, 4))) - 2

    def program(params, raw):
        q, book = quantizer(params, raw), quantizer.book(params)
        return q.code, q.index, book.vectors(q.index), book.indices(q.code), book.entries()

    code, index, vectors, again, entries = assert_program(program, params, raw)
    np.testing.assert_array_equal(vectors, code)
    np.testing.assert_array_equal(again, index)
    assert code.shape == (B, 3, 4)
    assert quantizer.merged(code).shape == raw.shape
    assert (entries.shape[0], entries.shape[1]) == quantizer.symbols
    assert index.shape == (B, 3, quantizer.symbols[0])
    assert 0 <= index.min() <= index.max() < quantizer.symbols[1]
    assert_gradient(lambda raw: (quantizer(params, raw).code ** 2).sum(), raw)


@pytest.mark.parametrize("cls", POSTERIORS, ids=named)
def test_posterior_keeps_its_contract(cls):
    assert parameters_of(cls.outputs) == ["latent"]
    assert parameters_of(cls.init) == ["key", "latent"]
    assert parameters_of(cls.__call__) == ["params", "raw", "log_scale_range"]
    posterior = cls(hidden=(4,)) if "hidden" in parameters_of(cls) else cls()
    own = random_params(types.SimpleNamespace(init=lambda key: posterior.init(key, LATENT)))
    raw = numbers(0, B, posterior.outputs(LATENT))

    def program(own, raw, key):
        q = posterior(own, raw, (-7.0, 3.0))
        z, log_q = bounds.draw(q, key)
        return z, q.mean(), bounds.log_density(q, z, "a draw", log_q), q.log_prob(z)

    z, mean, log_q, log_prob = assert_program(program, own, raw, jax.random.key(0))
    assert isinstance(posterior(own, raw, (-7.0, 3.0)), Distribution)
    assert z.shape == mean.shape == (B, LATENT)
    np.testing.assert_allclose(log_q, log_prob, atol=1e-4)
    assert_gradient(lambda tree: program(*tree, jax.random.key(0))[2].sum(), (own, raw))


# --- models and objectives ---


@pytest.mark.parametrize("cls", MODELS, ids=named)
def test_model_keeps_its_contract(cls):
    for name in ("init", "encode", "decode", "prior"):
        more = ["condition"] if issubclass(cls, Conditional) and name != "init" else []
        assert parameters_of(getattr(cls, name)) == [*parameters_of(getattr(LatentModel, name)), *more]
    model = dataclasses.replace(cls(LATENT), network=architectures.MLP((3,)), event_shape=EVENT)
    if issubclass(cls, Conditional):
        model = dataclasses.replace(model, classes=B).given(np.arange(B))
    assert isinstance(model, LatentModel)
    params = random_params(model)

    def program(params, x, key):
        q = model.encode(params, x)
        z = q.sample(key)
        p = model.decode(params, z)
        return q.mean(), z, p.log_prob(x), model.prior(params, B).log_prob(z)

    assert_program(program, params, numbers(0, B, *EVENT), jax.random.key(0))
    assert_gradient(lambda p: -program(p, numbers(0, B, *EVENT), jax.random.key(0))[2].sum(), params)


SMALL = {"latent": 2, "network": architectures.MLP(()), "likelihood": likelihoods.Normal(), "event_shape": EVENT}
MODELS_OF_OBJECTIVES = {
    "PriorLikelihood": models.VAE(latent_prior=priors.GaussianMixture(3), **SMALL),
    "VQ": models.VQVAE(quantizer=quantizers.Codebook(5, learning="gradient"), **SMALL),
    "GumbelSoftmax": models.CategoricalVAE(**SMALL),
    "SemiSupervised": models.SemiSupervisedVAE(classes=3, **SMALL).given(np.array([0, 1, 2, 1])),
}
"""Of those that not every model can be trained by."""


@pytest.mark.parametrize("cls", OBJECTIVES, ids=named)
def test_objective_keeps_its_contract(cls):
    """One trace whatever the step; a scalar, scalars beside it, and a finite gradient. On both models where it can."""
    objective = instance(cls)
    if "num_samples" in parameters_of(cls):
        objective = dataclasses.replace(objective, num_samples=3)
    if isinstance(objective, SizeNeeding):
        objective = dataclasses.replace(objective, num_examples=50)
    model = MODELS_OF_OBJECTIVES.get(cls.__name__, small_model())
    params = parameters.with_own(random_params(model), objective, model, jax.random.key(0))
    loss, metrics, *_ = assert_program(
        partial(objective, model), params, numbers(0, B, *EVENT), jax.random.key(0), jnp.asarray(3)
    )
    assert loss.shape == ()
    assert all(metric.shape == () for metric in metrics.values())
    assert "loss" in metrics
    assert isinstance(objective, Validated)
    metric, minimised = objective.validation()
    assert metric is objective.validation().metric  # compiled once
    assert minimised[0] in jax.eval_shape(partial(metric, model), params, numbers(0, B, *EVENT), jax.random.key(0))
    assert_gradient(lambda p: objective(model, p, numbers(0, B, *EVENT), jax.random.key(0), 0)[0], params)


@pytest.mark.parametrize("cls", CORRUPTIONS, ids=named)
def test_corruption_keeps_its_contract(cls):
    """Of the shape and type of the data, and random."""
    x = numbers(0, B, *EVENT)
    first = assert_program(cls(), x, jax.random.key(0))
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    assert not np.array_equal(first, cls()(x, jax.random.key(1)))


@pytest.mark.parametrize("cls", CODES, ids=named)
def test_code_keeps_its_contract(cls):
    code = cls(*[2] * len(dataclasses.fields(cls)))
    raw = 10 * (numbers(0, B, 3) - 0.5)
    z = assert_program(code, raw)
    assert z.shape == raw.shape
    low, high = code.range
    assert low <= z.min() <= z.max() <= high
    assert_gradient(lambda raw: (code(raw) ** 2).sum(), raw)


@pytest.mark.parametrize("cls", PENALTIES, ids=named)
def test_penalty_keeps_its_contract(cls):
    model = Autoencoder(3, code=codes.Sigmoid())
    assert assert_program(partial(cls(), model), numbers(0, B, 3)).shape == ()
    assert_gradient(partial(cls(), model), numbers(0, B, 3))


@pytest.mark.parametrize("cls", DISCRIMINATORS, ids=named)
def test_discriminator_keeps_its_contract(cls):
    assert parameters_of(cls.init) == ["key", "inputs"]
    discriminator = cls((4,))
    params = jax.jit(discriminator.init, static_argnums=1)(jax.random.key(0), 6)
    assert assert_program(discriminator, params, numbers(0, B, 3, 2)).shape == (B,)
    assert_gradient(lambda p: discriminator(p, numbers(0, B, 3, 2)).sum(), params)


@pytest.mark.parametrize("cls", WEIGHTS, ids=named)
def test_weight_is_a_function_of_the_step(cls):
    weight = instance(cls)
    out = [assert_program(weight, jnp.asarray(step)) for step in (0, 1, 1000)]
    assert all(w.shape == () for w in out)


def test_an_autoencoder_is_the_same_model_with_another_posterior():
    """There is no second code path: the estimators of the VAE run on it unchanged."""
    model = Autoencoder(LATENT, architectures.MLP(()), event_shape=EVENT)
    params = random_params(model)
    loss, metrics = jax.jit(lambda key: losses.ReconstructionError()(model, params, numbers(0, B, *EVENT), key, 0))(
        jax.random.key(0)
    )
    bound = aevae_jax.elbo(model, params, numbers(0, B, *EVENT), jax.random.key(0))
    np.testing.assert_allclose(bound.distortion.mean(), loss, rtol=1e-6)
    assert "rate" not in metrics
