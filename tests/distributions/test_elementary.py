"""Every distribution against SciPy, quadrature and closed forms; samples against means; extremes."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import LOG_2PI, assert_distribution, assert_mean, kl, log_prob, mean, normal_kl, repeated, sample
from scipy import integrate, optimize, special, stats

from aevae_jax import distributions as d
from aevae_jax.distributions import joint
from aevae_jax.types import Distribution

B, EVENT = 3, (2, 2)
DRAWS = 10_000
LOW, HIGH = -7.0, 2.0
EXTREME = np.asarray([-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4], np.float32)[:, None]  # [7, 1]


def array(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=shape).astype(np.float32)


def full(value: float, *shape: int) -> np.ndarray:
    return np.full(shape, value, np.float32)


def grid(levels: int) -> np.ndarray:
    """All the values of an element, as a batch `[levels, 1]`."""
    return (np.arange(levels, dtype=np.float32) / np.float32(levels - 1))[:, None]


def f64(x: object) -> np.ndarray:
    return np.asarray(x, np.float64)


EXAMPLES = {
    "Delta": d.Delta(array(0, B, *EVENT)),
    "Normal": d.Normal(array(0, B, *EVENT), array(1, B, *EVENT, scale=0.5)),
    "NormalOptimalScale": d.NormalOptimalScale(array(0, B, *EVENT), min_scale=0.2),
    "Bernoulli": d.Bernoulli(array(0, B, *EVENT, scale=2)),
    "ContinuousBernoulli": d.ContinuousBernoulli(array(0, B, *EVENT, scale=4)),
    "Categorical": d.Categorical(array(0, B, *EVENT, 5)),
    "DiscretizedLogistic": d.DiscretizedLogistic(0.5 + array(0, B, *EVENT) / 2, array(1, B, *EVENT) - 2, levels=17),
    "DiscretizedLogisticMixture": d.DiscretizedLogisticMixture(
        array(2, B, *EVENT, 3), 0.5 + array(0, B, *EVENT, 3) / 2, array(1, B, *EVENT, 3) - 2, levels=17
    ),
    "Mixture": joint.Mixture(array(2, 4), d.Normal(array(0, 4, *EVENT), array(1, 4, *EVENT, scale=0.5)), B),
}
EXAMPLES["MultivariateNormal"] = d.MultivariateNormal(
    array(0, B, 3), array(1, B, 3, 3, scale=0.5) + np.eye(3, dtype=np.float32)
)
EXAMPLES = {name: jax.tree.map(jnp.asarray, q) for name, q in EXAMPLES.items()}
NAMES = list(EXAMPLES)
RANDOM = [name for name in NAMES if name != "Delta"]


@cache
def sampler(name: str):
    return jax.jit(jax.vmap(EXAMPLES[name].sample))


@cache
def draws(name: str) -> np.ndarray:
    """`DRAWS` independent draws of an example, `[DRAWS, B, *event]`, float64."""
    return f64(sampler(name)(jax.random.split(jax.random.key(0), DRAWS)))


# --- what holds for all ---


@pytest.mark.parametrize("name", NAMES)
def test_shapes(name):
    q = EXAMPLES[name]
    assert isinstance(q, Distribution)
    assert draws(name).shape[1:] == mean(q).shape == (B, *((3,) if name == "MultivariateNormal" else EVENT))
    assert log_prob(q, jnp.asarray(draws(name)[0], jnp.float32)).shape == (B,)


@pytest.mark.parametrize("name", NAMES)
def test_mean_of_samples_is_the_mean(name):
    assert_mean(draws(name), mean(EXAMPLES[name]))


@pytest.mark.parametrize("name", RANDOM)
def test_a_draw_is_a_function_of_its_key(name):  # mistake 8
    again, other = (sampler(name)(jax.random.split(jax.random.key(seed), DRAWS)) for seed in (0, 1))
    np.testing.assert_array_equal(again, draws(name))
    assert (np.asarray(other) != draws(name)).mean() > 0.1


@pytest.mark.parametrize("name", RANDOM)
def test_draws_of_a_batch_share_no_noise(name):
    """Neither two rows nor two elements of a row are correlated."""
    centred = draws(name) - draws(name).mean(axis=0)
    centred = (centred / centred.std(axis=0)).reshape(DRAWS, B, -1)
    if name in ("Mixture", "MultivariateNormal"):  # the elements of a draw depend on one another, the rows do not
        centred = centred[:, :, :1]
    centred = centred.reshape(DRAWS, -1)
    assert_mean(centred[:, :-1] * centred[:, 1:], 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_sums_over_the_event_only(name):
    """Each row has its own density: changing row 0 of the value leaves the others as they were."""
    value = jnp.asarray(draws(name)[0], jnp.float32)
    before, after = log_prob(EXAMPLES[name], value), log_prob(EXAMPLES[name], value.at[0].set(1 - value[0]))
    np.testing.assert_array_equal(before[1:], after[1:])
    assert before[0] != after[0]


@pytest.mark.parametrize("name", NAMES)
def test_kl_to_another_kind_is_not_implemented(name):
    assert EXAMPLES[name].kl(d.Delta(mean(EXAMPLES[name]))) is NotImplemented


# --- Normal ---


def test_normal_log_prob_is_scipys_with_its_constants():  # mistake 5, mistake 36
    q, value = EXAMPLES["Normal"], array(7, B, *EVENT, scale=2)
    expected = stats.norm(f64(q.loc), np.exp(f64(q.log_scale))).logpdf(f64(value)).sum(axis=(1, 2))
    np.testing.assert_allclose(log_prob(q, value), expected, rtol=1e-5)


def test_normal_moments_are_loc_and_scale():  # mistake 5, mistake 6
    """A variance taken for a standard deviation, or noise of another scale than 1, shows in the second moment."""
    q = EXAMPLES["Normal"]
    assert_mean(draws("Normal"), q.loc)
    assert_mean((draws("Normal") - f64(q.loc)) ** 2, np.exp(2 * f64(q.log_scale)))
    np.testing.assert_allclose(q.scale, np.exp(f64(q.log_scale)), rtol=1e-6)


def test_normal_density_integrates_to_one():
    nodes, weights = np.polynomial.legendre.leggauss(100)
    loc, log_scale = np.repeat([0.3, -2.0], 100), np.repeat([-3.0, 1.0], 100)
    value = loc + 10 * np.exp(log_scale) * np.tile(nodes, 2)
    q = d.Normal(*(jnp.asarray(a, jnp.float32)[:, None] for a in (loc, log_scale)))
    density = np.exp(f64(log_prob(q, jnp.asarray(value, jnp.float32)[:, None])))
    integral = (density * 10 * np.exp(log_scale) * np.tile(weights, 2)).reshape(2, 100).sum(axis=1)
    np.testing.assert_allclose(integral, 1.0, rtol=1e-4)


def test_normal_kl_is_the_closed_form():  # mistake 4
    q, p = KL_PAIRS["Normal"]
    expected = normal_kl(q.loc, np.exp(f64(q.log_scale)), f64(p.loc), np.exp(f64(p.log_scale)))
    np.testing.assert_allclose(q.kl_terms(p), expected, rtol=1e-5)
    np.testing.assert_allclose(kl(q, p), expected.sum(axis=(1, 2)), rtol=1e-5)


def test_normal_kl_is_the_integral():  # mistake 4
    q, p = stats.norm(0.4, np.exp(-0.5)), stats.norm(-0.2, np.exp(0.3))
    expected = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -10, 10)[0]
    ours = kl(d.Normal(full(0.4, 1, 1), full(-0.5, 1, 1)), d.Normal(full(-0.2, 1, 1), full(0.3, 1, 1)))
    np.testing.assert_allclose(ours, [expected], rtol=1e-5)


def test_normal_kl_keeps_its_digits_near_zero():
    """At a ratio of scales of e^0.001 the KL is 2e-6 / 2; exp(v) - v - 1 would leave hardly a digit of it."""
    zero = full(0.0, 1, 1)
    ours = kl(d.Normal(zero, full(1e-3, 1, 1)), d.Normal(zero, zero))
    v = 2 * f64(np.float32(1e-3))
    # expm1(v) and v are rounded to float32, an error of eps v in a result of v^2 / 2: relative 2 eps / v, twice
    np.testing.assert_allclose(ours, [0.5 * (np.expm1(v) - v)], rtol=4 * 1.2e-7 / v)


KL_PAIRS = {
    "Normal": (EXAMPLES["Normal"], d.Normal(array(8, B, *EVENT), array(9, B, *EVENT, scale=0.5))),
    "Bernoulli": (EXAMPLES["Bernoulli"], d.Bernoulli(array(8, B, *EVENT, scale=2))),
    "Categorical": (EXAMPLES["Categorical"], d.Categorical(array(8, B, *EVENT, 5))),
}
KL_PAIRS = {name: jax.tree.map(jnp.asarray, pair) for name, pair in KL_PAIRS.items()}
each_kl = pytest.mark.parametrize("name", KL_PAIRS)


@each_kl
def test_kl_is_the_mean_of_the_log_ratio(name):  # mistake 4
    q, p = KL_PAIRS[name]
    value = jnp.asarray(draws(name), jnp.float32)
    log_ratio = jax.jit(jax.vmap(lambda v: q.log_prob(v) - p.log_prob(v)))(value)
    assert_mean(log_ratio, kl(q, p))


@each_kl
def test_kl_is_positive_and_zero_only_at_equality(name):  # mistake 4
    q, p = KL_PAIRS[name]
    assert (kl(q, p) > 0).all()
    assert (kl(p, q) > 0).all()
    np.testing.assert_allclose(kl(q, q), 0.0, atol=1e-6)
    leaves, structure = jax.tree.flatten(q)
    for index, leaf in enumerate(leaves):
        moved = np.array(leaf)
        moved[:, 0, 0, ...] += np.linspace(0.1, 0.2, moved[0, 0, 0].size).reshape(moved[0, 0, 0].shape)
        assert (kl(q, jax.tree.unflatten(structure, [*leaves[:index], moved, *leaves[index + 1 :]])) > 1e-5).all()


@each_kl
def test_kl_is_finite_at_extremes(name):
    """Certainty against uncertainty, both ways: large, but a number, and so is the gradient."""
    q, p = KL_PAIRS[name]
    sharp = (
        d.Normal(1e4 * q.loc, d.bounded(1e4 * q.log_scale, LOW, HIGH))
        if name == "Normal"
        else jax.tree.map(lambda leaf: 1e4 * leaf, q)
    )
    value, gradient = jax.jit(jax.value_and_grad(lambda s: s.kl(p).sum() + p.kl(s).sum()))(sharp)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


# --- Bernoulli ---


def test_bernoulli_log_prob_is_scipys():
    q, value = EXAMPLES["Bernoulli"], draws("Bernoulli")[0]
    expected = stats.bernoulli(special.expit(f64(q.logits))).logpmf(value).sum(axis=(1, 2))
    np.testing.assert_allclose(log_prob(q, value.astype(np.float32)), expected, rtol=1e-5)
    assert set(np.unique(draws("Bernoulli"))) == {0.0, 1.0}


@pytest.mark.parametrize("bit", [0.0, 1.0])
def test_bernoulli_equals_the_softplus_form_at_any_logit(bit):  # mistake 10, mistake 11
    """No probability is formed, so nothing needs to be added to a logarithm to save it."""
    ours = log_prob(d.Bernoulli(EXTREME), np.full_like(EXTREME, bit))
    np.testing.assert_allclose(ours, -np.logaddexp(0, (1 - 2 * bit) * f64(EXTREME[:, 0])), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bit", [0.0, 1.0])
def test_bernoulli_gradient_is_value_minus_probability_at_any_logit(bit):  # mistake 10, mistake 11, mistake 12
    gradient = jax.jit(jax.grad(lambda raw: d.Bernoulli(raw).log_prob(jnp.full_like(raw, bit)).sum()))(EXTREME)
    np.testing.assert_allclose(gradient, bit - special.expit(f64(EXTREME)), atol=1e-6)


def test_bernoulli_mean_is_one_sigmoid_of_its_logits():  # mistake 12
    q = EXAMPLES["Bernoulli"]
    log_odds, shifted = (special.logit(f64(mean(d.Bernoulli(q.logits + shift)))) for shift in (0.0, 1.0))
    np.testing.assert_allclose(log_odds, q.logits, atol=1e-5)
    np.testing.assert_allclose(shifted - log_odds, 1.0, atol=1e-4)


def test_bernoulli_kl_is_the_sum():  # mistake 4
    q, p = KL_PAIRS["Bernoulli"]
    a, b = special.expit(f64(q.logits)), special.expit(f64(p.logits))
    expected = special.rel_entr(a, b) + special.rel_entr(1 - a, 1 - b)
    np.testing.assert_allclose(kl(q, p), expected.sum(axis=(1, 2)), rtol=1e-5)


# --- continuous Bernoulli ---

# around the switches to a series (0.03 for draws, 0.2 for the rest), near 0 where the plain formula is 0/0, far out
CONTINUOUS_LOGITS = [0.0, 1e-6, -1e-6, 1e-3, -1e-3, 0.1999, 0.2001, -0.1999, -0.2001, 3.0, -3.0, 30.0, -30.0]


def continuous_log_density(x, logit: float):
    """log of exp(l x) l / (e^l - 1), in float64, with its series at 0."""
    if abs(logit) < 1e-2:
        return logit * x - (logit / 2 + logit**2 / 24 - logit**4 / 2880)
    return logit * x - np.log(np.expm1(logit) / logit)


@pytest.mark.parametrize("logit", CONTINUOUS_LOGITS)
def test_continuous_bernoulli_is_a_density_with_its_mean(logit):  # mistake 9
    nodes, weights = np.polynomial.legendre.leggauss(64)
    x, weights = (nodes + 1) / 2, weights / 2
    q = d.ContinuousBernoulli(full(logit, 64, 1))
    log_p = f64(log_prob(q, x.astype(np.float32)[:, None]))
    np.testing.assert_allclose(log_p, continuous_log_density(x, logit), rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(weights @ np.exp(log_p), 1.0, rtol=1e-5)
    np.testing.assert_allclose(weights @ (x * np.exp(log_p)), mean(q)[0, 0], rtol=1e-5)


def test_continuous_bernoulli_gradient_is_value_minus_mean():
    """So it is for any exponential family; near 0 the plain formula loses it."""
    logits = np.asarray([*CONTINUOUS_LOGITS, 1e4, -1e4], np.float32)[:, None]
    q = d.ContinuousBernoulli(logits)
    gradient = jax.jit(jax.grad(lambda q: q.log_prob(jnp.full(logits.shape, 0.3)).sum()))(q).logits
    np.testing.assert_allclose(gradient, 0.3 - f64(mean(q)), atol=2e-6)
    slope = jax.jit(jax.grad(lambda q: q.mean().sum()))(q).logits
    assert (slope > 0).all()


def continuous_cdf(x, logit: float):
    if logit == 0:
        return x
    if logit < 0:
        return np.expm1(logit * x) / np.expm1(logit)
    return (np.exp(logit * (x - 1)) - np.exp(-logit)) / -np.expm1(-logit)


def test_the_lowest_uniform_number_gives_a_continuous_bernoulli_a_draw_and_a_gradient(monkeypatch):
    """It is not 0, of which there is no logarithm; one in ten million is the lowest."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype, lowest=0.0: jnp.full(shape, lowest, dtype))
    draw, slope = jax.value_and_grad(lambda x: d.ContinuousBernoulli(x).sample(jax.random.key(0))[0, 0])(
        full(300.0, 1, 1)
    )
    np.testing.assert_allclose(draw, 1 + np.log(2.0**-126) / 300, rtol=1e-5)
    np.testing.assert_allclose(slope, -np.log(2.0**-126) / 300**2, rtol=1e-5)


