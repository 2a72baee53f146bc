"""`Autoencoder` and `VAE` as values: the contract, what encoding and decoding mean, what is refused."""

from __future__ import annotations

import dataclasses
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import random_params
from scipy import special, stats

from aevae_jax import VAE, Autoencoder, distributions
from aevae_jax.distributions import joint as compound
from aevae_jax.evaluation import importance
from aevae_jax.models import TwoLevelVAE, architectures, generation, likelihoods, priors
from aevae_jax.objectives import bounds
from aevae_jax.types import Distribution, InputError, LatentModel

LATENT, EVENT, BATCH = 3, (4, 4, 1), 5
MLP = architectures.MLP((6,))
X = jnp.asarray(np.random.default_rng(0).uniform(size=(BATCH, *EVENT)), jnp.float32)
Z = jnp.asarray(np.random.default_rng(1).normal(size=(BATCH, LATENT)), jnp.float32)
MODELS = {
    "Autoencoder": Autoencoder(LATENT, MLP, event_shape=EVENT),
    "VAE": VAE(LATENT, MLP, event_shape=EVENT),
    "TwoLevelVAE": TwoLevelVAE(LATENT, MLP, event_shape=EVENT),
}
each = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())

encode = jax.jit(lambda model, params, x: model.encode(params, x), static_argnums=0)
decode = jax.jit(lambda model, params, z: model.decode(params, z), static_argnums=0)


# --- the contract ---


@each
def test_the_four_functions(model):
    params = random_params(model)
    assert isinstance(model, LatentModel)
    assert set(params) == {"encoder", "decoder", "likelihood", "prior"}
    q, p = encode(model, params, X), decode(model, params, Z)
    prior = model.prior(params, BATCH)
    assert all(isinstance(d, Distribution) for d in (q, p, prior))
    assert q.mean().shape == prior.mean().shape == (BATCH, LATENT)
    assert p.mean().shape == (BATCH, *EVENT)
    assert p.log_prob(X).shape == q.log_prob(Z).shape == prior.log_prob(Z).shape == (BATCH,)


@each
def test_parameters_are_a_function_of_the_key(model):  # mistake 8
    init = jax.jit(model.init)
    first, again, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True))
    assert all(leaf.dtype == jnp.float32 and np.isfinite(leaf).all() for leaf in jax.tree.leaves(first))
    # no two parts are drawn from one key: layers of the same shape would be equal
    kernels = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(first) if leaf.ndim == 2]
    assert len({kernel[:3].tobytes() for kernel in kernels}) == len(kernels)


def test_the_two_models_differ_in_the_posterior_alone():
    """The same decoder, likelihood and prior: given the same parameters they decode alike."""
    ae = MODELS["Autoencoder"]
    vae = dataclasses.replace(MODELS["VAE"], likelihood=ae.likelihood)
    params = random_params(ae)
    np.testing.assert_array_equal(decode(ae, params, Z).mean(), decode(vae, params, Z).mean())
    assert isinstance(encode(ae, params, X), distributions.Delta)
    assert isinstance(encode(vae, random_params(vae), X), distributions.Normal)


# --- encoding ---


def test_an_autoencoders_code_is_a_point():  # mistake 8
    model = MODELS["Autoencoder"]
    params = random_params(model)
    q = encode(model, params, X)
    np.testing.assert_array_equal(q.mean(), encode(model, params, X).mean())
    for seed in (0, 1):
        np.testing.assert_array_equal(q.sample(jax.random.key(seed)), q.mean())


def test_a_vaes_code_is_a_distribution_and_encoding_it_draws_nothing():  # mistake 8
    model = MODELS["VAE"]
    params = random_params(model)
    q = encode(model, params, X)
    chex.assert_trees_all_equal(q, encode(model, params, X))
    assert (q.scale > 0).all()
    first, second = (q.sample(jax.random.key(seed)) for seed in (0, 1))
    assert (first != second).all()
    assert (first != q.mean()).all()


