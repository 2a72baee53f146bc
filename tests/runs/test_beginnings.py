"""Trainings that go on from another run: with the bits of all epochs at once, or at its weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from run_files import edit_run

from aevae_jax import keys, training
from aevae_jax.checkpoints import signals
from aevae_jax.checkpoints.saving import Saving
from aevae_jax.checkpoints.store import Store
from aevae_jax.data import Data, Standardize, from_arrays, prepare
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Normal
from aevae_jax.models.priors import StandardNormal
from aevae_jax.objectives.losses import ELBO
from aevae_jax.runs import curves, fitting, records, reproduction, resume
from aevae_jax.runs.run import Run, Safeguard
from aevae_jax.runs.weights import params_digest
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

IMAGES = np.random.RandomState(0).randint(0, 256, (100, 3, 3, 1)).astype(np.uint8)
STEPS = 8  # per epoch


@pytest.fixture(scope="module", autouse=True)
def _no_curves():
    """They are not looked at here, and take longer to draw than a training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "draw", lambda *arguments, **options: None)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(path, IMAGES)
    return Data(str(path))


@pytest.fixture(scope="module")
def run(data):
    model = VAE(2, MLP((4,)), Normal(1.0), StandardNormal())
    return Run(data, model, None, AdamW(0.05, warmup=30), 10, epochs=2, seed=3, ema=0.9)


@pytest.fixture(scope="module")
def old(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("old") / "run"
    fitting.fit(run, directory=folder)
    return folder


@pytest.fixture(scope="module")
def longer(run, tmp_path_factory):
    """All epochs at once."""
    folder = tmp_path_factory.mktemp("longer") / "run"
    fitting.fit(replace(run, epochs=5), directory=folder)
    return folder


def left(folder):
    """What a finished run leaves, but its record and the seconds."""
    results = json.loads((folder / "results.json").read_text())
    assert results.pop("seconds") > 0
    assert results.pop("sha256")
    names = ("metrics.jsonl", "losses.npy", "weights.safetensors", "samples.png")
    return [results, *((folder / name).read_bytes() for name in names if (folder / name).exists())]


# more epochs of the same run


@pytest.mark.exact
@pytest.mark.parametrize("stop", [None, 2 * STEPS + 3, 4 * STEPS])
def test_more_epochs_have_the_bits_of_all_at_once(run, old, longer, tmp_path, stop):
    folder, before, notes = tmp_path / "run", left(old), []

    def on_steps(told):
        if (told.epoch - 1) * STEPS + told.done == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    options = {"directory": folder, "initial": old, "on_note": notes.append}
    if stop is not None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resume.ChunkSizer, "steps", lambda sizer: 1)  # told of, and stopped, at each step
            with pytest.raises(signals.Interrupted, match=f"saved at step {stop}:"):
                fitting.fit(replace(run, epochs=5), saving=Saving(seconds=1e9), on_steps=on_steps, **options)
    fitted = fitting.fit(replace(run, epochs=5), **options)
    assert left(folder) == left(longer)
    assert left(old) == before
    assert len(fitted.history) == 5
    record, whole = (records.read_record(each) for each in (folder, longer))
    assert record["digest"] == whole["digest"]  # it is the same run
    assert record["extends"] == {"run": records.read_record(old)["digest"], "epochs": 2}
    assert f"going on from epoch 2 of {old}: as if all 5 had been asked for at once" in notes


def test_what_went_on_is_reproduced_from_the_beginning(run, old, tmp_path):
    fitting.fit(replace(run, epochs=3), directory=tmp_path / "run", initial=old)
    verdict = reproduction.reproduce(tmp_path / "run", on_note=pytest.fail)
    assert verdict.outcome == "PASS (bitwise)"


def test_where_a_run_was_trained_that_another_goes_on_from_is_not_forgotten(run, old, tmp_path):
    moved = shutil.copytree(old, tmp_path / "old")
    record = records.read_record(moved)
    record["provenance"]["versions"]["jax"] = "0.1"
    records.write_json(moved / "run.json", records.sealed(record))
    fitting.fit(replace(run, epochs=3), directory=tmp_path / "run", initial=moved)
    verdict = reproduction.reproduce(tmp_path / "run", on_note=pytest.fail)
    assert any("versions jax 0.1" in difference for difference in verdict.differences)