@pytest.mark.parametrize("logit", [0.0, 5e-4, -5e-4, 0.0299, 0.0301, -0.0301, -2.0, 8.0, -300.0])
def test_continuous_bernoulli_samples_have_their_distribution(logit):
    """In law, and in their pathwise gradient: that of a mean of draws is the gradient of the mean."""
    q = d.ContinuousBernoulli(full(logit, DRAWS, 1))
    values, pull = jax.vjp(lambda q: sample(q, jax.random.key(0)), q)
    assert (values >= 0).all()
    assert (values <= 1).all()
    assert_distribution(values[:, 0], lambda x: continuous_cdf(x, logit))
    (gradient,) = pull(jnp.ones_like(values))
    slope = jax.jit(jax.grad(lambda q: q.mean().mean()))(q).logits.sum()
    assert_mean(gradient.logits[:, 0], slope)


# --- distributions on a grid ---

GRIDS = {
    "Categorical": d.Categorical(array(0, 1, 1, 17, scale=2)),
    "DiscretizedLogistic": d.DiscretizedLogistic(array(3, 1, 1), array(1, 1, 1) - 2, 17),
    "two levels": d.DiscretizedLogistic(full(0.3, 1, 1), full(-1.0, 1, 1), 2),
    "narrow": d.DiscretizedLogistic(full(0.43, 1, 1), full(-6.0, 1, 1), 256),
    "wide": d.DiscretizedLogistic(full(0.1, 1, 1), full(2.0, 1, 1), 256),
    "outside": d.DiscretizedLogistic(full(1.3, 1, 1), full(-3.0, 1, 1), 256),
    "mixture": d.DiscretizedLogisticMixture(array(2, 1, 1, 3), 0.5 + array(0, 1, 1, 3), array(1, 1, 1, 3) - 3, 256),
}
each_grid = pytest.mark.parametrize("name", GRIDS)


