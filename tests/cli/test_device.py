"""`--device`: chosen before JAX is imported, and refused in one line where it is not there."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import jax
import pytest
from commands import refused, typed

from aevae_jax.cli import device, programs


@pytest.fixture
def told(monkeypatch):
    """What JAX would be told by each `--device`; this process has begun to compute long ago."""
    found = []
    monkeypatch.setattr(programs, "settings", lambda **options: contextlib.nullcontext(found.append(options)))
    return found


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("cpu", {"jax_platforms": "cpu"}),
        ("gpu", {"jax_platforms": "cuda"}),
        ("cuda:1", {"jax_platforms": "cuda", "jax_cuda_visible_devices": "1"}),
        ("ROCm:12", {"jax_platforms": "rocm", "jax_rocm_visible_devices": "12"}),
        ("tpu", {"jax_platforms": "tpu"}),
    ],
)
def test_what_was_typed_is_what_jax_is_told(text, options, told, monkeypatch):
    kind = "gpu" if text.lower()[:3] in ("gpu", "cud", "roc") else text
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform=kind)])
    with device.chosen(text):
        assert told == [options]
    assert options.keys() <= {f"jax_{name.removeprefix('jax_')}" for name in jax.config.values}


def test_nothing_is_told_where_nothing_was_typed(told):
    with device.chosen(""):
        assert told == []


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("gppu", "did you mean --device gpu?"),
        ("cpu:1", "did you mean --device cpu?"),
        ("cuda:x", "did you mean --device cuda?"),
        ("2", "did you mean --devices 2?"),
        ("nonsense", "such as cuda:1"),
        ("tpu", 'expected a device that is there; type --device cpu, or: pip install "jax[tpu]"'),
    ],
)
def test_a_device_that_is_not_there_is_one_line(text, answer, capsys, told):
    line = refused(capsys, "train", "runs/new", "--device", text)
    assert line.endswith(answer)
    assert len(line) <= 200


def test_errors_of_jax_are_told_shortly(capsys, told, monkeypatch):
    def devices():
        raise RuntimeError("Unable to initialize backend 'cuda': " + "because " * 100)

    monkeypatch.setattr(jax, "devices", devices)
    line = refused(capsys, "train", "runs/new", "--device", "gpu")
    assert "got gpu, which JAX does not find (Unable to initialize backend 'cuda': because" in line
    assert line.endswith('; type --device cpu, or: pip install "jax[cuda13]"')
    assert len(line) <= 200


@pytest.mark.slow
def test_a_dry_run_leaves_nothing_and_says_that_its_time_is_an_estimate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = typed("train", "runs/new", "--dry-run", "--device", "cpu", "--epochs", 7, "--model", "VAE(2, MLP((4,)))")
    assert not list(tmp_path.iterdir())
    assert "batches of 128x8x8x1\n" in out
    assert "steps   9 per epoch, 63 in 7 epochs\n" in out
    assert ", an estimate from " in out
