"""How good pictures are: of samples, by features of classifiers trained here; of reconstructions, pixel by pixel.

Feature distances depend on the classifiers and on how many pictures there are. They compare models within one project,
and never with figures published elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from aevae_jax import keys
from aevae_jax.data import Dataset, Prepared
from aevae_jax.data.datasets import PARTS
from aevae_jax.evaluation import statistics
from aevae_jax.evaluation.classifiers import Ensemble
from aevae_jax.evaluation.statistics import GaussianFit, Manifold
from aevae_jax.types import InputError

OnPart = Callable[[int, int], None]

ENOUGH = 2_000
"""Pictures in a half of the data, from which on one halving is enough."""

FEWEST = 30
"""Held-out pictures, at least, for classifiers to judge others by. On the digits, distances above that of data to data
by 30 of them vary with a standard deviation of 3, by 100 with 0.8, where that of an autoencoder's random codes is 15:
enough to tell garbage from data, and no more."""

MANY = 100
"""From so many on, nothing is said of their number."""


class SampleQuality(NamedTuple):
    """How a set of pictures compares with as many held-out data: means over the classifiers of an ensemble."""

    frechet_distance: float
    manifold: Manifold
    confident: float
    """Share of the pictures of whose class the classifiers are confident: see `CONFIDENT`."""
    num_samples: int

    @property
    def shares(self) -> dict[str, float]:
        """All but the distance, by name; density alone may exceed 1."""
        return {**self.manifold._asdict(), "confident": self.confident}


class Judgement(NamedTuple):
    """Samples of a model, and real data in their place: what no model can be expected to pass."""

    samples: SampleQuality
    floor: SampleQuality

    @property
    def excess(self) -> float:
        """Frechet distance above the floor; negative where the classifiers are not to be trusted."""
        return self.samples.frechet_distance - self.floor.frechet_distance


class ReconstructionQuality(NamedTuple):
    """Measures of every image, `[N]`."""

    mse: np.ndarray
    """Mean squared error per element, in the squared units of the data."""
    psnr: np.ndarray
    """Peak signal to noise ratio in decibels: -10 log10 of the mse over the squared range; infinite if perfect."""
    ssim: np.ndarray | None
    """Structural similarity, at most 1. Wang, Bovik, Sheikh & Simoncelli 2004. `None` for images below 7 x 7."""


def of_samples(
    data: np.ndarray,
    samples: np.ndarray,
    classifiers: Ensemble,
    *,
    neighbours: int = 5,
    halvings: int = 0,
    on_part: OnPart | None = None,
) -> Judgement:
    """Compute Frechet distance, precision, recall, density and coverage of samples `[M, *event]` against data `[N,
    *event]`, and those of data against data beside them.

    All these measures depend on how many pictures there are, and a distance of two finite sets of one distribution is
    above 0. So the data are cut into halves at random, again and again; as many samples as a half has, and the other
    half, are measured against it, and the mean is taken. A model whose distance is below that of data to data shows
    that the classifiers see less than there is.

    Args:
      data: what neither the model nor the classifiers were trained on.
      samples: made by a model.
      classifiers: from `classifiers.train_ensemble`.
      neighbours: k of the balls around points.
      halvings: how often the data are halved; 0 for 1 to 5 times, the more often the fewer there are.
      on_part: called after each comparison of two sets with how many are done, of how many.

    Raises:
      InputError: too few data or samples for so many neighbours.
    """
    made, floor, count = _compared(
        classifiers.features(data),
        classifiers.features(samples),
        lambda a, b: (statistics.frechet_distance(a, b), *statistics.manifold(a, b, neighbours)),
        least=neighbours + 1,
        halvings=halvings,
        on_part=on_part,
    )
    return Judgement(
        SampleQuality(made[0], Manifold(*made[1:]), classifiers.confident(samples), count),
        SampleQuality(floor[0], Manifold(*floor[1:]), classifiers.confident(data), count),
    )


def why_no_judge(data: Dataset | Prepared, *parts: str) -> str:
    """Return why pictures of a data set cannot be judged by classifiers, and what can be done; empty where they can.

    Args:
      data: the data set.
      parts: the splits that pictures are compared with.
    """
    labels = data.train.labels
    known = np.unique(() if labels is None else labels[labels >= 0])
    if not len(known):
        return "the data has no labels"
    if len(known) < 2:
        return "all labels are the same"
    count, part = min((len(getattr(data, part)), part) for part in parts)
    if count >= FEWEST:
        return ""
    few = f"{count} pictures in the {part} split are fewer than {FEWEST}"
    share = math.ceil(10 * FEWEST / sum(len(getattr(data, part)) for part in PARTS)) / 10
    if share > 0.3:
        return few
    cut = f"RandomSplits(validation={share}, test={share})"
    return f"{few}; where the data comes without splits, type --data \"Data('{data.name}', splits={cut})\""


def doubt(held_out: int) -> str:
    """Return how far figures of so many held-out pictures are to be trusted, in a line; empty from `MANY` on."""
    if held_out >= MANY:
        return ""
    return (
        f"{held_out} held-out pictures judge random codes: shares of them are uncertain by "
        f"{100 / math.sqrt(held_out):.0f} percentage points, and distances by more than an interval over seeds says"
    )


class Distances(NamedTuple):
    """Frechet distances of as many pictures from as many held-out data: of samples, and of data in their place."""

    samples: float
    floor: float
    num_samples: int


def frechet_distances(data: np.ndarray, samples: np.ndarray, *, halvings: int = 0) -> Distances:
    """Compute the distances of `of_samples` alone, of features as `Ensemble.features` gives them: `[M, N, F]`."""
    return Halves(data, halvings=halvings).distances(samples)


class Halves:
    """Features `[M, N, F]` of held-out data, for many sets of samples: what depends on them alone is computed once."""

    def __init__(self, data: np.ndarray, *, halvings: int = 0) -> None:
        self.data, self.halvings = data, halvings
        self._known: dict[int, tuple[list[list[GaussianFit]], float]] = {}

    def distances(self, samples: np.ndarray) -> Distances:
        """Compute the distances of `of_samples` alone, of features `[M, S, F]` of samples."""
        halvings = list(_halvings(self.data.shape[1], samples.shape[1], least=2, halvings=self.halvings))
        count = len(halvings[0].samples)
        if count not in self._known:
            fits = [[GaussianFit(own[half]) for own in self.data] for half, _, _ in halvings]
            floors = [
                fit.distance(GaussianFit(own[other]))
                for fitted, (_, other, _) in zip(fits, halvings, strict=True)
                for fit, own in zip(fitted, self.data, strict=True)
            ]
            self._known[count] = fits, float(np.mean(floors))
        fits, floor = self._known[count]
        made = [
            fit.distance(GaussianFit(theirs[drawn]))
            for fitted, (_, _, drawn) in zip(fits, halvings, strict=True)
            for fit, theirs in zip(fitted, samples, strict=True)
        ]
        return Distances(float(np.mean(made)), floor, count)


class _Halving(NamedTuple):
    """Which data and samples are compared: indices, as many of each."""

    half: np.ndarray
    other: np.ndarray
    samples: np.ndarray


def _halvings(data: int, samples: int, *, least: int, halvings: int) -> Iterator[_Halving]:
    """Yield halves of so many data, and as many of so many samples, at random."""
    count = min(data // 2, samples)
    if count < least:
        raise InputError(
            "pictures to judge",
            got=f"{samples} samples and {data} of the data",
            expected=f"at least {least} samples, and twice as many held-out data",
        )
    for halving in range(halvings or max(1, min(5, ENOUGH // count))):
        rng = np.random.default_rng(halving)
        order, drawn = rng.permutation(data), rng.permutation(samples)[:count]
        yield _Halving(order[:count], order[count : 2 * count], drawn)


def _compared(
    data: np.ndarray,
    samples: np.ndarray,
    measure: Callable[[np.ndarray, np.ndarray], tuple[float, ...]],
    *,
    least: int,
    halvings: int,
    on_part: OnPart | None = None,
) -> tuple[list[float], list[float], int]:
    """Return what `measure` says of features `[N, F]` of data and of as many samples, and of data and other data: means
    over the classifiers, along the first axis, and over halvings; and N.
    """
    pairs = list(_halvings(data.shape[1], samples.shape[1], least=least, halvings=halvings))
    of_samples: list[tuple[float, ...]] = []
    of_data: list[tuple[float, ...]] = []
    for half, other, drawn in pairs:
        for own, theirs in zip(data, samples, strict=True):
            for found, compared in ((of_samples, theirs[drawn]), (of_data, own[other])):
                found.append(measure(own[half], compared))
                if on_part is not None:
                    on_part(len(of_samples) + len(of_data), 2 * len(pairs) * len(data))
    return np.mean(of_samples, axis=0).tolist(), np.mean(of_data, axis=0).tolist(), len(pairs[0].samples)


def of_decoded(
    prepared: Prepared, x: np.ndarray, decoded: np.ndarray
) -> tuple[ReconstructionQuality, tuple[float, float]]:
    """Return squared error, PSNR and SSIM of what a model makes of images, in the units that the data had before
    preparation.

    Args:
      prepared: the data set.
      x: some of its images as the model sees them, `[N, H, W, C]`.
      decoded: what the model makes of each, in the same units.

    Returns:
      The measures, and the range of the data, to which the decoded images are clipped: [0, 1] for integer levels, else
      the least and the largest value of the training data and of these images, in the same units.
    """

    def in_units(seen: np.ndarray) -> np.ndarray:
        return prepared.preparation.inverse(seen, prepared.format)

    images, decoded = in_units(x), in_units(decoded)
    low, high = 0.0, 1.0
    if not prepared.format.levels:  # `prepared.train` has the units of neither side: some preparations are half done
        blocks = (in_units(block) for _, block in prepared.seen("train", keys.root(0)))
        ends = [(float(a.min()), float(a.max())) for a in (images, *blocks)]
        low, high = min(least for least, _ in ends), max(largest for _, largest in ends)
    return of_reconstructions(images, decoded.clip(low, high), data_range=(low, high)), (low, high)


def of_reconstructions(
    images: np.ndarray, reconstructions: np.ndarray, *, data_range: tuple[float, float] = (0.0, 1.0)
) -> ReconstructionQuality:
    """Return squared error, PSNR and SSIM of each pair of images `[N, H, W, C]`, in the units of the data.

    SSIM by scikit-image with its 7 x 7 window.

    Args:
      images: the originals, as they were before any preparation.
      reconstructions: the same through a model and back: see `inverse` of the preparations.
      data_range: the least and the largest value that the data can take; their difference is the peak of PSNR and SSIM.

    Raises:
      InputError: other shapes, or values outside `data_range`.
    """
    low, high = data_range
    if not low < high:
        raise InputError("range of the data", got=f"{low:g} to {high:g}", expected="two values, the smaller one first")
    if images.shape != reconstructions.shape or images.ndim != 4:
        raise InputError(
            "images and reconstructions",
            got=f"{images.shape} and {reconstructions.shape}",
            expected="the same [N, H, W, C]",
        )
    for name, x in (("images", images), ("reconstructions", reconstructions)):
        if not (x.min() >= low and x.max() <= high):
            raise InputError(
                name, got=f"values from {x.min():.4g} to {x.max():.4g}", expected=f"values in [{low:g}, {high:g}]"
            )
    from skimage.metrics import structural_similarity

    mse = ((images.astype(np.float64) - reconstructions) ** 2).reshape(len(images), -1).mean(axis=1)
    with np.errstate(divide="ignore"):
        psnr = -10 * np.log10(mse / (high - low) ** 2)
    if min(images.shape[1:3]) < 7:
        return ReconstructionQuality(mse, psnr, None)
    pairs = zip(images, reconstructions, strict=True)
    ssim = [structural_similarity(a, b, data_range=high - low, channel_axis=-1) for a, b in pairs]
    return ReconstructionQuality(mse, psnr, np.array(ssim))
