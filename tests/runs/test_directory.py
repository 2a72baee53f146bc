"""A run is a value: what training makes of it, what it leaves on disk, and what is refused before anything happens."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_files import as_version_0_1, edit_results, write_record
from sheets import shown

from aevae_jax import data, distributions, evaluation, keys, training, values
from aevae_jax.checkpoints import array_files
from aevae_jax.data import Data, Dataset, DynamicBinarization, Split
from aevae_jax.models import VAE, Autoencoder, generation, likelihoods, priors
from aevae_jax.models.architectures import MLP, Conv, Modules
from aevae_jax.objectives.losses import ELBO, IWAE, ReconstructionError
from aevae_jax.runs import data_of_runs, directory, fitting, records, sweeps, weights
from aevae_jax.runs.run import Run, Safeguard
from aevae_jax.runs.weights import params_digest
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

FILES = [
    "checkpoints",
    "curves.png",
    "losses.npy",
    "metrics.jsonl",
    "reconstructions.png",
    "results.json",
    "run.json",
    "samples.png",
    "weights.safetensors",
]


def images(count, shape=(4, 3, 1), seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


def image_data(shape=(4, 3, 1)):
    return data.from_arrays(images(63, shape), images(13, shape, 1), images(18, shape, 2), name="small")


def vector_data():
    x = np.random.RandomState(0).rand(60, 6).astype(np.float32)
    return data.from_arrays(x[:20], x[20:40], x[40:], name="vectors")


PLAIN = VAE(2, MLP((8,)), likelihoods.NormalSharedScale(), priors.StandardNormal())
RUN = Run(model=PLAIN, batch_size=10, epochs=3, seed=5, ema=0.9)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run directory, what `fit` returned, and what it reported on the way. Read only."""
    folder = tmp_path_factory.mktemp("saved") / "deep" / "run"
    reports = []
    fitted = fitting.fit(RUN, image_data(), directory=folder, on_epoch=reports.append)
    return folder, fitted, reports


@pytest.fixture(scope="module")
def repeated():
    return fitting.fit(RUN, image_data())


@pytest.fixture
def copied(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "run")
    return tmp_path / "run"


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same(a, b):
    chex.assert_trees_all_equal(a, b)


def without_seconds(results):
    return {name: value for name, value in results.items() if name != "seconds"}


# what training makes


@pytest.mark.exact
def test_the_same_seed_makes_the_same_run_bit_for_bit(saved, repeated):  # mistake 31
    _, fitted, _ = saved
    assert params_digest(fitted.params) == params_digest(repeated.params)
    assert fitted.history == repeated.history
    assert without_seconds(fitted.results) == without_seconds(repeated.results)


def test_another_seed_makes_another_run(repeated):  # mistake 31
    other = fitting.fit(replace(RUN, seed=6, epochs=1), image_data())
    assert params_digest(other.params) != params_digest(repeated.params)
    assert other.history[0]["train"]["loss"] != repeated.history[0]["train"]["loss"]
    assert other.history[0]["validation"] != repeated.history[0]["validation"]


@pytest.mark.exact
def test_fit_is_the_public_functions_put_together(repeated):
    """Nothing happens in `fit` that cannot be had by hand; a moving average is what is evaluated."""
    dataset, model = image_data(), repeated.model
    assert model.event_shape == (4, 3, 1)
    key, tx = keys.root(RUN.seed), RUN.optimizer.build(steps=3 * 6)
    step = training.make_train_step(
        model, ELBO(), tx, prepare=data.prepare(RUN.data.preparation, dataset).batch, ema_decay=RUN.ema
    )
    state = jax.jit(lambda k: training.init_state(model, tx, k, ema=True))(key)
    validation = jnp.asarray(data.prepare(RUN.data.preparation, dataset).validation.x)
    averages, bounds = [], []
    for entry in repeated.history:
        state, metrics = training.train_epoch(step, state, jnp.asarray(dataset.train.x), key, batch_size=10)
        averages.append(jax.tree.map(jnp.copy, state.ema))
        measured = evaluation.evaluate(model, state.ema, validation, keys.stream(key, keys.Stream.EVALUATE))
        bounds.append(measured["negative_elbo"])
        assert entry["validation"] == measured
        assert entry["train"]["loss"] == pytest.approx(float(metrics["loss"].mean()), rel=1e-6)
        assert entry["step"] == int(state.step) == 6 * entry["epoch"]
    same(repeated.params, averages[int(np.argmin(bounds))])
    assert repeated.results["best_epoch"] == 1 + int(np.argmin(bounds))


def test_results_are_those_of_the_selected_parameters(repeated):
    prepared = data.prepare(RUN.data.preparation, image_data())
    key = keys.stream(keys.root(RUN.seed), keys.Stream.EVALUATE)
    for part in ("validation", "test"):
        x = jnp.asarray(getattr(prepared, part).x)
        assert evaluation.evaluate(repeated.model, repeated.params, x, key) == repeated.results[part]
    assert repeated.results["protocol"].endswith(
        "parameters of the epoch of the least negative_elbo of validation data"
    )


