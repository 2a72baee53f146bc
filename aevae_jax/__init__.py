"""Autoencoders and variational autoencoders in JAX: pure functions to compose, runs to reproduce.

Names are imported when they are first used, so that `import aevae_jax` and `aevae --help` do not wait for JAX.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "types": ("Distribution", "InputError", "LatentModel", "Objective"),
    "keys": (),
    "distributions": (),
    "compound": (),
    "tabular": (),
    "likelihoods": (),
    "architectures": (),
    "networks": (),
    "priors": (),
    "models": ("Autoencoder", "TwoLevelVAE", "VAE"),
    "bounds": ("elbo", "log_weights", "importance_weighted_bound"),
    "objectives": ("ELBO", "IWAE", "ReconstructionError"),
    "optimizers": ("Adam",),
    "training": ("TrainState", "init_state", "make_train_step", "train_epoch"),
    "data": ("Data", "Dataset", "from_arrays"),
    "evaluation": ("evaluate", "per_example"),
    "importance": (),
    "annealing": (),
    "latents": (),
    "protocols": (),
    "quality": (),
    "checkup": (),
    "statistics": (),
    "generation": ("interpolate", "reconstruct", "sample", "traverse"),
    "figures": (),
    "features": (),
    "checkpoints": ("Saving",),
    "records": (),
    "runs": ("Run", "Safeguard"),
    "fitting": ("fit", "fit_seeds", "load_run"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted([*_HOME, *_MODULE_OF])  # noqa: PLE0605
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return import_module(f"aevae_jax.{name}")
    if name in _MODULE_OF:
        return getattr(import_module(f"aevae_jax.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'aevae_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
