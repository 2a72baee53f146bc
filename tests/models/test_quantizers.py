"""Codebooks follow what the encoder gives, as k-means does; and what is no quantizer is refused."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from sklearn.cluster import KMeans

from aevae_jax.models import VQVAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Normal
from aevae_jax.models.quantizers import FSQ, Codebook
from aevae_jax.objectives.quantization import VQ
from aevae_jax.training import step as training
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

CENTRES = np.array([[4.0, 0.0], [-4.0, 1.0], [0.0, 5.0], [1.0, -6.0]])
POINTS = (
    (CENTRES[:, None] + 0.3 * np.random.default_rng(0).normal(size=(4, 15, 2))).reshape(30, 2, 2).astype(np.float32)
)
LATENT = (2, 2)


@partial(jax.jit, static_argnums=0)
def adapted(quantizer, params, raw, key):
    return {**params, "statistics": quantizer.adapted(params, quantizer(params, raw), key)}


def followed(quantizer, batches, latent=LATENT, seed=0):
    """The parameters after each of some batches of outputs."""
    params, found = quantizer.init(latent), []
    for number, raw in enumerate(batches):
        params = adapted(quantizer, params, jnp.asarray(raw), jax.random.fold_in(jax.random.key(seed), number))
        found.append(params)
    return found


def table(params):
    return np.asarray(params["statistics"]["codebook"], np.float64)


def in_order(rows):
    return rows[np.lexsort(np.round(rows, 3).T)]


# --- what k-means says ---


def test_a_codebook_begins_at_one_output_of_each_cluster():
    """Draws in proportion to the squared distance find all of them, where draws of any would find them 1 time in 10."""
    rows = POINTS.reshape(-1, 2)
    for seed in range(5):
        [params] = followed(Codebook(4), [POINTS], seed=seed)
        begun = table(params)[0]
        assert all((rows == row).all(axis=1).any() for row in begun)
        assert sorted(((begun[:, None] - CENTRES) ** 2).sum(axis=-1).argmin(axis=1)) == [0, 1, 2, 3]


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_moving_averages_reach_the_optimum_of_k_means(decay):
    rows = POINTS.reshape(-1, 2)
    best = KMeans(4, n_init=10, random_state=0).fit(rows.astype(np.float64))
    params = followed(Codebook(4, decay=decay), [POINTS] * (4 if decay == 0 else 120))[-1]
    np.testing.assert_allclose(in_order(table(params)[0]), in_order(best.cluster_centers_), atol=1e-4)
    q = Codebook(4)(params, jnp.asarray(POINTS))
    np.testing.assert_allclose(q.commitment().sum(), best.inertia_, rtol=1e-4)


def test_gradients_reach_the_same_optimum():
    quantizer = Codebook(4, learning="gradient")
    params, tx = followed(quantizer, [POINTS])[0], optax.sgd(2.0)

    @jax.jit
    def descend(params, state):
        def error(own):
            return quantizer({**params, "codebook": own}, jnp.asarray(POINTS)).codebook_error().mean() / 2

        updates, state = tx.update(jax.grad(error)(params["codebook"]), state)
        return {**params, "codebook": optax.apply_updates(params["codebook"], updates)}, state

    state = tx.init(params["codebook"])
    for _ in range(60):
        params, state = descend(params, state)
    best = KMeans(4, n_init=10, random_state=0).fit(POINTS.reshape(-1, 2).astype(np.float64))
    found = np.asarray(quantizer.book(params).table, np.float64)[0]
    np.testing.assert_allclose(in_order(found), in_order(best.cluster_centers_), atol=1e-3)


def test_means_of_what_is_nearest_are_left_where_they_are():
    """The fixed points of k-means are those of moving averages."""
    quantizer = Codebook(4, decay=0.7)
    params = followed(quantizer, [POINTS])[0]
    means = np.asarray([POINTS.reshape(4, 15, 2)[k].mean(axis=0) for k in range(4)])
    params["statistics"]["codebook"] = jnp.asarray(means[None], jnp.float32)
    after = adapted(quantizer, params, jnp.asarray(POINTS), jax.random.key(3))
    np.testing.assert_allclose(table(after)[0], means, atol=1e-6)


def test_vectors_are_averages_of_sums_over_averages_of_counts():
    """The two averages of van den Oord et al. 2017, appendix A.1, from the step on at which the codebook begins."""
    quantizer, random = Codebook(3, decay=0.8, revival=0), np.random.default_rng(5)
    batches = random.normal(size=(12, 10, 2, 2)).astype(np.float32)
    found = followed(quantizer, batches)
    counts, sums, book = np.zeros(3), np.zeros((3, 2)), table(found[0])[0]
    for raw, params in zip(batches[1:], found[1:], strict=True):
        rows = raw.reshape(-1, 2).astype(np.float64)
        nearest = ((rows[:, None] - book) ** 2).sum(axis=-1).argmin(axis=1)
        hot = np.eye(3)[nearest]
        counts, sums = 0.8 * counts + 0.2 * hot.sum(axis=0), 0.8 * sums + 0.2 * hot.T @ rows
        book = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1e-9)[:, None], book)
        np.testing.assert_allclose(table(params)[0], book, atol=1e-5)


def test_a_batch_with_every_example_twice_says_the_same():
    quantizer = Codebook(4, 2)
    params = followed(quantizer, [POINTS] * 3, (2, 4))[-1]
    key = jax.random.key(9)
    one, two = (adapted(quantizer, params, jnp.asarray(x), key) for x in (POINTS, np.concatenate([POINTS, POINTS])))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, two)


# --- codes that are not used ---


def spreading(steps=100):
    """Outputs of an encoder in training: at first of one place, then of ten."""
    random = np.random.default_rng(2)
    angle = 2 * np.pi * np.arange(10) / 10
    places = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for step in range(steps):
        rows = min(1.0, step / 10) * 5 * places[random.integers(0, 10, 64)] + 0.1 * random.normal(size=(64, 2))
        yield rows.reshape(32, 2, 2).astype(np.float32)


def dead(quantizer):
    """The share of codes that no output of the last epoch, of five batches, is nearest to: 20 epochs in all."""
    batches = list(spreading())
    params = followed(quantizer, batches)[-1]
    used = np.unique(np.asarray(quantizer(params, jnp.asarray(np.concatenate(batches[-5:]))).index))
    return 1 - len(used) / quantizer.codes


@pytest.mark.parametrize("learning", ["averages", "gradient"])
def test_codes_that_are_not_used_begin_again(learning):
    """After 20 epochs none is dead where, without that, three of ten and more are."""
    quantizer = Codebook(10, learning=learning, revival=5)
    assert dead(quantizer) == 0
    assert dead(dataclasses.replace(quantizer, revival=0)) >= 0.3


@pytest.mark.parametrize("learning", ["averages", "gradient"])
def test_codes_begin_again_after_so_many_steps_without_use_and_where_outputs_are_far_from_codes(learning):
    """Far from where they are, with what gradients have added; and as if they had never been used."""
    quantizer = Codebook(2, learning=learning, decay=0.5, revival=3)
    params = followed(quantizer, [POINTS])[0]
    codes, moved = np.array([[[0.0, 0.0], [100.0, 100.0]]]), np.zeros((1, 2, 2))
    if learning == "gradient":
        moved = np.array([[[3.0, 4.0], [-1.0, 2.0]]])
        params["codebook"] = {"moved": jnp.asarray(moved, jnp.float32)}
    params["statistics"]["codebook"] = jnp.asarray(codes - moved, jnp.float32)
    params["statistics"]["share"] = jnp.full((1, 2), 0.5)
    raw = np.zeros((8, 2, 2), np.float32)
    raw[0, 0] = [3.0, 4.0]  # all others are at the first code
    for step in range(3):
        assert (table(params) + moved)[0, 1].tolist() == [100, 100]
        params = adapted(quantizer, params, jnp.asarray(raw), jax.random.key(step))
    assert (table(params) + moved)[0, 1].tolist() == [3, 4]
    assert params["statistics"]["unused"][0].tolist() == [0, 0]
    assert params["statistics"]["share"][0, 1] == 0 < params["statistics"]["share"][0, 0]


def test_more_codes_than_outputs_are_no_trouble():
    params = followed(Codebook(50, revival=1), [POINTS[:3]] * 4)[-1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


# --- levels ---


def test_levels_begin_one_after_the_other_at_what_those_before_them_leave():
    first, second, third = followed(Codebook(4, 2, revival=0), [POINTS] * 3, (2, 4))
    assert table(first)[0].any()
    assert not table(first)[1].any()
    left = POINTS.reshape(-1, 2)[:, None] - table(first)[0].astype(np.float32)
    of_nearest = left[np.arange(60), (left**2).sum(axis=-1).argmin(axis=1)]
    assert all(np.isclose(of_nearest, row, atol=1e-6).all(axis=1).any() for row in table(second)[1])
    errors = [float(((q := Codebook(4, 2)(p, jnp.asarray(POINTS))).left[:, :, 1] ** 2).sum()) for p in (first, third)]
    whole = float(((q.left[:, :, 1] - q.entry[:, :, 1]) ** 2).sum())
    assert whole < errors[1] <= errors[0]


def test_a_code_has_its_levels_side_by_side_and_the_decoder_sees_their_sum():
    quantizer = Codebook(4, 2)
    params = followed(quantizer, [POINTS] * 3, (2, 4))[-1]
    q = quantizer(params, jnp.asarray(POINTS))
    np.testing.assert_array_equal(q.code[:, :, :2], q.entry[:, :, 0])
    np.testing.assert_array_equal(q.code[:, :, 2:], q.entry[:, :, 1])
    np.testing.assert_allclose(quantizer.merged(q.code), q.entry.sum(axis=2), rtol=1e-6)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("gradient", ["straight_through", "rotated"])
def test_what_the_decoder_sees_passes_its_gradient_to_the_outputs(levels, gradient):
    quantizer = Codebook(4, levels, gradient=gradient)
    params = followed(quantizer, [POINTS] * 3, (2, 2 * levels))[-1]
    raw = jnp.asarray(POINTS[:1])
    jacobian = jax.jit(jax.jacrev(lambda raw: quantizer.merged(quantizer(params, raw).code)))(raw).reshape(4, 4)
    if gradient == "straight_through":
        np.testing.assert_array_equal(jacobian, np.eye(4))
        return
    sums = np.asarray(quantizer.merged(quantizer(params, raw).code)).reshape(4)
    np.testing.assert_allclose(jacobian @ raw.reshape(4), sums, rtol=1e-4)  # outputs are turned to the sum


# --- what gradients train ---

MODEL = VQVAE((2, 2), MLP(()), Normal(), Codebook(3, learning="gradient"), event_shape=(4,))


@pytest.mark.parametrize("levels", [1, 2])
def test_each_term_trains_what_it_should(levels):
    """The distortion encoder and decoder, the commitment the encoder, the codebook's error the codebook."""
    quantizer = Codebook(3, levels, learning="gradient")
    model = dataclasses.replace(MODEL, latent=(2, 2 * levels), quantizer=quantizer)
    params = oracles.random_params(model)
    for step in range(levels):
        params = {**params, **adapted(quantizer, params, jnp.asarray(POINTS), jax.random.key(1 + step))}
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)

    def gradient_of(term):
        def loss(params):
            return term(model.encode(params, x), params).mean()

        found = jax.jit(jax.grad(loss, allow_int=True))(params)
        return {name for name in ("encoder", "decoder", "codebook") if any(map(np.any, jax.tree.leaves(found[name])))}

    assert gradient_of(lambda q, p: -model.decode(p, q.code).log_prob(x)) == {"encoder", "decoder"}
    assert gradient_of(lambda q, p: q.commitment()) == {"encoder"}
    assert gradient_of(lambda q, p: q.codebook_error()) == {"codebook"}


