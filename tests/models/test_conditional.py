"""Models that are told something of each example, against closed forms of a conditional linear-Gaussian model."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats

from aevae_jax import keys, training
from aevae_jax.conditions import Conditioned
from aevae_jax.evaluation import ais, importance, latents, metrics
from aevae_jax.models import ConditionalAutoencoder, ConditionalVAE, generation, likelihoods, priors
from aevae_jax.models.architectures import MLP, Conv, Mixer, ResidualConv
from aevae_jax.objectives import bounds
from aevae_jax.objectives.losses import ELBO, IWAE, ReconstructionError
from aevae_jax.types import InputError

TRUTH, COUNT, CLASSES, ENTRIES = oracles.linear_gaussian(), 6, 3, 2
SHIFTS = np.random.default_rng(8).normal(size=(CLASSES + 1, 5))  # of x, by class; the last one is that of none
SLOPES = np.random.default_rng(9).normal(size=(ENTRIES, 5))  # of x, by entry of the vector
LABEL = np.array([2, 0, 1, 1, -1, 2], np.int32)
VECTOR = np.random.default_rng(10).normal(size=(COUNT, ENTRIES)).astype(np.float32)
X = np.random.default_rng(11).normal(size=(COUNT, 5)).astype(np.float32)

CONDITIONS = {"label": LABEL, "vector": VECTOR, "label and vector": {"label": LABEL, "vector": VECTOR}}


def shift(kind):
    """How far the condition moves each example, `[N, 5]`."""
    of_label, of_vector = SHIFTS[LABEL], VECTOR.astype(float) @ SLOPES
    return {"label": of_label, "vector": of_vector, "label and vector": of_label + of_vector}[kind]


def exact(kind):
    """x = W z + shift(c) + b + noise, with its true posterior: the model and its parameters."""
    model = ConditionalVAE(
        2,
        MLP(()),
        likelihoods.Normal(TRUTH.scale),
        classes=CLASSES if "label" in kind else 0,
        vector=ENTRIES if "vector" in kind else 0,
        event_shape=(5,),
    )
    inverse, scale = TRUTH.posterior_map()
    params = TRUTH.params(inverse, scale, model.log_scale_range)
    rows = [SHIFTS] if "label" in kind else []
    rows += [SLOPES, np.zeros((1, 5))] if "vector" in kind else []  # that a vector is known moves nothing
    told = np.concatenate(rows)  # [C, 5]
    kernels = {"encoder": np.pad(-told @ inverse.T, ((0, 0), (0, 2))), "decoder": told}
    for name, kernel in kernels.items():
        own = params[name]["out"]
        own["kernel"] = jnp.concatenate([own["kernel"], jnp.asarray(kernel, jnp.float32)])
    return model, params


@pytest.fixture(scope="module", params=list(CONDITIONS))
def case(request):
    """A model with exact parameters, its rows, and log p(x|c) of each."""
    model, params = exact(request.param)
    rows = Conditioned(X, CONDITIONS[request.param])
    return model, params, rows, TRUTH.log_evidence(X - shift(request.param))


def test_the_bound_is_tight_at_the_exact_posterior(case):
    """Every importance weight is p(x|c), and so is the mean of the ELBO; another condition gives another number."""
    model, params, rows, evidence = case

    @partial(jax.jit, static_argnums=2)
    def weigh(condition, key, num_samples):
        return bounds.log_weights(model.given(condition), params, X, key, num_samples)

    log_w = weigh(rows.condition, jax.random.key(0), 50)
    np.testing.assert_allclose(log_w, np.broadcast_to(evidence, log_w.shape), rtol=1e-5, atol=1e-4)
    terms = jax.jit(jax.vmap(lambda key: bounds.elbo(model.given(rows.condition), params, X, key).negative_elbo))
    oracles.assert_mean(terms(jax.random.split(jax.random.key(1), 4000)), -evidence)
    others = jax.tree.map(lambda known: known[::-1], rows.condition)
    assert (np.abs(weigh(others, jax.random.key(0), 1)[0] - evidence) > 0.01).any()


def test_estimates_of_the_likelihood_are_those_at_the_condition_of_each_example(case):
    model, params, rows, evidence = case
    found = importance.estimate(model, params, rows, jax.random.key(0), num_samples=20, batch_size=4)
    np.testing.assert_allclose(found.nll, -evidence, rtol=1e-5)
    terms = metrics.per_example(metrics.bound_terms, model, params, rows, jax.random.key(0), batch_size=4)
    alone = metrics.per_example(metrics.bound_terms, model, params, rows[3:4], jax.random.key(0))
    assert terms["negative_elbo"].shape == (COUNT,)
    np.testing.assert_allclose(terms["mse_at_mean"][3], alone["mse_at_mean"][0], rtol=1e-5)


@pytest.mark.slow
def test_annealing_brackets_the_likelihood_given_the_condition():
    model, params = exact("label")
    condition = np.arange(CLASSES).astype(np.int32)
    found = ais.bracket(
        model, params, jax.random.key(0), num=3, num_temperatures=200, leapfrogs=3, num_chains=64, condition=condition
    )
    evidence = TRUTH.log_evidence(found.x - SHIFTS[condition])
    assert (np.abs(TRUTH.log_evidence(found.x - SHIFTS[condition[::-1]]) - evidence)[[0, 2]] > 1).all()
    np.testing.assert_allclose(found.lower.log_likelihood, evidence, atol=0.15)
    np.testing.assert_allclose(found.upper.log_likelihood, evidence, atol=0.15)


def test_samples_and_reconstructions_are_those_of_the_condition(case):
    model, params, rows, _ = case
    own = model.given(rows.condition)
    z = generation.codes(own, params, jax.random.key(0), COUNT)
    told = rows.condition if isinstance(rows.condition, dict) else {"label": LABEL} if model.classes else {}
    moved = (SHIFTS[told["label"]] if "label" in told else 0) + (VECTOR @ SLOPES if model.vector else 0)
    expected = np.asarray(z, float) @ TRUTH.weight.T + TRUTH.bias + moved
    np.testing.assert_allclose(generation.sample(own, params, jax.random.key(0), COUNT).mean(), expected, rtol=1e-4)
    inverse, _ = TRUTH.posterior_map()
    codes = (X - TRUTH.bias - moved) @ inverse.T
    seen = generation.reconstruct(model, params, rows)
    np.testing.assert_allclose(seen, codes @ TRUTH.weight.T + TRUTH.bias + moved, rtol=1e-4, atol=1e-5)
    path = generation.path(model, params, rows[:1], rows[3:4], 3)
    np.testing.assert_allclose(path[:, 0], [codes[0], (codes[0] + codes[3]) / 2, codes[3]], rtol=1e-4, atol=1e-5)


def test_statistics_of_codes_are_those_of_their_posteriors():
    """The aggregate posterior is that of q(z|x, c): by hand, over the exact posteriors."""
    model, params = exact("label")
    found = latents.describe(model, params, Conditioned(X, LABEL), jax.random.key(0))
    inverse, scale = TRUTH.posterior_map()
    loc = (X - TRUTH.bias - shift("label")) @ inverse.T
    np.testing.assert_allclose(found.variance_of_means, loc.var(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.rate_per_dimension, oracles.normal_kl(loc, scale).mean(axis=0), rtol=1e-4)


def test_a_learned_prior_is_one_density_for_each_condition():
    """Examples of one class have one p(z|c), of two classes two; draws and bounds use it."""
    model = ConditionalVAE(2, MLP((4,)), likelihoods.Normal(), classes=CLASSES, learned_prior=True, event_shape=(5,))
    params = oracles.random_params(model)

    @jax.jit
    def program(params, key):
        own = model.given(LABEL)
        p, q, z = own.prior(params, COUNT), own.encode(params, X), own.encode(params, X).sample(key)
        rate = bounds.elbo(own, params, X, jax.random.key(0)).rate
        log_p = own.decode(params, z).log_prob(X)
        return p, q, rate, z, bounds.log_weight(own, params, X, q, z), log_p, q.log_prob(z)

    p, q, rate, z, weight, log_p, log_q = program(params, jax.random.key(1))
    np.testing.assert_array_equal(p.loc[0], p.loc[5])
    assert (np.abs(p.loc[0] - p.loc[1]) > 1e-4).all()
    scales = np.exp(np.asarray(p.log_scale, float))
    expected = oracles.normal_kl(np.asarray(q.loc, float), np.exp(np.asarray(q.log_scale, float)), p.loc, scales)
    np.testing.assert_allclose(rate, expected.sum(axis=1), rtol=1e-4)
    found = metrics.per_example(metrics.bound_terms, model, params, Conditioned(X, LABEL), jax.random.key(0))
    np.testing.assert_allclose(found["rate"], rate, rtol=1e-4)
    found = importance.estimate(model, params, Conditioned(X, LABEL), jax.random.key(0), num_samples=3, batch_size=2)
    assert np.isfinite(found.nll).all()
    expected = stats.norm(p.loc, scales).logpdf(z).sum(axis=1) + np.asarray(log_p) - np.asarray(log_q)
    np.testing.assert_allclose(weight, expected, rtol=1e-4)


# --- training ---


def gradient_of(model, objective, params, batch, step=0):
    differentiate = jax.jit(training.make_gradient(model, objective))
    return differentiate(params, batch, keys.root(0), jnp.asarray(step))


def test_conditions_go_with_their_examples():
    """In another order, with their conditions, the loss is the same; the conditions alone in another order, it is
    not.
    """
    model = ConditionalAutoencoder(2, MLP((4,)), classes=CLASSES, event_shape=(5,))
    params = oracles.random_params(model)
    rows, order = Conditioned(X, LABEL), np.array([3, 1, 0, 5, 4, 2])
    whole, permuted, torn = (
        gradient_of(model, ReconstructionError(), params, batch)
        for batch in (rows, rows[order], Conditioned(X, LABEL[order]))
    )
    np.testing.assert_allclose(whole.loss, permuted.loss, rtol=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), whole.gradient, permuted.gradient)
    assert abs(whole.loss - torn.loss) > 1e-3


@pytest.mark.parametrize("objective", [ELBO(), IWAE(3)], ids=["elbo", "iwae"])
def test_objectives_train_a_model_at_its_conditions(objective):
    model, params = exact("label and vector")
    rows = Conditioned(X, CONDITIONS["label and vector"])
    noise = keys.stream(keys.root(0), keys.Stream.NOISE, jnp.asarray(2))
    found = gradient_of(model, objective, params, rows, step=2)
    expected = jax.jit(lambda key: objective(model.given(rows.condition), params, X, key, jnp.asarray(2))[0])(noise)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)


def test_a_dropped_condition_is_none_and_only_in_training():
    """With probability `drop`, another draw at each step: the loss is a mean of those at the condition and at none."""
    model = ConditionalAutoencoder(
        2, MLP((4,)), classes=CLASSES, vector=ENTRIES, drop=0.25, event_shape=(5,), likelihood=likelihoods.Normal(0.5)
    )
    params = oracles.random_params(model)
    count = 2000
    told = {"label": np.tile(LABEL[:2], count // 2), "vector": np.tile(VECTOR[:2], (count // 2, 1))}
    dropped = model.dropped(told, jax.random.key(0))
    gone = np.asarray(dropped["known"]) == 0
    assert abs(gone.mean() - 0.25) < 0.05
    assert ((np.asarray(dropped["label"]) == -1) == gone).all()
    one = {name: known[:1] for name, known in told.items()}

    def losses(condition):
        own, x = model.given(condition), jnp.asarray(X[:1])
        return own.decode(params, own.encode(params, x).mean()).log_prob(x)

    none = {"label": np.array([-1]), "vector": VECTOR[:1] * 5, "known": np.zeros(1, np.float32)}
    unknown = model.decode(params, model.encode(params, X[:1]).mean()).log_prob(X[:1])
    np.testing.assert_allclose(losses(none), unknown, rtol=1e-6)
    assert abs(losses(one) - unknown) > 1e-3
    batch = Conditioned(np.repeat(X[:1], count, axis=0), {n: np.repeat(k, count, axis=0) for n, k in one.items()})
    found = [gradient_of(model, ReconstructionError(), params, batch, step).loss for step in (0, 1)]
    assert found[0] != found[1]
    share = (float(found[0]) + float(losses(one)[0])) / float(losses(one)[0] - unknown[0])
    assert abs(share - 0.25) < 0.05
    assert training.make_gradient(dataclasses.replace(model, drop=0.0), ReconstructionError())


def test_conditions_are_dropped_with_the_probability_by_the_place_in_the_whole_batch():
    """Within four standard errors; and by key and place alone, so that a part of a batch has the noise of the whole."""
    count = 20_000
    label = np.arange(count, dtype=np.int32) % CLASSES
    for drop in (0.1, 0.5):
        model = ConditionalVAE(classes=CLASSES, drop=drop)
        gone = np.asarray(model.dropped(label, jax.random.key(0))["label"]) < 0
        assert abs(gone.mean() - drop) < 4 * np.sqrt(drop * (1 - drop) / count)
        part = model.dropped(label[:10], jax.random.key(0))["label"]
        np.testing.assert_array_equal(part < 0, gone[:10])
        again = model.dropped(label, jax.random.key(1))["label"]
        assert ((again < 0) != gone).any()


def test_a_condition_that_is_never_dropped_is_as_without_the_option():
    model = ConditionalVAE(2, MLP((4,)), classes=CLASSES, event_shape=(5,))
    assert model == dataclasses.replace(model, drop=0.0)
    assert model.dropped(LABEL, jax.random.key(0)) is LABEL


def test_a_condition_that_is_always_dropped_is_never_seen():
    """Whatever it is, loss and gradient are the same to the bit, and those of the model that is told nothing."""
    told = CONDITIONS["label and vector"]
    model = ConditionalAutoencoder(2, MLP((4,)), classes=CLASSES, vector=ENTRIES, drop=1.0, event_shape=(5,))
    params = oracles.random_params(model)
    others = {"label": told["label"][::-1], "vector": 3 - told["vector"]}
    found = [gradient_of(model, ReconstructionError(), params, Conditioned(X, each)) for each in (told, others)]
    jax.tree.map(np.testing.assert_array_equal, found[0], found[1])
    expected, _ = ReconstructionError()(model, params, X, jax.random.key(0), jnp.asarray(0))
    np.testing.assert_allclose(found[0].loss, expected, rtol=1e-6)


# --- architectures ---


@pytest.mark.parametrize(
    "network", [MLP((4,)), Conv((2,)), ResidualConv((2,)), Mixer(4, 3, 1)], ids=lambda n: type(n).__name__
)
def test_every_architecture_sees_the_condition_in_encoder_and_decoder(network):
    model = ConditionalVAE(3, network, likelihoods.Bernoulli(), classes=CLASSES, vector=ENTRIES, event_shape=(6, 5, 2))
    params = oracles.random_params(model)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (COUNT, 6, 5, 2)), jnp.float32)
    condition = CONDITIONS["label and vector"]
    encode = jax.jit(lambda condition: model.given(condition).encode(params, x).mean())
    decode = jax.jit(lambda condition: model.given(condition).decode(params, jnp.ones((COUNT, 3))).mean())
    found = np.asarray(encode(condition))
    assert found.shape == (COUNT, 3)
    for name in condition:
        other = {**condition, name: np.roll(condition[name], 1, axis=0)}
        changed = (condition[name] != other[name]).reshape(COUNT, -1).any(axis=1)
        assert ((np.abs(np.asarray(encode(other)) - found) > 1e-7).any(axis=1) == changed).all()
        means = [np.asarray(decode(c)).reshape(COUNT, -1) for c in (condition, other)]
        assert ((np.abs(means[0] - means[1]) > 1e-7).any(axis=1) == changed).all()


# --- bad input ---


BAD = [
    (np.array([0, CLASSES]), "class .*: got 3, expected 0 to 2"),
    (np.array([0, -2]), "class .*: got -2, expected 0 to 2"),
    (np.array(["seven", "one"]), "condition: got vector of type <U5"),
    (np.zeros((2, 3), int), r"condition: got label of type int64 and shape \(2, 3\)"),
    ({"colour": np.zeros(2, int)}, "condition: got colour"),
    (np.array([0, 1, 2]), r"label of the condition: got shape \(3,\), expected \(2,\)"),
    (np.zeros((2, 2), np.float32), "condition of a ConditionalVAE: got vector, expected label"),
    (None, "condition of a ConditionalVAE: got none, expected a batch Conditioned"),
]


@pytest.mark.parametrize(("condition", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_conditions_of_another_kind_are_refused_in_a_line(condition, message):
    model, params = exact("label")
    with pytest.raises(InputError, match=message) as error:
        model.encode(params, X[:2]) if condition is None else model.given(condition).encode(params, X[:2])
    assert "\n" not in str(error.value)


def test_a_learned_prior_takes_the_place_of_the_other():
    with pytest.raises(InputError, match="expected one of them"):
        ConditionalVAE(learned_prior=True, latent_prior=priors.GaussianMixture())
