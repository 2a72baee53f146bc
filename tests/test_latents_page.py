"""The example of docs/latents.md, on a small run and with a stand-in for the diffusion model."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from commands import typed

import aevae_jax

PAGE = (Path(aevae_jax.__file__).parents[1] / "docs" / "latents.md").read_text(encoding="utf-8")


class Diffusion:
    """Draws what it was fitted to, and sees that this has the scale that a diffusion model wants."""

    def fit(self, z):
        assert z.ndim == 4
        assert abs(float(z.mean())) < 1e-3
        assert abs(float(z.std()) - 1) < 1e-3
        self.z = z
        return self

    def sample(self, num):
        return self.z[:num]


@pytest.mark.slow
def test_maps_go_to_another_model_and_come_back(tmp_path, monkeypatch):
    """What comes back unchanged decodes to the reconstructions of the images."""
    monkeypatch.chdir(tmp_path)
    model = "VAE((2, 2, 3), Conv((4, 8)), latent_prior=StandardNormal())"
    typed("train", "runs/maps", "--data", "digits", "--model", model, "--objective", "ELBO(beta=0.01)", "--epochs", 1)
    assert os.path.isdir("runs/maps")
    images = np.random.default_rng(0).uniform(size=(20, 8, 8, 1)).astype(np.float32)
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(code.strip().splitlines()) <= 10
    names = {"images": images, "Diffusion": Diffusion}
    exec(code, names)  # noqa: S102  # of this repository
    fitted = names["fitted"]
    expected = aevae_jax.reconstruct(fitted.model, fitted.params, images)
    np.testing.assert_allclose(names["drawn"], expected[:16], atol=1e-5)
