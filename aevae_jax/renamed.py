"""What version 0.1 called otherwise: modules and names lead to what they are now, with a warning; values are read.

They serve `import aevae_jax.annealing`, `from aevae_jax.fitting import fit` and `ae.annealing` alike, for one version.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES = {
    "annealing": "evaluation.ais",
    "architectures": "models.architectures",
    "array_files": "checkpoints.array_files",
    "bounds": "objectives.bounds",
    "checkup": "evaluation.collapse",
    "compound": "distributions.joint",
    "environment": "runs.provenance",
    "features": "evaluation.classifiers",
    "files": "data.files",
    "fitting": "runs.fitting",
    "generation": "models.generation",
    "importance": "evaluation.importance",
    "latents": "evaluation.latents",
    "likelihoods": "models.likelihoods",
    "locks": "checkpoints.locks",
    "loops": "training.loops",
    "networks": "models.networks",
    "optimizers": "training.optimizers",
    "parallel": "training.devices",
    "plans": "runs.resolution",
    "priors": "models.priors",
    "protocols": "evaluation.estimates",
    "quality": "evaluation.image_quality",
    "records": "runs.records",
    "reproduction": "runs.reproduction",
    "signals": "checkpoints.signals",
    "statistics": "evaluation.statistics",
    "tabular": "distributions.tabular",
    "trainer": "runs.trainer",
    "weights": "runs.weights",
}

NAMES = {
    "": {"Adam": "AdamW"},
    "objectives": {"Linear": "LinearWarmup", "Objective": "Loss"},
    "training.optimizers": {"Adam": "AdamW"},
    "training.loops": {"side_by_side": "map_in_threads", "room": "empty_outputs", "choose": "cond"},
    "training.devices": {"divided": "shard_rows", "everywhere": "replicate"},
    "evaluation.collapse": {"check": "diagnose", "Checkup": "Diagnosis"},
    "evaluation.estimates": {"Figure": "Result", "Protocol": "EvaluationProtocol"},
    "evaluation.importance": {"figure": "result"},
    "models.generation": {"sheets": "preview"},
    "figures": {"contact_sheet": "image_grid"},
    "runs.resolution": {"Plan": "ResolvedRun", "plan_of": "resolve"},
}
"""What modules called otherwise, by where they stand now."""

TYPES = {"Adam": "AdamW", "Linear": "LinearWarmup"}
"""Values by their names in records, and as they were typed."""

FIELDS = {"Safeguard": {"detours": "rollbacks"}}
"""Fields of values, likewise."""

ABSENT: dict[str, dict[str, object]] = {
    **{name: {"upsampling": "repeat", "conditioning": "maps"} for name in ("Conv", "ResidualConv")},
    "Autoencoder": {"code": {"type": "Identity"}},
    "ELBO": {"rate": "whole"},
    "Data": {"condition": "", "hidden_labels": 0.0, "hidden_seed": 0, "labels_per_class": 0},
    "VAE": {"posterior": {"type": "DiagonalNormal"}},
}
"""What a record means that lacks a newer field. It is not written where it is this: values of old records keep their
sha256."""


class Finder:
    """Finds a module by its name of version 0.1."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec of which this is the loader, for such a name alone."""
        package, _, name = fullname.rpartition(".")
        loader: Any = self
        return ModuleSpec(fullname, loader) if package == __package__ and name in MODULES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module that stands there now, and warn."""
        module = _now(spec.name, stacklevel=3)
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back, which the import has just replaced."""
        assert module.__spec__ is not None
        module.__spec__ = self._specs.pop(module.__spec__.name)


def _now(fullname: str, stacklevel: int) -> ModuleType:
    """Return the module that stands there now; the warning is of the line that asked, which alone Python shows."""
    now = f"{__package__}.{MODULES[fullname.rpartition('.')[2]]}"
    text = f"{fullname} is {now} now: its old name goes with version 0.3"
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel)
    module = import_module(now)
    for old, name in NAMES.get(now.removeprefix(f"{__package__}."), {}).items():
        vars(module).setdefault(old, getattr(module, name))
    return module


def attribute(name: str) -> ModuleType:
    """Return the module that `aevae_jax.name` led to, and warn; from then on it is found as if it had been imported."""
    fullname = f"{__package__}.{name}"
    sys.modules[fullname] = _now(fullname, stacklevel=4)
    setattr(sys.modules[str(__package__)], name, sys.modules[fullname])
    return sys.modules[fullname]


def install() -> None:
    """Find these names from now on."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())


def name_in(module: str, name: str) -> Any:
    """Return what a module has by another name now, and warn.

    Raises:
      AttributeError: it never had it.
    """
    now = NAMES[module.removeprefix(f"{__package__}").removeprefix(".")].get(name)
    if now is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{module}.{name} is {now} now: its old name goes with version 0.3", DeprecationWarning, stacklevel=3)
    return getattr(sys.modules[module], now)
