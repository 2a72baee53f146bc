from . import (
    architectures as architectures,
    code_priors as code_priors,
    codes as codes,
    flow_priors as flow_priors,
    generation as generation,
    likelihoods as likelihoods,
    networks as networks,
    posteriors as posteriors,
    priors as priors,
    quantizers as quantizers,
)
from .autoencoder import Autoencoder as Autoencoder
from .categorical import CategoricalVAE as CategoricalVAE
from .compressive import CompressiveAutoencoder as CompressiveAutoencoder
from .conditional import ConditionalAutoencoder as ConditionalAutoencoder, ConditionalVAE as ConditionalVAE
from .families import Model as Model
from .semi_supervised import SemiSupervisedVAE as SemiSupervisedVAE
from .two_level import TwoLevelVAE as TwoLevelVAE
from .vae import VAE as VAE
from .vq import VQVAE as VQVAE
