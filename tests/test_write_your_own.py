"""The page "Write your own": a family that the package does not know, in a file of its own and in under 40 lines."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import assert_distribution, assert_mean
from run_files import cut, outcome
from scipy import stats

import aevae_jax as ae
from aevae_jax.checkpoints.saving import Saving
from aevae_jax.evaluation import importance
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import NormalSharedScale

PAGE = Path(__file__).parents[1] / "docs" / "write_your_own.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def family():
    """What the page's first block defines."""
    names: dict = {"__name__": "family_of_ones_own"}
    exec(compile(BLOCKS[0], str(PAGE), "exec", dont_inherit=True), names)  # noqa: S102
    return names


def small(family):
    return family["LaplaceVAE"](3, MLP((8,)))


def images():
    return ae.from_arrays(np.random.RandomState(0).randint(0, 256, (60, 4, 4, 1)).astype(np.uint8))


def test_it_is_as_short_as_the_page_says():
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) < 40


def test_the_distribution_is_the_one_it_says(family):
    q = family["Laplace"](jnp.asarray([[0.3, -1.0]]), jnp.log(jnp.asarray([[0.5, 2.0]])))
    p = family["Laplace"](jnp.asarray([[0.0, 0.5]]), jnp.log(jnp.asarray([[1.0, 0.7]])))
    z = jax.jit(jax.vmap(q.sample))(jax.random.split(jax.random.key(0), 4000))[:, 0]
    assert_distribution(z[:, 1], stats.laplace(-1.0, 2.0).cdf)
    value = np.array([[0.1, 0.2]], np.float32)
    expected = stats.laplace([0.3, -1.0], [0.5, 2.0]).logpdf(value).sum()
    np.testing.assert_allclose(q.log_prob(value)[0], expected, rtol=1e-5)
    ratio = jax.vmap(lambda z: q.log_prob(z[None]) - p.log_prob(z[None]))(z)
    assert_mean(ratio, q.kl(p))
    assert q.kl(q)[0] == 0


@pytest.mark.slow
def test_it_resumes_exactly_is_loaded_and_scored(family, tmp_path):
    run = ae.Run(model=small(family), batch_size=10, epochs=2, seed=3)
    folder = tmp_path / "run"
    fitted = ae.fit(run, images(), directory=folder, saving=Saving(steps=1, last=1000))
    before = outcome(folder)
    cut(folder, 6)
    ae.fit(run, images(), directory=folder)
    assert outcome(folder) == before
    loaded = ae.load_run(folder, model=small(family))
    assert loaded.model == fitted.model
    assert loaded.model.event_shape == (4, 4, 1)
    assert isinstance(loaded.model.likelihood, NormalSharedScale)
    x = images().test.x.astype(np.float32) / 255
    found = importance.estimate(loaded.model, loaded.params, x, jax.random.key(0), num_samples=200)
    bound = ae.evaluate(loaded.model, loaded.params, x, jax.random.key(1))["negative_elbo"]
    assert found.nll.mean() < bound
    together = ae.fit_seeds(run, [3, 4], images())
    np.testing.assert_allclose(together.losses[:, 0], fitted.losses, rtol=1e-4)


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"{PAGE} block {number + 1}", "exec", dont_inherit=True), names)  # noqa: S102
    assert names["images"].shape == (16, 8, 8, 1)
    assert names["seeds"].losses.shape[1] == 3
    assert "apart" in names["symmetric"].history[-1]["train"]
    assert (tmp_path / "runs" / "laplace" / "samples.png").exists()
