"""The VAE that is told the classes of some examples and infers those of the others, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from aevae_jax.lazy import jax, jnp, modules
from aevae_jax.models import likelihoods, parts, priors
from aevae_jax.models.architectures import MLP, Architecture
from aevae_jax.models.conditional import ConditionalVAE
from aevae_jax.models.likelihoods import Likelihood
from aevae_jax.models.parts import LatentShape
from aevae_jax.models.posteriors import DiagonalNormal, Posterior
from aevae_jax.models.priors import FullGaussianMixture, GaussianMixture, StandardNormal
from aevae_jax.objectives.semi_supervised import SemiSupervised
from aevae_jax.types import Distribution, InputError, Params

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax import conditions
    from aevae_jax.conditions import Given
else:
    conditions = modules("aevae_jax", "conditions")


@dataclass(frozen=True)
class SemiSupervisedVAE:
    """A `ConditionalVAE` of classes, q(z|x, y) and p(x|y, z), with a classifier q(y|x): the M2 of Kingma, Rezende,
    Mohamed & Welling 2014.

    A label of -1 is missing. Such an example is encoded at the class that is most probable under q(y|x); codes alone
    say nothing of a class, and are not decoded without one. All classes are equally probable beforehand.

    Args:
      latent: number of latent dimensions, or the shape of a map, as of a `VAE`.
      network: the architecture of encoder, decoder and classifier.
      likelihood: p(x|y, z); left out, `fit` takes what suits the data.
      latent_prior: p(z), whatever the class is.
      log_scale_range: the posterior's log standard deviation is held smoothly inside these bounds.
      classes: their number; `fit` takes it from the data where it is left at 0.
      event_shape: shape of one example, `(H, W, C)` or `(D,)`; `fit` takes it from the data where it is left empty.
      posterior: q(z|x, y).
    """

    latent: LatentShape = 16
    network: Architecture = MLP()
    likelihood: Likelihood = likelihoods.FromData()
    latent_prior: StandardNormal | GaussianMixture | FullGaussianMixture = priors.StandardNormal()
    log_scale_range: tuple[float, float] = (-7.0, 3.0)
    classes: int = 0
    event_shape: tuple[int, ...] = ()
    posterior: Posterior = DiagonalNormal()

    vector: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _ = self._conditional

    @property
    def _conditional(self) -> ConditionalVAE:
        """The model with all labels known."""
        return ConditionalVAE(
            self.latent,
            self.network,
            self.likelihood,
            self.latent_prior,
            self.log_scale_range,
            classes=self.classes,
            event_shape=self.event_shape,
            posterior=self.posterior,
        )

    @property
    def _classifier(self) -> Any:
        return self.network.encoder(self.event_shape, self.classes)

    def init(self, key: Array) -> Params:
        """Return fresh parameters: those of a `ConditionalVAE`, and of the classifier."""
        params = self._conditional.init(key)
        x = jnp.zeros((1, *self.event_shape))
        return {**params, "classifier": self._classifier.init(jax.random.fold_in(key, 4), x)["params"]}

    def given(self, condition: Any) -> Given:
        """Return the model at the classes of some examples, integers `[B]`, -1 where they are missing.

        Raises:
          InputError: a class that it does not know.
        """
        return conditions.Given(self, self._conditional.given(condition).condition)

    def log_classes(self, params: Params, x: Array) -> Array:
        """Return log q(y|x) of x `[B, *event]` for each class y, `[B, classes]`."""
        parts.check_event(self, x)
        logits = self._classifier.apply({"params": params["classifier"]}, x)
        found: Array = jax.nn.log_softmax(logits.reshape(x.shape[0], self.classes))
        return found

    def encode(self, params: Params, x: Array, condition: Any = None) -> Distribution:
        """Return q(z|x, y) of x `[B, *event]`, over `[B, *latent]`, at the most probable class where none is known."""
        inferred = self.log_classes(params, x).argmax(axis=1)
        label = inferred if condition is None else conditions.parts(condition)["label"]
        return self._conditional.encode(params, x, {"label": jnp.where(label < 0, inferred, label)})

    def decode(self, params: Params, z: Array, condition: Any = None) -> Distribution:
        """Return p(x|y, z) of z `[B, *latent]`; where a program meets a class that is missing, NaN.

        Raises:
          InputError: a class that is missing, as far as that is known.
        """
        label = None if condition is None else conditions.parts(condition)["label"]
        if label is None or (not isinstance(label, jax.core.Tracer) and (label < 0).any()):
            expected = "one of each code: codes alone say nothing of it"
            raise InputError(f"class of a {type(self).__name__}", got="none", expected=expected)
        known = (label >= 0).astype(z.dtype).reshape(-1, *[1] * (z.ndim - 1))
        one = known / known  # or NaN: no operation of a sound program has that for its result
        return self._conditional.decode(params, z * one, {"label": label})

    def prior(self, params: Params, n: int, condition: Any = None) -> Distribution:
        """Return p(z), for a batch of `n`."""
        del condition
        return self.latent_prior(self, params, n)

    def usual_objective(self) -> SemiSupervised:
        """Return `SemiSupervised()`."""
        return SemiSupervised()
