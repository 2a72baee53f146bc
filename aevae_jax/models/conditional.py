"""Models that are told something of each example: its class, a vector, or both.

What is known goes beside what the networks see (`beside` of the architectures): a class as a 1 in its place, with one
place more for "none", and a vector with a 1 for "known" after it. So the weights of these entries are what is learned
of a class, and of none. `given(condition)` is the model at the conditions of a batch: see `conditions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from aevae_jax import distributions, limits
from aevae_jax.lazy import jax, jnp, modules, np
from aevae_jax.models import likelihoods, parts, priors
from aevae_jax.models.architectures import MLP, Architecture
from aevae_jax.models.likelihoods import Likelihood
from aevae_jax.models.parts import LatentShape
from aevae_jax.models.posteriors import DiagonalNormal, Posterior
from aevae_jax.models.priors import FullGaussianMixture, GaussianMixture, StandardNormal, VampPrior
from aevae_jax.types import Distribution, InputError, Params

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax import conditions
    from aevae_jax.conditions import Given
else:
    conditions = modules("aevae_jax", "conditions")


@dataclass(frozen=True)
class ConditionalVAE:
    """A VAE of q(z|x, c) and p(x|z, c), for whatever is known of each example. Sohn, Lee & Yan 2015.

    Args:
      latent: number of latent dimensions, or the shape of a map, as of a `VAE`.
      network: the architecture of encoder and decoder.
      likelihood: p(x|z, c); left out, `fit` takes what suits the data.
      latent_prior: p(z), whatever the condition is.
      log_scale_range: the posterior's log standard deviation is held smoothly inside these bounds.
      classes: number of classes of the condition; `fit` takes it from the data where it is left at 0.
      vector: number of entries of the vector of the condition, likewise.
      drop: the probability that the model is not told the condition of a training example. Then it also learns a model
        of data of which nothing is known, which it is without a condition. Ho & Salimans 2022.
      learned_prior: p(z|c) in place of p(z), a Gaussian whose means and scales a small network predicts.
      event_shape: shape of one example, `(H, W, C)` or `(D,)`; `fit` takes it from the data where it is left empty.
      posterior: q(z|x, c).
    """

    latent: LatentShape = 16
    network: Architecture = MLP()
    likelihood: Likelihood = likelihoods.FromData()
    latent_prior: StandardNormal | GaussianMixture | FullGaussianMixture = priors.StandardNormal()
    log_scale_range: tuple[float, float] = (-7.0, 3.0)
    classes: int = 0
    vector: int = 0
    drop: float = 0.0
    learned_prior: bool = False
    event_shape: tuple[int, ...] = ()
    posterior: Posterior = DiagonalNormal()

    def __post_init__(self) -> None:
        _check(self)
        self.posterior.outputs(self.latent)
        _check_prior(self)
        if self.learned_prior and not isinstance(self.latent_prior, StandardNormal):
            got = f"learned_prior and latent_prior={type(self.latent_prior).__name__}()"
            raise InputError("prior", got=got, expected="one of them", where="ConditionalVAE")

    def init(self, key: Array) -> Params:
        """Return fresh parameters."""
        key, key_prior = jax.random.split(key) if self.learned_prior else (key, key)
        own = self.posterior.init(jax.random.fold_in(key, 3), self.latent)  # `_init` splits the key in three
        params = _init(self, key, codes=self.posterior.outputs(self.latent))
        params |= {"posterior": own} if own else {}
        if self.learned_prior:
            seen = jnp.zeros((1, _told(self)))
            params["prior"] = {"network": self._prior_network.init(key_prior, seen)["params"]}
        return params

    def given(self, condition: Any) -> Given:
        """Return the model at the conditions of some examples, as in `conditions.Conditioned`.

        Raises:
          InputError: a class or vector that it does not know.
        """
        return _given(self, condition)

    def dropped(self, condition: Any, key: Array) -> Any:
        """Return the condition with each example's dropped with probability `drop`."""
        return _dropped(self, condition, key)

    def encode(self, params: Params, x: Array, condition: Any = None) -> Distribution:
        """Return q(z|x, c) of x `[B, *event]`, over `[B, *latent]`."""
        raw = _encoded(self, params, x, condition, codes=self.posterior.outputs(self.latent))
        return self.posterior(params.get("posterior", {}), raw, self.log_scale_range)

    def decode(self, params: Params, z: Array, condition: Any = None) -> Distribution:
        """Return p(x|z, c) of z `[B, *latent]`."""
        return self.likelihood(params["likelihood"], self.decoder_outputs(params, z, condition))

    def decoder_outputs(self, params: Params, z: Array, condition: Any = None) -> Array:
        """Return what the likelihood makes p(x|z, c) of, `[B, *event, outputs]`."""
        return _decoder_outputs(self, params, z, condition)

    def prior(self, params: Params, n: int, condition: Any = None) -> Distribution:
        """Return p(z), or p(z|c), for a batch of `n`."""
        if not self.learned_prior:
            return self.latent_prior(self, params, n)
        known = known_features(self, condition, n)
        return parts.normal(self, self._prior_network.apply({"params": params["prior"]["network"]}, known))

    @property
    def _prior_network(self) -> Any:
        return MLP((64,)).encoder((), parts.times(2, self.latent))


