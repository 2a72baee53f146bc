"""A run that cannot be held in memory is refused before anything is computed."""

from __future__ import annotations

import resource
from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from aevae_jax import VAE, CompressiveAutoencoder, ConditionalVAE, data, memory
from aevae_jax.data import datasets
from aevae_jax.models import likelihoods, priors
from aevae_jax.models.architectures import MLP, Conv
from aevae_jax.objectives.adversarial import AAE, FactorVAE
from aevae_jax.objectives.losses import ELBO, IWAE, LinearWarmup
from aevae_jax.objectives.matching import MMD
from aevae_jax.objectives.moments import DIPVAE
from aevae_jax.objectives.total_correlation import BetaTCVAE
from aevae_jax.runs import resolution
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

NARROW = MLP((4,))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            Run(model=VAE(latent=2**31 - 1, network=NARROW)),
            "size of the VAE: got .* parameters, which needs about .* GiB",
        ),
        (Run(model=VAE(network=Conv((1_000_000_000,)))), "size of the VAE: got .* parameters"),
        (
            Run(model=VAE(network=NARROW, latent_prior=priors.VampPrior(2**31 - 1))),
            "size of the VAE: got .* parameters",
        ),
        (
            Run(model=VAE(network=NARROW), objective=IWAE(2**31 - 1)),
            r"size of a step: got an array of shape \(2147483647,",
        ),
    ],
    ids=["latent", "channels", "pseudo-inputs", "samples"],
)
def test_what_no_memory_can_hold_is_refused_and_not_allocated(run, message):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message):
        resolution.resolve(run)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_every_split_must_lie_in_the_support_of_the_likelihood(part):
    parts = {
        name: np.random.default_rng(i).integers(0, 2, (40, 12)).astype(np.float32)
        for i, name in enumerate(("train", "validation", "test"))
    }
    model = VAE(network=NARROW, likelihood=likelihoods.Bernoulli())
    resolution.resolve(Run(model=model, batch_size=8), data.from_arrays(**parts))
    parts[part][-1, -1] = 0.5
    with pytest.raises(InputError, match=f"arrays {part}.*: got 0.5 .*expected 0 or 1, the support of the likelihood"):
        resolution.resolve(Run(model=model, batch_size=8), data.from_arrays(**parts))


def test_long_schedules_are_no_large_ones():
    """They count in 32 bits, and nothing is as long as they are."""
    most = 2**31 - 1
    resolution.resolve(
        Run(
            model=VAE(network=NARROW),
            objective=ELBO(LinearWarmup(most)),
            epochs=most // 9,
            optimizer=AdamW(warmup=most, cosine=True),
        )
    )


VECTORS = np.random.default_rng(0).random((30, 6)).astype(np.float32)
SPLIT = data.from_arrays(VECTORS[:10], VECTORS[10:20], VECTORS[20:], name="vectors")
SMALL = Run(model=VAE(2, MLP(())), batch_size=5, epochs=3)


@pytest.fixture
def table():
    """A table of a number, a count and a colour, of which the count has mean 3.5 and scale 1.5 in training."""
    x = np.array([[0.5, 2.0, 0.0], [1.5, 5.0, 1.0], [-0.25, 2.0, 1.0], [2.5, 5.0, 0.0]] * 5)
    columns = (
        datasets.Column("size", (), "number"),
        datasets.Column("children", (), "count"),
        datasets.Column("colour", ("blue", "red"), "text"),
    )
    split = datasets.Split(x)
    return data.Dataset("people", split, split, split, 0, columns)


@pytest.mark.parametrize(
    ("columns", "counts", "fits"),
    [
        ((), (), True),
        ((0, 0, 2), (), True),
        ((), ((1, -3.5 / 1.5, 1 / 1.5),), True),
        ((0, 0, 2), ((1, -3.5 / 1.5, 1 / 1.5),), True),
        ((0, 0, 2), ((0, 0.0, 1.0),), False),
        ((), ((0, 0.0, 1.0),), False),
        ((0, 0, 3), (), False),
        ((0, 2, 0), (), False),
    ],
)
def test_columns_that_are_given_must_be_those_of_the_table(table, columns, counts, fits):
    given = likelihoods.Tabular(columns, counts)
    run = Run(data=data.Data("x", data.Standardize()), model=VAE(2, NARROW, given), batch_size=5)
    if fits:
        shaped = resolution.resolve(run, table).run.model
        assert shaped.likelihood.columns == (0, 0, 2)
        [(place, zero, step)] = shaped.likelihood.counts
        assert (place, zero, step) == (1, pytest.approx(-3.5 / 1.5), pytest.approx(1 / 1.5))
        assert shaped.event_shape == (6,)
        return
    with pytest.raises(
        InputError, match=r"columns of the likelihood: got Tabular\(.*, expected Tabular\(\), or Tab.*peo"
    ):
        resolution.resolve(run, table)


