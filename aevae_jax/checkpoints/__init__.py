"""Bytes that survive: checkpoints, durable once saved and refused when damaged, locks, signals. Knows no model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
