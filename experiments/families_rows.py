"""Which families are compared by families.py: a model and its loss each, as values."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from aevae_jax.data.told import Told
from aevae_jax.models import VAE, VQVAE, Autoencoder, CategoricalVAE, ConditionalVAE, Model, TwoLevelVAE
from aevae_jax.models.architectures import MLP, Conv
from aevae_jax.models.code_priors import CausalTransformer, CodePrior
from aevae_jax.models.codes import TopK
from aevae_jax.models.flow_priors import MAF, RealNVP, TwoStage
from aevae_jax.models.likelihoods import NormalSharedScale
from aevae_jax.models.posteriors import IAF, FullNormal
from aevae_jax.models.priors import Prior, StandardNormal, VampPrior
from aevae_jax.models.quantizers import FSQ, Codebook
from aevae_jax.objectives.adversarial import AAE, Discriminator, FactorVAE
from aevae_jax.objectives.contractive import Contractive
from aevae_jax.objectives.denoising import Denoising
from aevae_jax.objectives.families import Loss
from aevae_jax.objectives.losses import ELBO, IWAE, ReconstructionError
from aevae_jax.objectives.matching import MMD
from aevae_jax.objectives.moments import DIPVAE
from aevae_jax.objectives.quantization import VQ, GumbelSoftmax
from aevae_jax.objectives.sparse import Sparse
from aevae_jax.objectives.total_correlation import BetaTCVAE
from aevae_jax.types import InputError

PLAIN = "VAE"
"""The family that times are relative to."""


class Family(NamedTuple):
    """What is trained."""

    model: Model
    objective: Loss
    then: Prior | CodePrior | None = None
    """The prior that is fitted to the codes after training, in place of the one that was trained with."""
    condition: Told = ""
    """What the model is told of each example."""


def families(event_shape: tuple[int, ...]) -> dict[str, Family]:
    """Return what is compared on images of this shape, by name.

    Codes are 16 numbers; or 16 indices of one of 64 vectors, or of two of them; or 16 classes of eight. Maps are as
    many numbers or indices on small images, whose convolutions have one stride, and more on larger ones, with two.
    """
    normal, flat, network = NormalSharedScale(), StandardNormal(), MLP()
    vae, points = VAE(16, network, normal, flat), Autoencoder(16, network, normal)
    told = Discriminator(learning_rate=1e-3)
    vq = VQVAE((16, 4), network, normal, Codebook(64))
    fsq = replace(vq, latent=(16, 3), quantizer=FSQ((4, 4, 4)))
    found = {
        "autoencoder": Family(points, ReconstructionError()),
        "autoencoder, then RealNVP": Family(points, ReconstructionError(), RealNVP()),
        "autoencoder, then MAF": Family(points, ReconstructionError(), MAF()),
        "denoising autoencoder": Family(points, Denoising()),
        "sparse autoencoder, L1": Family(points, Sparse()),
        "k-sparse autoencoder, 4 of 16": Family(replace(points, code=TopK(4)), ReconstructionError()),
        "contractive autoencoder": Family(points, Contractive(samples=1)),
        PLAIN: Family(vae, ELBO()),
        "VAE, then RealNVP": Family(vae, ELBO(), RealNVP()),
        "VAE, then a second VAE": Family(vae, ELBO(), TwoStage()),
        "VAE, RealNVP prior": Family(replace(vae, latent_prior=RealNVP()), ELBO()),
        "VAE, MAF prior": Family(replace(vae, latent_prior=MAF()), ELBO()),
        "VAE, VampPrior(100)": Family(replace(vae, latent_prior=VampPrior(100)), ELBO()),
        "VAE, full covariance": Family(replace(vae, posterior=FullNormal()), ELBO()),
        "VAE, IAF": Family(replace(vae, posterior=IAF()), ELBO()),
        "VAE of two levels": Family(TwoLevelVAE(16, network, normal, flat), ELBO()),
        "VAE, told the class": Family(ConditionalVAE(16, network, normal, flat), ELBO(), condition="label"),
        "IWAE, 5 samples": Family(vae, IWAE(5)),
        "denoising VAE": Family(vae, Denoising(objective=ELBO())),
        "beta-VAE, beta = 4": Family(vae, ELBO(beta=4.0)),
        "beta-TCVAE, 6 times TC": Family(vae, BetaTCVAE(6.0)),
        "FactorVAE, 20 times TC": Family(vae, FactorVAE(20.0, told)),
        "DIP-VAE II": Family(vae, DIPVAE("II")),
        "InfoVAE": Family(vae, MMD(100.0, rate_weight=1.0)),
        "Wasserstein autoencoder": Family(points, MMD(1000.0)),
        "adversarial autoencoder": Family(points, AAE(10.0, told)),
        "VQ": Family(vq, VQ()),
        "VQ, then a transformer": Family(vq, VQ(), CausalTransformer()),
        "residual VQ, 2 levels": Family(replace(vq, latent=(16, 8), quantizer=Codebook(64, levels=2)), VQ()),
        "FSQ": Family(fsq, VQ()),
        "FSQ, then a transformer": Family(fsq, VQ(), CausalTransformer()),
        "categorical VAE": Family(CategoricalVAE((16, 8), network, normal), GumbelSoftmax()),
    }
    return found | maps(event_shape)


def maps(event_shape: tuple[int, ...]) -> dict[str, Family]:
    """Return the families whose codes are maps, which convolutions make and read.

    Raises:
      InputError: the data are no images.
    """
    if len(event_shape) != 3:
        raise InputError("data of families", got=f"events of shape {event_shape}", expected="images [H, W, C]")
    channels = (32,) if min(event_shape[:2]) < 16 else (32, 64)
    height, width = (-(-side // 2 ** len(channels)) for side in event_shape[:2])
    network, normal, flat = Conv(channels), NormalSharedScale(), StandardNormal()
    shape = (height, width, 1 if len(channels) == 1 else 4)
    vq = VQVAE((height, width, 4), network, normal, Codebook(64))
    return {
        "autoencoder of maps": Family(Autoencoder(shape, network, normal), ReconstructionError()),
        "VAE of maps": Family(VAE(shape, network, normal, flat), ELBO()),
        "VQ of maps": Family(vq, VQ()),
        "VQ of maps, then a transformer": Family(vq, VQ(), CausalTransformer()),
    }
