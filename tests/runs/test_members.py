"""A sweep in a directory: each member is left as a run, and it resumes as a run does."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from aevae_jax import data
from aevae_jax.checkpoints.saving import Saving
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.objectives.losses import ELBO
from aevae_jax.runs import fitting, records, sweeps, training_loop
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

RUN = Run(model=VAE(2, MLP((8,))), batch_size=10, epochs=3, patience=1)
FIELDS, SEEDS = {"objective.beta": (0.5, 4)}, (3, 1)
NAMES = ["beta=0.5,seed=3", "beta=0.5,seed=1", "beta=4,seed=3", "beta=4,seed=1"]
EACH = [records.METRICS, records.LOSSES, records.WEIGHTS]


def images():
    x = np.random.RandomState(0).randint(0, 256, (60, 2, 2, 1)).astype(np.uint8)
    return data.from_arrays(x[:20], x[20:40], x[40:], name="images")


def fit(folder, run=RUN, fields=FIELDS, **options):
    return fitting.fit_members(run, fields, SEEDS, images(), directory=folder, **options)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "run"
    return folder, fit(folder, saving=Saving(steps=3, last=9))


def contents(folder):
    return {name: [(folder / "members" / name / each).read_bytes() for each in EACH] for name in NAMES}


def test_every_member_is_a_run_like_that_of_its_seed_and_number_alone(swept):
    folder, found = swept
    assert sorted(path.name for path in (folder / "members").iterdir()) == sorted(NAMES)
    for name, fitted in zip(NAMES, found, strict=True):
        loaded = fitting.load_run(folder / "members" / name)
        assert loaded.run == fitted.run
        assert loaded.history == fitted.history
        assert loaded.results == fitted.results
        np.testing.assert_array_equal(loaded.losses, fitted.losses)
        assert (folder / "members" / name / "samples.png").stat().st_size
    run = replace(RUN, objective=ELBO(beta=4.0), seed=1)
    alone = fitting.fit(run, images())
    assert found[3].run == alone.run
    assert len(found[3].history) == len(alone.history)
    np.testing.assert_allclose(found[3].losses, alone.losses, rtol=1e-4)
    assert found[3].results["test"] == pytest.approx(alone.results["test"], rel=1e-4)
    for ours, theirs in zip(jax.tree.leaves(found[3].params), jax.tree.leaves(alone.params), strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs) + 1e-7


def test_the_curve_has_intervals_over_seeds(swept):
    folder, found = swept
    curve = json.loads((folder / "rate_distortion.json").read_text())
    assert [point["numbers"] for point in curve["points"]] == [{"objective.beta": 0.5}, {"objective.beta": 4.0}]
    seeds = [fitted.results["test"]["rate"] for fitted in found[2:]]
    assert curve["points"][1]["rate"]["seeds"] == seeds
    half = 12.706204736432095 * abs(seeds[0] - seeds[1]) / 2  # Student's t of one degree of freedom, s / sqrt(2)
    assert curve["points"][1]["rate"]["interval"] == pytest.approx([np.mean(seeds) - half, np.mean(seeds) + half])
    with Image.open(folder / "rate_distortion.png") as picture:
        assert picture.width >= 1000


def test_a_sweep_that_was_stopped_resumes_to_the_same_bits(swept, tmp_path, no_pictures):
    """Within an epoch, too, and where it was killed while it wrote its members."""
    folder, _ = swept
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    shutil.rmtree(tmp_path / "run" / "members" / NAMES[1])
    (tmp_path / "run" / "members" / NAMES[0] / "weights.safetensors").write_bytes(b"")
    steps = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit())
    assert steps[:2] == [0, 3]  # of 2 in an epoch
    for step in steps[2:]:
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    notes = []
    fit(tmp_path / "run", on_note=notes.append)
    assert notes == ["resuming at step 3, in epoch 2"]
    assert contents(tmp_path / "run") == contents(folder)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


def test_a_finished_sweep_is_given_back_and_another_is_refused(swept, monkeypatch):
    folder, found = swept
    monkeypatch.setattr(training_loop, "train", lambda *_: pytest.fail("it is finished"))
    again = fit(folder)
    assert [fitted.results for fitted in again] == [fitted.results for fitted in found]
    with pytest.raises(InputError, match=r"holds another run .*sweep numbers"):
        fit(folder, fields={"objective.beta": (0.5, 2)})
    with pytest.raises(InputError, match=r"holds another run .*sweep"):
        fitting.fit(replace(RUN, objective=ELBO(0.5)), images(), directory=folder)
    with pytest.raises(InputError, match=r"run .*: got a sweep, expected one of its runs; type: aevae list "):
        fitting.load_run(folder)
    with pytest.raises(InputError, match=r"holds another run .*sweep"):
        fit(folder / "members" / NAMES[0], replace(RUN, seed=3))


def test_a_member_that_is_another_run_or_a_link_is_refused(swept, tmp_path):
    shutil.copytree(swept[0], tmp_path / "run")
    place = tmp_path / "run" / "members"
    shutil.rmtree(place / NAMES[0])
    shutil.copytree(place / NAMES[1], place / NAMES[0])
    with pytest.raises(InputError, match=r"run.json .*got another run, expected that of seed 3, objective.beta 0.5"):
        fit(tmp_path / "run")
    shutil.rmtree(place / NAMES[0])
    (place / NAMES[0]).symlink_to(place / NAMES[1])
    with pytest.raises(InputError, match=r"directory of a member: got .*, a link"):
        fit(tmp_path / "run")


def test_starting_over_deletes_all_members(swept, tmp_path, monkeypatch):
    shutil.copytree(swept[0], tmp_path / "run")

    def train(*_):
        raise SystemExit

    monkeypatch.setattr(training_loop, "train", train)
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", fresh=True)
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name != "lock"] == ["run.json"]


def test_directories_of_members_have_short_names_where_these_differ():
    def names(*fields):
        _, population = sweeps.combine(RUN, dict.fromkeys(fields, (0.1, 1e-5)), (7,))
        return [population.folder(member) for member in (0, len(population.seeds) - 1)]

    assert names("objective.beta", "optimizer.clip_norm") == [
        "beta=0.1,clip_norm=0.1,seed=7",
        "beta=1e-05,clip_norm=1e-05,seed=7",
    ]
    _, population = sweeps.combine(RUN, {}, (7, 8))
    assert population.folder(1) == "seed=8"