def test_an_annealed_objective_does_not_choose_the_parameters():  # mistakes 2 and 35
    """The loss falls with its weight and would choose the last epoch; the bound at beta = 1 has a best one before."""
    run = replace(
        RUN,
        objective=ELBO(beta=lambda step: 1 - 2 * jnp.minimum(step / 60, 1.0)),
        epochs=10,
        optimizer=AdamW(0.02),
        ema=0.0,
    )
    fitted = fitting.fit(run, image_data())
    losses = [entry["train"]["loss"] for entry in fitted.history]
    measured = [entry["validation"] for entry in fitted.history]
    bounds = [entry["negative_elbo"] for entry in measured]
    assert fitted.results["best_epoch"] == 1 + int(np.argmin(bounds))
    assert fitted.results["validation"]["negative_elbo"] == min(bounds)
    assert int(np.argmin(losses)) != int(np.argmin(bounds))  # else this would show nothing
    for entry in measured:
        assert entry["negative_elbo"] == pytest.approx(entry["distortion"] + entry["rate"], rel=1e-6)


@pytest.fixture(scope="module")
def stopped():
    """Three seeds with patience, together and alone, on data that is soon learned by heart."""
    run = Run(model=replace(PLAIN, network=MLP((16,))), optimizer=AdamW(1e-2), batch_size=10, epochs=60, patience=4)
    seeds = (0, 2)
    together = fitting.fit_seeds(run, seeds, vector_data())
    return together, [fitting.fit(replace(run, seed=seed), vector_data()) for seed in seeds]


@pytest.mark.slow
def test_training_stops_after_patience_epochs_without_a_better_bound(stopped):
    for fitted in stopped[1]:
        bounds = [entry["validation"]["negative_elbo"] for entry in fitted.history]
        best = int(np.argmin(bounds))
        assert fitted.results["best_epoch"] == best + 1
        assert len(bounds) == best + 1 + 4 < 60
        waits = np.diff([i for i, bound in enumerate(bounds) if bound == min(bounds[: i + 1])])
        assert max(waits, default=0) <= 4  # it was right not to stop earlier


@pytest.mark.slow
def test_seeds_together_stop_and_select_as_each_alone(stopped):
    """After dozens of epochs still within float32 rounding: 1e-4 relative, the parameters as vectors."""
    together, alone = stopped
    assert together.results["best_epoch"] == [fitted.results["best_epoch"] for fitted in alone]
    assert len(set(together.results["best_epoch"])) == 2  # each has its own
    assert len(together.history) == max(len(fitted.history) for fitted in alone)
    for s, fitted in enumerate(alone):
        for part in ("validation", "test"):
            assert together.results[part][s] == pytest.approx(fitted.results[part], rel=1e-4)
        ours, theirs = (jax.tree.leaves(p) for p in (jax.tree.map(lambda a: a[s], together.params), fitted.params))  # noqa: B023
        for a, b in zip(ours, theirs, strict=True):
            assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b) + 1e-7
    first = np.mean([fitted.history[0]["validation"]["negative_elbo"] for fitted in alone])
    assert together.history[0]["validation"]["negative_elbo"] == pytest.approx(first, rel=1e-4)


# what it leaves


def test_directory_holds_what_it_should(saved):
    folder, fitted, reports = saved
    assert sorted(path.name for path in folder.iterdir()) == FILES
    record = json.loads((folder / "run.json").read_text())
    assert record["run"] == values.to_tree(fitted.run)
    assert record["digest"] == records.identity(record)
    assert record == records.sealed(record)
    assert record["run"]["seed"] == 5
    assert record["run"]["model"]["event_shape"] == [4, 3, 1]
    assert record["provenance"]["data"] == image_data().record()
    assert values.from_tree(data.Format, record["format"], "") == image_data().format
    assert record["provenance"]["versions"]["jax"] == jax.__version__
    assert record["provenance"]["device"]["backend"] == jax.default_backend()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines == fitted.history
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    results = json.loads((folder / "results.json").read_text())
    assert results.pop("sha256") == records.sealed(results)["sha256"]
    assert results.pop("run") == record["digest"]
    for name, digest in results.pop("files").items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert results == fitted.results
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert [report.validation for report in reports] == [line["validation"] for line in lines]
    assert all(report.examples_per_second > 0 for report in reports)


def test_pictures_have_the_right_size_and_content(saved):
    folder, fitted, _ = saved
    x = image_data().test.x[:16]  # of 18
    mean = generation.reconstruct(fitted.model, fitted.params, jnp.asarray(x / np.float32(255)))
    mean = np.clip(np.asarray(mean)[..., 0] * 255, 0, 255)
    pairs, lengths = shown(folder / "reconstructions.png", (4, 3))
    assert lengths == [8] * 4
    np.testing.assert_array_equal(pairs[[*range(8), *range(16, 24)]], x[..., 0])
    np.testing.assert_allclose(pairs[[*range(8, 16), *range(24, 32)]], mean, atol=1)
    key = keys.stream(keys.root(5), keys.Stream.SAMPLE)  # as `aevae sample --seed 5` uses it
    drawn = generation.sample(fitted.model, fitted.params, key, 64).mean()
    samples, lengths = shown(folder / "samples.png", (4, 3))
    assert lengths == [8] * 8
    np.testing.assert_allclose(samples, np.clip(np.asarray(drawn)[..., 0] * 255, 0, 255), atol=1)
    assert fitted.run.model.event_shape == (4, 3, 1)


