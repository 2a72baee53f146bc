"""`aevae list` and `aevae show`: runs in every state, and folders that hold no run at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import refused, typed
from run_files import edit_results, write_record

from aevae_jax.checkpoints.locks import Lock
from aevae_jax.cli import overview
from aevae_jax.runs import fitting, records, summaries
from aevae_jax.runs.run import Run

pytestmark = pytest.mark.usefixtures("no_pictures")

MODEL = "VAE(2, MLP((4,)), latent_prior=StandardNormal())"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a run of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    typed("train", folder, "--model", MODEL, "--epochs", 2, "--batch-size", 400)
    return folder


@pytest.fixture
def folder(run, tmp_path, monkeypatch):
    """A folder with that run in runs/first."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "runs/first")
    return tmp_path / "runs"


def edited(source, name, **fields):
    """A copy of a run that is not finished, with other fields in its record: nothing else in it is of that run."""
    copy = source.parent / name
    shutil.copytree(source, copy)
    (copy / "results.json").unlink()
    record = json.loads((copy / "run.json").read_text())
    record["run"].update(fields)
    write_record(copy, record)
    return copy


def as_sweep(source, name):
    """A finished sweep of one field, whose members are copies of a run."""
    place, members = source.parent / name, ["beta=1,seed=0", "beta=4,seed=0"]
    for member in members:
        shutil.copytree(source, place / "members" / member)
    record = json.loads((source / "run.json").read_text())
    sweep = {"seeds": [0, 0], "fields": ["objective.beta"], "numbers": [[1.0, 4.0]]}
    write_record(place, {**record, "sweep": sweep})
    digest = records.read_record(place, any_kind=True)["digest"]
    records.write_json(place / "results.json", records.sealed({"run": digest, "members": members}))
    return place


def line_of(name):
    return next(line for line in typed("list").splitlines() if line.startswith(f"{name} "))


def test_a_finished_run_is_listed_with_what_its_files_say(folder):
    fitted = fitting.load_run(folder / "first")
    value = fitted.results["validation"]["negative_elbo"]
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime((folder / "first" / "results.json").stat().st_mtime))
    expected = f"first  {date}  finished  negative elbo {value:.5g}  VAE(latent=2, network=MLP(hidden=(4,))) of digits"
    assert typed("list").splitlines() == [expected, "next   aevae show runs/first"]


def test_an_unfinished_run_is_at_its_epoch_and_says_if_it_is_trained_now(folder):
    shutil.copytree(folder / "first", folder / "cut")
    (folder / "cut" / "results.json").unlink()
    value = fitting.load_run(folder / "first").results["validation"]["negative_elbo"]
    assert f"  epoch 2 of 2, stopped  negative elbo {value:.5g}  " in line_of("cut")  # of the last checkpoint
    with Lock.claim(folder / "cut"):
        assert "  epoch 2 of 2, being trained  " in line_of("cut")
        assert f"lock   process {os.getpid()} on " in typed("show", "runs/cut")
        assert "aevae train" not in typed("show", "runs/cut").partition("\nnext")[2]
        assert "next   aevae evaluate runs/cut\n" in typed("show", "runs/cut")
    assert "  epoch 2 of 2, stopped  " in line_of("cut")
    assert re.search(r"next   aevae train runs/cut --data digits .*  # resumes it\n", typed("show", "runs/cut"))

    again = edited(folder / "first", "again", epochs=20)  # whose checkpoints are another run's: the log alone counts
    assert "  epoch 2 of 20, stopped    " in line_of("again")
    (again / "metrics.jsonl").unlink()
    assert "  no epoch of 20 yet, stopped  " in line_of("again")


def test_looking_leaves_no_trace(folder):
    (folder / "first" / "lock").touch()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    typed("list")
    typed("show", "runs/first")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_runs_are_told_apart_by_what_they_differ_in(folder):
    optimizer = records.read_record(folder / "first")["run"]["optimizer"]
    edited(folder / "first", "slow", seed=7, optimizer={**optimizer, "learning_rate": 1e-4})
    assert line_of("slow").endswith("of digits, learning_rate=0.0001, seed=7")
    assert line_of("first").endswith("of digits, learning_rate=0.001, seed=0")
    edited(folder / "first", "points", objective={"type": "ReconstructionError"}, own=[1, 2])  # what others have not
    assert line_of("points").endswith("of digits, objective=ReconstructionError, learning_rate=0.001, seed=0")


