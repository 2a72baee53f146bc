"""Figures of unlike protocols have no order."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from aevae_jax.evaluation.estimates import EvaluationProtocol, Result, difference, rank
from aevae_jax.types import InputError

PROTOCOL = EvaluationProtocol(
    "negative log likelihood", "importance sampling", 100, "digits", "test", "Scale()", 4, "ab" * 32, "mass"
)


def result(name, values, **changes):
    return Result(name, np.asarray(values, np.float32), replace(PROTOCOL, **changes))


def test_paired_differences_are_surer_than_the_figures():
    values = np.random.default_rng(0).normal(100, 20, size=500)
    a, b = result("a", values), result("b", values + np.random.default_rng(1).normal(0.5, 1, size=500))
    found = difference(b, a)
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.1 * (a.interval.high - a.interval.low)
    assert found.low > 0
    assert [f.name for f in rank([b, a])] == ["a", "b"]


def test_a_figure_is_a_mean_with_its_error():
    """In float64, though values are float32: the sum of these has no units in it. The interval is Student's."""
    one = result("a", np.array([1, 2, 3, 4]) + 2**23)
    assert one.mean == 2**23 + 2.5
    assert one.standard_error == pytest.approx((5 / 12) ** 0.5, rel=1e-9)
    assert one.interval == pytest.approx((2**23 + 2.5, 2**23 + 2.5 - 2.05426, 2**23 + 2.5 + 2.05426), rel=1e-12)
    assert difference(one, result("b", 4 * [0.25])).mean == 2**23 + 2.25
    assert difference(result("c", [1, 2, 3, 4]), result("d", [1, 1, 1, 1])) == pytest.approx(
        (1.5, 1.5 - 2.05426, 1.5 + 2.05426), rel=1e-5
    )


def test_any_number_of_figures_has_an_order():
    results = [result(name, [value] * 4) for name, value in (("c", -1), ("a", 3), ("d", 2), ("b", 4))]
    assert [f.name for f in rank(results)] == ["c", "d", "a", "b"]
    assert rank([]) == []
    with pytest.raises(InputError, match=r"\(c and e\): got some which differ in split 'test' and 'train'; "):
        rank([*results, result("e", [0] * 4, split="train", examples=3)])


@pytest.mark.parametrize(
    "changes",
    [
        {"num_samples": 5000},
        {"split": "validation"},
        {"preparation": "DynamicBinarization()"},
        {"data": "mnist"},
        {"unit": "bits/dimension"},
        {"sha256": "cd" * 32},
        {"estimator": "annealed importance sampling"},
        {"examples": 3},
        {"quantity": "negative ELBO"},
        {"measure": "density"},
    ],
)
def test_each_field_of_a_protocol_keeps_figures_apart(changes):  # mistakes 9, 19 and 36
    a, b = result("mine", [1, 2, 3, 4]), result("theirs", [1, 2, 3, 4], **changes)
    name, value = next(iter(changes.items()))
    for refused in (lambda: difference(a, b), lambda: rank([a, b])):
        with pytest.raises(
            InputError, match=rf"\(mine and theirs\): got some which differ in {name} .*and {re.escape(repr(value))}"
        ):
            refused()


def test_as_many_values_are_needed():
    with pytest.raises(InputError, match="the number of values"):
        difference(result("a", [1, 2, 3, 4]), result("b", [1, 2, 3]))


def test_a_protocol_is_said_in_a_line():
    assert str(PROTOCOL) == (
        "negative log likelihood (mass) in nats/example by importance sampling, 100 samples per example; digits test, "
        "4 examples, Scale(), sha256 abababababab"
    )
    for num_samples, words in ((0, ""), (1, ", 1 sample"), (5000, ", 5,000 samples")):
        said = str(replace(PROTOCOL, num_samples=num_samples, examples=10_000, unit="bits/dimension"))
        assert said.startswith(
            f"negative log likelihood (mass) in bits/dimension by importance sampling{words} per example; digits test, "
            "10,000 examples, Scale()"
        )
