"""How far a training is: a live line on a terminal, the curves in a notebook, else plain lines now and then."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aevae_jax import asides
from aevae_jax.asides import Quiet, tell
from aevae_jax.lazy import modules
from aevae_jax.runs.callbacks import Callbacks

if TYPE_CHECKING:
    from aevae_jax.runs import curves, snapshots
    from aevae_jax.runs.snapshots import Epoch, Steps
else:
    curves, snapshots = modules("aevae_jax.runs", "curves", "snapshots")

LONG = 3.0
"""Seconds from which on work in parts is shown, and a line says how many compiling took."""


@contextlib.contextmanager
def shown(wanted: bool | None, callbacks: Callbacks) -> Iterator[Callbacks]:
    """Show a training that runs inside.

    Args:
      wanted: whether to; `None` does if nobody else is told of epochs or steps, and there is a terminal or a notebook.
      callbacks: whom else to tell.

    Yields:
      Whom to tell in all.
    """
    notebook = _notebook()
    if wanted is None:
        alone = callbacks.on_epoch is None and callbacks.on_steps is None
        wanted = alone and (notebook is not None or Quiet(sys.stderr).isatty())
    if not wanted:
        yield callbacks
        return
    with progress() if notebook is None else _in_notebook(notebook) as show:

        def both(other: Callable[[Any], None] | None) -> Callable[[Any], None]:
            return show if other is None else lambda told: (show(told), other(told))[0]

        yield callbacks._replace(on_epoch=both(callbacks.on_epoch), on_steps=both(callbacks.on_steps))


def _notebook() -> Any:
    """Return the module that shows things in the notebook that this runs in; `None` elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return sys.modules.get("IPython.display") if type(shell).__name__ == "ZMQInteractiveShell" else None


@contextlib.contextmanager
def _in_notebook(display: Any) -> Iterator[Callable[[Epoch | Steps], None]]:
    """Show the curves, with a line above them, in one place of the output of a cell."""
    clock, history, drawn = Clock(""), list[dict[str, Any]](), (-math.inf, 0.0)
    handle = display.display({"text/plain": "compiling and training the first epoch"}, raw=True, display_id=True)

    def show(told: Epoch | Steps) -> None:
        nonlocal drawn
        line = clock.line(told)
        if not isinstance(told, snapshots.Epoch):
            if not history:
                handle.update({"text/plain": line}, raw=True)
            return
        history.append({"epoch": told.epoch, "train": told.train, "validation": told.validation})
        began, (last, took) = time.perf_counter(), drawn
        if told.epoch == told.epochs or began - last >= max(1.0, _NINE * took):
            with contextlib.suppress(Exception):  # no training ends because it cannot be shown
                picture = curves.figure(history, selects=told.selects, title=line)
                handle.update(display.Image(data=curves.png(picture)))
            drawn = time.perf_counter(), time.perf_counter() - began

    yield show


_NINE = 9.0
"""Times what drawing takes that a notebook waits until it draws again: a tenth of the time, at most."""


@contextlib.contextmanager
def progress(title: str = "", *, every: float = 10.0) -> Iterator[Callable[[Epoch | Steps], None]]:
    """Show a training on standard error: one live line in a terminal, else a plain line now and then.

    Args:
      title: what is being trained, where there are several.
      every: seconds between plain lines; the first and the last epoch always get one.

    Yields:
      A callback for `on_epoch` and for `on_steps` of `runs.fit`.
    """
    clock, stream = Clock(f"{title}: " if title else ""), Quiet(sys.stderr)
    if not stream.isatty():
        with _plain(clock, every) as show:
            yield show
        return
    with asides.live(stream, f"{clock.title}compiling and training the first epoch") as (change, width):

        def show(told: Epoch | Steps) -> None:
            line = clock.line(told, width())
            if isinstance(told, snapshots.Epoch) or clock.since_epoch() >= 1:  # who reads half a line?
                change(line)

        yield show


@contextlib.contextmanager
def _plain(clock: Clock, every: float) -> Iterator[Callable[[Epoch | Steps], None]]:
    waiting = ""
    printed = -every

    def show(told: Epoch | Steps) -> None:
        nonlocal waiting, printed
        first, now = not clock.begun, time.perf_counter()
        line, due = clock.line(told), now - printed >= every
        if isinstance(told, snapshots.Epoch):
            waiting, due = line, due or told.epoch in (1, told.epochs)
        else:
            due = first or (due and told.done < told.steps)
        if due:
            tell(line)
            waiting, printed = "", now

    yield show
    if waiting:  # stopped early
        tell(waiting)


@contextlib.contextmanager
def parts(title: str, *, of: str = "examples", every: float = 10.0) -> Iterator[Callable[[int, int], None]]:
    """Show work in parts on standard error: one live line in a terminal, which vanishes; else a plain line now and then
    where it takes longer than `LONG` seconds.

    Args:
      title: what is being done.
      of: what the parts are counted in.
      every: seconds between plain lines.

    Yields:
      A callback that is told how many are done, of how many.
    """
    rate, stream = Rate(), Quiet(sys.stderr)

    def line(done: int, total: int) -> str:
        left = rate.left(done, total)
        return f"{title}: {done:,} of {total:,} {of}{left and f', {left}'}"

    if stream.isatty():
        with asides.live(stream, title, stays=False) as (change, _):
            yield lambda done, total: change(line(done, total))
        return
    printed = time.monotonic() - every + min(every, LONG)

    def show(done: int, total: int) -> None:
        nonlocal printed
        told, now = line(done, total), time.monotonic()
        if now - printed >= every:
            tell(told)
            printed = now

    yield show


