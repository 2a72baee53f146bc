"""The loss of models that are told the classes of some examples, and infer those of the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aevae_jax.lazy import jax, jnp, modules
from aevae_jax.objectives.losses import Weight, check_weight, weight_at
from aevae_jax.types import InputError, LatentModel, Metrics, Params, Validation

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax import conditions
    from aevae_jax.objectives import bounds
else:
    conditions = modules("aevae_jax", "conditions")
    bounds = modules("aevae_jax.objectives", "bounds")


@dataclass(frozen=True)
class SemiSupervised:
    """Minus a bound on log p(x, y) where the class y is known, on log p(x) where it is not, and a classifier's loss.

    Kingma, Rezende, Mohamed & Welling 2014, equations 6 to 9. With p(y) = 1/K and L(x, y) the negative ELBO at a class:

        labelled     L(x, y) + ln K - classification * log q(y|x)
        unlabelled   sum_y q(y|x) L(x, y) + KL(q(y|x) || p(y))

    The sum is over all classes, with one noise for all of them, so that q(y|x) has its exact gradient; it takes K times
    the work of a `VAE`. The loss is the mean over the examples of a batch. The paper weighs the mean over labelled ones
    by 0.1 N where bounds are summed over N examples: that is a weight of 0.1 N / (labelled ones) here, 50 for its 100
    labels of 50,000 examples.

    Args:
      classification: weight of the cross-entropy of the classifier at labelled examples, a number from 0 on, or a
        schedule of the step.
    """

    classification: Weight = 50.0

    def __post_init__(self) -> None:
        check_weight("SemiSupervised classification", self.classification)

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        own, label = _inferring(model)
        log_q, known = own.log_classes(params, x), label >= 0
        one_hot = jax.nn.one_hot(label, log_q.shape[1])  # of no class where none is known
        terms = _expected(own, params, x, key, jnp.where(known[:, None], one_hot, jnp.exp(log_q)))
        cross_entropy = -(one_hot * log_q).sum(axis=1)
        loss = _bound(terms)[1].mean() + weight_at(self.classification, step) * cross_entropy.mean()
        metrics = {name: term.mean() for name, term in terms.items()}
        metrics["classification_loss"] = cross_entropy.sum() / jnp.maximum(known.sum(), 1)
        return loss, {"loss": loss, **metrics}

    def validation(self) -> Validation:
        """Return that parameters are selected by the bound on log p(x), without any label."""
        return Validation(semi_supervised_terms, ("unlabelled_negative_elbo", "unlabelled_profile_loss"))


def semi_supervised_terms(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    """Return what `bounds.bound_terms` does at the class of each example, `[B]`; the same bound without the class,
    `unlabelled_negative_elbo`; and the classifier's `accuracy`, 1 or 0, and `classification_loss`, -log q(y|x).
    """
    own, label = _inferring(model)
    log_q = own.log_classes(params, x)
    terms = _expected(own, params, x, jax.random.fold_in(key, 1), jnp.exp(log_q))
    name, unlabelled = _bound(terms)
    return {
        **bounds.bound_terms(model, params, x, key),
        f"unlabelled_{name}": unlabelled,
        "accuracy": (log_q.argmax(axis=1) == label).astype(jnp.float32),
        "classification_loss": -(jax.nn.one_hot(label, log_q.shape[1]) * log_q).sum(axis=1),
    }


def _expected(own: Any, params: Params, x: Array, key: Array, shares: Array) -> dict[str, Array]:
    """Return the terms of a bound with y drawn by `shares` `[B, K]`, each `[B]`: exact means over y, and in the rate
    also that of y, KL(shares || 1/K).
    """
    count, classes = shares.shape

    def at(y: Array) -> dict[str, Array]:
        return bounds.elbo(own.given(jnp.full(count, y)), params, x, key).terms

    each = jax.vmap(at, out_axes=1)(jnp.arange(classes))
    means = {name: (shares * term).sum(axis=1) for name, term in each.items()}
    rate = math.log(classes) + (shares * jnp.log(jnp.where(shares > 0, shares, 1.0))).sum(axis=1)
    return {name: term + rate if name in ("rate", *_BOUNDS) else term for name, term in means.items()}


_BOUNDS = ("negative_elbo", "profile_loss")
"""What the sum of distortion and rate is called: a bound, or that of a profile likelihood, which is none."""


def _bound(terms: dict[str, Array]) -> tuple[str, Array]:
    """Return the name of the sum of the terms, and the sum."""
    return next((name, terms[name]) for name in _BOUNDS if name in terms)


def _inferring(model: LatentModel) -> tuple[Any, Array]:
    """Return a model that infers classes, and those that it is told."""
    bound: Any = model
    given = isinstance(model, conditions.Given)
    own: Any = bound.model if given else model
    if not isinstance(own, conditions.Inferring):
        got = f"{type(own).__name__}, which infers no class"
        raise InputError("model of SemiSupervised", got=got, expected="one such as SemiSupervisedVAE()")
    if not given:
        hint = "type: --data \"Data('digits', condition='label', labels_per_class=10)\""
        raise InputError("classes", got="none", expected="those of some examples", hint=hint)
    return own, jnp.asarray(conditions.parts(bound.condition)["label"])
