"""Architectures and networks: any event shape, half precision, modules of one's own, NNX through its adapter."""

from __future__ import annotations

import typing
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import random_params

from aevae_jax import VAE
from aevae_jax.models import architectures, likelihoods, networks
from aevae_jax.objectives.losses import ELBO
from aevae_jax.types import InputError

IMAGES = [(8, 8, 1), (28, 28, 1), (32, 32, 3), (33, 33, 1), (48, 64, 5)]
VECTORS = [(7,), (64,)]
DENSE = {"linear": architectures.MLP(()), "MLP": architectures.MLP((8,)), "gated": architectures.MLP((8,), gated=True)}
CONVOLUTIONAL = {"Conv": architectures.Conv((3, 4)), "ResidualConv": architectures.ResidualConv((3, 4))}
ALL = DENSE | CONVOLUTIONAL
FITTING = [(name, shape) for name in ALL for shape in IMAGES + (VECTORS if name in DENSE else [])]
LATENT, BATCH = 3, 2


def data(shape: tuple[int, ...], batch: int = BATCH, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).uniform(size=(batch, *shape)) * scale, jnp.float32)


def shapes(module, x_shape: tuple[int, ...]):
    """Shapes of the parameters and of the output, without computing either."""
    x = jax.ShapeDtypeStruct(x_shape, jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    return variables, jax.eval_shape(module.apply, variables, x)


def loss_and_gradient(model: VAE):
    """The negative ELBO and its gradient, as one program of (params, x, key)."""
    return jax.jit(jax.value_and_grad(lambda p, x, key: ELBO()(model, p, x, key, 0)[0]))


# --- shapes ---


@pytest.mark.parametrize(("name", "shape"), FITTING)
def test_encoder_and_decoder_fit_any_event_shape(name, shape):  # mistake 38
    architecture, outputs = ALL[name], 2
    _, codes = shapes(architecture.encoder(shape, 2 * LATENT), (BATCH, *shape))
    _, raw = shapes(architecture.decoder(shape, outputs), (BATCH, LATENT))
    assert codes.shape == (BATCH, 2 * LATENT)
    assert raw.shape == (BATCH, *shape, outputs)
    assert codes.dtype == raw.dtype == jnp.float32


# sizes that halve evenly, that do not, and that are neither square nor of one channel; each is a compilation
COMPUTED = [("gated", (7,)), ("ResidualConv", (33, 33, 1)), ("Conv", (48, 64, 5))]


@pytest.mark.parametrize(("name", "shape"), COMPUTED)
def test_every_parameter_of_a_vae_is_trained(name, shape):  # mistake 28, mistake 38
    model = VAE(LATENT, ALL[name], event_shape=shape)
    loss, gradient = loss_and_gradient(model)(random_params(model), data(shape, batch=8), jax.random.key(0))
    assert np.isfinite(loss)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(np.asarray(leaf)).all(), path
        assert np.any(np.asarray(leaf)), path


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("shape", VECTORS)
def test_convolutions_refuse_flat_vectors(name, shape):
    for build in (ALL[name].encoder, ALL[name].decoder):
        with pytest.raises(InputError, match=r"event shape.*expected images \[H, W, C\]; use MLP\(\)"):
            build(shape, 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: architectures.MLP((0,)),
        lambda: architectures.MLP((5, -1)),
        lambda: architectures.Conv((0,)),
        lambda: architectures.ResidualConv((4, -2)),
        lambda: architectures.ResidualConv((4,), blocks=0),
    ],
)
def test_sizes_must_be_positive(make):
    with pytest.raises(InputError, match="expected at least 1"):
        make()


def test_no_convolution_at_all_is_refused():
    """An empty tuple of channels has no last layer to start the decoder from."""
    for cls in (architectures.Conv, architectures.ResidualConv):
        with pytest.raises(InputError, match="channels"):
            cls(())


# --- what the networks compute ---


def random_variables(module, x):
    return random_params(SimpleNamespace(init=lambda key: module.init(key, x)))


def affine(x, layer) -> np.ndarray:
    """A dense layer in float64."""
    return np.asarray(x, np.float64) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])


