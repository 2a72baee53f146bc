"""Whether single dimensions of a code stand for single known factors: scores of codes `[N, L]` and factors `[N, F]`.

| score | what it asks | perfect codes | chance |
| --- | --- | --- | --- |
| `mig` | how much more the best dimension tells of a factor than the second best | 1 | about 0 |
| `dci`, disentanglement | whether a dimension is of use for one factor alone | 1 | about 0 |
| `dci`, completeness | whether one dimension alone is of use for a factor | 1 | about 0 |
| `dci`, informativeness | how well all dimensions together predict a factor | 1 | 0 |
| `sap` | how much better the best dimension alone predicts a factor than the second best | 1 | about 0 |
| `factor_vae_score` | whether the dimension that varies least says which factor was held | 1 | 1 / F |
| `modularity` | whether a dimension tells of one factor alone | 1 | not 0: of noise, too, one factor is told most of |

Codes are perfect where each factor has a dimension that is a linear function of it, and no other. What a score is of
codes that tell nothing depends on the numbers of examples, dimensions and values: `of_model` gives it beside the score.
A factor that takes one value only has nothing to be told, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from aevae_jax.conditions import Conditioned
from aevae_jax.data.datasets import Source
from aevae_jax.evaluation import metrics, statistics
from aevae_jax.types import InputError, LatentModel, Params, Scaled

BINS = 20
"""How many bins of equal width the values of a dimension are counted in; Locatello et al. 2019. Factors of more values
than bins cannot be told apart wholly: the gap of perfect codes is then about log(bins) / log(values)."""

TREES = 50
"""How many trees each forest that predicts a factor has."""

VOTES, HELD = 800, 64
"""How many votes train the majority vote, and as many judge it; of how many examples each is. Kim & Mnih 2018."""


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness, 0 to 1. Eastwood & Williams 2018."""

    disentanglement: float
    completeness: float
    informativeness: float


class Score(NamedTuple):
    """A score, and what it is of the same codes where the factors are those of other examples."""

    value: float
    chance: float


def of_model(
    model: LatentModel,
    params: Params,
    x: Array | Source | Conditioned,
    factors: np.ndarray | None,
    key: Array,
    *,
    ordered: Sequence[bool] = (),
) -> dict[str, Score]:
    """Return all scores of a model's codes at the mean of q(z|x).

    A dimension whose means have less than 1 % of the variance of its codes does not react to the data
    (`latents.describe`) and is taken for constant.

    Args:
      model, params: any latent model whose codes are one array, a vector or a map of them.
      x: data as the model sees it, `[N, *event]`, or `Conditioned`.
      factors: what each example was made of, `[N, F]`; `None` where that is not known.
      key: of forests, of votes, and of what chance is.
      ordered: of each factor whether its values lie on a line; all of them, where it is left out.

    Raises:
      InputError: the factors are not known, or are not those of `x`.
    """
    factors = check_known(factors)
    key_codes, key_seed = jax.random.split(key)
    found = metrics.per_example(_codes, model, params, x, key_codes)
    mean, variance = (found[name].reshape(len(x), -1).astype(np.float64) for name in ("mean", "variance"))
    of_means = mean.var(axis=0)
    reacts = statistics.active_units(mean, 0.01 * (of_means + variance.mean(axis=0)))
    codes = np.where(reacts, mean, 0.0)
    seed = int(jax.random.randint(key_seed, (), 0, 2**31 - 1))
    others = np.random.default_rng(seed).permutation(len(codes))
    true, shuffled = (scores(codes, rows, ordered=ordered, seed=seed) for rows in (factors, factors[others]))
    return {name: Score(value, shuffled[name]) for name, value in true.items()}


def check_known(factors: np.ndarray | None, where: str = "") -> np.ndarray:
    """Return the factors that are known, if they are.

    Args:
      factors: of a split, `[N, F]`, or `None`.
      where: the name of the data, for the message.

    Raises:
      InputError: they are not.
    """
    if factors is None:
        hint = "--data sprites has some; from Python, give from_arrays(x, factors={...})"
        expected = "those that each example was made of"
        raise InputError("factors of the data", where=where, got="none that are known", expected=expected, hint=hint)
    return factors


def scores(codes: np.ndarray, factors: np.ndarray, *, ordered: Sequence[bool] = (), seed: int = 0) -> dict[str, float]:
    """Return every score of this file by its name; arguments as in `dci`."""
    parts = dci(codes, factors, ordered=ordered, seed=seed)
    return {
        "mig": mig(codes, factors),
        **{f"dci_{name}": value for name, value in parts._asdict().items()},
        "sap": sap(codes, factors, ordered=ordered, seed=seed),
        "factor_vae_score": factor_vae_score(codes, factors, seed=seed),
        "modularity": modularity(codes, factors),
    }


