"""`aevae reproduce` and `aevae replay`: what is said of a run that was computed again."""

from __future__ import annotations

import math

import pytest

from aevae_jax.cli import reruns
from aevae_jax.cli.main import main
from aevae_jax.runs import provenance, records, reproduction
from aevae_jax.runs.non_finite import BrokenStep
from aevae_jax.runs.reproduction import Replay, Verdict
from aevae_jax.runs.tracing import Culprit

METRICS = {"loss": 1.5, "gradient_norm": 2.0}


@pytest.fixture(autouse=True)
def record(monkeypatch):
    """Of a run that was trained with this flag of the compiler."""
    found = {"provenance": {"settings": {"xla_flags": "--a=1 --xla_gpu_deterministic_ops=true --b=2"}}}
    monkeypatch.setattr(records, "read_record", lambda folder: found)
    return found


def replayed(monkeypatch, capsys, *, recorded=None, rollback=None, **diagnosis):
    found = BrokenStep(**{"step": 7, "metrics": METRICS, "broken": (), "rows": (3, 1), "examples": (), **diagnosis})
    asked = []
    monkeypatch.setattr(
        reproduction,
        "replay",
        lambda run, step, *, data, note: asked.append((str(run), step, data)) or Replay(found, recorded, rollback),
    )
    main(["replay", "runs/first", "--step", "7", "--data", "moved.npy"])
    assert asked == [("runs/first", 7, "moved.npy")]
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("count", "end"), [(1, "0"), (12, "11"), (13, "11 and 1 more"), (20, "11 and 8 more")])
def test_rows_that_are_not_shown_are_counted(monkeypatch, capsys, count, end):
    rows = tuple(range(count))
    expected = ", ".join(map(str, rows[:11])) + f", {end}" if count > 1 else end
    lines = replayed(monkeypatch, capsys, rows=rows, broken=("loss",), examples=rows, culprit=None)
    assert lines[0] == f"step 7 of runs/first, training examples {expected}"
    assert lines[-1] == f"of these examples, taken alone: {expected}"


@pytest.mark.parametrize(
    ("recorded", "said"), [(1.5, ["1.5"]), (math.nan, ["nan"]), (1.25, ["1.25  <- another"]), (None, [])]
)
def test_a_sound_step_is_compared_with_what_was_recorded(monkeypatch, capsys, recorded, said):
    lines = replayed(monkeypatch, capsys, recorded=recorded, culprit=None)
    assert lines == [
        "step 7 of runs/first, training examples 3, 1",
        "  loss             1.5",
        "  gradient norm    2",
        *(f"  recorded loss    {text}" for text in said),
        "all of it is finite and can be used",
    ]


@pytest.mark.parametrize(
    ("culprit", "said"),
    [
        (Culprit("log", "a.py:3 (f)", "inf", (2, 5), "0"), "the first inf was made by log at a.py:3 (f), shape (2, 5)"),
        (Culprit("input", "params/w", "nan", (2,), "0"), "the first nan came in from outside: params/w"),
        (None, "cannot be used: loss, rate"),
    ],
)
def test_a_step_that_broke_is_described(monkeypatch, capsys, culprit, said):
    metrics = {"loss": math.inf, "gradient_norm": math.nan, "rate": 1.0}
    lines = replayed(
        monkeypatch, capsys, metrics=metrics, broken=("loss", "rate"), rollback=(5, 9), culprit=culprit, recorded=None
    )
    assert lines[1:6] == [
        "  steps 5 to 8 were skipped after a rollback; this is how it was before that",
        "  loss             inf  <- not finite",
        "  gradient norm    nan  <- not finite",
        "  rate             1",
        "cannot be used: loss, rate",
    ]
    assert lines[-1] == said


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (Verdict("PASS (bitwise)", "equal", (), None), ["PASS (bitwise): equal"]),
        (Verdict("PASS within tolerance", "near", ("a", "b"), None), ["PASS within tolerance: near", "  a", "  b"]),
        (Verdict("FAIL", "far", ("a",), 3), ["FAIL: far", "  a"]),
        (Verdict("FAIL", "far", (), 3), ["FAIL: far", "  device, versions and settings are the same"]),
    ],
)
def test_a_verdict_is_said_with_what_differs_and_as_an_exit_code(monkeypatch, capsys, record, verdict, said):
    asked = []
    monkeypatch.setattr(provenance, "make_deterministic", lambda: asked.append("deterministic"))
    monkeypatch.setattr(reproduction, "reproduce", lambda run, *, data, **_: asked.append((str(run), data)) or verdict)
    code = 0
    try:
        main(["reproduce", "runs/first", "--data", "moved.npy"])
    except SystemExit as stop:
        code = stop.code
    assert capsys.readouterr().out.splitlines() == said
    assert code == (1 if said[0].startswith("FAIL") else 0)
    assert asked == ["deterministic", ("runs/first", "moved.npy")]  # as the run was trained, and before JAX starts


@pytest.mark.parametrize("settings", [{}, None, "--xla_gpu_deterministic_ops=true", {"xla_flags": None}])
def test_a_run_without_the_flag_is_reproduced_without_it(monkeypatch, record, settings):
    record["provenance"]["settings"] = settings
    monkeypatch.setattr(provenance, "make_deterministic", lambda: pytest.fail("asked for"))
    monkeypatch.setattr(reproduction, "reproduce", lambda run, **options: Verdict("PASS (bitwise)", "", (), None))
    reruns.reproduce("runs/first")
