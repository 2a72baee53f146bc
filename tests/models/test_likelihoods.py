"""Likelihoods as values: the distribution that each makes of raw outputs, and the data that each accepts."""

from __future__ import annotations

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import LOG_2PI, log_prob, mean, sample
from scipy import special, stats

from aevae_jax.distributions import elementary, interlaced, logistic, tabular
from aevae_jax.models import likelihoods
from aevae_jax.types import Distribution, InputError

EVENT = (2, 3, 1)
INTERLACED = likelihoods.InterlacedLogisticMixture
ALL = [cls() for cls in typing.get_args(likelihoods.Likelihood) if cls not in (likelihoods.Tabular, INTERLACED)]
"""Those of independent pixels; that of tables is in test_tabular.py, that of neighbours in test_interlaced.py, too."""
GRIDS = [value for value in ALL if value.support.levels == 256]
each = pytest.mark.parametrize("likelihood", ALL, ids=lambda value: type(value).__name__)
of_images = pytest.mark.parametrize("likelihood", [*ALL, INTERLACED()], ids=lambda value: type(value).__name__)


def raw_outputs(likelihood, batch: int = 4, scale: float = 1.0) -> jax.Array:
    shape = (batch, *EVENT, likelihood.outputs)
    return jnp.asarray(np.random.default_rng(0).normal(scale=scale, size=shape), jnp.float32)


def support_values(likelihood, *shape: int) -> np.ndarray:
    """Data that the likelihood accepts."""
    uniform = np.random.default_rng(1).uniform(size=shape).astype(np.float32)
    levels = likelihood.support.levels
    return uniform if levels is None else np.rint(uniform * (levels - 1)).astype(np.float32) / np.float32(levels - 1)


@each
def test_raw_outputs_make_a_distribution_over_the_event(likelihood):
    q = likelihood(likelihood.init(), raw_outputs(likelihood))
    x = support_values(likelihood, 4, *EVENT)
    assert isinstance(q, Distribution)
    assert mean(q).shape == (4, *EVENT)
    assert log_prob(q, x).shape == (4,)
    assert np.isfinite(log_prob(q, x)).all()
    assert all(leaf.shape[0] == 4 for leaf in jax.tree.leaves(q))


@of_images
def test_its_own_samples_lie_in_its_support(likelihood):  # mistake 13, mistake 37
    draws = np.asarray(sample(likelihood(likelihood.init(), raw_outputs(likelihood)), jax.random.key(0)))
    assert draws.shape == (4, *EVENT)
    likelihood.support.check(draws, "samples")
    if likelihood.support.levels == 256:
        scaled = draws * 255
        assert np.abs(scaled - np.rint(scaled).astype(np.uint8)).max() < 1e-4


@of_images
def test_its_mean_lies_in_the_range_of_the_data(likelihood):  # mistake 13
    q = likelihood(likelihood.init(), raw_outputs(likelihood, scale=10))
    assert (mean(q) >= likelihood.support.low - 1e-6).all()
    assert (mean(q) <= likelihood.support.high + 1e-6).all()


@of_images
def test_extreme_outputs_give_finite_values_and_gradients(likelihood):  # mistake 10, mistake 11, mistake 14
    raw = 1e4 * jnp.sign(raw_outputs(likelihood, batch=16))
    x = jnp.asarray(support_values(likelihood, 16, *EVENT))
    both = jax.jit(jax.value_and_grad(lambda p, r: likelihood(p, r).log_prob(x).sum(), argnums=(0, 1)))
    for extreme in (-1e4, 1e4):
        params = jax.tree.map(lambda leaf, extreme=extreme: jnp.full_like(leaf, extreme), likelihood.init())
        value, gradient = both(params, raw)
        assert np.isfinite(value)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradient))


@each
def test_every_output_and_parameter_has_a_gradient(likelihood):  # mistake 28
    x = jnp.asarray(support_values(likelihood, 4, *EVENT))
    gradient = jax.jit(jax.grad(lambda p, r: likelihood(p, r).log_prob(x).sum(), argnums=(0, 1)))(
        likelihood.init(), raw_outputs(likelihood)
    )
    per_output = np.abs(gradient[1]).reshape(-1, likelihood.outputs).max(axis=0)
    assert (per_output > 0).all()
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(gradient[0]))


# --- one by one ---


