"""The experiment that kills, starves and poisons trainings: its short form holds, and it reports what does not."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aevae_jax import array_files, checkpoints

PATH = Path(__file__).parents[1] / "experiments" / "faults.py"
ENOUGH = {"kills": 2, "nan": 1, "signals": 2, "exits": 1, "damage": 6, "disk": 3, "lock": 2, "resume": 1, "machines": 2}
"""Rows of each section, at least."""


@pytest.fixture(scope="module")
def faults():
    """The experiment as a module."""
    spec = importlib.util.spec_from_file_location("faults", PATH)
    sys.modules["faults"] = module = importlib.util.module_from_spec(spec)  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["faults"]


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The short form: its output directory, exit code, table and record."""
    out = tmp_path_factory.mktemp("faults")
    command = [sys.executable, str(PATH), "--short", "--out", str(out), "--record", str(out / "record.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (out / "record.json").exists(), done.stderr
    return out, done, json.loads((out / "record.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("section", ENOUGH)
def test_every_row_of_the_short_form_holds(short, section):
    rows = short[2]["sections"][section]["rows"]
    assert len(rows) >= ENOUGH[section]
    for row in rows:
        assert row["holds"] in ("holds", "skipped"), row
        assert (row["holds"] == "skipped") or (row["trials"] > 0 and row["failed"] == 0)


@pytest.mark.slow
def test_the_record_says_what_the_figures_rest_on_and_the_exit_code_whether_all_hold(short):
    _, done, record = short
    held = all(row["holds"] != "does not hold" for section in record["sections"].values() for row in section["rows"])
    assert done.returncode == (0 if held else 1)
    assert record["command"].startswith("python experiments/faults.py --short")
    assert record["versions"]["jax"]
    assert "SIGKILL" in done.stdout
    assert "left" in done.stderr


@pytest.mark.slow
def test_figures_that_are_there_are_reused(short, faults, monkeypatch, capsys):
    monkeypatch.setattr(faults.Bench, "start", lambda *args, **options: pytest.fail("a process was started"))
    faults.faults(only=("kills", "lock"), short=True, resume=True, out=short[0])
    assert "second process in a directory" in capsys.readouterr().out


# what is broken is reported


def trusting(store, step, like):
    """`Store.restore` without its checks."""
    return array_files.read_arrays(store.folder / str(step) / "arrays", like)


@pytest.mark.slow
def test_checkpoints_that_are_not_verified_do_not_hold(short, faults, monkeypatch, tmp_path, capsys):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "whole").symlink_to(short[0] / "work" / "whole")
    monkeypatch.setattr(checkpoints.Store, "restore", trusting)
    with pytest.raises(SystemExit) as left:
        faults.faults(only=("damage",), short=True, resume=True, out=tmp_path)
    assert left.value.code == 1
    rows = {row["fault"]: row for row in json.loads((tmp_path / "damage.json").read_text())["rows"]}
    assert rows["checkpoint with a bit flipped"]["holds"] == "does not hold"
    assert rows["checkpoint with a bit flipped"]["failures"]
    assert rows["weights of a finished run deleted"]["holds"] == "holds"
    assert "does not hold" in capsys.readouterr().out


@pytest.mark.slow
def test_the_newest_checkpoint_is_the_one_that_the_next_start_would_find(short, faults, tmp_path):
    bench = faults.Bench(short[0] / "work", True, 0, "")
    kept = tmp_path / "checkpoints"
    assert bench.newest(tmp_path) == -1
    for step in (5, 6, 7):
        shutil.copytree(bench.whole() / "checkpoints" / str(step), kept / str(step))
    assert bench.newest(tmp_path) == 7
    (kept / "7").rename(kept / "7.old.tmp")  # killed in the moment between two renames
    assert bench.newest(tmp_path) == 7
    (kept / "7.old.tmp").rename(kept / "7.gone.tmp")
    (kept / "6" / "manifest.json").unlink()
    assert bench.newest(tmp_path) == 5
    assert sorted(path.name for path in kept.iterdir()) == ["5", "6", "7.gone.tmp"]  # it is only looked at


@pytest.mark.slow
def test_another_outcome_is_named(short, faults, tmp_path):
    bench = faults.Bench(short[0] / "work", True, 0, "")
    for name in ("weights.safetensors", "losses.npy", "metrics.jsonl", "results.json"):
        (tmp_path / name).write_bytes((bench.whole() / name).read_bytes())
    assert bench.compare(tmp_path) == ""
    (tmp_path / "results.json").write_text(
        (bench.whole() / "results.json").read_text().replace('seconds": ', 'seconds": 1')
    )
    assert bench.compare(tmp_path) == ""
    (tmp_path / "losses.npy").write_bytes((tmp_path / "losses.npy").read_bytes()[:-1] + b"?")
    assert bench.compare(tmp_path) == f"another losses.npy in {tmp_path.name}"


def test_a_row_with_a_failure_does_not_hold_and_says_the_first_ones(faults, capsys):
    broken = faults.Row("fault", 9, "something", [f"number {n}" for n in range(7)], "details").to_json()
    assert broken["holds"] == "does not hold"
    assert broken["figure"] == "7 failures; details"
    assert broken["failures"] == [f"number {n}" for n in range(5)]
    sound, skipped = faults.Row("fault", 9, "something").to_json(), faults.Row("x", 0, "y", skipped="why").to_json()
    assert (sound["holds"], skipped["holds"], skipped["figure"]) == ("holds", "skipped", "why")
    assert faults._show([broken, sound, skipped]) == 1
    assert "fault: 7 failed, the first: number 0" in capsys.readouterr().out


def test_a_trial_that_breaks_is_a_failure(faults, tmp_path, capsys):
    bench = faults.Bench(tmp_path, False, 0, "")
    failures = bench.each("division", lambda n: "" if 1 / n else "zero", [1, 0, 2])
    assert failures == ["division 0: ZeroDivisionError: division by zero"]
    assert "division: 3/3  0:00 left" in capsys.readouterr().err


def test_a_process_is_read_as_it_speaks(faults):
    code = "import sys; print('@phase save'); print('@saved 7'); print('note: x'); print('error: y'); sys.exit(2)"
    process = faults.Process([sys.executable, "-c", code], {})
    assert process.wait_for("@saved")
    assert process.end() == 2
    assert (process.saved, process.phase, process.lines) == (7, "save", ["error: y"])
    assert not process.wait_for("@done")
    assert process.told("@saved", after=process.ended) == []


def test_arguments_are_checked():
    done = subprocess.run([sys.executable, str(PATH), "--only", "floods"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