def of_all_epochs(show: Callable[[int, int], None]) -> Callable[[Steps], None]:
    """Return a callback for `on_steps` of `runs.fit` that tells the callback of `parts` the steps of all epochs."""
    return lambda told: show(*told.part)


class Rate:
    """How long things take, from those after the first that is seen done: until then a program was compiled."""

    def __init__(self) -> None:
        self._since, self._done = 0.0, -1

    def left(self, done: int, total: int) -> str:
        """Return `0:42 left`, or nothing as long as that is not known."""
        now = time.perf_counter()
        if self._done <= 0 or done <= self._done:  # the first, which need not be number 1; or it went back
            self._since, self._done = now, done
            return ""
        return f"{duration((now - self._since) * (total - done) / (done - self._done))} left"


class Clock:
    """What is said of a training: after its epochs, and within them."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.begun = False
        """Whether anything has been told."""
        self._epochs, self._steps = Rate(), Rate()
        self._epoch_at, self._compiling_since = -math.inf, math.nan

    def since_epoch(self) -> float:
        """Return how many seconds ago the last epoch was told."""
        return time.perf_counter() - self._epoch_at

    def line(self, told: Epoch | Steps, width: float = math.inf) -> str:
        """Return what is to be said; of an epoch what has room."""
        line = self._of_steps(told) if isinstance(told, snapshots.Steps) else self._of_epoch(told, width)
        self.begun = True
        return f"{self.title}{line}"

    def _of_epoch(self, epoch: Epoch, width: float) -> str:
        """Return epoch, loss, validation, speed, time left; speed and then validation give way where there is no
        room.
        """
        speed = epoch.examples_per_second
        parts = {
            "epoch": f"epoch {epoch.epoch}/{epoch.epochs}",
            "loss": loss_terms(epoch.train),
            "validation": _validation(epoch),
            "speed": "" if math.isnan(speed) else f"{speed:{',.0f' if speed >= 10 else '.2g'}} examples/s",
            "left": self._epochs.left(epoch.epoch, epoch.epochs),
        }
        self._epoch_at, self._steps = time.perf_counter(), Rate()
        for name in ("", "speed", "validation"):
            parts.pop(name, None)
            line = "  ".join(filter(None, parts.values()))
            if len(self.title) + len(line) <= width:
                break
        return line

    def _of_steps(self, told: Steps) -> str:
        """Return epoch, steps and the time that is left of the epoch."""
        now, at = time.perf_counter(), f"epoch {told.epoch}/{told.epochs}"
        if not self.begun:
            self._compiling_since = now
            return f"{at}  compiling"
        if now - self._compiling_since >= LONG:
            tell(f"{self.title}compiled in {now - self._compiling_since:.0f} s")
        self._compiling_since = math.nan
        if told.done == told.steps:
            return f"{at}  evaluating"
        left = self._steps.left(told.done, told.steps)
        return "  ".join(filter(None, [at, f"step {told.done:,}/{told.steps:,}", left and f"{left} of this epoch"]))


def loss_terms(metrics: Mapping[str, float]) -> str:
    """Return a training's metrics with their unit: `distortion 12.3 + rate 4.5 = 16.8 nats/example`, or `mse
    0.0123`.
    """
    for names in (("distortion", "rate", "negative_elbo"), ("profile_distortion", "rate", "profile_loss")):
        if all(name in metrics for name in names):
            distortion, rate, total = (f"{metrics[name]:.1f}" for name in names)
            return f"{names[0].replace('_', ' ')} {distortion} + rate {rate} = {total} nats/example"
    if "mse" in metrics or "mse_at_mean" in metrics:
        return f"mse {metrics.get('mse', metrics.get('mse_at_mean')):.3g}"
    if "loss" in metrics:
        return f"loss {metrics['loss']:.1f} nats/example"
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}" for name, value in metrics.items()
    )  # of one's own objective


def below_zero(metrics: Mapping[str, float]) -> str:
    """Return what a total below zero means, in a sentence; empty where there is none."""
    totals = ("negative_elbo", "profile_loss", "negative_log_likelihood")
    if not any(metrics.get(name, 0.0) < 0 for name in totals):
        return ""
    return (
        "A total below 0 is no mistake: the likelihood of these data is a density, which may exceed 1; less is better."
    )


def _validation(epoch: Epoch) -> str:
    """Return what selects the parameters; where that is a distortion, the squared error, as is shown of the
    training.
    """
    if "mse" in epoch.train and "mse_at_mean" in epoch.validation and epoch.selects.endswith("distortion"):
        return f"validation mse {epoch.validation['mse_at_mean']:.3g}"
    return f"validation {epoch.validation[epoch.selects]:.1f}"


def duration(seconds: float) -> str:
    """Return `0:42`, `12:05`, `1:02:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
