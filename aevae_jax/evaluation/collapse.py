"""What is wrong with a trained model, in plain words, and what to type against it.

Every finding is a comparison of measured numbers with a limit that stands here; tests make runs with each fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, isfinite, isinf
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from aevae_jax import conditions, values
from aevae_jax.conditions import Conditioned
from aevae_jax.data.datasets import Source
from aevae_jax.evaluation import code_usage, latents, learning_curve, metrics, random_codes
from aevae_jax.evaluation.findings import Finding, Trained, beta, of_model
from aevae_jax.evaluation.latents import Latents
from aevae_jax.evaluation.random_codes import HOLES
from aevae_jax.models.likelihoods import Bernoulli, DiscretizedLogistic, Likelihood, NormalSharedScale
from aevae_jax.objectives import bounds
from aevae_jax.objectives.losses import ELBO, LinearWarmup
from aevae_jax.types import InputError, Scaled, likelihood_of, support_of

COLLAPSED_RATE = 0.1
"""Nats: a code that holds less says nothing."""

POINT_LIKE = 1e-2
"""Posterior variance as a share of a dimension's whole variance: below it codes are points, if the rate was cheap."""

POINTS = 1e-4
"""The same, below which they are points whatever the reason."""

AT_THE_ENDS = 0.01
"""Share of values at an end of a bounded support, above which a density there is not that of noise."""

MOST_EXAMPLES = 2_000
"""What is looked at: the first of the validation data."""

FEWEST = 30
"""Examples from which on dimensions are said not to react to data."""


class Diagnosis(NamedTuple):
    """What was measured, and what is wrong: the most important first."""

    measured: dict[str, float]
    findings: list[Finding]
    absent: tuple[str, ...] = ()
    """Faults that were looked for, and are not there."""
    unjudged: Mapping[str, str] = MappingProxyType({})
    """Faults that these examples do not show to be there or not, and why."""
    compared: int = 0
    """How many examples had their codes compared with all others; 0 where none had. See `latents.affordable`."""


