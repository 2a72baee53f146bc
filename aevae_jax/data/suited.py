"""What suits prepared data: the likelihood and the prior of a model that leaves them open, and why.

experiments/defaults.py measures what is taken here of images; its table stands in the README.
"""

from __future__ import annotations

from math import isfinite, prod
from typing import Any, NamedTuple

from aevae_jax import values
from aevae_jax.data import tables
from aevae_jax.data.datasets import blocks
from aevae_jax.data.prepared import Prepared
from aevae_jax.lazy import jax, np
from aevae_jax.models.likelihoods import BINARY, REAL, Bernoulli, Likelihood, NormalSharedScale, Support
from aevae_jax.models.priors import GaussianMixture, Prior, StandardNormal, VampPrior
from aevae_jax.types import Columned, InputError, Supported, left_open

END_SHARE = 0.01
"""From this share of exact zeros and ones on, they decide what a continuous Bernoulli distribution learns."""


BATCH_SIZE, STEPS = 128, 8
"""Examples per step, at most, and steps per epoch that smaller batches are to make."""


class Suited(NamedTuple):
    """What suits a data set; the names are those of the fields of a model."""

    likelihood: Likelihood
    latent_prior: Prior
    kind: str
    """What the data are, in words."""
    reason: str
    """Why these, in words."""


def suited(prepared: Prepared) -> Suited:
    """Return what suits a data set as a model sees it: every value decides whether they are bits."""
    if prepared.format.columns:
        likelihood = tables.likelihood(prepared.format)
        return Suited(likelihood, StandardNormal(), "rows of a table", "each column is scored by what it holds")
    prior: Prior
    if len(prepared.event_shape) == 3:
        channels = prepared.event_shape[-1]
        prior = VampPrior(100) if channels == 1 else GaussianMixture(100)
        why = "; codes drawn from a learned prior decode to images, from N(0, I) often to blurs"
        noun = {1: "grey images", 3: "colour images"}.get(channels, "images")
    else:
        prior, why, noun = StandardNormal(), "", "vectors"
    if _is_binary(prepared):
        return Suited(Bernoulli(), prior, f"{noun} of bits", f"all values are 0 or 1{why}")
    noun = noun if prepared.format.levels else f"{noun} of floats"
    return Suited(NormalSharedScale(), prior, noun, f"a normal learns the scale of its noise{why}")


def without_mixtures_of_posteriors(chosen: Suited) -> Suited:
    """Return what suits a model whose posteriors are flows: another learned prior in place of a `VampPrior`."""
    return chosen._replace(latent_prior=GaussianMixture(100)) if isinstance(chosen.latent_prior, VampPrior) else chosen


def batch_size(count: int) -> int:
    """Return how many examples per step suit so many: a power of two."""
    return min(BATCH_SIZE, 2 ** (max(1, count // STEPS).bit_length() - 1))


def explained(model: Any, chosen: Suited, count: int = 0) -> str:
    """Return what a run leaves open and what suits it, in a line; empty where it leaves nothing open.

    Args:
      model: of the run.
      chosen: what suits the data.
      count: of training examples, where the run leaves the batch size open; not the usual one is said.
    """
    typed = [f"{name}={values.spell(_as_typed(getattr(chosen, name)))}" for name in left_open(model)]
    found = [f"left open, so taken from the data ({chosen.kind}): {', '.join(typed)}"] if typed else []
    if count and batch_size(count) < BATCH_SIZE:
        found.append(f"batch_size={batch_size(count)}, as there are {count:,} training examples")
    return "; ".join(found)


def check(support: Support, prepared: Prepared) -> None:
    """Raise `InputError` for data outside a likelihood's support. Of integer levels, those that occur are checked."""
    for part in ("validation", "test"):
        for _, x in prepared.seen(part, jax.random.key(0)):
            support.check(x, f"{prepared.name} {part}")
    if prepared.train.x.dtype == np.uint8:
        occurs = np.zeros(256, bool)
        for _, raw in blocks(prepared.train.x):
            occurs[raw] = True
        levels = np.flatnonzero(occurs).astype(np.uint8)[:, None]
        support.check(np.asarray(prepared.batch(levels, jax.random.key(0))), f"{prepared.name} train, levels")
        return
    for _, x in prepared.seen("train", jax.random.key(0)):
        support.check(x, f"{prepared.name} train")


def warning(likelihood: Any, prepared: Prepared, instead: Likelihood) -> str:
    """Return why a likelihood that can score the data should not, in a line; else nothing.

    That is a density on an interval where many values are exactly at its ends: it has no bound there.

    Args:
      likelihood: of a model.
      prepared: the data, of which the validation values are looked at.
      instead: what suits the data.
    """
    support = likelihood.support if isinstance(likelihood, Supported) else REAL
    if support.levels is not None or not isfinite(support.high - support.low):
        return ""
    x = prepared.validation.x
    ends = sum(int(((block == support.low) | (block == support.high)).sum()) for _, block in blocks(x))
    share = ends / prod(x.shape)
    return unbounded(values.spell(likelihood), share, instead) if share >= END_SHARE else ""


def unbounded(likelihood: str, share: float, instead: Likelihood) -> str:
    """Return what to say of a density on [0, 1], as it is typed, where this share of the values is at its ends."""
    return (
        f"{100 * share:.0f} % of the values are exactly 0 or 1, where {likelihood} has a density without bound: rates "
        f"grow and samples turn blotchy; leave likelihood out of --model, or type likelihood={values.spell(instead)}"
    )


def _is_binary(prepared: Prepared) -> bool:
    try:
        check(BINARY, prepared)
    except InputError:
        return False
    return True


def _as_typed(value: Any) -> Any:
    """Return a likelihood as it is typed: `fit` takes the columns of a table from the data."""
    return type(value)() if isinstance(value, Columned) else value
