"""Families side by side: what is kept of other days, what the table says, and a record that is not there yet."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from aevae_jax.evaluation import classifiers, image_quality
from aevae_jax.types import InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import defaults
import families
import families_table

TOLD = {"VAE, told the class": {"classes": 10}}

NOTHING = [None, None]
ROW = {
    "epoch_seconds": 2.0,
    "mse": [0.1, 0.3],
    "nats": [None, None],
    "distance": [1.0, 2.0],
    "with mixture": [None, None],
    "active units": [3.0, 5.0],
    "perplexity": NOTHING,
    "choices": NOTHING,
    "mig": NOTHING,
    "dci_disentanglement": NOTHING,
}
DISCRETE = {**ROW, "nats": [3.0, 3.0], "active units": NOTHING, "perplexity": [5.0, 7.0], "choices": [64.0, 64.0]}
FOUND = {"seeds": 2, "steps": 10, "sha256": "a", "rows": {"VAE": {**ROW, "nats": [5.0, 7.0], "epoch_seconds": 4.0}}}


def test_an_interval_is_that_of_student():
    """Of two numbers a distance of 2 apart: t of one degree of freedom, 12.7, times the error of 1."""
    mean, half = families_table.interval([5.0, 7.0])
    assert (mean, round(half, 3)) == (6.0, 12.706)
    assert families_table.interval([5.0, None]) is None


def test_the_table_says_what_a_family_has_not_and_times_relative_to_the_plain_one():
    text = families.table("digits", {**FOUND, "rows": {**FOUND["rows"], "points": ROW, "VQ": DISCRETE}})
    assert "| points | 0.2000 ± 1.2706 | none: points | 1.50 ± 6.35 | 4.0 ± 12.7 | 0.50 |" in text
    assert "| VQ | 0.2000 ± 1.2706 | 3.00 ± 0.00 | 1.50 ± 6.35 | 6.0 ± 12.7 of 64 | 0.50 |" in text
    assert "MIG" not in text


def test_the_readme_has_one_table_of_all_data_and_says_what_a_fitted_prior_is_worth():
    """Seeds 7 - 4 and 9 - 4 nats apart: 4, and t of one degree of freedom times the error of 1."""
    rows = {
        **FOUND["rows"],
        "VQ": {**DISCRETE, "nats": [7.0, 9.0]},
        "VQ, then a transformer": {**DISCRETE, "nats": [4.0, 4.0]},
    }
    results = {
        "data": {
            "digits": {**FOUND, "rows": rows, "command": "python a"},
            "sprites": {
                **FOUND,
                "rows": {"VAE": {**ROW, "mig": [0.1, 0.2]}},
                "command": "python b --rows VAE 'a b' --record c",
            },
        }
    }
    text = families_table.of_readme(results, "figures.json")
    assert "VQ, then a transformer 4.0 ± 12.7 (digits). `python a`, `python b` " in text
    assert "(digits 10, sprites 10), means of 2 seeds" in text
    assert "of the indices; MIG. Rows that are empty were not run. " in text
    assert f"Recorded so far: 3 of {len(families.families((8, 8, 1)))} families. " in text
    assert "| VAE | 0.2000 | 6.00 | 1.50 | none | 4.0 | none: points | 1.50 | 0.150 |" in text
    assert "| VQ | 0.2000 | 8.00 | 1.50 | none | 6.0 of 64 |  |  |  |" in text


def test_another_library_stands_beside_ours_where_both_took_as_many_steps_and_seeds():
    one = {"mse": 0.5, "nats": 3.0, "distance": 7.0, "with mixture": None, "epoch_seconds": 1.0}
    theirs = {"command": "python t --record r", "steps": 10, "seeds": 2, "versions": {"pythae": "0", "torch": "2"}}
    figures = {"VAE": [one, one], "a row that ours has not": [one, one]}
    longer = {**theirs, "steps": 20, "figures": figures}
    text = families_table.of_library(
        {"data": {"digits": FOUND, "sprites": FOUND}},
        {"data": {"digits": {**theirs, "figures": figures}, "sprites": longer, "fashion_mnist": longer}},
        "figures.json",
    )
    both = ["0.2000 ± 1.2706", "0.5000 ± 0.0000", "6.00 ± 12.71", "3.00 ± 0.00", "1.50 ± 6.35", "7.00 ± 0.00"]
    assert f"| VAE | {' | '.join(both)} | none | none |" in text.splitlines()
    assert text.count("\n| ") == 3  # head, rule, one row
    assert "`python t` " in text


def test_rows_of_another_protocol_go_and_others_stay():
    other = {**FOUND, "rows": {"points": ROW}}
    both = families.merged({"data": {"digits": FOUND}}, {"data": {"digits": other}})
    assert set(both["data"]["digits"]["rows"]) == {"VAE", "points"}
    longer = {"data": {"digits": {**other, "steps": 20}}}
    assert families.merged({"data": {"digits": FOUND}}, longer) == longer


@pytest.mark.parametrize("there", [False, True])
def test_results_are_recorded_whether_the_record_is_there_or_not(tmp_path, monkeypatch, there):
    def measured(name, chosen, results, path, *, seeds, steps):
        results["data"][name] = {**FOUND, "rows": {"points": ROW}}

    monkeypatch.setattr(families, "measure_all", measured)
    record = tmp_path / "new" / "record.json"
    if there:
        record.parent.mkdir()
        record.write_text(json.dumps({"data": {"digits": FOUND}}))
    families.compare(out=tmp_path / "out", record=str(record))
    rows = json.loads(record.read_text())["data"]["digits"]["rows"]
    assert set(rows) == ({"VAE", "points"} if there else {"points"})


def test_families_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="--rows: got 'VEA'"):
        families.compare(rows=("VEA",))


@pytest.mark.parametrize(
    ("shape", "of_maps"), [((8, 8, 1), (4, 4, 1)), ((28, 28, 1), (7, 7, 4)), ((32, 32, 1), (8, 8, 4))]
)
def test_families_fit_the_images_and_a_prior_is_fitted_to_the_row_before_it(shape, of_maps):
    known = families.families(shape)
    assert known["VAE of maps"].model.latent == of_maps
    for title, family in known.items():
        shapes = jax.eval_shape(replace(family.model, event_shape=shape, **TOLD.get(title, {})).init, jax.random.key(0))
        assert shapes["encoder"]
        if family.then is not None:
            before = known[title.partition(", then ")[0]]
            assert (family.model, family.objective, family.condition) == (before.model, before.objective, "")
    with pytest.raises(InputError, match="images"):
        families.families((3,))


@pytest.mark.slow
def test_a_prior_that_is_fitted_lowers_the_bound_and_leaves_all_else(tmp_path, monkeypatch):
    """Rows of digits after a few steps: the very same reconstructions, and a lower bound; indices are counted."""

    def hardly_trained(prepared, per_epoch):
        ensemble = classifiers.train_ensemble(prepared, [0], steps=2)
        return defaults.Judge(ensemble, image_quality.Halves(ensemble.features(prepared.test.x)))

    monkeypatch.setattr(families, "judge_of", hardly_trained)
    monkeypatch.setattr(families, "SAMPLES", 100)
    rows = ("VQ", "VQ, then a transformer", "autoencoder", "VAE, told the class")
    families.compare(rows=rows, seeds=2, steps=18, out=tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())["data"]["digits"]["rows"]
    assert list(found) == ["autoencoder", "VAE, told the class", "VQ", "VQ, then a transformer"]  # as they are listed
    plain, fitted = found["VQ"], found["VQ, then a transformer"]
    assert plain["mse"] == fitted["mse"]
    assert plain["perplexity"] == fitted["perplexity"]
    assert all(new < old - 1 for new, old in zip(fitted["nats"], plain["nats"], strict=True))
    assert fitted["epoch_seconds"] > plain["epoch_seconds"]
    assert found["autoencoder"]["nats"] == [None, None]
    assert None not in found["VAE, told the class"]["nats"]
