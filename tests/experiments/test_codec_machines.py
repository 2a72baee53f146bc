"""Files of random models across machines: here across batches, in one process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from aevae_jax.runs import records
from aevae_jax.types import InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import codec_machines

pytestmark = pytest.mark.slow  # some programs for each of the models


def test_files_come_back_and_their_models_have_coded_most_of_them(tmp_path):
    codec_machines.codec_machines("write", tmp_path, models=4, batch=16)
    codec_machines.codec_machines("read", tmp_path, batch=50, record=str(tmp_path / "pairs.json"))
    (pair,) = records.read_json(tmp_path / "pairs.json")["pairs"]
    assert pair["equal"] == pair["files"] == 4
    assert 0.6 * pair["count"] < pair["modelled"] < 0.8 * pair["count"]  # every fourth is uniform


def test_a_file_of_another_model_does_not_count(tmp_path):
    codec_machines.codec_machines("write", tmp_path, models=2, batch=16)
    (tmp_path / "1.payload").write_bytes((tmp_path / "0.payload").read_bytes())
    with pytest.raises(InputError, match="1 that are not the same"):
        codec_machines.codec_machines("read", tmp_path, batch=16, record=str(tmp_path / "pairs.json"))
    assert records.read_json(tmp_path / "pairs.json")["pairs"][0]["equal"] == 1
