"""Means over a data set: exact, repeatable, of the bound at beta = 1."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from aevae_jax import keys
from aevae_jax.evaluation import metrics as evaluation
from aevae_jax.models import VAE, Autoencoder, likelihoods
from aevae_jax.models.architectures import MLP, Conv
from aevae_jax.objectives import bounds, losses as objectives
from aevae_jax.objectives.losses import ELBO, LinearWarmup
from aevae_jax.types import InputError, Validation

COUNT = 23
VAE_MODEL = VAE(latent=2, network=MLP(hidden=(16,)), event_shape=(4, 3, 1))
AUTOENCODER = Autoencoder(latent=2, network=MLP(hidden=(16,)), event_shape=(4, 3, 1))


def key():
    return keys.stream(keys.root(0), keys.Stream.EVALUATE)


@pytest.fixture(scope="module")
def x():
    return jnp.asarray(np.random.RandomState(0).rand(COUNT, 4, 3, 1).astype(np.float32))


@pytest.fixture(scope="module")
def vae():
    return VAE_MODEL, oracles.random_params(VAE_MODEL)


@pytest.fixture(scope="module")
def autoencoder():
    return AUTOENCODER, oracles.random_params(AUTOENCODER)


@pytest.fixture(scope="module")
def terms(vae, x):
    """Every term of every example, `{name: [N]}`."""
    return evaluation.per_example(evaluation.bound_terms, *vae, x, key())


# each example once, whatever the batch


def identity(model, params, x, key):
    """A metric that says which example it was given, in a batch of how many, and with which noise."""
    return {"index": x[:, 0], "size": jnp.full(1, x.shape[0]), "noise": jax.random.uniform(key, (1,))}


@pytest.mark.parametrize("batch_size", [1, 4, 7, COUNT, 256])
def test_each_example_is_seen_once_alone_and_with_its_own_noise(batch_size):  # mistake 18
    data = jnp.arange(COUNT, dtype=jnp.float32)[:, None]
    seen = evaluation.per_example(identity, None, (), data, jax.random.key(1), batch_size=batch_size)
    assert seen["index"].tolist() == list(range(COUNT))
    assert (seen["size"] == 1).all()
    expected = [jax.random.uniform(jax.random.fold_in(jax.random.key(1), i), (1,))[0] for i in (0, 1, COUNT - 1)]
    assert seen["noise"][[0, 1, -1]].tolist() == [float(u) for u in expected]
    assert len(set(seen["noise"].tolist())) == COUNT


def test_parts_are_told_and_change_no_bit(vae, x, monkeypatch):
    monkeypatch.setattr(evaluation, "TOLD_AFTER", 9)
    arguments, told = (evaluation.bound_terms, *vae, x, key()), []
    whole = evaluation.per_example(*arguments, batch_size=4)
    parts = evaluation.per_example(*arguments, batch_size=4, on_part=lambda *part: told.append(part))
    assert told == [(8, COUNT), (16, COUNT), (COUNT, COUNT)]
    assert {name: v.tobytes() for name, v in parts.items()} == {name: v.tobytes() for name, v in whole.items()}


@pytest.mark.parametrize("batch_size", [1, 7])
def test_data_set_mean_does_not_depend_on_the_batch_size(vae, x, terms, batch_size):  # mistake 18
    """Up to the order of float32 sums inside the network."""
    batched = evaluation.evaluate(*vae, x, key(), batch_size=batch_size)
    assert batched.keys() == terms.keys()
    for name, value in batched.items():
        assert value == pytest.approx(terms[name].mean(dtype=np.float64), rel=1e-5), name


def test_convolutions_give_the_same_mean_for_every_batch_size():  # mistake 18
    """On a CPU these batches are a loop of jitted steps."""
    model = Autoencoder(latent=2, network=Conv(channels=(2,)), event_shape=(6, 6, 1))
    images = jnp.asarray(np.random.RandomState(0).rand(5, 6, 6, 1).astype(np.float32))
    params = oracles.random_params(model)
    whole, parts = (evaluation.evaluate(model, params, images, key(), batch_size=size) for size in (5, 2))
    assert whole == pytest.approx(parts, rel=1e-5)


def test_data_set_mean_does_not_depend_on_the_order(vae, autoencoder, x, terms):  # mistake 18
    """Noise belongs to a position, so only the terms without noise can be compared."""
    order = np.random.RandomState(1).permutation(COUNT)
    shuffled = evaluation.per_example(evaluation.bound_terms, *vae, x[order], key())
    for name in ("rate", "mse_at_mean"):
        np.testing.assert_allclose(shuffled[name], terms[name][order], rtol=1e-5)
    straight, reordered = (evaluation.evaluate(*autoencoder, data, key()) for data in (x, x[order]))
    assert straight == pytest.approx(reordered, rel=1e-6)


def test_means_are_of_examples_in_float64_and_hide_nothing():  # mistake 18
    values = np.full(10_000, 16_777_217.0, np.float32)
    values[0] = 1.0
    assert evaluation.means({"a": values})["a"] == pytest.approx(float(values.astype(np.float64).mean()), rel=1e-12)
    assert math.isnan(evaluation.means({"a": np.array([1.0, np.nan])})["a"])
    assert evaluation.means({"a": np.array([1.0, np.inf])})["a"] == math.inf


@pytest.mark.parametrize(("sizes", "batch"), [((1, 1), 256), ((2**14, 2**3), 128), ((2**14, 2**10), 1), ((9, 9), 256)])
def test_where_one_example_is_much_work_fewer_are_computed_at_once(monkeypatch, sizes, batch):
    """Work is seen in the largest array of the program: here `[B, *sizes]`, in an inner program at that."""
    scans = oracles.recorded_scans(monkeypatch, run=False)

    def metric(model, params, x, key):
        return {"sum": jax.jit(lambda v: jnp.broadcast_to(v, (1, *sizes)).sum(axis=(1, 2)))(x[:, :1, None])}

    data = np.zeros((300, 1), np.float32)
    evaluation.per_example(metric, None, (), data, jax.random.key(0))
    evaluation.per_example(metric, None, (), data, jax.random.key(0), batch_size=77)
    assert [batches.shape[1] for *_, batches in scans] == [batch, 77]


@pytest.mark.parametrize("count", [9, 300])
def test_the_program_that_is_run_is_the_one_that_was_looked_at(count):
    """It is traced once to see how many examples suit, and not again."""
    traced = []

    def metric(model, params, x, key):
        traced.append(x.shape)
        return {"sum": x.sum(axis=1)}

    evaluation.per_example(metric, None, (), np.zeros((count, 2), np.float32), key())
    assert traced == [(1, 2)]


@pytest.mark.parametrize(("devices", "batch"), [(1, 25), (3, 75), (11, 256)])
def test_more_devices_compute_more_at_once_each_as_many_as_the_others(monkeypatch, devices, batch):
    """Of 2.5 MiB an example, 25.6 fit on one device; 76 on three, which cannot be divided; 281 on eleven."""
    layout = SimpleNamespace(count=devices, replicate=lambda tree: tree, divide=lambda tree, axis: tree)
    scans = oracles.recorded_scans(monkeypatch, run=False)

    def metric(model, params, x, key):
        return {"sum": jnp.broadcast_to(x[:, :1, None], (1, 5 * 2**14, 2**3)).sum(axis=(1, 2))}

    evaluation.per_example(metric, None, (), np.zeros((300, 1), np.float32), key(), layout=layout)
    assert [batches.shape[1] for *_, batches in scans] == [batch]


class Rows(np.memmap):
    """Rows in a file, and which of them were read."""

    read: ClassVar[list] = []

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            self.read.append((rows.start, rows.stop))
        return np.asarray(super().__getitem__(rows))


def test_data_that_are_not_in_memory_are_sent_a_window_at_a_time(monkeypatch, tmp_path):
    """Windows of 10 rows of 4 bytes, the last of which begins earlier; of each, batches of 4."""
    monkeypatch.setattr(evaluation, "WINDOW_BYTES", 10 * 4)
    rows = Rows(tmp_path / "rows", np.float32, "w+", shape=(COUNT, 1))
    rows[:, 0] = np.arange(COUNT)
    scans, read = oracles.recorded_scans(monkeypatch), []
    monkeypatch.setattr(Rows, "read", read)
    found = evaluation.per_example(identity, None, (), rows, jax.random.key(1), batch_size=4)
    assert read == [(0, 10), (10, 20), (13, 23)]
    assert [batches.shape for *_, batches in scans] == [(3, 4)] * 3
    assert found["index"].tolist() == list(range(COUNT))
    expected = [float(jax.random.uniform(jax.random.fold_in(jax.random.key(1), i), (1,))[0]) for i in (0, 12, 19, 22)]
    assert found["noise"][[0, 12, 19, 22]].tolist() == expected
    read.clear()
    evaluation.per_example(identity, None, (), rows, jax.random.key(1), batch_size=12)
    assert read[0] == (0, 12)  # a window is no smaller than a batch


def test_metrics_are_computed_in_full_float32(monkeypatch, vae, x):
    scans = oracles.recorded_scans(monkeypatch, run=False)
    evaluation.evaluate(*vae, x, key())
    [scan] = scans
    oracles.assert_scan_in_full(scan)


def test_validation_of_many_samples_of_convolutions_is_bounded_in_memory(monkeypatch):
    """256 examples of 50 decoded images would need 1.3 GB for one array."""
    model = VAE(latent=2, network=Conv(channels=(32, 8)), event_shape=(28, 28, 1))
    params = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), jax.eval_shape(model.init, jax.random.key(0)))
    scans = oracles.recorded_scans(monkeypatch, run=False)
    x = np.zeros((256, 28, 28, 1), np.float32)
    evaluation.evaluate(model, params, x, key(), metric=bounds.weighted_terms(50))
    [batches] = [batches for *_, batches in scans]
    assert 4 <= batches.shape[1] <= 64


@pytest.mark.parametrize(
    ("count", "batch_size", "message"), [(0, 7, "evaluation data: got 0"), (5, -1, "batch size: got -1")]
)
def test_nothing_to_evaluate_is_refused(count, batch_size, message):
    with pytest.raises(InputError, match=message):
        evaluation.per_example(identity, None, (), jnp.zeros((count, 1)), jax.random.key(0), batch_size=batch_size)


# what is measured


def test_evaluating_twice_gives_the_same_number(vae, x):  # mistake 19
    first, second = (evaluation.evaluate(*vae, x, key()) for _ in range(2))
    assert first == second


def test_terms_are_those_of_the_bound(vae, x, terms):  # mistake 2
    model, params = vae
    np.testing.assert_allclose(terms["negative_elbo"], terms["distortion"] + terms["rate"], rtol=1e-6)
    i = 3
    q, by_hand = jax.jit(
        lambda x, k: (model.encode(params, x), bounds.elbo(model, params, x[i : i + 1], jax.random.fold_in(k, i)))
    )(x, key())
    rate = 0.5 * (np.exp(2 * q.log_scale) + np.square(q.loc) - 1 - 2 * q.log_scale).sum(axis=1)
    np.testing.assert_allclose(terms["rate"], rate, rtol=1e-4, atol=1e-5)
    assert terms["distortion"][i] == pytest.approx(float(by_hand.distortion[0]), rel=1e-5)


def test_reported_bound_is_the_same_function_whatever_was_trained(vae, x, terms):  # mistakes 2 and 35
    """Objectives with other weights log the bound of validation for the same noise, and another loss."""
    model, params = vae
    objectives = [ELBO(beta) for beta in (1.0, 0.1, 7.0, LinearWarmup(steps=10))]
    keys_ = [jax.random.fold_in(key(), 0) for _ in objectives]
    trained = jax.jit(lambda *ks: [o(model, params, x[:1], k, 0) for o, k in zip(objectives, ks, strict=True)])(*keys_)
    for _, metrics in trained:
        assert float(metrics["negative_elbo"]) == pytest.approx(float(terms["negative_elbo"][0]), rel=1e-5)
    losses = [float(loss) for loss, _ in trained]
    assert losses[0] == pytest.approx(float(terms["negative_elbo"][0]), rel=1e-5)
    assert len({round(loss, 3) for loss in losses}) == 4


def own_objective(model, params, x, key, step):
    """A loss that says nothing of its validation."""
    return jnp.zeros(()), {}


def test_selection_is_the_bound_at_beta_one_or_the_distortion():  # mistakes 2 and 35
    bound = {"distortion": 1.0, "rate": 2.0, "negative_elbo": 3.0, "loss": 9.0}
    for objective in (ELBO(), ELBO(beta=0.1), objectives.IWAE(1), own_objective):
        assert evaluation.selection(objective, bound) == 3.0
    for objective in (objectives.ReconstructionError(), own_objective):
        assert evaluation.selection(objective, {"distortion": 1.0, "mse_at_mean": 0.1}) == 1.0
    assert evaluation.selection(objectives.ReconstructionError(), bound) == 1.0  # what it is trained for
    with pytest.raises(InputError, match=r"got ELBO, which selects by negative_elbo .*, expected one .* distortion"):
        evaluation.selection(ELBO(), {"distortion": 1.0})


class Sharp:
    """An objective of one's own that names what selects; its fields, such as a number of samples, mean nothing."""

    num_samples = 7

    def __call__(self, model, params, x, key, step):
        return jnp.zeros(()), {}

    def validation(self):
        return Validation(identity, ("sharpness", "size"))


