"""A training in Python shows how far it is where somebody looks, and nowhere else."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from aevae_jax.data import Data, from_arrays
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Normal
from aevae_jax.models.priors import StandardNormal
from aevae_jax.runs import fitting
from aevae_jax.runs.run import Run
from aevae_jax.runs.weights import params_digest

RUN = Run(Data(), VAE(2, MLP((4,)), Normal(1.0), StandardNormal()), batch_size=10, epochs=3)


def images():
    return from_arrays(np.random.RandomState(0).randint(0, 256, (60, 3, 3, 1)).astype(np.uint8))


class Terminal:
    """Standard error as it is where somebody looks."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass

    def isatty(self):
        return True

    def fileno(self):
        raise OSError


def at_a_terminal(monkeypatch):
    """Not a fixture: pytest puts its own stream back before a test is called."""
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_nothing_is_shown_where_nobody_looks_unless_it_is_asked_for(capsys):
    fitting.fit(RUN, images())
    assert capsys.readouterr().err == ""
    fitting.fit(RUN, images(), progress=True)
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1].startswith("epoch 3/3  distortion ")


@pytest.mark.parametrize("how", ["fit", "directory", "seeds", "sweep", "members"])
def test_a_terminal_is_told_by_every_way_of_training(how, monkeypatch, tmp_path):
    terminal = at_a_terminal(monkeypatch)
    {
        "fit": lambda: fitting.fit(RUN, images()),
        "directory": lambda: fitting.fit(RUN, images(), directory=tmp_path / "run"),
        "seeds": lambda: fitting.fit_seeds(RUN, (0, 1), images()),
        "sweep": lambda: fitting.fit_sweep(RUN, {"objective.beta": (0.5, 1)}, (0,), images()),
        "members": lambda: fitting.fit_members(RUN, {}, (0, 1), images(), directory=tmp_path / "run"),
    }[how]()
    assert "epoch 3/3" in terminal.text


def test_whoever_is_told_already_is_told_alone_unless_both_are_asked_for(monkeypatch):
    terminal, told = at_a_terminal(monkeypatch), []
    fitting.fit(RUN, images(), on_epoch=told.append)
    assert terminal.text == ""
    fitting.fit(RUN, images(), progress=False)
    assert terminal.text == ""
    fitting.fit(RUN, images(), on_epoch=told.append, progress=True)
    assert "epoch 3/3" in terminal.text
    assert [epoch.epoch for epoch in told] == [1, 2, 3, 1, 2, 3]


class Display(ModuleType):
    """What `IPython.display` is in a notebook: what is shown in one place, in the order in which it came."""

    def __init__(self):
        super().__init__("IPython.display")
        self.shown = []
        self.Image = lambda data: {"image/png": data}

    def display(self, bundle, raw, display_id):
        assert (raw, display_id) == (True, True)
        self.shown.append(bundle)
        return SimpleNamespace(update=lambda bundle, raw=False: self.shown.append(bundle))


@pytest.fixture
def notebook(monkeypatch):
    fitting.fit(RUN, images(), progress=False)
    import_module("aevae_jax.runs.curves")  # Flax and Matplotlib are imported by now: they look into IPython, too
    display = Display()
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(
        sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display, version_info=(9, 0))
    )
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return display


def test_a_notebook_shows_the_curves_in_one_place(notebook, capsys):
    alone = fitting.fit(RUN, images(), progress=False)
    fitted = fitting.fit(RUN, images())
    assert params_digest(fitted.params) == params_digest(alone.params)
    assert "compiling" in notebook.shown[0]["text/plain"]
    assert notebook.shown[-1]["image/png"].startswith(b"\x89PNG")
    pictures = [bundle for bundle in notebook.shown if "image/png" in bundle]
    assert 1 <= len(pictures) <= 3
    first = notebook.shown.index(pictures[0])
    assert all("image/png" in bundle for bundle in notebook.shown[first:])  # no line takes the place of the curves
    assert capsys.readouterr().err == ""


def test_curves_that_a_notebook_cannot_show_end_no_training(notebook):
    def broken(data):
        raise OSError("the front end is gone")

    notebook.Image = broken
    assert len(fitting.fit(RUN, images()).history) == 3


def test_another_shell_is_no_notebook(monkeypatch, capsys):
    fitting.fit(RUN, images(), progress=False)
    shell = type("TerminalInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    fitting.fit(RUN, images())
    assert capsys.readouterr().err == ""
