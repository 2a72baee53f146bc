"""The public functions inside other people's programs: every transformation of JAX, in code that is not ours."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.ad_checkpoint import checkpoint_name
from oracles import random_params

import aevae_jax
from aevae_jax import VAE, distributions, keys
from aevae_jax.models import architectures, likelihoods
from aevae_jax.objectives import bounds
from aevae_jax.objectives.losses import ELBO, IWAE
from aevae_jax.training.step import TrainState, init_state, make_train_step

LATENT, EVENT, BATCH = 2, (6,), 4
MODEL = VAE(LATENT, architectures.MLP((5,)), likelihoods.Normal(), event_shape=EVENT)
PARAMS = random_params(MODEL)
X = jnp.asarray(np.random.default_rng(0).uniform(size=(BATCH, *EVENT)), jnp.float32)


def close(a, b) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


def test_vmap_over_betas():
    """One program for a whole curve of rate against distortion; each lane is the lone objective."""

    def gradient(beta):
        loss = lambda p: ELBO(beta=beta)(MODEL, p, X, jax.random.key(0), 0)[0]  # noqa: E731
        return jax.value_and_grad(loss)(PARAMS)

    betas = jnp.asarray([0.0, 0.5, 4.0])
    losses, gradients = jax.jit(jax.vmap(gradient))(betas)
    lone = jax.jit(gradient)
    for index, beta in enumerate(betas):
        close((losses[index], jax.tree.map(lambda g, i=index: g[i], gradients)), lone(beta))
    assert len(np.unique(losses)) == 3


def test_vmap_over_models_with_their_own_parameters():
    """Several seeds at once: parameters with a leading axis."""
    several = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(random_params(MODEL, seed) for seed in range(3)))
    evaluate = jax.jit(jax.vmap(lambda p, key: bounds.elbo(MODEL, p, X, key).negative_elbo))
    together = evaluate(several, jax.random.split(jax.random.key(0), 3))
    alone = [
        bounds.elbo(MODEL, random_params(MODEL, seed), X, key).negative_elbo
        for seed, key in enumerate(jax.random.split(jax.random.key(0), 3))
    ]
    close(together, jnp.stack(alone))


def test_grad_through_log_weights():
    """A loss of one's own over the weights: the chi-squared bound, whose derivative is checked by differences."""

    def loss(params):
        log_w = aevae_jax.log_weights(MODEL, params, X, jax.random.key(0), 5)
        return (jax.nn.logsumexp(2 * log_w, axis=0) / 2).mean()

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    _, gradient = value_and_grad(PARAMS)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    norm = float(optax.tree.norm(gradient))
    step = 1e-2 / norm
    ends = [
        float(value_and_grad(jax.tree.map(lambda p, g, s=s: p + s * step * g, PARAMS, gradient))[0]) for s in (1, -1)
    ]
    # central differences: an error of the third derivative times step^2, and float32 rounding of the loss over the step
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), norm**2, rtol=1e-2)


def test_hessian_vector_product_through_the_elbo():
    def loss(params):
        return ELBO()(MODEL, params, X, jax.random.key(0), 0)[0]

    def product(params, direction):
        return jax.jvp(jax.grad(loss), (params,), (direction,))[1]

    a, b = random_params(MODEL, 1), random_params(MODEL, 2)
    product = jax.jit(product)
    inner = [
        sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(u), jax.tree.leaves(product(PARAMS, v)), strict=True))
        for u, v in ((a, b), (b, a))
    ]
    np.testing.assert_allclose(*inner, rtol=1e-3)  # a Hessian is symmetric
    assert abs(inner[0]) > 1e-3


def test_checkpoint_computes_again_what_it_does_not_keep():
    """Same loss and gradient; the decoder is run a second time in the backward pass."""

    def loss(params, remat):
        def decode(params, z):
            return checkpoint_name(MODEL.decode(params, z).log_prob(X), "log_likelihood")

        decode = jax.checkpoint(decode) if remat else decode
        q = MODEL.encode(params, X)
        return -decode(params, q.sample(jax.random.key(0))).mean()

    close(*(jax.jit(jax.value_and_grad(lambda p, r=remat: loss(p, r)))(PARAMS) for remat in (False, True)))
    programs = [str(jax.make_jaxpr(jax.grad(lambda p, r=remat: loss(p, r)))(PARAMS)) for remat in (False, True)]
    assert "remat" not in programs[0]
    assert "remat" in programs[1]
    assert programs[1].count("dot_general") > programs[0].count("dot_general")


TX = optax.adam(1e-2)
STEP = make_train_step(MODEL, ELBO(), TX)


def fresh_state() -> TrainState:
    return TrainState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, PARAMS), TX.init(PARAMS), None)


