"""Training as pure functions of a state of arrays: the step, the epoch, and how they are dispatched. Knows no VAE."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
