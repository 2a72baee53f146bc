"""The experiment on defaults: the rule by which it chooses, and that what it chose is what a run takes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets as sklearn_datasets
from sklearn.utils import Bunch

from aevae_jax import data
from aevae_jax.data import suited
from aevae_jax.runs import records

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import defaults  # noqa: E402

FIRST, VAMP, BETA = "Normal, N(0, I)", "VampPrior(100)", "beta = 4"


def row(distance, seconds):
    return {"distance": [distance - 1, distance + 1], "epoch_seconds": seconds, "floor": [1.0], "confident": [0.5]}


def sets(*each, names=("digits", "fashion_mnist")):
    common = {"seeds": 2, "steps": 10, "confident data": 0.9}
    return {name: {**common, "rows": rows} for name, rows in zip(names, each, strict=False)}


def test_distances_and_times_are_relative_to_the_first_and_geometric_means_over_the_data():
    both = sets(
        {FIRST: row(8.0, 1.0), VAMP: row(2.0, 1.5), BETA: row(1.0, 1.0)}, {FIRST: row(40.0, 10.0), VAMP: row(40.0, 6.0)}
    )
    found = defaults.relative(both)
    assert list(found) == [FIRST, VAMP]  # the third is not in both
    assert found[FIRST] == pytest.approx((1.0, 1.0))
    assert found[VAMP] == pytest.approx((0.5, 0.9**0.5))


def test_the_rule_takes_the_nearest_that_is_allowed_and_not_too_slow():
    found = {FIRST: (1.0, 1.0), VAMP: (0.5, 1.9), BETA: (0.1, 1.0), "VampPrior(500)": (0.2, 2.1)}
    assert defaults.chosen(found) == VAMP
    assert defaults.chosen({**found, VAMP: (0.5, 2.1)}) == FIRST


def test_the_table_marks_what_was_chosen():
    grey, colour = {FIRST: row(8.0, 1.0), VAMP: row(2.0, 1.5)}, {FIRST: row(3.0, 2.0)}
    text = defaults.of_readme({"data": sets(grey, colour, names=("digits", "photographs"))}, "figures.json")
    assert f"| **{VAMP}**, grey | 2.00 (50 %) |  | 0.25 | 1.50 |  |  |\n" in text
    assert f"| **{FIRST}**, colour | 8.00 (50 %) | 3.00 (50 %) | 1.00 | 1.00 | 1.00 | 1.00 |\n" in text
    assert "Real data: digits 1.00 (90 %), photographs 1.00 (90 %)." in text


@pytest.mark.parametrize(("kind", "channels"), [("grey", 1), ("colour", 3)])
def test_what_was_chosen_is_what_images_get(kind, channels):
    results = records.read_json(ROOT / "experiments" / "results" / "defaults.json")["data"]
    found = defaults.relative(defaults.by_kind(results)[kind])
    images = np.random.default_rng(0).integers(0, 256, (30, 2, 2, channels)).astype(np.uint8)
    prepared = data.prepare(data.Scale(), data.from_arrays(images[:10], images[10:20], images[20:]))
    model = defaults.candidates(256, 1)[defaults.chosen(found)].model
    assert (model.likelihood, model.latent_prior) == suited.suited(prepared)[:2]


def test_patches_of_different_parts_share_no_pixel(tmp_path, monkeypatch):
    columns = np.broadcast_to(np.arange(240, dtype=np.uint8)[:, None], (32, 240, 3))
    bunch = Bunch(filenames=["a/china.jpg", "a/flower.jpg"], images=[columns, columns])
    monkeypatch.setattr(sklearn_datasets, "load_sample_images", lambda: bunch)
    folder = Path(defaults.photographs(tmp_path))
    for part, low, high in (("train", 0, 144), ("validation", 144, 192), ("test", 192, 240)):
        paths = list(folder.glob(f"{part}/*/*.png"))
        assert {path.parent.name for path in paths} == {"china", "flower"}
        pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
        assert pixels.shape[1:] == (24, 24, 3)
        assert low <= pixels.min() < pixels.max() < high
