"""A run that cannot be held in memory is refused before anything is computed."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from aevae_jax import VAE, data
from aevae_jax.models import likelihoods, priors
from aevae_jax.models.architectures import MLP, Conv
from aevae_jax.objectives.losses import ELBO, IWAE, Linear
from aevae_jax.runs import plans
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import Adam
from aevae_jax.types import InputError

NARROW = MLP((4,))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            Run(model=VAE(latent=2**31 - 1, network=NARROW)),
            "size of the VAE: got .* parameters, which needs about .* GiB",
        ),
        (Run(model=VAE(network=Conv((1_000_000_000,)))), "size of the VAE: got .* parameters"),
        (
            Run(model=VAE(network=NARROW, latent_prior=priors.VampPrior(2**31 - 1))),
            "size of the VAE: got .* parameters",
        ),
        (
            Run(model=VAE(network=NARROW), objective=IWAE(2**31 - 1)),
            r"size of a step: got an array of shape \(2147483647,",
        ),
    ],
    ids=["latent", "channels", "pseudo-inputs", "samples"],
)
def test_what_no_memory_can_hold_is_refused_and_not_allocated(run, message):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message):
        plans.plan_of(run)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_every_split_must_lie_in_the_support_of_the_likelihood(part):
    parts = {
        name: np.random.default_rng(i).integers(0, 2, (40, 12)).astype(np.float32)
        for i, name in enumerate(("train", "validation", "test"))
    }
    model = VAE(network=NARROW, likelihood=likelihoods.Bernoulli())
    plans.plan_of(Run(model=model, batch_size=8), data.from_arrays(**parts))
    parts[part][-1, -1] = 0.5
    with pytest.raises(InputError, match=f"arrays {part}.*: got 0.5 .*expected 0 or 1, the support of the likelihood"):
        plans.plan_of(Run(model=model, batch_size=8), data.from_arrays(**parts))


def test_long_schedules_are_no_large_ones():
    """They count in 32 bits, and nothing is as long as they are."""
    most = 2**31 - 1
    plans.plan_of(
        Run(
            model=VAE(network=NARROW),
            objective=ELBO(Linear(most)),
            epochs=most // 9,
            optimizer=Adam(warmup=most, cosine=True),
        )
    )
