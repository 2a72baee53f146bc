from . import bounds as bounds
from .bounds import (
    doubly_reparameterised_bound as doubly_reparameterised_bound,
    elbo as elbo,
    importance_weighted_bound as importance_weighted_bound,
    log_weights as log_weights,
)
from .losses import (
    ELBO as ELBO,
    IWAE as IWAE,
    LinearWarmup as LinearWarmup,
    Loss as Loss,
    ReconstructionError as ReconstructionError,
    Weight as Weight,
    weight_at as weight_at,
)
