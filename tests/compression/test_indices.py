"""Discrete codes: the indices are coded by their prior, the example by what the decoder makes of them, nothing else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aevae_jax as ae
from aevae_jax.compression import Coder
from aevae_jax.models.architectures import MLP
from aevae_jax.models.code_priors import CausalTransformer, MarginalCodes, UniformCodes
from aevae_jax.models.likelihoods import DiscretizedLogistic
from aevae_jax.models.quantizers import FSQ, Codebook
from aevae_jax.types import InputError

GIVEN = {"network": MLP((8,)), "likelihood": DiscretizedLogistic(17), "event_shape": (24,)}
SEQUENTIAL = CausalTransformer(4, 1, 1)
MODELS = {
    "codebook": ae.VQVAE((3, 2), quantizer=Codebook(9), **GIVEN),
    "levels": ae.VQVAE((3, 4), quantizer=Codebook(5, 2, "gradient"), latent_prior=MarginalCodes(), **GIVEN),
    "rounded": ae.VQVAE((3, 2), quantizer=FSQ((5, 4)), latent_prior=SEQUENTIAL, **GIVEN),
    "classes": ae.CategoricalVAE((3, 5), latent_prior=MarginalCodes(), **GIVEN),
}


def drawn(model, n):
    """Return parameters that are not those of the start, and examples that the model gives a fair probability."""
    generator = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(leaf + 0.2 * generator.normal(size=leaf.shape), jnp.float32),
        jax.jit(model.init)(jax.random.key(0)),
    )
    last = params["decoder"]["out"]  # of each element its place, and its log scale
    bias = last["bias"] + jnp.tile(jnp.array([0.2, -1]), 24)
    params["decoder"]["out"] = {"kernel": 0.1 * last["kernel"], "bias": bias}

    @jax.jit
    def sample(params):
        z = model.prior(params, n).sample(jax.random.key(1))
        return model.decode(params, z).sample(jax.random.key(2))

    return params, np.rint(16 * np.asarray(sample(params))).astype(int)


@pytest.mark.parametrize(
    "kind", ["codebook", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("rounded", "levels", "classes"))]
)
def test_discrete_codes_cost_what_the_model_says(kind):
    """Of a code that follows from x exactly -log p(z) - log p(x|z), up to the rounding of parameters to 1/16."""
    model, n = MODELS[kind], 120
    params, symbols = drawn(model, n)
    coder = Coder(model, params)
    payload = coder.encode(symbols)
    assert np.array_equal(Coder(model, params, batch=7).decode(payload, n), symbols)
    x = np.float32(symbols / 16)

    @jax.jit
    def terms(params, keys):
        q, p = model.encode(params, x), model.prior(params, n)
        return q.kl(p), jax.vmap(lambda key: model.decode(params, q.sample(key)).log_prob(x))(keys)

    kl, log_prob = terms(params, jax.random.split(jax.random.key(0), 30 if kind == "classes" else 1))
    bits = (np.asarray(kl) - np.asarray(log_prob).mean(axis=0)) / np.log(2)
    bound = np.mean([coder.bound(symbols, seed) for seed in range(8 if kind == "classes" else 1)], axis=0)
    assert bound.mean() == pytest.approx(bits.mean(), rel=0.01)
    assert bits.mean() < 24 * np.log2(17)  # so that hardly an example is coded without the model
    assert 8 * len(payload) == pytest.approx(coder.bound(symbols).sum(), rel=0.02, abs=32 * 8)


def test_more_choices_than_can_be_coded_are_refused_in_a_line():
    model = ae.VQVAE((3, 2), quantizer=Codebook(2**15 + 1), latent_prior=UniformCodes(), **GIVEN)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    with pytest.raises(InputError, match=r"choices of a code: got 32,769, expected at most 32,768") as error:
        Coder(model, params)
    assert len(str(error.value)) <= 200