@cache
def masses(name: str) -> np.ndarray:
    """Probability of every level, `[levels]`."""
    levels = GRIDS[name].levels
    return np.exp(f64(log_prob(repeated(GRIDS[name], levels), grid(levels))))


@cache
def grid_draws(name: str) -> np.ndarray:
    """`[DRAWS]`."""
    return np.asarray(sample(repeated(GRIDS[name], DRAWS), jax.random.key(0)))[:, 0]


@each_grid
def test_masses_over_all_levels_sum_to_one(name):  # mistake 37
    mass = masses(name)
    # up to 256 masses, the log of each rounded to float32
    np.testing.assert_allclose(mass.sum(), 1.0, atol=1e-5)
    np.testing.assert_allclose(mass @ f64(grid(len(mass))[:, 0]), mean(GRIDS[name])[0, 0], atol=1e-5)


@each_grid
def test_samples_lie_on_the_grid_with_their_masses(name):  # mistake 37
    mass, levels = masses(name), len(masses(name))
    index = np.rint(f64(grid_draws(name)) * (levels - 1))
    assert index.min() >= 0
    assert index.max() <= levels - 1
    # one unit in the last place: XLA may multiply by the reciprocal
    np.testing.assert_allclose(grid_draws(name), index / (levels - 1), atol=1.2e-7)
    frequency = index[:, None] == np.arange(levels)[None]
    common = mass * DRAWS >= 30  # levels too rare for a normal approximation are counted together
    assert_mean(frequency[:, common], mass[common])
    assert_mean(frequency[:, ~common].sum(axis=1), mass[~common].sum())


