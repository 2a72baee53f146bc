"""Strict flags for all tests: no implicit broadcasting of ranks, no key used twice; and little time spent compiling.

Nine tenths of what these tests cost is tracing, lowering and compiling programs that run for a moment. Five things make
that little: a compiler that optimises less and does not split a program for threads; a cache of compiled programs in
`.pytest_cache`, which the next call of pytest finds; one context of MLIR for the programs of a file of tests, where JAX
makes one for each; that programs are let go only when they take much memory; and that NumPy, SciPy and scikit-learn use
one thread, as those that have nothing to do wait for work by turning round, on cores that other tests need.
`AEVAE_TEST_COMPILER=full` compiles as users do: CI runs the tests marked `exact` that way, fast ones once more.
"""

from __future__ import annotations

import functools
import gc
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib") < "0.11":  # later ones do not know this flag, and a process that names an unknown one ends
    QUICK = f"--xla_cpu_use_fusion_emitters=false {QUICK}"
if os.environ.get("AEVAE_TEST_COMPILER", "quick") == "quick" and QUICK not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()  # inherited by all that tests start
if QUICK in os.environ.get("XLA_FLAGS", ""):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when NumPy is imported
        os.environ.setdefault(name, "1")
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "xla"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402 (reads the environment once)
import pytest  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402

# nothing is left in the home folder
os.environ.setdefault("AEVAE_CACHE_DIR", os.path.join(tempfile.gettempdir(), "aevae-tests"))
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

MLIR = None
if QUICK in os.environ.get("XLA_FLAGS", "") and hasattr(mlir, "make_ir_context"):  # takes 3 ms each time
    MLIR = mlir.make_ir_context = functools.cache(mlir.make_ir_context)

gc.disable()  # until all tests are collected: nothing is garbage yet


def pytest_collection_finish():
    """Let the garbage collector pass over modules and tests, which stay, and look at the rest less often."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
    gc.enable()


FASHION_MNIST = Path(os.environ.get("TFDS_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data" / "tfds")


MEMORY = 1.5 * 2**30


def _memory() -> float:
    """Bytes that this process holds; infinitely many where that is not said."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return float("inf")


@pytest.fixture(scope="module", autouse=True)
def _programs_are_let_go():
    """A process that keeps what it compiled for every file of tests grows to 4 GB; a small one need not forget."""
    yield
    if _memory() > MEMORY:
        jax.clear_caches()
        if MLIR is not None:
            MLIR.cache_clear()


@pytest.fixture(scope="module")
def no_pictures():
    """Leave empty files in place of the pictures of a run, which take longer to draw than a small one to train.

    For files of tests that look at none of them.
    """
    from aevae_jax.runs import pictures

    def save(folder, resolved, *rest):
        for name in pictures.NAMES[: 3 if len(resolved.prepared.event_shape) == 3 else 1]:
            (folder / f"{name}.png").touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "save", save)
        yield


@pytest.fixture(scope="session")
def fashion_mnist_directory() -> Path:
    """A TFDS directory with Fashion-MNIST in it; tests that need it are skipped where there is none."""
    if not (FASHION_MNIST / "fashion_mnist").is_dir():
        pytest.skip(f"Fashion-MNIST is not prepared in {FASHION_MNIST}; set TFDS_DATA_DIR to run this test")
    return FASHION_MNIST
