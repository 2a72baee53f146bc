"""Do files of models come back on another machine, with other versions, cores and batches? Random models and inputs.

Command:   python experiments/codec_machines.py write FOLDER --batch 16      (on one machine)
           python experiments/codec_machines.py read FOLDER --batch 500      (on another: Python, JAX, cores, a GPU)
Writes:    a file for each model, the digest of what it must decode to, and how it was made; reading says how many
           are decoded to the same bytes, and fails if one is not
Expected:  all of them

Protocol: model number i has an architecture, a likelihood and a prior that follow from i, parameters as initialised
plus Gaussian noise, and between 1 and 300 inputs: half of them smooth, half uniform. No file
holds parameters or inputs: NumPy's generators draw them again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aevae_jax import durable
from aevae_jax.cli import console, terminal
from aevae_jax.lazy import jax, modules, np
from aevae_jax.models import VAE, TwoLevelVAE
from aevae_jax.models.architectures import MLP, Conv, ResidualConv
from aevae_jax.models.likelihoods import Bernoulli, Categorical, DiscretizedLogistic, DiscretizedLogisticMixture
from aevae_jax.models.priors import GaussianMixture, StandardNormal, VampPrior
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax.compression import chunks
    from aevae_jax.runs import records
else:
    chunks = modules("aevae_jax.compression", "chunks")
    records = modules("aevae_jax.runs", "records")

NETWORKS = (MLP((40,)), MLP((24, 24), gated=True), Conv((4,)), ResidualConv((8,)), MLP(()))
LIKELIHOODS = (DiscretizedLogistic(256), DiscretizedLogisticMixture(17, 2), Bernoulli(), Categorical(9))
PRIORS = (StandardNormal(), GaussianMixture(4), VampPrior(5))


def codec_machines(
    what: Literal["write", "read"], folder: Path, *, models: int = 100, batch: int = 64, record: str = ""
) -> None:
    """Write files of random models, or read what another machine wrote.

    Args:
      what: write or read.
      folder: of the files.
      models: how many.
      batch: how many examples networks are evaluated on at once.
      record: also write what was read, and by what, to this JSON file.
    """
    terminal.begin(f"coding with {models} random models" if what == "write" else f"decoding the files in {folder}")
    made = machine(batch)
    if what == "write":
        durable.make_room(folder / "made.json")
        digests = []
        with console.parts("models", of="models") as on_part:
            for number in range(models):
                on_part(number, models)
                coder, symbols = drawn(number, batch)
                payload = coder.encode(symbols)
                (folder / f"{number}.payload").write_bytes(payload)
                digests.append(hashlib.sha256(symbols.astype(coder.dtype).tobytes()).hexdigest())
        records.write_json(folder / "made.json", {"machine": made, "sha256": digests})
        return
    written, equal = records.read_json(folder / "made.json"), 0
    with console.parts("models", of="models") as on_part:
        for number, digest in enumerate(written["sha256"]):
            on_part(number, len(written["sha256"]))
            coder, symbols = drawn(number, batch)
            try:
                found = coder.decode((folder / f"{number}.payload").read_bytes(), len(symbols))
            except chunks.Damaged:
                continue
            equal += hashlib.sha256(found.tobytes()).hexdigest() == digest
    result = {"written_by": written["machine"], "read_by": made, "files": len(written["sha256"]), "equal": equal}
    print(f"{equal} of {result['files']} files come back to the byte")
    if record:
        old = records.read_json(Path(record))["pairs"] if Path(record).exists() else []
        records.write_json(Path(record), {"pairs": [*old, result]})
    if equal < result["files"]:
        raise InputError("files", got=f"{result['files'] - equal} that are not the same", expected="none")


def drawn(number: int, batch: int) -> tuple[chunks.Coder, np.ndarray]:
    """Return a codec and inputs that follow from a number."""
    generator = np.random.Generator(np.random.PCG64(number))
    network = NETWORKS[number % len(NETWORKS)]
    likelihood, prior = LIKELIHOODS[number % len(LIKELIHOODS)], PRIORS[number // 2 % len(PRIORS)]
    kind: Any = TwoLevelVAE if isinstance(network, MLP) and network.hidden and number % 7 == 0 else VAE
    model = kind(6, network, likelihood, prior, event_shape=(7, 6, 1))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    leaves = jax.tree.leaves(shapes)
    noise = [generator.normal(size=leaf.shape) * (leaf.shape[0] if leaf.shape else 1) ** -0.5 for leaf in leaves]
    params = jax.tree.unflatten(jax.tree.structure(shapes), [leaf.astype(np.float32) for leaf in noise])
    coder = chunks.Coder(model, params, batch=batch)
    count = int(generator.integers(1, 301))
    smooth = generator.normal(0.5, 0.15, (count, 7, 6, 1)) * (coder.levels - 1)
    rough = generator.integers(0, coder.levels, (count, 7, 6, 1))
    rows = np.arange(count) % 2 == 0
    return coder, np.where(rows[:, None, None, None], np.clip(np.rint(smooth), 0, coder.levels - 1), rough).astype(int)


def machine(batch: int) -> dict[str, Any]:
    """Return what codes."""
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "batch": batch,
    }


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(codec_machines, sys.argv[1:], prog="codec_machines.py")()
