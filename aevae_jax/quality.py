"""How good pictures are: of samples, by features of classifiers trained here; of reconstructions, pixel by pixel.

Feature distances depend on the classifiers and on how many pictures there are. They compare models within one project,
and never with figures published elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aevae_jax import statistics
from aevae_jax.features import Ensemble
from aevae_jax.statistics import Manifold
from aevae_jax.types import InputError


class SampleQuality(NamedTuple):
    """Means over the classifiers of an ensemble."""

    frechet_distance: float
    manifold: Manifold
    num_samples: int


class ReconstructionQuality(NamedTuple):
    """Of every image, `[N]`."""

    mse: np.ndarray
    """Mean squared error per element, in units of [0, 1]."""
    psnr: np.ndarray
    """Peak signal to noise ratio in decibels: -10 log10 mse; infinite for a perfect one."""
    ssim: np.ndarray | None
    """Structural similarity, at most 1. Wang, Bovik, Sheikh & Simoncelli 2004. `None` for images below 7 x 7."""


def of_samples(data: np.ndarray, samples: np.ndarray, judge: Ensemble, *, neighbours: int = 5) -> SampleQuality:
    """Frechet distance, precision, recall, density and coverage of samples `[M, *event]` against data `[N, *event]`.

    Both are cut to the same number, as these measures depend on it.

    Args:
      data: as the classifiers were trained on, never part of what the model was trained on.
      samples: made by a model.
      judge: from `features.train_ensemble`.
      neighbours: k of the balls around points.
    """
    count = min(len(data), len(samples))
    real, made = judge.features(data[:count]), judge.features(samples[:count])
    distances = [statistics.frechet_distance(r, m) for r, m in zip(real, made, strict=True)]
    shares = [statistics.manifold(r, m, neighbours) for r, m in zip(real, made, strict=True)]
    return SampleQuality(float(np.mean(distances)), Manifold(*(float(v) for v in np.mean(shares, axis=0))), count)


def of_reconstructions(images: np.ndarray, reconstructions: np.ndarray) -> ReconstructionQuality:
    """Squared error, PSNR and SSIM of each pair of images `[N, H, W, C]` in [0, 1].

    SSIM by scikit-image with its 7 x 7 window.

    Raises:
      InputError: other shapes, or values outside [0, 1].
    """
    if images.shape != reconstructions.shape or images.ndim != 4:
        raise InputError("images and reconstructions", got=f"{images.shape} and {reconstructions.shape}",
                         expected="the same [N, H, W, C]")  # fmt: skip
    for name, x in (("images", images), ("reconstructions", reconstructions)):
        if not (x.min() >= 0 and x.max() <= 1):
            raise InputError(name, got=f"values from {x.min():.4g} to {x.max():.4g}", expected="values in [0, 1]")
    from skimage.metrics import structural_similarity

    mse = ((images.astype(np.float64) - reconstructions) ** 2).reshape(len(images), -1).mean(axis=1)
    with np.errstate(divide="ignore"):
        psnr = -10 * np.log10(mse)
    if min(images.shape[1:3]) < 7:
        return ReconstructionQuality(mse, psnr, None)
    pairs = zip(images, reconstructions, strict=True)
    ssim = [structural_similarity(a, b, data_range=1.0, channel_axis=-1) for a, b in pairs]
    return ReconstructionQuality(mse, psnr, np.array(ssim))
