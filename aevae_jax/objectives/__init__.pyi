from . import bounds as bounds
from .adversarial import AAE as AAE, Discriminator as Discriminator, FactorVAE as FactorVAE
from .bounds import (
    doubly_reparameterised_bound as doubly_reparameterised_bound,
    elbo as elbo,
    importance_weighted_bound as importance_weighted_bound,
    log_weights as log_weights,
)
from .capacity import Capacity as Capacity
from .contractive import Contractive as Contractive
from .denoising import (
    Denoising as Denoising,
    GaussianNoise as GaussianNoise,
    Masking as Masking,
    SaltAndPepper as SaltAndPepper,
    Seeing as Seeing,
)
from .families import Loss as Loss
from .fitted_priors import PriorLikelihood as PriorLikelihood
from .losses import (
    ELBO as ELBO,
    IWAE as IWAE,
    Cyclical as Cyclical,
    LinearWarmup as LinearWarmup,
    ReconstructionError as ReconstructionError,
    Weight as Weight,
    weight_at as weight_at,
)
from .matching import MMD as MMD
from .moments import DIPVAE as DIPVAE
from .quantization import VQ as VQ, GumbelSoftmax as GumbelSoftmax
from .semi_supervised import SemiSupervised as SemiSupervised
from .sparse import L1 as L1, ActivationKL as ActivationKL, Sparse as Sparse
from .total_correlation import BetaTCVAE as BetaTCVAE