def test_it_goes_on_in_memory_and_from_what_went_on(run, old, longer, tmp_path):
    fitting.fit(replace(run, epochs=3), directory=tmp_path / "run", initial=str(old))
    fitted = fitting.fit(replace(run, epochs=5), initial=tmp_path / "run")
    assert params_digest(fitted.params) == params_digest(fitting.load_run(longer).params)
    assert fitted.losses.tobytes() == fitting.load_run(longer).losses.tobytes()


@dataclass(frozen=True)
class BreaksAt:
    """The ELBO, whose loss is NaN at some steps."""

    steps: tuple[int, ...]

    def __call__(self, model, params, x, key, step):
        loss, metrics = ELBO()(model, params, x, key, step)
        broken = sum(step == at for at in self.steps) > 0
        return loss + jnp.where(broken, jnp.nan, 0.0), metrics

    def validation(self):
        return ELBO().validation()


def test_numbers_that_break_are_rolled_back_to_before_it_went_on(run, tmp_path):
    """The steps that are skipped begin in the old run, and of that only the end is kept."""
    images, at = from_arrays(IMAGES), 2 * STEPS + 1
    short = replace(run, data=Data(), objective=BreaksAt((at, at + 1, at + 2)), safeguard=Safeguard(in_a_row=3))
    notes = []
    whole = fitting.fit(replace(short, epochs=5), images, on_note=notes.append)
    assert f"to skip the batches of steps {at - 3} to {at + 2}" in " ".join(notes)
    fitting.fit(short, images, directory=tmp_path / "old", on_note=notes.append)
    going_on = replace(short, epochs=5)
    fitted = fitting.fit(going_on, images, directory=tmp_path / "run", initial=tmp_path / "old", on_note=notes.append)
    assert any("going on" in note for note in notes)
    assert fitted.losses.tobytes() == whole.losses.tobytes()
    assert params_digest(fitted.params) == params_digest(whole.params)
    shutil.rmtree(tmp_path / "old" / "checkpoints")
    with pytest.raises(InputError, match=r"checkpoints of the old run .*: got none, expected its last one"):
        fitting.fit(going_on, images, initial=tmp_path / "old")


# weights


def test_the_training_begins_at_the_selected_weights(run, old, tmp_path):
    changed, notes = replace(run, optimizer=AdamW(1e-9), epochs=1, ema=0.0), []
    fitted = fitting.fit(changed, directory=tmp_path / "run", initial=old, on_note=notes.append)
    before = fitting.load_run(old)
    for new, given in zip(*(jax.tree.leaves(each.params) for each in (fitted, before)), strict=True):
        np.testing.assert_allclose(new, given, atol=1e-6)
    entry = records.read_record(tmp_path / "run")["initial"]
    digest = records.read_record(old)["digest"]
    assert entry == {"run": digest, "params": params_digest(before.params), "place": str(old)}
    assert records.read_record(tmp_path / "run")["digest"] != records.identity(
        {**records.read_record(tmp_path / "run"), "initial": {**entry, "params": "others"}}
    )
    best = before.results["best_epoch"]
    assert f"beginning at the weights of epoch {best} of {old}, with a new optimizer" in notes
    assert reproduction.reproduce(tmp_path / "run").outcome == "PASS (bitwise)"


def test_a_run_that_begins_at_another_is_resumed_and_followed_where_that_has_moved(run, old, tmp_path):
    place = shutil.copytree(old, tmp_path / "old")
    changed = replace(run, seed=4)
    whole = fitting.fit(changed, directory=tmp_path / "whole", initial=place)
    stopped, calls = tmp_path / "stopped", []
    with pytest.raises(KeyboardInterrupt):
        fitting.fit(changed, directory=stopped, initial=place, on_epoch=lambda epoch: calls.append(1) or interrupt())
    assert fitting.fit(changed, directory=stopped, initial=place).losses.tobytes() == whole.losses.tobytes()
    with pytest.raises(InputError, match=r"holds another run \(begun from .*old, here begun anew\)"):
        fitting.fit(changed, directory=stopped)
    place.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"no run\.json"):
        reproduction.reproduce(stopped)
    assert reproduction.reproduce(stopped, initial=str(tmp_path / "moved")).outcome == "PASS (bitwise)"
    fitting.fit(replace(run, seed=5), directory=tmp_path / "other")
    with pytest.raises(InputError, match=r"initial weights .*: got those of another run"):
        reproduction.reproduce(stopped, initial=str(tmp_path / "other"))