@pytest.mark.slow
@pytest.mark.parametrize("preparation", [data.Scale(), data.Standardize()], ids=repr)
def test_pictures_of_floats_are_black_and_white_where_the_data_are(tmp_path, monkeypatch, preparation):
    """The lowest and the highest value of the inputs, whatever a model makes of them or of random codes."""
    x = np.linspace(-40, 120, 24 * 12, dtype=np.float32).reshape(24, 4, 3, 1)
    dataset = data.from_arrays(np.delete(x, range(8, 12), axis=0), x[:4] + 1, x[8:12], name="floats")
    form = preparation.fit(dataset)
    low, high = x[8].min(), x[11].max()
    drawn, made = np.full((64, 4, 3, 1), (low + high) / 2, np.float32), np.full((4, 4, 3, 1), 1000, np.float32)
    drawn[0], drawn[1], made[1] = low - 50, high + 50, -1000
    seen = [preparation.units(a, form) for a in (drawn, made)]
    monkeypatch.setattr(generation, "preview", lambda *_: seen)
    run = Run(data=Data("floats", preparation), model=replace(PLAIN, network=MLP((4,))), batch_size=8, epochs=1)
    fitting.fit(run, dataset, directory=tmp_path / "run")
    samples, pairs = (shown(tmp_path / "run" / f"{n}.png", (4, 3))[0] for n in ("samples", "reconstructions"))
    np.testing.assert_allclose(samples[:4, 0, 0], [0, 255, 127.5, 127.5], atol=0.51)
    np.testing.assert_allclose(pairs[:4], (x[8:12, ..., 0] - low) / (high - low) * 255, atol=0.51)
    np.testing.assert_array_equal(pairs[4:, 0, 0], [255, 0, 255, 255])


def test_load_run_gives_back_the_model_ready_to_call(saved):  # mistake 29
    folder, fitted, _ = saved
    loaded = fitting.load_run(folder)
    assert loaded.run == fitted.run
    assert loaded.model == fitted.model
    assert loaded.history == fitted.history
    assert loaded.results == fitted.results
    same(loaded.params, fitted.params)
    x = jnp.asarray(image_data().test.x / np.float32(255))
    reconstruct = jax.jit(partial(generation.reconstruct, loaded.model))
    assert np.array_equal(reconstruct(loaded.params, x), reconstruct(fitted.params, x))


def test_the_objective_of_a_run_that_is_given_its_model_is_the_default_of_that(saved, monkeypatch):
    monkeypatch.setattr(weights, "load_weights", lambda path, shapes, **options: {})  # those of another model
    model = Autoencoder(2, MLP((8,)), event_shape=(4, 3, 1))
    assert fitting.load_run(saved[0], model).run == replace(saved[1].run, model=model, objective=ReconstructionError())


def test_a_step_from_loaded_weights_is_the_step_from_those_saved(saved):  # mistake 29
    folder, fitted, _ = saved
    tx = RUN.optimizer.build(10)
    step = training.make_train_step(fitted.model, ELBO(), tx)
    x = jnp.asarray(image_data().train.x[:10] / np.float32(255))
    after = []
    for params in (fitted.params, fitting.load_run(folder).params):
        state = training.TrainState(jnp.int32(0), params, tx.init(params), None)
        after.append(step(state, x, keys.root(1)))
    same(after[0], after[1])
    assert params_digest(after[0][0].params) != params_digest(fitted.params)


