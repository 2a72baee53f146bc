"""The experiment on the decoder of `Conv`: differences are paired by seed, runs differ in the decoder alone."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from aevae_jax.data import Data, DynamicBinarization, from_arrays
from aevae_jax.models import VAE
from aevae_jax.models.architectures import Conv
from aevae_jax.models.likelihoods import Bernoulli
from aevae_jax.models.priors import StandardNormal
from aevae_jax.runs import records
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import paired
import upsampling


def row(negative_elbo):
    return {"negative_elbo": negative_elbo, "distortion": [1.0] * 3, "rate": [2.0] * 3, "seconds": [90.0] * 3}


def test_the_difference_is_paired_by_seed_in_nats_and_in_hundredths_of_the_former():
    rows = {"sub_pixel": row([203.0, 302.0, 104.0]), "repeat": row([200.0, 300.0, 100.0])}
    results = {"data": "x", "epochs": 3, "seeds": 3, "rows": rows, "command": "python u --record r --seeds 3"}
    half = stats.t.ppf(0.975, 2) * 1 / 3**0.5
    said = upsampling.says(results)
    assert f"of sub_pixel less that of repeat is +3.00 [{3 - half:+.2f}, {3 + half:+.2f}] nats, or +1.50 [" in said
    assert f"[{(3 - half) / 2:+.2f}, {(3 + half) / 2:+.2f}] %" in said
    assert "| sub_pixel | 203.00 | 1.00 | 2.00 |" in upsampling.of_readme(results, "figures.json")
    assert "`python u --seeds 3` ([protocol]" in upsampling.of_readme(results, "figures.json")


def test_runs_are_those_of_the_protocol_and_differ_in_the_decoder_alone():
    data = Data("fashion_mnist", DynamicBinarization())
    runs = [upsampling.run_of(name, 2, data, examples=50_000, epochs=8) for name in upsampling.KINDS]
    assert [run.model.network for run in runs] == [Conv((32, 64)), Conv((32, 64), upsampling="repeat")]
    [run] = {dataclasses.replace(run, model=dataclasses.replace(run.model, network=Conv())) for run in runs}
    assert run.model == VAE(16, Conv(), Bernoulli(), StandardNormal())
    assert (run.seed, run.epochs, run.batch_size, run.optimizer) == (2, 8, 128, AdamW(1e-3))


@pytest.mark.slow
def test_all_are_trained_once_and_recorded(tmp_path, monkeypatch, capsys):
    x = np.random.RandomState(0).randint(0, 256, (60, 4, 4, 1)).astype(np.uint8)
    monkeypatch.setattr(upsampling.Data, "load", lambda self: from_arrays(x, name="small"))
    trained, fit = [], paired.fitting.fit
    monkeypatch.setattr(paired.fitting, "fit", lambda run, *a, **b: trained.append(run) or fit(run, *a, **b))
    upsampling.upsampling(seeds=2, epochs=1, out=str(tmp_path), record=str(tmp_path / "record.json"))
    assert [(run.model.network.upsampling, run.seed) for run in trained] == [
        ("sub_pixel", 0),
        ("repeat", 0),  # in turn, so that the load of the machine is that of both
        ("sub_pixel", 1),
        ("repeat", 1),
    ]
    record = records.read_json(tmp_path / "record.json")
    assert upsampling.table(record) in capsys.readouterr().out
    kept = records.read_json(tmp_path / "repeat-1-1" / "results.json")["test"]["negative_elbo"]
    assert record["rows"]["repeat"]["negative_elbo"][1] == kept
    made = records.read_record(tmp_path / "sub_pixel-1-0")["provenance"]
    assert record["made"] == {k: made[k] for k in ("code", "versions")} | made["device"] | made["host"]


@pytest.mark.parametrize(("option", "value", "least"), [("seeds", 1, 2), ("epochs", 0, 1)])
def test_too_few_are_refused(option, value, least):
    with pytest.raises(InputError, match=f"--{option}: got {value}, expected at least {least}"):
        upsampling.upsampling(**{option: value})


def test_vectors_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.random.RandomState(0).randint(0, 256, (60, 5)).astype(np.uint8))
    with pytest.raises(InputError, match=r"--data: got examples of shape \(5,\), expected images"):
        upsampling.upsampling(data=Data(str(tmp_path / "x.npy")), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
