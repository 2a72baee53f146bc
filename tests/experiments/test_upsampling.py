"""The experiment on the decoder of `Conv`: differences are paired by seed, runs differ in the decoder alone."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from aevae_jax.data import from_arrays
from aevae_jax.models.architectures import Conv
from aevae_jax.runs import records
from aevae_jax.types import InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import paired
import upsampling


def row(negative_elbo):
    return {"negative_elbo": negative_elbo, "distortion": [1.0] * 3, "rate": [1.0] * 3, "seconds": [90.0] * 3}


def test_the_difference_is_paired_by_seed_in_nats_and_in_hundredths_of_the_former():
    rows = {"sub_pixel": row([203.0, 302.0, 104.0]), "repeat": row([200.0, 300.0, 100.0])}
    results = {"data": "x", "epochs": 3, "seeds": 3, "rows": rows, "command": "python u --record r"}
    half = stats.t.ppf(0.975, 2) * 1 / 3**0.5
    assert f"of repeat by +3.00 [{3 - half:+.2f}, {3 + half:+.2f}] nats, +1.50 % [" in upsampling.says(results)
    assert f"[{(3 - half) / 2:+.2f}, {(3 + half) / 2:+.2f}]" in upsampling.says(results)
    assert "| sub_pixel | 203.00 | 1.00 | 1.00 | 1.5 |" in upsampling.of_readme(results, "figures.json")
    assert "`python u` ([protocol]" in upsampling.of_readme(results, "figures.json")


def test_runs_differ_in_the_decoder_alone():
    runs = [upsampling.run_of(name, 2, "fashion_mnist", examples=50_000, epochs=8) for name in ("sub_pixel", "repeat")]
    assert [run.model.network.upsampling for run in runs] == ["sub_pixel", "repeat"]
    assert len({dataclasses.replace(run, model=dataclasses.replace(run.model, network=Conv())) for run in runs}) == 1
    assert (runs[0].seed, runs[0].epochs, runs[0].batch_size) == (2, 8, 128)


@pytest.mark.slow
def test_all_are_trained_once_and_recorded(tmp_path, monkeypatch, capsys):
    x = np.random.RandomState(0).randint(0, 256, (60, 4, 4, 1)).astype(np.uint8)
    monkeypatch.setattr(upsampling.Data, "load", lambda self: from_arrays(x, name="small"))
    trained, fit = [], paired.fitting.fit
    monkeypatch.setattr(paired.fitting, "fit", lambda run, *a, **b: trained.append(run) or fit(run, *a, **b))
    upsampling.upsampling(seeds=2, epochs=1, out=str(tmp_path), record=str(tmp_path / "record.json"))
    assert [(run.model.network.upsampling, run.seed) for run in trained] == [
        ("sub_pixel", 0),
        ("sub_pixel", 1),
        ("repeat", 0),
        ("repeat", 1),
    ]
    record = records.read_json(tmp_path / "record.json")
    assert upsampling.table(record) in capsys.readouterr().out
    kept = records.read_json(tmp_path / "repeat-1-1" / "results.json")["test"]["negative_elbo"]
    assert record["rows"]["repeat"]["negative_elbo"][1] == kept


def test_one_seed_has_no_interval():
    with pytest.raises(InputError, match="--seeds: got 1, expected at least 2"):
        upsampling.upsampling(seeds=1)
