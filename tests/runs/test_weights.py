"""Weights on disk: back bit for bit, or one line that says why not."""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.runs import weights
from aevae_jax.types import InputError

MODEL = VAE(latent=2, network=MLP(hidden=(3,)), event_shape=(5,))


def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0))


SHAPES = shapes(MODEL)


@pytest.fixture(scope="module")
def params():
    """Parameters of every kind of bits: the values themselves do not matter."""
    generator = np.random.RandomState(0)
    return jax.tree.map(lambda s: jnp.asarray(generator.standard_normal(s.shape), s.dtype), SHAPES)


@pytest.fixture
def path(tmp_path, params):
    weights.save_weights(tmp_path / "weights.safetensors", params)
    return tmp_path / "weights.safetensors"


def header_size(contents):
    return 8 + struct.unpack("<Q", contents[:8])[0]


def test_weights_come_back_bit_for_bit(path, params):
    loaded = weights.load_weights(path, SHAPES)
    assert jax.tree.structure(loaded) == jax.tree.structure(params)  # the empty dict of the prior included
    chex.assert_trees_all_equal(loaded, params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))
    assert weights.params_digest(loaded) == weights.params_digest(params)


def test_odd_bits_come_back(tmp_path):
    """Negative zero, the smallest number, the largest, infinity and two NaNs keep their bits; so do empty arrays."""
    bits = np.array([0x80000000, 1, 0x7F7FFFFF, 0x7F800000, 0x7FC00001, 0xFFFFFFFF], np.uint32)
    params = {"a": {"b": bits.view(np.float32)}, "n": np.array(3, np.int32), "e": np.zeros((0, 2), np.float32)}
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), params)
    weights.save_weights(tmp_path / "weights.safetensors", params)
    loaded = weights.load_weights(tmp_path / "weights.safetensors", like)
    assert np.array_equal(np.asarray(loaded["a"]["b"]).view(np.uint32), bits)
    assert loaded["n"].dtype == jnp.int32
    assert loaded["e"].shape == (0, 2)


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "bfloat16", "int32", "int16", "int8", "uint32", "uint16", "uint8", "bool"]
)
def test_every_type_of_numbers_comes_back(tmp_path, dtype):
    params = {"a": jnp.array([1, 0, 1], dtype)}
    weights.save_weights(tmp_path / "weights.safetensors", params)
    loaded = weights.load_weights(tmp_path / "weights.safetensors", params)
    assert loaded["a"].dtype == dtype
    assert np.asarray(loaded["a"], np.float32).tolist() == [1, 0, 1]


def test_the_file_holds_arrays_and_a_digest_and_no_code(path, params):
    contents = path.read_bytes()
    header = json.loads(contents[8 : header_size(contents)])
    assert header.pop("__metadata__") == {"sha256": weights.params_digest(params)}
    assert set(header) == {
        "encoder/Dense_0/kernel",
        "encoder/Dense_0/bias",
        "encoder/out/kernel",
        "encoder/out/bias",
        "decoder/Dense_0/kernel",
        "decoder/Dense_0/bias",
        "decoder/out/kernel",
        "decoder/out/bias",
        "likelihood/log_scale",
    }
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert len(contents) == header_size(contents) + 4 * size


def test_saving_leaves_one_whole_file_and_replaces_the_old_one(path, params):
    changed = jax.tree.map(lambda a: a + 1, params)
    weights.save_weights(path, changed)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    chex.assert_trees_all_equal(weights.load_weights(path, SHAPES), changed)


def test_a_failed_save_keeps_the_old_weights(path, params, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights.os, "fsync", fail)
    with pytest.raises(InputError, match="No space left"):
        weights.save_weights(path, jax.tree.map(lambda a: a + 1, params))
    chex.assert_trees_all_equal(weights.load_weights(path, SHAPES), params)


def flipped(contents, position, bit):
    changed = bytearray(contents)
    changed[position] ^= 1 << bit
    return bytes(changed)


def test_every_flipped_bit_of_the_numbers_is_noticed(path):
    contents = path.read_bytes()
    start = header_size(contents)
    assert len(contents) - start > 200
    for position in range(start, len(contents)):
        path.write_bytes(flipped(contents, position, position % 8))
        with pytest.raises(InputError, match="bytes that do not match their sha256"):
            weights.load_weights(path, SHAPES)


def load_or_message(path):
    """The weights, or what was said in their place; any other exception fails the test."""
    try:
        return weights.load_weights(path, SHAPES)
    except InputError as error:
        return str(error)


def test_a_flipped_bit_of_the_header_changes_no_number(path, params):
    """It is noticed, unless it is in white space that pads the header."""
    contents = path.read_bytes()
    noticed = 0
    for position in range(header_size(contents)):
        path.write_bytes(flipped(contents, position, position % 7))
        got = load_or_message(path)
        if isinstance(got, str):
            noticed += 1
        else:
            chex.assert_trees_all_equal(got, params)
    assert noticed >= header_size(contents) - 8


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, -4, -1])
def test_truncation_is_noticed(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"weights .*got a damaged file"):
        weights.load_weights(path, SHAPES)


