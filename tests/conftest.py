"""Strict flags for all tests: no implicit broadcasting of ranks, no key used twice."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import jax
import pytest

# nothing is left in the home folder
os.environ.setdefault("AEVAE_CACHE_DIR", os.path.join(tempfile.gettempdir(), "aevae-tests"))
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

FASHION_MNIST = Path(os.environ.get("TFDS_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data" / "tfds")


@pytest.fixture(scope="session")
def fashion_mnist_directory() -> Path:
    """A TFDS directory with Fashion-MNIST in it; tests that need it are skipped where there is none."""
    if not (FASHION_MNIST / "fashion_mnist").is_dir():
        pytest.skip(f"Fashion-MNIST is not prepared in {FASHION_MNIST}; set TFDS_DATA_DIR to run this test")
    return FASHION_MNIST
