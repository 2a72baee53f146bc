"""Families by another library: what of it needs none. With one the script is run by hand."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from aevae_jax.types import InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import families_rows
import families_table
import families_torch


def python_that(folder, says):
    """A program in place of a Python, which says this whatever it is asked."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\ncat > /dev/null\n{says}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_rows_are_those_of_ours():
    ours = {families_table.LIKE.get(title, title) for title in families_torch.ROWS}
    assert ours <= families_rows.families((8, 8, 1)).keys()


def test_without_the_library_a_line_says_what_to_install(tmp_path):
    python = python_that(tmp_path, """echo '{"missing": "No module named pythae"}'; exit 3""")
    with pytest.raises(InputError, match="pip install pythae") as caught:
        families_torch.beside(rows=("VAE",), torch=python)
    assert len(str(caught.value)) <= 200


@pytest.mark.parametrize("says", ["exit 1", "echo nonsense"])
def test_a_python_that_fails_is_one_line(tmp_path, says):
    with pytest.raises(InputError, match="which fails"):
        families_torch.beside(rows=("VAE",), torch=python_that(tmp_path, says))
    with pytest.raises(InputError, match="which fails"):
        families_torch.answered(str(tmp_path / "none"), {})
    with pytest.raises(InputError, match="--rows: got 'VEA'"):
        families_torch.beside(rows=("VEA",))


def test_the_table_has_the_same_columns_and_says_what_a_family_has_not():
    one = {"mse": 0.1, "nats": None, "distance": 2.0, "with mixture": None, "epoch_seconds": 1.0}
    text = families_torch.table({"autoencoder": [one, {**one, "mse": 0.3}]})
    assert "| autoencoder | 0.2000 ± 1.2706 | none | 2.00 ± 0.00 | none | 1.000 |" in text
