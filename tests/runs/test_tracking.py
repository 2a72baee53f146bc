"""Trackers of experiments: told the numbers of a training, which none of them can harm."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest

from aevae_jax.data import Data, from_arrays
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Normal
from aevae_jax.models.priors import StandardNormal
from aevae_jax.runs import fitting, records, tracking
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

pytestmark = pytest.mark.usefixtures("no_pictures")

RUN = Run(Data(), VAE(2, MLP((4,)), Normal(1.0), StandardNormal()), batch_size=10, epochs=3)
STEPS = 4  # per epoch


def images():
    return from_arrays(np.random.RandomState(0).randint(0, 256, (60, 3, 3, 1)).astype(np.uint8))


class Own:
    """Keeps what it is told."""

    def __init__(self, breaks=""):
        self.told, self._breaks = [], breaks

    def _take(self, name, *given):
        self.told.append((name, *given))
        if name == self._breaks:
            raise OSError("the server is gone")

    def begin(self, folder, record):
        self._take("begin", folder, record)

    def log(self, step, metrics):
        self._take("log", step, metrics)

    def end(self, metrics):
        self._take("end", metrics)


def test_a_tracker_is_told_what_the_log_holds_and_the_final_figures(tmp_path):
    own, epochs = Own(), []
    fitted = fitting.fit(RUN, images(), directory=tmp_path / "run", track=[own], on_epoch=epochs.append)
    assert len(epochs) == 3
    (begin, folder, record), *logs, (end, final) = own.told
    assert (begin, end, folder) == ("begin", "end", tmp_path / "run")
    assert record == records.read_record(tmp_path / "run")
    assert [(name, step) for name, step, _ in logs] == [("log", STEPS * (i + 1)) for i in range(3)]
    for (_, _, metrics), entry in zip(logs, fitted.history, strict=True):
        assert metrics.pop("epoch") == entry["epoch"]
        parts = {f"{part}/{name}": v for part in ("train", "validation") for name, v in entry[part].items()}
        assert metrics == pytest.approx(parts)
    assert final == {f"final/{part}/{n}": v for part in ("validation", "test") for n, v in fitted.results[part].items()}


def test_a_finished_run_tells_nothing_and_a_stopped_one_that_it_was(tmp_path):
    def stop(epoch):
        raise KeyboardInterrupt

    own = Own()
    with pytest.raises(KeyboardInterrupt):
        fitting.fit(RUN, images(), directory=tmp_path / "run", track=[own], on_epoch=stop)
    assert own.told[-1] == ("end", None)
    fitting.fit(RUN, images(), directory=tmp_path / "run", track=[own])
    assert own.told[-1][1]
    assert [given[1] for given in own.told if given[0] == "log"] == [STEPS, 2 * STEPS, 3 * STEPS]
    own.told.clear()
    fitting.fit(RUN, images(), directory=tmp_path / "run", track=[own])
    assert own.told == []


@pytest.mark.parametrize("breaks", ["log", "end"])
def test_a_tracker_that_fails_on_the_way_is_told_no_more_and_the_training_goes_on(tmp_path, breaks):
    broken, sound, notes = Own(breaks), Own(), []
    fitted = fitting.fit(RUN, images(), directory=tmp_path / "run", track=[broken, sound], on_note=notes.append)
    assert fitted.losses.tobytes() == fitting.fit(RUN, images()).losses.tobytes()
    assert "Own is told no more of this training: OSError: the server is gone" in notes
    assert sum("told no more" in note for note in notes) == 1
    assert sum(name == breaks for name, *_ in broken.told) == 1
    assert len(sound.told) == 5


def test_a_tracker_that_cannot_begin_is_an_error_before_the_first_step(tmp_path):
    with pytest.raises(
        InputError, match=r"track Own: got OSError: the server is gone, expected .* or leave --track out"
    ):
        fitting.fit(RUN, images(), directory=tmp_path / "run", track=[Own("begin")], on_epoch=pytest.fail)
    assert len(fitting.fit(RUN, images(), directory=tmp_path / "run").history) == 3  # nothing is in its way


def test_numbers_that_are_not_finite_are_left_out(tmp_path):
    own = Own()
    told = tracking.Trackers([("own", own)], tmp_path, {}, pytest.fail)
    told.end({"validation": {"a": 1.0, "b": math.nan}, "test": {"a": math.inf}})
    assert own.told[-1] == ("end", {"final/validation/a": 1.0})


@pytest.mark.parametrize(
    ("track", "message"),
    [
        (["tensorbord"], r"track: got 'tensorbord', expected tensorboard or wandb or mlflow; did you mean tensorboard"),
        (["nothing"], r"expected tensorboard or wandb or mlflow$"),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_are_known(track, message, tmp_path):
    with pytest.raises(InputError, match=message):
        fitting.fit(RUN, images(), directory=tmp_path / "run", track=track)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_says_what_to_type(name, tmp_path, monkeypatch):
    def missing(module):
        raise ImportError(module)

    monkeypatch.setattr(tracking.importlib, "import_module", missing)
    with pytest.raises(
        InputError, match=rf'track {name}: got .* not installed.*type: pip install "aevae-jax\[{name}\]"'
    ):
        fitting.fit(RUN, images(), directory=tmp_path / "run", track=[name])


def test_trackers_need_a_directory():
    with pytest.raises(InputError, match="track: got no directory"):
        fitting.fit(RUN, images(), track=[Own()])


# the real libraries, without a network


def trained(folder, name):
    """A run that was stopped after its first epoch and resumed, and its numbers."""

    def stop(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitting.fit(RUN, images(), directory=folder, track=[name], on_epoch=stop, on_note=pytest.fail)
    fitted = fitting.fit(RUN, images(), directory=folder, track=[name], on_note=lambda text: None)
    alone = fitting.fit(replace(RUN), images())
    assert fitted.losses.tobytes() == alone.losses.tobytes()
    return fitted, [entry["validation"]["negative_elbo"] for entry in fitted.history]


@pytest.mark.slow
def test_tensorboard_shows_the_numbers(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted, values = trained(tmp_path / "run", "tensorboard")
        shown = events.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
        shown.Reload()
    found = [(event.step, event.tensor_proto.float_val[0]) for event in shown.Tensors("validation/negative_elbo")]
    assert [step for step, _ in found] == [STEPS, 2 * STEPS, 3 * STEPS]
    np.testing.assert_allclose([value for _, value in found], values, rtol=1e-6)
    [last] = shown.Tensors("final/test/negative_elbo")
    assert last.tensor_proto.float_val[0] == pytest.approx(fitted.results["test"]["negative_elbo"], rel=1e-6)
    again = fitting.fit(RUN, images(), directory=tmp_path / "run", fresh=True)
    assert len(again.history) == 3
    assert not (tmp_path / "run" / "tensorboard").exists()


@pytest.mark.slow
def test_mlflow_holds_the_numbers_in_one_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="no mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    mlflow.set_tracking_uri(None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, values = trained(tmp_path / "run", "mlflow")
        client = mlflow.MlflowClient()
        [found] = client.search_runs([client.get_experiment_by_name("aevae_jax").experiment_id])
        history = client.get_metric_history(found.info.run_id, "validation/negative_elbo")
    assert [(each.step, each.value) for each in history] == list(zip((4, 8, 12), values, strict=True))
    assert found.data.params["model.latent"] == "2"
    assert found.info.status == "FINISHED"


@pytest.mark.slow
def test_wandb_keeps_the_numbers_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="no wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained(tmp_path / "run", "wandb")
    digest = records.read_record(tmp_path / "run")["digest"][:16]
    found = sorted((tmp_path / "wandb").glob(f"offline-run-*-{digest}/run-{digest}.wandb"))
    assert len(found) >= 1
    contents = b"".join(path.read_bytes() for path in found)
    assert b"validation/negative_elbo" in contents
    assert b"final/test/negative_elbo" in contents
