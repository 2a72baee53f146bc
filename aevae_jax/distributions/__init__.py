"""Distributions: frozen pytrees, `B` of them over one event each, whose densities are in nats.

They are always named with their module, `distributions.Normal`: a bare `Normal` is the likelihood of that name.

elementary.py    normal, Bernoulli, categorical, ...: sample, density, closed-form KL
logistic.py      the logistic rounded to levels, and mixtures of it
bijections.py    invertible maps of vectors with their determinants: what flows are made of
flows.py         normalising flows, and normals whose axes are rotated by reflections
interlaced.py    images in four passes, each given the pixels of those before
joint.py         mixtures, one distribution after another, and vectors in another shape
discrete.py       codes of finitely many vectors: at one of them, independent, or one after another
books.py          those vectors by their indices: codebooks, grids, one-hot vectors
rounded.py       codes that are rounded: uniform noise, and a density that is the mass of integers
tabular.py       the distribution of a table's rows
table_layout.py  where the columns of a table stand among the features
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
