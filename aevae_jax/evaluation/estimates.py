"""Figures that carry their protocol. Those of different protocols are never ranked, nor subtracted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aevae_jax.evaluation import statistics
from aevae_jax.evaluation.statistics import Interval
from aevae_jax.types import InputError


@dataclass(frozen=True)
class EvaluationProtocol:
    """What a figure is a figure of. Two figures can be compared if and only if these are equal.

    Args:
      quantity: what is measured, for example "negative log likelihood".
      estimator: how, for example "importance sampling from q(z|x)".
      num_samples: latent samples per example, 0 where there are none.
      data: name of the data set.
      split: "train", "validation" or "test".
      preparation: as it is typed, for example "DynamicBinarization()"; bits of evaluation data are drawn once.
      examples: how many.
      sha256: of the evaluation data as the model sees it, and so in the units that a density is a density in.
      measure: the base measure, "density", "mass" or as `types.Measure` says: the log density of a grey level and the
        log probability of it have no order.
      unit: for example "nats/example".
    """

    quantity: str
    estimator: str
    num_samples: int
    data: str
    split: str
    preparation: str
    examples: int
    sha256: str
    measure: str
    unit: str = "nats/example"

    def __str__(self) -> str:
        samples = {0: "", 1: ", 1 sample"}.get(self.num_samples, f", {self.num_samples:,} samples")
        return (
            f"{self.quantity} ({self.measure}) in {self.unit} by {self.estimator}{samples} per example; "
            f"{self.data} {self.split}, {self.examples:,} examples, {self.preparation}, "
            f"sha256 {self.sha256[:12]}"
        )


@dataclass(frozen=True, eq=False)
class Result:
    """A mean over a data set, with what it is a mean of.

    Args:
      name: whose figure it is.
      values: of every example, `[N]`, in the order of the data set.
      protocol: what was measured.
    """

    name: str
    values: np.ndarray
    protocol: EvaluationProtocol

    @property
    def mean(self) -> float:
        """Over examples, in float64."""
        return float(np.mean(self.values, dtype=np.float64))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean as an estimate of that over the population the examples come from."""
        return statistics.standard_error(self.values)

    @property
    def interval(self) -> Interval:
        """The mean with its 95 % confidence interval for the population."""
        return statistics.interval(self.values)


def difference(one: Result, other: Result) -> Interval:
    """Return the mean of `one` - `other` over the same examples with its 95 % interval: much narrower than either one's
    own.

    Raises:
      InputError: the protocols differ.
    """
    _check(one, other)
    return statistics.interval(np.asarray(one.values, np.float64) - np.asarray(other.values, np.float64))


def rank(results: Sequence[Result]) -> list[Result]:
    """Return the figures in ascending order of their means.

    Raises:
      InputError: any two protocols differ.
    """
    for result in results[1:]:
        _check(results[0], result)
    return sorted(results, key=lambda result: result.mean)


def _check(one: Result, other: Result) -> None:
    a, b = one.protocol, other.protocol
    if a == b and len(one.values) == len(other.values):
        return
    found = [
        f"{field.name} {getattr(a, field.name)!r} and {getattr(b, field.name)!r}"
        for field in dataclasses.fields(EvaluationProtocol)
        if getattr(a, field.name) != getattr(b, field.name)
    ]
    raise InputError(
        "figures to compare",
        where=f"{one.name} and {other.name}",
        got=f"some which differ in {'; '.join(found) or 'the number of values'}",
        expected="one protocol",
        hint="measure both alike",
    )
