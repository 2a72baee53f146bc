"""What a model makes: samples, reconstructions, paths. Without a key everything is deterministic."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from aevae_jax import distributions
from aevae_jax.evaluation import latents
from aevae_jax.models import VAE, Autoencoder, generation, likelihoods
from aevae_jax.models.architectures import MLP
from aevae_jax.types import InputError

MODELS = {
    "vae": VAE(latent=3, network=MLP(hidden=(16,)), likelihood=likelihoods.Bernoulli(), event_shape=(4, 3, 1)),
    "autoencoder": Autoencoder(latent=3, network=MLP(hidden=(16,)), event_shape=(4, 3, 1)),
}

path = jax.jit(generation.path, static_argnums=(0, 4))


@pytest.fixture(scope="module", params=MODELS)
def trained(request):
    """A model, its parameters, and two batches of images."""
    model = MODELS[request.param]
    images = np.random.RandomState(0).rand(2, 5, 4, 3, 1).astype(np.float32)
    return model, oracles.random_params(model), *jnp.asarray(images)


def test_only_sampling_takes_a_key():  # mistake 8
    deterministic = [generation.reconstruct, generation.path, generation.interpolate, generation.traverse]
    deterministic += [VAE.encode, VAE.decode, VAE.prior, Autoencoder.encode, Autoencoder.decode]
    for function in deterministic:
        assert "key" not in inspect.signature(function).parameters
    key = inspect.signature(generation.sample).parameters["key"]
    assert key.default is inspect.Parameter.empty  # no function has a default key


def test_reconstruction_is_the_decoded_mean_of_the_code(trained):  # mistake 8
    model, params, x, _ = trained
    reconstruct = jax.jit(partial(generation.reconstruct, model))
    once = reconstruct(params, x)
    assert once.shape == x.shape
    assert np.array_equal(once, reconstruct(params, x))
    by_hand = oracles.mean(oracles.decode(model, params, oracles.encode(model, params, x).mean()))
    np.testing.assert_allclose(once, by_hand, rtol=1e-5, atol=1e-6)
    assert not np.allclose(once[0], once[1], rtol=1e-3)


def test_encoding_is_deterministic(trained):  # mistake 8
    model, params, x, _ = trained
    one, other = (oracles.encode(model, params, x) for _ in range(2))
    chex.assert_trees_all_equal(one, other)


def test_path_is_straight_between_the_codes(trained):
    model, params, a, b = trained
    codes = path(model, params, a, b, 5)
    assert codes.shape == (5, 5, 3)
    start, end = (oracles.encode(model, params, x).mean() for x in (a, b))
    np.testing.assert_allclose(codes[0], start, rtol=1e-6)
    np.testing.assert_allclose(codes[-1], end, rtol=1e-6)
    np.testing.assert_allclose(codes[2], (start + end) / 2, rtol=1e-5, atol=1e-6)
    steps = np.diff(codes, axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[:1], steps.shape), rtol=1e-4, atol=1e-6)


def test_interpolation_ends_at_the_reconstructions(trained):
    """Another batch size, hence another order of summation: equal within float32 rounding."""
    model, params, a, b = trained
    images = jax.jit(partial(generation.interpolate, model, num=4))(params, a, b)
    assert images.shape == (4, *a.shape)
    np.testing.assert_allclose(images[0], oracles.reconstruct(model, params, a), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(images[-1], oracles.reconstruct(model, params, b), rtol=1e-5, atol=1e-6)
    middle = path(model, params, a, b, 4)[1]
    np.testing.assert_allclose(images[1], oracles.mean(oracles.decode(model, params, middle)), rtol=1e-5, atol=1e-6)


def test_traversal_changes_one_coordinate(trained):
    model, params, x, _ = trained
    z, values = oracles.encode(model, params, x).mean()[0], jnp.array([-2.0, 0.0, 2.0])
    images = jax.jit(partial(generation.traverse, model), static_argnums=2)(params, z, 1, values)
    codes = np.tile(np.asarray(z), (3, 1))
    codes[:, 1] = values
    np.testing.assert_allclose(
        images, oracles.mean(oracles.decode(model, params, jnp.asarray(codes))), rtol=1e-5, atol=1e-6
    )
    assert images.shape == (3, 4, 3, 1)


def test_samples_are_decoded_draws_from_the_prior(trained):
    model, params, _, _ = trained
    draw = jax.jit(lambda key: generation.sample(model, params, key, 6).mean())
    drawn, again, other = draw(jax.random.key(3)), draw(jax.random.key(3)), draw(jax.random.key(4))
    z = model.prior(params, 6).sample(jax.random.key(3))
    np.testing.assert_allclose(drawn, oracles.mean(oracles.decode(model, params, z)), rtol=1e-5, atol=1e-6)
    assert np.array_equal(drawn, again)
    assert not np.allclose(drawn, other)
    assert drawn.shape == (6, 4, 3, 1)


def test_samples_of_data_carry_the_noise_of_the_likelihood():
    model = MODELS["vae"]
    params = oracles.random_params(model)
    draw = jax.jit(lambda k1, k2: generation.sample(model, params, k1, 6).sample(k2))
    bits = draw(jax.random.key(1), jax.random.key(2))
    assert set(np.unique(bits)) == {0.0, 1.0}


def test_a_sheet_of_samples_shows_as_many_draws(trained):
    model, params, x, _ = trained
    samples, pairs = generation.preview(model, params, x, jax.random.key(0))
    assert samples.shape == (64, *x.shape[1:])
    assert len(np.unique(np.asarray(samples).reshape(64, -1), axis=0)) == 64
    np.testing.assert_allclose(pairs, generation.reconstruct(model, params, x), rtol=1e-5, atol=1e-6)
    drawn = generation.sample(model, params, jax.random.key(0), 64).mean()
    np.testing.assert_allclose(samples, drawn, rtol=1e-5, atol=1e-6)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pair:
    """Points that are dicts."""

    z: dict[str, jax.Array]

    def sample(self, key):
        return self.z

    def mean(self):
        return self.z


class Halves:
    """A model whose codes are dicts, of the two halves of what it sees."""

    def encode(self, params, x):
        return Pair({"left": x[:, :2], "right": x[:, 2:]})

    def decode(self, params, z):
        return distributions.Delta(jnp.concatenate([z["left"], z["right"]], axis=1))


def test_codes_may_be_pytrees():
    x = jnp.arange(12.0).reshape(3, 4)
    images = generation.interpolate(Halves(), {}, x, x + 4, 5)
    np.testing.assert_allclose(images, x[None] + np.arange(5.0)[:, None, None], rtol=1e-6)
    z = {"left": x[0, :2], "right": x[0, 2:]}
    moved = generation.traverse(Halves(), {}, z, 2, jnp.asarray([7.0, 8.0]))
    np.testing.assert_allclose(moved, [[0, 1, 7, 3], [0, 1, 8, 3]])
    with pytest.raises(InputError, match=r"whose codes are of type dict, expected codes that are one array"):
        latents.describe(Halves(), {}, x, jax.random.key(0))
