from . import (
    architectures as architectures,
    codes as codes,
    flow_priors as flow_priors,
    generation as generation,
    likelihoods as likelihoods,
    networks as networks,
    posteriors as posteriors,
    priors as priors,
)
from .autoencoder import Autoencoder as Autoencoder
from .compressive import CompressiveAutoencoder as CompressiveAutoencoder
from .conditional import ConditionalAutoencoder as ConditionalAutoencoder, ConditionalVAE as ConditionalVAE
from .families import Model as Model
from .two_level import TwoLevelVAE as TwoLevelVAE
from .vae import VAE as VAE
