"""The experiment that kills, starves and poisons trainings and makes hostile files: its short form holds, and what does
not hold is reported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from aevae_jax import checkpoints
from aevae_jax.checkpoints import array_files
from aevae_jax.types import InputError

PATH = Path(__file__).parents[2] / "experiments" / "faults"
ENOUGH = {
    "kills": 2,
    "sweeps": 2,
    "nan": 1,
    "signals": 2,
    "exits": 1,
    "damage": 6,
    "disk": 2,
    "lock": 2,
    "resume": 1,
    "machines": 2,
    "operations": 1,
    "runs": 5,
    "arrays": 5,
    "aev": 2,
    "pictures": 5,
    "tables": 3,
    "tfds": 3,
    "typed": 3,
    "writes": 1,
    "commands": 2,
}
"""Rows of each section, at least."""

sys.path.insert(0, str(PATH.parent))

from faults import bench as benches, mutate, table, trials, watch  # noqa: E402
from faults.process import Process  # noqa: E402


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
    assert record["command"].startswith("python experiments/faults --short")
    assert record["versions"]["jax"]
    assert "SIGKILL" in done.stdout
    assert "left" in done.stderr


@pytest.mark.slow
def test_figures_that_are_there_are_reused(short, monkeypatch, capsys):
    monkeypatch.setattr(benches.Bench, "start", lambda *args, **options: pytest.fail("a process was started"))
    table.faults(only=("kills", "lock"), short=True, resume=True, out=short[0])
    assert "second process in a directory" in capsys.readouterr().out


# what is broken is reported


def trusting(store, step, like, **_):
    """`Store.restore` without its checks."""
    return array_files.read_arrays(store.folder / str(step) / "arrays", like)


@pytest.mark.slow
def test_checkpoints_that_are_not_verified_do_not_hold(short, monkeypatch, tmp_path, capsys):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "whole").symlink_to(short[0] / "work" / "whole")
    monkeypatch.setattr(checkpoints.Store, "restore", trusting)
    with pytest.raises(SystemExit) as left:
        table.faults(only=("damage",), short=True, resume=True, out=tmp_path)
    assert left.value.code == 1
    rows = {row["fault"]: row for row in json.loads((tmp_path / "damage.json").read_text())["rows"]}
    assert rows["checkpoint with a bit flipped"]["holds"] == "does not hold"
    assert rows["checkpoint with a bit flipped"]["failures"]
    assert rows["weights of a finished run deleted"]["holds"] == "holds"
    assert "does not hold" in capsys.readouterr().out


@pytest.mark.slow
def test_the_newest_checkpoint_is_the_one_that_the_next_start_would_find(short, tmp_path):
    bench = benches.Bench(short[0] / "work", True, 0, "")
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
def test_another_outcome_is_named(short, tmp_path):
    bench = benches.Bench(short[0] / "work", True, 0, "")
    for name in ("weights.safetensors", "losses.npy", "metrics.jsonl", "results.json"):
        (tmp_path / name).write_bytes((bench.whole() / name).read_bytes())
    assert bench.compare(tmp_path) == ""
    (tmp_path / "results.json").write_text(
        (bench.whole() / "results.json").read_text().replace('seconds": ', 'seconds": 1')
    )
    assert bench.compare(tmp_path) == ""
    (tmp_path / "losses.npy").write_bytes((tmp_path / "losses.npy").read_bytes()[:-1] + b"?")
    assert bench.compare(tmp_path) == f"another losses.npy in {tmp_path.name}"


def test_a_row_with_a_failure_does_not_hold_and_says_the_first_ones(capsys):
    broken = benches.Row("fault", 9, "something", [f"number {n}" for n in range(7)], "details").to_json()
    assert broken["holds"] == "does not hold"
    assert broken["figure"] == "7 failures; details"
    assert broken["failures"] == [f"number {n}" for n in range(5)]
    sound, skipped = benches.Row("fault", 9, "something").to_json(), benches.Row("x", 0, "y", skipped="why").to_json()
    assert (sound["holds"], skipped["holds"], skipped["figure"]) == ("holds", "skipped", "why")
    assert table.show([broken, sound, skipped]) == 1
    assert "fault: 7 failed, the first: number 0" in capsys.readouterr().out


def test_a_trial_that_breaks_is_a_failure(tmp_path, capsys):
    bench = benches.Bench(tmp_path, False, 0, "")
    failures = bench.each("division", lambda n: "" if 1 / n else "zero", [1, 0, 2])
    assert failures == ["division 0: ZeroDivisionError: division by zero"]
    assert "division: 3/3  0:00 left" in capsys.readouterr().err


def test_a_process_is_read_as_it_speaks():
    code = "import sys; print('@phase save'); print('@saved 7'); print('note: x'); print('error: y'); sys.exit(2)"
    process = Process([sys.executable, "-c", code], {})
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


def test_the_repeated_trial_is_of_one_section():
    with pytest.raises(InputError, match="--only with one of runs, arrays"):
        table.faults(trial="run.json")


# the judgement of hostile inputs


def make(folder):
    (folder / "x").write_bytes(b"0123456789")


def read(folder):
    return {"x": (folder / "x").read_bytes()}


def reading(call):
    """A reader that does something, and then reads."""
    return lambda folder: call(folder) or read(folder)


def judged(tmp_path, change, reader=read, reference=None, intact=None):
    """What becomes of one change."""
    place = trials.Place(tmp_path / "worker", tmp_path / "originals")
    known = {"intact": intact or {"x": b"0123456789"}}
    subject = trials.Subject("some", make, reader, {"change": (1, change)}, reference, known=known)
    return subject.run("some/change/0", place, 0)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Trials change the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nothing(folder, dice, place):
    pass


def flipped(folder, dice, place):
    mutate.at("x", mutate.flip)(folder, dice, place)


def refuse(folder):
    raise InputError("x", got="what it is", expected="another")


def steer(folder):
    raise watch.RawError("\x1b")


def allocate(folder):
    raise InputError("x", got="too much", expected="less") from MemoryError()


def take(folder):
    np.ones(watch.MEMORY // 8 + 2**22)


CASES = {
    "same": (nothing, read),
    "silent": (flipped, read),
    "refused": (flipped, reading(refuse)),
    "traceback": (flipped, reading(lambda folder: 1 / 0)),
    "hang": (flipped, reading(lambda folder: time.sleep(5))),
    "memory": (flipped, reading(take)),
    "raw": (flipped, reading(steer)),
    "executed": (nothing, reading(lambda folder: (folder.parent / "executed").touch())),
    "outside": (nothing, reading(lambda folder: (folder.parent / "outside" / "more").touch())),
}


@pytest.mark.parametrize("verdict", CASES)
def test_what_became_of_a_trial_is_seen(elsewhere, monkeypatch, verdict):
    monkeypatch.setattr(watch, "SECONDS", 0.2)
    monkeypatch.setattr(watch, "MEMORY", 2**25)
    change, reader = CASES[verdict]
    assert judged(elsewhere, change, reader).kind == verdict


def test_memory_that_was_refused_by_the_system_counts(elsewhere):
    assert judged(elsewhere, nothing, reading(allocate)).kind == "memory"


def test_a_file_outside_that_is_changed_or_deleted_is_seen(elsewhere):
    for harm in (lambda path: path.unlink(), lambda path: path.write_text("x"), lambda path: path.rename("moved")):
        found = judged(
            elsewhere, nothing, reading(lambda folder, harm=harm: harm(folder.parent / "outside" / "precious"))
        )
        assert found.kind == "outside"


@pytest.mark.parametrize(
    ("reference", "sha256", "verdict"),
    [
        (read, "b", "as it says"),
        (lambda folder: {"x": b"0123456789"}, "b", "silent"),
        (refuse, "b", "silent"),
        (read, "a", "silent"),
    ],
)
def test_other_values_must_be_those_of_another_reader_and_have_another_sha256(elsewhere, reference, sha256, verdict):
    intact = {"values": {"x": b"0123456789"}, "sha256": "a"}
    found = judged(elsewhere, flipped, lambda folder: {"values": read(folder), "sha256": sha256}, reference, intact)
    assert found.kind == verdict


def test_a_trial_can_be_repeated(elsewhere):
    found = [judged(elsewhere, flipped).detail for _ in range(2)]
    assert found[0] == found[1] != ""


def test_every_kind_of_thing_can_be_made(elsewhere):
    place = trials.Place(elsewhere / "worker", elsewhere / "originals")
    for change in mutate.things("x").values():
        place.lent = {}
        place.prepare()
        make(place.trial)
        change(place.trial, None, place)
        assert not place.touched()
    trials.remove(elsewhere / "worker")


def test_intact_files_of_tables_and_arrays_are_the_same_for_both_readers(elsewhere):
    from faults import arrays, tables

    for subject in (*arrays.subjects()[:7], tables.subjects()[0]):
        folder = elsewhere / subject.name
        folder.mkdir()
        subject.make(folder)
        os.chdir(folder)
        assert trials.digest(subject.read(folder)["values"]) == trials.digest(subject.reference(folder))
