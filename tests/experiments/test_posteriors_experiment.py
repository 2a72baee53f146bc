"""The experiment on posteriors: differences are paired by seed, rows differ in the posterior alone, none is redone."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from aevae_jax.data import from_arrays
from aevae_jax.models.posteriors import DiagonalNormal
from aevae_jax.runs import records
from aevae_jax.types import InputError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import paired  # noqa: E402
import posteriors  # noqa: E402


def row(negative_elbo):
    return {"negative_elbo": negative_elbo, "distortion": [1.0] * 3, "rate": [1.0] * 3, "seconds": [60.0] * 3}


def test_differences_are_paired_by_seed():
    """Seeds differ by more than posteriors do, and the interval does not see that."""
    rows = {
        "diagonal": row([230.0, 240.0, 250.0]),
        "full": row([229.0, 238.9, 249.1]),
        "iaf": row([230.0, 235.0, 252.0]),  # lower by its mean, but not surely
    }
    results = {"data": "x", "epochs": 3, "seeds": 3, "rows": rows}
    apart = np.array([-1.0, -1.1, -0.9])
    half = stats.t.ppf(0.975, 2) * apart.std(ddof=1) / 3**0.5
    assert posteriors.gained(results)["full"] == pytest.approx((-1.0, -1.0 - half, -1.0 + half))
    text = posteriors.table(results)
    assert f"| full | 239.00 | -1.00 [{-1 - half:+.2f}, {-1 + half:+.2f}] | 1.00 | 1.00 | 1 |" in text  # a minute
    assert "Lower by these intervals: full." in text
    short = posteriors.of_readme({**results, "command": "python p --record r"}, "figures.json")
    assert f"| full | 239.00 | -1.00 [{-1 - half:+.2f}, {-1 + half:+.2f}] | 1.00 | 1.00 |\n" in short
    assert "95 % intervals: lower by these intervals: full. `python p` " in short
    assert posteriors.gained({"rows": {"full": row([1.0])}}) == {}


def test_rows_differ_in_the_posterior_alone():
    runs = {n: posteriors.run_of(n, 2, posteriors.FASHION, examples=50_000, epochs=100) for n in posteriors.POSTERIORS}
    plain = {
        dataclasses.replace(run, model=dataclasses.replace(run.model, posterior=DiagonalNormal()))
        for run in runs.values()
    }
    assert len(plain) == 1
    assert len({run.model.posterior for run in runs.values()}) == len(runs)
    [run] = plain
    assert (run.epochs, run.seed, run.objective.beta.steps) == (100, 2, 10 * (50_000 // 128))


@pytest.mark.slow
def test_a_row_is_trained_once_and_recorded(tmp_path, monkeypatch, capsys):
    x = np.random.RandomState(0).randint(0, 256, (60, 4, 4, 1)).astype(np.uint8)
    monkeypatch.setattr(posteriors.Data, "load", lambda self: from_arrays(x, name="small"))
    trained, fit = [], paired.fitting.fit
    monkeypatch.setattr(paired.fitting, "fit", lambda run, *a, **b: trained.append(run) or fit(run, *a, **b))
    options = {"seeds": 2, "epochs": 1, "data": "digits", "record": str(tmp_path / "record.json")}
    posteriors.posteriors(rows=("diagonal",), out=str(tmp_path / "one"), **options)
    posteriors.posteriors(rows=("diagonal", "full"), out=str(tmp_path / "two"), **options)
    assert [type(run.model.posterior).__name__ for run in trained] == ["DiagonalNormal"] * 2 + ["FullNormal"] * 2
    record = records.read_json(tmp_path / "record.json")
    assert list(record["rows"]) == ["diagonal", "full"]
    assert "| full |" in capsys.readouterr().out


def test_rows_of_something_else_are_neither_reused_nor_lost(tmp_path, monkeypatch):
    key = {"data": "digits", "data_sha256": "a", "epochs": 3, "seeds": 2}
    records.write_json(tmp_path / "r.json", {**key, "rows": {"full": row([1.0, 2.0, 3.0])}})
    assert list(posteriors.rows_in(tmp_path / "r.json", key)) == ["full"]
    for name, other in (("data", "x"), ("data_sha256", "b"), ("epochs", 4), ("seeds", 3)):
        assert posteriors.rows_in(tmp_path / "r.json", {**key, name: other}) == {}
    records.write_json(tmp_path / "list.json", [])
    assert posteriors.rows_in(tmp_path / "list.json", key) == posteriors.rows_in(tmp_path / "none.json", key) == {}
    monkeypatch.setattr(paired, "measure", lambda *arguments: pytest.fail("trained"))
    with pytest.raises(InputError, match="which holds something else, expected digits, 3 epochs, 3 seeds, or no file"):
        posteriors.posteriors(data="digits", epochs=3, out=str(tmp_path / "out"), record=str(tmp_path / "list.json"))
