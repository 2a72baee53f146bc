"""What a training would be, before it begins: sizes that are exact, and an estimate of its time."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from aevae_jax.data import LastSplits, from_arrays
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.priors import StandardNormal
from aevae_jax.runs import rehearsal
from aevae_jax.runs.callbacks import Callbacks
from aevae_jax.runs.calls import Call, Sweep
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

RUN = Run(model=VAE(2, MLP((4,)), latent_prior=StandardNormal()), batch_size=10, epochs=3)


@pytest.fixture(scope="module")
def data():
    return from_arrays(np.random.default_rng(0).random((60, 5)).astype(np.float32), splits=LastSplits(1 / 6, 1 / 6))


def rehearsed(data, run=RUN, sweep=None):
    return rehearsal.rehearse(Call(run, data, None, Callbacks(None, str, str), sweep))


def test_sizes_are_those_of_the_training_and_the_time_is_the_sum_of_its_parts(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = rehearsed(data)
    params = jax.jit(found.resolved.run.model.init)(jax.random.key(0))
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in params.items()}
    assert found.parameters == {name: size for name, size in sizes.items() if size}
    assert (found.batch, found.steps_per_epoch, found.steps, found.members) == ((10, 5), 4, 12, 1)
    assert found.state >= 4 * 4 * sum(sizes.values())  # parameters, those of the best epoch, and two moments
    assert found.data == 40 * 5 * 4
    assert found.peak > found.state + found.data
    assert found.timed == 11  # all but the first, which compiles
    assert found.seconds == pytest.approx(found.compiling + 12 * found.step + 3 * found.evaluation)
    assert min(found.compiling, found.step, found.evaluation) > 0
    assert not list(tmp_path.iterdir())


def test_members_of_a_sweep_are_counted(data):
    found = rehearsed(data, sweep=Sweep({"objective.beta": (1.0, 2.0)}, (0, 1)))
    alone = rehearsed(data)
    assert found.members == 4
    assert found.parameters == alone.parameters
    assert found.state == pytest.approx(4 * alone.state, rel=0.01)


def test_numbers_that_break_are_an_error(data):
    with pytest.raises(InputError, match=r"training: got numbers that are not finite, .* expected finite ones"):
        rehearsed(data, Run(model=RUN.model, batch_size=10, epochs=3, optimizer=AdamW(learning_rate=1e30)))
