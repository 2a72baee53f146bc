"""Rows of a table that are completed: what was given stays as it was, to the character."""

from __future__ import annotations

import csv

import jax
import numpy as np
import oracles
import pytest

from aevae_jax import VAE, runs
from aevae_jax.data import Data, Standardize, files
from aevae_jax.evaluation import completion
from aevae_jax.models import architectures
from aevae_jax.models.likelihoods import Tabular
from aevae_jax.runs import fitting, resolution

DECIMAL = {"decimal": ",", "separator": ";", "missing": ("?",)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of random parameters of a table with every kind of column, and the form of that table."""
    path, g = tmp_path_factory.mktemp("table") / "people.csv", np.random.default_rng(0)
    lines = [
        f"{str(round(100 + g.normal(), 3)).replace('.', ',')};{i % 7};{('01', '02', '03')[i % 3]};"
        f"{str(round(np.exp(g.normal()), 3)).replace('.', ',')};{('yes', 'no')[i % 2]};{1732700000.125 + i}".replace(
            ".", ","
        )
        for i in range(60)
    ]
    path.write_text("\n".join(["height;children;zip;income;smokes;time", *lines]))
    data = Data(str(path), Standardize(), categorical=("zip",), **DECIMAL)
    model = VAE(2, architectures.MLP((4,)), Tabular())
    resolved = resolution.resolve(runs.Run(data, model, batch_size=8))
    params = oracles.random_params(resolved.run.model)
    return fitting.Fitted(resolved.run, resolved.run.model, params, [], {}, None), resolved


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter=";"))


NEW = """time;zip;height;smokes;children;income
1732700009,5;02;101,50;?; 007 ;1E0
;;;;;
;01;"99,1";yes;;?
"""


def test_given_entries_stay_and_missing_ones_are_filled(trained, tmp_path):
    fitted, resolved = trained
    (tmp_path / "new.csv").write_text(NEW)
    done = completion.complete_file(
        fitted.model, fitted.params, fitted.run.data, resolved.prepared.format, tmp_path / "new.csv"
    )
    assert not np.isnan(done.rows).any()
    assert np.isnan(done.given).sum() == 1 + 6 + 3
    reading = fitted.run.data.reading
    files.write(
        tmp_path / "out.csv",
        {"rows": done.rows},
        table=resolved.prepared.format.columns,
        reading=reading,
        given=done.texts,
    )
    header, first, second, third = rows_of(tmp_path / "out.csv")
    assert header == ["height", "children", "zip", "income", "smokes", "time"]
    assert first[:4] == ["101,50", " 007 ", "02", "1E0"]
    assert first[5] == "1732700009,5"
    assert first[4] in ("yes", "no")
    assert third[0] == "99,1"
    assert third[2] == "01"
    assert third[4] == "yes"
    assert all(second)
    assert second[1].isdigit()
    assert third[1].isdigit()
    assert second[5].startswith("17327000")
    assert float(third[3].replace(",", ".")) > 0


def test_whole_rows_stay_as_they_are(trained):
    fitted, resolved = trained
    done = completion.complete_rows(
        fitted.model, fitted.params, fitted.run.data, resolved.prepared.format, resolved.dataset.test.x[:4]
    )
    np.testing.assert_array_equal(done.rows, resolved.dataset.test.x[:4])


def test_missing_entries_are_what_the_model_makes_of_the_rest(trained):
    """Computed by hand from features: an entry of whole numbers is one, that of a category one of its codes."""
    fitted, resolved = trained
    preparation, format = fitted.run.data.preparation, resolved.prepared.format
    raw = np.array(resolved.dataset.test.x[:3], np.float64)
    raw[0, 0] = raw[1, 1] = raw[1, 4] = np.nan
    raw[2] = np.nan
    before = raw.copy()
    done = completion.complete_rows(fitted.model, fitted.params, fitted.run.data, format, raw)
    [x] = preparation.evaluation([raw], format)
    model = fitted.model
    means = jax.jit(lambda params, x: model.decode(params, model.encode(params, x).mean()).mean())(fitted.params, x[:])
    expected = preparation.inverse(np.asarray(means), format)
    missing = np.isnan(before)
    np.testing.assert_allclose(done.rows[missing], expected[missing], rtol=1e-5)
    np.testing.assert_array_equal(done.rows[~missing], before[~missing])
    np.testing.assert_array_equal(done.given, before)
    assert done.texts is None