def test_encoders_first_half_is_the_mean_and_the_second_the_bounded_log_scale():  # mistake 5
    model = VAE(LATENT, architectures.MLP(()), event_shape=EVENT)
    params = random_params(model)
    layer = jax.tree.map(lambda a: np.asarray(a, np.float64), params["encoder"]["out"])
    out = np.asarray(X, np.float64).reshape(BATCH, -1) @ layer["kernel"] + layer["bias"]
    q = encode(model, params, X)
    np.testing.assert_allclose(q.loc, out[:, :LATENT], atol=1e-5)
    low, high = model.log_scale_range
    u = (out[:, LATENT:] - (low + high) / 2) / ((high - low) / 2)
    expected = np.exp((low + high) / 2 + (high - low) / 2 * u / np.sqrt(1 + u**2))
    np.testing.assert_allclose(q.scale, expected, rtol=1e-4)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6])
def test_posterior_scales_stay_in_their_range(size):  # mistake 14
    model = MODELS["VAE"]
    q = encode(model, random_params(model), size * jnp.concatenate([X, -X]))
    low, high = model.log_scale_range
    assert (q.log_scale >= low).all()
    assert (q.log_scale <= high).all()
    rate = jax.jit(bounds.rate)(q, model.prior({"prior": {}}, 2 * BATCH), q.loc)
    assert np.isfinite(rate).all()


# --- decoding ---


def test_decode_returns_a_distribution_and_squashes_once():  # mistake 12
    """Shifting the last bias by c shifts the log-odds of every pixel by c: one sigmoid between them, no more."""
    model = VAE(LATENT, MLP, likelihoods.Bernoulli(), event_shape=EVENT)
    params = random_params(model)
    bias = params["decoder"]["out"]["bias"]
    shifted = {**params, "decoder": {**params["decoder"], "out": {**params["decoder"]["out"], "bias": bias + 1.5}}}
    before, after = (np.asarray(decode(model, p, Z).mean(), np.float64) for p in (params, shifted))
    np.testing.assert_allclose(special.logit(after) - special.logit(before), 1.5, atol=1e-4)


LIKELIHOODS = [likelihoods.Bernoulli(), likelihoods.NormalElementScale(), likelihoods.Categorical(levels=4)]


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda value: type(value).__name__)
def test_the_outputs_of_one_element_lie_next_to_each_other(likelihood):
    """The decoder's last bias is `[*event, outputs]`: moving that of one element moves that element alone."""
    model = VAE(LATENT, architectures.MLP(()), likelihood, event_shape=EVENT)
    params = random_params(model)
    bias = params["decoder"]["out"]["bias"]
    element, outputs = 6, likelihood.outputs
    moved = bias.at[element * outputs].add(1.0)
    after = {**params, "decoder": {"out": {**params["decoder"]["out"], "bias": moved}}}
    change = np.abs(decode(model, after, Z).mean() - decode(model, params, Z).mean()).reshape(BATCH, -1)
    assert (change[:, element] > 0).all()
    np.testing.assert_array_equal(np.delete(change, element, axis=1), 0.0)


def test_reconstruction_is_at_the_mean_and_takes_no_key():  # mistake 7, mistake 8
    model = MODELS["VAE"]
    params = random_params(model)
    ours = generation.reconstruct(model, params, X)
    np.testing.assert_allclose(ours, decode(model, params, encode(model, params, X).loc).mean(), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(ours, generation.reconstruct(model, params, X))
    assert "key" not in inspect.signature(generation.reconstruct).parameters
    assert "key" in inspect.signature(generation.sample).parameters


def test_samples_come_from_the_prior_and_the_decoder():  # mistake 8
    model = MODELS["VAE"]
    params = random_params(model)
    p = generation.sample(model, params, jax.random.key(0), 7)
    z = model.prior(params, 7).sample(jax.random.key(0))
    np.testing.assert_allclose(p.mean(), decode(model, params, z).mean(), rtol=1e-5, atol=1e-6)
    assert p.mean().shape == (7, *EVENT)


# --- what is refused ---


def one_line(error) -> bool:
    return "\n" not in str(error.value)


@each
@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 3), (5, 4, 1), (16,), (), (1, 4, 4, 1), (4, 4, 1, 1)])
def test_batches_of_another_shape_are_refused(model, shape):
    expected = r"shape of one example \(encode, batch of shape .*\): got \(.*\), expected \(4, 4, 1\)"
    with pytest.raises(InputError, match=expected) as error:
        model.encode(random_params(model), jnp.zeros((2, *shape)))
    assert one_line(error)


