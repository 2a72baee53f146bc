"""The process that is disturbed: a tiny VAE of the digits, trained with a fault in one of its phases."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import resource
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aevae_jax.cli import console
from aevae_jax.types import InputError

FOLDER = Path(__file__).parent
"""What Python is given to run."""

OFTEN = {"seconds": 0.0, "steps": 13}
"""`Saving`: at every opportunity, and every 13 steps."""


FIELDS, SEEDS = {"objective.beta": (0.5, 2.0)}, (1, 2)
"""The members of the sweep: a run for each number and seed."""


@dataclass(frozen=True)
class Poisoned:
    """The ELBO, with something that is no number in it at the steps `first` to `after - 1`."""

    first: int
    after: int
    place: str

    def __call__(self, model: Any, params: Any, x: Any, key: Any, step: Any) -> Any:
        import jax
        import jax.numpy as jnp

        from aevae_jax.objectives.losses import ELBO

        bad = (step >= self.first) & (step < self.after)
        loss, metrics = ELBO()(model, params, jnp.where(bad & (self.place == "batch"), jnp.nan, x), key, step)
        if self.place == "loss":
            loss = jnp.where(bad, jnp.inf, loss)
        if self.place == "gradient":  # that of a square root at 0
            zero = 0 * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))
            loss = loss + jax.lax.cond(bad, lambda: jnp.sqrt(zero), lambda: 0.0 * zero)
        if self.place == "params":  # a mark for `_spoiled`
            loss = loss * jnp.where(bad, 1e8, 1.0)
        return loss, {**metrics, "loss": loss}


def _spoiled(inner: Any) -> Any:
    """Return an optimizer whose update is NaN where the gradient is marked, though sound."""
    import jax
    import jax.numpy as jnp
    import optax

    def update(gradient: Any, state: Any, params: Any = None) -> Any:
        updates, state = inner.update(gradient, state, params)
        return jax.tree.map(lambda u: jnp.where(optax.tree.norm(gradient) > 1e6, jnp.nan, u), updates), state

    return optax.GradientTransformation(inner.init, update)


def run_of(epochs: int, poison: dict[str, Any] | None = None) -> Any:
    """Return the run of all sections."""
    from aevae_jax import VAE, AdamW, Data, Run
    from aevae_jax.data import DynamicBinarization
    from aevae_jax.models.architectures import MLP
    from aevae_jax.models.likelihoods import Bernoulli
    from aevae_jax.models.priors import StandardNormal

    adam, data = AdamW(1e-2, warmup=5, cosine=True), Data(preparation=DynamicBinarization())
    model = VAE(2, MLP((16,)), Bernoulli(), StandardNormal())
    run = Run(data, model, optimizer=adam, batch_size=32, epochs=epochs, seed=1, ema=0.9)
    objective: Any = Poisoned(**poison) if poison else run.objective
    return replace(run, objective=objective)


class Child:
    """A training that says, a line each, which phase it is in and what was saved, and has a fault in a phase."""

    def __init__(self, given: dict[str, Any]):
        self.given, self.phase, self.entered = given, "start", Counter[str]()
        self.fault = {"kind": "", "phase": "", "n": 0, **given.get("fault", {})}

    def say(self, text: str) -> None:
        """Print at once: it stays said, however the process ends."""
        os.write(1, f"@{text}\n".encode())

    def mark(self, owner: Any, name: str, phase: str, first: str = "") -> None:
        """Let calls of a function be a phase; the fault of its n-th call comes before it."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def marked(*args: Any, **options: Any) -> Any:
            outer, fault = self.phase, self.fault
            self.entered[phase] += 1
            self.phase = first if first and self.entered[phase] == 1 else phase
            self.say(f"phase {self.phase}")
            if (fault["phase"], fault["n"]) == (phase, self.entered[phase]) and fault["kind"] != "kill":
                if fault["kind"] == "raise":
                    raise SystemExit(3) if fault["exit"] else RuntimeError("a fault")
                resource.setrlimit(resource.RLIMIT_FSIZE, (fault["bytes"],) * 2)
                self.say("fault")
            result = original(*args, **options)
            if name == "save":
                self.say(f"saved {args[1]}")
            self.phase = outer
            self.say(f"phase {outer}")
            return result

        setattr(owner, name, marked)

    def kill_at(self, name: str) -> None:
        """Let a function of `os` be among those whose n-th call in the phase, or in any, ends the process."""
        original = getattr(os, name)

        def operation(*args: Any, **options: Any) -> Any:
            self.fault["n"] -= self.fault["phase"] in ("", self.phase)
            if self.fault["n"] == 0 and self.fault["phase"] in ("", self.phase):
                if self.fault["late"]:
                    original(*args, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **options)

        setattr(os, name, operation)

    def run(self) -> None:
        """Train in the directory that is given."""
        given = self.given
        if given.get("cores"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given["cores"]])
        if given.pop("weak", False):  # root may write anywhere; not so after this and a new start
            ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
            os.execv(sys.executable, [sys.executable, str(FOLDER), "child", json.dumps(given)])
        from aevae_jax.checkpoints.saving import Saving
        from aevae_jax.checkpoints.store import Store
        from aevae_jax.data import streams
        from aevae_jax.runs import calls, fitting
        from aevae_jax.training import optimizers

        def train(*args: Any, original: Any = calls.train) -> Any:  # JAX is imported by now, and not earlier
            from aevae_jax.runs.trainer import Trainer

            self.mark(Trainer, "advance", "train", first="first compilation")
            self.mark(Trainer, "finish_epoch", "evaluate")
            return original(*args)

        setattr(calls, "train", train)  # noqa: B010
        streams.WINDOW_BYTES = given.get("window", streams.WINDOW_BYTES)
        if given.get("poison", {}).get("place") == "params":
            build = optimizers.AdamW.build
            setattr(optimizers.AdamW, "build", lambda adam, steps: _spoiled(build(adam, steps)))  # noqa: B010
        for owner, name, phase in (
            (Store, "save", "save"),
            (Store, "retain", "clean up"),
            (Store, "discard", "clean up"),
            (Store, "clean", "clean up"),
            (fitting, "_finish", "finish"),
            (fitting, "fit", "prepare"),
            (fitting, "fit_members", "prepare"),
            (self, "on_epoch", "epoch"),
        ):
            self.mark(owner, name, phase)
        if self.fault["kind"] == "kill":
            for name in ("fsync", "rename", "replace", "unlink", "remove", "rmdir", "mkdir"):
                self.kill_at(name)
        run, began = run_of(given["epochs"], given.get("poison")), time.monotonic()
        saving = Saving(**given.get("saving", OFTEN))
        try:
            options: dict[str, Any] = {
                "directory": given["directory"],
                "stream": given.get("stream"),
                "saving": saving,
                "on_epoch": self.on_epoch,
                "on_note": console.note,
            }
            if given.get("sweep"):
                fitting.fit_members(run, FIELDS, SEEDS, **options)
            else:
                fitting.fit(run, **options)
        except InputError:
            self.say(f"refused {time.monotonic() - began}")
            raise

    def on_epoch(self, epoch: Any) -> None:
        """Begin a phase, and do nothing else."""
