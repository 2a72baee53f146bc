"""What is measured of the models of `ae_vs_vae.py`, on data that neither they nor the judge were trained on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax.lazy import jax, jnp, modules, np

if TYPE_CHECKING:
    from aevae_jax import distributions
    from aevae_jax.data import Split
    from aevae_jax.evaluation import classifiers, image_quality, latents, statistics
    from aevae_jax.evaluation.classifiers import Ensemble
    from aevae_jax.models import generation
    from aevae_jax.runs.fitting import Fitted
    from aevae_jax.training import loops
    from aevae_jax.types import LatentModel, Params
else:
    distributions = modules("aevae_jax", "distributions")
    classifiers, image_quality, latents, statistics = modules(
        "aevae_jax.evaluation", "classifiers", "image_quality", "latents", "statistics"
    )
    generation = modules("aevae_jax.models", "generation")
    loops = modules("aevae_jax.training", "loops")

SAMPLES = 2_000
"""Random codes per model and seed; as many codes at most for the kernel distance and the gap to the prior."""

MOST = 5_000
"""Held-out pictures that are looked at, at most."""

PATHS, POINTS = 200, 21
"""Straight paths between two encoded inputs, and points on each."""


class Pictures(NamedTuple):
    """What classifiers see in pictures that were decoded from random codes."""

    features: np.ndarray
    """`[M, N, F]`, of each classifier."""
    confident: float


def pictures(ensemble: Ensemble, model: LatentModel, params: Params, seed: int) -> Pictures:
    """Return what the classifiers see in pictures decoded from random codes."""
    images = decoded(model, params, seed)
    return Pictures(ensemble.features(images), ensemble.confident(images))


class Judge(NamedTuple):
    """Classifiers of training data, and their features `[M, N, F]` of what pictures are compared with, in halves."""

    classifiers: Ensemble
    halves: image_quality.Halves
    floor: float
    """Frechet distance of these data from as many others of them."""

    @classmethod
    def of(cls, ensemble: Ensemble, images: np.ndarray) -> Judge:
        """Return the judge that compares with `images` `[N, *event]`."""
        features = ensemble.features(images[-MOST:])
        halves = image_quality.Halves(features)
        return cls(ensemble, halves, halves.distances(features[:, :SAMPLES]).floor)

    def measures(self, seen: Pictures) -> dict[str, float]:
        """Return how pictures decoded from random codes compare with the data."""
        distance = self.halves.distances(seen.features).samples
        return {
            "Frechet distance": distance,
            "... above that of data to data": distance - self.floor,
            "confident samples": seen.confident,
        }


def decoded(model: LatentModel, params: Params, seed: int) -> np.ndarray:
    """Return `SAMPLES` pictures decoded from random codes, clipped to [0, 1] as when shown."""
    return np.asarray(_decoded(model, params, jax.random.key(1_000 + seed), SAMPLES))


def measure(fit: Fitted, seed: int, images: np.ndarray, judge: Judge | None) -> dict[str, Any]:
    """Return every measure of one seed's model on held-out `images` `[N, *event]`."""
    params = loops.unstack(fit.params)[seed]
    return {
        "reconstruction MSE": fit.results["test"][seed]["mse_at_mean"],
        **_codes(fit.model, params, images[-MOST:], seed),
        **_paths(fit.model, params, images, judge, seed),
    }