@each
@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), (), (1, 3), (2, 3)])
def test_codes_of_another_shape_are_refused(model, shape):
    expected = r"shape of one code \(decode, batch of shape .*\): got \(.*\), expected \(3,\)"
    with pytest.raises(InputError, match=expected) as error:
        model.decode(random_params(model), jnp.zeros((2, *shape)))
    assert one_line(error)


@pytest.mark.parametrize("cls", [Autoencoder, VAE, TwoLevelVAE])
@pytest.mark.parametrize("latent", [0, -1])
def test_a_latent_size_below_one_is_refused(cls, latent):
    with pytest.raises(
        InputError, match=rf"latent size \({cls.__name__}\): got {latent}, expected at least 1"
    ) as error:
        cls(latent=latent)
    assert one_line(error)


@pytest.mark.parametrize("bounds_", [(1.0, 1.0), (3.0, -7.0)])
def test_an_empty_range_of_scales_is_refused(bounds_):
    with pytest.raises(InputError, match="log_scale_range") as error:
        VAE(log_scale_range=bounds_)
    assert one_line(error)


@pytest.mark.parametrize("cls", [Autoencoder, VAE, TwoLevelVAE])
def test_a_model_without_an_event_shape_says_what_to_type(cls):
    calls = [lambda: cls().init(jax.random.key(0)), lambda: cls().encode({}, X), lambda: cls().decode({}, Z)]
    for call in calls:
        with pytest.raises(InputError, match=r"event_shape.*dataclasses\.replace\(model, event_shape") as error:
            call()
        assert one_line(error)


# --- values ---


@each
def test_models_are_values(model):
    twin = type(model)(LATENT, architectures.MLP((6,)), event_shape=EVENT)
    assert twin == model
    assert hash(twin) == hash(model)
    assert dataclasses.replace(model, latent=LATENT + 1) != model
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.latent = 2


def test_a_fitted_prior_replaces_the_old_one_without_touching_the_model():
    model = MODELS["Autoencoder"]
    params = random_params(model)
    fitted = dataclasses.replace(model, latent_prior=priors.GaussianMixture(2))
    own = {"logits": jnp.zeros(2), "loc": jnp.stack([Z[0], Z[1]]), "log_scale": jnp.full((2, LATENT), -2.0)}
    new = {**params, "prior": own}
    np.testing.assert_array_equal(encode(fitted, new, X).mean(), encode(model, params, X).mean())
    np.testing.assert_array_equal(decode(fitted, new, Z).mean(), decode(model, params, Z).mean())
    np.testing.assert_allclose(fitted.prior(new, 4).mean()[0], (Z[0] + Z[1]) / 2, rtol=1e-5)
    assert isinstance(fitted.prior(new, 4), compound.Mixture)
    assert isinstance(model.prior(params, 4), distributions.Normal)


# --- two levels ---