def diagnose(
    fitted: Trained,
    x: Source | Conditioned,
    key: jax.Array,
    *,
    train: Source | Conditioned | None = None,
    on_part: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Look for posterior collapse, dead units, over-regularisation, collapsed variances, codes far from the prior, and
    too short or too long a training.

    Args:
      fitted: a trained VAE or autoencoder, with its history.
      x: validation data as the model sees it.
      key: of the noise.
      train: training data as the model sees it; with it, a gap between codes and prior is seen by fewer `x`.
      on_part: see `latents.prior_gap`, which takes longest.

    Raises:
      InputError: there is no history, or one without numbers.
    """
    curve = learning_curve.look(fitted)
    x = jax.tree.map(np.asarray, x[:MOST_EXAMPLES])
    train = None if train is None else jax.tree.map(np.asarray, train[:MOST_EXAMPLES])
    terms = metrics.evaluate(fitted.model, fitted.params, x, key)
    measured = {name: value for name, value in terms.items() if name not in ("negative_elbo", "profile_loss")}
    codes, measure = bounds.measures(fitted.model, fitted.params, x)
    gap, most = latents.prior_gap(fitted.model, fitted.params, x, key, others=train, on_part=on_part), inf
    verdicts, unjudged = {"density without limit": _ends(fitted, conditions.examples(x), measure)}, {}
    dead: list[Finding] | None = None
    compared = 0
    if choices := code_usage.choices_of(fitted.model, fitted.params, x):
        usage, of_codes = code_usage.look(fitted, x if train is None else train, key, choices)
        measured |= {**usage, "prior_gap": gap}
        verdicts |= of_codes
    elif codes == "point":
        measured["prior_gap"] = gap
    else:
        compared = latents.affordable(fitted.model, fitted.params, x)
        found = latents.describe(fitted.model, fitted.params, x[:compared], key)
        most = found.marginal_kl
        measured |= {
            "mutual_information": found.mutual_information,
            "marginal_kl": most,
            "prior_gap": gap,
            **({} if found.total_correlation is None else {"total_correlation": found.total_correlation}),
            "active_units": float(found.active.sum()),
            "latent_dimensions": float(found.active.size),
        }
        of_codes = _codes(fitted, found, terms)
        verdicts |= of_codes
        dead = None if any(of_codes.values()) else _dead(fitted, found)  # else these are why
    known = verdicts.get("posterior collapse") or verdicts.get("variance collapsed")  # where random codes lie
    if not known:
        hollow = random_codes.holes(fitted, gap, *([] if train is None else [len(train)]))
        if hollow or most < HOLES:
            verdicts["holes"] = hollow
        else:
            least = "no gap" if gap == 0 else f"a gap of at least {gap:.3g} nats"
            above = "" if isinf(most) else f", at most {most:.3g}"
            unjudged["holes"] = f"{len(x)} examples show {least} between codes and prior{above}; see aevae quality"
    if dead and len(x) < FEWEST:
        unjudged["dead units"] = f"{len(x)} examples are fewer than {FEWEST}"
    elif dead and any(finding.fault == "under-trained" for finding in curve):
        unjudged["dead units"] = f"{dead[0].evidence}, but the training had not settled"
    elif dead is not None:
        verdicts["dead units"] = dead
    verdicts |= {fault: [each for each in curve if each.fault == fault] for fault in learning_curve.FAULTS}
    absent = tuple(fault for fault, findings in verdicts.items() if not findings)
    present = [each for findings in verdicts.values() for each in findings]
    return Diagnosis(measured, present, absent, unjudged, compared)


def _codes(fitted: Trained, found: Latents, terms: dict[str, float]) -> dict[str, list[Finding]]:
    """Return the faults that make codes useless, by name: none of those that are there, or a finding."""
    useless = _useless(fitted, found, terms["rate"])
    verdicts = {"over-regularised": _balance(fitted, terms), "posterior collapse": useless}
    if not useless:
        verdicts["variance collapsed"] = _points(fitted, found, terms["mse_at_mean"] ** 0.5)
    return verdicts


def _useless(fitted: Trained, found: Latents, rate: float) -> list[Finding]:
    """Return the finding that codes say nothing about the data, if so."""
    if min(rate, found.mutual_information) >= COLLAPSED_RATE:
        return []
    size, active = found.active.size, int(found.active.sum())
    evidence = (
        f"the code tells {max(0.0, found.mutual_information):.2g} nats about the data at a rate of {rate:.2g} "
        f"(below {COLLAPSED_RATE:g} is nothing), and {active} of {size} dimensions react"
    )
    objective = ELBO(LinearWarmup(max(1, fitted.history[-1]["step"] // 4)))
    remedy = f'let the rate cost little at first: --objective "{values.spell(objective)}"'
    if beta(fitted) > 1:
        remedy = f'--objective "{values.spell(objective)}": the loss multiplied the rate by {beta(fitted):g}'
    return [Finding("posterior collapse", evidence, remedy, {"objective": objective})]


def _dead(fitted: Trained, found: Latents) -> list[Finding]:
    """Return the finding that some dimensions do not react to the data, if so."""
    size, active = found.active.size, int(found.active.sum())
    if not 0 < active < size:
        return []
    evidence = (
        f"{size - active} of {size} dimensions do not react to the data (the variance of their means is below 1 % of "
        "that of their codes)"
    )
    latent = smaller(getattr(fitted.run.model, "latent", size), found.active)
    ways = [] if latent is None else [f"a smaller code is as good: latent={latent} in --model"]
    if found.rate_per_dimension is not None:  # else there are no bits per dimension to be free
        ways.append(f'keep them alive: --objective "{values.spell(ELBO(free_bits=0.05))}"')
    changes = {} if latent is None else of_model(fitted, latent=latent)
    return [Finding("dead units", evidence, "; or ".join(ways) or "a smaller code is as good", changes)]


def smaller(latent: Any, active: np.ndarray) -> Any:
    """Return the latent of the dimensions that react; of maps, of channels of which any does, `None` if all do."""
    if not isinstance(latent, tuple):
        return int(active.sum())
    channels = int(active.reshape(-1, latent[-1]).any(axis=0).sum())
    return (*latent[:-1], channels) if channels < latent[-1] else None


def _points(fitted: Trained, found: Latents, error: float) -> list[Finding]:
    """Return the finding that q(z|x) is so narrow that codes are points, if so; `error` is that of reconstructions."""
    active = int(found.active.sum())
    share = found.mean_variance / (found.mean_variance + found.variance_of_means)
    cheap = beta(fitted) < 1 or _noise(fitted) * 1.5 < error
    limit = POINT_LIKE if cheap else POINTS
    points = int((found.active & (share < limit)).sum())
    if points <= active / 2:
        return []
    evidence = (
        f"in {points} of {active} active dimensions less than {100 * limit:g} % of the variance of the "
        f"code is that of q(z|x): codes are points, {found.marginal_kl:.3g} nats from the prior, and "
        "random codes fall between them"
    )
    remedy, changes = f'weigh the rate fully: --objective "{values.spell(ELBO())}"', {"objective": ELBO()}
    if beta(fitted) >= 1:
        remedy = f"a likelihood that learns its scale: likelihood={values.spell(NormalSharedScale())} in --model"
        changes = of_model(fitted, likelihood=NormalSharedScale())
    return [Finding("variance collapsed", evidence, remedy, changes)]


def _balance(fitted: Trained, terms: dict[str, float]) -> list[Finding]:
    """Return the finding that the rate weighs more than the data can bear, if it does."""
    if beta(fitted) > 1:
        distortion = next(value for name, value in terms.items() if name.endswith("distortion"))
        evidence = (
            f"the loss multiplied the rate by {beta(fitted):g}: it holds {terms['rate']:.3g} nats, "
            f"the distortion is {distortion:.4g}"
        )
        return [Finding("over-regularised", evidence, f'--objective "{values.spell(ELBO())}"', {"objective": ELBO()})]
    likelihood_scale, error = _noise(fitted), terms["mse_at_mean"] ** 0.5
    if isfinite(likelihood_scale) and likelihood_scale > 1.5 * error:
        evidence = (
            f"the likelihood takes a noise of {likelihood_scale:g} for granted, "
            f"{likelihood_scale / error:.2g} times the "
            f"reconstruction error of {error:.3g}: what is below it is not worth coding"
        )
        remedy = f"learn the scale: likelihood={values.spell(NormalSharedScale())} in --model"
        return [Finding("over-regularised", evidence, remedy, of_model(fitted, likelihood=NormalSharedScale()))]
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
    return [Finding("density without limit", evidence, remedy, of_model(fitted, likelihood=likelihood))]


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


def _noise(fitted: Trained) -> float:
    """Return the noise that the likelihood takes for granted; infinite where it learns it, or has none."""
    likelihood = likelihood_of(fitted.model)
    return float(likelihood.scale) if isinstance(likelihood, Scaled) else inf