@pytest.mark.parametrize("learning", ["averages", "gradient"])
def test_weight_decay_does_not_see_the_codebook(learning):
    """Where no gradient reaches it, it stays: mistake 46."""
    model = dataclasses.replace(MODEL, quantizer=Codebook(3, learning=learning, decay=0.99))
    tx = AdamW(0.1, weight_decay=0.5).build(5)
    state = jax.jit(partial(training.init_state, model, tx))(jax.random.key(0))
    params = {**state.params, **adapted(model.quantizer, state.params, jnp.asarray(POINTS), jax.random.key(1))}

    def still(model, params, x, key, step):
        return 0.0 * x.sum() + 0.0 * model.encode(params, x).codebook_error().sum(), {}, params["statistics"]

    before = np.asarray(model.book(params).table)
    after, _ = jax.jit(training.make_train_step(model, still, tx))(
        state._replace(params=params), jnp.ones((3, 4)), jax.random.key(0)
    )
    np.testing.assert_array_equal(model.book(after.params).table, before)
    assert (np.asarray(after.params["encoder"]["out"]["kernel"]) != state.params["encoder"]["out"]["kernel"]).any()


@pytest.mark.slow
def test_seeds_have_codebooks_each():
    """Under `vmap` each is what it is alone."""
    model = dataclasses.replace(MODEL, quantizer=Codebook(3, revival=1))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)

    def three_steps(key):
        tx = optax.sgd(0.1)
        step, state = training.make_train_step(model, VQ(), tx), training.init_state(model, tx, key)
        state = jax.lax.fori_loop(0, 3, lambda _, state: step(state, x, key)[0], state)
        return state.params["statistics"]

    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.jit(jax.vmap(three_steps))(keys)
    for number in range(2):
        alone = jax.jit(three_steps)(keys[number])
        jax.tree.map(lambda a, b, i=number: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-6), together, alone)