def one_pixel(likelihood, *outputs: float) -> Distribution:
    return likelihood(likelihood.init(), jnp.asarray(outputs)[None, None])


def test_normal_has_its_fixed_scale():  # mistake 36
    q = one_pixel(likelihoods.Normal(0.3), 0.7)
    expected = stats.norm(0.7, 0.3).logpdf(0.1)
    np.testing.assert_allclose(q.log_prob(jnp.full((1, 1), 0.1)), [expected], rtol=1e-5)


def test_normal_of_scale_one_is_half_the_squared_error_plus_its_constant():  # mistake 36
    raw, x = raw_outputs(likelihoods.Normal()), jnp.asarray(support_values(likelihoods.Normal(), 4, *EVENT))
    squares = ((np.asarray(raw[..., 0], np.float64) - np.asarray(x)) ** 2).sum(axis=(1, 2, 3))
    ours = -log_prob(likelihoods.Normal()({}, raw), x)
    np.testing.assert_allclose(ours, squares / 2 + 6 / 2 * LOG_2PI, rtol=1e-5)


def test_element_scale_is_bounded_by_the_range():  # mistake 14
    low, high = likelihoods.SCALE_RANGE
    scales = [float(one_pixel(likelihoods.NormalElementScale(), 0.0, raw).log_scale[0, 0]) for raw in (-1e6, -2.5, 1e6)]
    np.testing.assert_allclose(scales, [low, (low + high) / 2, high], atol=1e-4)


@pytest.mark.parametrize("scale", [0.01, 0.25, 5.0])
def test_shared_scale_starts_where_it_says_and_is_shared(scale):
    likelihood = likelihoods.NormalSharedScale(initial_scale=scale)
    q = likelihood(likelihood.init(), raw_outputs(likelihood))
    np.testing.assert_allclose(q.scale, scale, rtol=1e-5)
    moved = likelihood(jax.tree.map(lambda leaf: leaf + 1, likelihood.init()), raw_outputs(likelihood))
    assert len(np.unique(moved.scale)) == 1
    assert (moved.scale > q.scale).all()


def test_bernoulli_takes_raw_outputs_as_log_odds():  # mistake 12
    """One sigmoid between the network and the probability: shifting the output shifts the log-odds by as much."""
    for shift in (0.0, 1.5):
        probability = one_pixel(likelihoods.Bernoulli(), 0.4 + shift).mean()
        np.testing.assert_allclose(special.logit(np.asarray(probability, np.float64)), 0.4 + shift, atol=1e-5)


def test_mixture_centres_start_spread_over_the_range():
    q = likelihoods.DiscretizedLogisticMixture(components=4)
    loc = q({}, jnp.zeros((1, 1, 12))).loc
    np.testing.assert_allclose(loc[0, 0], [0.125, 0.375, 0.625, 0.875], rtol=1e-6)


