"""The data of a run: what its record must say of it before it is loaded, and what else is accepted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aevae_jax import values
from aevae_jax.data import Data
from aevae_jax.runs import records
from aevae_jax.types import InputError


def recorded(folder, data, *, version_01=False, **changes):
    """A directory with the record of a run on this data."""
    found = data.load().record() | changes
    form = values.to_tree(data.load().format)
    record = {"run": {"data": values.to_tree(data)}, "format": form, "provenance": {"data": found}}
    if version_01:
        digest = values.hashlib.sha256(json.dumps(record["run"], sort_keys=True).encode()).hexdigest()
        record = {"digest": digest, **record}
    else:
        record = records.sealed({"digest": records.identity(record), **record})
    records.write_json(folder / records.RECORD, record)
    return folder


@pytest.fixture
def labelled(tmp_path):
    images = np.random.RandomState(0).randint(0, 256, (40, 4, 4)).astype(np.uint8)
    np.savez(tmp_path / "x.npz", x=images, y=np.arange(40) % 3)
    return Data(str(tmp_path / "x.npz"))


def test_other_labels_are_other_data(tmp_path, labelled):
    folder = recorded(tmp_path, labelled)
    assert records.load_data(folder, labelled).digest() == labelled.load().digest()
    np.savez(labelled.name, x=np.load(labelled.name)["x"], y=np.arange(40) % 2)
    with pytest.raises(InputError, match=r"data set .*: got other data under the name"):
        records.load_data(folder, labelled)


@pytest.mark.parametrize(("old", "new"), [("Rome", "Roma"), ("age", "height")])
def test_what_codes_stand_for_belongs_to_the_data(tmp_path, old, new):
    """The numbers and codes of the two tables, and hence their sha256, are equal."""
    path = tmp_path / "x.csv"
    path.write_text("city,age\n" + "".join(f"{('Oslo', 'Paris', 'Rome')[i % 3]},{i + 0.5}\n" for i in range(40)))
    data = Data(str(path))
    folder = recorded(tmp_path, data)
    assert records.load_data(folder, data).columns
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(
        InputError, match=f"data set .*: got the column '.*{new}.*, expected that of the training, .*{old}"
    ):
        records.load_data(folder, data)


def test_a_record_of_version_01_knows_no_labels(tmp_path, labelled):
    earlier = labelled.load().earlier_digest()
    assert records.load_data(recorded(tmp_path, labelled, version_01=True, sha256=earlier), labelled)
    with pytest.raises(InputError, match="got other data"):
        records.load_data(recorded(tmp_path, labelled, sha256=earlier), labelled)


def test_bytes_keep_the_levels_that_they_were_trained_with(tmp_path):
    bits = np.random.RandomState(0).randint(0, 2, (40, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "x.npy", bits)
    data = Data(str(tmp_path / "x.npy"))
    assert records.load_data(recorded(tmp_path, data), data).levels == 2
    assert records.load_data(recorded(tmp_path, data, version_01=True, levels=256), data).levels == 256


def test_a_directory_that_only_a_record_names_is_not_used(tmp_path, monkeypatch, labelled):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    folder = recorded(tmp_path, labelled)
    data = Data("tiny", directory=str(tmp_path / "their own"))
    with pytest.raises(InputError, match=r"which only the record of the run names.*export TFDS_DATA_DIR='.*their own'"):
        records.load_data(folder, data)
    with pytest.raises(InputError, match="data set: got 'tiny'"):
        records.load_data(folder, data, "tiny")
    monkeypatch.setenv("TFDS_DATA_DIR", data.directory)
    with pytest.raises(InputError, match="data set: got 'tiny'"):
        records.load_data(folder, data)