def test_the_levels_are_joined_by_the_chain_rule():
    """log p(z1, z2) = log p(z2) + log p(z1|z2), each a normal whose moments the networks give; the same for q."""
    model = MODELS["TwoLevelVAE"]  # z1 has two dimensions, z2 one
    params = random_params(model)
    z1, z2 = np.asarray(Z[:, :2], np.float64), np.asarray(Z[:, 2:], np.float64)

    def normal(out, z):
        loc, raw = np.split(np.asarray(out, np.float64), 2, axis=-1)
        u = (raw + 2) / 5  # the range of log scales is (-7, 3)
        return stats.norm.logpdf(z, loc, np.exp(-2 + 5 * u / np.sqrt(1 + u**2))).sum(axis=1)

    below = MLP.encoder((1,), 4).apply({"params": params["decoder"]["z1"]}, Z[:, 2:])
    expected = stats.norm.logpdf(z2).sum(axis=1) + normal(below, z1)
    np.testing.assert_allclose(model.prior(params, BATCH).log_prob(Z), expected, rtol=1e-4)
    above = MLP.encoder(EVENT, 2).apply({"params": params["encoder"]["z2"]}, X)
    beside = MLP.joint(4).apply({"params": params["encoder"]["z1"]}, X, Z[:, 2:])
    np.testing.assert_allclose(encode(model, params, X).log_prob(Z), normal(above, z2) + normal(beside, z1), rtol=1e-4)


@pytest.mark.slow
def test_the_likelihood_of_two_levels_is_the_integral_over_both():
    model = TwoLevelVAE(2, architectures.MLP((4,)), likelihoods.Bernoulli(), event_shape=(3,))
    params = random_params(model)
    x = np.asarray([[0, 1, 1], [1, 0, 1]], np.float32)
    grid = np.linspace(-8, 8, 401, dtype=np.float32)
    z = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    prior = np.asarray(model.prior(params, len(z)).log_prob(z), np.float64)
    assert np.exp(prior).sum() * 0.04**2 == pytest.approx(1, rel=1e-4)
    for one in x:
        joint = prior + np.asarray(decode(model, params, z).log_prob(np.tile(one, (len(z), 1))), np.float64)
        exact = -np.log(np.exp(joint).sum() * 0.04**2)
        found = importance.estimate(model, params, one[None], jax.random.key(0), num_samples=50_000)
        assert abs(found.nll[0] - exact) < 5 * found.sampling_error[0] + 1e-4
        assert found.sampling_error[0] < 0.05


def test_the_prior_of_two_levels_is_that_of_the_upper_one():
    """A VampPrior is made of q(z2|x)."""
    model = dataclasses.replace(MODELS["TwoLevelVAE"], latent_prior=priors.VampPrior(4))
    params = random_params(model)
    prior = model.prior(params, BATCH)
    assert isinstance(prior.above, compound.Mixture)
    pseudo = encode(model, params, params["prior"]["pseudo_inputs"])
    chex.assert_trees_all_close(prior.above.components, pseudo.above, rtol=1e-5)


def test_log_scales_of_both_levels_stay_in_the_range_of_the_model():
    model = dataclasses.replace(MODELS["TwoLevelVAE"], log_scale_range=(-1.0, 0.5))
    params = jax.tree.map(lambda leaf: 100 * leaf, random_params(model))
    q = encode(model, params, X)
    for normal in (q.above, q.below(Z[:, 2:]), model.prior(params, BATCH).below(Z[:, 2:])):
        assert ((normal.log_scale >= -1) & (normal.log_scale <= 0.5)).all()


def test_two_levels_need_two_dimensions_and_a_hidden_layer():
    with pytest.raises(InputError, match="at least 2, for two levels"):
        TwoLevelVAE(1)
    with pytest.raises(InputError, match="at least one hidden layer"):
        TwoLevelVAE(4, architectures.MLP(()))


@pytest.mark.parametrize(("latent", "sizes"), [(2, (1, 1)), (5, (3, 2)), (6, (3, 3))])
def test_the_upper_level_has_half_of_the_dimensions_rounded_down(latent, sizes):
    model = TwoLevelVAE(latent, MLP, latent_prior=priors.GaussianMixture(2), event_shape=EVENT)
    params = jax.eval_shape(model.init, jax.random.key(0))
    q = jax.eval_shape(model.encode, params, X)
    assert (q.size, q.above.loc.shape[1]) == sizes
    assert params["prior"]["loc"].shape == (2, sizes[1])


