"""Distributions: frozen pytrees, `B` of them over one event each, whose densities are in nats.

They are always named with their module, `distributions.Normal`: a bare `Normal` is the likelihood of that name.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