def test_an_objective_of_ones_own_names_what_selects():
    assert evaluation.validation_of(Sharp()).metric is identity
    assert evaluation.minimised(Sharp(), ["index", "size"]) == "size"
    assert evaluation.minimised(Sharp(), ["size", "sharpness"]) == "sharpness"  # the order is the objective's
    assert evaluation.minimised(own_objective, ["distortion", "profile_loss"]) == "profile_loss"
    assert evaluation.selection(Sharp(), {"size": 1.0, "sharpness": 2.0, "negative_elbo": 0.0}) == 2.0


def test_what_is_shown_is_what_selects_and_then_the_terms_of_the_bound():
    """Of equal names the later one counts: those of `bound_terms`, which are the same whatever was trained."""
    assert evaluation.shown_for(objectives.IWAE(5)) == (bounds.weighted_terms(5), bounds.bound_terms)
    assert evaluation.shown_for(ELBO()) == evaluation.shown_for(own_objective) == (bounds.bound_terms,)
    assert evaluation.shown_for(Sharp()) == (identity, bounds.bound_terms)


def test_an_objective_of_many_samples_is_selected_by_its_own_bound(vae, x):
    """Its ELBO gets worse while what it is trained for gets better."""
    metric = evaluation.validation_of(objectives.IWAE(5)).metric
    assert metric is evaluation.validation_of(objectives.IWAE(5)).metric  # compiled once
    for objective in (objectives.IWAE(1), ELBO(), {"an": "objective that cannot be hashed"}):
        assert evaluation.validation_of(objective).metric is evaluation.bound_terms
    found = evaluation.evaluate(*vae, x, jax.random.key(0), metric=metric)
    assert found["negative_importance_weighted_bound"] < found["negative_elbo"]
    assert evaluation.selection(objectives.IWAE(5), found) == found["negative_importance_weighted_bound"]
    key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))[1]
    model, params = vae
    log_w = jax.jit(lambda key: bounds.log_weights(model, params, x[:1], key, 5))(key)
    alone = evaluation.per_example(metric, *vae, x[:1], jax.random.key(0))["negative_importance_weighted_bound"]
    np.testing.assert_allclose(alone, -oracles.log_mean_exp(log_w), rtol=1e-5)