@pytest.mark.parametrize("name", ["narrow", "wide", "outside", "mixture"])
def test_samples_of_256_levels_are_valid_uint8(name):  # mistake 37
    scaled = grid_draws(name) * 255
    as_bytes = np.rint(scaled).astype(np.uint8)
    assert np.abs(scaled - as_bytes).max() < 1e-4
    again = log_prob(repeated(GRIDS[name], DRAWS), (as_bytes.astype(np.float32) / 255)[:, None])
    assert np.isfinite(again).all()


def logistic_log_mass(levels: int, loc: float, scale: float) -> np.ndarray:
    """Log masses in float64 from SciPy's logistic, each tail from its own side; -inf where float64 underflows."""
    law, step = stats.logistic(loc, scale), 1 / (levels - 1)
    x = np.arange(levels) * step
    upper, lower = x + step / 2, x - step / 2
    with np.errstate(divide="ignore"):
        out = np.log(np.where(x < loc, law.cdf(upper) - law.cdf(lower), law.sf(lower) - law.sf(upper)))
    out[0], out[-1] = law.logcdf(upper[0]), law.logsf(lower[-1])
    return out


@pytest.mark.parametrize("name", ["two levels", "DiscretizedLogistic", "narrow", "wide", "outside"])
def test_discretized_logistic_is_scipys_with_open_outer_bins(name):  # mistake 37
    q = GRIDS[name]
    ours = f64(log_prob(repeated(q, q.levels), grid(q.levels)))
    theirs = logistic_log_mass(q.levels, float(q.loc[0, 0]), np.exp(float(q.log_scale[0, 0])))
    shown = np.isfinite(theirs)
    assert np.isfinite(ours).all()
    assert shown[[0, -1]].all()
    # x - loc is rounded to float32 before it is divided by the scale
    atol = 1e-5 + 1.2e-7 * np.exp(-float(q.log_scale[0, 0]))
    np.testing.assert_allclose(ours[shown], theirs[shown], rtol=1e-5, atol=atol)


def test_mixture_of_logistics_is_the_direct_sum():  # mistake 37
    q = GRIDS["mixture"]
    log_weight = special.log_softmax(f64(q.logits[0, 0]))
    parts = [
        w + logistic_log_mass(256, float(loc), np.exp(float(log_scale)))
        for w, loc, log_scale in zip(log_weight, q.loc[0, 0], q.log_scale[0, 0], strict=True)
    ]
    np.testing.assert_allclose(np.log(masses("mixture")), np.logaddexp.reduce(parts), rtol=1e-5, atol=2e-5)


