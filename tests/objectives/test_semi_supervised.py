"""The semi-supervised VAE: against a conditional VAE and a classifier, sums over classes, and exact evidence."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from aevae_jax import evaluation, keys, training
from aevae_jax.conditions import Conditioned, Given
from aevae_jax.data import Data, from_arrays
from aevae_jax.models import VAE, ConditionalVAE, SemiSupervisedVAE, generation, likelihoods
from aevae_jax.models.architectures import MLP
from aevae_jax.objectives import bounds
from aevae_jax.objectives.families import Loss
from aevae_jax.objectives.losses import ELBO
from aevae_jax.objectives.semi_supervised import SemiSupervised
from aevae_jax.runs import fitting, resolution
from aevae_jax.runs.run import Run
from aevae_jax.runs.weights import params_digest
from aevae_jax.types import InputError

COUNT, CLASSES = 6, 3
X = np.random.default_rng(1).normal(size=(COUNT, 5)).astype(np.float32)
LABEL = np.array([2, 0, 1, 1, 0, 2], np.int32)
NONE = np.full(COUNT, -1, np.int32)

SHAPE = {"classes": CLASSES, "event_shape": (5,)}
MODEL = SemiSupervisedVAE(2, MLP((4,)), likelihoods.Normal(0.7), **SHAPE)
CONDITIONAL = ConditionalVAE(2, MLP((4,)), likelihoods.Normal(0.7), **SHAPE)
PARAMS = oracles.random_params(MODEL)


def q_of_classes(params, x=X):
    """q(y|x) of the classifier `[N, CLASSES]`, in float64, by hand: one hidden layer."""
    layers = jax.tree.map(np.asarray, params["classifier"])
    hidden = np.maximum(x @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"], 0)
    logits = np.asarray(hidden @ layers["out"]["kernel"] + layers["out"]["bias"], np.float64)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def key():
    return jax.random.key(4)


@partial(jax.jit, static_argnums=0)
def computed(model, params, label, weight, key):
    return SemiSupervised(weight)(Given(model, {"label": label}), params, X, key, jnp.asarray(0))


def loss(label, params=PARAMS, weight=1.5):
    return computed(MODEL, params, label, weight, key())[0]


@jax.jit
def conditional(params, label):
    return bounds.elbo(Given(CONDITIONAL, {"label": label}), params, X, key())


def test_with_all_labels_it_is_the_conditional_vae_and_a_classifier():
    """Loss and gradient, with the same noise: the bound on log p(x, y) under equal p(y), and the cross-entropy."""

    def expected(params):
        first, last = params["classifier"]["Dense_0"], params["classifier"]["out"]
        hidden = jax.nn.relu(X @ first["kernel"] + first["bias"][None])
        logits = hidden @ last["kernel"] + last["bias"][None]
        entropy = -jax.nn.log_softmax(logits)[np.arange(COUNT), LABEL].mean()
        bound, _ = ELBO()(CONDITIONAL.given(LABEL), params, X, key(), jnp.asarray(0))
        return bound + math.log(CLASSES) + 1.5 * entropy

    found, wanted = (jax.jit(jax.value_and_grad(f))(PARAMS) for f in (partial(loss, LABEL), expected))
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found[1], wanted[1])
    assert all(np.abs(part).max() > 1e-3 for part in jax.tree.leaves(found[1]["classifier"]))


def test_it_begins_at_the_parameters_of_the_conditional_vae():
    own, other = (jax.jit(model.init)(key()) for model in (MODEL, CONDITIONAL))
    assert own.keys() - other.keys() == {"classifier"}
    jax.tree.map(np.testing.assert_array_equal, {name: own[name] for name in other}, other)


def test_without_labels_it_is_the_sum_over_all_classes():
    """Kingma et al. 2014, equation 7, by hand; its gradient reaches the classifier, whose weight has no part in it."""
    q = q_of_classes(PARAMS)
    each = [conditional(PARAMS, np.full(COUNT, k)).negative_elbo for k in range(CLASSES)]
    each = np.stack(each, axis=1).astype(float) + math.log(CLASSES)
    expected = (q * each).sum(axis=1) + (q * np.log(q)).sum(axis=1)
    np.testing.assert_allclose(loss(NONE), expected.mean(), rtol=1e-5)
    assert loss(NONE, weight=7.0) == loss(NONE)
    moved = jax.jit(jax.grad(partial(loss, NONE)))(PARAMS)
    assert all(np.abs(part).max() > 1e-3 for part in jax.tree.leaves(moved))


def test_each_example_is_scored_by_its_own_label_or_by_none():
    """The loss is a mean over rows: of a batch and its complement together it is that of all labels and of none."""
    some = np.array([True, False, False, True, True, False])
    parts = [loss(np.where(known, LABEL, -1)) for known in (some, ~some)]
    np.testing.assert_allclose(sum(parts), loss(LABEL) + loss(NONE), rtol=1e-5)
    assert abs(parts[0] - parts[1]) > 1e-2


def test_terms_are_said_of_the_bound_that_is_trained():
    _, metrics = computed(MODEL, PARAMS, LABEL, 1.5, key())
    bound = conditional(PARAMS, LABEL)
    np.testing.assert_allclose(metrics["distortion"], bound.distortion.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["rate"], bound.rate.mean() + math.log(CLASSES), rtol=1e-5)
    np.testing.assert_allclose(metrics["negative_elbo"], metrics["distortion"] + metrics["rate"], rtol=1e-5)
    wanted = -np.log(q_of_classes(PARAMS)[np.arange(COUNT), LABEL])
    np.testing.assert_allclose(metrics["classification_loss"], wanted.mean(), rtol=1e-4)
    some = np.where(np.arange(COUNT) < 2, LABEL, -1)
    _, metrics = computed(MODEL, PARAMS, some, 1.5, key())
    np.testing.assert_allclose(metrics["classification_loss"], wanted[:2].mean(), rtol=1e-4)
    assert computed(MODEL, PARAMS, NONE, 1.5, key())[1]["classification_loss"] == 0


# --- a model of which all is known ---

TRUTH = oracles.linear_gaussian()
SHIFTS = np.random.default_rng(8).normal(size=(CLASSES + 1, 5))
LINEAR = SemiSupervisedVAE(2, MLP(()), likelihoods.Normal(TRUTH.scale), **SHAPE)


def exact():
    """x = W z + shift(y) + b + noise, with its true q(z|x, y), and a linear q(y|x) of any numbers."""
    inverse, scale = TRUTH.posterior_map()
    params = TRUTH.params(inverse, scale, LINEAR.log_scale_range)
    for name, kernel in {"encoder": np.pad(-SHIFTS @ inverse.T, ((0, 0), (0, 2))), "decoder": SHIFTS}.items():
        own = params[name]["out"]
        own["kernel"] = jnp.concatenate([own["kernel"], jnp.asarray(kernel, jnp.float32)])
    draw = np.random.default_rng(5)
    own = {"kernel": draw.normal(size=(5, CLASSES)) / 3, "bias": draw.normal(size=CLASSES)}
    return {**params, "classifier": {"out": jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), own)}}


def test_the_unlabelled_bound_is_the_evidence_less_the_divergence_of_the_classifier():
    """log p(x) by enumeration of the classes and the closed form of each; KL(q(y|x) || p(y|x)) is the whole gap."""
    params = exact()
    joint = np.stack([TRUTH.log_evidence(X - shift) - math.log(CLASSES) for shift in SHIFTS[:CLASSES]], axis=1)
    evidence = np.logaddexp.reduce(joint, axis=1)
    own = jax.tree.map(np.asarray, params["classifier"]["out"])
    logits = np.asarray(X, float) @ own["kernel"] + own["bias"]
    log_q = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    gap = (np.exp(log_q) * (log_q - joint + evidence[:, None])).sum(axis=1)
    assert (gap > 0.01).all()
    found = jax.vmap(lambda k: computed(LINEAR, params, NONE, 1.0, k)[0])(jax.random.split(key(), 4000))
    oracles.assert_mean(found, (-evidence + gap).mean())
    metric = SemiSupervised().validation().metric
    terms = jax.vmap(lambda k: metric(LINEAR.given(LABEL), params, X, k)["unlabelled_negative_elbo"])
    oracles.assert_mean(jax.jit(terms)(jax.random.split(key(), 4000)), -evidence + gap)


def test_with_the_exact_classifier_it_is_the_evidence():
    """Of Gaussians of one covariance p(y|x) is a linear classifier: the bound has no gap."""
    params = exact()
    precision = np.linalg.inv(TRUTH.weight @ TRUTH.weight.T + TRUTH.scale**2 * np.eye(5))
    means = TRUTH.bias + SHIFTS[:CLASSES]
    own = {"kernel": precision @ means.T, "bias": -0.5 * np.einsum("kd,de,ke->k", means, precision, means)}
    params["classifier"] = {"out": jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), own)}
    joint = np.stack([TRUTH.log_evidence(X - shift) - math.log(CLASSES) for shift in SHIFTS[:CLASSES]])
    found = jax.vmap(lambda k: computed(LINEAR, params, NONE, 1.0, k)[0])(jax.random.split(key(), 4000))
    oracles.assert_mean(found, -np.logaddexp.reduce(joint, axis=0).mean())


# --- what is measured, and codes where no class is known ---


@pytest.mark.slow
def test_accuracy_is_measured_beside_the_bounds_and_selects_nothing():
    q = q_of_classes(PARAMS)
    validation = SemiSupervised().validation()
    assert validation.minimised[0] == "unlabelled_negative_elbo"
    found = evaluation.per_example(validation.metric, MODEL, PARAMS, Conditioned(X, LABEL), key(), batch_size=4)
    np.testing.assert_array_equal(found["accuracy"], q.argmax(axis=1) == LABEL)
    assert 0 < found["accuracy"].mean() < 1
    np.testing.assert_allclose(found["classification_loss"], -np.log(q[np.arange(COUNT), LABEL]), rtol=1e-4)
    plain = evaluation.per_example(bounds.bound_terms, CONDITIONAL, PARAMS, Conditioned(X, LABEL), key())
    for name in plain:
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-5)
    others = evaluation.per_example(validation.metric, MODEL, PARAMS, Conditioned(X, (LABEL + 1) % 3), key())
    np.testing.assert_allclose(found["unlabelled_negative_elbo"], others["unlabelled_negative_elbo"], rtol=1e-6)


def test_where_no_class_is_known_codes_are_at_the_most_probable_one():
    best = q_of_classes(PARAMS).argmax(axis=1)
    assert len(set(best)) > 1
    some = np.where(np.arange(COUNT) < 3, LABEL, -1)
    for model, label in ((MODEL, best), (MODEL.given(some), np.where(some < 0, best, some))):
        expected = CONDITIONAL.given(label).encode(PARAMS, X).mean()
        np.testing.assert_allclose(model.encode(PARAMS, X).mean(), expected, rtol=1e-5, atol=1e-6)


def test_codes_are_not_decoded_without_a_class():
    """Refused where it is seen; a program, which does not see it, gives no number that could be taken for one."""
    z = jnp.ones((COUNT, 2))
    for model in (MODEL, MODEL.given(NONE)):
        with pytest.raises(InputError, match="class of a SemiSupervisedVAE: got none, expected one") as error:
            model.decode(PARAMS, z)
        assert "\n" not in str(error.value)
    some = np.where(np.arange(COUNT) < 3, LABEL, -1)
    means = jax.jit(lambda label: Given(MODEL, {"label": label}).decode(PARAMS, z).mean())(some)
    assert np.isnan(means[3:]).all()
    np.testing.assert_allclose(means[:3], CONDITIONAL.given(LABEL).decode(PARAMS, z).mean()[:3], rtol=1e-5)
    path = generation.reconstruct(MODEL, PARAMS, Conditioned(X, LABEL))
    np.testing.assert_allclose(path, generation.reconstruct(CONDITIONAL, PARAMS, Conditioned(X, LABEL)), rtol=1e-5)


# --- training ---


def data_set():
    x = np.random.RandomState(0).randint(0, 256, (60, 4)).astype(np.float32)
    return from_arrays(x, labels=np.arange(60) % 3)


@pytest.mark.slow
def test_a_hidden_label_is_never_seen():
    """With other values in their places, nothing changes, to the bit."""
    told = Data(condition="label", labels_per_class=2).with_told(data_set())
    hidden = told.train.condition < 0
    assert hidden.sum() == len(told.train) - 6
    others = np.where(hidden, (told.train.labels + 1) % 3, told.train.labels)
    changed = dataclasses.replace(told, train=dataclasses.replace(told.train, labels=others))
    run = Run(Data(), SemiSupervisedVAE(2, MLP((4,)), likelihoods.Normal()), epochs=2, batch_size=12)
    assert run.objective == SemiSupervised()
    found = [fitting.fit(run, each, progress=False) for each in (told, changed)]
    assert params_digest(found[0].params) == params_digest(found[1].params)
    assert found[0].results["test"] == found[1].results["test"]
    assert {"accuracy", "unlabelled_negative_elbo", "negative_elbo"} <= found[0].results["test"].keys()
    assert {"accuracy", "unlabelled_negative_elbo"} <= found[0].history[-1]["validation"].keys()
    wrong = dataclasses.replace(told.train, condition=np.where(hidden, -1, (told.train.condition + 1) % 3))
    other = fitting.fit(run, dataclasses.replace(told, train=wrong), progress=False)
    assert params_digest(found[0].params) != params_digest(other.params)


def test_gradients_are_those_of_the_loss_at_the_labels_of_the_batch():
    step = jnp.asarray(2)
    differentiate = jax.jit(training.make_gradient(MODEL, SemiSupervised()))
    found = differentiate(PARAMS, Conditioned(X, LABEL), keys.root(0), step)
    noise = keys.stream(keys.root(0), keys.Stream.NOISE, step)
    expected, _ = computed(MODEL, PARAMS, LABEL, SemiSupervised().classification, noise)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)


REFUSED = [
    (VAE(2, event_shape=(5,)), SemiSupervised(), "model of SemiSupervised: got VAE, which infers no class"),
    (CONDITIONAL, SemiSupervised(), "model of SemiSupervised: got ConditionalVAE, which infers no class"),
]


@pytest.mark.parametrize(("model", "objective", "message"), REFUSED, ids=["VAE", "ConditionalVAE"])
def test_models_that_infer_no_class_are_refused_in_a_line(model, objective: Loss, message):
    at = model.given(LABEL) if isinstance(model, ConditionalVAE) else model
    with pytest.raises(InputError, match=message) as error:
        objective(at, {}, X, key(), jnp.asarray(0))
    assert "\n" not in str(error.value)


def test_losses_that_train_no_classifier_are_refused_in_a_line():
    run = Run(Data(condition="label"), SemiSupervisedVAE(2, MLP((4,)), likelihoods.Normal()), ELBO())
    with pytest.raises(InputError, match="objective of a SemiSupervisedVAE: got ELBO, which trains no classifier") as e:
        resolution.resolve(run, data_set())
    assert "\n" not in str(e.value)


def test_a_weight_below_nothing_is_refused():
    with pytest.raises(InputError, match="SemiSupervised classification: got -1"):
        SemiSupervised(-1.0)