@pytest.mark.slow
def test_odd_images_of_five_channels_and_an_autoencoder_by_convolution(tmp_path):  # mistake 38
    run = Run(model=Autoencoder(latent=2, network=Conv(channels=(2,))), batch_size=30, epochs=1)
    assert run.objective == ReconstructionError()
    fitted = fitting.fit(run, image_data((9, 7, 5)), directory=tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == FILES
    assert set(fitted.results["test"]) == {"distortion", "mse_at_mean"}
    assert fitted.results["best_epoch"] == 1
    loaded = fitting.load_run(tmp_path / "run")
    assert loaded.model == replace(run.model, event_shape=(9, 7, 5))
    same(loaded.params, fitted.params)


class Flat(nn.Module):
    """A network of someone else, with a list among its fields."""

    sizes: list

    @nn.compact
    def __call__(self, x):
        for size in self.sizes:
            x = nn.Dense(size)(nn.tanh(x.reshape(x.shape[0], -1)))
        return x


WEIGHTS = np.linspace(0.5, 1.5, 6, dtype=np.float32)


def weighted_squares(model, params, x, key, step):
    """A loss of someone else: it names no metric, and holds an array of the host."""
    del key, step
    return (WEIGHTS * (model.decode(params, model.encode(params, x).mean()).mean() - x) ** 2).mean(), {}


def test_own_network_and_own_loss_are_trained_saved_and_loaded_with_the_model(tmp_path):
    model = replace(PLAIN, network=Modules(Flat([5, 4]), Flat([6])))
    run = Run(model=model, objective=weighted_squares, batch_size=10, epochs=2)
    with jax.numpy_rank_promotion("allow"):  # of someone else, as said
        fitted = fitting.fit(run, vector_data(), directory=tmp_path / "run")
    assert fitted.history[1]["train"]["loss"] < fitted.history[0]["train"]["loss"]
    with pytest.raises(InputError, match=r"which was given from Python, expected a type that can be rebuilt .*; pass"):
        fitting.load_run(tmp_path / "run")
    loaded = fitting.load_run(tmp_path / "run", model=fitted.model)
    same(loaded.params, fitted.params)
    assert loaded.model is loaded.run.model is fitted.model
    assert loaded.run == replace(fitted.run, objective=ELBO())  # as there is none but that of the model
    assert loaded.results == fitted.results
    assert [path.name for path in (tmp_path / "run").glob("*.png")] == ["curves.png"]  # vectors have no other pictures
    with pytest.raises(InputError, match="weights"):
        fitting.load_run(tmp_path / "run", model=replace(fitted.model, latent=1))


class Mean:
    """The four functions of the contract and nothing else: one Gaussian, whose mean is learned."""

    def init(self, key):
        del key
        return {"loc": jnp.zeros(6)}

    def encode(self, params, x):
        del params
        return distributions.Normal(jnp.zeros((x.shape[0], 1)), jnp.zeros((x.shape[0], 1)))

    def decode(self, params, z):
        loc = jnp.broadcast_to(params["loc"], (z.shape[0], 6))
        return distributions.Normal(loc, jnp.zeros_like(loc))

    def prior(self, params, n):
        del params
        return distributions.Normal(jnp.zeros((n, 1)), jnp.zeros((n, 1)))


def test_a_model_of_ones_own_is_trained_saved_and_loaded(tmp_path):
    """Its best mean is that of the training data."""
    dataset, model = vector_data(), Mean()
    run = Run(model=model, optimizer=AdamW(0.05, cosine=True), batch_size=20, epochs=100)
    notes = []
    fitted = fitting.fit(run, dataset, directory=tmp_path / "run", on_note=notes.append)
    assert [note.partition(":")[0] for note in notes] == ["model of this run cannot be written down"]
    assert fitting.fit(run, dataset, directory=tmp_path / "run").results == fitted.results
    last = fitted.history[-1]["train"]
    assert last["rate"] == 0.0
    best = 0.5 * ((dataset.train.x - dataset.train.x.mean(axis=0)) ** 2).sum(axis=1).mean() + 3 * np.log(2 * np.pi)
    assert last["loss"] == pytest.approx(best, rel=1e-4)
    loaded = fitting.load_run(tmp_path / "run", model=model)
    assert loaded.run == fitted.run
    same(loaded.params, fitted.params)


# directories that cannot be used


def never(report):
    raise AssertionError("training started")


def test_a_directory_with_something_else_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    message = r"run directory: got .*, which is not empty \(thesis.tex\), expected a new or empty directory"
    for fresh in (False, True):
        with pytest.raises(InputError, match=message):
            fitting.fit(RUN, image_data(), directory=tmp_path, on_epoch=never, fresh=fresh)
    assert contents(tmp_path) == {Path("thesis.tex"): b"precious"}


def test_an_empty_directory_is_used(tmp_path):
    assert directory.create_directory(tmp_path) == tmp_path
    assert not list(tmp_path.iterdir())  # the probe is gone
    assert directory.create_directory(tmp_path / "a" / "b").is_dir()
    with pytest.raises(InputError, match=rf"got {tmp_path}, which is not empty, expected a new or empty directory"):
        directory.create_directory(tmp_path)


@pytest.mark.parametrize("below", ["", "run", "a/b/run"])
def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(InputError, match=r"run directory: got .*, expected a directory to write in"):
        fitting.fit(RUN, image_data(), directory=tmp_path / "file" / below, on_epoch=never)
    assert contents(tmp_path) == {(tmp_path / "file").relative_to(tmp_path): b"precious"}


def test_a_directory_without_permission_is_refused(tmp_path, monkeypatch):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(directory.tempfile, "TemporaryFile", refuse)
    with pytest.raises(
        InputError, match=r"run directory: got .* \(Permission denied\), expected a directory to write in"
    ):
        fitting.fit(RUN, image_data(), directory=tmp_path / "run", on_epoch=never)


@pytest.mark.parametrize("name", ["x" * 256, "a/" * 3000 + "x", "nu\0ll", "\udcff", "loop/run", "loop"])
def test_names_that_no_directory_can_have_are_refused(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    for call in (
        lambda: fitting.fit(RUN, image_data(), directory=tmp_path / name, on_epoch=never),
        lambda: fitting.load_run(tmp_path / name),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_a_private_place_is_refused(tmp_path, monkeypatch):
    def private(path, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(directory.Path, "stat", private)
    with pytest.raises(InputError, match=r"run directory: got .* \(Permission denied\)"):
        fitting.fit(RUN, image_data(), directory=tmp_path / "run", on_epoch=never)
    monkeypatch.setattr(records.Path, "lstat", private)
    with pytest.raises(InputError, match=r"run\.json .*Permission denied"):
        fitting.load_run(tmp_path / "run")


@pytest.mark.parametrize("name", ["checkpoints", "results.json", "samples.png"])
def test_parts_of_a_run_without_its_record_are_refused(copied, name):
    """Nothing says what run they are of; `fresh` deletes them."""
    for other in FILES:
        if other != name:
            array_files.remove(copied / other)
    before = contents(copied)
    with pytest.raises(
        InputError, match=rf"which holds {name} and no run\.json, expected a .*; put run\.json back, or"
    ):
        fitting.fit(RUN, image_data(), directory=copied, on_epoch=never)
    assert contents(copied) == before
    directory.open_directory(copied, fresh=True)
    directory.clear_directory(copied)
    assert list(copied.iterdir()) == []


def test_checkpoints_elsewhere_are_neither_used_nor_deleted(copied, other):
    """A link may lead to another run."""
    (copied / "results.json").unlink()
    array_files.remove(copied / "checkpoints")
    (copied / "checkpoints").symlink_to(other / "checkpoints")
    before = contents(other)
    with pytest.raises(
        InputError, match=r"checkpoints \(.*\): got a link, expected a directory; remove it, or start over"
    ):
        fitting.fit(RUN, image_data(), directory=copied, on_epoch=never)
    directory.clear_directory(copied)
    assert list(copied.iterdir()) == []
    assert contents(other) == before


@pytest.mark.parametrize("name", ["run.json", "checkpoints"])
def test_what_cannot_be_deleted_is_seen_before_anything_is(copied, monkeypatch, name):
    rename, before = Path.rename, contents(copied)

    def fail(path, target):
        if path.name == name:
            raise OSError(1, "Operation not permitted", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(
        InputError, match=rf"deleted \(Operation not permitted: {name}\), expected .*; nothing was deleted"
    ):
        fitting.fit(RUN, image_data(), directory=copied, on_epoch=never, fresh=True)
    assert contents(copied) == before
    monkeypatch.undo()
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("arrays"))
    with pytest.raises(InputError, match=r"deleted \(Permission denied: arrays\), expected .*; nothing was deleted"):
        directory.clear_directory(copied)
    assert contents(copied) == before


def test_a_deletion_that_is_cut_short_leaves_no_record(copied, monkeypatch):
    def fail(path):
        raise OSError(1, "Operation not permitted", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(array_files, "remove", fail)
        with pytest.raises(InputError, match=r"got run\.json, which cannot be deleted .*; remove \..*\.part by hand"):
            directory.clear_directory(copied)
        directory.sweep(copied)
        assert not {path.name for path in copied.iterdir()} & set(FILES)
    (copied / ".0123456789abcdef.part").symlink_to("/dev/zero")  # half written by a process that was killed
    directory.open_directory(copied)
    directory.sweep(copied)
    assert list(copied.iterdir()) == []


# runs that cannot be trained


def unreduced(model, params, x, key, step):
    """A loss of someone else that forgot to take a mean of what it logs."""
    loss, metrics = ELBO()(model, params, x, key, step)
    return loss, {**metrics, "distortion": model.decode(params, model.encode(params, x).mean()).log_prob(x)}


GREY = Run(model=VAE(likelihood=likelihoods.Bernoulli()), batch_size=10)
UNIT = Run(model=VAE(likelihood=likelihoods.ContinuousBernoulli()), batch_size=10)


def late_outlier():
    x = np.random.RandomState(0).rand(9000, 2).astype(np.float32)
    x[8999, 1] = 1.25
    return data.from_arrays(x, x[:5] / 2, x[:5] / 4, name="vectors")


@pytest.mark.parametrize(
    ("run", "dataset", "message"),
    [
        (
            GREY,
            image_data(),
            "small validation: got .*% of the values are outside.*, expected 0 or 1, the support of the "
            r"likelihood; choose another likelihood, or a preparation such as DynamicBinarization\(\)",
        ),
        (GREY, vector_data(), "vectors validation: got .*expected 0 or 1"),
        (UNIT, late_outlier(), r"vectors train: got 1\.25 .*expected numbers in \[0, 1\]"),
        (replace(UNIT, model=VAE(likelihood=likelihoods.Categorical(17))), image_data(), "the 17 levels k/16"),
        (
            replace(RUN, data=Data(preparation=DynamicBinarization())),
            vector_data(),
            "DynamicBinarization: got float data",
        ),
        (replace(RUN, batch_size=64), image_data(), "batch size: got 64, expected 1 to 63, the number of"),
        (
            replace(RUN, model=VAE(event_shape=(8, 8, 1))),
            image_data(),
            r"event_shape of the model: got \(8, 8, 1\), ex",
        ),
        (replace(RUN, model=VAE(network=Conv())), vector_data(), "Conv event shape: got .6,., expected images"),
        (replace(RUN, model=VAE(network=Modules(nn.Dense(3), nn.Dense(5)))), vector_data(), "output"),
        (replace(RUN, data=Data("no_such_data", directory="/nowhere")), None, "data set: got 'no_such_data'"),
        (sweeps.place(RUN, ["objective.beta"], [float("nan")]), image_data(), "got a number that is not finite"),
        (replace(RUN, objective=ELBO(beta=lambda step: step - 1.0)), image_data(), "beta at step 0: got -1.0, expec"),
        (
            replace(RUN, objective=unreduced),
            image_data(),
            r"distortion of the objective: got an array of shape \(10,\)",
        ),
        (replace(RUN, epochs=2**31 - 1), image_data(), "epochs: got 2147483647, expected 1 to 357913941"),
        (RUN, Dataset("empty", Split(images(20)), Split(images(0)), Split(images(5)), 256), "empty validation: got 0"),
    ],
    ids=[
        "grey images",
        "grey vectors",
        "late outlier",
        "levels",
        "floats binarized",
        "batch",
        "event shape",
        "vectors in Conv",
        "own sizes",
        "unknown data",
        "NaN",
        "schedule",
        "not a scalar",
        "steps",
        "empty split",
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, run, dataset, message):  # mistakes 9 and 13
    with pytest.raises(InputError, match=message) as caught:
        fitting.fit(run, dataset, directory=tmp_path / "run", on_epoch=never)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": Autoencoder(), "objective": ELBO()}, "objective of an Autoencoder: got ELBO, expected Recons"),
        ({"model": Autoencoder(), "objective": IWAE()}, "objective of an Autoencoder: got IWAE"),
        ({"batch_size": -1}, "batch_size: got -1, expected at least 0"),
        ({"epochs": 0}, "epochs: got 0"),
        ({"seed": -1}, "seed: got -1, expected 0 to 4294967295"),
        ({"seed": 2**32}, "seed: got 4294967296"),
        ({"ema": 1.0}, r"ema: got 1\.0, expected at least 0 and less than 1"),
        ({"ema": float("nan")}, "ema: got nan"),
        ({"patience": -1}, "patience: got -1"),
        ({"ema": -0.1}, r"ema: got -0\.1, expected at least 0 and less than 1"),
    ],
)
def test_impossible_runs_cannot_be_written_down(fields, message):
    with pytest.raises(InputError, match=message):
        Run(**fields)


def test_safeguards_have_limits_and_runs_may_stand_on_theirs():
    for field, value, least in (("max_norm", -1.0, 0), ("in_a_row", 0, 1), ("rollbacks", -1, 0)):
        with pytest.raises(InputError, match=f"Safeguard {field}: got {value}, expected at least {least}"):
            Safeguard(**{field: value})
    least = Run(batch_size=1, epochs=1, seed=2**32 - 1, ema=0.0, patience=0, safeguard=Safeguard(0.0, 1, 0))
    assert least.seed == 4294967295
    usual = {name: field for name, field in vars(Run()).items() if name not in ("data", "model", "optimizer")}
    assert usual == {
        "objective": ELBO(),
        "batch_size": 0,
        "epochs": 100,
        "seed": 0,
        "ema": 0.0,
        "patience": 0,
        "safeguard": Safeguard(max_norm=0.0, in_a_row=5, rollbacks=3),
    }


@pytest.mark.parametrize("seeds", [[], [-1], [0, 2**32]])
def test_impossible_seeds_are_refused(seeds):
    with pytest.raises(InputError, match=r"seeds: got .*, expected at least one, each from 0 to 4294967295"):
        fitting.fit_seeds(RUN, seeds, image_data())


def test_a_loss_that_is_no_number_ends_the_training():
    run = Run(model=Mean(), optimizer=AdamW(learning_rate=1e30), batch_size=5, safeguard=Safeguard(rollbacks=0))
    message = (
        r"step 4 \(epoch 2\): got NaN or infinity in .*loss.*, from training examples \d+, .*, expected finite "
        r"numbers, also after 0 rollbacks; lower the learning rate or set clip_norm"
    )
    with pytest.raises(InputError, match=message):
        fitting.fit(run, vector_data())


# run directories that cannot be trusted


def edited(tree, path, value):
    """`tree` with one entry replaced, added, or, for `...`, removed."""
    head, *rest = path
    if not rest:
        return {k: v for k, v in {**tree, head: value}.items() if v is not ...}
    return {**tree, head: edited(tree[head], rest, value)}


def nested(depth):
    tree = 1
    for _ in range(depth):
        tree = [tree]
    return tree


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["run"], ..., r"run \(.*\): got a file without one"),
        (["run"], "__import__('os').system('touch HERE')", "got a file without one"),
        (["run"], {}, "got None, expected Run"),
        (["run", "type"], "os.system", r"got os\.system, expected Run\("),
        (["run", "lr"], 1, "got the unknown field 'lr'"),
        (["run", "seed"], "open('HERE', 'w')", "seed: got .*, expected an integer"),
        (["run", "seed"], nested(900), "seed: got .*, expected an integer"),
        (["resumed"], [3], "a list of objects"),
        (["format"], ..., "no record of the form of its data"),
        (["run", "seed"], 10**4000, "seed: got 1000"),
        (["run", "model", "type"], "Modules", "model: got Modules, expected Autoencoder"),
        (["run", "model", "latent"], 3, "weights .* expected"),
        (["run", "model", "latent"], 0, "latent size"),
        (["run", "model", "latent"], 2**62, "latent size .*at most 2147483647"),
        (["run", "model", "event_shape"], [], "event_shape"),
        (["run", "model", "event_shape"], [0, 3, 1], "event_shape"),
        (["run", "model", "event_shape"], [-4, -3, 1], "event_shape"),
        (["run", "model", "event_shape"], [2**62, 2**62, 1], "event_shape .*at most 2147483647"),
        (["run", "model", "network"], {"type": "Conv"}, "weights"),
        (["run", "model", "latent"], 2**31 - 1, "weights"),
        (["run", "model", "network"], {"type": "Conv", "channels": []}, "weights|Conv"),
        (
            ["run", "model", "network"],
            {"type": "Modules", "encoder_module": {"type": "os"}, "decoder_module": 1},
            "module",
        ),
        (
            ["run", "model", "likelihood"],
            {"type": "NormalSharedScale", "__reduce__": "x"},
            "unknown field '__reduce__'",
        ),
        (["run", "objective"], {"custom": "a" * 10_000}, "objective: got 'aaa"),
        (["run", "data"], "digits", "data: got 'digits', expected Data"),
    ],
    ids=range(25),
)
def test_a_hostile_run_is_refused_in_one_line_and_executes_nothing(copied, monkeypatch, path, value, message):
    monkeypatch.chdir(copied)
    record = json.loads((copied / "run.json").read_text())
    write_record(copied, edited(record, path, value))
    edit_results(copied, lambda results: results.update(run=json.loads((copied / "run.json").read_text())["digest"]))
    before = contents(copied)
    with pytest.raises(InputError, match=message) as caught:
        fitting.load_run(copied)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 3000
    assert contents(copied) == before


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"run": NaN}',
        b'{"run": ' + b"1" * 10_000 + b"}",
    ],
    ids=range(9),
)
def test_a_damaged_run_file_is_refused_in_one_line(copied, text):
    (copied / "run.json").write_bytes(text)
    with pytest.raises(InputError, match=r"run\.json|got a file without one") as caught:
        fitting.load_run(copied)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 3000


