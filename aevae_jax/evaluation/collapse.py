"""What is wrong with a trained model, in plain words, and what to type against it.

Every finding is a comparison of measured numbers with a limit that stands here; tests make runs with each fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf, isfinite
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from aevae_jax import objectives, values
from aevae_jax.data.datasets import Source
from aevae_jax.evaluation import latents, metrics
from aevae_jax.models.likelihoods import Bernoulli, DiscretizedLogistic, Likelihood, NormalSharedScale
from aevae_jax.models.priors import VampPrior
from aevae_jax.objectives import bounds
from aevae_jax.objectives.losses import ELBO, LinearWarmup, ReconstructionError
from aevae_jax.types import InputError, LatentModel, Params, RateWeighted, Scaled, likelihood_of, support_of

COLLAPSED_RATE = 0.1
"""Nats: a code that holds less says nothing."""

POINT_LIKE = 1e-2
"""Posterior variance as a share of a dimension's whole variance: below it codes are points, if the rate was cheap."""

POINTS = 1e-4
"""The same, below which they are points whatever the reason."""

HOLES = 3.0
"""Nats between the codes and the prior, above which random codes are seen to decode to smears."""

STILL_FALLING = 0.03
"""Share of the whole improvement of the validation bound that the second half of the training brought."""

AT_THE_ENDS = 0.01
"""Share of values at an end of a bounded support, above which a density there is not that of noise."""

MOST_EXAMPLES = 2_000
"""What is looked at: the first of the validation data."""