def interrupt():
    raise KeyboardInterrupt


def test_weights_from_python_begin_a_training_and_are_known_by_their_digest(run, old, tmp_path):
    before = fitting.load_run(old)
    changed = replace(run, seed=4)
    by_path = fitting.fit(changed, initial=old)
    for given in (before, before.params):
        assert params_digest(fitting.fit(changed, initial=given).params) == params_digest(by_path.params)
    folder = tmp_path / "run"
    fitting.fit(changed, directory=folder, initial=before.params)
    assert records.read_record(folder)["initial"] == {"params": params_digest(before.params)}
    with pytest.raises(InputError, match="given from Python"):
        reproduction.reproduce(folder)
    with pytest.raises(InputError, match="holds another run"):
        fitting.fit(changed, directory=folder, initial=jax.tree.map(lambda a: a + 1, before.params))
    assert before.params["encoder"]["Dense_0"]["kernel"].shape  # not donated


def test_the_state_of_the_optimizer_is_kept_where_that_is_asked_for(run, old, tmp_path, data):
    """A step of Adam after thousands of others is another than its first, which is of the size of the rate."""
    other = replace(run, seed=9, epochs=1)
    kept = fitting.fit(other, directory=tmp_path / "kept", initial=old, keep_optimizer=True)
    entry = records.read_record(tmp_path / "kept")["initial"]
    assert entry.keys() == {"run", "params", "optimizer", "place"}
    anew = fitting.fit(other, initial=old)
    assert kept.losses.tobytes() != anew.losses.tobytes()
    assert reproduction.reproduce(tmp_path / "kept").outcome == "PASS (bitwise)"
    expected = optax_by_hand(old, other)
    np.testing.assert_allclose(kept.losses, expected, rtol=1e-5)
    for changes in ({"optimizer": AdamW(0.1)}, {"ema": 0.0}):
        with pytest.raises(InputError, match=r"keep_optimizer .*: got another optimizer or ema.*leave --keep-opt"):
            fitting.fit(replace(other, **changes), initial=old, keep_optimizer=True)
    with pytest.raises(InputError, match="keep_optimizer: got weights alone"):
        fitting.fit(other, initial=anew, keep_optimizer=True)


def optax_by_hand(old, run):
    """The losses of a training from the state of the last checkpoint, by a loop of its own."""
    store = Store(old / "checkpoints")
    model = fitting.load_run(old).model
    tx = run.optimizer.build(1)
    like = jax.eval_shape(lambda: training.init_state(model, tx, jax.random.key(0), ema=True))
    parts = []
    for part in ("params", "opt_state"):
        names = resume.named(getattr(like, part), f"state/{part}/")
        arrays = store.restore(store.steps()[-1], names, partial=True)
        parts.append(jax.tree.unflatten(jax.tree.structure(getattr(like, part)), [arrays[name] for name in names]))
    (params, opt_state), root = parts, keys.root(run.seed)
    prepared = prepare(run.data.preparation, run.data.load())
    losses = []

    @jax.jit
    def descend(params, opt_state, x, step):
        def loss(p):
            return run.objective(model, p, x, keys.stream(root, keys.Stream.NOISE, step), step)

        (value, _), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    order = training.batch_rows(root, jnp.zeros((), int), len(prepared.train), batch_size=10)
    for step, rows in enumerate(order):
        x = prepared.batch(
            np.asarray(prepared.train.x[:])[np.asarray(rows)], keys.stream(root, keys.Stream.PREPARE, step)
        )

        params, opt_state, value = descend(params, opt_state, x, jnp.asarray(step))
        losses.append(float(value))
    return losses


def test_what_is_trained_prints_without_its_arrays(old):
    shown = repr(fitting.load_run(old))
    assert shown.startswith("Fitted(run=Run(data=Data(name=")
    assert "negative_elbo" in shown
    assert "array" not in shown


def test_fewer_epochs_are_a_training_of_their_own_and_that_is_said(run, old):
    notes = []
    fitted = fitting.fit(replace(run, epochs=1), initial=old, on_note=notes.append)
    assert len(fitted.history) == 1
    assert f"1 epochs are fewer than the 2 of {old}: a training of its own" in notes


