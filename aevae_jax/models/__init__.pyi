from . import (
    architectures as architectures,
    generation as generation,
    likelihoods as likelihoods,
    networks as networks,
    priors as priors,
)
from .vae import VAE as VAE, Autoencoder as Autoencoder, Model as Model, TwoLevelVAE as TwoLevelVAE
