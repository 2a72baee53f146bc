"""Autoencoders and variational autoencoders in JAX: pure functions to compose, runs to reproduce.

Names are imported when they are first used, so that `import aevae_jax` and `aevae --help` do not wait for JAX.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
