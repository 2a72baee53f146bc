"""What is wrong with a trained model, in plain words, and what to type against it.

Every finding is a comparison of measured numbers with a limit that stands here; tests make runs with each fault.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from aevae_jax import evaluation, latents, objectives, values
from aevae_jax.data.datasets import Source
from aevae_jax.fitting import Fitted
from aevae_jax.likelihoods import Normal, NormalSharedScale
from aevae_jax.models import Autoencoder
from aevae_jax.objectives import ELBO, Linear

COLLAPSED_RATE = 0.1
"""Nats: a code that holds less says nothing."""

COLLAPSED_NOISE = 1e-5
"""Posterior variance as a share of all variance of a dimension: below it, 5.8 nats in one number, codes are points."""

STILL_FALLING = 0.05
"""Share of the whole improvement of the validation bound that the last fifth of the training brought."""

MOST_EXAMPLES = 2_000
"""What is looked at: the first of the validation data."""


class Finding(NamedTuple):
    """One thing that is wrong."""

    fault: str
    evidence: str
    """The numbers that show it."""
    remedy: str
    """What to type."""


class Checkup(NamedTuple):
    """What was measured, and what is wrong."""

    measured: dict[str, float]
    findings: list[Finding]


def check(fitted: Fitted, x: Source, key: jax.Array) -> Checkup:
    """Look for posterior collapse, dead units, over-regularisation, collapsed variances and too short a training.

    Args:
      fitted: a trained VAE or autoencoder, with its history.
      x: validation data as the model sees it.
      key: of the noise.

    Raises:
      InputError: codes that are neither points nor diagonal Gaussians.
    """
    x = x[:MOST_EXAMPLES]
    terms = evaluation.evaluate(fitted.model, fitted.params, x, key)
    measured = {name: value for name, value in terms.items() if name != "negative_elbo"}
    findings = []
    if not isinstance(fitted.model, Autoencoder):
        found = latents.describe(fitted.model, fitted.params, x, key)
        measured |= {
            "mutual_information": found.mutual_information,
            "marginal_kl": found.marginal_kl,
            "total_correlation": found.total_correlation,
            "active_units": float(found.active.sum()),
            "latent_dimensions": float(found.active.size),
        }
        findings += [*_codes(fitted, found), *_balance(fitted, terms)]
    findings += _length(fitted)
    return Checkup(measured, findings)


def _codes(fitted: Fitted, found: latents.Latents) -> list[Finding]:
    """Faults that show in q(z|x)."""
    size, active = found.active.size, int(found.active.sum())
    steps = max(1, fitted.history[-1]["step"] // 4)
    if found.rate < COLLAPSED_RATE or active == 0:
        evidence = f"the code holds {found.rate:.2g} nats, and {active} of {size} dimensions react to the data"
        remedy = f'let the rate cost little at first: --objective "{values.spell(ELBO(Linear(steps)))}"'
        if _beta(fitted) > 1:
            remedy = (
                f'--objective "{values.spell(ELBO(Linear(steps)))}": the loss multiplied the rate by {_beta(fitted):g}'
            )
        return [Finding("posterior collapse", evidence, remedy)]
    findings = []
    if active < size:
        evidence = f"{size - active} of {size} dimensions do not react to the data (variance of their means below 0.01)"
        findings.append(Finding("dead units", evidence,
            f"a smaller code is as good: latent={active} in --model; or keep them alive: "
            f'--objective "{values.spell(ELBO(free_bits=0.05))}"'))  # fmt: skip
    share = found.noise / (found.noise + found.spread)
    points = found.active & (share < COLLAPSED_NOISE)
    if points.sum() > 0.5 * active:
        evidence = (f"in {points.sum()} of {active} active dimensions q(z|x) has less than {COLLAPSED_NOISE:g} of the "
                    f"variance of the code: codes are points, {found.marginal_kl:.3g} nats from the prior, "
                    "and random codes fall between them")  # fmt: skip
        remedy = f'weigh the rate fully: --objective "{values.spell(ELBO())}"'
        if _beta(fitted) >= 1:
            remedy = f"a likelihood that learns its scale: likelihood={values.spell(NormalSharedScale())} in --model"
        findings.append(Finding("variance collapsed", evidence, remedy))
    return findings


def _balance(fitted: Fitted, terms: dict[str, float]) -> list[Finding]:
    """Whether the rate weighs more than the data can bear."""
    beta, likelihood = _beta(fitted), getattr(fitted.model, "likelihood", None)
    if beta > 1:
        evidence = (f"the loss multiplied the rate by {beta:g}: it holds {terms['rate']:.3g} nats, "
                    f"the distortion is {terms['distortion']:.4g}")  # fmt: skip
        return [Finding("over-regularised", evidence, f'--objective "{values.spell(ELBO())}"')]
    error = terms["mse_at_mean"] ** 0.5
    if isinstance(likelihood, Normal) and likelihood.scale > 1.5 * error:
        evidence = (f"the likelihood takes a noise of {likelihood.scale:g} for granted, {likelihood.scale / error:.2g} "
                    f"times the reconstruction error of {error:.3g}: what is below it is not worth coding")  # fmt: skip
        return [Finding("over-regularised", evidence,
                        f"learn the scale: likelihood={values.spell(NormalSharedScale())} in --model")]  # fmt: skip
    return []


def _length(fitted: Fitted) -> list[Finding]:
    """Whether the validation bound was still falling."""
    bound = np.array([evaluation.selection(entry["validation"]) for entry in fitted.history])
    count = len(bound)
    best = int(bound.argmin()) + 1
    before = bound[: max(1, count - max(1, count // 5))].min()
    gained, whole = before - bound.min(), bound[0] - bound.min()
    if best < count * 0.9 or (count > 1 and gained <= STILL_FALLING * whole):
        return []
    evidence = f"the best of {count} epochs is number {best}, and the validation bound was still falling"
    if count > 1:
        evidence += f": {gained:.3g} of {whole:.3g} nats came in the last fifth"
    return [Finding("under-trained", evidence, f"--epochs {4 * count}")]


def _beta(fitted: Fitted) -> float:
    """Weight of the rate at the last step; 1 where the loss has none."""
    weight: Any = getattr(fitted.run.objective, "beta", 1.0)
    return float(objectives.weight_at(weight, fitted.history[-1]["step"]))
