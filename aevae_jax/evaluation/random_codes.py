"""Whether random codes decode to what data look like: by the gap between codes and prior, and by what judges see."""

from __future__ import annotations

import numbers
from dataclasses import replace
from math import sqrt
from typing import Any

from aevae_jax import values
from aevae_jax.discrete import Snapping
from aevae_jax.evaluation.findings import Finding, Trained, beta, of_model
from aevae_jax.evaluation.image_quality import Judgement
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP, Conv
from aevae_jax.models.priors import FromData, FullGaussianMixture, GaussianMixture, Prior, StandardNormal, VampPrior
from aevae_jax.objectives import bounds
from aevae_jax.objectives.losses import ELBO
from aevae_jax.objectives.nominal import PriorMatching, has_nominal_prior
from aevae_jax.types import has_point_codes

HOLES = 3.0
"""Nats between the codes and the prior, from which on random codes are seen to decode to smears."""

COMPONENTS = 100
"""Components of a prior that is proposed, at most: more than a quarter of the training images would know each."""

WORSE = 2 / 3
"""The share of samples is clearly below that of data if it is less than this part of it ..."""

ERRORS = 3.0
"""... and the difference more than so many standard errors."""

Way = tuple[str, dict[str, Any]]
"""What to do in words, and as fields of the run."""


def holes(fitted: Trained, gap: float, examples: int = COMPONENTS * 4) -> list[Finding]:
    """Return the finding that random codes lie where no code of data does, if the gap to the prior says so.

    Args:
      fitted: a trained model.
      gap: nats between the codes of data and the prior, at least: see `latents.prior_gap`.
      examples: how many the model was trained on, at least.
    """
    if gap < HOLES:
        return []
    nominal = has_nominal_prior(fitted.run.model, fitted.params, fitted.run.objective)
    whose = "the prior of an autoencoder is not trained, and " if nominal else ""
    evidence = (
        f"{whose}random codes fall into holes: the codes of data are at least {gap:.3g} nats from the prior that they "
        f"are drawn from (less than {HOLES:g} is not seen in samples)"
    )
    return [_finding("holes", evidence, _nearer(fitted, examples))]


def shortfalls(found: Judgement) -> list[str]:
    """Return by which shares samples are clearly worse than data, such as `recall 0.002 (data 0.97)`.

    A share k / N has the standard error of (k + 1) / (N + 2), as it must not be 0 where k is 0 or N.
    """
    made, real = (of.shares for of in found)
    count, short = found.samples.num_samples, []
    for name in ("confident", "precision", "recall", "coverage"):
        shares = [(of[name] * count + 1) / (count + 2) for of in (made, real)]
        error = sqrt(sum(share * (1 - share) for share in shares) / count)
        if made[name] < WORSE * real[name] and real[name] - made[name] > ERRORS * error:
            short.append(f"{name} {made[name]:.2g} (data {real[name]:.2g})")
    return short


def bad_samples(
    fitted: Trained, found: Judgement, recognised: float, *, gap: float, examples: int, curve: list[Finding]
) -> list[Finding]:
    """Return the finding that samples are clearly worse than data, and why that is.

    Args:
      fitted: a trained model of images.
      found: how its samples and data compare with held-out data.
      recognised: the share of its reconstructions of which the classifiers are confident.
      gap, examples: as of `holes`.
      curve: what `learning_curve.look` found.
    """
    short = shortfalls(found)
    if not short:
        return []
    evidence = (
        f"samples are clearly worse than data: {', '.join(short)}, Frechet distance "
        f"{found.samples.frechet_distance:.3g} (data {found.floor.frechet_distance:.3g})"
    )
    if recognised < WORSE * found.floor.confident:
        evidence += (
            f"; so are reconstructions (confident {recognised:.2g}): the decoder blurs, whatever codes it is given"
        )
        return [_finding("bad samples", evidence, _sharper(fitted, curve))]
    evidence += f"; reconstructions are not (confident {recognised:.2g}), so it is the random codes"
    if gap >= HOLES:
        evidence += f", which fall into holes: codes of data are at least {gap:.3g} nats from the prior"
    return [_finding("bad samples", evidence, _nearer(fitted, examples))]


