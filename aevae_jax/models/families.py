"""The families of models that a saved run may name, and that can be typed."""

from __future__ import annotations

from aevae_jax.models.autoencoder import Autoencoder
from aevae_jax.models.categorical import CategoricalVAE
from aevae_jax.models.compressive import CompressiveAutoencoder
from aevae_jax.models.conditional import ConditionalAutoencoder, ConditionalVAE
from aevae_jax.models.semi_supervised import SemiSupervisedVAE
from aevae_jax.models.two_level import TwoLevelVAE
from aevae_jax.models.vae import VAE
from aevae_jax.models.vq import VQVAE

Model = (
    Autoencoder
    | VAE
    | TwoLevelVAE
    | CompressiveAutoencoder
    | ConditionalVAE
    | ConditionalAutoencoder
    | SemiSupervisedVAE
    | VQVAE
    | CategoricalVAE
)