@dataclass(frozen=True)
class ConditionalAutoencoder:
    """An autoencoder that is told something of each example, which its codes then need not hold.

    Args:
      latent: number of latent dimensions, or the shape of a map, as of a `VAE`.
      network: the architecture of encoder and decoder.
      likelihood: p(x|z, c).
      latent_prior: p(z), as of an `Autoencoder`.
      classes: see `ConditionalVAE`, and so are all others.
      vector: see there.
      drop: see there.
      event_shape: see there.
    """

    latent: LatentShape = 16
    network: Architecture = MLP()
    likelihood: Likelihood = likelihoods.Normal()
    latent_prior: StandardNormal | GaussianMixture | FullGaussianMixture = priors.StandardNormal()
    classes: int = 0
    vector: int = 0
    drop: float = 0.0
    event_shape: tuple[int, ...] = ()

    log_scale_range = (-7.0, 3.0)  # of the components of a mixture prior
    point_codes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self)
        _check_prior(self)

    def init(self, key: Array) -> Params:
        """Return fresh parameters."""
        return _init(self, key, codes=self.latent)

    def given(self, condition: Any) -> Given:
        """Return the model at a condition; errors as of `ConditionalVAE.given`."""
        return _given(self, condition)

    def dropped(self, condition: Any, key: Array) -> Any:
        """Return the condition with each example's dropped with probability `drop`."""
        return _dropped(self, condition, key)

    def encode(self, params: Params, x: Array, condition: Any = None) -> Distribution:
        """Return the code of each example of x `[B, *event]`, a `Delta` over `[B, *latent]`."""
        return distributions.Delta(_encoded(self, params, x, condition, codes=self.latent))

    def decode(self, params: Params, z: Array, condition: Any = None) -> Distribution:
        """Return p(x|z, c) of z `[B, *latent]`."""
        return self.likelihood(params["likelihood"], self.decoder_outputs(params, z, condition))

    def decoder_outputs(self, params: Params, z: Array, condition: Any = None) -> Array:
        """Return what the likelihood makes p(x|z, c) of, `[B, *event, outputs]`."""
        return _decoder_outputs(self, params, z, condition)

    def prior(self, params: Params, n: int, condition: Any = None) -> Distribution:
        """Return p(z), for a batch of `n`."""
        del condition
        return self.latent_prior(self, params, n)


def known_features(model: Any, condition: Any, count: int) -> Array:
    """Return what the networks see of the conditions of `count` examples, `[count, C]`.

    Args:
      model: with `classes`, `vector` and `drop`.
      condition: as in `conditions.Conditioned`; a class of -1 is none; `None` is none at all.
      count: how many examples there are.

    Raises:
      InputError: it is of another form than the model's, or of other examples; or there is none, and the model has not
        learned what that is.
    """
    found = {} if condition is None else conditions.parts(condition)
    if condition is None and limits.is_zero(model.drop):
        raise InputError(
            f"condition of a {type(model).__name__}",
            got="none",
            expected="a batch Conditioned(x, condition), or model.given(condition)",
            hint="with drop=0.1 it also learns to do without",
        )
    wanted = {name for name, size in (("label", model.classes), ("vector", model.vector)) if size}
    if not wanted or (found and wanted != found.keys() - {"known"}):
        raise InputError(
            f"condition of a {type(model).__name__}",
            got=" and ".join(sorted(found.keys() - {"known"})) or "none",
            expected=" and ".join(sorted(wanted)) or "a model of so many classes, ConditionalVAE(classes=10)",
        )
    sizes = {"label": (count,), "vector": (count, model.vector), "known": (count,)}
    for name, part in found.items():
        if part.shape != sizes[name]:
            raise InputError(f"{name} of the condition", got=f"shape {part.shape}", expected=f"{sizes[name]}")
    known = found.get("known", jnp.full(count, float(bool(found))))
    seen = []
    if model.classes:
        label = found.get("label", jnp.full(count, -1))
        seen.append(jax.nn.one_hot(jnp.where(label < 0, model.classes, label), model.classes + 1, dtype=jnp.float32))
    if model.vector:
        vector = found.get("vector", jnp.zeros((count, model.vector)))
        seen += [known[:, None] * vector, known[:, None]]
    return jnp.concatenate(seen, axis=1)