@pytest.mark.parametrize(
    "contents",
    [b"\x80\x04\x95", b"PK\x03\x04", b"\xff" * 64, b"\0" * 64, b"{}" * 40],
    ids=["pickle", "zip", "ones", "zeros", "json"],
)
def test_other_files_are_refused(path, contents):
    path.write_bytes(contents)
    with pytest.raises(InputError, match=r"weights .*weights\.safetensors.*: got "):
        weights.load_weights(path, SHAPES)


def test_extra_bytes_are_noticed(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match="weights"):
        weights.load_weights(path, SHAPES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent": 3}, r"weights 'decoder/Dense_0/kernel' .*: got \(2, 3\), expected \(3, 3\)"),
        ({"event_shape": (6,)}, r"weights 'decoder/out/bias' .*: got \(5,\), expected \(6,\)"),
        ({"network": MLP(hidden=(3, 3))}, r"weights 'decoder/Dense_1/bias' .*: got none, expected \(3,\)"),
        ({"network": MLP(hidden=())}, r"weights 'decoder/Dense_0/bias' .*: got \(3,\), expected none"),
    ],
)
def test_weights_of_another_model_are_refused(path, change, message):
    with pytest.raises(InputError, match=message):
        weights.load_weights(path, shapes(replace(MODEL, **change)))


def test_numbers_of_another_type_are_refused(path, params):
    weights.save_weights(path, jax.tree.map(lambda a: np.asarray(a, np.float16), params))
    with pytest.raises(InputError, match=r"weights '.*' .*: got float16, expected float32"):
        weights.load_weights(path, SHAPES)


def test_weights_without_a_digest_are_refused(path, params):
    flat = weights.flatten_dict(params, sep="/")
    path.write_bytes(save({name: np.asarray(a) for name, a in flat.items()}))
    with pytest.raises(InputError, match="bytes that do not match their sha256"):
        weights.load_weights(path, SHAPES)


@pytest.mark.parametrize(("theirs", "ours"), [("a", "b"), ("a", ""), ("", "a")])
def test_weights_know_their_run(path, params, theirs, ours):
    weights.save_weights(path, params, run=theirs)
    weights.load_weights(path, SHAPES, run=theirs)
    with pytest.raises(InputError, match=r"got weights of another run, expected those of the run in run\.json"):
        weights.load_weights(path, SHAPES, run=ours)


def test_a_file_that_is_not_the_one_that_was_pinned_is_refused(path):
    pinned = hashlib.sha256(path.read_bytes()).hexdigest()
    weights.load_weights(path, SHAPES, sha256=pinned)
    with pytest.raises(InputError, match=r"do not match their sha256 in results\.json"):
        weights.load_weights(path, SHAPES, sha256=pinned[::-1])


def test_64_bits_are_named_and_32_are_read_as_they_are(path, params):
    """`JAX_ENABLE_X64=1` is the only difference between the two processes."""
    wide = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, np.float64), SHAPES)
    loaded = weights.load_weights(path, wide)
    chex.assert_trees_all_equal(loaded, params)
    weights.save_weights(path, jax.tree.map(lambda a: np.asarray(a, np.float64), params))
    with pytest.raises(InputError, match=r"got float64, of a run with JAX_ENABLE_X64=1, expected float32; set JAX_EN"):
        weights.load_weights(path, SHAPES)


def test_only_a_regular_file_of_the_announced_size_is_read(path):
    with path.open("ab") as file:
        file.truncate(2**42)
    with pytest.raises(InputError, match="got a damaged file"):
        weights.load_weights(path, SHAPES)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="got a FIFO"):
        weights.load_weights(path, SHAPES)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="got a FIFO, device or socket"):
        weights.load_weights(path, SHAPES)


def test_a_huge_announced_header_does_not_fill_the_memory(path):
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(InputError, match="a damaged file"):
        weights.load_weights(path, SHAPES)


def test_a_header_beyond_the_limit_is_not_read(path, monkeypatch):
    monkeypatch.setattr(weights, "LARGEST_HEADER", header_size(path.read_bytes()) - 9)
    with pytest.raises(InputError, match=r"a damaged file .*a header of"):
        weights.load_weights(path, SHAPES)


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"weights \(.*nothing\): got no file, expected a file that exists"):
        weights.load_weights(tmp_path / "nothing", SHAPES)
    with pytest.raises(InputError, match="weights"):
        weights.load_weights(tmp_path, SHAPES)


def test_digest_sees_names_shapes_types_and_bytes():
    a = np.arange(6, dtype=np.float32)
    trees = [
        {"a": a},
        {"b": a},
        {"a": a.reshape(2, 3)},
        {"a": a.view(np.int32)},
        {"a": np.nextafter(a, math.inf)},
        {"a": {"a": a}},
        {"a": a[:3], "b": a[3:]},
    ]
    assert len({weights.params_digest(tree) for tree in trees}) == len(trees)
    assert weights.params_digest({"x": a, "y": a + 1}) == weights.params_digest({"y": a + 1, "x": a})