def test_categorical_is_the_log_softmax_of_its_logits():
    q, p = KL_PAIRS["Categorical"]
    log_q, log_p = (special.log_softmax(f64(a.logits), axis=-1) for a in (q, p))
    index = np.random.default_rng(0).integers(0, 5, size=(B, *EVENT))
    expected = np.take_along_axis(log_q, index[..., None], -1).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(log_prob(q, (index / 4).astype(np.float32)), expected, rtol=1e-5)
    np.testing.assert_allclose(kl(q, p), (np.exp(log_q) * (log_q - log_p)).sum(axis=(1, 2, 3)), rtol=1e-5)


# --- extremes: finite values and gradients at +-1e4 ---

EDGES = [0.0, 128 / 255, 1.0]
EXTREMES = {
    "Bernoulli": (d.Bernoulli, [0.0, 1.0]),
    "ContinuousBernoulli": (d.ContinuousBernoulli, EDGES),
    "Normal loc": (lambda raw: d.Normal(raw, 0 * raw), EDGES),
    "Normal scale": (lambda raw: d.Normal(0 * raw, d.bounded(raw, LOW, HIGH)), EDGES),
    "NormalOptimalScale": (d.NormalOptimalScale, EDGES),
    "Categorical": (lambda raw: d.Categorical(jnp.stack([raw, -raw, 0 * raw], axis=-1)), [0.0, 0.5, 1.0]),
    "DiscretizedLogistic loc": (lambda raw: d.DiscretizedLogistic(raw, 0 * raw - 7), EDGES),
    "DiscretizedLogistic scale": (lambda raw: d.DiscretizedLogistic(0 * raw, d.bounded(raw, LOW, HIGH)), EDGES),
    "DiscretizedLogisticMixture": (
        lambda raw: d.DiscretizedLogisticMixture(
            *(raw[..., None] * jnp.asarray([[[1.0, -1.0, 0.0]]]),) * 2,
            d.bounded(raw, LOW, HIGH)[..., None] * jnp.ones((1, 1, 3)),
        ),
        EDGES,
    ),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_values_and_gradients_are_finite_at_extreme_outputs(name):  # mistake 10, mistake 11, mistake 14
    make, values = EXTREMES[name]

    def everything(raw):
        q = make(raw)
        log_p = jnp.stack([q.log_prob(jnp.full_like(raw, value)) for value in values])
        return log_p.sum() + q.mean().sum(), (log_p, q.mean(), q.sample(jax.random.key(0)))

    gradient, results = jax.jit(jax.grad(everything, has_aux=True))(EXTREME)
    assert all(np.isfinite(a).all() for a in (gradient, *results))
    assert np.abs(gradient).max() > 0


# --- bounded ---


@jax.jit
def bounded_with_derivatives(raw):
    def f(r):
        return d.bounded(r, LOW, HIGH)

    return f(raw), jax.vmap(jax.grad(f))(raw), jax.vmap(jax.grad(jax.grad(f)))(raw)


def test_bounded_is_smooth():  # mistake 14
    """Against f(u) = u / sqrt(1 + u^2) in float64, in value, slope and curvature: no kink, no flat end."""
    middle, half = (LOW + HIGH) / 2, (HIGH - LOW) / 2
    u = np.asarray([-2e3, -30, -1.001, -1, -0.999, -0.1, 0, 0.1, 0.999, 1, 1.001, 30, 2e3])
    raw = (middle + half * u).astype(np.float32)
    u = (f64(raw) - middle) / half
    value, slope, curvature = bounded_with_derivatives(raw)
    np.testing.assert_allclose(value, middle + half * u / np.sqrt(1 + u * u), rtol=1e-6, atol=2e-6)
    # the slope falls like u^-3, which triples the rounding of u and of its reciprocal
    np.testing.assert_allclose(slope, (1 + u * u) ** -1.5, rtol=2e-3)
    apart = np.abs(u) != 1  # where a maximum is tied, its second derivative is not defined
    np.testing.assert_allclose(curvature[apart], (-3 * u * (1 + u * u) ** -2.5 / half)[apart], rtol=1e-2, atol=1e-5)


def test_bounded_has_a_gradient_everywhere():  # mistake 14
    size = np.logspace(-3, 8, 500, dtype=np.float32)
    _, slope, _ = bounded_with_derivatives(np.concatenate([-size, [0], size]))
    assert (slope > 0).all()


def test_bounded_stays_inside_and_rises():  # mistake 14
    size = np.logspace(-3, 38, 500, dtype=np.float32)
    out, slope, _ = bounded_with_derivatives(np.concatenate([-size[::-1], [0], size]))
    assert (out >= LOW).all()
    assert (out <= HIGH).all()
    rounding = 0 if jax.default_backend() == "cpu" else np.spacing(np.abs(out[1:]))  # of the tanh of accelerators
    assert (np.diff(out) >= -rounding).all()
    assert np.isfinite(slope).all()
    near, _, _ = bounded_with_derivatives(np.linspace(-50.0, 50.0, 1001, dtype=np.float32))
    assert (np.diff(near) > 0).all()
    assert near[0] > LOW
    assert near[-1] < HIGH


def test_unbounded_is_its_inverse():
    value = np.linspace(LOW + 0.1, HIGH - 0.1, 50, dtype=np.float32)
    np.testing.assert_allclose(d.bounded(d.unbounded(value, LOW, HIGH), LOW, HIGH), value, atol=1e-5)


# --- Delta, NormalOptimalScale, Mixture ---


def test_delta_has_all_its_mass_at_its_point():
    q = EXAMPLES["Delta"]
    np.testing.assert_array_equal(sample(q, jax.random.key(0)), q.loc)
    np.testing.assert_array_equal(mean(q), q.loc)
    elsewhere = np.array(q.loc)
    elsewhere[1, 0, 0] += 1e-3
    np.testing.assert_array_equal(log_prob(q, elsewhere), [0.0, -np.inf, 0.0])


def test_multivariate_normal_is_scipys_with_its_constants():  # mistake 36
    q, value = EXAMPLES["MultivariateNormal"], array(7, B, 3)
    lower = np.tril(f64(q.scale_tril))
    assert (lower != f64(q.scale_tril)).any()  # what lies above the diagonal is no part of it
    expected = [stats.multivariate_normal(f64(q.loc[i]), lower[i] @ lower[i].T).logpdf(value[i]) for i in range(B)]
    np.testing.assert_allclose(log_prob(q, value), expected, rtol=1e-5)


def test_multivariate_normal_draws_have_its_covariance():  # mistake 5, mistake 6
    q = EXAMPLES["MultivariateNormal"]
    lower, centred = np.tril(f64(q.scale_tril)), draws("MultivariateNormal") - f64(q.loc)
    assert_mean(centred[..., :, None] * centred[..., None, :], lower @ lower.transpose(0, 2, 1))


def test_optimal_scale_is_the_best_of_all_fixed_scales():  # mistake 36
    loc, value = array(0, B, 6), array(5, B, 6)
    ours = log_prob(d.NormalOptimalScale(loc), value)

    def best(row: int) -> float:
        law = lambda log_scale: -stats.norm(f64(loc[row]), np.exp(log_scale)).logpdf(f64(value[row])).sum()  # noqa: E731
        return -optimize.minimize_scalar(law, bounds=(-5, 5), method="bounded").fun

    np.testing.assert_allclose(ours, [best(row) for row in range(B)], rtol=1e-5)
    mse = ((f64(value) - f64(loc)) ** 2).mean(axis=1)
    np.testing.assert_allclose(ours, -6 / 2 * (LOG_2PI + np.log(mse) + 1), rtol=1e-5)


def test_optimal_scale_is_finite_for_a_perfect_reconstruction():
    loc = full(1.0, 2, 3)
    value, gradient = jax.jit(jax.value_and_grad(lambda raw: d.NormalOptimalScale(raw).log_prob(loc).sum()))(loc)
    np.testing.assert_allclose(value, 2 * stats.norm(0, 1e-3).logpdf(np.zeros(3)).sum(), rtol=1e-5)
    np.testing.assert_array_equal(gradient, 0.0)


def test_optimal_scale_samples_with_its_smallest_scale():
    assert_mean((draws("NormalOptimalScale") - f64(EXAMPLES["NormalOptimalScale"].loc)) ** 2, 0.2**2)


def test_mixture_is_the_direct_sum():
    q, value = EXAMPLES["Mixture"], array(6, B, *EVENT)
    weights = special.softmax(f64(q.logits))
    parts = stats.norm(f64(q.components.loc), np.exp(f64(q.components.log_scale))).logpdf(f64(value)[:, None])
    expected = special.logsumexp(parts.sum(axis=(2, 3)), b=weights, axis=1)
    np.testing.assert_allclose(log_prob(q, value), expected, rtol=1e-5)
    expected_mean = np.tensordot(weights, f64(q.components.loc), axes=1)
    np.testing.assert_allclose(mean(q), np.broadcast_to(expected_mean, (B, *EVENT)), rtol=1e-5, atol=1e-6)


def test_a_mixture_of_any_distributions_is_the_direct_sum():
    components, logits = d.Bernoulli(array(0, 4, *EVENT, scale=2)), array(2, 4)
    q = joint.Mixture(jnp.asarray(logits), jax.tree.map(jnp.asarray, components), B)
    value = (array(6, B, *EVENT) > 0).astype(np.float32)
    p, weights = special.expit(f64(components.logits)), special.softmax(f64(logits))
    parts = stats.bernoulli(p).logpmf(value[:, None]).sum(axis=(2, 3))
    np.testing.assert_allclose(log_prob(q, value), special.logsumexp(parts, b=weights, axis=1), rtol=1e-5)
    expected = np.broadcast_to(np.tensordot(weights, p, axes=1), (B, *EVENT))
    np.testing.assert_allclose(mean(q), expected, rtol=1e-5)
    assert q.measure == "mass"


def test_mixture_draws_have_its_second_moment():
    q = EXAMPLES["Mixture"]
    second = f64(q.components.loc) ** 2 + np.exp(2 * f64(q.components.log_scale))
    assert_mean(draws("Mixture") ** 2, np.tensordot(special.softmax(f64(q.logits)), second, axes=1))


def test_mixture_of_one_is_that_one():
    one = jax.tree.map(jnp.asarray, d.Normal(array(0, 1, 3), array(1, 1, 3)))
    value = array(6, B, 3)
    np.testing.assert_allclose(
        log_prob(joint.Mixture(jnp.asarray([2.5]), one, B), value), log_prob(repeated(one, B), value), rtol=1e-6
    )


def plain_pairwise(x, loc, log_scale):
    return jax.vmap(lambda x: d.Normal(loc, log_scale).log_prob(jnp.broadcast_to(x, loc.shape)))(x)


@pytest.mark.slow
def test_normals_in_pairs_are_those_one_by_one():
    """Values in float64 and all derivatives, forward, backward and second, of the residuals written out."""
    x, loc, log_scale = array(0, 5, 3), array(1, 7, 3), array(2, 7, 3, scale=0.5)
    expected = stats.norm.logpdf(f64(x)[:, None], f64(loc), np.exp(f64(log_scale))).sum(axis=-1)
    np.testing.assert_allclose(joint.pairwise_normal_log_prob(x, loc, log_scale), expected, rtol=1e-5)

    def total(function):
        return lambda x, loc, log_scale: jax.nn.logsumexp(function(x, loc, log_scale), axis=1).sum()

    for derivative in (jax.jacfwd, jax.jacrev, jax.hessian):
        ours, plain = (
            jax.jit(derivative(total(f), argnums=(0, 1, 2)))(x, loc, log_scale)
            for f in (joint.pairwise_normal_log_prob, plain_pairwise)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), ours, plain)


