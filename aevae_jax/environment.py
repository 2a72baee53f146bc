"""What the numbers of a run rest on, beside its value: code, versions, device and the settings of the compiler."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from aevae_jax import __version__
from aevae_jax.data import Dataset
from aevae_jax.types import InputError

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
"""Without it, sums on a GPU may be taken in another order each time."""

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")


def make_deterministic() -> None:
    """Make this process compute the same bits each time on a GPU, too; CPUs and TPUs do so anyway.

    Raises:
      InputError: JAX has computed already, and will not look at the setting any more.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC in flags.split():
        return
    import jax

    devices = jax.config.values["jax_num_cpu_devices"]
    try:  # JAX refuses to change this once it has computed; nothing else in its public interface says so
        jax.config.update("jax_num_cpu_devices", devices + 2)
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:
        raise InputError("deterministic", got="a process in which JAX has been used already",
                         expected="to be asked before that",
                         hint=f"or set XLA_FLAGS={DETERMINISTIC}") from None  # fmt: skip
    os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}".strip()


def provenance(dataset: Dataset) -> dict[str, Any]:
    """Command and data of a run, and its `environment`."""
    return {"command": sys.argv, "data": dataset.record(), **environment()}


def environment() -> dict[str, Any]:
    """Versions, code, device and settings: where they are the same, so are the bits."""
    from importlib.metadata import version

    import jax

    package = Path(__file__).parent
    pins = package.parent / "pins.txt"
    config = jax.config.values
    flags, backend = os.environ.get("XLA_FLAGS", ""), jax.default_backend()
    return {
        "versions": {
            "python": platform.python_version(),
            "aevae-jax": __version__,  # not from the metadata: a checkout on the path need not be installed
            **{name: version(name) for name in PACKAGES},
        },
        "code": _revision(package),
        "project": _revision(Path.cwd()),
        "pins_sha256": hashlib.sha256(pins.read_bytes()).hexdigest() if pins.is_file() else None,
        "installed_sha256": _installed(),
        "device": {"kind": jax.devices()[0].device_kind, "count": jax.device_count(), "backend": backend},
        "host": {"processor": _processor(), "cores": _cores()},
        "settings": {
            "xla_flags": flags,
            "prng": config["jax_default_prng_impl"],
            "matmul_precision": config["jax_default_matmul_precision"],
            "x64": config["jax_enable_x64"],
            "deterministic": backend != "gpu" or DETERMINISTIC in flags.split(),
        },
    }


@cache
def _installed() -> str:
    """sha256 over the names and versions of all that is installed."""
    from importlib.metadata import distributions

    names = sorted({f"{found.name}=={found.version}" for found in distributions()})
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _cores() -> int:
    """Those this process may use: XLA divides its sums by them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _revision(folder: Path) -> dict[str, Any] | None:
    """The git revision of the checkout that a folder belongs to, and whether it was clean; `None` outside of any."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    if git("check-ignore", ".") is not None:  # installed into an environment that lies in somebody's checkout
        return None
    status = git("status", "--porcelain=v2", "--branch")
    if status is None:
        return None
    lines = status.splitlines()
    revision = next((line.split()[2] for line in lines if line.startswith("# branch.oid")), "")
    return {"revision": revision, "clean": all(line.startswith("#") for line in lines)}
