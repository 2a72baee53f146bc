"""The likelihood of tables: column by column against SciPy, missing entries, samples, extremes, and its error."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import assert_mean, log_prob, mean, random_params, repeated, sample
from scipy import special, stats

from aevae_jax import VAE, distributions, objectives
from aevae_jax.distributions import table_layout
from aevae_jax.distributions.tabular import Tabular
from aevae_jax.models import architectures, likelihoods
from aevae_jax.objectives import bounds
from aevae_jax.types import Distribution, InputError

COLUMNS = (0, 3, 2, 0, 5, 3, 2)
WIDTH = 2 + 3 + 2 + 2 + 5 + 3 + 2
LOC, SCALE = np.array([0, 7]), np.array([1, 8])  # the places of the numbers' means and log scales
LOGIT, UNUSED = np.array([5, 17]), np.array([6, 18])  # those of the bits, and the ones that no bit uses
CHOICES = [slice(2, 5), slice(9, 14), slice(14, 17)]
NAN = np.nan
ROWS = np.array([[0.3, 2, 1, -1.5, 4, 0, 0], [NAN, 1, NAN, 0.2, NAN, 2, 1], [1.1, NAN, 0, NAN, 0, NAN, NAN], [NAN] * 7])
B = len(ROWS)
OUTPUTS = np.random.default_rng(0).normal(size=(B, WIDTH)).astype(np.float32)
Q = Tabular(jnp.asarray(OUTPUTS), COLUMNS)
DRAWS = 10_000


def encoded(row: np.ndarray, columns: tuple[int, ...] = COLUMNS) -> np.ndarray:
    """The features of one row, one column after the other."""
    parts = []
    for value, categories in zip(row, columns, strict=True):
        if categories > 2:
            parts.append(np.arange(categories) == value)
        else:
            parts.append([0.0, 0.0] if np.isnan(value) else [value, 1.0])
    return np.concatenate(parts).astype(np.float32)


X = jnp.asarray(np.stack([encoded(row) for row in ROWS]))


def log_density(row: np.ndarray, outputs: np.ndarray, columns: tuple[int, ...] = COLUMNS) -> float:
    """log p of one row in float64, one column after the other."""
    total, place = 0.0, 0
    for value, categories in zip(row, columns, strict=True):
        own = np.asarray(outputs[place : place + max(categories, 2)], np.float64)
        place += len(own)
        if np.isnan(value):
            continue
        if categories == 0:
            total += stats.norm(own[0], np.exp(own[1])).logpdf(value)
        elif categories == 2:
            total += -np.logaddexp(0, (1 - 2 * value) * own[0])
        else:
            total += special.log_softmax(own)[int(value)]
    return total


def missing_features() -> np.ndarray:
    """Whether a feature belongs to a missing entry, `[B, F]`."""
    return np.concatenate(
        [
            np.repeat(np.isnan(column)[:, None], max(categories, 2), axis=1)
            for column, categories in zip(ROWS.T, COLUMNS, strict=True)
        ],
        axis=1,
    )


# --- densities ---


def test_log_prob_is_the_sum_over_the_columns_that_are_observed():  # mistake 36
    expected = [log_density(row, outputs) for row, outputs in zip(ROWS, OUTPUTS, strict=True)]
    np.testing.assert_allclose(log_prob(Q, X), expected, rtol=1e-5)
    assert isinstance(Q, Distribution)
    assert table_layout.feature_count(COLUMNS) == WIDTH == X.shape[1]


def test_a_row_without_entries_has_log_prob_zero():
    assert log_prob(Q, X)[3] == 0.0


@pytest.mark.parametrize("garbage", [1e4, -1e4, np.inf, -np.inf, np.nan])
def test_what_stands_in_the_outputs_of_missing_entries_changes_nothing(garbage):
    changed = np.where(missing_features(), np.float32(garbage), OUTPUTS)
    np.testing.assert_array_equal(log_prob(Tabular(jnp.asarray(changed), COLUMNS), X), log_prob(Q, X))
    both = [
        jax.jit(jax.grad(lambda q: q.log_prob(X).sum()))(Tabular(jnp.asarray(o), COLUMNS)).outputs
        for o in (changed, OUTPUTS)
    ]
    np.testing.assert_array_equal(both[0], both[1])
    np.testing.assert_array_equal(np.asarray(both[0])[missing_features()], 0.0)
    used = ~missing_features()
    used[:, UNUSED] = False
    assert (np.asarray(both[0])[used] != 0).all()


def test_leaving_an_entry_out_sums_over_what_it_could_be():
    """Over the categories of a column, and by quadrature over a number."""
    row, outputs = ROWS[0].copy(), OUTPUTS[:1]

    def density(column: int, values: np.ndarray) -> np.ndarray:
        rows = np.repeat(row[None], len(values), axis=0)
        rows[:, column] = values
        many = repeated(Tabular(outputs, COLUMNS), len(values))
        return np.exp(np.asarray(log_prob(many, np.stack([encoded(r) for r in rows])), np.float64))

    nodes, weights = np.polynomial.legendre.leggauss(100)
    reach = 10 * np.exp(outputs[0, SCALE[0]])
    by_column = {
        4: density(4, np.arange(5.0)).sum(),
        2: density(2, np.arange(2.0)).sum(),
        0: density(0, outputs[0, LOC[0]] + reach * nodes) @ weights * reach,
    }
    for column, total in by_column.items():
        np.testing.assert_allclose(total, density(column, np.array([NAN]))[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("categories", "one", "values"),
    [
        (0, lambda o: distributions.Normal(o[:, :1], o[:, 1:]), [[0.3], [-2.0], [1.5]]),
        (2, lambda o: distributions.Bernoulli(o[:, :1]), [[0.0], [1.0], [1.0]]),
        (4, lambda o: distributions.Categorical(o[:, None]), [[0.0], [1 / 3], [1.0]]),
    ],
    ids=["Normal", "Bernoulli", "Categorical"],
)
def test_a_table_of_one_column_is_that_distribution(categories, one, values):
    outputs = jnp.asarray(np.random.default_rng(1).normal(size=(3, max(categories, 2))), jnp.float32)
    values = np.asarray(values, np.float32)
    codes = np.rint(values * (categories - 1)) if categories else values
    x = np.stack([encoded(row, (categories,)) for row in codes])
    np.testing.assert_allclose(log_prob(Tabular(outputs, (categories,)), x), log_prob(one(outputs), values), rtol=1e-6)


def test_kl_has_no_closed_form_here():
    assert Q.kl(Q) is NotImplemented


# --- samples and means ---


@pytest.fixture(scope="module")
def draws() -> np.ndarray:
    """`[DRAWS, B, F]`, float64."""
    return np.asarray(jax.jit(jax.vmap(Q.sample))(jax.random.split(jax.random.key(0), DRAWS)), np.float64)


def test_mean_of_samples_is_the_mean(draws):
    assert_mean(draws, mean(Q))


def test_the_mean_is_that_of_whole_rows():
    outputs = OUTPUTS.astype(np.float64)
    expected = np.ones((B, WIDTH))
    expected[:, LOC], expected[:, LOGIT] = outputs[:, LOC], special.expit(outputs[:, LOGIT])
    for choice in CHOICES:
        expected[:, choice] = special.softmax(outputs[:, choice], axis=1)
    np.testing.assert_allclose(mean(Q), expected, rtol=1e-5)


def test_numbers_have_their_scale(draws):  # mistake 5, mistake 6
    assert_mean((draws[..., LOC] - OUTPUTS[:, LOC]) ** 2, np.exp(2.0 * OUTPUTS[:, SCALE]))


def test_columns_and_rows_share_no_noise(draws):
    centred = (draws[..., [*LOC, *LOGIT, 2, 9, 14]] - np.asarray(mean(Q))[:, [*LOC, *LOGIT, 2, 9, 14]]).reshape(
        DRAWS, -1
    )
    assert_mean(centred[:, :-1] * centred[:, 1:], 0.0)


def test_samples_are_the_features_of_whole_rows(draws):
    """Every entry is there; bits are bits, and exactly one category is chosen."""
    np.testing.assert_array_equal(draws[..., [*SCALE, *UNUSED]], 1.0)
    assert set(np.unique(draws[..., LOGIT])) == {0.0, 1.0}
    for choice in CHOICES:
        np.testing.assert_array_equal(np.sort(draws[..., choice])[..., -2:], np.broadcast_to([0.0, 1.0], (DRAWS, B, 2)))


def test_a_draw_is_a_function_of_its_key():  # mistake 8
    first, again, other = (np.asarray(sample(Q, jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# --- the likelihood ---

LIKELIHOOD = likelihoods.Tabular(COLUMNS)


def test_scales_are_bounded_and_nothing_else_is():  # mistake 14
    raw = jnp.asarray([[-1e4], [0.3], [1e4]]) * jnp.ones((1, WIDTH))
    outputs = np.asarray(LIKELIHOOD({}, raw[..., None]).outputs)
    low, high = likelihoods.SCALE_RANGE
    np.testing.assert_allclose(outputs[[0, 2]][:, SCALE], [[low, low], [high, high]], atol=1e-4)
    others = np.delete(np.arange(WIDTH), SCALE)
    np.testing.assert_array_equal(outputs[:, others], np.asarray(raw)[:, others])


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_extreme_outputs_give_finite_values_and_gradients(extreme):  # mistake 10, mistake 11, mistake 14
    raw = extreme * jnp.sign(jnp.asarray(OUTPUTS))[..., None]

    def everything(raw):
        q = LIKELIHOOD({}, raw)
        return q.log_prob(X).sum() + q.mean().sum(), (q.log_prob(X), q.mean(), q.sample(jax.random.key(0)))

    gradient, results = jax.jit(jax.grad(everything, has_aux=True))(raw)
    assert all(np.isfinite(a).all() for a in (gradient, *results))
    assert (gradient != 0).any()


def test_every_output_has_a_gradient_but_the_one_that_bits_do_not_use():  # mistake 28
    whole = jnp.asarray(np.repeat(encoded(ROWS[0])[None], B, axis=0))
    gradient = jax.jit(jax.grad(lambda raw: LIKELIHOOD({}, raw).log_prob(whole).sum()))(jnp.asarray(OUTPUTS)[..., None])
    silent = (np.asarray(gradient)[..., 0] == 0).all(axis=0)
    np.testing.assert_array_equal(np.flatnonzero(silent), UNUSED)


def test_accepts_features_and_refuses_what_is_no_number():  # mistake 13
    LIKELIHOOD.support.check(np.asarray(X), "data")
    with pytest.raises(InputError, match="data: got 14 values that are NaN or infinite"):
        LIKELIHOOD.support.check(ROWS, "data")


def test_its_columns_must_be_known():
    with pytest.raises(InputError, match=r"Tabular columns: got \(\), .*; write tables.likelihood\(") as error:
        likelihoods.Tabular()({}, jnp.zeros((1, 2, 1)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(1, 3, 1), (1, 5), (1, 5, 1, 1), (1, 5, 2)])
def test_its_columns_must_be_those_of_the_features(shape):
    with pytest.raises(InputError, match=r"features of a table .*expected \(5,\)"):
        likelihoods.Tabular((0, 3))({}, jnp.zeros(shape))


@pytest.mark.parametrize("columns", [(1,), (0, -1), (0, 3, 1)])
def test_impossible_columns_are_refused(columns):
    with pytest.raises(InputError, match=r"expected (0 for numbers, else 2 or more categories|at least 0)"):
        likelihoods.Tabular(columns)


@pytest.mark.parametrize("counts", [((1, 0.0, 0.5),), ((0, 0.0, 0.0),), ((5, 0.0, 1.0),)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(InputError, match=r"Tabular counts: .*expected places of numbers, each with a step > 0"):
        likelihoods.Tabular((0, 3), counts)


@pytest.mark.parametrize("count", [(-1, 0.0, 1.0), (0, 0.0, 0.0), (0, 0.0, -0.5)])
def test_impossible_counts_are_refused_before_the_columns_are_known(count):
    assert likelihoods.Tabular((), ((7, 0.0, 0.5),)).counts == ((7, 0.0, 0.5),)
    with pytest.raises(InputError, match=r"Tabular counts: .*expected places of numbers, each with a step > 0"):
        likelihoods.Tabular((), ((0, 0.0, 1.0), count))


def test_counts_may_be_given_in_any_order():
    counts = ((2, -200.5, 0.1), (0, -0.7, 0.35))
    one, other = (likelihoods.Tabular((0, 3, 0), given)({}, jnp.zeros((1, 7, 1))) for given in (counts, counts[::-1]))
    assert one.columns == other.columns == (table_layout.COUNT, 3, table_layout.COUNT)
    assert one.counts == other.counts == ((-0.7, 0.35), (-200.5, 0.1))


# --- counts ---

COUNTS = ((-0.7, 0.35), (-200.5, 0.1))  # such as children, and years
LOC_SCALE = np.float32([[-0.7, -2.5, 0.1, -1.0], [0.3, 0.5, -2.0, -4.0], [-3.0, -0.5, 300.0, 2.0]])  # [B, 2 K]


def counted(k: np.ndarray) -> np.ndarray:
    """The features of counts `[B, 2]`."""
    value = [zero + step * k[:, i] for i, (zero, step) in enumerate(COUNTS)]
    return np.stack([value[0], np.ones(len(k)), value[1], np.ones(len(k))], axis=1).astype(np.float32)


def counts_of(outputs: np.ndarray) -> Tabular:
    return Tabular(jnp.asarray(outputs), (table_layout.COUNT, table_layout.COUNT), COUNTS)


def test_counts_have_the_mass_of_a_rounded_logistic():  # mistake 36, mistake 37
    k = np.array([[0, 2003], [1, 1985], [4, 0]])
    expected = np.zeros(3)
    for i, (zero, step) in enumerate(COUNTS):
        edges = zero + step * (k[:, i, None] + [-0.5, 0.5])
        below = stats.logistic(LOC_SCALE[:, None, 2 * i], np.exp(LOC_SCALE[:, None, 2 * i + 1])).cdf(edges)
        expected += np.log(below[:, 1] - np.where(k[:, i] == 0, 0.0, below[:, 0]))
    np.testing.assert_allclose(log_prob(counts_of(LOC_SCALE), counted(k)), expected, rtol=2e-4)


def test_the_lowest_count_is_known_however_its_place_is_rounded():
    """Standardised counts of many means and scales, each at its three lowest values under a logistic as wide as a step:
    the lowest has all that lies below 1/2, whatever float32 makes of (value - origin) / step.
    """
    generator = np.random.default_rng(0)
    means, scales = generator.uniform(0, 60, 300), np.exp(generator.uniform(-1, 4, 300))
    zeros, steps = -means / scales, 1 / scales
    outputs = np.stack([zeros, np.log(steps)], axis=1).reshape(1, -1).astype(np.float32)
    q = Tabular(
        jnp.asarray(outputs), (table_layout.COUNT,) * 300, tuple(zip(zeros.tolist(), steps.tolist(), strict=True))
    )
    for k, expected in enumerate(np.log(np.diff(stats.logistic.cdf([-np.inf, 0.5, 1.5, 2.5])))):
        x = np.zeros((300, 300, 2), np.float32)  # row i has an entry in column i alone
        x[range(300), range(300)] = np.stack([zeros + k * steps, np.ones(300)], axis=1)
        np.testing.assert_allclose(log_prob(repeated(q, 300), x.reshape(300, -1)), expected, rtol=2e-3, err_msg=str(k))
    above = stats.logistic.sf(np.arange(60) + 0.5).sum()  # of counts above 0, 1, ...
    np.testing.assert_allclose((np.asarray(mean(q))[0, ::2] - zeros) / steps, above, rtol=2e-3)


def test_masses_of_counts_sum_to_one():
    k = np.stack([np.arange(6000), np.zeros(6000)], axis=1)
    x = counted(k)
    x[:, 2:] = 0.0  # missing
    for outputs in LOC_SCALE:
        total = np.exp(np.asarray(log_prob(repeated(counts_of(outputs[None]), 6000), x), np.float64)).sum()
        np.testing.assert_allclose(total, 1.0, atol=1e-4)


def test_samples_of_counts_are_whole_and_their_mean_is_the_mean():
    q = counts_of(LOC_SCALE)
    found = np.asarray(jax.jit(jax.vmap(q.sample))(jax.random.split(jax.random.key(0), 20_000)), np.float64)
    zero, step = np.array(COUNTS).T
    k = (found[..., [0, 2]] - zero) / step
    np.testing.assert_allclose(k, np.rint(k), atol=2e-3)
    assert k.min() > -0.01
    assert (np.rint(k[..., 0]) == 0).mean(axis=0)[2] > 0.9  # most of that logistic lies below 0
    expected = np.asarray(mean(q), np.float64)
    error = found.std(axis=0) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - expected) <= 5 * error + 1e-4)[:, [0, 2]].all()


@pytest.mark.parametrize("log_scale", [-6.0, -2.0, -0.4, -0.3, 0.5, 2.0])  # on both sides of where the formula changes
def test_means_of_counts_are_sums_over_their_masses(log_scale):
    outputs = np.float32([[loc, log_scale, 0.0, 0.0] for loc in (-2.0, -0.7, -0.5, 1.03)])
    zero, step = COUNTS[0]
    above = stats.logistic(outputs[:, :1], np.exp(log_scale)).sf(zero + step * (np.arange(20_000) + 0.5))
    np.testing.assert_allclose(mean(counts_of(outputs))[:, 0], zero + step * above.sum(axis=1), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_counts_with_extreme_outputs_stay_finite(extreme):  # mistake 10, mistake 14
    raw = extreme * jnp.sign(jnp.asarray(LOC_SCALE))[..., None]
    model = likelihoods.Tabular((0, 0), tuple((i, *pair) for i, pair in enumerate(COUNTS)))
    x = jnp.asarray(counted(np.array([[0, 2003], [1, 1985], [4, 0]])))
    value, gradient = jax.jit(jax.value_and_grad(lambda raw: model({}, raw).log_prob(x).sum()))(raw)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


# --- the squared error ---


def test_squared_error_is_the_mean_over_all_elements():
    q = distributions.Normal(jnp.asarray(OUTPUTS), jnp.zeros((B, WIDTH)))
    expected = jax.jit(lambda x: ((q.mean() - x) ** 2).reshape(B, -1).mean(axis=-1))(X)
    np.testing.assert_array_equal(jax.jit(bounds.squared_error)(q, X), expected)


def test_squared_error_of_a_table_counts_what_is_observed_alone():
    """Numbers, bits and choices; neither the marks of observation nor anything of a missing entry."""
    data = np.delete(np.arange(WIDTH), [*SCALE, *UNUSED])
    squares = (np.asarray(mean(Q), np.float64) - np.asarray(X)) ** 2
    counted = ~missing_features()[:, data]
    expected = [s[c].mean() if c.any() else 0.0 for s, c in zip(squares[:, data], counted, strict=True)]
    np.testing.assert_allclose(jax.jit(bounds.squared_error)(Q, X), expected, rtol=1e-5)
    weights = np.asarray(Q.observed(X))
    np.testing.assert_array_equal(weights[:, data], counted)
    np.testing.assert_array_equal(np.delete(weights, data, axis=1), 0.0)


def test_what_is_reported_is_that_error():
    """In evaluation at the mean of q(z|x), and as an autoencoder's metric; a table without entries has none."""
    model = VAE(2, architectures.MLP(()), LIKELIHOOD, event_shape=(WIDTH,))
    params = random_params(model)

    @jax.jit
    def reported(x, key):
        terms = bounds.bound_terms(model, params, x, key)
        metrics = objectives.ReconstructionError()(model, params, x, jax.random.clone(key), 0)[1]
        q = model.encode(params, x)
        at_mean, at_sample = (model.decode(params, z) for z in (q.mean(), q.sample(jax.random.clone(key))))
        errors = bounds.squared_error(at_mean, x), bounds.squared_error(at_sample, x)
        return terms["mse_at_mean"], metrics["mse"], *errors

    at_mean, mse, expected_at_mean, expected = reported(X, jax.random.key(0))
    np.testing.assert_allclose(at_mean, expected_at_mean, rtol=1e-6)
    np.testing.assert_allclose(mse, expected.mean(), rtol=1e-6)
    assert at_mean[3] == 0.0
    assert (at_mean[:3] > 0).all()


