"""Do files of models come back on another machine, with other versions, cores and batches? Random models and inputs.

Command:   python experiments/codec_machines.py write FOLDER --batch 16      (on one machine)
           python experiments/codec_machines.py read FOLDER --batch 500      (on another: Python, JAX, cores, a GPU)
Writes:    a file for each model, the digest of what it must decode to, and how it was made; reading says how many
           are decoded to the same bytes, and fails if one is not
Expected:  all of them

Protocol: model number i has an architecture, a likelihood and a prior that follow from i, and Gaussian parameters, of
biases wide ones, so that it has something to say. Of 1 to 300 inputs every fourth is uniform, which no model makes
smaller, so it is coded without; the others are drawn from the model, and how many were coded by it is said. No file
holds parameters: NumPy's generators draw them again. Inputs are drawn by the writer alone, which keeps their digest.
"""

from __future__ import annotations

import hashlib
import math
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aevae_jax import cores, durable
from aevae_jax.cli import console, terminal
from aevae_jax.lazy import jax, modules, np
from aevae_jax.models import VAE, VQVAE, TwoLevelVAE
from aevae_jax.models.architectures import MLP, Conv, ResidualConv
from aevae_jax.models.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    InterlacedLogisticMixture,
)
from aevae_jax.models.priors import GaussianMixture, StandardNormal, VampPrior
from aevae_jax.models.quantizers import FSQ
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax.compression import chunks
    from aevae_jax.models import generation
    from aevae_jax.runs import records
else:
    chunks = modules("aevae_jax.compression", "chunks")
    generation = modules("aevae_jax.models", "generation")
    records = modules("aevae_jax.runs", "records")

NETWORKS = (MLP((40,)), MLP((24, 24), gated=True), Conv((4,)), ResidualConv((8,)), MLP(()))
LIKELIHOODS = (
    DiscretizedLogistic(256),
    DiscretizedLogisticMixture(17, 2),
    Bernoulli(),
    Categorical(9),
    InterlacedLogisticMixture(17, 2, 4),
)
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
        files: list[dict[str, Any]] = []
        with console.parts("models", of="models") as on_part:
            for number in range(models):
                on_part(number, models)
                coder, symbols = drawn(number, batch)
                payload = coder.encode(symbols)
                (folder / f"{number}.payload").write_bytes(payload)
                about = {"count": len(symbols), "modelled": int(coder.modelled(payload, len(symbols)).sum())}
                files.append({**about, "sha256": hashlib.sha256(symbols.astype(coder.dtype).tobytes()).hexdigest()})
        records.write_json(folder / "made.json", {"machine": made, "files": files})
        return
    written, equal = records.read_json(folder / "made.json"), 0
    with console.parts("models", of="models") as on_part:
        for number, file in enumerate(written["files"]):
            on_part(number, len(written["files"]))
            coder = codec(number, batch)
            try:
                found = coder.decode((folder / f"{number}.payload").read_bytes(), file["count"])
            except chunks.Damaged:
                continue
            equal += hashlib.sha256(found.tobytes()).hexdigest() == file["sha256"]
    result = {"written_by": written["machine"], "read_by": made, "files": len(written["files"]), "equal": equal}
    result |= {name: sum(file[name] for file in written["files"]) for name in ("count", "modelled")}
    print(f"{equal} of {result['files']} files come back to the byte")
    print(f"of {result['count']:,} images {result['modelled']:,} were coded by their models, the others without")
    if record:
        old = records.read_json(Path(record))["pairs"] if Path(record).exists() else []
        records.write_json(Path(record), {"pairs": [*old, result]})
    if equal < result["files"]:
        raise InputError("files", got=f"{result['files'] - equal} that are not the same", expected="none")


def drawn(number: int, batch: int) -> tuple[chunks.Coder, np.ndarray]:
    """Return a codec that follows from a number, and inputs for it."""
    model, params, generator = model_of(number)
    coder = chunks.Coder(model, params, batch=batch)
    count = int(generator.integers(1, 301))
    found = generation.sample(model, params, jax.random.key(number), count).sample(jax.random.key(number + 1))
    likely = np.rint(np.asarray(found, np.float64) * (coder.levels - 1)).astype(int)
    uniform = generator.integers(0, coder.levels, likely.shape)
    return coder, np.where(np.arange(count)[:, None, None, None] % 4 == 3, uniform, likely)


def codec(number: int, batch: int) -> chunks.Coder:
    """Return the codec that follows from a number."""
    model, params, _ = model_of(number)
    return chunks.Coder(model, params, batch=batch)


def model_of(number: int) -> tuple[Any, Any, np.random.Generator]:
    """Return a model and parameters that follow from a number, and what draws more."""
    generator = np.random.Generator(np.random.PCG64(number))
    network, likelihood = NETWORKS[number % len(NETWORKS)], LIKELIHOODS[number // len(NETWORKS) % len(LIKELIHOODS)]
    prior = PRIORS[number // 2 % len(PRIORS)]
    shape = (7, 6, 1)
    model: Any = VAE(6, network, likelihood, prior, event_shape=shape)
    if isinstance(network, MLP) and network.hidden and number % 3 == 1:
        model = TwoLevelVAE(6, network, likelihood, prior, event_shape=shape)
    elif isinstance(network, MLP) and number % 3 == 2:
        model = VQVAE((4, 2), network, likelihood, FSQ((3, 5)), event_shape=shape)
    shapes = jax.eval_shape(model.init, jax.random.key(0))

    def draw(path: Any, leaf: Any) -> np.ndarray:
        wide = 0.3 if "encoder" in str(path[0]) else 1.5  # so codes are near the prior
        scale = 0.3 * math.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else wide
        return (scale * generator.normal(size=leaf.shape)).astype(np.float32)

    return model, jax.tree_util.tree_map_with_path(draw, shapes), generator


def machine(batch: int) -> dict[str, Any]:
    """Return what codes."""
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cores": cores.available(),
        "batch": batch,
    }


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(codec_machines, sys.argv[1:], prog="codec_machines.py")()
