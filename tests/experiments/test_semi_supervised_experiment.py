"""The semi-supervised experiment: both classifiers see the same labels, and are compared seed by seed."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

from aevae_jax import keys
from aevae_jax.runs import resolution

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import semi_supervised


def run_of(seed):
    return semi_supervised.run_of(seed, labels=3, epochs=1, latent=2, data="digits")


@pytest.mark.slow
def test_the_classifier_alone_sees_the_labels_of_the_run_and_begins_where_it_does():
    found = [semi_supervised.labelled(run_of(seed)) for seed in (0, 1)]
    for seed, (x, label, params) in enumerate(found):
        resolved = resolution.resolve(run_of(seed))
        train, told = resolved.prepared.train, resolved.prepared.train.condition
        assert np.bincount(label).tolist() == [3] * 10
        np.testing.assert_array_equal(label, told[told >= 0])
        np.testing.assert_allclose(x, np.asarray(train.x)[told >= 0] / train.x.max(), atol=1e-6)
        first = jax.jit(resolved.run.model.init)(keys.stream(keys.root(seed), keys.Stream.INIT))
        jax.tree.map(np.testing.assert_allclose, params["classifier"], first["classifier"])
    assert not np.array_equal(found[0][0], found[1][0])


def test_differences_are_paired_by_seed():
    """Seeds differ by more than the trainings do, and the interval does not see that."""
    results = {
        "data": "x",
        "labels": 3,
        "seeds": 3,
        "accuracy": {"alone": [0.5, 0.7, 0.9], "with the others": [0.52, 0.73, 0.91]},
    }
    apart = np.array([0.02, 0.03, 0.01])
    half = stats.t.ppf(0.975, 2) * apart.std(ddof=1) / 3**0.5
    text = semi_supervised.table(results)
    assert f"more by +0.020 [{0.02 - half:+.3f}, {0.02 + half:+.3f}]" in text
    assert "| alone | 0.500 | 0.700 | 0.900 | 0.700 |" in text


@pytest.mark.slow
def test_the_classifier_alone_learns_from_few_labels():
    assert semi_supervised.alone(run_of(0), steps=200) > 0.6  # 0.1 by chance