def test_evaluation_samples_and_does_not_decode_the_mean(x):  # mistake 7
    """E -log p(x|z) of a linear decoder has a closed form; at the mean of z it lacks the spread of z.

    The mean over 400 evaluations is within 4 of its standard errors of the one, and far from the other.
    """
    model = VAE(latent=2, network=MLP(hidden=()), likelihood=likelihoods.Normal(0.3), event_shape=(4, 3, 1))
    params = jax.jit(model.init)(jax.random.key(0))
    kernel = np.asarray(params["decoder"]["out"]["kernel"], np.float64)  # [latent, 12]
    q = jax.tree.map(lambda a: np.asarray(a, np.float64), oracles.encode(model, params, x))
    error = np.asarray(x, np.float64).reshape(COUNT, 12) - q.loc @ kernel
    constant = 12 * math.log(0.3 * math.sqrt(2 * math.pi))
    at_mean = (error**2).sum(axis=1) / (2 * 0.3**2) + constant
    spread = (np.exp(2 * q.log_scale)[:, :, None] * kernel[None] ** 2).sum(axis=(1, 2)) / (2 * 0.3**2)
    expected = (at_mean + spread).mean()
    one = evaluation.evaluate(model, params, x, key())
    terms = evaluation.per_example(evaluation.bound_terms, model, params, np.tile(x, (400, 1, 1, 1)), jax.random.key(1))
    runs = terms["distortion"].reshape(400, COUNT).mean(axis=1, dtype=np.float64)
    standard_error = runs.std(ddof=1) / math.sqrt(len(runs))
    assert abs(runs.mean() - expected) < 4 * standard_error
    assert abs(at_mean.mean() - expected) > 40 * standard_error
    assert one["mse_at_mean"] == pytest.approx((error**2).mean(), rel=1e-5)  # the mean has its own name
    assert len(set(runs)) == len(runs)


