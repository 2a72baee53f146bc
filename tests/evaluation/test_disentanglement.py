"""Scores of codes by known factors: their values where these are known, and what leaves them as they are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aevae_jax import distributions
from aevae_jax.conditions import Conditioned, Given
from aevae_jax.evaluation import disentanglement
from aevae_jax.evaluation.disentanglement import dci, factor_vae_score, mig, modularity, mutual_information, sap, scores
from aevae_jax.types import InputError

GRID = np.array(list(product(range(4), range(4), range(4))) * 3)
"""All combinations of three factors of four values, three times: `[192, 3]`."""

PERFECT = GRID * np.array([1.0, -3.0, 0.1]) + 5
"""Each factor by a dimension of its own, in other units."""

NOISE = np.random.default_rng(0).normal(size=(len(GRID), 3))


def test_perfect_codes_score_one():  # mistake 27
    """Of factors whose values are independent in the data, with dimensions beside them that tell nothing."""
    codes = np.concatenate([np.zeros((len(GRID), 1)), PERFECT], axis=1)
    found = scores(codes, GRID, ordered=(True, False, True))
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=1e-6)
    told = mutual_information(PERFECT, GRID)
    np.testing.assert_allclose(told, np.log(4) * np.eye(3), atol=1e-12)


def test_noise_scores_what_chance_does():  # mistake 27
    """About 0, and 1 / F where one factor is guessed; of noise, one factor is told most of, so modularity is not 0."""
    many, few = np.random.default_rng(0).integers(4, size=(3000, 3)), np.random.default_rng(1).normal(size=(3000, 3))
    found = scores(few, many, ordered=(True, False, True))
    assert found.pop("factor_vae_score") == pytest.approx(1 / 3, abs=5 * (2 / 9 / 800) ** 0.5)
    assert found.pop("modularity") > 0.1
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=0.03)


def test_the_gap_is_of_the_two_dimensions_that_tell_most():
    """Half of what there is to know of the first factor, nothing of the second, and all of the third twice."""
    codes = np.stack([GRID[:, 0], GRID[:, 0] // 2, GRID[:, 2], -GRID[:, 2]], axis=1)
    assert mig(codes, GRID[:, :1]) == pytest.approx(0.5)
    assert mig(codes, GRID) == pytest.approx(0.5 / 3)
    assert mig(PERFECT[:, :1], GRID[:, :1]) == pytest.approx(1.0)


def test_the_gap_weighs_each_factor_by_what_there_is_to_know_of_it():
    """A quarter of all examples have the one value of a factor, of which ln 4 - 3/4 ln 3 nats are to be known."""
    rare = (GRID[:, 0] == 0).astype(int)
    codes = np.stack([GRID[:, 0], GRID[:, 0] % 2], axis=1)
    entropy = np.log(4) - 0.75 * np.log(3)
    joint = {(1, 0): 0.25, (0, 0): 0.25, (0, 1): 0.5}  # of the value, and of whether the code is odd
    told = sum(p * np.log(p / ((0.25, 0.75)[1 - v] * 0.5)) for (v, _), p in joint.items())
    assert mig(codes, rare[:, None]) == pytest.approx((entropy - told) / entropy)


def test_bins_merge_what_lies_between_their_edges():
    """Of 32 values, 20 bins leave twelve pairs: H = 8 values of 1/32 and 12 of 2/32."""
    v = np.arange(32)[:, None]
    merged = 8 / 32 * np.log(32) + 12 * 2 / 32 * np.log(16)
    assert mutual_information(v * 1.0, v)[0, 0] == pytest.approx(merged)
    assert mutual_information(v * 1.0, v, bins=32)[0, 0] == pytest.approx(np.log(32))


def test_modularity_is_of_what_a_dimension_tells_of_other_factors():
    one, two = GRID[:, :1], GRID[:, 1:2]
    both, half = one + 4 * two, one + 4 * (two // 2)
    pair = np.concatenate([one, two], axis=1)
    assert modularity(both, pair) == pytest.approx(0.0, abs=1e-9)
    assert modularity(half, pair) == pytest.approx(1 - 0.25)
    assert modularity(np.concatenate([half, 0 * half, one], axis=1), pair) == pytest.approx((0.75 + 1) / 2)
    assert modularity(0 * half, pair) == 0
    assert modularity(half, GRID) == pytest.approx(1 - 0.25 / 2)  # of the third factor it tells nothing
    with pytest.raises(InputError, match="modularity: got one factor that varies, expected at least 2"):
        modularity(half, np.concatenate([one, 0 * one], axis=1))


def test_predictability_is_the_gap_of_squared_correlations():
    codes = np.stack([GRID[:, 0] + GRID[:, 1], GRID[:, 1] + 0.5 * GRID[:, 0], NOISE[:, 0]], axis=1)
    found = [np.corrcoef(codes.T, GRID[:, f])[-1, :-1] ** 2 for f in (0, 1)]
    expected = [np.sort(each)[-1] - np.sort(each)[-2] for each in found]
    assert expected[0] == pytest.approx(0.5 - 0.2, abs=0.01)
    assert sap(codes, GRID[:, :2]) == pytest.approx(np.mean(expected))


def test_values_without_an_order_are_told_by_intervals():
    """A code with one value of a factor between two others has no correlation with it, and tells it wholly."""
    v = GRID[:, :1] % 3
    code = np.array([0.0, 2.0, 1.0])[v]
    assert sap(code, v, ordered=(False,)) == pytest.approx(1.0)
    assert sap(code, v) < 0.5
    assert sap((code > 0.5) * 1.0, v, ordered=(False,)) == pytest.approx((2 / 3 - 1 / 3) / (2 / 3), abs=0.01)


def test_importance_says_what_is_of_use_for_one_factor_and_what_is_of_use_alone():
    """A dimension for two factors is complete and not disentangled; two for one factor are the reverse."""
    one, two = GRID[:, :1], GRID[:, 1:2]
    pair = np.concatenate([one, two], axis=1)
    shared = dci(np.concatenate([one + 4 * two, np.zeros_like(one)], axis=1), pair)
    assert shared == pytest.approx((0.0, 1.0, 1.0), abs=0.01)
    twice = dci(np.concatenate([one, one, two], axis=1), pair)
    assert (twice.disentanglement, twice.informativeness) == pytest.approx((1.0, 1.0), abs=1e-6)
    assert twice.completeness == pytest.approx(1 - 0.5 * np.log(2) / np.log(3), abs=0.02)  # a coin says which is split
    alone = dci(np.concatenate([one, np.zeros_like(one)], axis=1), pair)
    assert alone.informativeness == pytest.approx(0.5, abs=0.02)


def test_a_held_factor_is_told_by_the_dimension_that_varies_least():
    codes = np.concatenate([PERFECT[:, :2], NOISE[:, :1], np.zeros((len(GRID), 1))], axis=1)
    assert factor_vae_score(codes, GRID[:, :2]) == 1.0
    assert factor_vae_score(np.zeros((len(GRID), 2)), GRID) == pytest.approx(1 / 3)
    mixed = np.stack([PERFECT[:, 0], GRID[:, 1] + GRID[:, 2]], axis=1)  # one dimension for two: half of their votes
    assert factor_vae_score(mixed, GRID) == pytest.approx(2 / 3, abs=0.05)


def test_neither_the_order_nor_the_units_of_dimensions_or_values_matter():
    rng = np.random.default_rng(0)
    codes = np.concatenate([PERFECT @ rng.normal(size=(3, 4)), NOISE], axis=1)
    ordered = (True, False, True)
    found = scores(codes, GRID, ordered=ordered)
    dimensions, rows, columns = rng.permutation(7), rng.permutation(len(GRID)), rng.permutation(3)
    others = scores(codes[:, dimensions] * 8.0 + 4, 7 - 2 * GRID, ordered=ordered)
    for name in ("mig", "sap", "factor_vae_score", "modularity"):
        assert others[name] == pytest.approx(found[name], abs=1e-9), name
    for name in ("dci_disentanglement", "dci_completeness", "dci_informativeness"):
        assert others[name] == pytest.approx(found[name], abs=0.03), name
    again = scores(codes[rows], GRID[rows][:, columns], ordered=np.take(ordered, columns))
    for name in ("mig", "modularity"):
        assert again[name] == pytest.approx(found[name], abs=1e-9), name
    assert found == scores(codes, GRID, ordered=ordered)


def test_a_factor_that_does_not_vary_is_left_out():
    constant = np.concatenate([np.full((len(GRID), 1), 7), GRID], axis=1)
    assert scores(PERFECT, constant, ordered=(True, True, False, True)) == scores(
        PERFECT, GRID, ordered=(True, False, True)
    )


@pytest.mark.parametrize(
    ("codes", "factors", "ordered", "message"),
    [
        (
            PERFECT[:5],
            GRID,
            (),
            "codes and factors: got shapes (5, 3) and (192, 3), expected [N, L] and [N, F], N >= 4",
        ),
        (
            PERFECT[:, 0],
            GRID,
            (),
            "codes and factors: got shapes (192,) and (192, 3), expected [N, L] and [N, F], N >= 4",
        ),
        (PERFECT * np.nan, GRID, (), "codes: got NaN or infinity, expected finite numbers"),
        (PERFECT, 0 * GRID, (), "factors: got none that varies, expected at least one of two values"),
        (PERFECT, GRID, (True,), "ordered: got 1 entries, expected 3, one of each factor"),
    ],
)
def test_what_cannot_be_scored_is_one_line(codes, factors, ordered, message):
    with pytest.raises(InputError) as error:
        dci(codes, factors, ordered=ordered)
    assert str(error.value) == message


@dataclass(frozen=True)
class Told:
    """A model whose code is its data in the first dimensions, with noise of scale 1 in all; points where it is 0."""

    noise: float = 1.0

    def init(self, key):
        return {}

    def encode(self, params, x):
        if self.noise == 0:
            return distributions.Delta(x)
        return distributions.Normal(x, jnp.full_like(x, jnp.log(self.noise)))

    def decode(self, params, z):
        return distributions.Normal(z, jnp.zeros_like(z))

    def prior(self, params, n):
        return distributions.Normal(jnp.zeros((n, 4)), jnp.zeros((n, 4)))


@pytest.mark.parametrize("noise", [1.0, 0.0])
def test_a_model_is_scored_by_its_means_where_they_react_to_the_data(noise):
    """A dimension that tells a factor by less than its noise shows tells nothing; that of points has no noise."""
    x = np.concatenate([PERFECT * np.array([2.0, 1.0, 20.0]), 0.02 * GRID[:, :1]], axis=1).astype(np.float32)
    found = disentanglement.of_model(Told(noise), {}, x, GRID, jax.random.key(0))
    assert found["mig"].value == pytest.approx(1.0 if noise else 2 / 3, abs=1e-6)
    assert found["sap"].value == pytest.approx(1.0 if noise else 2 / 3, abs=1e-6)
    assert found["dci_informativeness"].value == pytest.approx(1.0)
    assert set(found) == set(scores(x, GRID))
    for name in ("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness", "sap"):
        assert found[name].chance < 0.3, name
    assert found["factor_vae_score"].chance == pytest.approx(1 / 3, abs=0.1)


@dataclass(frozen=True)
class Shifted(Told):
    """The same, whose code has another mean where it is told a class: less by the class in the first dimension."""

    def encode(self, params, x, condition=None):
        moved = jnp.zeros_like(x) if condition is None else jnp.pad(condition[:, None] * 1.0, ((0, 0), (0, 3)))
        return super().encode(params, x - moved)

    def given(self, condition):
        return Given(self, condition)


def test_a_model_is_scored_at_what_it_is_told_of_each_example():
    """Told the first factor, it takes that out of its code, which then tells nothing of it."""
    x = np.concatenate([GRID * 5.0, np.zeros((len(GRID), 1))], axis=1).astype(np.float32)
    told = Conditioned(x, 5 * GRID[:, 0].astype(np.int32))
    found = [disentanglement.of_model(Shifted(), {}, rows, GRID, jax.random.key(0))["mig"].value for rows in (x, told)]
    assert found == pytest.approx([1.0, 2 / 3], abs=1e-6)


def test_a_model_without_factors_is_one_line():
    with pytest.raises(
        InputError, match="factors of the data: got none that are known, expected those that each"
    ) as error:
        disentanglement.of_model(Told(), {}, PERFECT, None, jax.random.key(0))
    assert len(str(error.value)) <= 200
