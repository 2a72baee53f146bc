"""Modules that are imported when something of them is first used: `aevae --help` does not wait for JAX or NumPy.

The files that it reads import them from here, by name or, what is their own, by `modules`.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ("jax", "jnp", "modules", "np", "optax")


class _Module(ModuleType):
    """Stands for a module, and hands on what is asked of it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def modules(package: str, *names: str) -> Any:
    """Return what stands for modules of a package until they are used: a list, or of one name the one."""
    found = [_Module(f"{package}.{name}") for name in names]
    return found if len(found) > 1 else found[0]


if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
else:
    jax, jnp, np, optax = map(_Module, ("jax", "jax.numpy", "numpy", "optax"))
