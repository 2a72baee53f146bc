"""Streams: the same batches as resident data, from any step on, in little memory and at nearly the same speed."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from oracles import train_windows
from PIL import Image

from aevae_jax import keys, training
from aevae_jax.data import Data, Split, datasets, prepare, streams
from aevae_jax.evaluation import metrics as evaluation
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.priors import StandardNormal
from aevae_jax.objectives.losses import ELBO
from aevae_jax.runs import fitting
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

pytest.importorskip("grain")
DENSE = Run(model=VAE(2, MLP((8,)), latent_prior=StandardNormal()), batch_size=50, epochs=2)


class Rows:
    """An array that is only read on demand."""

    def __init__(self, x):
        self.x, self.shape, self.dtype = x, x.shape, x.dtype

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        return self.x[rows]


def numbered(count=100):
    """Examples that carry their own index."""
    return np.arange(count, dtype=np.float32)[:, None]


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(streams, "WINDOW_BYTES", 4 * 10 * 3)  # three steps of ten numbers


def batches(x, rows, **shard):
    return np.concatenate(list(streams.windows(x, rows, **shard)))


# windows


def test_windows_are_the_rows_in_order(small_windows):
    rows = np.random.RandomState(0).permutation(100).reshape(10, 10)
    found = list(streams.windows(Rows(numbered()), rows))
    assert [len(window) for window in found] == [3, 3, 3, 1]
    assert np.array_equal(np.concatenate(found)[..., 0], rows)


def test_windows_are_of_nearly_equal_length(monkeypatch):
    monkeypatch.setattr(streams, "WINDOW_BYTES", 4 * 10 * 9)
    rows = np.arange(100).reshape(10, 10)
    assert streams.steps_per_window(numbered(), rows) == 5  # 5 + 5, not 9 + 1
    monkeypatch.setattr(streams, "WINDOW_BYTES", 1)
    assert streams.steps_per_window(numbered(), rows) == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_windows_of_a_given_length_are_filled_up_with_the_last_batch(processes):
    rows = np.random.RandomState(0).permutation(100).reshape(10, 10)
    share = 10 // processes
    for process in range(processes):
        found = list(streams.windows(numbered(), rows, steps=4, process=process, processes=processes))
        assert [window.shape for window in found] == [(4, share, 1)] * 3
        own = rows[:, process * share : (process + 1) * share]
        assert np.array_equal(np.concatenate(found)[..., 0], [*own, own[-1], own[-1]])
    assert len(list(streams.windows(numbered(), rows, steps=5))) == 2  # none is filled up


def test_windows_of_many_seeds_keep_their_axis(small_windows):
    rows = np.random.RandomState(0).randint(0, 100, (6, 4, 10))
    assert np.array_equal(batches(numbered(), rows)[..., 0], rows)


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_the_shares_of_all_processes_are_the_batch(small_windows, processes):
    rows = np.random.RandomState(0).permutation(100).reshape(10, 10)
    shares = [batches(numbered(), rows, process=i, processes=processes) for i in range(processes)]
    assert all(share.shape[1] == 10 // processes for share in shares)
    assert np.array_equal(np.concatenate(shares, axis=1)[..., 0], rows)


def test_batches_of_many_seeds_are_shared_and_counted_as_one(small_windows):
    """Of three processes each reads its third of the batch of each seed; a window holds what all seeds see."""
    rows = np.random.RandomState(0).randint(0, 100, (6, 2, 15))
    shares = [batches(numbered(), rows, process=i, processes=3) for i in range(3)]
    assert [share.shape for share in shares] == [(6, 2, 5, 1)] * 3
    assert np.array_equal(np.concatenate(shares, axis=2)[..., 0], rows)
    assert streams.steps_per_window(numbered(), np.zeros((12, 10), int)) == 3
    assert streams.steps_per_window(numbered(), np.zeros((12, 3, 10), int)) == 1


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(InputError, match="batch size: got 10, expected a multiple of the 3 processes"):
        batches(numbered(), np.arange(100).reshape(10, 10), processes=3)


def test_an_error_of_the_source_reaches_the_caller_as_it_is(small_windows):
    class Damaged(Rows):
        def __getitem__(self, rows):
            if 57 in rows:
                raise InputError("picture", got="a damaged file", expected="an intact one", where="57.png")
            return super().__getitem__(rows)

    with pytest.raises(InputError, match=r"^picture \(57.png\): got a damaged file, expected an intact one$"):
        batches(Damaged(numbered()), np.arange(100).reshape(10, 10))


def test_reading_ahead_is_bounded_and_leaves_no_threads(small_windows):
    read = []

    class Counted(Rows):
        def __getitem__(self, rows):
            read.append(len(rows))
            return super().__getitem__(rows)

    rows = np.tile(np.arange(100).reshape(10, 10), (30, 1))
    before = threading.active_count()
    stream = streams.windows(Counted(numbered()), rows, ahead=2)
    next(stream)
    ahead = threading.Event()
    ahead.wait(0.3)
    assert len(read) <= 1 + 2 + 2  # what was taken, what is ready, what the two threads hold
    stream.close()
    del stream
    ahead.wait(0.3)
    assert threading.active_count() <= before + 2


def test_grain_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(InputError, match=r'grain: got not installed.*pip install -e "\.\[streams\]"'):
        next(streams.windows(numbered(), np.arange(10).reshape(1, 10)))


# the same numbers as with resident data


def losses(fitted):
    return [(entry["train"], entry["validation"]) for entry in fitted.history]


@pytest.mark.slow
def test_resident_and_streamed_training_give_identical_losses(monkeypatch):
    """`test_fitting` holds the two together for convolutions, moving averages and bits that are drawn again."""
    run = DENSE
    monkeypatch.setattr(streams, "WINDOW_BYTES", 64 * 50 * 7)
    resident, streamed = fitting.fit(run, stream=False), fitting.fit(run, stream=True)
    assert losses(resident) == losses(streamed)
    assert len(losses(streamed)) == 2
    assert resident.results["test"] == streamed.results["test"]
    chex.assert_trees_all_equal(resident.params, streamed.params)


@pytest.mark.exact
def test_rows_from_files_train_as_arrays_do(monkeypatch):
    """Neither training nor evaluation ever sees the whole data set."""
    monkeypatch.setattr(streams, "WINDOW_BYTES", 64 * 50 * 7)
    monkeypatch.setattr(evaluation, "WINDOW_BYTES", 64 * 4 * 70)
    dataset = Data().load()
    lazy = replace(dataset, **{part: Split(Rows(getattr(dataset, part).x)) for part in datasets.PARTS})
    resident, streamed = fitting.fit(DENSE), fitting.fit(DENSE, lazy, stream=True)
    assert [train for train, _ in losses(resident)] == [train for train, _ in losses(streamed)]
    chex.assert_trees_all_equal(resident.params, streamed.params)
    for part in ("validation", "test"):  # a window is a program of another length, which XLA may round otherwise
        assert streamed.results[part] == pytest.approx(resident.results[part], rel=1e-6)


def pictures(folder, x):
    for i, image in enumerate(x):
        Image.fromarray(image).save(folder / f"{i:03}.png")
    return Data(str(folder))


def array(folder, x):
    np.save(folder / "x.npy", x)
    return Data(str(folder / "x.npy"))


def tensorflow_datasets(folder, x):
    tiny_tfds = pytest.importorskip("tiny_tfds")
    tiny_tfds.prepared(folder, {"train": x[:100], "test": x[100:]}, shape=(6, 5, 3))
    return Data("tiny", directory=str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pictures, array, tensorflow_datasets])
def test_files_of_every_kind_stream_as_they_train_when_loaded(kind, tmp_path, monkeypatch):
    """Above the limit nothing is loaded: rows come from the files, and the losses are those of loaded data."""
    monkeypatch.setenv("AEVAE_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    images = np.random.RandomState(0).randint(0, 256, (120, 6, 5, 3)).astype(np.uint8)
    run = replace(DENSE, data=kind(tmp_path / "data", images), batch_size=20)
    loaded = run.data.load()
    resident = fitting.fit(run, loaded)
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 1000)
    monkeypatch.setattr(streams, "WINDOW_BYTES", 3 * 20 * 90)
    opened = run.data.load()
    assert datasets.in_memory(loaded.train.x)
    assert not datasets.in_memory(opened.train.x)
    assert opened.digest() == loaded.digest()
    assert losses(fitting.fit(run, opened)) == losses(resident)


@pytest.mark.slow
def test_many_seeds_stream_as_they_train_on_resident_data(monkeypatch):
    monkeypatch.setattr(streams, "WINDOW_BYTES", 64 * 150 * 7)
    run = replace(DENSE, epochs=1)
    resident, streamed = (fitting.fit_seeds(run, (3, 4), stream=stream) for stream in (False, True))
    assert losses(resident) == losses(streamed)


def test_data_beyond_the_limit_is_streamed_by_itself(monkeypatch):
    used = []
    original = streams.windows
    monkeypatch.setattr(streams, "windows", lambda *a, **k: used.append(1) or original(*a, **k))
    fitting.fit(replace(DENSE, epochs=1))
    assert not used
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 64 * 1256)
    fitting.fit(replace(DENSE, epochs=1))
    assert used


@pytest.mark.slow
@pytest.mark.parametrize("start", [1, 16])
def test_a_stream_goes_on_at_any_step_with_the_same_batches(start, monkeypatch):
    """A state in the middle of an epoch is all that is needed: not even its history."""
    monkeypatch.setattr(streams, "WINDOW_BYTES", 64 * 50 * 4)
    dataset, key = Data().load(), keys.root(3)
    prepared = prepare(Data().preparation, dataset)
    model, tx = replace(DENSE.model, event_shape=(8, 8, 1)), optax.adam(1e-3)
    step = training.make_train_step(model, ELBO(), tx, prepare=prepared.batch)
    x, per_epoch = Rows(dataset.train.x), len(dataset.train) // 50

    def go(state, steps):
        rows = training.batch_rows(key, state.step, len(x), batch_size=50, steps=steps)
        return train_windows(step, state, streams.windows(x, np.asarray(rows)), key)

    whole, metrics = go(training.init_state(model, tx, key), per_epoch)
    part, before = go(training.init_state(model, tx, key), start)
    copy = jax.tree.map(lambda a: jnp.asarray(np.asarray(a)), part)
    part, after = go(copy, per_epoch - start)
    assert np.array_equal(metrics["loss"], np.concatenate([before["loss"], after["loss"]]))
    chex.assert_trees_all_equal(whole.params, part.params)


def test_order_is_that_of_resident_training():
    key, state = keys.root(5), jnp.asarray(2 * 25 + 4)
    rows = np.asarray(training.batch_rows(key, state, 1257, batch_size=50, steps=21))
    epoch = np.asarray(training.epoch_order(key, 2, 1257))
    assert np.array_equal(rows.reshape(-1), epoch[4 * 50 : 25 * 50])


# evaluation of what does not fit


def test_evaluation_in_windows_gives_the_same_numbers(monkeypatch):  # mistake 18
    model = replace(DENSE.model, event_shape=(8, 8, 1))
    params = oracles.random_params(model)
    x = prepare(Data().preparation, Data().load()).test.x[:103]
    measure = partial(evaluation.per_example, evaluation.bound_terms, model, params, key=keys.root(1), batch_size=10)
    whole = measure(x)
    for window in (1, 12, 64, 200):
        monkeypatch.setattr(evaluation, "WINDOW_BYTES", 256 * window)
        seen = measure(Rows(x))
        for name in whole:
            assert seen[name].shape == (103,)
            np.testing.assert_allclose(seen[name], whole[name], rtol=1e-6)
