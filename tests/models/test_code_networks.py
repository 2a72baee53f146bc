"""The transformer over indices of codes, against its formulas by hand; for what it sees see distributions/."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from aevae_jax.models import code_networks


def test_a_block_is_causal_attention_and_two_layers_each_added_to_what_it_sees():
    """Vaswani et al. 2017, equation 1 for each head, after LayerNorm. The gelu is approximated by a tanh."""
    heads, width, length = 2, 6, 4
    block = code_networks.Block(heads)
    x = np.random.default_rng(0).normal(size=(3, length, width))
    shapes = jax.eval_shape(lambda key: block.init(key, jnp.asarray(x), None, 0), jax.random.key(0))
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes["params"])
    own = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def dense(name, a):
        return a @ own[name]["kernel"] + own[name]["bias"]

    def normed(name, a):
        a = (a - a.mean(axis=-1, keepdims=True)) / np.sqrt(a.var(axis=-1, keepdims=True) + 1e-6)
        return a * own[name]["scale"] + own[name]["bias"]

    made = dense("attention", normed("LayerNorm_0", x))
    mixed, size = np.zeros_like(x), width // heads
    for head in range(heads):
        query, key, value = (made[..., part * width + head * size :][..., :size] for part in range(3))
        scores = query @ np.swapaxes(key, 1, 2) / np.sqrt(size)
        scores[:, ~np.tri(length, dtype=bool)] = -np.inf
        mixed[..., head * size : (head + 1) * size] = softmax(scores, axis=-1) @ value
    after = x + dense("mixed", mixed)
    hidden = dense("hidden", normed("LayerNorm_1", after))
    curved = np.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3))
    found, _ = jax.jit(block.apply)({"params": params}, jnp.asarray(x, jnp.float32), None, 0)
    np.testing.assert_allclose(found, after + dense("out", hidden * (1 + curved) / 2), rtol=1e-4, atol=1e-4)
