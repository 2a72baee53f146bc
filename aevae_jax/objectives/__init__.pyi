from . import bounds as bounds
from .bounds import (
    doubly_reparameterised_bound as doubly_reparameterised_bound,
    elbo as elbo,
    importance_weighted_bound as importance_weighted_bound,
    log_weights as log_weights,
)
from .contractive import Contractive as Contractive
from .denoising import (
    Denoising as Denoising,
    GaussianNoise as GaussianNoise,
    Masking as Masking,
    SaltAndPepper as SaltAndPepper,
    Seeing as Seeing,
)
from .families import Loss as Loss
from .losses import (
    ELBO as ELBO,
    IWAE as IWAE,
    LinearWarmup as LinearWarmup,
    ReconstructionError as ReconstructionError,
    Weight as Weight,
    weight_at as weight_at,
)
from .sparse import L1 as L1, ActivationKL as ActivationKL, Sparse as Sparse