def test_a_sweep_is_one_line_and_its_members_are_listed_by_naming_it(folder):
    sweep = as_sweep(folder / "first", "betas")
    value = fitting.load_run(folder / "first").results["validation"]["negative_elbo"]
    assert "  finished, sweep of objective.beta 1, 4 and 1 seed  " in line_of("betas")
    assert f"  negative elbo {value:.5g}  " in line_of("betas")
    assert [line.split()[0] for line in typed("list", "runs/betas").splitlines()] == [
        "members/beta=1,seed=0",
        "members/beta=4,seed=0",
        "next",
    ]
    out = typed("show", "runs/betas")
    assert f"member members/beta=4,seed=0: negative elbo {value:.5g}\n" in out
    assert " --sweep objective.beta=1,4\n" in out
    (sweep / "members" / "beta=4,seed=0" / "results.json").write_text("{}")
    assert "member members/beta=4,seed=0: damaged: " in typed("show", "runs/betas")
    shutil.rmtree(sweep / "members" / "beta=1,seed=0")
    (sweep / "members" / "beta=1,seed=0").symlink_to(sweep)  # in a circle
    assert "member members/beta=1,seed=0: damaged: run " in typed("show", "runs/betas")


def test_all_is_shown_of_a_run(folder):
    out, record = typed("show", "runs/first"), records.read_record(folder / "first")
    fitted = fitting.load_run(folder / "first")
    count = sum(leaf.size for part in fitted.params.values() for leaf in _leaves(part))
    best, data = fitted.results["best_epoch"], record["provenance"]["data"]
    assert out.startswith("runs/first: finished\n")
    assert f"sha256 {data['sha256']}\n" in out
    assert f", {count:,} parameters\n" in out
    assert f"of validation data, at epoch {best} of 2\n" in out
    assert f"jax {record['provenance']['versions']['jax']}, " in out
    assert "next   aevae sample runs/first --out samples.png\n" in out
    for part in ("validation", "test"):
        assert f"= {fitted.results[part]['negative_elbo']:.1f} nats/example" in out
    [command] = [line.removeprefix("typed  aevae ") for line in out.splitlines() if line.startswith("typed  ")]
    assert _run_of(command) == Run(**{**vars(fitted.run), "model": _run_of(command).model})
    assert "latent_prior=StandardNormal()" in command


def _leaves(tree):
    return [leaf for part in tree.values() for leaf in _leaves(part)] if isinstance(tree, dict) else [tree]


def _run_of(command):
    import shlex

    from aevae_jax.cli.arguments import parse_arguments
    from aevae_jax.cli.main import train

    return parse_arguments(train, shlex.split(command)[1:], prog="x", compiles=False).keywords["run"].value()


STRANGE = {
    "fifo": lambda place: os.mkfifo(place / "run.json"),
    "device": lambda place: (place / "run.json").symlink_to("/dev/zero"),
    "dangling": lambda place: (place / "run.json").symlink_to("nowhere"),
    "folder": lambda place: (place / "run.json").mkdir(),
    "empty": lambda place: (place / "run.json").touch(),
    "list": lambda place: (place / "run.json").write_text("[1]"),
    "deep": lambda place: (place / "run.json").write_text("[" * 10_000),
    "not a run": lambda place: write_record(
        place, {"run": {"type": 3}, "format": 0, "provenance": {"data": {"sha256": 1}}}
    ),
    "numbers": lambda place: write_record(
        place,
        {
            "run": {"type": "Run", "epochs": "x"},
            "format": [],
            "provenance": {"data": {"sha256": [], "splits": {"a": 1}}},
        },
    ),
    "sweep": lambda place: write_record(
        place,
        {"run": {}, "format": [], "sweep": {"fields": 3}, "provenance": {"data": {"sha256": 0}, "versions": {"a": {}}}},
    ),
}
"""What may stand in the place of a run."""


@pytest.mark.parametrize("kind", STRANGE)
def test_whatever_is_in_a_folder_is_no_traceback(kind, folder, capsys):
    (folder / kind).mkdir()
    STRANGE[kind](folder / kind)
    assert line_of("first").split()[3] == "finished"
    assert line_of(kind)
    assert typed("show", f"runs/{kind}").startswith(f"runs/{kind}: ")


