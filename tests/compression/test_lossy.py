"""Rounded codes as bytes: the same picture everywhere, no longer than the model says, and nothing is lost unseen."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import random_params

from aevae_jax import VAE, CompressiveAutoencoder
from aevae_jax.compression import archive, certified, chunks, container, files, lossy, rounded, stack
from aevae_jax.compression.lossy import LossyCoder
from aevae_jax.models import architectures, likelihoods
from aevae_jax.types import InputError

EVENT = (8, 8, 1)
MODELS = {
    "one level": CompressiveAutoencoder(6, architectures.MLP((5,)), step=0.1, event_shape=EVENT),
    "three levels": CompressiveAutoencoder(
        24, architectures.Mixer(4, 5, 1), levels=(4, 8), step=0.1, components=2, event_shape=EVENT
    ),
}
each = pytest.mark.parametrize("name", MODELS)
IMAGES = np.random.default_rng(0).integers(0, 256, (70, *EVENT)).astype(np.uint8)


def params_of(name: str, seed: int = 0):
    """Random parameters with priors that are wide enough for what the random encoder says."""
    params = random_params(MODELS[name], seed)
    prior = dict(params["prior"])
    prior["first"] = {**prior["first"], "log_scale": prior["first"]["log_scale"] + 2}
    for level in [level for level in prior if level != "first"]:
        kernel, bias = prior[level]["out"]["kernel"] * 0.1, prior[level]["out"]["bias"] * 0.1
        wider = bias.at[len(bias) // 2 :].add(2.0)
        prior[level] = {**prior[level], "out": {"kernel": kernel, "bias": wider}}
    return {**params, "prior": prior}


@cache
def coder(name: str, seed: int = 0) -> LossyCoder:
    return LossyCoder(MODELS[name], params_of(name, seed))


def parameters(rows: int, elements_: int, components: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    shape = (rows, elements_, components)
    weights, places, scales = (generator.integers(low, high, shape) for low, high in ((-60, 0), (-400, 400), (-64, 60)))
    return np.concatenate([weights, places, scales], axis=-1)


# --- integers ---


def test_integers_come_back_however_far_they_lie():
    given = parameters(9, 5, 3)
    k = np.random.default_rng(1).integers(-60, 60, (9, 5))
    k[0, :4] = -rounded.FARTHEST, rounded.FARTHEST, 5_000, -70_000
    bits = stack.Stack(60)
    rounded.integers(given).push(bits, k)
    again = stack.Stack(60, bits.payload())
    np.testing.assert_array_equal(rounded.integers(given).pop(again), k)
    again.check_empty()


def test_counts_of_a_window_add_up_and_none_is_empty():
    windows = rounded.Windows(parameters(1, 40, 2))
    for place in range(40):
        part, symbols = slice(place, place + 1), int(windows.last[place] - windows.first[place] + 2)
        counts = [int(windows.cumulative(np.array([k]), part)[0]) for k in range(symbols + 3)]
        assert counts[0] == 0
        assert min(np.diff(counts[: symbols + 1])) >= 1
        assert counts[symbols:] == [65536] * 3
        assert counts[symbols - 1] == 65535  # another integer


@pytest.mark.parametrize("log_scale", [-64, -16, 0, 30, 60])
def test_integers_cost_what_the_smoothed_logistic_says(log_scale):
    """Against the distribution that the model has, within a thousandth of a bit where 2^16 counts can tell."""
    from scipy import stats

    k, loc, scale = np.arange(-5, 9)[:, None], 1.3125, np.exp(log_scale / 16)
    given = np.broadcast_to(np.array([0, round(loc * 16), log_scale]), (14, 1, 3))
    found = rounded.cost(given, k)
    mass = stats.logistic.cdf(k[:, 0] + 0.5, loc, scale) - stats.logistic.cdf(k[:, 0] - 0.5, loc, scale)
    likely = mass > 0.01
    np.testing.assert_allclose(found[likely], -np.log2(mass[likely]), atol=0.02)
    expected = (mass * found).sum() - -(mass[mass > 0] * np.log2(mass[mass > 0])).sum()
    assert expected < 0.006


# --- images ---


@each
@pytest.mark.parametrize("n", [1, 70])
def test_a_chunk_comes_back_as_the_decoders_picture_of_the_rounded_code(name, n):
    codec, model, params = coder(name), MODELS[name], params_of(name)
    payload = codec.encode(IMAGES[:n])
    found = codec.decode(payload, n)
    assert found.dtype == np.uint8
    x = jnp.asarray(IMAGES[:n], jnp.float32) / 255
    expected = jax.jit(lambda p, x: model.decode(p, jnp.round(model.encode(p, x).mean())).mean())(params, x)
    plain = (found == IMAGES[:n]).reshape(n, -1).all(axis=1)
    assert plain.mean() < 0.1
    close = np.abs(found[~plain] - np.clip(255 * np.asarray(expected), 0, 255)[~plain])
    assert close.max() <= 0.501
    assert (codec.decode(payload, n) == found).all()


@each
def test_the_picture_does_not_depend_on_what_else_is_decoded(name):
    codec = coder(name)
    together = codec.decode(codec.encode(IMAGES), 70)
    alone = np.concatenate([codec.decode(codec.encode(IMAGES[i : i + 1]), 1) for i in (0, 33, 69)])
    np.testing.assert_array_equal(together[[0, 33, 69]], alone)


@each
def test_a_file_is_as_long_as_the_model_says(name):
    codec = coder(name)
    images = np.tile(IMAGES, (6, 1, 1, 1))
    bits = 8 * len(codec.encode(images))
    assert bits == pytest.approx(codec.bound(images).sum(), rel=0.02, abs=2_000)


def test_another_machines_last_digits_change_no_picture(monkeypatch):
    """What a decoder computes is moved by a thousand units in the last place; what was certain stays as it is."""
    codec = coder("three levels")
    payload = codec.encode(IMAGES)
    expected = codec.decode(payload, len(IMAGES))
    function = certified.Networks.function

    def elsewhere(self, values, wide):
        inner = function(self, values, wide)
        generator = np.random.default_rng(1)

        def moved(*arguments):
            return jax.tree.map(
                lambda a: np.asarray(a) * (1 + generator.uniform(-1, 1, np.shape(a)) * 1e3 * 2.0**-52),
                inner(*arguments),
            )

        return moved

    monkeypatch.setattr(certified.Networks, "function", elsewhere)
    np.testing.assert_array_equal(codec.decode(payload, len(IMAGES)), expected)


@pytest.mark.parametrize(("name", "axes"), [("one level", 4), ("three levels", 4), ("three levels", 3)])
def test_an_image_that_is_not_certain_is_stored_as_it_is(name, axes, monkeypatch):
    """Be it by its picture, which has four axes, or by what a level says of the next, which has three."""
    codec = coder(name)
    certain = certified.certain

    def not_the_second(wide, narrow, code):
        sure = certain(wide, narrow, code).copy()
        if wide.ndim == axes:
            sure[1:2] = False
        return sure

    monkeypatch.setattr(certified, "certain", not_the_second)
    payload = codec.encode(IMAGES[:5])
    monkeypatch.undo()
    found = codec.decode(payload, 5)
    same = (found == IMAGES[:5]).reshape(5, -1).all(axis=1)
    assert same.tolist() == [False, True, False, False, False]


def test_codes_that_would_be_longer_than_images_are_not_used():
    wide = dataclasses.replace(MODELS["one level"], latent=200, step=0.001)
    codec = LossyCoder(wide, random_params(wide))
    payload = codec.encode(IMAGES[:4])
    np.testing.assert_array_equal(codec.decode(payload, 4), IMAGES[:4])
    assert len(payload) < 4 * 64 + 4 * 34 + 32


def test_images_of_few_levels_come_back_in_these_and_in_their_file():
    name = "three levels"
    codec = LossyCoder(MODELS[name], params_of(name), levels=17)
    images = (IMAGES[:30] // 16).astype(np.float32)
    file = io.BytesIO()
    rows = files.of_array(images)
    header = archive.header_of(codec, rows, chunk=12)
    done = archive.compress(codec, rows, header, file)
    found = []
    file.seek(0)
    reader = container.Reader(file)
    archive.decompress(codec, reader, lambda first, block: found.append(block))
    back = np.concatenate(found)
    assert back.dtype == np.float32
    assert set(np.unique(back)) <= set(range(17))
    np.testing.assert_array_equal(back[:12], codec.decode(codec.encode(images[:12].astype(np.uint8)), 12))
    assert done.squared_error == pytest.approx(((back - images) ** 2).mean())
    assert done.verified


# --- mistakes ---


def test_damage_is_noticed_or_gives_pictures():
    codec, payload = coder("three levels"), coder("three levels").encode(IMAGES[:3])
    for place in range(0, len(payload), 37):
        damaged = bytearray(payload)
        damaged[place] ^= 4
        with contextlib.suppress(stack.Damaged):
            assert codec.decode(bytes(damaged), 3).shape == (3, *EVENT)


def test_what_cannot_be_coded_is_refused():
    codec = coder("one level")
    for images in (IMAGES[:, :7], IMAGES[:0], IMAGES.astype(np.float32), IMAGES.astype(np.int64) + 1):
        with pytest.raises(InputError, match=r"^images: got "):
            codec.encode(images)
    vae = VAE(2, architectures.MLP(()), likelihoods.Normal(), event_shape=EVENT)
    with pytest.raises(InputError, match=r"^prior: got Normal, expected .* CompressiveAutoencoder"):
        LossyCoder(vae, random_params(vae))
    broken = jax.tree.map(lambda leaf: leaf * np.nan, random_params(MODELS["one level"]))
    with pytest.raises(InputError, match=r"^parameters: got NaN"):
        LossyCoder(MODELS["one level"], broken)
    with pytest.raises(stack.Damaged):
        codec.decode(codec.encode(IMAGES[:2]) + bytes(4), 2)


def test_another_models_file_goes_by_another_digest():
    assert coder("one level").sha256 != coder("one level", 1).sha256
    assert coder("one level").sha256 == coder("one level").sha256


def test_which_models_have_rounded_codes():
    for name, model in MODELS.items():
        assert lossy.has_rounded_codes(model, params_of(name))
    vae = VAE(2, architectures.MLP(()), likelihoods.DiscretizedLogistic(), event_shape=EVENT)
    assert not lossy.has_rounded_codes(vae, random_params(vae))
    assert LossyCoder.lossy
    assert not chunks.Coder.lossy