def test_log_scales_of_a_mixture_for_points_lie_between_minus_seven_and_three():
    """An autoencoder has no range of its own for what has no scale."""
    model = dataclasses.replace(MODELS["Autoencoder"], latent_prior=priors.GaussianMixture(2))
    own = {
        "logits": jnp.zeros(2),
        "loc": jnp.zeros((2, LATENT)),
        "log_scale": jnp.asarray([[-1e6], [1e6]]) * jnp.ones((2, LATENT)),
    }
    found = model.prior({"prior": own}, 1).components.log_scale
    np.testing.assert_allclose(found, np.repeat([[-7.0], [3.0]], LATENT, axis=1), atol=1e-3)


def test_scales_whose_square_is_a_number_are_all_that_is_asked_of_their_range():
    assert VAE(log_scale_range=(-1000.0, 1000.0)).log_scale_range == (-1000.0, 1000.0)
    for range_, message in [
        ((-1000.5, 0.0), "log_scale_range: got -1000.5, expected -1000 to 1000"),
        ((0.0, 1000.5), "log_scale_range: got 1000.5, expected -1000 to 1000"),
        ([-1.0, 1.0], r"log_scale_range: got \[-1.0, 1.0\], expected \(low, high\)"),
        ((0.0, 1.0, 2.0), r"log_scale_range: got \(0.0, 1.0, 2.0\), expected \(low, high\)"),
        ((1.0, 1.0), r"log_scale_range: got \(1.0, 1.0\), expected \(low, high\) with low < high"),
    ]:
        for cls in (VAE, TwoLevelVAE):
            with pytest.raises(InputError, match=f"^{message}$"):
                cls(log_scale_range=range_)


def test_what_is_refused_says_of_which_model():
    for cls in (Autoencoder, VAE, TwoLevelVAE):
        with pytest.raises(InputError, match=rf"event_shape \({cls.__name__}\): got 0, expected at least 1"):
            cls(event_shape=(3, 0))
        with pytest.raises(InputError, match=rf"event_shape \({cls.__name__}\): got \(\), expected the shape of one"):
            cls().init(jax.random.key(0))
    for make in (lambda: TwoLevelVAE(1), lambda: TwoLevelVAE(4, architectures.MLP(()))):
        with pytest.raises(InputError, match=r"\(TwoLevelVAE\): got (1|\(\)), expected at least (2|one hidden layer)"):
            make()


def test_both_levels_have_the_network_the_likelihood_and_the_prior_of_the_model():
    """Gates in all four networks, in the numbers of their hidden layers."""
    model = TwoLevelVAE(4, architectures.MLP((5, 7), gated=True), likelihoods.NormalSharedScale(0.5), event_shape=EVENT)
    params = jax.eval_shape(model.init, jax.random.key(0))
    gates = {
        f"{part} {level}": sum("gate" in layer for layer in network.values())
        for part in ("encoder", "decoder")
        for level, network in params[part].items()
    }
    assert gates == {"encoder z2": 2, "encoder z1": 3, "decoder z1": 2, "decoder x": 3}
    assert set(params["likelihood"]) == {"log_scale"}


def test_the_decoder_of_two_levels_sees_the_lower_one_first():
    """Both of one size here, so that nothing but the order tells them apart."""
    model = TwoLevelVAE(4, MLP, likelihoods.Normal(), event_shape=EVENT)
    params, z = random_params(model), jnp.asarray(np.random.default_rng(2).normal(size=(BATCH, 4)), jnp.float32)
    layers = jax.tree.map(np.asarray, params["decoder"]["x"])
    sides = [
        z[:, 2 * i : 2 * i + 2] @ layers[f"Dense_{i}"]["kernel"] + layers[f"Dense_{i}"]["bias"][None] for i in range(2)
    ]
    hidden = np.maximum(np.concatenate(sides, axis=1), 0)
    expected = (hidden @ layers["out"]["kernel"] + layers["out"]["bias"][None]).reshape(BATCH, *EVENT)
    np.testing.assert_allclose(decode(model, params, z).mean(), expected, rtol=1e-4, atol=1e-5)
