"""How a run learns, as a picture: what it minimises, and the terms of that, epoch by epoch."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aevae_jax import charts, values
from aevae_jax.checkpoints import array_files
from aevae_jax.runs.callbacks import Note
from aevae_jax.runs.run import Run
from aevae_jax.types import Shaped, shortened

SECONDS = 30.0
"""Between two drawings of the picture of a training, at least."""
SHARE = 0.02
"""The share of the time of a training that drawing takes, at most."""


class _Panel(NamedTuple):
    """One set of axes: a title, a unit, and the names of a metric in training and in validation, where there is one."""

    title: str
    unit: str
    train: str
    validation: str


def draw(path: Path, history: Sequence[Mapping[str, Any]], *, selects: str, title: str) -> None:
    """Draw the curves of a training, with the epoch whose parameters are selected.

    Args:
      path: of the PNG file.
      history: one entry per epoch, at least one: see `Fitted.history`.
      selects: the entry of validation whose least selects.
      title: above all of it.

    Raises:
      InputError: the file cannot be written.
    """
    charts.save(figure(history, selects=selects, title=title), path)


def title_of(folder: Path, run: Run) -> str:
    """Return what stands above the curves of a run."""
    model: Any = run.model
    if isinstance(model, Shaped):
        model = replace(model, event_shape=())  # type: ignore[type-var]
    return f"{shortened(folder.name, 30)}: {shortened(values.spell(model), 80)} on {shortened(run.data.name, 30)}"


def figure(history: Sequence[Mapping[str, Any]], *, selects: str, title: str) -> Figure:
    """Return the picture that `draw` writes."""
    panels, epochs = _panels(history[-1], selects), [entry["epoch"] for entry in history]
    made = charts.canvas(3.6, fixed=True)
    made.subplots_adjust(left=0.075, right=0.985, bottom=0.14, top=0.74, wspace=0.26)
    made.suptitle(title, fontsize=10, x=0.012, y=0.97, ha="left")
    best = int(np.nanargmin(_column(history, "validation", selects)))
    for index, panel in enumerate(panels):
        axes = charts.plot(made, 1, len(panels), index + 1, xlabel="epoch")
        axes.set_title(f"{panel.title}\n{panel.unit}", fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        columns = []
        for label, part, name, colour in zip(_LABELS, ("train", "validation"), panel[2:], charts.COLOURS, strict=False):
            if name:
                columns.append(_column(history, part, name))
                axes.plot(epochs, columns[-1], color=colour, marker="." if len(epochs) < 30 else "", label=label)
        axes.axvline(epochs[best], color="0.5", linestyle=":", label=f"selected: epoch {epochs[best]}")
        _limit(axes, columns)
    handles, labels = made.axes[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.005, 0.935), ncols=3, fontsize=9, frameon=False)
    return made


_LABELS = ("training", "validation")


def png(figure: Figure) -> bytes:
    """Return a picture as a PNG file holds it."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _panels(entry: Mapping[str, Any], selects: str) -> list[_Panel]:
    """Return what is shown of a training with such an entry."""
    train, validation = entry["train"], entry["validation"]
    nats = "nats per example"
    if selects in train:  # the same of both, whatever weights the loss has
        panels = [_Panel(selects.replace("_", " ").replace("elbo", "ELBO"), nats, selects, selects)]
    else:
        panels = [_Panel(f"loss; validation: {selects.replace('_', ' ')}", nats, "loss", selects)]
    for title, names in (
        ("reconstruction (distortion)", ("distortion", "profile_distortion")),
        ("KL divergence (rate)", ("rate",)),
    ):
        name = next((name for name in names if name in validation or name in train), "")
        if name and name != selects:
            both = (name if name in train else "", name if name in validation else "")
            panels.append(_Panel(title, nats, *both))
    if "mse_at_mean" in validation and len(panels) == 1:
        panels.append(_Panel("squared error", "per element", "mse" if "mse" in train else "", "mse_at_mean"))
    return panels


def _column(history: Sequence[Mapping[str, Any]], part: str, name: str) -> np.ndarray:
    """Return a metric of every epoch; NaN where it is no finite number."""
    found = [entry[part].get(name) for entry in history]
    return np.array([np.nan if value is None else value for value in found], np.float64)


_ROUNDING = 1e-5
"""The share of a number by which means of the same numbers in another order may differ: drawn as a level line."""


def _limit(axes: Any, columns: Sequence[np.ndarray]) -> None:
    """Leave out of sight how high the first tenth of the epochs begins, which would press the rest flat."""
    later = np.concatenate([column[len(column) // 10 :] for column in columns])
    everything = np.concatenate(list(columns))
    if not np.isfinite(later).any():
        return
    low, high = np.nanmin(everything), np.nanmax(later)
    differ = high - low > _ROUNDING * max(abs(low), abs(high))
    room = 0.06 * (high - low) if differ else 0.5
    axes.set_ylim(low - room, high + room)
    if np.nanmax(everything) > high + room:
        above = f"begins at {np.nanmax(everything):.4g}"
        axes.annotate(above, (0.97, 0.93), xycoords="axes fraction", fontsize=8, color="0.4", ha="right")


class Live:
    """The picture of a training in its directory, drawn anew now and then while it goes on.

    What goes wrong with it is said once: no training ends because it cannot be shown.
    """

    def __init__(self, path: Path, *, selects: str, title: str, note: Note):
        self._path, self._selects, self._title, self._note = path, selects, title, note
        self._next, self._broken = time.monotonic() + SECONDS / 3, False

    def update(self, history: Sequence[Mapping[str, Any]], *, now: bool = False) -> None:
        """Draw, if it is time for it, or has to be now as the training is left; not before the first epoch is over."""
        began = time.monotonic()
        if (began < self._next and not now) or self._broken or not history:
            return
        try:
            draw(self._path, history, selects=self._selects, title=self._title)
        except Exception as error:
            self._broken = True
            self._note(f"{self._path} is not drawn ({type(error).__name__}: {array_files.reason(error)})")
        took = time.monotonic() - began
        self._next = time.monotonic() + max(SECONDS, took / SHARE)
