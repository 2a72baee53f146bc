"""A run that leaves likelihood and prior open: what it is trained with, what is recorded, and how it is known again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from run_files import edit_run

from aevae_jax import data
from aevae_jax.data import suited
from aevae_jax.models import VAE, Autoencoder, TwoLevelVAE, likelihoods, priors
from aevae_jax.models.architectures import MLP
from aevae_jax.runs import fitting, resolution, run as runs
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

pytestmark = pytest.mark.usefixtures("no_pictures")

NORMAL, FLAT = likelihoods.NormalSharedScale(), priors.StandardNormal()
OPEN = Run(model=VAE(2, MLP(())), batch_size=10, epochs=1)
THEN = replace(OPEN, model=replace(OPEN.model, likelihood=NORMAL, latent_prior=FLAT))


def images(low=0):
    x = np.random.default_rng(0).integers(low, 256, (40, 4, 3, 1)).astype(np.uint8)
    return data.from_arrays(x[:20], x[20:30], x[30:], name="small")


class Told(Exception):
    """Raised when a note is taken: nothing is trained."""


def told(text):
    raise Told(text)


@pytest.fixture(scope="module")
def now(tmp_path_factory):
    """Trained with what suits the data, and what was said. Read only."""
    folder, notes = tmp_path_factory.mktemp("now"), []
    fitting.fit(OPEN, images(), directory=folder, on_note=notes.append)
    return folder, notes


@pytest.fixture(scope="module")
def then(tmp_path_factory):
    """Trained when nothing could be left open, by a version that wrote down neither field. Read only."""
    folder = tmp_path_factory.mktemp("then")
    fitting.fit(THEN, images(), directory=folder)
    edit_run(folder, lambda record: [record["run"]["model"].pop(name) for name in ("likelihood", "latent_prior")])
    return folder


def test_the_record_holds_what_suits_the_data_and_a_line_says_it(now):
    folder, notes = now
    model = json.loads((folder / "run.json").read_text())["run"]["model"]
    assert model["likelihood"] == {"type": "NormalSharedScale", "initial_scale": 0.25}
    assert model["latent_prior"] == {"type": "VampPrior", "components": 100}
    assert [note for note in notes if "left open, so taken from the data (grey images)" in note] == notes
    assert len(notes) == 1
    loaded = fitting.load_run(folder)
    assert loaded.run.model == VAE(2, MLP(()), NORMAL, priors.VampPrior(100), event_shape=(4, 3, 1))
    assert loaded.params["prior"]["pseudo_inputs"].shape == (100, 4, 3, 1)


def test_typed_as_it_was_or_as_it_was_resolved_it_is_the_same_run(now):
    folder, _ = now
    resolved = fitting.load_run(folder).run
    for run in (OPEN, resolved, replace(OPEN, model=replace(OPEN.model, likelihood=NORMAL))):
        assert fitting.fit(run, images(), directory=folder, on_note=told).run == resolved
    with pytest.raises(InputError, match=r"another run \(model latent_prior VampPrior, here StandardNormal"):
        fitting.fit(THEN, images(), directory=folder)


def test_the_model_that_a_run_is_given_is_left_open_where_it_was(now):
    model = VAE(2, MLP(()), event_shape=(4, 3, 1))
    assert fitting.load_run(now[0], model).model.latent_prior == priors.VampPrior(100)


def test_an_old_record_means_what_it_meant(then):
    tree = json.loads((then / "run.json").read_text())["run"]["model"]
    assert not tree.keys() & {"likelihood", "latent_prior"}
    assert fitting.load_run(then).run.model == replace(THEN.model, event_shape=(4, 3, 1))
    assert runs.read({"type": "Run", "model": {"type": "TwoLevelVAE"}}, "").model == TwoLevelVAE(
        16, MLP(), NORMAL, FLAT
    )
    assert runs.read({"type": "Run"}, "").model == VAE(16, MLP(), NORMAL, FLAT)


@pytest.mark.parametrize("run", [OPEN, THEN], ids=["left open", "typed"])
def test_the_command_that_began_an_old_run_still_knows_it(run, then):
    assert fitting.fit(run, images(), directory=then, on_note=told).model.latent_prior == FLAT


def test_a_run_that_begins_anew_takes_what_suits_the_data_now(then, tmp_path):
    shutil.copytree(then, tmp_path / "run")
    with pytest.raises(Told, match=r"latent_prior=VampPrior\(components=100\)"):
        fitting.fit(OPEN, images(), directory=tmp_path / "run", on_note=told, fresh=True)


@pytest.mark.parametrize(
    ("model", "likelihood", "prior"),
    [
        (VAE(2, MLP(())), NORMAL, priors.VampPrior(100)),
        (TwoLevelVAE(2, MLP((2,))), NORMAL, priors.VampPrior(100)),
        (VAE(2, MLP(()), likelihoods.Normal()), likelihoods.Normal(), priors.VampPrior(100)),
        (VAE(2, MLP(()), latent_prior=FLAT), NORMAL, FLAT),
        (Autoencoder(2, MLP(())), likelihoods.Normal(), FLAT),
    ],
    ids=["both", "two levels", "prior", "likelihood", "autoencoder"],
)
def test_only_what_is_left_open_is_taken_from_the_data(model, likelihood, prior):
    resolved = resolution.resolve(Run(model=model, batch_size=10), images()).run.model
    assert resolved == replace(model, likelihood=likelihood, latent_prior=prior, event_shape=(4, 3, 1))


@pytest.mark.parametrize(
    ("count", "size"), [(1, 1), (15, 1), (24, 2), (384, 32), (1023, 64), (1024, 128), (60_000, 128)]
)
def test_batches_of_few_examples_leave_eight_steps_to_an_epoch(count, size):
    assert suited.batch_size(count) == size
    assert count // size >= min(8, count)


def test_a_batch_size_that_is_left_open_is_said_recorded_and_known_again(tmp_path):
    anew, notes = replace(THEN, batch_size=0), []
    fitted = fitting.fit(anew, images(), directory=tmp_path / "now", on_note=notes.append)
    assert notes == ["batch_size=2, as there are 20 training examples"]
    assert fitted.run == fitting.load_run(tmp_path / "now").run == replace(fitted.run, batch_size=2)
    assert resolution.resolve(Run(model=THEN.model), data.digits()).run.batch_size == 128
    assert resolution.resolve(replace(THEN, batch_size=20), images()).run.batch_size == 20


def test_a_run_that_was_begun_keeps_the_size_of_its_batches(now):
    folder, _ = now
    assert fitting.fit(replace(OPEN, batch_size=0), images(), directory=folder, on_note=told).run.batch_size == 10


def test_no_record_leaves_the_batch_size_open():
    assert runs.read({"type": "Run"}, "").batch_size == 128  # as when it could not be left open
    assert runs.read({"type": "Run", "batch_size": 0}, "", recorded=False).batch_size == 0
    with pytest.raises(InputError, match=r"run\.json batch_size: got 0, expected at least 1"):
        runs.read({"type": "Run", "batch_size": 0}, "run.json")


def test_a_density_that_its_data_will_drive_without_bound_is_warned_of_when_a_run_begins():
    x = np.random.default_rng(0).integers(0, 4, (40, 5)).astype(np.float32) / 3
    continuous = Run(model=VAE(2, MLP(()), likelihoods.ContinuousBernoulli(), FLAT), batch_size=10)
    bits = data.from_arrays(x[:20], x[20:30], x[30:], name="thirds")
    message = r"% of the values are exactly 0 or 1, where ContinuousBernoulli\(\) .* type likelihood=NormalSharedScale"
    with pytest.raises(Told, match=message):
        fitting.fit(continuous, bits, on_note=told)
