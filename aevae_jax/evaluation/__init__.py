"""What there is to measure of a trained model: bounds, likelihoods, codes, samples; and how figures are compared."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
