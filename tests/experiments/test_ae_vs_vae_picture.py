"""The picture of the main experiment shows what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import ae_vs_vae_picture as picture


@pytest.mark.parametrize("latent", [1, 3])
def test_the_picture_of_an_autoencoder_beside_a_vae_shows_what_it_says(tmp_path, monkeypatch, latent):
    """All but the scatter of the codes are grids of images, of which the left pixels tell which ones these are."""
    drawn, save = [], Figure.savefig

    def saved(figure, file, **options):
        drawn.append(figure)
        save(figure, file, **{**options, "dpi": 8})

    monkeypatch.setattr(Figure, "savefig", saved)
    generator, labels = np.random.default_rng(0), np.arange(40) % 4
    directions = np.linalg.qr(generator.normal(size=(latent, latent)))[0]
    codes = {name: 3.0 + generator.normal(size=(40, latent)) * [5, 2, 0.1][:latent] @ directions for name in "ab"}

    def images(count, level):
        return np.full((count, 2, 2, 1), level / 255, np.float32)

    panels = {
        name: picture.Panel(images(3, level), images(12, level + 1), images(5, level + 2), codes[key])
        for name, level, key in (("AE", 10, "a"), ("VAE", 20, "b"))
    }
    picture.comparison(
        tmp_path / "report.png",
        title="digits",
        inputs=images(3, 5),
        labels=labels,
        panels=panels,
        mixture=images(6, 30),
        captions={"AE": "one", "VAE": "two", "AE + mixture": "three"},
    )
    with Image.open(tmp_path / "report.png") as opened:
        assert opened.format == "PNG"
    [figure] = drawn
    assert figure.get_suptitle().endswith("(VAE): digits")
    axes = {a.get_label(): a for a in figure.axes if a.get_label()}
    shown = {name: (a.images[0].get_array()[..., 0], a.get_title()) for name, a in axes.items() if a.images}
    for name, level, words in (("AE", 11, "AE\none"), ("VAE", 21, "VAE\ntwo"), ("AE + mixture", 30, "AE's\nthree")):
        image, title = shown[name]
        assert image.shape == (5 if name in panels else 2, 3 * 6 - 1)  # six of each in a row
        assert set(np.unique(image)) == {level, 255}
        assert title.endswith(words)
    for name, level in (("AE", 10), ("VAE", 20)):
        image, title = shown[f"{name} pairs"]
        assert image[:, 0].tolist() == [5, 5, 255, level, level]  # inputs, and their reconstructions below
        assert image.shape[1] == 3 * 3 - 1
        assert title.startswith(f"{name}: inputs")
        image, title = shown[f"{name} interpolation"]
        assert image.shape == (2, 3 * 5 - 1)
        assert image[0, 0] == level + 2
        assert title.startswith(f"{name}: interpolation")
        scatter = axes[f"{name} codes"]
        assert scatter.get_title().startswith(f"{name}: codes")
        own = panels[name].codes
        _, vectors = np.linalg.eigh(np.atleast_2d(np.cov(own, rowvar=False)))  # of ascending variances
        expected = np.abs(np.hstack([own @ vectors[:, ::-1], np.zeros((40, 1))]))[:, :2]  # a direction has no sign
        points = np.asarray(scatter.collections[0].get_offsets())
        np.testing.assert_allclose(np.abs(points), expected, rtol=1e-6, atol=1e-9)
        assert scatter.collections[0].get_array().tolist() == labels.tolist()
        ring = np.linalg.norm(np.asarray(scatter.lines[0].get_xydata()), axis=1)
        np.testing.assert_allclose(ring, stats.chi2(2).ppf(0.95) ** 0.5)
