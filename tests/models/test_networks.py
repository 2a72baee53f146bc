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
from oracles import equations, random_params

from aevae_jax import VAE, values
from aevae_jax.models import architectures, likelihoods, networks
from aevae_jax.objectives.losses import ELBO
from aevae_jax.types import InputError

IMAGES = [(8, 8, 1), (28, 28, 1), (32, 32, 3), (33, 33, 1), (48, 64, 5)]
VECTORS = [(7,), (64,)]
DENSE = {"linear": architectures.MLP(()), "MLP": architectures.MLP((8,)), "gated": architectures.MLP((8,), gated=True)}
CONVOLUTIONAL = {"Conv": architectures.Conv((3, 4)), "ResidualConv": architectures.ResidualConv((3, 4))}
PATCHES = {"Mixer": architectures.Mixer(5, 4, 1)}
ALL = DENSE | CONVOLUTIONAL | PATCHES
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
COMPUTED = [("gated", (7,)), ("ResidualConv", (33, 33, 1)), ("Conv", (48, 64, 5)), ("Mixer", (33, 33, 1))]


@pytest.mark.parametrize(("name", "shape"), COMPUTED)
def test_every_parameter_of_a_vae_is_trained(name, shape):  # mistake 28, mistake 38
    model = VAE(LATENT, ALL[name], event_shape=shape)
    loss, gradient = loss_and_gradient(model)(random_params(model), data(shape, batch=8), jax.random.key(0))
    assert np.isfinite(loss)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(np.asarray(leaf)).all(), path
        assert np.any(np.asarray(leaf)), path


@pytest.mark.parametrize("name", CONVOLUTIONAL | PATCHES)
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


@pytest.mark.parametrize(
    ("upsampling", "back"),
    [("sub_pixel", [(5, 4 * 3), (3, 4 * 2), (2, 4 * 1)]), ("repeat", [(5, 3), (3, 2), (2, 2), (2, 1)])],
)
def test_convolutions_of_the_decoder_mirror_those_of_the_encoder(upsampling, back):
    network = architectures.Conv((2, 3, 5), upsampling=upsampling)
    encoder, _ = shapes(network.encoder((8, 8, 1), 4), (1, 8, 8, 1))
    decoder, _ = shapes(network.decoder((8, 8, 1), 1), (1, 2))
    channels = [[leaf.shape[2:] for leaf in jax.tree.leaves(tree) if leaf.ndim == 4] for tree in (encoder, decoder)]
    assert channels == [[(1, 2), (2, 3), (3, 5)], back]


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
        products = [line for line in program.splitlines() if "dot_general[" in line or " convolution[" in line]
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
    small = VAE(LATENT - 1, architectures.Modules(TheirEncoder(), TheirDecoder()), event_shape=(8, 8, 1))
    with pytest.raises(
        InputError, match=r"the encoder's output: got \(6,\) numbers per example, expected 4, as \(4,\)"
    ):
        small.encode(random_params(small), data((8, 8, 1)))


class Listed(nn.Module):
    """A module with a field that has no hash."""

    sizes: list[int]

    def __call__(self, x):
        return x


def test_modules_that_hold_lists_can_be_part_of_a_model():
    """A model is hashed whenever its programs are looked up."""
    one, same, other = (VAE(1, architectures.Modules(Listed([n]), Listed([2]))) for n in (1, 1, 3))
    assert hash(one) == hash(same)
    assert one == same != other


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
    variables = jax.jit(adapter.init)(jax.random.key(3), x)
    theirs = TheirNNX(8, 4, nnx.Rngs(jax.random.key(3)))
    np.testing.assert_allclose(adapter.apply(variables, x), theirs(x), rtol=1e-6)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, variables)
    nnx.update(theirs, jax.tree.map(lambda leaf: 2 * leaf, nnx.state(theirs, nnx.Param)))
    np.testing.assert_allclose(adapter.apply(doubled, x), theirs(x), rtol=1e-6)