def test_members_begin_at_the_same_weights(run, old, tmp_path):
    found = fitting.fit_members(replace(run, epochs=1), {}, (5, 6), directory=tmp_path / "run", initial=old)
    for seed, member in zip((5, 6), found, strict=True):
        alone = fitting.fit(replace(run, epochs=1, seed=seed), initial=old)
        np.testing.assert_allclose(member.losses, alone.losses, rtol=1e-4)
    again = fitting.fit_members(replace(run, epochs=1), {}, (5, 6), directory=tmp_path / "run", initial=old)
    assert params_digest(again[0].params) == params_digest(found[0].params)


# what cannot be


def test_other_data_under_the_same_name_are_another_training(run, old, data):
    before, notes = np.load(data.name), []
    try:
        np.save(data.name, before[::-1])
        fitted = fitting.fit(replace(run, epochs=3), initial=old, on_note=notes.append)
    finally:
        np.save(data.name, before)
    assert any("beginning at the weights of epoch" in note for note in notes)
    assert not np.allclose(fitted.losses[:4], fitting.load_run(old).losses[:4])


def test_a_run_that_follows_its_number_of_epochs_is_another_one(run, tmp_path):
    cosine, notes = replace(run, optimizer=AdamW(0.05, cosine=True)), []
    fitting.fit(cosine, directory=tmp_path / "old")
    more = replace(cosine, epochs=3)
    fitted = fitting.fit(more, directory=tmp_path / "run", initial=tmp_path / "old", on_note=notes.append)
    assert "its learning rate follows the number of epochs, so that 3 are another run" in notes
    assert len(fitted.history) == 3
    assert "initial" in records.read_record(tmp_path / "run")
    with pytest.raises(InputError, match=r"keep_optimizer .*: got a learning rate that follows the number of epochs"):
        fitting.fit(more, initial=tmp_path / "old", keep_optimizer=True)


@pytest.mark.parametrize("changes", [{"epochs": "2"}, {"epochs": None}, {"ema": "0.9"}])
def test_an_old_record_with_fields_that_no_run_can_have_is_one_line(run, old, tmp_path, changes):
    place = shutil.copytree(old, tmp_path / "old")
    edit_run(place, lambda record: record["run"].update(changes))
    [name] = changes
    for more in (run, replace(run, epochs=5)):
        with pytest.raises(InputError, match=rf"{name} in run\.json: got .*, expected a number"):
            fitting.fit(more, initial=place)
        with pytest.raises(InputError, match=rf"{name} in run\.json: got .*, expected a number"):
            fitting.fit(more, directory=place)


def test_what_is_no_old_run_is_refused_before_anything_is_written(run, old, tmp_path, data):
    new = tmp_path / "new"
    longer = replace(run, epochs=5)
    with pytest.raises(
        InputError, match=r"initial weights: got .*, the same run, expected a change; try more --epochs"
    ):
        fitting.fit(run, directory=new, initial=old)
    with pytest.raises(InputError, match=r"the run that is to be trained.*choose a new directory"):
        fitting.fit(longer, directory=old, initial=old, fresh=True)
    assert left(old)
    unfinished = shutil.copytree(old, tmp_path / "unfinished")
    (unfinished / "results.json").unlink()
    damaged = shutil.copytree(old, tmp_path / "damaged")
    (damaged / "weights.safetensors").write_bytes(b"x")
    wide = replace(run, model=replace(run.model, latent=3))
    for what, given, initial in (
        (r"it is not finished: the command that began it resumes it", longer, unfinished),
        (r"weights .*: got a damaged file", replace(run, seed=4), damaged),
        (r"no run\.json", longer, tmp_path / "none"),
        (r"weights 'decoder/.*got \(2, 4\), expected \(3, 4\), as in the model to be trained", wide, old),
        (r"weights 'decoder/", wide, fitting.load_run(old).params),
    ):
        with pytest.raises(InputError, match=what):
            fitting.fit(given, directory=new, initial=initial)
    with pytest.raises(InputError, match=r"weights 'decoder/"):
        fitting.fit(replace(run, data=Data(data.name, Standardize()), model=wide.model), initial=old)
    assert not new.exists()
