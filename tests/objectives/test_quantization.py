"""Losses of discrete codes: by hand on small numbers, and honest as bounds."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import refused
from oracles import encode, random_params
from scipy.special import logsumexp

from aevae_jax import VAE, VQVAE, CategoricalVAE, evaluation
from aevae_jax.data import from_arrays, prepare
from aevae_jax.data.preparation import Scale
from aevae_jax.evaluation import importance
from aevae_jax.models import priors
from aevae_jax.models.architectures import MLP
from aevae_jax.models.code_priors import CausalTransformer, MarginalCodes
from aevae_jax.models.likelihoods import Categorical, Normal
from aevae_jax.models.quantizers import FSQ, Codebook
from aevae_jax.objectives import bounds, quantization
from aevae_jax.objectives.losses import ELBO, IWAE, LinearWarmup
from aevae_jax.objectives.quantization import VQ, GumbelSoftmax
from aevae_jax.runs import resolution
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


def fresh():
    """The same key, which nobody has used."""
    return jax.random.key(5)


def model_of(**fields):
    given = {"latent": (2, 3), "network": MLP(()), "likelihood": Normal(), "event_shape": (4,), **fields}
    return VQVAE(**given)


def params_of(model, seed=0):
    params = random_params(model, seed)
    if "statistics" in params:
        params["statistics"]["unused"] = jnp.zeros_like(params["statistics"]["unused"])  # it has begun
    return params


def loss_of(objective, model, params, x=X):
    return jax.jit(lambda p, x, key: objective(model, p, x, key, 0)[:2])(params, x, fresh())


# --- VQ ---


@pytest.mark.parametrize("learning", ["averages", "gradient"])
def test_the_loss_is_the_negative_elbo_and_squared_distances(learning):
    model = model_of(quantizer=Codebook(5, learning=learning))
    params = params_of(model)
    loss, metrics = loss_of(VQ(0.4), model, params)
    out = params["encoder"]["out"]
    raw = (np.asarray(X, np.float64) @ np.asarray(out["kernel"]) + np.asarray(out["bias"])).reshape(6, 2, 3)
    table = np.asarray(model.book(params).table[0], np.float64)
    distance = ((raw[:, :, None] - table) ** 2).sum(axis=-1)
    code = table[distance.argmin(axis=-1)].reshape(6, 6)
    own = params["decoder"]["out"]
    mean = code @ np.asarray(own["kernel"], np.float64) + np.asarray(own["bias"])
    distortion = (0.5 * (np.asarray(X) - mean) ** 2 + 0.5 * np.log(2 * np.pi)).sum(axis=1).mean()
    rate, error = 2 * np.log(5), distance.min(axis=-1).sum(axis=1).mean()
    np.testing.assert_allclose(metrics["distortion"], distortion, rtol=1e-5)
    np.testing.assert_allclose(metrics["rate"], rate, rtol=1e-6)
    np.testing.assert_allclose(metrics["commitment"], error, rtol=1e-5)
    both = 1.4 if learning == "gradient" else 0.4
    np.testing.assert_allclose(loss, distortion + rate + both * error, rtol=1e-5)
    assert ("codebook_error" in metrics) == (learning == "gradient")


@pytest.mark.slow
@pytest.mark.parametrize("learning", ["averages", "gradient"])
def test_a_batch_with_every_example_twice_has_the_same_loss_and_gradient(learning):
    model = model_of(quantizer=Codebook(5, 3, learning=learning))
    params = params_of(model)
    trained = {name: own for name, own in params.items() if name != "statistics"}

    def loss(own, x):
        value, metrics, after = VQ()(model, {**own, "statistics": params["statistics"]}, x, fresh(), 0)
        return value, (metrics, after)

    once, twice = (jax.jit(jax.value_and_grad(loss, has_aux=True))(trained, x) for x in (X, jnp.concatenate([X, X])))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), once, twice)


def test_codes_without_a_codebook_have_the_bound_alone():
    model = model_of(latent=(3, 2), quantizer=FSQ((3, 4)))
    params = random_params(model)
    loss, metrics = loss_of(VQ(9.0), model, params)
    np.testing.assert_allclose(loss, metrics["negative_elbo"], rtol=1e-6)
    np.testing.assert_allclose(metrics["rate"], 3 * np.log(12), rtol=1e-6)
    np.testing.assert_allclose(loss, loss_of(ELBO(), model, params)[0], rtol=1e-6)
    assert len(jax.eval_shape(lambda params: VQ()(model, params, X, fresh(), 0), params)) == 2


# --- it is a bound ---


def test_the_bound_is_one_of_the_mixture_over_all_codes():
    """log p(x) = log sum_codes p(code) p(x|code), by enumeration; one code of it is what the bound has."""
    model = model_of(quantizer=Codebook(3), latent_prior=MarginalCodes())
    params = params_of(model)
    index = np.array(list(itertools.product(range(3), repeat=2)))
    codes = np.asarray(model.book(params).table)[0][index]
    log_p = np.asarray(jax.jit(lambda params: model.prior(params, 9).log_prob(codes))(params), np.float64)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-6)
    given = jax.jit(jax.vmap(lambda c: model.decode(params, jnp.tile(c[None], (6, 1, 1))).log_prob(X)))(codes)
    joint = log_p[:, None] + np.asarray(given, np.float64)
    own = np.asarray(encode(model, params, X).index)[..., 0]
    at = [int(np.flatnonzero((index == row).all(axis=1))[0]) for row in own]
    negative_elbo = jax.jit(lambda params: bounds.elbo(model, params, X, fresh()).negative_elbo)(params)
    np.testing.assert_allclose(-negative_elbo, joint[at, np.arange(6)], rtol=1e-5)
    assert (logsumexp(joint, axis=0) >= joint[at, np.arange(6)]).all()
    weigh = jax.jit(lambda params: bounds.log_weights(model, params, X, fresh(), 3))
    log_w = weigh(params)  # of a code without a choice
    np.testing.assert_allclose(log_w, np.tile(-negative_elbo, (3, 1)), rtol=1e-5)


def test_of_levels_it_is_bits_per_dimension():
    images = np.random.default_rng(1).integers(0, 4, (40, 2, 2, 1)).astype(np.uint8)
    prepared = prepare(Scale(), from_arrays(images, levels=4))
    model = model_of(likelihood=Categorical(4), event_shape=(2, 2, 1), quantizer=FSQ((3, 3, 3)))
    params = random_params(model)
    result, found = importance.result(model, params, prepared, fresh(), name="vq", split="test", num_samples=2)
    terms = evaluation.evaluate(model, params, prepared.test.x, fresh())
    assert found.nll.mean() == pytest.approx(terms["negative_elbo"], rel=1e-5)
    bits = importance.bits_per_dim(found.nll, model, prepared)
    assert bits.mean() == pytest.approx(terms["negative_elbo"] / (4 * np.log(2)), rel=1e-5)
    assert result.mean == pytest.approx(terms["negative_elbo"], rel=1e-5)


# --- how many codes are in use ---


@pytest.mark.parametrize("shape", [(50, 3, 1), (7, 1, 2)])
def test_perplexity_and_codes_in_use_are_those_of_frequencies(shape):
    index = np.random.default_rng(0).integers(0, 9, shape) % np.array([4, 9])[: shape[-1]]
    expected = []
    for level in range(shape[-1]):
        share = np.bincount(index[..., level].ravel()) / index[..., level].size
        share = share[share > 0]
        expected.append((np.prod(share**-share), len(share)))
    perplexity, used = np.mean(expected, axis=0)
    whole = quantization.usage(index)
    np.testing.assert_allclose([whole["perplexity"], whole["codes_used"]], [perplexity, used], rtol=1e-6)
    batch = jax.jit(quantization.batch_usage, static_argnums=1)(jnp.asarray(index), 12)
    np.testing.assert_allclose([batch["perplexity"], batch["codes_used"]], [perplexity, used], rtol=1e-5)


def test_figures_of_a_data_set_do_not_depend_on_batches():
    """Perplexity is no mean over examples: it is that of all codes together."""
    model = model_of(quantizer=Codebook(7))
    params, x = params_of(model), np.random.default_rng(2).normal(size=(11, 4)).astype(np.float32)
    metric = VQ().validation().metric
    found = [evaluation.evaluate(model, params, x, fresh(), batch_size=size, metric=metric) for size in (1, 4, 11)]
    index = np.asarray(encode(model, params, x).index)
    for measured in found:
        assert measured["perplexity"] == pytest.approx(quantization.usage(index)["perplexity"])
        assert measured["codes_used"] == len(np.unique(index))
        assert measured["negative_elbo"] == pytest.approx(found[0]["negative_elbo"])
        assert "code_indices" not in measured


# --- Gumbel-softmax ---

CATEGORICAL = CategoricalVAE((2, 3), MLP(()), Normal(), event_shape=(4,))


def test_straight_through_is_the_bound_of_one_hot_codes():
    params = random_params(CATEGORICAL)
    loss, metrics = loss_of(GumbelSoftmax(1.0, straight_through=True), CATEGORICAL, params)
    bound = bounds.elbo(CATEGORICAL, params, X, fresh())
    np.testing.assert_allclose(metrics["negative_elbo"], bound.negative_elbo.mean(), rtol=1e-5)
    assert loss == metrics["negative_elbo"]


def test_a_soft_draw_is_no_bound_and_is_not_called_one():
    params = random_params(CATEGORICAL)
    loss, metrics = loss_of(GumbelSoftmax(0.5), CATEGORICAL, params)
    assert "negative_elbo" not in metrics
    np.testing.assert_allclose(loss, metrics["relaxed_distortion"] + metrics["rate"], rtol=1e-6)
    hard = loss_of(GumbelSoftmax(1e-3), CATEGORICAL, params)[1]["relaxed_distortion"]
    exact = loss_of(GumbelSoftmax(1.0, straight_through=True), CATEGORICAL, params)[1]["distortion"]
    np.testing.assert_allclose(hard, exact, rtol=1e-3)
    assert abs(metrics["relaxed_distortion"] - exact) > 1e-2


def test_the_temperature_follows_its_schedule():
    params = random_params(CATEGORICAL)
    falling = GumbelSoftmax(LinearWarmup(10, 1.0, 0.5))
    for step, temperature in ((0, 1.0), (5, 0.75), (20, 0.5)):
        found = falling(CATEGORICAL, params, X, fresh(), step)[0]
        np.testing.assert_allclose(found, GumbelSoftmax(temperature)(CATEGORICAL, params, X, fresh(), 0)[0], rtol=1e-5)


def test_under_a_prior_of_sequences_the_rate_is_that_of_codes_that_were_drawn():
    """Not of soft vectors, whose logarithms are no probabilities of anything."""
    model = dataclasses.replace(CATEGORICAL, latent_prior=CausalTransformer(width=4, layers=1, heads=2))
    params = random_params(model)
    metrics = loss_of(GumbelSoftmax(0.7), model, params)[1]
    rate = jax.jit(lambda params: bounds.elbo(model, params, X, fresh()).rate.mean())(params)
    np.testing.assert_allclose(metrics["rate"], rate, rtol=1e-5)


# --- what is refused ---


@pytest.mark.parametrize(
    ("objective", "model", "message"),
    [
        (VQ(), VAE(2, MLP(()), Normal(), event_shape=(4,)), "model of VQ: got VAE, .*expected one such as VQVAE"),
        (GumbelSoftmax(), model_of(), "model of GumbelSoftmax: got VQVAE, .*such as CategoricalVAE"),
        (
            GumbelSoftmax(LinearWarmup(5, 0.0, 1.0)),
            CATEGORICAL,
            "GumbelSoftmax temperature: got 0, expected a positive",
        ),
    ],
    ids=["VQ", "GumbelSoftmax", "temperature"],
)
def test_a_loss_says_for_which_models_it_is(objective, model, message):
    with pytest.raises(InputError, match=message):
        objective(model, random_params(model), X, fresh(), 0)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(InputError, match="got 0, expected a positive number"):
        GumbelSoftmax(0.0)


def small(**fields):
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 3, 1)).astype(np.uint8)
    return Run(**{"batch_size": 4, **fields}), from_arrays(images)


def test_a_codebook_that_no_loss_would_train_is_refused():
    run, data = small(model=VQVAE(quantizer=Codebook(16)), objective=ELBO())
    with pytest.raises(
        InputError, match=r"objective of a VQVAE: got ELBO, which leaves its stat.*leave it out for VQ\(\)"
    ):
        resolution.resolve(run, data)
    run = dataclasses.replace(run, objective=VQ())
    assert resolution.resolve(run, data).selects == "negative_elbo"
    for objective in (ELBO(), IWAE(2)):
        resolution.resolve(dataclasses.replace(run, model=VQVAE(quantizer=FSQ()), objective=objective), data)


def test_a_codebook_larger_than_the_data_is_one_line(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (20, 3, 3, 1)).astype(np.uint8))
    model = "VQVAE((4, 2), quantizer=Codebook(4096))"
    error = refused(capsys, "train", tmp_path / "run", "--data", tmp_path / "x.npy", "--model", model)
    assert "codes of the Codebook: got 4,096, expected at most" in error
    assert not (tmp_path / "run").exists()


def test_a_density_over_discrete_codes_is_refused():
    """Its logarithm and that of a probability have no difference that means anything: mistake 41."""
    model = model_of(quantizer=Codebook(5))
    params = params_of(model)
    mixed, own = priors.fit_mixture(model, params, np.random.default_rng(0).normal(size=(30, 2, 3)), components=1)
    message = r"prior p\(z\): got Reshaped, which has a density, expected one with a mass, as VectorQuantized q\(z\|x\)"
    for estimate in (bounds.elbo, lambda *given: bounds.log_weights(*given, 2)):
        with pytest.raises(InputError, match=message):
            estimate(mixed, own, X, fresh())