@pytest.mark.parametrize("log_scale", [-7.0, -5.0, -3.0, -1.0, 0.0, 3.0])
def test_derivatives_of_normals_in_pairs_are_those_in_float64(log_scale):
    """At all scales that models allow, values a scale or so from some component, as codes are from a posterior's mean.

    Errors are less than a thousandth of the largest derivative.
    """
    rng = np.random.default_rng(0)
    loc, scale = rng.normal(scale=2, size=(9, 4)), np.full((9, 4), log_scale) + rng.uniform(0, 0.3, (9, 4))
    x = loc[rng.integers(0, 9, 12)] + np.exp(log_scale) * rng.normal(size=(12, 4))
    inputs = tuple(np.float32(a) for a in (x, loc, scale))

    def gradient(function):
        return jax.grad(lambda *a: jax.nn.logsumexp(function(*a), axis=1).sum(), argnums=(0, 1, 2))

    ours = jax.jit(gradient(joint.pairwise_normal_log_prob))(*inputs)
    each = jax.jit(jax.vmap(gradient(joint.pairwise_normal_log_prob)))(*(a[None] for a in inputs))
    with jax.enable_x64(True):
        exact = jax.jit(gradient(plain_pairwise))(*(np.float64(a) for a in inputs))
    for found, one, truth in zip(ours, each, exact, strict=True):
        assert truth.dtype == np.float64
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-3 * np.abs(truth).max())
        np.testing.assert_allclose(one[0], truth, rtol=0, atol=1e-3 * np.abs(truth).max())