def test_scan_over_train_steps():
    """Somebody's own loop: the same losses as step by step."""
    key = jax.random.key(0)
    batches = jnp.stack([X, 1 - X, X / 2])

    @jax.jit
    def run(state, key):
        return jax.lax.scan(lambda s, batch: STEP(s, batch, key), state, batches)

    last, metrics = run(fresh_state(), key)
    assert metrics["loss"].shape == (3,)
    assert int(last.step) == 3
    state = fresh_state()
    for index, batch in enumerate(batches):
        state, lone = STEP(state, batch, jax.random.key(0))
        np.testing.assert_allclose(lone["loss"], metrics["loss"][index], rtol=1e-5)
    close(last.params, state.params)


def test_jit_with_a_donated_state():
    donating = jax.jit(STEP, donate_argnums=0)
    before, kept = fresh_state(), fresh_state()
    after, _ = donating(before, X, jax.random.key(0))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
    expected, _ = STEP(kept, X, jax.random.key(0))
    close(after.params, expected.params)


def test_eval_shape_computes_nothing_and_knows_everything():
    """Of a model too large to build: parameters, training state and metrics."""
    huge = VAE(512, architectures.MLP((65_536, 65_536)), event_shape=(256, 256, 3))
    params = jax.eval_shape(huge.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) > 10**10
    x = jax.ShapeDtypeStruct((8, 256, 256, 3), jnp.float32)
    q = jax.eval_shape(huge.encode, params, x)
    assert isinstance(q, distributions.Normal)
    assert q.loc.shape == (8, 512)
    key = jax.eval_shape(lambda: jax.random.key(0))
    log_w = jax.eval_shape(lambda p, x, k: aevae_jax.log_weights(huge, p, x, k, 50), params, x, key)
    assert log_w.shape == (50, 8)
    state = jax.eval_shape(lambda k: init_state(huge, TX, k, ema=True), key)
    new_state, metrics = jax.eval_shape(make_train_step(huge, IWAE(5), TX, ema_decay=0.9), state, x, key)
    assert jax.tree.map(lambda a: a.shape, new_state) == jax.tree.map(lambda a: a.shape, state)
    assert metrics["loss"].shape == ()


def test_a_jitted_function_of_ours_inside_somebodys_grad():
    """A regulariser of their own on top of our bound; the gradient passes through our jit."""
    ours = jax.jit(lambda params, key: aevae_jax.elbo(MODEL, params, X, key).negative_elbo)

    def theirs(params):
        smoothness = sum((leaf**2).sum() for leaf in jax.tree.leaves(params["decoder"]))
        return ours(params, jax.random.key(0)).mean() + 0.1 * smoothness

    gradient = jax.grad(theirs)(PARAMS)
    loss = lambda p: ELBO()(MODEL, p, X, jax.random.key(0), 0)[0]  # noqa: E731
    expected = jax.jit(jax.grad(loss))(PARAMS)
    expected["decoder"] = jax.tree.map(lambda g, p: g + 0.2 * p, expected["decoder"], PARAMS["decoder"])
    close(gradient, expected)


class TheirModel(NamedTuple):
    """A latent model with no class of ours in it: the four functions are the whole contract."""

    size: int

    def init(self, key):
        return {"w": 0.1 * jax.random.normal(key, (self.size, 1)), "log_scale": jnp.zeros(())}

    def encode(self, params, x):
        loc = x @ params["w"]
        return distributions.Normal(loc, jnp.broadcast_to(params["log_scale"], loc.shape))

    def decode(self, params, z):
        loc = z @ params["w"].T
        return distributions.Normal(loc, jnp.zeros_like(loc))

    def prior(self, params, n):
        return distributions.Normal(jnp.zeros((n, 1)), jnp.zeros((n, 1)))


def test_their_model_and_their_objective_train_with_our_step():
    """A model of four functions and an objective that is a plain function, through the same training step."""

    def objective(model, params, x, key, step):
        bound = aevae_jax.elbo(model, params, x, key)
        return bound.negative_elbo.mean(), {"rate": bound.rate.mean()}

    model = TheirModel(EVENT[0])
    x = X - 0.5 + 2 * jnp.arange(BATCH)[:, None]  # one direction of large variance
    step = make_train_step(model, objective, optax.adam(0.05))
    state, key, losses = init_state(model, optax.adam(0.05), jax.random.key(0)), jax.random.key(0), []
    for _ in range(40):
        state, metrics = step(state, x, key)
        losses.append(float(metrics["loss"]))
    assert set(metrics) == {"loss", "rate", "gradient_norm", "skipped"}
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1


def test_keys_of_samples_do_not_depend_on_how_many_there_are():
    """So that a sum over samples may be taken in chunks."""
    few, many = (jax.random.key_data(keys.many(jax.random.key(0), n)) for n in (3, 8))
    np.testing.assert_array_equal(few, many[:3])
    assert len(np.unique(many, axis=0)) == 8
