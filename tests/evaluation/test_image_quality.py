"""How good pictures are: measures with known values."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from aevae_jax import data, training, values
from aevae_jax.evaluation import classifiers, image_quality, statistics
from aevae_jax.models.architectures import MLP, Conv
from aevae_jax.types import InputError

RNG = np.random.default_rng(0)


def test_two_halves_of_one_set_are_alike():
    a, b = RNG.normal(size=(2, 600, 4))
    found = statistics.manifold(a, b)
    assert all(value > 0.85 for value in found)
    assert found.density == pytest.approx(1, abs=0.15)


def test_far_sets_share_nothing():
    a = RNG.normal(size=(200, 3))
    assert tuple(statistics.manifold(a, a + 100)) == (0, 0, 0, 0)


def test_samples_of_one_mode_are_precise_and_cover_half():
    two = np.concatenate([RNG.normal(size=(300, 3)), RNG.normal(size=(300, 3)) + 50])
    one = RNG.normal(size=(600, 3))
    found = statistics.manifold(two, one)
    assert found.precision > 0.9
    assert found.recall == pytest.approx(0.5, abs=0.06)
    assert found.coverage == pytest.approx(0.5, abs=0.06)


def test_an_outlier_raises_precision_but_not_density():
    """A single far point of the data has a ball that holds everything: Naeem et al. 2020."""
    a, b = RNG.normal(size=(200, 2)), RNG.normal(size=(200, 2)) + 8
    far = np.concatenate([a, [[60.0, 60.0]]])
    found = statistics.manifold(far, b)
    assert found.precision > 0.9
    assert found.density < 0.3
    assert found.coverage < 0.1


def test_by_hand_on_a_line():
    """Balls of radius 1 around 0, 1, 2, 3 and of 0.5 around the samples."""
    data_, samples = np.array([[0.0], [1], [2], [3]]), np.array([[0.5], [1.0], [9.0], [9.5]])
    found = statistics.manifold(data_, samples, neighbours=1)
    assert found == (0.5, 0.5, (2 + 3) / 4, 0.75)


@pytest.mark.parametrize(
    ("neighbours", "message"),
    [(0, "neighbours: got 0"), (4, "neighbours: got 4, expected 1 to 3, less than the number")],
)
@pytest.mark.parametrize("counts", [(4, 5), (5, 4)])
def test_neighbours_must_be_there(neighbours, message, counts):
    with pytest.raises(InputError, match=message):
        statistics.manifold(*(np.zeros((count, 2)) for count in counts), neighbours)
    assert statistics.manifold(*(np.zeros((count, 2)) for count in counts), 3).coverage == 1


def test_reconstructions_pixel_by_pixel():
    images = RNG.random((3, 9, 9, 1)).astype(np.float32) * 0.5
    found = image_quality.of_reconstructions(images, images + np.float32(0.1))
    np.testing.assert_allclose(found.mse, 0.01, rtol=1e-5)
    np.testing.assert_allclose(found.psnr, 20, rtol=1e-5)
    same = image_quality.of_reconstructions(images, images)
    assert (same.psnr == np.inf).all()
    np.testing.assert_allclose(same.ssim, 1)
    assert (found.ssim < 0.99).all()
    assert image_quality.of_reconstructions(images[:, :5, :5], images[:, :5, :5]).ssim is None


def test_each_image_has_measures_of_its_own():
    """The second image is off by 0.1 in one of its 49 pixels; the first one is perfect."""
    images = np.full((2, 7, 7, 1), 0.5)
    others = images.copy()
    others[1, 3, 3] += 0.1
    found = image_quality.of_reconstructions(images, others)
    np.testing.assert_allclose(found.mse, [0, 0.01 / 49])
    np.testing.assert_allclose(found.psnr, [np.inf, 20 + 10 * np.log10(49)])
    assert found.ssim.shape == (2,)  # as small as its window
    assert found.ssim[0] == pytest.approx(1)
    assert found.ssim[1] < 0.99
    for rows, columns in ((6, 9), (9, 6)):
        small = np.zeros((1, rows, columns, 3))
        assert image_quality.of_reconstructions(small, small).ssim is None


def test_a_range_has_a_smaller_end_first():
    images = np.zeros((1, 8, 8, 1))
    for data_range in ((1.0, 0.0), (0.0, 0.0)):
        with pytest.raises(InputError, match=r"range of the data: got [01] to 0, expected two values, the smaller one"):
            image_quality.of_reconstructions(images, images, data_range=data_range)
    with pytest.raises(InputError, match=r"images: got values from 0 to 0, expected values in \[0.5, 2\]"):
        image_quality.of_reconstructions(images, images, data_range=(0.5, 2.0))
    image_quality.of_reconstructions(images, images + 2.0, data_range=(0.0, 2.0))  # both ends belong to it


def test_squared_errors_are_taken_in_float64_and_the_peak_is_the_width_of_the_range():
    """Of even images SSIM is (2 a b + c) / (a^2 + b^2 + c), c = (0.01 times the width)^2: Wang et al. 2004."""
    a, b = np.float32(0.1), np.float32(0.3)
    images, others = (np.full((1, 7, 9, 3), value) for value in (a, b))
    exact = (float(b) - float(a)) ** 2
    for low, high in ((-1.0, 1.0), (0.05, 0.55)):
        found = image_quality.of_reconstructions(images, others, data_range=(low, high))
        np.testing.assert_allclose(found.mse, exact, rtol=1e-14)
        np.testing.assert_allclose(found.psnr, 10 * np.log10((high - low) ** 2 / exact), rtol=1e-12)
        c = (0.01 * (high - low)) ** 2
        np.testing.assert_allclose(found.ssim, (2 * 0.1 * 0.3 + c) / (0.1**2 + 0.3**2 + c), rtol=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (
            np.zeros((2, 8, 8)),
            np.zeros((2, 8, 8)),
            r"got \(2, 8, 8\) and \(2, 8, 8\), expected the same \[N, H, W, C\]",
        ),
        (np.full((2, 8, 8, 1), -0.1), np.zeros((2, 8, 8, 1)), "images: got values from -0.1 to -0.1"),
        (np.zeros((2, 8, 8, 1)), np.zeros((2, 8, 8, 3)), r"got \(2, 8, 8, 1\) and \(2, 8, 8, 3\)"),
        (np.zeros((2, 8, 8, 1)), np.full((2, 8, 8, 1), 2.0), "reconstructions: got values from 2 to 2"),
        (np.full((2, 8, 8, 1), np.nan), np.zeros((2, 8, 8, 1)), "images: got values from nan"),
    ],
)
def test_what_are_no_images_is_refused(a, b, message):
    with pytest.raises(InputError, match=message):
        image_quality.of_reconstructions(a, b)


@pytest.mark.slow
@pytest.mark.exact
def test_samples_are_judged_by_classifiers_of_the_same_data():
    source = data.Data()
    dataset = source.load()
    prepared = data.prepare(source.preparation, dataset)
    judge = classifiers.train_ensemble(data.prepare(source.preparation, dataset), range(2), steps=300)
    x = np.asarray(prepared.test.x)
    alike = image_quality.of_samples(x, np.asarray(prepared.validation.x), judge)
    noise = image_quality.of_samples(x, RNG.random(x.shape).astype(np.float32), judge)
    assert (alike.samples.num_samples, noise.samples.num_samples) == (180, 180)
    assert alike.samples.frechet_distance == pytest.approx(alike.floor.frechet_distance, rel=0.5)
    assert alike.samples.frechet_distance < 0.1 * noise.samples.frechet_distance
    assert noise.floor.frechet_distance == pytest.approx(alike.floor.frechet_distance)
    assert alike.samples.manifold.coverage > 0.7
    assert noise.samples.manifold.coverage < 0.2
    assert alike.floor.confident > 0.3
    assert noise.samples.confident < 0.2 * alike.floor.confident


def images_of_range(low, high, preparation):
    """Floats between two values, and what stands for their decoded images, shifted by a tenth of the range."""
    raw = RNG.uniform(low, high, (60, 8, 8, 1)).astype(np.float32)
    prepared = data.prepare(preparation, data.from_arrays(raw[:20], raw[20:40], raw[40:], name="floats"))
    return prepared, raw, np.clip(raw[40:] + 0.1 * (high - low), None, raw[:40].max())


@pytest.mark.parametrize(("low", "high"), [(0, 240), (-1, 1), (100, 200), (-200, -100)])
@pytest.mark.parametrize("preparation", [data.Scale(), data.Standardize()], ids=repr)
def test_quality_is_in_the_units_of_the_data(low, high, preparation):  # mistake 45
    prepared, raw, decoded = images_of_range(low, high, preparation)
    found, ends = image_quality.of_decoded(prepared, prepared.test.x[:], preparation.units(decoded, prepared.format))
    measured = np.concatenate([raw[:20], raw[40:]])
    assert ends == pytest.approx((measured.min(), measured.max()), abs=1e-3)
    mse = ((np.clip(decoded, *ends) - raw[40:]) ** 2).reshape(20, -1).mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(found.mse, mse, rtol=1e-4)
    np.testing.assert_allclose(found.psnr, 10 * np.log10((ends[1] - ends[0]) ** 2 / mse), rtol=1e-4)
    assert (found.ssim < 0.999).all()


def test_the_range_of_bits_is_that_of_bits_whatever_they_were_made_of():
    raw = RNG.uniform(100, 200, (60, 8, 8, 1)).astype(np.float32)
    prepared = data.prepare(data.Threshold(150), data.from_arrays(raw[:20], raw[20:40], raw[40:], name="floats"))
    bits = prepared.test.x[:]
    found, ends = image_quality.of_decoded(prepared, bits, 0.9 * bits)
    assert ends == (0, 1)
    np.testing.assert_allclose(found.psnr, -10 * np.log10(0.01 * (raw[40:] > 150).mean(axis=(1, 2, 3))), rtol=1e-4)


@pytest.mark.parametrize("preparation", [data.Scale(), data.Standardize()], ids=repr)
def test_the_range_of_every_block_of_training_counts(monkeypatch, preparation):
    monkeypatch.setattr(data.datasets, "BLOCK_BYTES", 1)
    raw = RNG.uniform(1, 2, (9, 7, 7, 1)).astype(np.float32)
    raw[0, 0, 0], raw[4, 3, 3] = 5, -5
    prepared = data.prepare(preparation, data.from_arrays(raw[:5], raw[5:7], raw[7:], name="floats"))
    assert image_quality.of_decoded(prepared, *2 * [prepared.test.x[:]])[1] == pytest.approx((-5, 5), abs=1e-4)


def test_the_range_of_floats_is_that_of_training_and_of_what_is_measured_and_of_levels_0_to_1():
    """What a model makes of them has no part in it, and is cut to it."""
    raw = np.full((6, 7, 7, 1), 2.0, np.float32) + np.arange(6, dtype=np.float32)[:, None, None, None] / 8
    raw[0, 0, 0], raw[1, 1, 1], raw[5, 0, 0] = -10, 30, -40
    prepared = data.prepare(data.Scale(), data.from_arrays(raw[:2], raw[2:3], raw[3:], name="floats"))
    units = prepared.preparation.units
    decoded = units(np.full((3, 7, 7, 1), 50.0, np.float32), prepared.format)
    found, ends = image_quality.of_decoded(prepared, prepared.test.x[:], decoded)
    assert ends == pytest.approx((-40, 30), rel=1e-5)
    expected = ((raw[3:].astype(float) - 30) ** 2).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(found.mse, expected, rtol=1e-4)
    levels = RNG.integers(50, 200, (30, 7, 7, 1), np.uint8)
    prepared = data.prepare(data.Scale(), data.from_arrays(levels[:10], levels[10:20], levels[20:]))
    found, ends = image_quality.of_decoded(prepared, prepared.test.x[:], np.full((10, 7, 7, 1), 1.5, np.float32))
    assert ends == (0, 1)
    np.testing.assert_allclose(found.mse, ((1 - levels[20:] / 255) ** 2).reshape(10, -1).mean(axis=1), rtol=1e-5)


def test_psnr_and_ssim_do_not_depend_on_the_units():
    images = RNG.random((3, 9, 9, 1))
    other = np.clip(images + RNG.normal(scale=0.1, size=images.shape), 0, 1)
    here, there = (image_quality.of_reconstructions(c * images, c * other, data_range=(0, c)) for c in (1.0, 240.0))
    np.testing.assert_allclose(there.psnr, here.psnr)
    np.testing.assert_allclose(there.ssim, here.ssim)
    np.testing.assert_allclose(there.mse, 240**2 * here.mse)


@pytest.mark.parametrize("preparation", [data.StaticBinarization(), data.Scale()], ids=repr)
def test_classifiers_are_trained_on_what_a_model_sees(monkeypatch, preparation):  # mistake 49
    """Bits that were drawn for training, not the grey levels that they were drawn from; and examples with a label."""
    raw = RNG.integers(0, 256, (60, 6), np.uint8)
    labels = np.arange(60) % 3 - 1
    source = data.datasets.Dataset(
        "own", *(data.Split(raw[rows], labels[rows]) for rows in (slice(20), slice(20, 40), slice(40, 60))), 256
    )
    prepared = data.prepare(preparation, source)
    seen = []

    def once(step, state, examples, key, **options):
        seen.append([np.asarray(part) for part in examples])
        return state, {}

    monkeypatch.setattr(classifiers.training, "train_epoch", once)
    judge = classifiers.train_ensemble(prepared, range(2), steps=1)
    [(x, kept)] = seen
    np.testing.assert_array_equal(x, prepared.train.x[:][labels[:20] >= 0])
    assert set(np.unique(x)) == {0, 1} or preparation == data.Scale()
    assert set(kept.tolist()) == {0, 1}
    assert judge.classifier.classes == 2


def test_an_ensemble_takes_all_its_steps_each_member_by_its_own_seed(monkeypatch):
    """150 examples are 2 batches of 64 an epoch; 5 steps end within the third."""
    raw = RNG.random((170, 6)).astype(np.float32)
    labels = np.arange(170) % 5
    prepared = data.prepare(
        data.Scale(),
        data.datasets.Dataset(
            "own", *(data.Split(raw[rows], labels[rows]) for rows in (slice(150), slice(150, 160), slice(160, 170))), 0
        ),
    )
    calls, rates = [], []

    def train(step, state, examples, key, *, batch_size, steps):
        calls.append((state, key, batch_size, steps))
        return state._replace(params=jax.tree.map(lambda a: a + 1, state.params)), {}

    schedule = classifiers.optax.cosine_decay_schedule
    monkeypatch.setattr(classifiers.training, "train_epoch", train)
    monkeypatch.setattr(
        classifiers.optax,
        "cosine_decay_schedule",
        lambda rate, steps: rates.append((rate, steps)) or schedule(rate, steps),
    )
    monkeypatch.setattr(classifiers, "TOLD_AFTER", 2)
    judge = classifiers.train_ensemble(prepared, [7, 3], steps=5)
    assert [(batch_size, steps) for _, _, batch_size, steps in calls] == [(64, 2), (64, 2), (64, 1)]
    assert rates == [(2e-3, 5)]
    state, key = calls[0][:2]
    for s, seed in enumerate((7, 3)):
        root = jax.random.key(seed)
        assert (jax.random.key_data(key[s]) == jax.random.key_data(root)).all()
        fresh = judge.classifier.init(jax.random.fold_in(root, 0))
        assert (fresh["Dense_0"]["kernel"] == state.params["Dense_0"]["kernel"][s]).all()
    np.testing.assert_allclose(
        judge.params["Dense_0"]["kernel"], state.params["Dense_0"]["kernel"] + 3, rtol=1e-6
    )  # what came out of each call went into the next
    assert judge.classifier == classifiers.Classifier((6,), 5, MLP((256,)), features=64)


@pytest.mark.parametrize(
    ("entropies", "cycles", "kept"),
    [
        ([0.1], 1, 1),  # it knows them
        ([0.9, 0.5, 0.45], 3, 3),  # it hardly learns any more, but did
        ([0.9, 0.5, 0.6], 3, 2),  # it fits training data instead
        ([0.9, 0.6, 0.4, 0.3], 4, 4),  # at most four
    ],
)
def test_a_judge_is_trained_until_validation_data_say_that_it_is_not_worth_it(monkeypatch, entropies, cycles, kept):
    """8 examples are one batch, so 3 steps are three calls, each of which adds 1 to all parameters."""
    raw, labels = RNG.random((8, 3)).astype(np.float32), np.arange(8) % 2
    split, other = data.Split(raw, labels), data.Split(np.vstack([raw, raw]), np.append(labels, [-1, 2] * 4))
    prepared = data.prepare(data.Scale(), data.datasets.Dataset("mine", split, other, split, 0))
    calls, first = [], []

    def train(step, state, examples, key, *, batch_size, steps):
        calls.append(steps)
        first.append(state.params)
        return state._replace(params=jax.tree.map(lambda a: a + 1, state.params)), {}

    def probabilities(self, x):
        np.testing.assert_allclose(x, prepared.validation.x[:8])  # those of which the class is known
        own = np.exp(-entropies[len(calls) // 3 - 1])
        return np.where(np.eye(2, dtype=bool)[labels], own, 1 - own)

    monkeypatch.setattr(classifiers.training, "train_epoch", train)
    monkeypatch.setattr(classifiers.Ensemble, "probabilities", probabilities)
    told = []
    judge = classifiers.train_ensemble(prepared, [0], steps=3, cycles=4, on_part=lambda *part: told.append(part))
    assert calls == [1] * 3 * cycles
    assert told == [(3 * cycle + step, 3 * cycle + 3) for cycle in range(cycles) for step in (1, 2, 3)]
    grown = judge.params["Dense_0"]["bias"] - first[0]["Dense_0"]["bias"]
    np.testing.assert_allclose(grown, 3 * kept)


def test_classifiers_of_images_convolve_and_see_what_a_model_sees_in_a_step(monkeypatch):
    raw, labels = RNG.integers(0, 256, (20, 4, 4, 1), np.uint8), np.arange(20) % 2
    split = data.Split(raw, labels)
    prepared = data.prepare(data.Scale(), data.datasets.Dataset("mine", split, split, split, 256))
    start, steps = training.TrainState(np.int32(0), {"w": np.zeros(2)}, (), None), []
    monkeypatch.setattr(
        classifiers.training, "make_train_step", lambda model, loss, tx, prepare: steps.append((model, loss, prepare))
    )
    monkeypatch.setattr(classifiers.training, "init_state", lambda model, tx, key: start)
    monkeypatch.setattr(classifiers.training, "train_epoch", lambda step, state, *rest, **options: (state, {}))
    judge = classifiers.train_ensemble(prepared, [0], steps=1)
    assert judge.classifier == classifiers.Classifier((4, 4, 1), 2, Conv((16, 32)), features=64)
    [(model, loss, prepare)] = steps
    assert (model, loss) == (judge.classifier, classifiers.mixed_cross_entropy)
    x, kept = prepare((raw, labels), jax.random.key(0))
    np.testing.assert_allclose(x, raw / 255, rtol=1e-6)
    assert kept is labels


def test_there_is_a_class_for_every_code_up_to_the_largest(monkeypatch):
    """One that no training example has, as all of them stand in another split, is none less."""
    raw, labels = RNG.random((20, 3)).astype(np.float32), np.array([0, 3] * 10)
    split = data.Split(raw, labels)
    prepared = data.prepare(data.Scale(), data.datasets.Dataset("mine", split, split, split, 0))
    monkeypatch.setattr(classifiers.training, "train_epoch", lambda step, state, *rest, **options: (state, {}))
    assert classifiers.train_ensemble(prepared, [0], steps=1).classifier.classes == 4


@pytest.mark.parametrize("labels", [None, np.full(20, -1)])
def test_what_has_no_labels_trains_no_classifier(labels):
    raw = RNG.random((20, 3)).astype(np.float32)
    split = data.Split(raw, labels)
    prepared = data.prepare(data.Scale(), data.datasets.Dataset("mine", split, split, split, 0))
    with pytest.raises(InputError, match="mine labels: got none, expected integer labels"):
        classifiers.train_ensemble(prepared, [0])


def test_the_frechet_distance_of_one_feature_is_that_of_two_normals_on_a_line():
    a, b = RNG.normal(1, 2, (500, 1)), RNG.normal(-1, 3, (400, 1))
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert statistics.frechet_distance(a, b) == pytest.approx(expected)


def split(count, labels=None):
    return data.Split(np.zeros((count, 2, 2, 1), np.uint8), labels)


@pytest.mark.parametrize(
    ("labels", "held_out", "words"),
    [
        (None, 200, "the data has no labels"),
        (np.full(90, -1), 200, "the data has no labels"),
        (np.array([3] * 89 + [-1]), 200, "all labels are the same"),
        (np.arange(90) % 2, 29, "29 pictures in the test split are fewer than 30; where the data comes without splits"),
        (np.arange(90) % 2, 30, ""),
    ],
)
def test_why_there_is_no_judge(labels, held_out, words):
    whole = data.Dataset("d", split(90, labels), split(40), split(held_out), 256)
    found = image_quality.why_no_judge(whole, "validation", "test")
    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_few_held_out_pictures_are_said_to_say_little():
    assert "30 held-out pictures" in (said := image_quality.doubt(30))
    assert "uncertain by 18 percentage points" in said  # 2 sqrt(.5 * .5 / 30)
    assert image_quality.doubt(100) == ""


def test_what_is_proposed_for_more_held_out_pictures_suffices():
    labels, x = np.arange(150) % 3, RNG.integers(0, 256, (150, 4, 4, 1), np.uint8)
    few = data.from_arrays(x, labels=labels)
    found = image_quality.why_no_judge(few, "validation", "test")
    proposed = found.partition("splits=")[2].removesuffix(')"')
    splits = values.parse(data.Splits, proposed, "splits")
    assert image_quality.why_no_judge(data.from_arrays(x, labels=labels, splits=splits), "validation", "test") == ""
    tiny = data.Dataset("d", split(60, np.arange(60) % 2), split(8), split(8), 256)  # which no splits suffice for
    assert image_quality.why_no_judge(tiny, "test") == "8 pictures in the test split are fewer than 30"