@pytest.mark.parametrize("name", ["gated", "ResidualConv"])
def test_examples_do_not_meet(name):
    """No statistic is taken over the batch: another last example leaves the others as they were. Nothing is drawn."""
    shape = (8, 8, 1)
    for module, x in [
        (ALL[name].encoder(shape, 4), data(shape, batch=4)),
        (ALL[name].decoder(shape, 2), data((LATENT,), batch=4)),
    ]:
        variables = random_variables(module, x)
        apply = jax.jit(module.apply)
        out = apply(variables, x)
        np.testing.assert_array_equal(out, apply(variables, x))
        moved = apply(variables, x.at[3].set(5 - x[3]))
        np.testing.assert_allclose(moved[:3], out[:3], rtol=1e-5, atol=1e-6)
        assert np.abs(moved[3] - out[3]).max() > 1e-3


def test_without_hidden_layers_the_mlp_is_linear():
    module = architectures.MLP(()).encoder((5,), 3)
    x = data((5,))
    params = random_variables(module, x)["params"]
    expected = affine(x, params["out"])
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-6)


def test_gated_dense_is_value_times_sigmoid_of_gate():
    module, x = networks.GatedDense(4), data((5,))
    params = random_variables(module, x)["params"]
    gate, value = affine(x, params["gate"]), affine(x, params["value"])
    np.testing.assert_allclose(module.apply({"params": params}, x), value / (1 + np.exp(-gate)), rtol=1e-5, atol=1e-6)


def test_decoder_mirrors_the_encoder():
    encoder, _ = shapes(architectures.MLP((8, 5)).encoder((6,), 4), (1, 6))
    decoder, _ = shapes(architectures.MLP((8, 5)).decoder((6,), 1), (1, 2))
    sizes = [[leaf.shape[1] for leaf in jax.tree.leaves(tree) if leaf.ndim == 2] for tree in (encoder, decoder)]
    assert sizes == [[8, 5, 4], [5, 8, 6]]


def test_convolutions_of_the_decoder_mirror_those_of_the_encoder():
    network = architectures.Conv((2, 3, 5))
    encoder, _ = shapes(network.encoder((8, 8, 1), 4), (1, 8, 8, 1))
    decoder, _ = shapes(network.decoder((8, 8, 1), 1), (1, 2))
    channels = [[leaf.shape[2:] for leaf in jax.tree.leaves(tree) if leaf.ndim == 4] for tree in (encoder, decoder)]
    assert channels == [[(1, 2), (2, 3), (3, 5)], [(5, 3), (3, 2), (2, 2), (2, 1)]]


@pytest.mark.parametrize("size", [(8, 8), (33, 47), (1, 1), (5, 64)])
def test_halved_is_what_a_stride_of_two_does(size):
    convolution = nn.Conv(1, (3, 3), strides=(2, 2))
    _, out = shapes(convolution, (1, *size, 1))
    assert networks.halved(size, 1) == out.shape[1:3]
    assert networks.halved(size, 2) == networks.halved(networks.halved(size, 1), 1)


# --- half precision ---

BFLOAT16 = {
    "gated": architectures.MLP((8,), gated=True, dtype="bfloat16"),
    "Conv": architectures.Conv((3, 4), dtype="bfloat16"),
    "ResidualConv": architectures.ResidualConv((4,), dtype="bfloat16"),
}


@pytest.mark.parametrize("name", BFLOAT16)
def test_half_precision_computes_in_it_and_keeps_float32_around_it(name):  # mistake 40
    shape = (8, 8, 1)
    for module, x_shape in [
        (BFLOAT16[name].encoder(shape, 4), (BATCH, *shape)),
        (BFLOAT16[name].decoder(shape, 2), (BATCH, LATENT)),
    ]:
        variables, out = shapes(module, x_shape)
        assert out.dtype == jnp.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
        program = str(jax.make_jaxpr(module.apply)(variables, jnp.zeros(x_shape)))
        products = [line for line in program.splitlines() if "dot_general" in line or "conv_general" in line]
        assert products
        assert all("bf16" in line for line in products)