def test_objects_nested_too_deeply_are_one_line(copied):
    for depth in range(900, 1000):
        (copied / "run.json").write_text('{"run": ' + '{"a": ' * depth + "1" + "}" * depth + "}")
        with pytest.raises(InputError):
            records.read_record(copied)


def test_data_of_a_run_of_version_0_1_is_known_by_the_digest_of_then(copied):
    """It knew nothing of labels."""
    plain = image_data()
    as_version_0_1(copied)
    for labels in (None, np.zeros(63, np.int32)):
        data_of_runs.check_data(copied, replace(plain, train=replace(plain.train, labels=labels)))
    with pytest.raises(InputError, match="other data under the name 'small'"):
        data_of_runs.check_data(copied, replace(plain, test=plain.validation))


@pytest.mark.parametrize("name", ["run.json", "results.json", "metrics.jsonl", "weights.safetensors"])
def test_a_missing_or_damaged_file_is_refused_in_one_line(copied, name):
    (copied / name).write_bytes(b"{\n")
    with pytest.raises(InputError, match=name) as caught:
        fitting.load_run(copied)
    assert len(str(caught.value).splitlines()) == 1
    (copied / name).unlink()
    with pytest.raises(InputError, match=f"got no (file|{name})"):
        fitting.load_run(copied)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The same run with another seed."""
    folder = tmp_path_factory.mktemp("other") / "run"
    fitting.fit(replace(RUN, seed=6), image_data(), directory=folder)
    return folder


def refused(folder, match):
    with pytest.raises(InputError, match=match) as caught:
        fitting.load_run(folder)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputError, match=match):
        fitting.fit(RUN, image_data(), directory=folder, on_epoch=never)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["run", "seed"], 6),
        (["run", "optimizer", "learning_rate"], 0.5),
        (["run", "objective", "beta"], 4.0),
        (["digest"], "0" * 64),
        (["sha256"], "0" * 64),
        (["provenance", "data", "sha256"], "0" * 64),
        (["provenance", "versions", "jax"], "0.1"),
        (["format", "levels"], 2),
        (["resumed"], []),
    ],
)
def test_an_edited_record_is_refused(copied, path, value):
    """Also where whoever edited it made its sha256 right, but not what its other files carry."""
    record = edited(json.loads((copied / "run.json").read_text()), path, value)
    (copied / "run.json").write_text(json.dumps(record))
    refused(copied, r"run\.json .*: got contents that do not match their sha256, expected the file that training wrote")
    if path[0] in ("run", "format") or "data" in path:
        (copied / "run.json").write_text(json.dumps(records.sealed(record)))
        refused(copied, r"run\.json .*: got a run that does not match its digest")
        write_record(copied, record)
        with pytest.raises(InputError, match=r"results\.json .*: got the results of another run"):
            fitting.load_run(copied)


def test_a_record_without_its_digests_is_none_of_version_0_1(copied):
    record = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(edited(record, ["sha256"], ...)))
    refused(copied, r"run\.json .*: got a run that does not match its digest")
    (copied / "run.json").write_text(json.dumps(record))
    before = (copied / "results.json").read_bytes()
    as_version_0_1(copied)
    (copied / "results.json").write_bytes(before)
    refused(copied, r"results\.json .*: got the results of another run")


@pytest.mark.parametrize("name", ["metrics.jsonl", "losses.npy", "weights.safetensors", "results.json"])
def test_a_file_of_another_run_is_refused(copied, other, name):
    """Also where whoever put it there made the digests in `results.json` right."""
    shutil.copy(other / name, copied / name)
    refused(copied, rf"{name.partition('.')[0]}.*got (bytes that do not match|the results of another run)")
    if name == "weights.safetensors":
        edit_results(copied)
        refused(copied, "got weights of another run")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("test", {"negative_elbo": "1"}),
        ("test", {}),
        ("validation", None),
        ("best_epoch", 4),
        ("best_epoch", -1),
        ("seconds", "1"),
        ("protocol", 3),
        ("files", {}),
        ("run", 3),
    ],
)
def test_results_that_make_no_sense_are_refused(copied, name, value):
    edit_results(copied)
    fitting.load_run(copied)
    results = {**json.loads((copied / "results.json").read_text()), name: value}
    (copied / "results.json").write_text(json.dumps(records.sealed(results)))
    refused(copied, r"(results\.json|metrics\.jsonl) .*: got ")


@pytest.mark.parametrize("name", ["epoch", "step", "skipped", "train", "validation"])
def test_a_line_of_the_log_has_all_of_its_entries(copied, name):
    lines = [json.loads(line) for line in (copied / "metrics.jsonl").read_text().splitlines()]
    del lines[1][name]
    records.write_lines(copied / "metrics.jsonl", lines)
    edit_results(copied)
    with pytest.raises(InputError, match=r"metrics\.jsonl .*: got something else than an entry for each epoch"):
        fitting.load_run(copied)


@pytest.mark.parametrize("text", [b"", b"[]\n", b'{"epoch": 1}\n', b'{"epoch": 1e999}\n', b"\xff\n", None])
def test_a_log_that_is_none_is_refused(copied, text):
    before = (copied / "metrics.jsonl").read_bytes()
    (copied / "metrics.jsonl").write_bytes(before[: len(before) // 2] if text is None else text)
    edit_results(copied)
    refused(copied, r"metrics\.jsonl .*: got ")


def npy(header, data=b""):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"\x93NUMPY",
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (100000000000,)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (18,)}", b"\0" * 71),
        npy("{'descr': '|O'"),
        npy("((("),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (18,)}", b"\0" * 144),
        npy("{'descr': '<f4', 'shape': 3}"),
    ],
)
def test_losses_whose_header_lies_are_refused(copied, contents):
    (copied / "losses.npy").write_bytes(contents)
    edit_results(copied)
    refused(copied, r"losses\.npy .*: got an unreadable file")


@pytest.mark.parametrize("name", ["run.json", "results.json", "metrics.jsonl", "weights.safetensors", "losses.npy"])
@pytest.mark.parametrize("kind", ["FIFO", "device", "giant", "directory"])
def test_what_is_no_file_of_a_bounded_size_is_refused_at_once(copied, name, kind):
    (copied / name).unlink()
    if kind == "FIFO":
        os.mkfifo(copied / name)
    elif kind == "device":
        (copied / name).symlink_to("/dev/zero")
    elif kind == "directory":
        (copied / name).mkdir()
    else:
        with (copied / name).open("wb") as file:
            file.truncate(2**40)
    refused(copied, rf"{name.partition('.')[0]}.*: got (a FIFO|1,0|a directory|a damaged file)")


def test_a_run_of_version_0_1_loads_with_a_note(copied, saved, monkeypatch):
    as_version_0_1(copied)
    notes = []
    loaded = fitting.load_run(copied, on_note=notes.append)
    same(loaded.params, saved[1].params)
    assert loaded.results == saved[1].results
    assert [note.partition("run ")[2] for note in notes] == [
        "was written by version 0.1: it has no digests, so edited or exchanged files are not noticed"
    ]
    with pytest.warns(UserWarning, match="has no digests"):
        fitting.fit(RUN, image_data(), directory=copied, on_epoch=never)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(99), raising=False)
    fitting.fit(RUN, image_data(), directory=copied, on_epoch=never, on_note=notes.append)
    edit = json.loads((copied / "run.json").read_text())
    assert edit["resumed"][0]["host"]["cores"] == 99
    assert "sha256" not in edit  # it has none, though it was written anew
    (copied / "run.json").write_text(json.dumps(edited(edit, ["run", "seed"], 6)))
    refused(copied, "got a run that does not match its digest")  # this much it had


def test_a_picture_that_fails_costs_no_training_and_links_are_not_followed(tmp_path, monkeypatch):
    def fail(*arguments):
        raise MemoryError("too large\nby far")

    preview = generation.preview
    monkeypatch.setattr(generation, "preview", fail)
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("precious")
    for name in ("run", "metrics", "weights", "losses", "results", "probe"):  # the names of version 0.1
        (tmp_path / "run" / f"{name}.part").symlink_to(tmp_path / "precious")
    notes = []
    fitted = fitting.fit(replace(RUN, epochs=1), image_data(), directory=tmp_path / "run", on_note=notes.append)
    assert notes == [f"{tmp_path / 'run'} is finished, but has no pictures (MemoryError: too large)"]
    assert fitting.load_run(tmp_path / "run").results == fitted.results
    assert (tmp_path / "precious").read_text() == "precious"
    monkeypatch.setattr(generation, "preview", preview)
    fitting.fit(replace(RUN, epochs=1), image_data(), directory=tmp_path / "run", on_note=notes.append)
    assert (tmp_path / "run" / "samples.png").is_file()  # the same call leaves what was missing
    for name in ("samples.png", "reconstructions.png"):  # though it be one of both
        before = (tmp_path / "run" / name).read_bytes()
        (tmp_path / "run" / name).unlink()
        fitting.fit(replace(RUN, epochs=1), image_data(), directory=tmp_path / "run", on_note=notes.append)
        assert (tmp_path / "run" / name).read_bytes() == before
    monkeypatch.setattr(generation, "preview", fail)
    fitting.fit(replace(RUN, epochs=1), image_data(), directory=tmp_path / "run", on_note=notes.append)
    assert len(notes) == 1  # nothing is missing: nothing is drawn


def test_pictures_are_not_needed_to_load(copied):
    for picture in copied.glob("*.png"):
        picture.unlink()
    assert fitting.load_run(copied).run.seed == 5


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"run \(.*\): got no run\.json, expected a run directory written by training"):
        fitting.load_run(tmp_path)
    with pytest.raises(InputError, match=r"got no run\.json"):
        fitting.load_run(tmp_path / "nowhere")