def test_tables_have_a_likelihood_of_their_own(table):
    model = VAE(2, NARROW, likelihoods.NormalSharedScale())
    run = Run(data=data.Data("x", data.Standardize()), model=model, batch_size=5)
    message = r"likelihood of a table \(people\): got NormalSharedScale, expected Tabular\(\); leave it out"
    with pytest.raises(InputError, match=message):
        resolution.resolve(run, table)
    with pytest.raises(InputError, match=r"likelihood: got Tabular\(\), expected another one: vectors is not a table"):
        resolution.resolve(replace(SMALL, model=VAE(2, NARROW, likelihoods.Tabular())), SPLIT)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_no_part_may_be_empty(part):
    empty = replace(SPLIT, **{part: datasets.Split(VECTORS[:0])})
    with pytest.raises(InputError, match=f"vectors {part}: got 0 examples, expected at least 1"):
        resolution.resolve(SMALL, empty)


@pytest.mark.parametrize(("limit", "stream"), [(240, False), (239, True)])
def test_data_that_is_larger_than_the_limit_is_streamed(monkeypatch, limit, stream):
    """Ten rows of six numbers of 4 bytes; what is typed comes first."""
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", limit)
    assert resolution.resolve(SMALL, SPLIT).stream is stream
    assert resolution.resolve(SMALL, SPLIT, not stream).stream is not stream


def test_memory_is_asked_for_four_times_the_parameters_and_the_largest_array(monkeypatch):
    """LinearWarmup networks: an encoder of 6 x 4 + 4, a decoder of 2 x 6 + 6, and a scale."""
    asked = []
    monkeypatch.setattr(memory, "check", lambda need, **said: asked.append((need, said["got"], said["available"])))
    monkeypatch.setattr(
        resolution.jax, "local_devices", lambda: [SimpleNamespace(memory_stats=lambda: {"bytes_limit": 12345})]
    )
    model = VAE(2, MLP(()), likelihoods.NormalSharedScale())
    resolution.resolve(replace(SMALL, model=model), SPLIT)
    assert asked[0] == (4 * 4 * 47, "47 parameters", 12345)
    assert asked[1][0] >= 5 * 6 * 4  # at least the batch
    assert asked[1][2] == 12345


def vector_loss(model, params, x, key, step):
    return model.decode(params, model.encode(params, x).mean()).log_prob(x), {"fine": jnp.ones(())}


def test_an_objective_is_told_the_number_of_training_examples():
    """Where it leaves that to the data; another number is refused, and so is a batch that it has no term of."""
    run = replace(SMALL, objective=BetaTCVAE(3.0))
    assert resolution.resolve(run, SPLIT).run.objective == BetaTCVAE(3.0, num_examples=10)
    told = replace(run, objective=BetaTCVAE(3.0, num_examples=10))
    assert resolution.resolve(told, SPLIT).run == resolution.resolve(run, SPLIT).run
    with pytest.raises(InputError, match="num_examples of the objective: got 11, expected 10, as in vectors; leave it"):
        resolution.resolve(replace(run, objective=BetaTCVAE(num_examples=11)), SPLIT)
    for objective in (BetaTCVAE(), FactorVAE(), DIPVAE(), MMD(), AAE()):
        with pytest.raises(InputError, match="batch size: got 1, expected at least 2"):
            resolution.resolve(replace(run, objective=objective, batch_size=1), SPLIT)


def test_a_loss_that_is_no_scalar_is_named():
    with pytest.raises(
        InputError, match=r"loss of the objective: got an array of shape \(5,\), expected a scalar; take"
    ):
        resolution.resolve(replace(SMALL, objective=vector_loss), SPLIT)