def test_every_architecture_can_be_named_by_a_run():
    public = {cls for cls in vars(architectures).values() if isinstance(cls, type) and hasattr(cls, "encoder")}
    assert public == set(typing.get_args(architectures.Architecture))


# --- layer by layer, against NumPy ---


def relu(x) -> np.ndarray:
    return np.maximum(x, 0)


def convolved(x, layer, stride: int = 1) -> np.ndarray:
    """A 3x3 convolution with zeros around the image, in float64; the odd zero of a stride of 2 is at the end."""
    x, kernel = np.asarray(x, np.float64), np.asarray(layer["kernel"], np.float64)
    size = [-(-n // stride) for n in x.shape[1:3]]
    around = [max((m - 1) * stride + 3 - n, 0) for m, n in zip(size, x.shape[1:3], strict=True)]
    x = np.pad(x, ((0, 0), *((a // 2, a - a // 2) for a in around), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[
        :, ::stride, ::stride
    ]  # [B, H, W, C, 3, 3]
    return np.einsum("bhwcij,ijco->bhwo", windows, kernel) + np.asarray(layer["bias"])


def transposed(x, layer) -> np.ndarray:
    """A transposed 4x4 convolution of stride 2, in float64: each input adds its kernel to the output around it.

    Of the layer's kernel, the first two axes say where an input stands around a cell, and the four pixels of the cell
    are the outer part of the last one.
    """
    x, (_, height, width, channels) = np.asarray(x, np.float64), x.shape
    kernel = np.asarray(layer["kernel"], np.float64).reshape(2, 2, channels, 2, 2, -1)
    kernel = kernel[::-1, ::-1].transpose(0, 3, 1, 4, 2, 5).reshape(4, 4, channels, -1)
    out = np.zeros((len(x), 2 * height + 2, 2 * width + 2, kernel.shape[-1]))
    for i, j in np.ndindex(height, width):
        out[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum("bc,uvco->buvo", x[:, i, j], kernel)
    return out[:, 1:-1, 1:-1] + np.asarray(layer["bias"])


def block(x, params) -> np.ndarray:
    """x + f(x): twice GroupNorm of gcd(8, C) groups, swish, convolution."""
    groups, y = np.gcd(8, x.shape[-1]), np.asarray(x, np.float64)
    for i in range(2):
        parts = y.reshape(*y.shape[:3], groups, -1)
        mean, var = (f(parts, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
        norm = params[f"GroupNorm_{i}"]
        y = ((parts - mean) / np.sqrt(var + 1e-6)).reshape(y.shape) * norm["scale"] + norm["bias"]
        y = convolved(y / (1 + np.exp(-y)), params[f"Conv_{i}"])
    return x + y


def computed(module, *inputs):
    """Parameters of a module and what it computes with them."""
    shapes_ = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    variables = random_params(SimpleNamespace(init=lambda key: shapes_))
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    return params, jax.jit(module.apply)(variables, *inputs)


def test_hidden_layers_are_rectified_and_the_last_one_is_not():
    x = data((3, 2)) - 0.5
    params, out = computed(architectures.MLP((6, 4)).encoder((3, 2), 5), x)
    hidden = relu(affine(relu(affine(np.asarray(x).reshape(BATCH, 6), params["Dense_0"])), params["Dense_1"]))
    np.testing.assert_allclose(out, affine(hidden, params["out"]), rtol=1e-5, atol=1e-5)
    assert (out < 0).any()


def test_a_joint_network_has_one_layer_on_each_input_and_the_others_on_both():
    a, b = data((3,)) - 0.5, data((2, 2)) - 0.3
    params, out = computed(architectures.MLP((6, 4)).joint(2, 5), a, b)
    flat = np.asarray(b).reshape(BATCH, 4)
    both = np.concatenate([relu(affine(a, params["Dense_0"])), relu(affine(flat, params["Dense_1"]))], axis=1)
    assert both.shape == (BATCH, 12)
    expected = affine(relu(affine(both, params["Dense_2"])), params["out"]).reshape(BATCH, 2, 5)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


GROUPS_OF_THREE = 12  # channels: gcd(8, 12) = 4 groups


@pytest.mark.parametrize("blocks", [0, 2])
def test_encoder_of_images_is_its_layers_one_after_the_other(blocks):
    channels = (2, GROUPS_OF_THREE) if blocks else (2, 3)
    x = data((5, 6, 1)) - 0.5
    params, out = computed(networks.ConvEncoder(channels, 4, blocks), x)
    y, numbers = np.asarray(x, np.float64), iter(range(9))
    for i in range(2):
        y = convolved(y, params[f"Conv_{i}"], stride=2)
        y = y if blocks else relu(y)
        for _ in range(blocks):
            y = block(y, params[f"ResidualBlock_{next(numbers)}"])
    np.testing.assert_allclose(out, affine(y.reshape(BATCH, -1), params["out"]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("blocks", "repeat"), [(0, False), (0, True), (2, False), (2, True)])
def test_decoder_of_images_is_its_layers_one_after_the_other(blocks, repeat):
    channels = (2, GROUPS_OF_THREE) if blocks else (2, 3)
    z = data((LATENT,)) - 0.5
    params, out = computed(networks.ConvDecoder(channels, (5, 6, 2), 3, blocks, repeat=repeat), z)
    y, numbers = affine(z, params["Dense_0"]).reshape(BATCH, 2, 2, channels[-1]), iter(range(9))
    for i, size in enumerate([(3, 3), (5, 6)]):
        for _ in range(blocks):
            y = block(y, params[f"ResidualBlock_{next(numbers)}"])
        y = y if blocks else relu(y)
        if repeat:
            y = convolved(np.kron(y, np.ones((1, 2, 2, 1)))[:, : size[0], : size[1]], params[f"Conv_{i}"])
        else:
            y = transposed(y, params[f"SubPixelConv_{i}" if i == 0 else "out"])[:, : size[0], : size[1]]
    expected = convolved(relu(y), params["out"]) if repeat else y
    np.testing.assert_allclose(out, expected.reshape(BATCH, 5, 6, 2, 3), rtol=1e-4, atol=1e-4)


def test_a_fresh_decoder_leaves_no_chequerboard():
    """The four pixels of each cell are equal; cells stand between the pixels of the small image."""
    module = networks.ConvDecoder((4,), (8, 8, 1), 1)
    z = data((LATENT,)) - 0.5
    image = module.apply(jax.jit(module.init)(jax.random.key(0), z), z)[:, 1:-1, 1:-1, 0, 0].reshape(BATCH, 3, 2, 3, 2)
    assert (image == image[:, :, :1, :, :1]).all()
    assert np.std(image[:, :, 0, :, 0]) > 0.01


def test_an_old_record_of_conv_computes_what_it_did_with_its_old_weights():
    """Names, shapes and results are those of the code that wrote such records."""
    shapes_ = {
        "Conv_0": {"bias": (2,), "kernel": (3, 3, 3, 2)},
        "Conv_1": {"bias": (2,), "kernel": (3, 3, 2, 2)},
        "Dense_0": {"bias": (6,), "kernel": (2, 6)},
        "out": {"bias": (1,), "kernel": (3, 3, 2, 1)},
    }
    record = {"type": "Conv", "channels": [2, 3], "dtype": "float32"}
    decoder = values.from_tree(architectures.Architecture, record, "run.json").decoder((3, 5, 1), 1)
    variables, _ = shapes(decoder, (1, 2))
    assert jax.tree.map(lambda leaf: leaf.shape, variables["params"]) == shapes_
    leaves, structure = jax.tree.flatten(variables)
    waves = [np.sin(np.arange(a.size, dtype=np.float32) + i).reshape(a.shape) for i, a in enumerate(leaves)]
    out = decoder.apply(jax.tree.unflatten(structure, waves), jnp.asarray([[0.5, -1.0]]))
    old = [2.54621, 3.71433, -1.31517, -1.85001, 2.1985, 2.59159, 5.97189, -2.01614]
    old += [-1.97998, 2.59328, 0.84837, 4.74752, -1.66284, -0.90613, 1.34489]
    np.testing.assert_allclose(out.ravel(), old, atol=2e-5)


# --- options are handed on ---


def joint_shapes(architecture):
    """Parameters of a joint network, and its program."""
    module, inputs = architecture.joint(4), [jnp.zeros((BATCH, n)) for n in (3, 2)]
    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return variables["params"], jax.make_jaxpr(module.apply)(variables, *inputs)


@pytest.mark.parametrize("gated", [False, True])
def test_all_networks_of_an_mlp_are_gated_or_none(gated):
    architecture = architectures.MLP((8, 8), gated=gated)
    names = [
        list(shapes(architecture.encoder((3,), 2), (1, 3))[0]["params"]),
        list(shapes(architecture.decoder((3,), 2), (1, 2))[0]["params"]),
        list(joint_shapes(architecture)[0]),
    ]
    kind = "GatedDense" if gated else "Dense"
    assert [sorted(n) for n in names] == [sorted([*(f"{kind}_{i}" for i in range(k)), "out"]) for k in (2, 2, 3)]


@pytest.mark.parametrize("gated", [False, True])
def test_half_precision_reaches_joint_networks(gated):
    params, program = joint_shapes(architectures.MLP((8, 8), gated=gated, dtype="bfloat16"))
    products = [e for e in equations(program.jaxpr) if e.primitive.name == "dot_general"]
    assert len(products) == (7 if gated else 4)
    assert {v.aval.dtype for e in products for v in e.invars} == {jnp.dtype("bfloat16")}
    assert {a.dtype for a in (*program.out_avals, *jax.tree.leaves(params))} == {jnp.dtype("float32")}


def test_blocks_stand_after_each_change_of_scale_in_both_networks():
    def blocks_of(architecture):
        return [
            sum(name.startswith("ResidualBlock") for name in shapes(module, shape)[0]["params"])
            for module, shape in [
                (architecture.encoder((8, 8, 1), 2), (1, 8, 8, 1)),
                (architecture.decoder((8, 8, 1), 2), (1, 2)),
            ]
        ]

    assert blocks_of(architectures.ResidualConv((2, 2, 2), blocks=3)) == [9, 9]
    assert blocks_of(architectures.ResidualConv((2, 2))) == [2, 2]
    assert blocks_of(architectures.Conv((2, 2))) == [0, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: architectures.MLP((0,)), "MLP hidden: got 0, expected at least 1"),
        (lambda: architectures.Conv((0,)), "Conv channels: got 0, expected at least 1"),
        (lambda: architectures.Conv(()), r"Conv channels: got \(\), expected at least 1 of them"),
        (lambda: architectures.ResidualConv((0,)), "ResidualConv channels: got 0, expected at least 1"),
        (lambda: architectures.ResidualConv(()), r"ResidualConv channels: got \(\), expected at least 1 of them"),
        (lambda: architectures.ResidualConv((1,), 0), "ResidualConv blocks: got 0, expected at least 1"),
        (lambda: architectures.Conv().encoder((4, 4), 1), r"Conv event shape: got \(4, 4\), expected images"),
        (
            lambda: architectures.ResidualConv().decoder((4,), 1),
            r"ResidualConv event shape: got \(4,\), expected images",
        ),
    ],
    ids=range(8),
)
def test_what_is_refused_goes_by_its_name(make, message):
    with pytest.raises(InputError, match=f"^{message}"):
        make()
