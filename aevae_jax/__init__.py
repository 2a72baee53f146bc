"""Autoencoders and variational autoencoders in JAX: pure functions to compose, runs to reproduce.

Names are imported when they are first used, so that `import aevae_jax` and `aevae --help` do not wait for JAX.
"""

from typing import Any

import lazy_loader

from aevae_jax import renamed

__version__ = "0.2.0"

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
renamed.install()


def __getattr__(name: str) -> Any:
    if name in renamed.NAMES[""]:
        return renamed.name_in(__name__, name)
    return renamed.attribute(name) if name in renamed.MODULES and name not in __all__ else _find(name)
