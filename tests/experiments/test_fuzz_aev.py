"""The fuzzing of the reader of .aev files begins, or says what it needs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aevae_jax.types import InputError

PATH = Path(__file__).parents[2] / "experiments" / "fuzz_aev.py"
sys.path.insert(0, str(PATH.parent))

import fuzz_aev  # noqa: E402


def test_without_atheris_it_says_what_to_type(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "atheris", None)
    with pytest.raises(InputError, match="pip install atheris"):
        fuzz_aev.fuzz(out=tmp_path)


def test_its_coder_codes():
    x = np.arange(24, dtype=np.uint8).reshape(2, 4, 3, 1)
    coder = fuzz_aev.Zlib()
    assert (coder.decode(coder.encode(x), 2) == x).all()
    for payload in (b"", b"noise", coder.encode(x)[:-8], coder.encode(x[:1])):
        with pytest.raises(ValueError, match=r"."):
            coder.decode(payload, 2)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_some_seconds_find_nothing(tmp_path):
    """By a shell, since the peak memory that libFuzzer limits is said of a process and of what started it."""
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, str(PATH), "--seconds", "5", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