@pytest.mark.parametrize("likelihood", GRIDS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("levels", [2, 17])
def test_levels_reach_the_distribution(likelihood, levels):  # mistake 37
    other = type(likelihood)(levels=levels)
    q = other({}, jnp.ones((1, 1, other.outputs)))
    assert q.levels == levels
    grid = jnp.arange(levels)[:, None] / (levels - 1)
    mass = jnp.exp(log_prob(jax.tree.map(lambda leaf: jnp.repeat(leaf, levels, axis=0), q), grid))
    np.testing.assert_allclose(mass.sum(), 1.0, atol=1e-5)


# --- supports ---

GREY = np.asarray([0.0, 0.25, 1.0], np.float32)
BITS = np.asarray([0.0, 1.0, 1.0], np.float32)


@each
def test_accepts_data_of_its_support(likelihood):  # mistake 13
    likelihood.support.check(support_values(likelihood, 10, 4), "data")
    likelihood.support.check(BITS, "data")


@each
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_no_number(likelihood, bad):  # mistake 13
    with pytest.raises(InputError, match=r"data: got 1 values that are NaN or infinite") as error:
        likelihood.support.check(np.asarray([0.0, bad, 1.0]), "data")
    assert "\n" not in str(error.value)


@each
@pytest.mark.parametrize("bad", [-0.5, 1.5, 255.0])
def test_refuses_data_outside_its_interval(likelihood, bad):  # mistake 13
    x = np.asarray([0.0, bad, 1.0], np.float32)
    if likelihood.support == likelihoods.REAL:
        likelihood.support.check(x, "data")
        return
    with pytest.raises(InputError, match=f"data: got {bad:g} ") as error:
        likelihood.support.check(x, "data")
    assert "\n" not in str(error.value)


def test_bernoulli_refuses_grey_levels():  # mistake 9
    """The cross-entropy of grey levels is no likelihood; the density behind it is the continuous Bernoulli."""
    with pytest.raises(InputError, match=r"got 0.25 .*expected 0 or 1"):
        likelihoods.Bernoulli().support.check(GREY, "data")
    likelihoods.ContinuousBernoulli().support.check(GREY, "data")


@pytest.mark.parametrize("likelihood", GRIDS, ids=lambda value: type(value).__name__)
def test_grids_refuse_values_between_their_levels(likelihood):  # mistake 13
    likelihood.support.check(np.arange(256, dtype=np.float32) / np.float32(255), "data")
    with pytest.raises(InputError, match="256 levels"):
        likelihood.support.check(np.float32([0.5 / 255]), "data")
    sixteenths = np.arange(17, dtype=np.float32) / np.float32(16)
    with pytest.raises(InputError, match="256 levels"):
        likelihood.support.check(sixteenths, "data")
    type(likelihood)(levels=17).support.check(sixteenths, "data")


@pytest.mark.parametrize(
    "make",
    [
        lambda: likelihoods.Normal(0.0),
        lambda: likelihoods.Normal(-1.0),
        lambda: likelihoods.Normal(float("nan")),
        lambda: likelihoods.Normal(float("inf")),
        lambda: likelihoods.NormalSharedScale(0.0),
        lambda: likelihoods.NormalSharedScale(100.0),
        lambda: likelihoods.Categorical(levels=1),
        lambda: likelihoods.DiscretizedLogistic(levels=0),
        lambda: likelihoods.DiscretizedLogisticMixture(levels=1),
        lambda: likelihoods.DiscretizedLogisticMixture(components=0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(InputError, match=r"got .*, expected") as error:
        make()
    assert "\n" not in str(error.value)


def test_every_exported_likelihood_can_be_named_by_a_run():
    public = {cls for name, cls in vars(likelihoods).items() if hasattr(cls, "outputs") and not name.startswith("_")}
    assert public == set(typing.get_args(likelihoods.Likelihood))
    named = {**vars(elementary), **vars(interlaced), **vars(logistic), **vars(tabular)}
    own = {cls for cls in public if not cls.__name__.startswith("Normal")} - {likelihoods.FromData}
    assert all(cls.__name__ in named for cls in own)


def test_discretised_logistics_start_in_the_middle_and_a_seventh_wide():
    """Raw outputs of 0, as fresh networks give about: log scale -2, up to the curve that bounds it, and loc 0.5."""
    one = likelihoods.DiscretizedLogistic()({}, jnp.zeros((1, 1, 2)))
    np.testing.assert_allclose(np.asarray([one.loc, one.log_scale]).ravel(), [0.5, -2.0], atol=5e-3)
    mixture = likelihoods.DiscretizedLogisticMixture(256, 4)({}, jnp.zeros((1, 1, 12)))
    np.testing.assert_allclose(np.ravel(mixture.loc), [0.125, 0.375, 0.625, 0.875], atol=1e-6)
    np.testing.assert_allclose(np.ravel(mixture.log_scale), -2.0, atol=5e-3)


def test_levels_of_the_data_are_proposed_to_a_likelihood_of_others():
    with pytest.raises(InputError, match="type levels=3 in the likelihood"):
        likelihoods.Categorical().support.check(np.float32([0, 0.5, 1, 0.5]), "masks")
    with pytest.raises(InputError, match="choose another likelihood"):
        likelihoods.Categorical().support.check(np.float32([-0.5, 1.5, 2]) / 3.1, "floats")


def test_learned_log_scales_lie_between_minus_seven_and_two():
    assert likelihoods.SCALE_RANGE == (-7.0, 2.0)
    for likelihood in (likelihoods.NormalElementScale(), likelihoods.DiscretizedLogistic()):
        ends = [float(one_pixel(likelihood, 0.0, raw).log_scale[0, 0]) for raw in (-1e6, 1e6)]
        np.testing.assert_allclose(ends, [-7, 2], atol=1e-3)
    for scale, allowed in ((9.2e-4, True), (9.1e-4, False), (7.38, True), (7.4, False)):
        if allowed:
            assert likelihoods.NormalSharedScale(scale).initial_scale == scale
        else:
            with pytest.raises(InputError, match=r"initial_scale: got .*, expected between 0.00091 and 7.4"):
                likelihoods.NormalSharedScale(scale)


def test_outputs_of_a_mixture_are_its_weights_then_its_centres_then_its_scales():
    raw = jnp.asarray([0.1, -0.4, 0.3, -0.2, 0.7, -1.5])[None, None]
    q = likelihoods.DiscretizedLogisticMixture(17, 2)({}, raw)
    np.testing.assert_allclose(q.logits[0, 0], [0.1, -0.4], rtol=1e-6)
    np.testing.assert_allclose(q.loc[0, 0], [0.25 + 0.3, 0.75 - 0.2], rtol=1e-6)
    u = (np.asarray([0.7, -1.5]) - 2 + 2.5) / 4.5
    np.testing.assert_allclose(q.log_scale[0, 0], -2.5 + 4.5 * u / np.sqrt(1 + u**2), rtol=1e-5)


def test_supports_are_said_in_words():
    assert str(likelihoods.BINARY) == "0 or 1"
    assert str(likelihoods.UNIT_INTERVAL) == "numbers in [0, 1]"
    assert str(likelihoods.REAL) == "finite numbers"
    assert str(likelihoods.Categorical(17).support) == "the 17 levels k/16 of [0, 1]"


def test_what_each_can_score():
    assert {type(likelihood).__name__: str(likelihood.support) for likelihood in ALL} == {
        **dict.fromkeys(("Normal", "NormalElementScale", "NormalSharedScale", "NormalOptimalScale"), "finite numbers"),
        "FromData": "finite numbers",
        "Bernoulli": "0 or 1",
        "ContinuousBernoulli": "numbers in [0, 1]",
        **dict.fromkeys(
            ("Categorical", "DiscretizedLogistic", "DiscretizedLogisticMixture"), "the 256 levels k/255 of [0, 1]"
        ),
    }
    assert str(likelihoods.Tabular().support) == "finite numbers"
    likelihoods.REAL.check(np.float64([-1e300, 1e300]), "data")


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        (likelihoods.Bernoulli(), [0, 1, 0.25, 1], r"0.25 \(25 % .* outside\), expected 0 or 1, .*; choose another"),
        (likelihoods.Bernoulli(), [0, -1, 3, 1, 1, 1, 1, 1], r"got -1 \(25 % of the values are outside\)"),
        (likelihoods.ContinuousBernoulli(), [0.5, 1.25], r"got 1.25 \(50 % .* \[0, 1\], .*; choose another"),
        (likelihoods.Categorical(17), [0, 1 / 255, 1, 128 / 255], "got 0.00392157 .*; type levels=256 in the like"),
        (likelihoods.Categorical(17), [0, 1 / 256, 1], "; choose another likelihood, or a preparation such as Dyn"),
        (likelihoods.DiscretizedLogistic(), [0, 0.5, 1.5], "; choose another likelihood"),
        (likelihoods.Categorical(256), [0, 7.01 / 255, 1], r"got 0.0274902 \(33 % "),
        (
            likelihoods.Normal(),
            [0, np.nan, np.inf, 1],
            "data: got 2 values that are NaN or infinite, expected finite n",
        ),
    ],
    ids=range(8),
)
def test_what_lies_outside_a_support_is_counted_and_something_is_proposed(likelihood, x, message):
    with pytest.raises(InputError, match=message):
        likelihood.support.check(np.float32(x), "data")


def test_rounding_is_no_reason_to_refuse_a_level():
    likelihoods.Categorical().support.check(np.float32([7.0005 / 255, 6.9995 / 255]), "data")


def test_as_many_levels_as_16_bits_have_can_be_scored():
    assert likelihoods.Categorical(2).outputs == 2
    assert likelihoods.Categorical(2**16).outputs == 65536
    with pytest.raises(InputError, match="levels: got 65537, expected 2 to 65536"):
        likelihoods.Categorical(2**16 + 1)
    with pytest.raises(InputError, match=r"^components: got 0, expected at least 1"):
        likelihoods.DiscretizedLogisticMixture(components=0)
    with pytest.raises(InputError, match=r"^Normal scale: got 0\.0, expected a positive number"):
        likelihoods.Normal(0.0)
