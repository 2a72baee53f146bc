"""The objectives that a saved run may name, and that can be typed. Any function like them can be trained."""

from __future__ import annotations

from aevae_jax.objectives.adversarial import AAE, FactorVAE
from aevae_jax.objectives.capacity import Capacity
from aevae_jax.objectives.contractive import Contractive
from aevae_jax.objectives.denoising import Denoising
from aevae_jax.objectives.fitted_priors import PriorLikelihood
from aevae_jax.objectives.losses import ELBO, IWAE, ReconstructionError
from aevae_jax.objectives.matching import MMD
from aevae_jax.objectives.moments import DIPVAE
from aevae_jax.objectives.quantization import VQ, GumbelSoftmax
from aevae_jax.objectives.semi_supervised import SemiSupervised
from aevae_jax.objectives.sparse import Sparse
from aevae_jax.objectives.total_correlation import BetaTCVAE

Loss = (
    ReconstructionError
    | ELBO
    | IWAE
    | Denoising
    | Sparse
    | Contractive
    | Capacity
    | BetaTCVAE
    | FactorVAE
    | DIPVAE
    | MMD
    | AAE
    | PriorLikelihood
    | VQ
    | GumbelSoftmax
    | SemiSupervised
)