@pytest.mark.parametrize("row", [0, 39])
def test_every_level_of_the_training_data_is_checked_in_every_block(monkeypatch, row):
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 16 * 10)
    x = np.unpackbits(np.arange(56, dtype=np.uint8)[:, None], axis=1)[:, :, None, None].repeat(2, axis=2) * 255
    x, validation, test = x[:40], x[40:48], x[48:]
    grey = x.copy()
    grey[row, 3, 1] = 7
    run = Run(model=VAE(2, NARROW, likelihoods.Bernoulli()), batch_size=8)
    for train, sound in ((x, True), (grey, False)):
        bits = data.from_arrays(train, validation, test, name="bits")
        if sound:
            resolution.resolve(run, bits)
        else:
            with pytest.raises(InputError, match=r"bits train, levels.*: got 0\.0274\d* .*expected 0 or 1"):
                resolution.resolve(run, bits)


@pytest.mark.parametrize(
    ("memory_stats", "available"), [(lambda: None, None), (dict, None), (lambda: {"bytes_limit": 8}, 8)]
)
def test_room_is_that_of_the_device_or_else_of_the_system(monkeypatch, memory_stats, available):
    rooms = []
    monkeypatch.setattr(resolution.jax, "local_devices", lambda: [SimpleNamespace(memory_stats=memory_stats)])
    monkeypatch.setattr(memory, "check", lambda need, **said: rooms.append(said["available"]))
    resolution.resolve(SMALL, SPLIT)
    assert rooms == [available, available]


@pytest.mark.parametrize("given", [np.zeros((20, 3), np.float32), "./shapes"])
def test_what_is_no_dataset_is_refused_with_how_to_make_one(given):
    with pytest.raises(
        InputError, match=r"dataset: got a (ndarray|str), expected a Dataset; of arrays, type: ae\.from_arr"
    ):
        resolution.resolve(Run(), given)


def labelled(condition="", **more):
    x = np.random.RandomState(0).randint(0, 256, (60, 4, 4, 1)).astype(np.uint8)
    own = data.from_arrays(x, labels=np.arange(60) % 3, **more)
    return data.Data(condition=condition).with_told(own)


def test_a_conditional_model_is_built_for_the_condition_of_the_data():
    for condition, more, sizes in [("label", {}, (3, 0)), ("", {"vector": np.ones((60, 2))}, (0, 2))]:
        run = Run(model=ConditionalVAE(2, MLP((4,)), drop=0.1))
        model = resolution.resolve(run, labelled(condition, **more)).run.model
        assert (model.classes, model.vector, model.drop) == (*sizes, 0.1)


def test_a_class_that_is_told_but_never_trained_is_refused():
    """Of validation or test data, where no training example has it; what is hidden does not count as seen."""
    x = np.random.RandomState(0).randint(0, 256, (60, 4, 4, 1)).astype(np.uint8)
    labels = np.where(np.arange(60) < 54, np.arange(60) % 2, 2)
    split = [data.Split(x[rows], labels[rows]) for rows in (slice(48), slice(48, 54), slice(54, 60))]
    own = data.Dataset("own", *split, 256, classes=(4, 5, 6), class_names=("four", "five", "six"))
    with pytest.raises(InputError, match="class of own: got six in test, expected one that training") as error:
        resolution.resolve(Run(data.Data(condition="label"), ConditionalVAE(2, MLP((4,)))), own)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 200
    both = [data.Split(x[rows], labels[rows] % 2) for rows in (slice(48), slice(48, 54), slice(54, 60))]
    own = data.Dataset("own", *both, 256, classes=(4, 5, 6), class_names=("four", "five", "six"))
    assert (
        resolution.resolve(Run(data.Data(condition="label"), ConditionalVAE(2, MLP((4,)))), own).run.model.classes == 3
    )


@pytest.mark.parametrize(
    ("model", "condition", "message"),
    [
        (VAE(), "label", "condition of arrays: got one, expected none: VAE takes none"),
        (CompressiveAutoencoder(), "label", "expected none: CompressiveAutoencoder takes none"),
        (ConditionalVAE(), "", "condition of arrays: got none, expected what ConditionalVAE is told"),
        (ConditionalVAE(classes=4), "label", "classes of the ConditionalVAE: got 4, expected 3"),
        (ConditionalVAE(vector=2), "label", "vector of the ConditionalVAE: got 2, expected 0"),
    ],
    ids=["not taken", "not taken either", "missing", "other classes", "a vector"],
)
def test_a_condition_and_its_model_go_together(model, condition, message):
    with pytest.raises(InputError, match=message) as error:
        resolution.resolve(Run(model=model), labelled(condition))
    assert len(str(error.value)) <= 200