def _finding(fault: str, evidence: str, ways: list[Way]) -> Finding:
    """Return a finding with two remedies at most, of which the first is what is to be changed."""
    return Finding(fault, evidence, "; or ".join(remedy for remedy, _ in ways[:2]), ways[0][1])


def _nearer(fitted: Trained, examples: int) -> list[Way]:
    """Return ways to bring codes and prior together."""
    model: Any = fitted.run.model
    if isinstance(model, Snapping):
        return [(f"{_FITTED} 'CausalTransformer()' --objective 'PriorLikelihood()'", {})]
    if has_point_codes(model):
        ways = _matched(fitted.run.objective) or _variational(model)
        return [*ways, (f"{_FITTED} 'GaussianMixture(100)' --objective 'PriorLikelihood()'", {})]
    ways = []
    what, prior = _richer(fitted, max(1, examples // 4))
    if prior is not None and (changes := of_model(fitted, latent_prior=prior)):
        ways.append((f"{what}: latent_prior={values.spell(prior)} in --model", changes))
    if isinstance(fitted.run.objective, ELBO):
        larger = ELBO(beta=4 * max(1.0, beta(fitted)))
        what = f'a larger weight of the rate, at the cost of the likelihood: --objective "{values.spell(larger)}"'
        ways.append((what, {"objective": larger}))
    return ways or [("a smaller code", {})]


_FITTED = "a prior that is fitted to the codes: aevae train NEW --from RUN --model.latent_prior"


def _richer(fitted: Trained, most: int) -> tuple[str, Prior | None]:
    """Return a prior of at most so many components that can come nearer to the codes, and what it is in words."""
    model: Any = fitted.run.model
    prior = getattr(model, "latent_prior", None)
    if isinstance(prior, VampPrior | GaussianMixture | FullGaussianMixture):
        components = min(2 * prior.components, most)
        more = type(prior)(components) if components > prior.components else None
        return "more components of the prior", more
    if not isinstance(prior, StandardNormal | FromData):
        return "", None
    flow = bounds.has_flow_posterior(fitted.model, fitted.params, model.event_shape)
    of = GaussianMixture if flow or model.event_shape[2:] > (1,) else VampPrior  # as in `data.suited`
    return "a prior that is learned", of(min(COMPONENTS, most))


def _matched(loss: Any) -> list[Way]:
    """Return the way to codes that are nearer to the prior that they are trained to follow; none where they are not."""
    if not (isinstance(loss, PriorMatching) and loss.matches_prior):
        return []
    what = "a larger weight of what makes codes follow the prior"
    if not isinstance(loss.weight, numbers.Real):
        return [(what, {})]
    changed: Any = loss
    larger = replace(changed, weight=4 * changed.weight)
    return [(f'{what}: --objective "{values.spell(larger)}"', {"objective": larger})]


def _variational(model: Any) -> list[Way]:
    """Return the way to a VAE of the same architecture and code; none of a model that has other fields."""
    try:
        typed = VAE(model.latent, model.network)
    except AttributeError:
        return [("a VAE, whose codes are trained to be like its prior", {})]
    changes = {"model": VAE(model.latent, model.network, event_shape=model.event_shape), "objective": ELBO()}
    return [(f'a VAE, whose codes are trained to be like its prior: --model "{values.spell(typed)}"', changes)]


def _sharper(fitted: Trained, curve: list[Finding]) -> list[Way]:
    """Return ways to a decoder that blurs less."""
    ways: list[Way] = [(each.remedy, dict(each.changes)) for each in curve if each.fault == "under-trained"]
    model: Any = fitted.run.model
    if isinstance(getattr(model, "network", None), MLP) and (changes := of_model(fitted, network=Conv())):
        ways.append(("a network for images: network=Conv() in --model", changes))
    if isinstance(getattr(model, "latent", None), int) and (changes := of_model(fitted, latent=2 * model.latent)):
        ways.append((f"a larger code: latent={2 * model.latent} in --model", changes))
    return ways or [("a larger network", {})]