@pytest.mark.parametrize(
    "name", ["run.json", "results.json", "metrics.jsonl", "weights.safetensors", "checkpoints", "lock"]
)
@pytest.mark.parametrize("finished", [True, False])
def test_files_of_a_run_that_are_something_else(name, finished, folder):
    place = folder / "first"
    if not finished:
        (place / "results.json").unlink()
    if (place / name).is_dir():
        shutil.rmtree(place / name)
    (place / name).unlink(missing_ok=True)
    os.mkfifo(place / name)
    harmless = {"lock", "checkpoints"} if finished else {"lock", "metrics.jsonl", "weights.safetensors"}
    assert ("first: damaged" in typed("show", "runs/first")) == (name not in harmless)
    assert line_of("first")


def test_results_that_were_edited_are_not_believed(folder):
    text = (folder / "first" / "results.json").read_text()
    (folder / "first" / "results.json").write_text(text.replace('"best_epoch": 2', '"best_epoch": 1'))
    assert "  damaged  " in line_of("first")
    (folder / "first" / "results.json").write_text(text)
    edit_results(folder / "first", lambda results: results.update(run="0"))
    assert "  damaged  " in line_of("first")


def test_a_run_that_begins_at_another_says_so(folder):
    record = json.loads((folder / "first" / "run.json").read_text())
    write_record(folder / "first", {**record, "initial": {"run": "0", "place": "/old runs/a", "optimizer": "0"}})
    assert " --from '/old runs/a' --keep-optimizer\n" in typed("show", "runs/first")


def test_dates_of_any_year_are_no_traceback(folder):
    (folder / "first" / "results.json").touch()
    for name in ("run.json", "metrics.jsonl", "results.json"):
        os.utime(folder / "first" / name, (2**40, 2**40))
    assert "first" in typed("list")


def test_links_are_looked_at_and_not_followed_in_circles(folder):
    (folder / "circle").symlink_to(folder)
    (folder / "itself").symlink_to("itself")
    (folder / "linked").symlink_to(folder / "first")
    assert [line.split()[0] for line in typed("list").splitlines()] == ["first", "linked", "next"]


def test_runs_are_found_in_folders_within(folder):
    for name in ("a/b", "a/.hidden", "a/b2/c/d"):  # the last is too deep
        shutil.copytree(folder / "first", folder / name / "run")
    assert [line.split()[0] for line in typed("list").splitlines()] == ["a/b/run", "first", "next"]
    assert [line.split()[0] for line in typed("list", "runs/a/b/run").splitlines()] == ["runs/a/b/run", "next"]


def test_where_there_is_no_run_one_is_proposed(folder, capsys):
    where = "expected a run directory written by training"
    assert refused(capsys, "show", "runs/frist").endswith(f"{where}; did you mean runs/first?")
    assert refused(capsys, "show", "elsewhere").endswith(f"{where}; type: aevae list")
    assert "No such file or directory" in refused(capsys, "list", "elsewhere")
    (folder / "empty").mkdir()
    assert typed("list", "runs/empty").splitlines() == ["no runs in runs/empty", "next   aevae train runs/first"]


def test_hundreds_of_runs_take_little_time_and_no_array_library(folder):
    for index in range(200):
        copy = folder / f"run{index}"
        copy.mkdir()
        for name in ("run.json", "results.json"):
            os.link(folder / "first" / name, copy / name)
    code = (
        "import sys\nfrom aevae_jax.cli.main import main\nmain(['list'])\n"
        "print([name for name in ('jax', 'numpy', 'flax', 'sklearn', 'rich') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(overview.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert len(done.stdout.splitlines()) == 203
    assert done.stdout.splitlines()[-1] == "[]"
    began = time.process_time()
    for place in summaries.find(Path("runs")):
        assert summaries.summarize(place).finished
    assert time.process_time() - began < 1  # some 1 ms each, where it is quick


def test_a_run_with_objects_from_python_is_listed_by_their_names(folder):
    edited(folder / "first", "own", model={"custom": "MyModel", "opaque": True})
    assert re.search(r"  MyModel of digits", line_of("own"))
    assert "typed" not in typed("show", "runs/own")
