"""The data of a run: what its record must say of it before it is loaded, and what else is accepted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from aevae_jax import values
from aevae_jax.data import Data, Standardize
from aevae_jax.models import Autoencoder
from aevae_jax.runs import data_of_runs, provenance, records, same_run
from aevae_jax.runs.run import Run
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
    assert data_of_runs.load_data(folder, labelled).digest() == labelled.load().digest()
    before = labelled.load().digest()[:12]
    np.savez(labelled.name, x=np.load(labelled.name)["x"], y=np.arange(40) % 2)
    with pytest.raises(InputError, match=rf"data set .*: got other data under the name .*, sha256 {before}; eval"):
        data_of_runs.load_data(folder, labelled)


@pytest.mark.parametrize(("old", "new"), [("Rome", "Roma"), ("age", "height")])
def test_what_codes_stand_for_belongs_to_the_data(tmp_path, old, new):
    """The numbers and codes of the two tables, and hence their sha256, are equal."""
    path = tmp_path / "x.csv"
    path.write_text("city,age\n" + "".join(f"{('Oslo', 'Paris', 'Rome')[i % 3]},{i + 0.5}\n" for i in range(40)))
    data = Data(str(path))
    folder = recorded(tmp_path, data)
    assert data_of_runs.load_data(folder, data).columns
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(
        InputError, match=f"data set .*: got the column '.*{new}.*, expected that of the training, .*{old}"
    ):
        data_of_runs.load_data(folder, data)


def test_a_record_of_version_01_knows_no_labels(tmp_path, labelled):
    earlier = labelled.load().earlier_digest()
    assert data_of_runs.load_data(recorded(tmp_path, labelled, version_01=True, sha256=earlier), labelled)
    with pytest.raises(InputError, match="got other data"):
        data_of_runs.load_data(recorded(tmp_path, labelled, sha256=earlier), labelled)


def test_bytes_keep_the_levels_that_they_were_trained_with(tmp_path):
    bits = np.random.RandomState(0).randint(0, 2, (40, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "x.npy", bits)
    data = Data(str(tmp_path / "x.npy"))
    assert data_of_runs.load_data(recorded(tmp_path, data), data).levels == 2
    assert data_of_runs.load_data(recorded(tmp_path, data, version_01=True, levels=256), data).levels == 256


def test_a_directory_that_only_a_record_names_is_not_used(tmp_path, monkeypatch, labelled):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    folder = recorded(tmp_path, labelled)
    data = Data("tiny", directory=str(tmp_path / "their own"))
    with pytest.raises(InputError, match=r"which only the record of the run names.*export TFDS_DATA_DIR='.*their own'"):
        data_of_runs.load_data(folder, data)
    with pytest.raises(InputError, match="data set: got 'tiny'"):
        data_of_runs.load_data(folder, data, "tiny")
    monkeypatch.setenv("TFDS_DATA_DIR", data.directory)
    with pytest.raises(InputError, match="data set: got 'tiny'"):
        data_of_runs.load_data(folder, data)


class Loaded(Exception):
    """What was to be loaded."""


@pytest.mark.parametrize(
    ("name", "levels", "loaded"),
    [
        ("x", 17, 17),
        ("x", 2, 2),
        ("x", 256, 256),
        ("x", 1, 0),
        ("x", 257, 0),
        ("x", True, 0),
        ("x", "17", 0),
        ("x", None, 0),
        ("digits", 17, 0),
    ],
)
def test_what_is_loaded_is_the_data_of_the_record_wherever_it_is(monkeypatch, tmp_path, name, levels, loaded):
    """All but its place is the run's; its levels are those that were found then, where they can be."""

    def load(self):
        raise Loaded(self)

    monkeypatch.setattr(Data, "load", load)
    monkeypatch.setattr(records, "read_record", lambda folder: {"provenance": {"data": {"levels": levels}}})
    data = Data("first", Standardize(), levels=0) if name != "digits" else Data("digits", Standardize())
    for moved, place, directory in (
        ("", data.name, ""),
        (f"Data('{name}', directory='{tmp_path}')", name, str(tmp_path)),
    ):
        with pytest.raises(Loaded) as caught:
            data_of_runs.load_data(tmp_path, data, moved)
        assert caught.value.args == (replace(data, name=place, directory=directory, levels=loaded),)