def _codes(model: LatentModel, params: Params, x: np.ndarray, seed: int) -> dict[str, Any]:
    """Measure determinism of the encoder, and how the codes of held-out data are distributed."""
    *keys, other = jax.random.split(jax.random.key(seed), 4)
    terms = jax.tree.map(np.asarray, _encoded(model, params, jnp.asarray(x), keys))
    z, again, normal = terms["z"], terms["again"], terms["normal"]
    measures = {
        "equal when encoded twice": (z == again).all(axis=1).mean(),
        "difference of two encodings": np.abs(z - again).mean(),
        "KL of aggregate posterior": statistics.kl_of_gaussian_fit(z),
        "MMD of aggregate posterior": statistics.mmd(z[:SAMPLES], normal[:SAMPLES]),
        "gap to the prior": latents.prior_gap(model, params, x[:SAMPLES], other),
        "active units": statistics.active_units(terms["mean"]).sum(),
    }
    if "scale" in terms:
        measures["posterior standard deviation"] = terms["scale"].mean()
    if "rate" in terms:
        rates = terms["rate"].mean(axis=0)
        measures["rate"] = rates.sum()
        measures["rate per dimension"] = np.sort(rates)[::-1]
    return measures


def _paths(model: LatentModel, params: Params, x: np.ndarray, judge: Judge | None, seed: int) -> dict[str, Any]:
    """Return how evenly the picture changes along straight paths between two codes, and whether it stays
    recognisable.
    """
    count = min(PATHS, len(x) // 2)
    a, b = np.random.RandomState(seed).permutation(len(x))[: 2 * count].reshape(2, -1)
    images = np.asarray(_interpolated(model, params, jnp.asarray(x[a]), jnp.asarray(x[b]), POINTS))
    steps = np.sqrt(((images[1:] - images[:-1]) ** 2).reshape(POINTS - 1, len(a), -1).sum(axis=-1))
    fade = np.sqrt(((images[-1] - images[0]) ** 2).reshape(len(a), -1).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN where a picture does not change at all
        measures = {
            "steepest step of a path": (steps.max(axis=0) / steps.mean(axis=0)).mean(),
            "length of a path": (steps.sum(axis=0) / fade).mean(),
        }
    if judge is not None:
        ends, inner = images[[0, -1]], images[1:-1]  # the ends are reconstructions
        for name, seen in (("confident reconstructions", ends), ("confident on paths", inner)):
            measures[name] = judge.classifiers.confident(seen.reshape(-1, *images.shape[2:]).clip(0, 1))
    return measures


def baselines(train: np.ndarray, test: Split, judge: Judge | None, latent: int) -> dict[str, float]:
    """Return what real data score, and what PCA reconstructs with as many numbers."""
    found = {"reconstruction MSE of PCA": statistics.pca_error(train, test.x[:], latent)}
    if judge is None:
        return found
    of_train = judge.halves.distances(judge.classifiers.features(train[:SAMPLES]))
    right = judge.classifiers.probabilities(test.x[:]).argmax(axis=1) == test.labels
    return {
        **found,
        "Frechet distance of training data": of_train.samples,
        "Frechet distance of data to data": judge.floor,
        "confident held-out data": judge.classifiers.confident(test.x[-MOST:]),
        "accuracy of the classifiers": float(right.mean()),
        "pictures compared": of_train.num_samples,
    }


@partial(jax.jit, static_argnums=(0, 3))
def _decoded(model: LatentModel, params: Params, key: Any, num: int) -> Any:
    return generation.sample(model, params, key, num).mean().clip(0, 1)


@partial(jax.jit, static_argnums=(0, 4))
def _interpolated(model: LatentModel, params: Params, start: Any, end: Any, num: int) -> Any:
    return generation.interpolate(model, params, start, end, num)


@partial(jax.jit, static_argnums=0)
def _encoded(model: LatentModel, params: Params, x: Any, keys: Any) -> dict[str, Any]:
    """Return two encodings of x, as many draws from N(0, I), and what is known of q(z|x)."""
    q = model.encode(params, x)
    z = q.sample(keys[0])
    terms = {"z": z, "again": q.sample(keys[1]), "normal": jax.random.normal(keys[2], z.shape), "mean": q.mean()}
    if isinstance(q, distributions.Normal):
        terms["scale"] = q.scale
        rate = q.kl_terms(model.prior(params, len(x)))
        if rate is not NotImplemented:
            terms["rate"] = rate
    return terms