def test_normals_in_pairs_keep_their_digits_far_from_the_origin():
    """Multiplied out, the square would lose a residual of 0.01 beside values of 100."""
    x, loc = jnp.full((1, 2), 100.0), jnp.asarray([[100.01, 100.01]])
    log_scale = jnp.full((1, 2), -5.0)
    expected = stats.norm.logpdf(f64(x), f64(loc), np.exp(-5)).sum()
    assert joint.pairwise_normal_log_prob(x, loc, log_scale)[0, 0] == pytest.approx(expected, rel=1e-5)


def test_mean_of_a_chain_is_that_of_the_lower_level_given_the_mean_above():
    """On a lower level that moves with the upper one: at z2 = 0 it would be 1 everywhere."""
    above = d.Normal(jnp.asarray([[2.0], [-1.0]]), jnp.zeros((2, 1)))
    below = jax.tree_util.Partial(lambda slope, z2: d.Normal(slope * z2 + 1, jnp.zeros_like(z2)), 3.0)
    np.testing.assert_allclose(mean(joint.Chained(above, below, 1)), [[7.0, 2.0], [-2.0, -1.0]])


# --- what the sizes, defaults and shapes of the examples above do not show ---


def test_multivariate_normal_takes_the_size_of_its_diagonal():
    """L L^T is the covariance, so the density is that of any sign on the diagonal of L."""
    q, value = EXAMPLES["MultivariateNormal"], array(7, B, 3)
    lower = np.tril(f64(q.scale_tril))
    lower[0, 1, 1], lower[2, 0, 0] = -lower[0, 1, 1], -lower[2, 0, 0]
    assert (np.diagonal(lower, axis1=1, axis2=2)[[0, 2]] < 0).any(axis=1).all()
    expected = [stats.multivariate_normal(f64(q.loc[i]), lower[i] @ lower[i].T).logpdf(value[i]) for i in range(B)]
    ours = log_prob(d.MultivariateNormal(q.loc, jnp.asarray(lower, jnp.float32)), value)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_each_says_what_its_log_prob_is_the_logarithm_of():
    assert {name: q.measure for name, q in EXAMPLES.items()} == {
        "Delta": "point",
        "Normal": "density",
        "NormalOptimalScale": "profile",
        "Bernoulli": "mass",
        "ContinuousBernoulli": "density",
        "Categorical": "mass",
        "DiscretizedLogistic": "mass",
        "DiscretizedLogisticMixture": "mass",
        "Mixture": "density",
        "MultivariateNormal": "density",
    }
    bits = EXAMPLES["Bernoulli"]
    assert joint.Mixture(array(0, B), bits, 7).measure == joint.Chained(bits, None, 1).measure == "mass"


def test_grey_levels_are_256_and_the_smallest_scale_a_thousandth_unless_others_are_given():
    zero = full(0.0, 1, 1)
    assert d.DiscretizedLogistic(zero, zero).levels == 256
    assert d.DiscretizedLogisticMixture(*(zero[..., None],) * 3).levels == 256
    assert d.NormalOptimalScale(zero).min_scale == 1e-3


@pytest.mark.parametrize("levels", [11, 256])
def test_every_level_of_a_categorical_is_found_again_from_its_value(levels):
    """k / (L - 1) times L - 1 may be a little less than k, or more, in float32."""
    logits = array(3, 1, 1, levels)
    value = grid(levels) * (1 - 1e-6 * np.where(np.arange(levels) % 2, 1, -1))[:, None].astype(np.float32)
    ours = log_prob(repeated(d.Categorical(logits), levels), value)
    np.testing.assert_allclose(ours, special.log_softmax(f64(logits[0, 0])), rtol=1e-5)