# --- FSQ ---


def test_numbers_are_rounded_to_all_levels_and_no_other():
    quantizer = FSQ((8, 5, 2))
    raw = np.linspace(-9, 9, 400, dtype=np.float32)[:, None, None] * np.ones(3, np.float32)
    q = jax.jit(lambda raw: quantizer({}, raw))(raw)
    for column, size in enumerate((8, 5, 2)):
        found = np.unique(np.asarray(q.code)[..., column])
        np.testing.assert_allclose(found, (np.arange(size) - size // 2) / (size // 2), atol=1e-6)
    assert (np.diff(np.asarray(q.code)[:, 0], axis=0) >= 0).all()

    @jax.jit
    def slopes_of(raw):
        return quantizer({}, raw).code, jax.jacrev(lambda raw: quantizer({}, raw).code)(raw)

    code, jacobian = map(np.asarray, slopes_of(jnp.zeros((1, 1, 3))))
    np.testing.assert_array_equal(code[0, 0, :2], [0, 0])
    jacobian = jacobian.reshape(3, 3)
    half = np.array([7, 4, 1]) * 1.001 / 2
    shift = np.arctanh(np.array([0.5, 0, 0.5]) / half)
    slopes = half * (1 - np.tanh(shift) ** 2) / (np.array([8, 5, 2]) // 2)  # that of the bounded number
    np.testing.assert_allclose(jacobian, np.diag(slopes), rtol=1e-4)


# --- what is refused ---


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Codebook(0), r"codes \(Codebook\): got 0, expected 1 to 16777216"),
        (lambda: Codebook(levels=0), r"levels \(Codebook\): got 0"),
        (lambda: Codebook(decay=1.0), r"decay \(Codebook\): got 1.0, expected less than 1"),
        (lambda: FSQ(()), r"levels \(FSQ\): got \(\)"),
        (lambda: FSQ((1, 5)), r"levels \(FSQ\): got 1, expected at least 2"),
        (lambda: FSQ((2**20, 2**20)), r"codes \(FSQ\)"),
        (
            lambda: VQVAE((7, 7, 3), quantizer=FSQ()),
            r"latent \(FSQ\(\(8, 5, 5, 5\)\)\): got \(7, 7, 3\), expected \(7, 7, 4\): vectors of 4 numbers",
        ),
        (lambda: VQVAE((7, 7, 3), quantizer=Codebook(levels=2)), r"latent \(Codebook\(levels=2\)\): got \(7, 7, 3\)"),
        (
            lambda: VQVAE((2, 4), quantizer=Codebook(9)).check_examples(4),
            "codes of the Codebook: got 9, expected at most 8, as 4 training examples have 2 vectors each",
        ),
    ],
)
def test_what_is_no_quantizer_is_refused(build, message):
    with pytest.raises(InputError, match=message) as error:
        build()
    assert len(str(error.value)) <= 200


def test_a_codebook_of_as_many_codes_as_vectors_is_taken():
    VQVAE((2, 4), quantizer=Codebook(8)).check_examples(4)
    VQVAE((2, 4), quantizer=FSQ()).check_examples(1)
