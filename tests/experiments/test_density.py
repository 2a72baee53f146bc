"""The experiment on likelihoods: what they train, count, refuse and write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from aevae_jax import models
from aevae_jax.cli import console
from aevae_jax.data import Data, DynamicBinarization, from_arrays, prepare
from aevae_jax.models import priors
from aevae_jax.types import InputError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import density  # noqa: E402
import density_table  # noqa: E402
import readme  # noqa: E402


def run(name, *arguments, cwd):
    command = [sys.executable, str(ROOT / "experiments" / f"{name}.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=500, check=False)


def entry(seed, nll, num_samples=5):
    bound = {"negative_elbo": nll + 2}
    return {
        "seed": seed,
        "nll": nll,
        "num_samples": num_samples,
        "test": bound,
        "active_units": 9,
        "training_seconds": 60.0,
    }


KEY = {"data": "fashion_mnist", "data_sha256": "1", "num_samples": 5}


# what is trained


@pytest.mark.parametrize("row", density_table.ROWS)
def test_every_row_is_of_the_published_network_class(row):
    run = density.run_of(row, 3, density_table.FASHION, examples=50_000)
    assert (run.model.network.hidden, run.model.network.gated) == ((300, 300), True)
    assert run.model.log_scale_range == (-3.0, 1.0)  # log variances within [-6, 2]
    assert run.model.latent == (80 if row.startswith("two_level") else 40)
    assert isinstance(run.model, models.TwoLevelVAE) == row.startswith("two_level")
    assert (run.model.latent_prior == priors.VampPrior(500)) == row.endswith("vampprior")
    assert isinstance(run.data.preparation, DynamicBinarization)
    assert (run.seed, run.patience) == (3, 50)
    if row.startswith("iwae"):
        assert run.objective.num_samples == int(row.rpartition("_")[2])
    else:
        assert run.objective.beta.steps * run.batch_size == density_table.ROWS[row].warmup * 50_000


def test_the_floor_is_the_entropy_of_pixels_and_what_their_bits_cost():
    """Pixel by pixel: one of level v is a bit that is 1 with probability v / 255."""
    x = np.random.default_rng(0).integers(0, 256, (30, 4, 3, 1)).astype(np.uint8)
    x[:, 0] = np.array([0, 255, 128], np.uint8)[:, None]
    dataset = from_arrays(x)
    prepared = prepare(DynamicBinarization(), dataset)
    p, bits = dataset.test.x[:] / 255, np.asarray(prepared.test.x[:], float)
    floor = density.floor(dataset, prepared)
    count = len(dataset.test)
    assert floor["entropy"] == pytest.approx(stats.bernoulli(p).entropy().sum() / count, rel=1e-9)
    assert floor["drawn_bits"] == pytest.approx(-stats.bernoulli(p).logpmf(bits).sum() / count, rel=1e-9)
    assert floor["drawn_bits"] != floor["entropy"]


@pytest.mark.slow
def test_the_floor_is_that_of_the_pixels(fashion_mnist_directory, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(fashion_mnist_directory))
    dataset = Data("fashion_mnist", DynamicBinarization()).load()
    floor = density.floor(dataset, prepare(DynamicBinarization(), dataset))
    assert floor["entropy"] == pytest.approx(189.858, abs=1e-3)
    assert floor["drawn_bits"] == pytest.approx(189.8686, abs=1e-4)


# the table


def test_rows_are_means_over_seeds_and_the_rest_is_said_not_to_be_run(tmp_path):
    for seed, nll in ((0, 200.0), (1, 203.0)):
        (tmp_path / f"vae-{seed}.json").write_text(json.dumps(entry(seed, nll)))
    rows = density_table.summary(density_table.entries(tmp_path, "", KEY))
    assert [row["row"] for row in rows] == list(density_table.ROWS)
    assert rows[0]["nll"] == pytest.approx(201.5)
    assert rows[0]["standard_deviation"] == pytest.approx(3 / 2**0.5)
    text = density_table.table({**KEY, "rows": rows, "floor": {"drawn_bits": 190.0, "entropy": 189.0}})
    assert "| VAE | N(0, I) | ELBO | 2 | 201.50 ± 2.12 | 11.50 | 203.50 | 9 | 1:00 | 228.70 |" in text
    assert text.count("not yet run") == len(rows) - 1


def test_records_grow_and_other_protocols_are_refused(tmp_path):
    record = tmp_path / "record.json"
    old = {"vae": [entry(0, 200.0), entry(1, 201.0)]}
    rows = density_table.summary({name: old.get(name, []) for name in density_table.ROWS})
    record.write_text(json.dumps({**KEY, "rows": rows}))
    for name, found in (("vae-1", entry(1, 203.0)), ("iwae_5-0", entry(0, 199.0)), ("vae-2", entry(2, 1.0, 7))):
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    grown = density_table.entries(tmp_path, str(record), KEY)
    assert [one["nll"] for one in grown["vae"]] == [200.0, 203.0]  # newer figures win; those of 7 samples stay out
    assert [one["nll"] for one in grown["iwae_5"]] == [199.0]
    with pytest.raises(InputError, match=r"num_samples \(--record\): got 7, expected 5, as in"):
        density_table.entries(tmp_path, str(record), {**KEY, "num_samples": 7})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": ("vae", "none")}, "--rows: got none"),
        ({"seeds": 0}, "--seeds: got 0"),
        ({"samples": 0}, "--samples: got 0"),
    ],
)
def test_what_cannot_be_run_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        density.density(data="digits", **arguments)


@pytest.mark.slow
def test_a_small_table_is_made_and_made_again_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(density, "TEMPERATURES", 50)  # a model of one epoch needs no more
    monkeypatch.setattr(density, "BOUNDS", (1, 5, 50))
    arguments = ["--rows", "vae", "--data", "digits", "--epochs", "1", "--samples", "5", "--record", "r.json"]
    made = console.parse_arguments(density.density, [*arguments, "--annealed", "2"], prog="density.py")
    made()
    first = capsys.readouterr().out
    assert first.startswith("expected: about ")
    results = json.loads(Path("r.json").read_text())
    rows = {row["row"]: row for row in results["rows"]}
    assert rows["vae"]["seeds"][0]["epochs"] == 1
    assert results["floor"]["drawn_bits"] < rows["vae"]["nll"] < rows["vae"]["seeds"][0]["test"]["negative_elbo"]
    annealed = rows["vae"]["seeds"][0]["annealed"]
    assert annealed["nll"] < annealed["nll_by_importance_sampling"] + 0.5  # 5 samples are the looser bound
    bound = list(rows["vae"]["seeds"][0]["bound_with"].values())
    assert bound == sorted(bound, reverse=True)
    made()
    again = capsys.readouterr().out
    assert again.strip()
    assert again in first  # the table alone: nothing was left to do
    Path("runs/density_digits/vae-0.json").write_text(json.dumps({**rows["vae"]["seeds"][0], "weights_sha256": "0"}))
    with pytest.raises(InputError, match="figures of other weights"):
        made()


@pytest.mark.slow
def test_what_is_refused_is_one_line_where_it_is_typed(tmp_path):
    refused = run("density", "--data", "digits", "--samples", "0", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --samples: got 0")
    assert refused.stderr.count("\n") == 1


# the README


def test_the_readme_says_what_was_recorded():
    done = run("readme", "--check", cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_readme_that_says_otherwise_is_found_out(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text()
    (tmp_path / "README.md").write_text(text.replace("] holds |", "] does not hold |", 1))
    with pytest.raises(InputError, match="type python experiments/readme"):
        readme.readme(check=True, path=tmp_path / "README.md")
    readme.readme(path=tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text() == text
    (tmp_path / "README.md").write_text("# Nothing\n")
    with pytest.raises(InputError, match="no section of results"):
        readme.readme(path=tmp_path / "README.md")
