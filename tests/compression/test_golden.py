"""A file that a model coded when version 1 was new is decoded to the same bytes for ever.

Nothing in `golden/` may be written anew: where this fails, whatever was changed has to read old files, too.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from aevae_jax import VAE
from aevae_jax.compression import Coder, archive, recovery
from aevae_jax.compression.container import Reader
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Bernoulli, DiscretizedLogistic
from aevae_jax.models.priors import GaussianMixture, StandardNormal
from aevae_jax.runs import weights

GOLDEN = Path(__file__).parent / "golden"
MODELS = {
    "levels": VAE(2, MLP((4,)), DiscretizedLogistic(17), StandardNormal(), event_shape=(5, 4, 1)),
    "bits": VAE(2, MLP((4,)), Bernoulli(), GaussianMixture(3), event_shape=(5, 4, 1)),
}


@pytest.mark.parametrize("name", MODELS)
def test_version_1_is_decoded_for_ever(name):
    model = MODELS[name]
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = weights.load_weights(GOLDEN / f"{name}.safetensors", shapes)
    coder, x = Coder(model, params), np.load(GOLDEN / f"{name}.npy")
    found = np.zeros_like(x)

    def write(first, rows):
        found[first : first + len(rows)] = rows

    with (GOLDEN / f"{name}.aev").open("rb") as file:
        reader = Reader(file)
        assert reader.header.model == coder.sha256
        archive.decompress(coder, reader, write)
        assert found.tobytes() == x.tobytes()
        assert archive.recover(coder, file, recovery.look(file), write).whole