def test_an_autoencoder_has_a_distortion_but_no_bound(autoencoder, x):
    model, params = autoencoder
    metrics = evaluation.evaluate(model, params, x, key())
    assert metrics.keys() == {"distortion", "mse_at_mean"}
    other_noise = evaluation.evaluate(model, params, x, jax.random.key(99))
    assert metrics == other_noise  # nothing in it is random
    reconstruction = oracles.reconstruct(model, params, x)
    mse = float(np.mean((np.asarray(reconstruction) - np.asarray(x)) ** 2, dtype=np.float64))
    assert metrics["mse_at_mean"] == pytest.approx(mse, rel=1e-5)
    assert metrics["distortion"] == pytest.approx(12 * (mse / 2 + 0.5 * math.log(2 * math.pi)), rel=1e-5)


def test_a_profile_likelihood_is_not_called_a_bound(x):
    """Its scale is fitted to what it scores: neither validation nor training shows it as a likelihood."""
    model = VAE(latent=2, network=MLP(()), likelihood=likelihoods.NormalOptimalScale(), event_shape=(4, 3, 1))
    params = oracles.random_params(model)
    found = evaluation.evaluate(model, params, x, key())
    assert set(found) == {"profile_distortion", "rate", "profile_loss", "mse_at_mean"}
    assert found["profile_loss"] == pytest.approx(found["profile_distortion"] + found["rate"], rel=1e-6)
    for objective in (ELBO(), objectives.ReconstructionError(), own_objective):
        assert evaluation.minimised(objective, found).startswith("profile_")
    metrics = jax.eval_shape(lambda p, k: ELBO()(model, p, x, k, 0)[1], params, key())
    assert set(metrics) == {"loss", "profile_distortion", "rate", "profile_loss"}
    metrics = jax.eval_shape(lambda p, k: objectives.ReconstructionError()(model, p, x, k, 0)[1], params, key())
    assert set(metrics) == {"loss", "profile_distortion", "mse"}


class Own:
    """The three functions that evaluation needs, and no base class."""

    def encode(self, params, x):
        return VAE_MODEL.encode(params, x)

    def decode(self, params, z):
        return VAE_MODEL.decode(params, z)

    def prior(self, params, n):
        return VAE_MODEL.prior(params, n)


def test_a_model_of_ones_own_is_measured_by_the_same_functions(vae, x, terms):
    measured = evaluation.evaluate(Own(), vae[1], x, key())
    assert measured == pytest.approx(evaluation.means(terms), rel=1e-6)
