"""Families side by side: what is kept of other days, what the table says, and a record that is not there yet."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from aevae_jax.types import InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import families

ROW = {
    "epoch_seconds": 2.0,
    "mse": [0.1, 0.3],
    "nats": [None, None],
    "distance": [1.0, 2.0],
    "with mixture": [None, None],
    "active units": [3.0, 5.0],
    "mig": [None, None],
}
FOUND = {"seeds": 2, "steps": 10, "sha256": "a", "rows": {"VAE": {**ROW, "nats": [5.0, 7.0], "epoch_seconds": 4.0}}}


def test_an_interval_is_that_of_student():
    """Of two numbers a distance of 2 apart: t of one degree of freedom, 12.7, times the error of 1."""
    mean, half = families.interval([5.0, 7.0])
    assert (mean, round(half, 3)) == (6.0, 12.706)
    assert families.interval([5.0, None]) is None


def test_the_table_says_what_a_family_has_not_and_times_relative_to_the_plain_one():
    text = families.table("digits", {**FOUND, "rows": {**FOUND["rows"], "points": ROW}})
    assert "| points | 0.2000 ± 1.2706 | none | 1.50 ± 6.35 | 4.0 ± 12.7 | 0.50 |" in text
    assert "MIG" not in text


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
    assert np.unique(list(families.families())).size == len(families.families())
