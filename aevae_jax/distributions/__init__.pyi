from . import bijections as bijections
from .discrete import (
    IndependentCodes as IndependentCodes,
    OneHot as OneHot,
    Quantized as Quantized,
    SequentialCodes as SequentialCodes,
    VectorQuantized as VectorQuantized,
    rotated as rotated,
    straight_through as straight_through,
)
from .elementary import (
    Bernoulli as Bernoulli,
    Categorical as Categorical,
    ContinuousBernoulli as ContinuousBernoulli,
    Delta as Delta,
    MultivariateNormal as MultivariateNormal,
    Normal as Normal,
    NormalOptimalScale as NormalOptimalScale,
    bounded as bounded,
    sum_event as sum_event,
    unbounded as unbounded,
)
from .flows import Flow as Flow, Householder as Householder
from .interlaced import InterlacedLogisticMixture as InterlacedLogisticMixture
from .joint import (
    Chained as Chained,
    Marginal as Marginal,
    Mixture as Mixture,
    Reshaped as Reshaped,
    pairwise_normal_log_prob as pairwise_normal_log_prob,
)
from .logistic import (
    DiscretizedLogistic as DiscretizedLogistic,
    DiscretizedLogisticMixture as DiscretizedLogisticMixture,
)
from .rounded import SmoothedLogisticMixture as SmoothedLogisticMixture, Uniform as Uniform
from .tabular import Tabular as Tabular
