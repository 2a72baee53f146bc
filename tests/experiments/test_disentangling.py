"""The experiment on disentangling: differences are paired by seed, and what is done is not done again."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from aevae_jax import data
from aevae_jax.data import datasets
from aevae_jax.runs import records

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import disentangling  # noqa: E402

BETA = "beta-VAE, beta = 4"


def row(mig):
    return {measure: [0.5] * len(mig) for measure in disentangling.MEASURES} | {
        "mig": mig,
        "mig by chance": [0.01] * len(mig),
    }


def test_differences_are_paired_by_seed():
    """Seeds differ by more than losses do, and the interval does not see that."""
    results = {"epochs": 3, "seeds": 3, "rows": {"VAE": row([0.1, 0.4, 0.8]), BETA: row([0.2, 0.51, 0.89])}}
    [(name, found)] = disentangling.gains(results).items()
    apart = np.array([0.1, 0.11, 0.09])
    half = stats.t.ppf(0.975, 2) * apart.std(ddof=1) / 3**0.5
    assert name == BETA
    assert found == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    text = disentangling.table(results)
    assert f"| {BETA} | 0.533 | +0.100 [{0.1 - half:+.3f}, {0.1 + half:+.3f}] | 0.500 |" in text
    assert "| VAE | 0.433 |  | 0.500 |" in text
    assert "By chance MIG is 0.010" in text
    says = disentangling.of_readme(results, "figures.json")
    assert f"{BETA} raises it by these intervals. `python" in says
    worse = {**results, "rows": {**results["rows"], "other": row([0.1, 0.41, 0.79])}}
    assert f"{BETA} raises it by these intervals; other not surely. " in disentangling.of_readme(worse, "f.json")
    assert disentangling.gains({"rows": {BETA: row([0.1])}}) == {}


def test_the_gap_of_codes_that_are_the_factors_is_less_than_one():
    """Twenty bins tell three, six and twenty values apart, and 32 places in part: 8 alone, 12 in pairs."""
    part = (8 / 32 * np.log(32) + 24 / 32 * np.log(16)) / np.log(32)
    assert disentangling.ceiling() == pytest.approx((3 + 2 * part) / 5, abs=0.01)


@pytest.mark.slow
def test_a_row_is_trained_once_and_recorded(tmp_path, monkeypatch, capsys):
    """Of a twentieth of the sprites and one epoch: what is recorded for the same seeds is not trained again."""
    whole, trained, fit = data.sprites(), [], disentangling.fitting.fit_seeds
    few = replace(whole, **{part: getattr(whole, part)[::20] for part in datasets.PARTS})
    monkeypatch.setattr(data.Data, "load", lambda self: few)
    monkeypatch.setattr(
        disentangling.fitting, "fit_seeds", lambda run, *a, **b: trained.append(run) or fit(run, *a, **b)
    )
    options = {"seeds": 2, "epochs": 1, "record": str(tmp_path / "record.json")}
    disentangling.disentangling(rows=("VAE",), out=tmp_path / "one", **options)
    disentangling.disentangling(rows=("VAE", "beta-TCVAE, 6 times TC"), out=tmp_path / "two", **options)
    assert [type(run.objective).__name__ for run in trained] == ["ELBO", "BetaTCVAE"]
    record = records.read_json(tmp_path / "record.json")
    assert list(record["rows"]) == ["VAE", "beta-TCVAE, 6 times TC"]
    assert record == records.read_json(tmp_path / "two" / "results.json")
    for found in record["rows"].values():
        assert all(len(values) == 2 and np.isfinite(values).all() for values in found.values())
        assert max(found["mig by chance"]) < 0.3
    assert "| beta-TCVAE, 6 times TC |" in capsys.readouterr().out
    assert (tmp_path / "two" / "table.md").read_text() == disentangling.table(record)