def test_data_that_moved_keeps_the_name_of_the_run(tmp_path, labelled):
    folder = recorded(tmp_path, labelled)
    (tmp_path / "x.npz").rename(tmp_path / "y.npz")
    assert data_of_runs.load_data(folder, labelled, str(tmp_path / "y.npz")).name == labelled.name


def test_kinds_of_columns_are_those_of_the_training(tmp_path):
    """Whatever this version sees in them."""
    path = tmp_path / "x.csv"
    path.write_text("n,m\n" + "".join(f"{i % 7},{i + 0.5}\n" for i in range(40)))
    data = Data(str(path))
    folder = recorded(tmp_path, data)
    assert [column.kind for column in data_of_runs.load_data(folder, data).columns] == ["count", "positive"]
    record = records.read_record(folder)
    record["format"]["columns"][0]["kind"] = "number"
    records.write_json(folder / records.RECORD, records.sealed({**record, "digest": records.identity(record)}))
    assert [column.kind for column in data_of_runs.load_data(folder, data).columns] == ["number", "positive"]


def test_a_line_of_a_log_has_a_limit_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "LARGEST_JSON", 20)
    records.write_lines(tmp_path / "log", [{"a": 1}] * 9)
    assert records.read_json(tmp_path / "log", lines=True) == [{"a": 1}] * 9
    with pytest.raises(InputError, match="log"):
        records.read_json(tmp_path / "log")  # no log: the limit is that of the file
    records.write_lines(tmp_path / "log", [{"a": 1}, {"a": "x" * 20}])
    with pytest.raises(InputError, match=r"log \(.*\): got an unreadable file \(a line of 29 bytes\), expected JSON"):
        records.read_json(tmp_path / "log", lines=True)
    monkeypatch.setattr(records, "LARGEST_LOG", 30)
    with pytest.raises(InputError, match="log"):
        records.read_json(tmp_path / "log", lines=True)


# ---------------------------------------------------------------------------------------------------- is it the same?


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 1, "b": 2}, ["b None, here 2"]),
        ({"a": 1, "b": 2}, {"a": 1}, ["b 2, here None"]),
        ({"a": {"type": "X", "c": 1}}, {"a": {"type": "X", "c": 2}}, ["a c 1, here 2"]),
        ({"a": {"type": "X", "c": 1}}, {"a": {"type": "Y", "c": 1}}, ["a X, here Y"]),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["a [1, 2], here [2, 1]"]),
        ({"b": "x" * 60, "a": "x" * 61}, {"b": 1, "a": 1}, [f"b {'x' * 60}, here 1", f"a {'x' * 60}..., here 1"]),
    ],
)
def test_differences_of_runs_are_named(one, other, said):
    assert [*same_run.differences(one, other)] == said


def written(folder, **environment):
    """A record; what is given back is that of the same run as it is asked for in this environment."""
    tree = values.to_tree(Run(model=Autoencoder()))
    made = {"run": tree, "format": {}, "provenance": {"data": {"sha256": "d"}, "command": ["x"], "settings": {}}}
    made = records.sealed({"digest": records.identity(made), **made})
    records.write_json(folder / records.RECORD, made)
    return {**made, "provenance": {**made["provenance"], **environment}}


def test_another_environment_is_written_down_once_and_another_command_is_none(tmp_path):
    dataset = SimpleNamespace(digest=lambda: "d")
    before = written(tmp_path)
    assert same_run.go_on(tmp_path, {**before}, dataset, []) == before
    assert "resumed" not in same_run.go_on(tmp_path, written(tmp_path, command=["y"]), dataset, [])
    first = written(tmp_path, host=1)
    second = {**first, "provenance": {**first["provenance"], "host": 2}}
    for asked, expected in ((first, [1]), (second, [1, 2]), (first, [1, 2]), (second, [1, 2]), (before, [1, 2])):
        found = same_run.go_on(tmp_path, asked, dataset, [])
        assert [entry["host"] for entry in found["resumed"]] == expected
        assert all("command" not in entry and "data" not in entry for entry in found["resumed"])
        assert found == records.read_record(tmp_path)  # sealed again