@pytest.mark.parametrize(
    ("name", "likelihood"),
    [("gated", likelihoods.Bernoulli()), ("ResidualConv", likelihoods.DiscretizedLogisticMixture(components=2))],
)
def test_half_precision_loss_is_float32_and_finite_for_large_inputs(name, likelihood):  # mistake 14, mistake 40
    model = VAE(LATENT, BFLOAT16[name], likelihood, event_shape=(8, 8, 1))
    params = jax.tree.map(lambda leaf: 100 * leaf, random_params(model))
    loss, gradient = loss_and_gradient(model)(params, data((8, 8, 1), scale=100.0), jax.random.key(0))
    assert loss.dtype == jnp.float32
    assert np.isfinite(loss)
    for leaf in jax.tree.leaves(gradient):
        assert leaf.dtype == jnp.float32
        assert np.isfinite(np.asarray(leaf)).all()


# --- modules of one's own ---


class TheirEncoder(nn.Module):
    """Somebody's module, written without this project in mind."""

    @nn.compact
    def __call__(self, image):
        return nn.Dense(2 * LATENT)(nn.tanh(nn.Dense(16)(image.reshape(len(image), -1))))


class TheirDecoder(nn.Module):
    @nn.compact
    def __call__(self, code):
        return nn.Dense(8 * 8)(nn.tanh(nn.Dense(16)(code)))  # flat: the model gives it its shape


def assert_trains(model: VAE, x: jax.Array) -> None:
    """The gradient reaches every parameter, and following it lowers the loss."""

    @jax.jit
    def step(params, key):
        loss, gradient = jax.value_and_grad(lambda p: ELBO()(model, p, x, key, 0)[0])(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), loss, gradient

    params, losses = random_params(model), []
    for number in range(30):
        params, loss, gradient = step(params, jax.random.key(number))
        assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
        losses.append(float(loss))
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_somebodys_linen_module_drops_in_unchanged():
    model = VAE(LATENT, architectures.Modules(TheirEncoder(), TheirDecoder()), event_shape=(8, 8, 1))
    params = random_params(model)
    x = data((8, 8, 1))
    assert model.decode(params, model.encode(params, x).mean()).mean().shape == x.shape
    assert_trains(model, x)


def test_a_module_with_another_number_of_outputs_is_named():
    model = VAE(LATENT + 1, architectures.Modules(TheirEncoder(), TheirDecoder()), event_shape=(8, 8, 1))
    params = random_params(model)
    with pytest.raises(InputError, match=r"the encoder's output: got \(6,\) numbers per example, expected 8"):
        model.encode(params, data((8, 8, 1)))
    two_outputs = VAE(
        LATENT,
        architectures.Modules(TheirEncoder(), TheirDecoder()),
        likelihoods.NormalElementScale(),
        event_shape=(8, 8, 1),
    )
    with pytest.raises(InputError, match=r"the decoder's output: got \(64,\) numbers per example, expected 128"):
        two_outputs.decode(random_params(two_outputs), jnp.zeros((1, LATENT)))


class TheirNNX(nnx.Module):
    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(inputs, 16, rngs=rngs)
        self.out = nnx.Linear(16, outputs, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.tanh(self.hidden(x)))


def test_an_nnx_module_passes_through_the_same_seam():
    event = (8,)
    model = VAE(
        LATENT,
        architectures.Modules(
            networks.FromNNX(lambda rngs: TheirNNX(8, 2 * LATENT, rngs)),
            networks.FromNNX(lambda rngs: TheirNNX(LATENT, 8, rngs)),
        ),
        event_shape=event,
    )
    assert_trains(model, data(event))


def test_the_nnx_adapter_computes_what_the_module_computes():
    adapter = networks.FromNNX(lambda rngs: TheirNNX(8, 4, rngs))
    x = data((8,))
    variables = adapter.init(jax.random.key(3), x)
    theirs = TheirNNX(8, 4, nnx.Rngs(jax.random.key(3)))
    np.testing.assert_allclose(adapter.apply(variables, x), theirs(x), rtol=1e-6)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, variables)
    nnx.update(theirs, jax.tree.map(lambda leaf: 2 * leaf, nnx.state(theirs, nnx.Param)))
    np.testing.assert_allclose(adapter.apply(doubled, x), theirs(x), rtol=1e-6)


def test_every_architecture_can_be_named_by_a_run():
    public = {cls for cls in vars(architectures).values() if isinstance(cls, type) and hasattr(cls, "encoder")}
    assert public == set(typing.get_args(architectures.Architecture))
