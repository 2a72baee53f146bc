"""The loss of a prior that is fitted to codes, after the training of the model that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from aevae_jax.discrete import Indexed
from aevae_jax.lazy import jax, modules
from aevae_jax.types import Distribution, InputError, LatentModel, Metrics, Params, Validation

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.objectives import bounds
else:
    bounds = modules("aevae_jax.objectives", "bounds")


@dataclass(frozen=True)
class PriorLikelihood:
    """-log p(z) of codes z ~ q(z|x): the prior is trained by maximum likelihood, and nothing else is trained at all.

    So a density of codes makes a generative model of an autoencoder (Ghosh et al. 2020, section 4), and one that is
    closer to them than what a VAE was trained with a better one (Dai & Wipf 2019; van den Oord et al. 2017). Where the
    model has a bound, its rate gets better by as much as this does.
    """

    trains: ClassVar[tuple[str, ...]] = ("prior",)

    def __call__(
        self, model: LatentModel, params: Params, x: Array, key: Array, step: Array
    ) -> tuple[Array, Metrics] | tuple[Array, Metrics, Params]:
        if not isinstance(params, Mapping) or not jax.tree.leaves(params.get("prior")):
            raise InputError(
                f"prior of the {type(model).__name__}",
                got="one without parameters",
                expected="one that can be fitted",
                hint="type: --model.latent_prior 'GaussianMixture(100)', with --from RUN",
            )
        own = {name: part if name in self.trains else jax.lax.stop_gradient(part) for name, part in params.items()}
        loss = _cost(model, own, x, key)[0].mean()
        metrics = {"loss": loss, "negative_log_prior": loss}
        return (loss, metrics, params["statistics"]) if "statistics" in params else (loss, metrics)

    def validation(self) -> Validation:
        """Return that parameters are selected by the likelihood of the codes of validation data."""
        return Validation(prior_terms, ("negative_log_prior",))


def prior_terms(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    """Return `bounds.bound_terms` and `negative_log_prior`, -log p(z) in nats at a draw z ~ q(z|x), `[B]` each; of
    discrete codes also the `code_indices` of the draw, as `quantization.code_terms` does.
    """
    key_terms, key_code = jax.random.split(key)
    terms = bounds.bound_terms(model, params, x, key_terms)
    cost, q, z = _cost(model, params, x, key_code)
    more = {"code_indices": q.indices(z)} if isinstance(q, Indexed) else {}
    return {**terms, "negative_log_prior": cost, **more}


def _cost(model: LatentModel, params: Params, x: Array, key: Array) -> tuple[Array, Distribution, Array]:
    """Return -log p(z) at a draw z ~ q(z|x), `[B]`, with q(z|x) and the draw."""
    key, key_prior = bounds.split_for_prior(model, params, x.shape[0], key)
    q = model.encode(params, x)
    z = jax.lax.stop_gradient(bounds.draw(q, key)[0])
    log_p = bounds.log_density(model.prior(params, x.shape[0]), z, "p(z) of PriorLikelihood", key_density=key_prior)
    return -log_p, q, z