def test_parts_that_no_record_can_hold_are_named_by_their_place():
    a, b = object(), object()
    custom = {"custom": "object"}
    tree = {"type": "Run", "objective": {"type": "ELBO", "beta": custom}, "model": [custom, 1], "seed": 3}
    value = SimpleNamespace(objective=SimpleNamespace(beta=a), model=(b, 1), seed=3)
    assert [*same_run.unwritten(tree, value)] == [("objective beta", a), ("model", b)]


# --------------------------------------------------------------------------------------------------- what it rests on


def test_what_numbers_rest_on_has_a_name_each(monkeypatch):
    found = provenance.environment()
    packages = {"jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint"}
    assert found["versions"].keys() == {"python", "aevae-jax", *packages}
    assert found["versions"]["numpy"] == np.__version__
    lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    assert not lines or found["host"]["processor"] == lines[0].split(":", 1)[1].strip()
    assert found["settings"]["deterministic"] or found["device"]["backend"] == "gpu"
    monkeypatch.setattr(provenance.jax, "default_backend", lambda: "gpu")
    for flags, deterministic in (
        ("", False),
        ("--a=1 --xla_gpu_deterministic_ops=true", True),
        ("--xla_gpu_deterministic_ops=true2", False),
    ):
        monkeypatch.setenv("XLA_FLAGS", flags)
        found = provenance.environment()
        assert (found["settings"]["xla_flags"], found["settings"]["deterministic"]) == (flags, deterministic)
        assert found["device"]["backend"] == "gpu"
    monkeypatch.setattr(provenance.jax, "default_backend", lambda: "tpu")  # which has no such flag, and needs none
    assert provenance.environment()["settings"]["deterministic"]


def test_what_is_installed_and_pinned_is_named_by_its_digest_and_the_project_by_its_revision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ab" * 20)
    found = provenance.environment()
    assert found["project"] == "ab" * 20
    names = {f"{one.metadata['Name']}=={one.version}" for one in metadata.distributions()}
    assert found["installed_sha256"] == hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
    package = tmp_path / "package"
    (package / "runs").mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(package / "runs" / "provenance.py"))
    assert provenance.environment()["pins_sha256"] is None
    (tmp_path / "pins.txt").write_text("jax==0\n")
    assert provenance.environment()["pins_sha256"] == hashlib.sha256(b"jax==0\n").hexdigest()


def test_settings_are_those_of_this_process():
    names = {
        "prng": "jax_default_prng_impl",
        "matmul_precision": "jax_default_matmul_precision",
        "x64": "jax_enable_x64",
    }
    before = {name: provenance.jax.config.values[option] for name, option in names.items()}
    try:
        for name, value in (("prng", "rbg"), ("matmul_precision", "highest"), ("x64", True)):
            provenance.jax.config.update(names[name], value)
        found = provenance.environment()["settings"]
    finally:
        for name, option in names.items():
            provenance.jax.config.update(option, before[name])
    assert {name: found[name] for name in names} == {"prng": "rbg", "matmul_precision": "highest", "x64": True}


def test_the_switch_is_added_to_flags_that_are_there(monkeypatch):
    tried = []
    monkeypatch.setattr(provenance.jax.config, "update", lambda name, value: tried.append(value))
    monkeypatch.setenv("XLA_FLAGS", "--a=1 --xla_gpu_deterministic_ops=true2")
    provenance.make_deterministic()
    provenance.make_deterministic()
    expected = "--a=1 --xla_gpu_deterministic_ops=true2 --xla_gpu_deterministic_ops=true"
    assert provenance.os.environ["XLA_FLAGS"] == expected
    assert tried[1] == tried[0] - 2  # as it was
    assert len(tried) == 2
