"""Latent variable models as values, and the values that they are made of: likelihoods, priors and architectures.

families.py       the models that a run may name
vae.py            `VAE`
autoencoder.py    `Autoencoder`
two_level.py      `TwoLevelVAE`
codes.py          what becomes of an encoder's outputs before they are the code of an autoencoder
compressive.py    `CompressiveAutoencoder`
conditional.py    `ConditionalVAE`, `ConditionalAutoencoder`: models that are told something of each example
semi_supervised.py `SemiSupervisedVAE`: told the classes of some examples, it infers the others
vq.py             `VQVAE`
categorical.py    `CategoricalVAE`
parts.py          what the families share: checks, encoder, decoder
likelihoods.py    p(x|z)
posteriors.py     q(z|x): normals of diagonal and full covariance, flows
flow_networks.py  Linen modules of flows
flow_priors.py    p(z) as flows: `RealNVP`, `MAF`
priors.py         p(z), and a mixture that is fitted after training
quantizers.py     which vectors a discrete code is made of: codebooks, grids
code_priors.py    p(z) of discrete codes
code_networks.py  Linen modules that predict each index of a code from those before it
architectures.py  a matching pair of encoder and decoder as a value
networks.py       their Linen modules, and an adapter for NNX
generation.py     samples, reconstructions, interpolation
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