def mutual_information(codes: np.ndarray, factors: np.ndarray, *, bins: int = BINS) -> np.ndarray:
    """Return I(z_l; v_f) in nats, `[L, F]`, of codes counted in `bins` of equal width.

    It is that of the table of counts, which exceeds the true one by about (bins - 1)(values - 1) / 2N.

    Args:
      codes: `[N, L]`.
      factors: the numbers of their values, `[N, F]`.
      bins: between the least and the largest code of each dimension.
    """
    codes, factors, _ = _checked(codes, factors)
    low = codes.min(axis=0)
    width = codes.max(axis=0) - low
    binned = np.minimum((codes - low) / np.where(width > 0, width, 1.0) * bins, bins - 1).astype(int)
    return np.array([[_information(z, v) for v in factors.T] for z in binned.T])


def mig(codes: np.ndarray, factors: np.ndarray, *, bins: int = BINS) -> float:
    """Return the mutual information gap: the mean over factors of (I(z_1; v) - I(z_2; v)) / H(v), of the two dimensions
    that tell most of it. Chen, Li, Grosse & Duvenaud 2018, equation 6; of one dimension, the second one tells nothing.
    """
    codes, factors, _ = _checked(codes, factors)
    told = np.sort(np.pad(mutual_information(codes, factors, bins=bins), ((1, 0), (0, 0))), axis=0)
    entropy = np.array([_information(v, v) for v in factors.T])
    return float(((told[-1] - told[-2]) / entropy).mean())


def modularity(codes: np.ndarray, factors: np.ndarray, *, bins: int = BINS) -> float:
    """Return the mean over dimensions of 1 - sum_f' I(z; v_f')^2 / ((F - 1) I(z; v_f)^2), f the factor that it tells
    most of and f' the others. Ridgeway & Mozer 2018, section 3; dimensions that tell nothing at all are left out.

    Raises:
      InputError: there is one factor, of which every code is modular.
    """
    codes, factors, _ = _checked(codes, factors)
    if factors.shape[1] < 2:
        raise InputError("modularity", got="one factor that varies", expected="at least 2")
    told = mutual_information(codes, factors, bins=bins)
    told = told[told.max(axis=1) > 1e-9]  # less is rounding
    if not len(told):
        return 0.0
    share = (told / told.max(axis=1, keepdims=True)) ** 2
    return float((1 - (share.sum(axis=1) - 1) / (factors.shape[1] - 1)).mean())


def sap(codes: np.ndarray, factors: np.ndarray, *, ordered: Sequence[bool] = (), seed: int = 0) -> float:
    """Return the separated attribute predictability: the mean over factors of how much better the best dimension alone
    predicts it than the second best. Kumar, Sattigeri & Balakrishnan 2018, section 3.1.

    Of ordered values that is the squared correlation; of others the balanced accuracy of thresholds, on those examples
    of which a random half did not fit them, and here above chance: 1 / values is 0.

    Args:
      codes, factors, ordered, seed: as in `dci`.
    """
    codes, factors, on_line = _checked(codes, factors, ordered)
    train, test = _halves(len(codes), seed)
    predicted = np.zeros((codes.shape[1] + 1, factors.shape[1]))  # the last one predicts nothing
    for f, v in enumerate(factors.T):
        for number, z in enumerate(codes.T):
            predicted[number, f] = _correlation(z, v) if on_line[f] else _separated(z, v, train, test)
    best = np.sort(predicted, axis=0)
    return float((best[-1] - best[-2]).mean())


