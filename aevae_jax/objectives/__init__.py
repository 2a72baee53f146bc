"""What is minimised: estimators of one number per example (`bounds`), and the scalar losses that are made of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