def _told(model: Any) -> int:
    """Return how many numbers the networks see of a condition."""
    return sum(size + 1 for size in (model.classes, model.vector) if size)


def _check(model: Any) -> None:
    parts.check(model)
    name = type(model).__name__
    for size in ("classes", "vector"):
        limits.check(size, getattr(model, size), 0, where=name)
    limits.check("drop", model.drop, 0.0, 1.0, where=name)


def _check_prior(model: Any) -> None:
    """Refuse a prior that is made of the encoder, which would need a condition, or left to the data."""
    if isinstance(model.latent_prior, VampPrior | priors.FromData):
        raise InputError(
            f"latent_prior of a {type(model).__name__}",
            got=f"{type(model.latent_prior).__name__}()",
            expected="a prior of its own, such as GaussianMixture()",
        )


def _given(model: Any, condition: Any) -> Given:
    found = conditions.parts(condition)
    label = found.get("label")
    if model.classes and label is not None and not isinstance(label, jax.core.Tracer) and np.size(label):
        least, most = int(np.min(label)), int(np.max(label))
        if least < -1 or most >= model.classes:
            got, expected = least if least < -1 else most, f"0 to {model.classes - 1}"
            raise InputError("class", got=got, expected=expected, where=f"condition of a {type(model).__name__}")
    return conditions.Given(model, found)


def _dropped(model: Any, condition: Any, key: Array) -> Any:
    if limits.is_zero(model.drop):
        return condition
    found = conditions.parts(condition)
    kept = jax.random.bernoulli(key, 1 - model.drop, next(iter(found.values())).shape[:1])
    changed = {**found, "known": kept.astype(jnp.float32)}
    if "label" in found:
        changed["label"] = jnp.where(kept, found["label"], -1)
    return changed


def _init(model: Any, key: Array, codes: LatentShape) -> dict[str, Params]:
    """Return fresh parameters of an encoder with outputs `[B, *codes]`, a decoder, a likelihood and a prior."""
    parts.check_built(model)
    key_encoder, key_decoder, key_prior = jax.random.split(key, 3)
    none = jnp.zeros((1, _told(model)))
    x = model.network.beside(jnp.zeros((1, *model.event_shape)), none)
    z = model.network.beside(jnp.zeros((1, *parts.code_shape(model.latent))), none)
    encoder = model.network.encoder(x.shape[1:], codes)
    decoder = model.network.decoder(model.event_shape, model.likelihood.outputs)
    return {
        "encoder": encoder.init(key_encoder, x)["params"],
        "decoder": decoder.init(key_decoder, z)["params"],
        "likelihood": model.likelihood.init(),
        "prior": model.latent_prior.init(key_prior, model),
    }


def _encoded(model: Any, params: Params, x: Array, condition: Any, codes: LatentShape) -> Array:
    """Return the encoder's outputs `[B, *codes]` of x `[B, *event]`."""
    parts.check_event(model, x)
    seen = model.network.beside(x, known_features(model, condition, x.shape[0]))
    return parts.encoded(model, params, seen, codes)


def _decoder_outputs(model: Any, params: Params, z: Array, condition: Any) -> Array:
    """Return the decoder's outputs `[B, *event, outputs]` of z `[B, *latent]`."""
    parts.check_built(model)
    parts.check_codes(model, z)
    seen = model.network.beside(z, known_features(model, condition, z.shape[0]))
    return parts.decoder_outputs(model, params, seen)
