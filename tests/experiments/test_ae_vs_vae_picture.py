"""The picture of the main experiment shows what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import ae_vs_vae_picture as picture


def images(count, level):
    return np.full((count, 2, 3, 1), level / 255, np.float32)


def interval(mean):
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.02}


CODES = {name: np.random.default_rng(i).normal(size=(40, 3)) * [5, 2, 0.1] for i, name in enumerate(picture.COLUMNS)}
LEVELS = dict(zip(picture.COLUMNS, (10, 20, 30), strict=True))
LABELS = np.arange(40) % 4
RESULTS = {
    "chosen": {"beta": 4.0},
    "measures": {
        f"{measure} | {name}": interval(value + i)
        for i, name in enumerate((*picture.COLUMNS, "VAE", "AE + mixture", "VAE + mixture"))
        for measure, value in (
            ("reconstruction MSE", 0.5),
            ("Frechet distance", 7.0),
            ("... above that of data to data", 6.0),
            ("confident samples", 0.25),
        )
    },
    "baselines": {"Frechet distance of data to data": 1.5, "confident held-out data": 0.9},
    "curve": [
        {"beta": beta, "reconstruction MSE": interval(beta), "... above that of data to data": interval(9 - beta)}
        for beta in (1.0, 4.0)
    ],
}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw, and give the figure's axes by their labels back."""

    def draw(latent=3, labels=LABELS, **changes):
        figures, save = [], Figure.savefig
        monkeypatch.setattr(
            Figure,
            "savefig",
            lambda figure, file, **options: (figures.append(figure), save(figure, file, **{**options, "dpi": 8})),
        )
        panels = {
            name: picture.Panel(images(3, n), images(16, n + 1), images(5, n + 2), z[:, :latent], -z[:, :latent])
            for name, n, z in ((name, LEVELS[name], CODES[name]) for name in picture.COLUMNS)
        }
        inputs = images(3, 0)
        inputs[0, 0, 0] = 1.0
        shown = picture.Shown(inputs, labels, panels, ("cat", "dog", "cow"))
        results = {**RESULTS, **changes}
        words = {"headings": picture.headings(results), "verdicts": picture.verdicts(results)}
        picture.comparison(tmp_path / "report.png", shown, title="digits", results=results, **words)
        with Image.open(tmp_path / "report.png") as opened:
            assert opened.format == "PNG"
        [figure] = figures
        assert figure.get_size_inches()[0] * figure.dpi > 1000  # pixels
        assert figure.get_suptitle() == f"Autoencoder or variational autoencoder? digits, {latent} numbers per code"
        return {axes.get_label(): axes for axes in figure.axes}

    return draw


def test_every_model_is_shown_by_the_same_rows_with_its_numbers(drawn):
    axes = drawn()
    for i, name in enumerate(picture.COLUMNS):
        level = LEVELS[name]
        pairs = axes[f"{name}: pairs"].images[0].get_array()[..., 0]
        assert pairs[:, -1].tolist() == [0, 0, 255, level, level]  # inputs, and their reconstructions below
        assert axes[f"{name}: pairs"].get_title().endswith(f"squared error per pixel {0.5 + i:.4f}")
        samples = axes[f"{name}: samples"].images[0].get_array()[..., 0]
        assert samples.shape == (5, 8 * 4 - 1)  # eight in a row
        assert set(np.unique(samples)) == {level + 1, 255}
        words = axes[f"{name}: samples"].get_title()
        assert words.startswith(f"distance to data {7 + i:.2f} (data to data 1.50)\n")
        assert words.endswith(f"recognised {25 + 100 * i} % (data 90 %)")
        assert axes[f"{name}: path"].images[0].get_array()[0, 0, 0] == level + 2
        labelled = [axes[f"{name}: {row}"].get_ylabel() for row in ("pairs", "samples", "path")]
        assert labelled == ["decoded    input", "random codes, decoded", "between"]
    assert "beta 4" in axes["VAE, beta: pairs"].get_title()


@pytest.mark.parametrize("latent", [1, 3])
def test_random_codes_lie_among_codes_of_data_in_their_main_plane(drawn, latent):
    axes = drawn(latent=latent)
    for name in picture.COLUMNS:
        own = CODES[name][:, :latent]
        centred = own - own.mean(axis=0)
        _, vectors = np.linalg.eigh(np.atleast_2d(np.cov(own, rowvar=False)))  # of ascending variances
        expected, random_codes = (
            np.abs(np.hstack([z @ vectors[:, ::-1], np.zeros((40, 1))]))[:, :2]  # a direction has no sign
            for z in (centred, -own - own.mean(axis=0))
        )
        crosses, *classes = axes[f"{name}: codes"].collections
        np.testing.assert_allclose(np.abs(crosses.get_offsets()), random_codes, atol=1e-6)
        assert len(classes) == 4
        for label, points in enumerate(classes):
            np.testing.assert_allclose(np.abs(points.get_offsets()), expected[label == LABELS], atol=1e-6)
        assert [text.get_text() for text in axes[f"{name}: codes"].texts] == ["cat", "dog", "cow", "3"]


def test_the_curve_shows_what_a_weight_costs_and_brings(drawn):
    curve = drawn()["curve"]
    line = curve.containers[0].lines[0]
    assert np.asarray(line.get_xydata()).tolist() == [[1, 8], [4, 5]]
    assert {text.get_text() for text in curve.texts} == {"1", "4", "data to data"}
    across, along = (bars.get_segments()[0] for bars in curve.containers[0].lines[2])
    np.testing.assert_allclose(across, [[0.99, 8], [1.02, 8]])
    np.testing.assert_allclose(along, [[1, 7.99], [1, 8.02]])
    places = {c.get_label(): c.lines[0].get_xydata()[0].tolist() for c in curve.containers[1:]}
    assert places == {
        "AE": [0.5, 6.0],
        "VAE + VampPrior": [2.5, 8.0],
        "AE + mixture": [0.5, 10.0],
        "VAE + mixture": [3.5, 11.0],
    }
    assert "squared error per pixel" in curve.get_xlabel()
    assert "above data to data" in curve.get_ylabel()


def test_without_a_judge_and_labels_the_rest_is_shown(drawn):
    measures = {name: value for name, value in RESULTS["measures"].items() if "reconstruction" in name}
    axes = drawn(labels=None, curve=[], chosen={}, measures=measures, baselines={})
    assert "curve" not in axes
    assert axes["AE: samples"].get_title() == ""
    assert len(axes["AE: codes"].collections) == 2
    assert "beta" not in axes["VAE, beta: pairs"].get_title()