def dci(codes: np.ndarray, factors: np.ndarray, *, ordered: Sequence[bool] = (), seed: int = 0) -> DCI:
    """Return disentanglement, completeness and informativeness by random forests. Eastwood & Williams 2018, section 2.

    With R_lf the importance of dimension l in predicting factor f, disentanglement is 1 less the entropy over factors
    of R_l, to the base F, weighed by the importance of l; completeness 1 less that over dimensions of R_f, to the base
    L, and so 1 of a single dimension. Informativeness is the share of the variance that is predicted of ordered values,
    and of others the balanced accuracy above chance, of a random half of the examples that fitted nothing.

    Args:
      codes: `[N, L]`.
      factors: the numbers of their values, `[N, F]`.
      ordered: of each factor whether its values lie on a line; all of them, where it is left out.
      seed: of the forests and the halves.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.metrics import balanced_accuracy_score, r2_score

    codes, factors, on_line = _checked(codes, factors, ordered)
    train, test = _halves(len(codes), seed)
    importance = np.zeros((codes.shape[1], factors.shape[1]))
    informed = []
    for f, v in enumerate(factors.T):
        forest = RandomForestRegressor if on_line[f] else partial(RandomForestClassifier, max_features=None)
        fitted = forest(TREES, random_state=seed).fit(codes[train], v[train])
        importance[:, f] = fitted.feature_importances_
        said = fitted.predict(codes[test])
        if on_line[f]:
            informed.append(max(0.0, r2_score(v[test], said)))
        else:
            informed.append(_above_chance(balanced_accuracy_score(v[test], said), v[test]))
    by_dimension = importance.sum(axis=1)
    weights = by_dimension / max(by_dimension.sum(), 1e-300)
    return DCI(
        float(weights @ (1 - _entropies(importance))),
        float((1 - _entropies(importance.T)).mean()),
        float(np.mean(informed)),
    )


def factor_vae_score(codes: np.ndarray, factors: np.ndarray, *, seed: int = 0) -> float:
    """Return how often the dimension that varies least says which factor was held. Kim & Mnih 2018, section 4.

    A vote is of examples that have one factor in common, drawn with replacement: the dimension whose variance among
    them, as a share of that among all, is least. A majority of votes says which factor each dimension stands for, and
    as many other votes judge that. Dimensions that are constant have no vote.

    Args:
      codes: `[N, L]`.
      factors: the numbers of their values, `[N, F]`.
      seed: of the votes.
    """
    codes, factors, _ = _checked(codes, factors)
    rng, count = np.random.default_rng(seed), factors.shape[1]
    held = rng.integers(count, size=2 * VOTES)
    spread = codes.var(axis=0)
    varies = spread > 0
    if not varies.any():
        return 1 / count
    vote = np.empty(len(held), int)
    for i, f in enumerate(held):
        value = factors[rng.integers(len(factors)), f]
        own = rng.choice(np.flatnonzero(factors[:, f] == value), HELD)
        vote[i] = np.argmin(codes[own][:, varies].var(axis=0) / spread[varies])
    votes = np.zeros((int(varies.sum()), count), int)
    np.add.at(votes, (vote[:VOTES], held[:VOTES]), 1)
    return float((votes.argmax(axis=1)[vote[VOTES:]] == held[VOTES:]).mean())


# ---------------------------------------------------------------------------------------------------------- their parts


def _codes(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    """Return the mean and the variance of q(z|x); half the squared difference of two draws where it has no scale."""
    q = model.encode(params, x)
    if isinstance(q, Scaled):
        return {"mean": q.mean(), "variance": jnp.broadcast_to(q.scale**2, q.mean().shape)}
    one, other = (q.sample(k) for k in jax.random.split(key))
    return {"mean": q.mean(), "variance": (one - other) ** 2 / 2}


def _checked(
    codes: np.ndarray, factors: np.ndarray, ordered: Sequence[bool] = ()
) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Return codes in float64, the factors that vary as numbers 0, 1, ..., and which of these are ordered."""
    codes, factors = np.asarray(codes, np.float64), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or len(codes) < 4 or not codes.shape[1]:
        got = f"shapes {codes.shape} and {factors.shape}"
        raise InputError("codes and factors", got=got, expected="[N, L] and [N, F], N >= 4")
    if not np.isfinite(codes).all():
        raise InputError("codes", got="NaN or infinity", expected="finite numbers")
    if len(ordered) not in (0, factors.shape[1]):
        raise InputError("ordered", got=f"{len(ordered)} entries", expected=f"{factors.shape[1]}, one of each factor")
    numbers = [np.unique(v, return_inverse=True)[1].reshape(-1) for v in factors.T]
    varied = [f for f, v in enumerate(numbers) if v.any()]
    if not varied:
        raise InputError("factors", got="none that varies", expected="at least one of two values")
    on_line = [bool(ordered[f]) if len(ordered) else True for f in varied]
    return codes, np.stack([numbers[f] for f in varied], axis=1), on_line


def _information(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mutual information of two lists of numbers `[N]` in nats; of a list with itself, its entropy."""
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1 / len(a))
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0
    return max(0.0, float((joint[there] * np.log(joint[there] / product[there])).sum()))


def _correlation(z: np.ndarray, v: np.ndarray) -> float:
    """Return the squared correlation; 0 where one does not vary."""
    z, v = z - z.mean(), v - v.mean()
    scale = (z @ z) * (v @ v)
    return float((z @ v) ** 2 / scale) if scale > 0 else 0.0


def _separated(z: np.ndarray, v: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Return the balanced accuracy above chance, on `test`, of as many intervals as there are values."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=v.max() + 1, class_weight="balanced", random_state=0)
    said = tree.fit(z[train, None], v[train]).predict(z[test, None])
    return _above_chance(balanced_accuracy_score(v[test], said), v[test])


def _above_chance(accuracy: float, v: np.ndarray) -> float:
    chance = 1 / max(2, len(np.unique(v)))
    return max(0.0, (accuracy - chance) / (1 - chance))


def _halves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 2], order[count // 2 :]


def _entropies(importance: np.ndarray) -> np.ndarray:
    """Return the entropy of each row to the base of its length; 0 of a row of one, 1 of a row of zeros."""
    total = importance.sum(axis=1, keepdims=True)
    share = np.where(total > 0, importance / np.where(total > 0, total, 1.0), 1 / importance.shape[1])
    logs = np.log(np.where(share > 0, share, 1.0))
    return -(share * logs).sum(axis=1) / np.log(max(2, importance.shape[1]))
