"""Trained models as lossless codecs, exact on every machine: networks are rounded surely, all else is integers.

chunks.py    `Coder`: a model and its weights, from examples to bytes and back
lossy.py     `LossyCoder`: a model whose codes are rounded, from images to bytes and to pictures
rounded.py   integers without bounds, by mixtures of logistics
codecs.py    (push, pop), and bits back as what is made of three of them
latents.py   codes as buckets of their prior; the codecs of prior and posterior
indices.py   the same of discrete codes, by their indices
elements.py  discrete distributions as integer counts
tables.py    the functions of integers that these look up
certified.py networks in float64, rounded, and certified to round so everywhere
plain.py     what both ask of models and examples; examples without a model
stack.py     the bits, by `constriction`, and what they cost

archive.py   images into an .aev file and back, chunk by chunk
container.py the bytes of such a file, written and read from beginning to end
recovery.py  what is left of one that is damaged
symbols.py   values as they were stored, and the symbols that are coded
files.py     what is compressed, and what is decompressed to: arrays, idx, pictures, streams
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
