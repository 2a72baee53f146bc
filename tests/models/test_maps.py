"""Codes that are maps: one array `[B, h, w, c]`, at the resolution that the strides of convolutions give."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import refused, typed
from oracles import log_prob, mean, random_params
from scipy import stats

from aevae_jax import VAE, Autoencoder, values
from aevae_jax.compression import Coder
from aevae_jax.evaluation import collapse, traversal
from aevae_jax.models import Model, codes, likelihoods, priors
from aevae_jax.models.architectures import MLP, Conv, Mixer, ResidualConv
from aevae_jax.objectives import bounds
from aevae_jax.types import InputError

pytestmark = pytest.mark.usefixtures("no_pictures")

MAP = (2, 1, 3)


@pytest.mark.parametrize(
    ("image", "latent", "network"),
    [
        ((28, 28, 1), (7, 7, 4), Conv((3, 5))),
        ((33, 33, 1), (17, 17, 2), Conv((4,))),
        ((48, 64, 5), (6, 8, 3), ResidualConv((4, 4, 8))),
        ((12, 10, 3), (3, 3, 2), Conv((3, 5), upsampling="repeat")),
        ((4, 3, 1), (5, 7), MLP((6,))),
    ],
    ids=str,
)
def test_a_code_has_the_shape_that_was_asked_for(image, latent, network):
    for family in (VAE(latent, network, likelihoods.Normal()), Autoencoder(latent, network)):
        model = dataclasses.replace(family, event_shape=image)

        def whole(keys, x, model=model):
            params = model.init(keys[0])
            z = model.encode(params, x).sample(keys[1])
            return z, model.prior(params, 2).sample(keys[2]), model.decode(params, z).mean()

        shapes = jax.eval_shape(whole, jax.random.split(jax.random.key(0), 3), jnp.zeros((2, *image)))
        assert [a.shape for a in shapes] == [(2, *latent), (2, *latent), (2, *image)]


def test_a_map_is_one_of_places():
    """Of 16x16 pixels and two strides, one pixel is seen by the codes near it alone, and one code paints near it."""
    model = VAE((4, 4, 3), Conv((3, 5)), likelihoods.Normal(), event_shape=(16, 16, 1))
    params = random_params(model)
    x, z = jnp.zeros((1, 16, 16, 1)), jnp.zeros((1, 4, 4, 3))

    def moved(function, at):
        return np.asarray(jnp.abs(function(at.at[0, 0, 0, 0].add(1.0)) - function(at))[0].sum(axis=-1) > 0)

    codes = moved(jax.jit(lambda x: model.encode(params, x).mean()), x)
    pixels = moved(jax.jit(lambda z: model.decode(params, z).mean()), z)
    assert codes[0, 0]
    assert not codes[2:].any()
    assert not codes[:, 2:].any()
    assert pixels[0, 0]
    assert not pixels[12:].any()
    assert not pixels[:, 12:].any()


@pytest.mark.parametrize(
    ("latent", "network", "message"),
    [
        (
            (14, 14, 4),
            Conv(),
            r"height and width of latent \(Conv\): got \(14, 14\), expected \(7, 7\), which 2 strides make of "
            r"\(28, 28, 1\); channels of 1 entries make \(14, 14\)",
        ),
        (
            (6, 7, 4),
            ResidualConv(),
            r"\(ResidualConv\): got \(6, 7\), expected \(7, 7\).*1 entries make \(14, 14\); cha",
        ),
        ((7, 4), Conv(), r"got \(7,\), expected \(7, 7\)"),
        ((7, 7, 4), Mixer(), r"latent of a Mixer: got a shape, expected a number of codes; use Conv\(\) for maps"),
    ],
    ids=["other strides", "none", "no map", "mixer"],
)
def test_a_shape_that_the_network_does_not_give_is_refused_with_one_that_it_gives(latent, network, message):
    model = VAE(latent, network, likelihoods.Normal(), event_shape=(28, 28, 1))
    with pytest.raises(InputError, match=message) as error:
        jax.eval_shape(model.init, jax.random.key(0))
    assert len(str(error.value)) <= 200


@pytest.mark.parametrize(
    ("latent", "message"),
    [
        ((8,), r"latent shape \(VAE\): got \(8,\), expected 8, or a shape such as \(7, 7, 4\)"),
        ((), "got ()"),
        ((7, 0, 4), "latent shape .*got 0, expected at least 1"),
        ((7, 7.0, 4), "got 7.0, expected an integer"),
        ((2**20, 2**20, 2), "latent size .*got 2199023255552, expected at most 2147483647"),
    ],
    ids=str,
)
def test_what_is_no_shape_is_refused(latent, message):
    with pytest.raises(InputError, match=message):
        VAE(latent)


def test_a_shape_is_written_and_read_and_a_number_as_before():
    """These sha256 are of values as version 0.1 wrote them."""
    model = VAE((7, 7, 4), Conv())
    assert values.from_tree(Model, values.to_tree(model), "here") == model
    assert values.parse(Model, values.spell(model), "here") == model
    before = VAE(latent=8, network=Conv((4, 8)), event_shape=(28, 28, 1))
    assert values.digest(before).startswith("9fe852cfcfe4aa20")
    assert values.digest(Autoencoder(latent=3)).startswith("10f0915b2e88c151")


# --- the numbers are those of a code that is a vector ---


@pytest.mark.parametrize(
    "prior",
    [priors.StandardNormal(), priors.GaussianMixture(3), priors.FullGaussianMixture(2), priors.VampPrior(3)],
    ids=lambda prior: type(prior).__name__,
)
def test_a_map_has_the_bound_of_its_numbers(prior):
    """Of dense networks, whose weights are put in the order of the map."""
    flat = VAE(6, MLP((5,)), likelihoods.Normal(), prior, event_shape=(4,))
    maps = dataclasses.replace(flat, latent=MAP)
    params = random_params(flat)
    order = np.arange(12).reshape(2, 2, 3).swapaxes(0, 1).reshape(-1)  # means and scales of each place side by side
    out = {name: leaf[..., order] for name, leaf in params["encoder"]["out"].items()}
    prior_params = dict(params["prior"])
    if isinstance(prior, priors.GaussianMixture):
        prior_params |= {name: prior_params[name].reshape(-1, *MAP) for name in ("loc", "log_scale")}
    placed = {**params, "encoder": {**params["encoder"], "out": out}, "prior": prior_params}
    assert jax.tree.map(jnp.shape, placed) == jax.tree.map(jnp.shape, jax.eval_shape(maps.init, jax.random.key(0)))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    one, other = (
        jax.jit(lambda p, m=m: bounds.bound_terms(m, p, x, jax.random.key(0)))(p)
        for m, p in ((flat, params), (maps, placed))
    )
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, err_msg=name)
    drawn = [np.asarray(m.prior(p, 5).sample(jax.random.key(1))) for m, p in ((flat, params), (maps, placed))]
    np.testing.assert_allclose(drawn[0].reshape(5, *MAP), drawn[1], rtol=1e-5)
    means = [np.asarray(mean(m.prior(p, 5))) for m, p in ((flat, params), (maps, placed))]
    np.testing.assert_allclose(means[0].reshape(5, *MAP), means[1], rtol=1e-5)


def test_a_mixture_is_fitted_to_all_numbers_of_a_map():
    model = Autoencoder(MAP, MLP(()), event_shape=(4,))
    z = np.random.default_rng(0).normal(size=(50, *MAP)) @ np.triu(np.ones((3, 3)))
    fitted, params = priors.fit_mixture(model, random_params(model), z, components=1)
    rows = z.reshape(50, 6)
    floor = 1e-4 * z.var() * np.eye(6)
    expected = stats.multivariate_normal(rows.mean(axis=0), np.cov(rows.T, bias=True) + floor).logpdf(rows)
    np.testing.assert_allclose(log_prob(fitted.prior(params, 50), z.astype(np.float32)), expected, rtol=1e-4)
    with pytest.raises(InputError, match=r"codes .*got shape \(50, 3, 2\), expected \(N, 6\)"):
        priors.fit_mixture(model, params, z.reshape(50, 3, 2))


def test_the_largest_numbers_of_a_map_are_those_of_all_places():
    raw = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    kept = np.asarray(codes.TopK(3)(jnp.asarray(raw))).reshape(4, -1)
    rows = raw.reshape(4, -1)
    smallest = np.sort(rows, axis=1)[:, -3:-2]
    np.testing.assert_array_equal(kept, np.where(rows >= smallest, rows, 0))


# --- who uses codes ---


def test_dimensions_of_a_map_are_moved_one_by_one():
    model = VAE(MAP, MLP(()), likelihoods.Normal(), priors.GaussianMixture(2), event_shape=(4,))
    params = random_params(model)
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    found = traversal.describe(model, params, x)
    means = np.asarray(jax.jit(lambda x: model.encode(params, x).mean())(x))
    np.testing.assert_allclose(found.activity, means.var(axis=0).reshape(-1), rtol=1e-4)
    assert [a.shape for a in found] == [(6,)] * 3
    assert [traversal.place(d, MAP) for d in (0, 2, 3)] == ["0, 0, 0", "0, 0, 2", "1, 0, 0"]
    assert traversal.place(5, (9,)) == "5"


@pytest.mark.parametrize("likelihood", [likelihoods.Bernoulli(), likelihoods.DiscretizedLogistic(3)], ids=str)
def test_a_model_of_maps_is_a_lossless_codec(likelihood):
    model = VAE(MAP, MLP((5,)), likelihood, priors.GaussianMixture(2), event_shape=(6,))
    coder = Coder(model, random_params(model))
    symbols = np.random.default_rng(0).integers(0, coder.levels, (9, 6)).astype(np.uint8)
    np.testing.assert_array_equal(coder.decode(coder.encode(symbols), 9), symbols)


def test_dead_channels_are_what_a_smaller_map_lacks():
    active = np.zeros((2, 2, 3), bool)
    active[0, 0, 1] = active[1, 0, 1] = True
    assert collapse.smaller((2, 2, 3), active.reshape(-1)) == (2, 2, 1)
    active[1, 1] = True
    assert collapse.smaller((2, 2, 3), active.reshape(-1)) is None
    assert collapse.smaller(4, np.array([True, False, True, False])) == 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of digits whose codes are maps."""
    run = tmp_path_factory.mktemp("maps") / "run"
    model = "VAE((2, 2, 3), Conv((4, 8)), latent_prior=StandardNormal())"
    typed("train", run, "--data", "digits", "--model", model, "--epochs", 1)
    return run


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.slow
def test_commands_take_and_make_maps(trained, tmp_path, capsys):
    typed("encode", trained, "--split", "test", "--out", tmp_path / "z.npz")
    found = load(tmp_path / "z.npz")
    assert found["codes"].shape == found["scale"].shape
    assert found["codes"].shape[1:] == (2, 2, 3)
    typed("decode", trained, "--input", tmp_path / "z.npz", "--out", tmp_path / "x.npy")
    typed("reconstruct", trained, "--num", 1000, "--out", tmp_path / "y.npy")
    decoded = np.load(tmp_path / "x.npy")
    np.testing.assert_allclose(decoded, np.load(tmp_path / "y.npy"), atol=1e-5)
    typed("interpolate", trained, "--start", 2, "--end", 7, "--steps", 3, "--out", tmp_path / "i.npz")
    path = load(tmp_path / "i.npz")
    np.testing.assert_allclose(path["codes"][1], (found["codes"][2] + found["codes"][7]) / 2, atol=1e-5)
    np.testing.assert_allclose(path["images"][[0, 2]], decoded[[2, 7]], atol=1e-4)
    typed("traverse", trained, "--start", 3, "--num", 4, "--steps", 3, "--out", tmp_path / "t.npz")
    moved = load(tmp_path / "t.npz")
    own = np.moveaxis(moved["codes"].reshape(4, 3, -1) - found["codes"][3].reshape(-1), 1, 0)
    others = [np.delete(row, dimension, axis=-1) for row, dimension in zip(own[1], moved["dimensions"], strict=True)]
    np.testing.assert_allclose(others, 0, atol=1e-5)
    typed("traverse", trained, "--num", 2, "--steps", 3, "--out", tmp_path / "t.png")
    typed("sample", trained, "--num", 4, "--out", tmp_path / "s.png")
    assert "mutual information" in typed("diagnose", trained)
    np.save(tmp_path / "flat.npy", found["codes"].reshape(-1, 12))
    error = refused(capsys, "decode", trained, "--input", tmp_path / "flat.npy", "--out", tmp_path / "n.npy")
    assert "12), expected (N, 2, 2, 3), as the model was built for" in error
