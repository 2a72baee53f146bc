"""What is minimised: estimators of one number per example (`bounds`), and the scalar losses that are made of them.

families.py      the losses that a run may name
bounds.py        one number per example: rate (KL), distortion (reconstruction), ELBO, importance weights
losses.py        scalar losses: `ELBO`, `IWAE`, `ReconstructionError`, and weights that change with the step
wrapping.py      what losses share that are made of another one
denoising.py     `Denoising`: corrupted data are seen, clean ones are scored
sparse.py        `Sparse`: penalties of codes that are not near 0
contractive.py   `Contractive`: a penalty of codes that change with the data
capacity.py      `Capacity`: a rate that is held at a number of nats
total_correlation.py `BetaTCVAE`: the parts of the rate, each with a weight
moments.py       `DIPVAE`: codes without correlation
matching.py      `MMD`: codes distributed as the prior, by a kernel: InfoVAE and Wasserstein autoencoders
adversarial.py   `FactorVAE` and `AAE`: the same two by a discriminator
nominal.py       whether anything was done for p(z), or it is nominal
quantization.py  `VQ` and `GumbelSoftmax`: discrete codes
semi_supervised.py `SemiSupervised`: classes that are known of some examples, and inferred of the others
fitted_priors.py `PriorLikelihood`: a prior that is fitted to codes, after all else was trained
"""

from typing import Any

import lazy_loader

from aevae_jax import renamed

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    return renamed.name_in(__name__, name) if name in renamed.NAMES["objectives"] else _find(name)
