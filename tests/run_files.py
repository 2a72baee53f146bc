"""What somebody who knows the format can do to a run's directory: edit it, and make all its digests right again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil

import numpy as np
from safetensors.numpy import load, save

from aevae_jax.checkpoints import array_files
from aevae_jax.runs import records


def outcome(folder):
    """All that a finished run leaves, but the seconds it took."""
    results = json.loads((folder / "results.json").read_text())
    assert results.pop("seconds") > 0
    assert results.pop("sha256")
    losses = np.load(folder / "losses.npy")
    metrics, weights = (folder / "metrics.jsonl").read_text(), (folder / "weights.safetensors").read_bytes()
    return results, losses.tobytes(), metrics, weights


def cut(folder, step):
    """As it was when step `step` had just been saved; of the log, as it is."""
    for name in ("weights.safetensors", "losses.npy", "results.json", "samples.png", "reconstructions.png"):
        (folder / name).unlink()
    for later in (folder / "checkpoints").iterdir():
        if int(later.name) > step:
            shutil.rmtree(later)


def write_record(folder, record):
    """`run.json` with these contents, its digest and its sha256 as they should be."""
    with contextlib.suppress(KeyError, TypeError, RecursionError, AttributeError):
        record = {**record, "digest": records.identity(record)}
    with contextlib.suppress(RecursionError, ValueError):
        record = records.sealed(record)
    (folder / "run.json").write_text(json.dumps(record))


def edit_run(folder, change):
    """A finished run whose record was changed, and whose other files carry its new digest."""
    record = json.loads((folder / "run.json").read_text())
    change(record)
    write_record(folder, record)
    digest = records.read_record(folder)["digest"]
    _rename_weights(folder, f"sha256 of run {digest}")
    edit_results(folder, lambda results: results.update(run=digest))


def _rename_weights(folder, entry):
    """The weights with another name of their sha256."""
    contents = (folder / "weights.safetensors").read_bytes()
    [sha256] = json.loads(contents[8 : 8 + int.from_bytes(contents[:8], "little")])["__metadata__"].values()
    (folder / "weights.safetensors").write_bytes(save(load(contents), metadata={entry: sha256}))


def edit_results(folder, change=lambda results: None):
    """`results.json` after `change`, with the sha256 of the files that are there."""
    results = json.loads((folder / "results.json").read_text())
    change(results)
    results["files"] = {name: array_files.digest(folder / name) for name in results["files"]}
    (folder / "results.json").write_text(json.dumps(records.sealed(results)))


def as_version_0_1(folder):
    """A finished run as version 0.1 left it: no digest but one of the value, which nothing else carries."""
    record = json.loads((folder / "run.json").read_text())
    del record["sha256"]
    record["digest"] = hashlib.sha256(json.dumps(record["run"], sort_keys=True).encode()).hexdigest()
    (folder / "run.json").write_text(json.dumps(record, indent=2) + "\n")
    results = json.loads((folder / "results.json").read_text())
    for name in ("run", "files", "sha256"):
        del results[name]
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    _rename_weights(folder, "sha256")
    for path in (folder / "checkpoints").glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        del manifest["run"], manifest["sha256"]
        path.write_bytes(array_files.canonical(records.sealed(manifest)))