def test_optimal_scale_adds_the_square_of_its_smallest_to_the_mean_square():
    """Where both are of one size."""
    loc, value = array(0, B, 6), array(5, B, 6)
    squares = ((f64(value) - f64(loc)) ** 2).sum(axis=1)
    variance = squares / 6 + 0.8**2
    expected = -0.5 * (6 * (np.log(variance) + LOG_2PI) + squares / variance)
    np.testing.assert_allclose(log_prob(d.NormalOptimalScale(loc, 0.8), value), expected, rtol=1e-5)


def test_derivatives_of_normals_in_pairs_are_finite_at_the_smallest_scales():
    """exp(100) overflows, and is not to meet the 0 of the branch that is not taken; at x = m only ds is left."""
    x, log_scale = jnp.asarray([[0.5, -1.0]]), jnp.full((1, 2), -50.0)
    ones = jnp.ones((1, 2))
    arguments = (x, x, log_scale), (ones, ones, ones)
    slope = jax.jit(lambda a, t: jax.jvp(joint.pairwise_normal_log_prob, a, t)[1])(*arguments)
    np.testing.assert_allclose(slope, [[-2.0]])


def test_derivatives_of_normals_in_pairs_are_finite_far_away():
    """3e19 squared is beyond float32, and what is left of it beside a scale of e^20 is not."""
    x, loc, log_scale = jnp.asarray([[3e19, 1.0]]), jnp.zeros((1, 2)), jnp.full((1, 2), 20.0)
    by_value, by_loc, by_log_scale = jax.jit(jax.grad(lambda *a: joint.pairwise_normal_log_prob(*a).sum(), (0, 1, 2)))(
        x, loc, log_scale
    )
    expected = f64(x) * np.exp(-40.0)
    np.testing.assert_allclose(by_loc, expected, rtol=1e-5)
    np.testing.assert_allclose(by_value, -expected, rtol=1e-5)
    np.testing.assert_allclose(by_log_scale, f64(x) * expected - 1, rtol=1e-5)


def below_of_two(slope, z2):
    """p(z1|z2) over two dimensions, practically a point."""
    return d.Normal(jnp.concatenate([slope * z2, z2 - 1], axis=1), jnp.full((len(z2), 2), -20.0))


def test_a_draw_of_a_chain_is_of_the_upper_level_and_of_the_lower_given_that_draw():
    above = d.Normal(jnp.asarray([[2.0], [-1.0]]), jnp.zeros((2, 1)))
    q = joint.Chained(above, jax.tree_util.Partial(below_of_two, 3.0), 2)
    drawn = f64(sample(q, jax.random.key(0)))
    np.testing.assert_allclose(drawn[:, :2], np.stack([3 * drawn[:, 2], drawn[:, 2] - 1], axis=1), rtol=1e-5, atol=1e-5)
    assert (np.abs(drawn[:, 2] - [2, -1]) > 1e-2).all()


def test_the_density_of_a_chain_is_that_of_both_levels_the_lower_first():
    """Of levels of other sizes, and the noise of neither is that of the other."""
    above = d.Normal(jnp.asarray([[2.0], [-1.0]]), jnp.full((2, 1), 0.5))
    below = jax.tree_util.Partial(lambda slope, z2: d.Normal(slope * jnp.tile(z2, 2), jnp.full((2, 2), -0.5)), 3.0)
    value = array(4, 2, 3)
    expected = stats.norm([[2.0], [-1.0]], np.exp(0.5)).logpdf(f64(value[:, 2:])).sum(axis=1)
    expected += stats.norm(3 * f64(value[:, 2:]), np.exp(-0.5)).logpdf(f64(value[:, :2])).sum(axis=1)
    q = joint.Chained(above, below, 2)
    np.testing.assert_allclose(log_prob(q, value), expected, rtol=1e-5)
    drawn = f64(sample(q, jax.random.key(0)))
    upper = (drawn[:, 2:] - [[2.0], [-1.0]]) / np.exp(0.5)
    lower = (drawn[:, :2] - 3 * drawn[:, 2:]) / np.exp(-0.5)
    assert np.abs(lower - upper).min() > 1e-4


@pytest.mark.parametrize("logit", [0.029, -0.029, 0.2, -0.2, 3.0, -3.0])
def test_continuous_bernoulli_draws_are_the_quantiles_of_their_noise(logit):
    """The noise is the draw at logit 0, which is uniform; the quantile is exact on both sides of the series."""
    noise, drawn = (f64(sample(d.ContinuousBernoulli(full(x, 1000, 1)), jax.random.key(3)))[:, 0] for x in (0.0, logit))
    np.testing.assert_allclose(drawn, np.log1p(noise * np.expm1(logit)) / logit, atol=1e-5)


def test_derivatives_of_normals_in_pairs_are_right_where_one_scale_of_many_is_small():
    """Beside wide components, a narrow one whose products would cancel."""
    loc = np.float64([[0.0, 0.5], [2.0, -3.0], [1.0, 1.0]])
    scale, x = np.exp([0.0, -8.5, 0.3])[:, None], np.float64([[2.0002, -3.0001], [0.2, 0.1]])
    inputs = tuple(np.float32(a) for a in (x, loc, np.log(scale) * np.ones((1, 2))))
    weight = np.float32([[1, 1, 1], [1, 0, 1]])
    slope = jax.jit(jax.grad(lambda *a: (weight * joint.pairwise_normal_log_prob(*a)).sum(), argnums=2))(*inputs)
    x, loc = f64(inputs[0]), f64(inputs[1])
    expected = (weight[:, :, None] * (((x[:, None] - loc) / scale) ** 2 - 1)).sum(axis=0)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-3)
