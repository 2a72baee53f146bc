"""Latent variable models as values, and the values that they are made of: likelihoods, priors and architectures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