# --- the layout, by itself ---


def test_columns_of_one_kind_are_computed_together_each_with_its_own_features():
    found = table_layout.groups((2, 0, 3, 0, table_layout.COUNT))
    assert [(g.categories, g.columns.tolist(), g.slots.tolist()) for g in found] == [
        (table_layout.COUNT, [4], [[9, 10]]),
        (0, [1, 3], [[2, 3], [7, 8]]),
        (2, [0], [[0, 1]]),
        (3, [2], [[4, 5, 6]]),
    ]
    x = np.arange(22.0).reshape(2, 11)
    again = table_layout.joined((2, 0, 3, 0, table_layout.COUNT), [x[:, g.slots] for g in found])
    assert type(again) is np.ndarray
    np.testing.assert_array_equal(again, x)


def test_numbers_and_counts_have_log_scales_and_no_code_has():
    np.testing.assert_array_equal(table_layout.log_scales((0, 3, 2, 0)), [0, 1, 0, 0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(table_layout.log_scales((table_layout.COUNT, 2)), [0, 1, 0, 0])


def test_an_entry_is_there_by_its_mark_or_by_a_category():
    """A code of 1 or a large value is no mark; a mark is one, whatever the value."""
    pairs = np.array([[[1.0, 0.0], [7.0, 0.0], [0.0, 1.0], [-3.0, 1.0]]])
    np.testing.assert_array_equal(table_layout.observed(2, pairs), [[False, False, True, True]])
    np.testing.assert_array_equal(table_layout.observed(0, pairs), [[False, False, True, True]])
    choices = np.array([[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    np.testing.assert_array_equal(table_layout.observed(3, choices), [[True, True, False]])


@pytest.mark.parametrize(
    ("columns", "measure"),
    [
        ((0, 0), "density"),
        ((table_layout.COUNT,), "mass"),
        ((2, 3), "mass"),
        ((0, 3), "density and mass"),
        ((table_layout.COUNT, 0), "density and mass"),
    ],
)
def test_a_table_says_what_its_log_prob_is_the_logarithm_of(columns, measure):
    assert Tabular(jnp.zeros((1, table_layout.feature_count(columns))), columns).measure == measure


def test_means_of_counts_are_exact_to_the_last_terms_of_their_formulas():
    """In float64, just below and just above a scale of 2, near to the lowest value and far from it."""
    scales, zeros = np.array([1.99, 2.01, 2.5]), np.array([[-0.7], [-200.5]])
    places, steps = np.array([[-0.6], [-100.5]]), np.array([[0.35], [0.1]])
    outputs = np.stack([np.stack([p + 0 * scales, np.log(scales * s)]) for p, s in zip(places, steps, strict=True)])
    sums = [
        zero + step * stats.logistic(place, scale * step).sf(zero + step * (np.arange(20_000) + 0.5)).sum()
        for zero, place, step in zip(zeros[:, 0], places[:, 0], steps[:, 0], strict=True)
        for scale in scales
    ]
    jax.clear_caches()  # else an index of 32 bits may be met that an earlier test traced
    with jax.enable_x64(True):
        q = Tabular(jnp.asarray(outputs.reshape(4, 3).T), (table_layout.COUNT,) * 2, COUNTS)
        ours = np.asarray(mean(q))[:, [0, 2]].T
    np.testing.assert_allclose(ours, np.reshape(sums, (2, 3)), atol=1e-6)