class Trained(Protocol):
    """A trained model with its history; `runs.Fitted` is one."""

    @property
    def run(self) -> Any:
        """What it was trained by: at least `model`, `objective` and `epochs`, as fields of a dataclass."""

    @property
    def model(self) -> LatentModel:
        """The model, fitted to the shape of the data."""

    @property
    def params(self) -> Params:
        """Its parameters."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """One entry per epoch: epoch, step, train and validation metrics."""


class Finding(NamedTuple):
    """One thing that is wrong."""

    fault: str
    evidence: str
    """The numbers that show it."""
    remedy: str
    """What to do about it, in words."""
    changes: Mapping[str, Any]
    """The same as fields of the run that is to be trained in its place; none where they cannot be told."""


class Diagnosis(NamedTuple):
    """What was measured, and what is wrong."""

    measured: dict[str, float]
    findings: list[Finding]


def diagnose(
    fitted: Trained, x: Source, key: jax.Array, *, on_part: Callable[[int, int], None] | None = None
) -> Diagnosis:
    """Look for posterior collapse, dead units, over-regularisation, collapsed variances, codes far from the prior and
    too short a training.

    Args:
      fitted: a trained VAE or autoencoder, with its history.
      x: validation data as the model sees it.
      key: of the noise.
      on_part: see `latents.prior_gap`, which takes longest.

    Raises:
      InputError: there is no history, or one without numbers.
    """
    if not fitted.history:
        raise InputError("history", got="no epoch", expected="one entry for each, in metrics.jsonl")
    x = np.asarray(x[:MOST_EXAMPLES])
    terms = metrics.evaluate(fitted.model, fitted.params, x, key)
    measured = {name: value for name, value in terms.items() if name not in ("negative_elbo", "profile_loss")}
    codes, measure = bounds.measures(fitted.model, fitted.params, x.shape[1:])
    findings = _ends(fitted, x, measure)
    if codes != "point":
        found = latents.describe(fitted.model, fitted.params, x, key)
        measured |= {
            "mutual_information": found.mutual_information,
            "marginal_kl": found.marginal_kl,
            "prior_gap": latents.prior_gap(fitted.model, fitted.params, x, key, on_part=on_part),
            **({} if found.total_correlation is None else {"total_correlation": found.total_correlation}),
            "active_units": float(found.active.sum()),
            "latent_dimensions": float(found.active.size),
        }
        cause = _balance(fitted, terms)
        faults = _codes(fitted, found, terms["mse_at_mean"] ** 0.5)
        findings += [*cause, *(fault for fault in faults if not cause or fault.fault != "dead units")]
    hollow = [] if findings or codes == "point" else holes(fitted, measured["prior_gap"])
    return Diagnosis(measured, [*findings, *_length(fitted), *hollow])


def _codes(fitted: Trained, found: latents.Latents, error: float) -> list[Finding]:
    """Return faults that show in q(z|x)."""
    size, active = found.active.size, int(found.active.sum())
    steps = max(1, fitted.history[-1]["step"] // 4)
    if found.rate < COLLAPSED_RATE or active == 0:
        evidence = f"the code holds {found.rate:.2g} nats, and {active} of {size} dimensions react to the data"
        objective = ELBO(LinearWarmup(steps))
        remedy = f'let the rate cost little at first: --objective "{values.spell(objective)}"'
        if _beta(fitted) > 1:
            remedy = f'--objective "{values.spell(objective)}": the loss multiplied the rate by {_beta(fitted):g}'
        return [Finding("posterior collapse", evidence, remedy, _objective(objective))]
    findings = []
    if active < size:
        evidence = f"{size - active} of {size} dimensions do not react to the data (variance of their means below 0.01)"
        remedy = f"a smaller code is as good: latent={active} in --model"
        if found.rate_per_dimension is not None:  # else there are no bits per dimension to be free
            remedy += f'; or keep them alive: --objective "{values.spell(ELBO(free_bits=0.05))}"'
        findings.append(Finding("dead units", evidence, remedy, _model(fitted, latent=active)))
    share = found.mean_variance / (found.mean_variance + found.variance_of_means)
    cheap = _beta(fitted) < 1 or _noise(fitted) * 1.5 < error
    limit = POINT_LIKE if cheap else POINTS
    points = int((found.active & (share < limit)).sum())
    if points > active / 2:
        evidence = (
            f"in {points} of {active} active dimensions less than {100 * limit:g} % of the variance of the "
            f"code is that of q(z|x): codes are points, {found.marginal_kl:.3g} nats from the prior, and "
            "random codes fall between them"
        )
        remedy, changes = f'weigh the rate fully: --objective "{values.spell(ELBO())}"', _objective(ELBO())
        if _beta(fitted) >= 1:
            remedy = f"a likelihood that learns its scale: likelihood={values.spell(NormalSharedScale())} in --model"
            changes = _model(fitted, likelihood=NormalSharedScale())
        findings.append(Finding("variance collapsed", evidence, remedy, changes))
    return findings


def holes(fitted: Trained, gap: float) -> list[Finding]:
    """Return the finding that random codes lie where no code of data does, if the gap to the prior, in nats, says so.

    Of an autoencoder, whose prior is nominal, it is to be expected.
    """
    if gap < HOLES:
        return []
    evidence = (
        f"random codes fall into holes: the codes of data are at least {gap:.3g} nats from the prior that random codes "
        "are drawn from"
    )
    if isinstance(fitted.run.objective, ReconstructionError):
        remedy = "a VAE has codes like its prior; or fit a mixture to the codes: aevae_jax.priors.fit_mixture"
        return [Finding("holes", evidence, remedy, {})]
    ways, changes = [], _model(fitted, latent_prior=VampPrior())
    if changes and not isinstance(getattr(fitted.run.model, "latent_prior", None), VampPrior):
        ways.append(f"a prior that is learned: latent_prior={values.spell(VampPrior())} in --model")
    if isinstance(fitted.run.objective, ELBO):
        objective = ELBO(beta=4 * max(1.0, _beta(fitted)))
        ways.append(
            f'a larger weight of the rate, at the cost of the likelihood: --objective "{values.spell(objective)}"'
        )
        changes = changes if len(ways) == 2 else _objective(objective)
    return [Finding("holes", evidence, "; or ".join(ways) or "a smaller code", changes if ways else {})]


def _balance(fitted: Trained, terms: dict[str, float]) -> list[Finding]:
    """Return the finding that the rate weighs more than the data can bear, if it does."""
    beta = _beta(fitted)
    if beta > 1:
        distortion = next(value for name, value in terms.items() if name.endswith("distortion"))
        evidence = (
            f"the loss multiplied the rate by {beta:g}: it holds {terms['rate']:.3g} nats, "
            f"the distortion is {distortion:.4g}"
        )
        return [Finding("over-regularised", evidence, f'--objective "{values.spell(ELBO())}"', _objective(ELBO()))]
    likelihood_scale, error = _noise(fitted), terms["mse_at_mean"] ** 0.5
    if isfinite(likelihood_scale) and likelihood_scale > 1.5 * error:
        evidence = (
            f"the likelihood takes a noise of {likelihood_scale:g} for granted, "
            f"{likelihood_scale / error:.2g} times the "
            f"reconstruction error of {error:.3g}: what is below it is not worth coding"
        )
        remedy = f"learn the scale: likelihood={values.spell(NormalSharedScale())} in --model"
        return [Finding("over-regularised", evidence, remedy, _model(fitted, likelihood=NormalSharedScale()))]
    return []


def _ends(fitted: Trained, x: np.ndarray, measure: str) -> list[Finding]:
    """Return the finding that values lie exactly at an end of the support of a density, if they do.

    A density can grow there without limit as the rate pays for being nearer to it: that of `ContinuousBernoulli` does.
    """
    support = support_of(fitted.model)
    if support is None or measure != "density" or not isfinite(support.high - support.low):
        return []
    share = float(np.mean((x == support.low) | (x == support.high)))
    if share < AT_THE_ENDS:
        return []
    likelihood = _of_levels(np.unique(x))
    evidence = (
        f"{100 * share:.2g} % of the values are exactly {support.low:g} or {support.high:g}, where the density "
        "of the likelihood has no limit: what the rate pays for is to come nearer to them"
    )
    remedy = f"a likelihood of levels, or one without ends: likelihood={values.spell(likelihood)} in --model"
    return [Finding("density without limit", evidence, remedy, _model(fitted, likelihood=likelihood))]


def _of_levels(found: np.ndarray) -> Likelihood:
    """Return the likelihood of the fewest levels, at most 256, on which these values lie; a normal where there is
    none.
    """
    for levels in range(2, 257):
        likelihood: Likelihood = Bernoulli() if levels == 2 else DiscretizedLogistic(levels)
        try:
            likelihood.support.check(found, "")
        except InputError:
            continue
        return likelihood
    return NormalSharedScale()


def _length(fitted: Trained) -> list[Finding]:
    """Return the finding that the validation bound was still falling, if it was."""
    chosen = [metrics.selection(fitted.run.objective, entry["validation"]) for entry in fitted.history]
    bound = np.array(chosen, np.float64)  # null becomes NaN
    if not np.isfinite(bound).all():
        raise InputError("history", got="an epoch without a validation bound", expected="a number in metrics.jsonl")
    count = len(bound)
    best = int(bound.argmin()) + 1
    gained, whole = bound[: max(1, count // 2)].min() - bound.min(), bound[0] - bound.min()
    if best < 0.9 * count or (count > 1 and gained <= STILL_FALLING * whole):
        return []
    evidence = f"the best of {count} epochs is number {best}, and the validation bound was still falling"
    if count > 1:
        evidence += f": {gained:.3g} of {whole:.3g} nats came in the second half"
    return [Finding("under-trained", evidence, f"--epochs {4 * count}", {"epochs": 4 * count})]


def _objective(objective: ELBO) -> dict[str, Any]:
    """Return the change to another loss."""
    return {"objective": objective}


def _model(fitted: Trained, **fields: Any) -> dict[str, Any]:
    """Return the change of some fields of the model; none where it is not one that takes them."""
    model: Any = fitted.run.model
    try:
        return {"model": replace(model, **fields)}
    except (TypeError, InputError):
        return {}


def _noise(fitted: Trained) -> float:
    """Return the noise that the likelihood takes for granted; infinite where it learns it, or has none."""
    likelihood = likelihood_of(fitted.model)
    return float(likelihood.scale) if isinstance(likelihood, Scaled) else inf


def _beta(fitted: Trained) -> float:
    """Return the weight of the rate at the last step; 1 where the loss has none."""
    objective = fitted.run.objective
    weight: Any = objective.beta if isinstance(objective, RateWeighted) else 1.0
    return float(objectives.weight_at(weight, fitted.history[-1]["step"]))
