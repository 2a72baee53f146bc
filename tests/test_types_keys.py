"""The contracts, messages and the derivation of keys."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aevae_jax import distributions, keys, types
from aevae_jax.models import VAE, Autoencoder, likelihoods
from aevae_jax.models.architectures import MLP
from aevae_jax.training import loops
from aevae_jax.types import Distribution, InputError, LatentModel


@pytest.mark.parametrize("model", [VAE(), Autoencoder(network=MLP(hidden=()))], ids=lambda model: type(model).__name__)
def test_models_satisfy_the_contract(model):
    assert isinstance(model, LatentModel)
    assert not isinstance(object(), LatentModel)


def test_distributions_satisfy_the_contract():
    assert isinstance(distributions.Delta(jnp.zeros((1, 2))), Distribution)
    assert not isinstance(VAE(), Distribution)


def test_message_says_what_where_got_expected_and_what_to_type():
    error = InputError("batch size", got=0, expected="at least 1", where="run.json", hint="type --batch-size 64")
    assert str(error) == "batch size (run.json): got 0, expected at least 1; type --batch-size 64"
    assert str(InputError("seed", got=-1, expected="at least 0")) == "seed: got -1, expected at least 0"
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("got", ["two\nlines", "a\r\nb", "tab\tand \x1b[31m colour", "x" * 100_000, "\u2028 separator"])
def test_message_is_one_short_line_whatever_was_given(got):
    message = str(InputError("data set", got=got, expected="digits", where=got, hint="try again"))
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert len(message) < 1000
    assert message.endswith("expected digits; try again")


def test_stream_numbers_are_those_that_old_runs_were_made_with():
    assert {use.name: use.value for use in keys.Stream} == {
        "INIT": 0,
        "ORDER": 1,
        "NOISE": 2,
        "PREPARE": 3,
        "EVALUATE": 4,
        "SAMPLE": 5,
        "OBJECTIVE": 6,
        "CONDITION": 7,
    }


def test_stream_is_fold_in_of_use_then_step():
    key = keys.root(3)
    by_hand = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 2), 7)
    assert _same(keys.stream(key, keys.Stream.NOISE, 7), by_hand)
    assert _same(keys.stream(key, keys.Stream.NOISE), jax.random.fold_in(jax.random.key(3), 2))
    first = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 1), 0)
    assert _same(keys.stream(key, keys.Stream.ORDER, 0), first)
    assert _same(keys.stream(key, keys.Stream.ORDER, jnp.asarray(0)), first)
    assert _same(keys.many(key, 3)[2], jax.random.fold_in(jax.random.key(3), 2))


def test_no_two_uses_meet():
    derived = [keys.stream(keys.root(seed), use, step) for seed in range(3) for use in keys.Stream for step in range(5)]
    assert len({tuple(np.asarray(jax.random.key_data(key))) for key in derived}) == 3 * len(keys.Stream) * 5


def test_many_does_not_depend_on_how_many():
    data = [np.asarray(jax.random.key_data(keys.many(keys.root(0), num))) for num in (2, 5)]
    assert np.array_equal(data[0], data[1][:2])
    assert len(np.unique(data[1], axis=0)) == 5


def test_each_follows_the_index_and_not_the_position():
    key = keys.root(0)
    forwards = jax.random.key_data(keys.each(key, jnp.arange(4)))
    backwards = jax.random.key_data(keys.each(key, jnp.arange(4)[::-1]))
    assert np.array_equal(forwards, backwards[::-1])


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("partitionable", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (7, 3), (2, 0, 3), (300, 40)])
def test_uniform_numbers_are_those_of_jax(shape, partitionable, impl):
    key = jax.random.key(11, impl=impl)
    with jax.threefry_partitionable(partitionable):
        ours = jax.jit(keys.uniform, static_argnums=1)(key, shape)
        theirs = jax.random.uniform(jax.random.clone(key), shape, jnp.float32)
    assert ours.dtype == jnp.float32
    np.testing.assert_array_equal(ours, theirs)


def test_uniform_numbers_of_many_keys_are_those_of_each():
    many = keys.many(keys.root(5), 3)
    ours = jax.vmap(lambda key: keys.uniform(key, (4,)))(many)
    np.testing.assert_array_equal(ours, [jax.random.uniform(key, (4,)) for key in many])


def test_on_cpus_uniform_numbers_are_drawn_without_a_loop(monkeypatch):
    def names():
        return set(loops.primitives(jax.make_jaxpr(lambda key: keys.uniform(key, (9,)))(keys.root(0)).jaxpr))

    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert "random_bits" not in names()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "random_bits" in names()


def test_a_key_used_twice_is_an_error_in_these_tests():  # mistake 31
    key = keys.root(0)
    jax.random.normal(key)
    with pytest.raises(jax.errors.KeyReuseError):
        jax.random.normal(key)


def test_long_texts_are_shown_by_their_ends():
    whole = "".join(chr(ord("a") + i % 26) for i in range(400))
    assert types.shortened(whole[:300]) == whole[:300]
    assert types.shortened(whole[:301]) == f"{whole[:225]}...{whole[226:301]}"
    assert types.shortened(whole, 20) == f"{whole[:15]}...{whole[-5:]}"
    assert types.printable("a\tb\u2028c\x1bd\ud800e") == "a b c d e"


def test_what_is_not_installed_is_installed_from_the_checkout():
    error = types.not_installed("grain", "streams", purpose="to stream data")
    assert str(error) == (
        "grain: got not installed, expected installed, to stream data; "
        'type in the checkout of this project: pip install -e ".[streams]"'
    )
    assert "grain: got version 1, expected" in str(types.not_installed("grain", "s", purpose="p", got="version 1"))


class Plain:
    """What offers nothing."""


class Pointless:
    """A model of one's own that says that its codes are no points."""

    point_codes = False
    likelihood = Plain()


def test_what_something_does_not_say_is_not_guessed():
    assert types.measure_of(Plain()) == "unknown"
    assert types.measure_of(distributions.Bernoulli(jnp.zeros((1, 1)))) == "mass"
    assert [types.has_point_codes(model) for model in (Autoencoder(), VAE(), Pointless(), Plain())] == [
        True,
        *[False] * 3,
    ]
    assert types.likelihood_of(Plain()) is types.support_of(Plain()) is types.support_of(Pointless()) is None
    assert types.likelihood_of(VAE(likelihood=likelihoods.Bernoulli())) == likelihoods.Bernoulli()
    assert types.support_of(VAE(likelihood=likelihoods.Categorical(3))) == likelihoods.Support(0.0, 1.0, 3)


def _same(a, b):
    return np.array_equal(jax.random.key_data(a), jax.random.key_data(b))
