from . import (
    checkpoints as checkpoints,
    data as data,
    distributions as distributions,
    evaluation as evaluation,
    figures as figures,
    keys as keys,
    models as models,
    objectives as objectives,
    runs as runs,
    training as training,
)
from .checkpoints import Saving as Saving
from .conditions import Conditioned as Conditioned
from .data import Data as Data, Dataset as Dataset, from_arrays as from_arrays
from .evaluation import (
    ais as ais,
    classifiers as classifiers,
    collapse as collapse,
    estimates as estimates,
    evaluate as evaluate,
    image_quality as image_quality,
    importance as importance,
    latents as latents,
    per_example as per_example,
    statistics as statistics,
)
from .models import (
    VAE as VAE,
    VQVAE as VQVAE,
    Autoencoder as Autoencoder,
    CategoricalVAE as CategoricalVAE,
    CompressiveAutoencoder as CompressiveAutoencoder,
    ConditionalAutoencoder as ConditionalAutoencoder,
    ConditionalVAE as ConditionalVAE,
    SemiSupervisedVAE as SemiSupervisedVAE,
    TwoLevelVAE as TwoLevelVAE,
    architectures as architectures,
    generation as generation,
    likelihoods as likelihoods,
    networks as networks,
    priors as priors,
)
from .models.generation import (
    interpolate as interpolate,
    reconstruct as reconstruct,
    sample as sample,
    traverse as traverse,
)
from .objectives import (
    ELBO as ELBO,
    IWAE as IWAE,
    ReconstructionError as ReconstructionError,
    bounds as bounds,
    elbo as elbo,
    importance_weighted_bound as importance_weighted_bound,
    log_weights as log_weights,
)
from .runs import (
    Run as Run,
    Safeguard as Safeguard,
    fit as fit,
    fit_members as fit_members,
    fit_seeds as fit_seeds,
    fit_sweep as fit_sweep,
    load_run as load_run,
    records as records,
)
from .training import (
    AdamW as AdamW,
    TrainState as TrainState,
    init_state as init_state,
    make_train_step as make_train_step,
    train_epoch as train_epoch,
)
from .types import (
    Distribution as Distribution,
    InputError as InputError,
    LatentModel as LatentModel,
    Objective as Objective,
)

__version__: str
