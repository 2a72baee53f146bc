"""The picture of how a run learns: what it shows, where it marks the selected epoch, and that it harms no training."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from PIL import Image

from aevae_jax.checkpoints import signals
from aevae_jax.checkpoints.saving import Saving
from aevae_jax.data import Data, from_arrays
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Normal
from aevae_jax.models.priors import StandardNormal
from aevae_jax.runs import curves, fitting
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

RUN = Run(Data(), VAE(2, MLP((4,)), Normal(1.0), StandardNormal()), batch_size=10, epochs=3)


def images():
    return from_arrays(np.random.RandomState(0).randint(0, 256, (60, 3, 3, 1)).astype(np.uint8))


def entry(epoch, loss, **terms):
    return {"epoch": epoch, "train": {"loss": loss, **terms}, "validation": {"negative_elbo": loss + 1, **terms}}


def history(values):
    return [entry(i + 1, value, distortion=value / 2, rate=value / 4) for i, value in enumerate(values)]


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_terms_are_shown_by_epoch_and_the_least_validation_is_marked():
    made = curves.figure(history([9.0, 4.0, 2.0, 3.0]), selects="negative_elbo", title="a title")
    loss, reconstruction, rate = made.axes
    assert [axes.get_title(loc="left") for axes in made.axes] == [
        "loss; validation: negative elbo\nnats per example",
        "reconstruction (distortion)\nnats per example",
        "KL divergence (rate)\nnats per example",
    ]
    assert {axes.get_xlabel() for axes in made.axes} == {"epoch"}
    np.testing.assert_array_equal(lines(loss)["training"].get_ydata(), [9, 4, 2, 3])
    np.testing.assert_array_equal(lines(loss)["validation"].get_ydata(), [10, 5, 3, 4])
    np.testing.assert_array_equal(lines(loss)["validation"].get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(lines(reconstruction)["validation"].get_ydata(), [4.5, 2, 1, 1.5])
    np.testing.assert_array_equal(lines(rate)["training"].get_ydata(), [2.25, 1, 0.5, 0.75])
    for axes in made.axes:
        assert lines(axes)["selected: epoch 3"].get_xdata()[0] == 3
    assert made.get_suptitle() == "a title"


def test_a_rate_that_is_the_same_but_for_rounding_is_a_level_line():
    """That of codes that are equally likely: its means of training and validation differ in the last bits alone."""
    epochs = history([9.0, 4.0])
    for number, each in enumerate(epochs):
        each["train"]["rate"], each["validation"]["rate"] = 27.725886, 27.725888 + 2e-6 * number
    low, high = curves.figure(epochs, selects="negative_elbo", title="").axes[2].get_ylim()
    assert low < 27.3
    assert high > 28.2


def test_what_is_no_number_is_a_gap_and_is_not_selected():
    last = {**entry(3, 2.0), "validation": {"negative_elbo": None}}
    made = curves.figure([*history([9.0, 4.0]), last], selects="negative_elbo", title="")
    np.testing.assert_array_equal(lines(made.axes[0])["validation"].get_ydata(), [10, 5, np.nan])
    assert "selected: epoch 2" in lines(made.axes[0])


def test_an_autoencoder_has_its_squared_error_and_one_loss_alone_is_enough():
    train, validation = {"loss": 2.0, "distortion": 2.0, "mse": 0.5}, {"distortion": 3.0, "mse_at_mean": 0.7}
    point = {"epoch": 1, "train": train, "validation": validation}
    made = curves.figure([point], selects="distortion", title="")
    assert [axes.get_title(loc="left").splitlines()[1] for axes in made.axes] == ["nats per example", "per element"]
    assert lines(made.axes[1])["validation"].get_ydata()[0] == 0.7
    own = {"epoch": 1, "train": {"loss": 2.0}, "validation": {"hinge": 3.0}}
    [axes] = curves.figure([own], selects="hinge", title="").axes
    assert axes.get_title(loc="left").startswith("loss; validation: hinge")


def test_both_lines_are_of_one_quantity_where_the_training_logs_what_selects():
    """With beta = 0.5 its loss lies below the negative ELBO of validation, however well it does there."""
    made = curves.figure(
        [{"epoch": 1, "train": {"loss": 2.0, "negative_elbo": 5.0}, "validation": {"negative_elbo": 6.0}}],
        selects="negative_elbo",
        title="",
    )
    assert made.axes[0].get_title(loc="left").startswith("negative ELBO")
    assert lines(made.axes[0])["training"].get_ydata()[0] == 5.0


def test_a_high_beginning_does_not_press_the_rest_flat():
    values = [1e6, *np.linspace(9.0, 8.0, 29)]
    made = curves.figure(history(values), selects="negative_elbo", title="")
    assert made.axes[0].get_ylim()[1] < 20
    assert [text.get_text() for text in made.axes[0].texts] == ["begins at 1e+06"]


def test_a_training_that_is_left_draws_how_far_it_came(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, "draw", lambda path, history, **words: drawn.append(len(history)))

    def leave(told):
        if (told.epoch, told.done) == (3, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(signals.Interrupted):
        fitting.fit(RUN, images(), directory=tmp_path / "run", saving=Saving(steps=1), on_steps=leave)
    assert drawn == [2]


def test_every_run_leaves_its_curves_and_they_are_wide_enough(tmp_path, monkeypatch):
    shown = []
    draw = curves.draw
    monkeypatch.setattr(
        curves, "draw", lambda path, history, **words: shown.append(words) or draw(path, history, **words)
    )
    fitted = fitting.fit(RUN, images(), directory=tmp_path / "run")
    with Image.open(tmp_path / "run" / "curves.png") as picture:
        assert picture.size[0] >= 1000
    [words] = shown
    assert words["title"].startswith("run: VAE(latent=2, network=MLP(hidden=(4,)), likelihood=No")
    assert "event_shape" not in words["title"]
    assert words["selects"] == "negative_elbo"
    assert len(fitted.history) == 3


def test_curves_are_drawn_while_it_trains_now_and_then(tmp_path, monkeypatch):
    now, drawn = [0.0], []
    monkeypatch.setattr(curves.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(curves, "draw", lambda path, history, **words: drawn.append((now[0], len(history))))
    live = curves.Live(tmp_path / "c.png", selects="loss", title="", note=pytest.fail)
    for epoch in range(1, 101):
        now[0] += 1.0
        live.update([{}] * epoch)
    assert drawn == [(10.0, 10), (40.0, 40), (70.0, 70), (100.0, 100)]


def test_drawing_takes_little_of_the_time_however_slow_it_is(tmp_path, monkeypatch):
    now, drawn = [0.0], []
    monkeypatch.setattr(curves.time, "monotonic", lambda: now[0])

    def slow(path, history, **words):
        drawn.append(now[0])
        now[0] += 4.0

    monkeypatch.setattr(curves, "draw", slow)
    live = curves.Live(tmp_path / "c.png", selects="loss", title="", note=pytest.fail)
    while now[0] < 1000:
        now[0] += 1.0
        live.update([{}])
    assert 4.0 * len(drawn) <= 0.025 * now[0]


def test_curves_that_cannot_be_drawn_are_said_once_and_cost_no_training(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise InputError("picture", got="no room", expected="some")

    monkeypatch.setattr(curves, "draw", broken)
    monkeypatch.setattr(curves, "SECONDS", 0.0)
    notes = []
    fitted = fitting.fit(RUN, images(), directory=tmp_path / "run", on_note=notes.append)
    assert len(fitted.history) == 3
    assert (tmp_path / "run" / "results.json").exists()
    assert [note for note in notes if "curves.png is not drawn (InputError: picture: got no room" in note] != []
    assert sum("is not drawn" in note for note in notes) == 1
