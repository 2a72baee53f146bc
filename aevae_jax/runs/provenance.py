"""What the numbers of a run rest on, beside its value: code, versions, device and the settings of the compiler."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevae_jax import __version__, cores, durable
from aevae_jax.data import Dataset
from aevae_jax.lazy import jax, modules
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from importlib import metadata
else:
    metadata = modules("importlib", "metadata")

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

    devices = jax.config.values["jax_num_cpu_devices"]
    try:  # JAX refuses to change this once it has computed; nothing else in its public interface says so
        jax.config.update("jax_num_cpu_devices", devices + 2)
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:
        raise InputError(
            "deterministic",
            got="a process in which JAX has been used already",
            expected="to be asked before that",
            hint=f"or set XLA_FLAGS={DETERMINISTIC}",
        ) from None
    os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}".strip()


def provenance(dataset: Dataset, *, devices: int = 1) -> dict[str, Any]:
    """Return command and data of a run, and its `environment`."""
    return {"command": sys.argv, "data": dataset.record(), **environment(devices=devices)}


def environment(*, devices: int = 1) -> dict[str, Any]:
    """Return versions, code, device and settings: where they are the same, so are the bits.

    Args:
      devices: how many are used, of all processes.
    """
    package = Path(__file__).parents[1]
    pins = package.parent / "pins.txt"
    config = jax.config.values
    flags, backend = os.environ.get("XLA_FLAGS", ""), jax.default_backend()
    return {
        "versions": {
            "python": platform.python_version(),
            "aevae-jax": __version__,  # not from the metadata: a checkout on the path need not be installed
            **{name: metadata.version(name) for name in PACKAGES},
        },
        "code": _code(),
        "project": revision(Path()),
        "pins_sha256": hashlib.sha256(pins.read_bytes()).hexdigest() if pins.is_file() else None,
        "installed_sha256": _installed(),
        "device": {"kind": jax.devices()[0].device_kind, "count": jax.device_count(), "backend": backend},
        "host": {"processor": _processor(), "cores": cores.available()},  # by which XLA divides its sums
        "settings": {
            "xla_flags": flags,
            "prng": config["jax_default_prng_impl"],
            "matmul_precision": config["jax_default_matmul_precision"],
            "x64": config["jax_enable_x64"],
            "deterministic": backend != "gpu" or DETERMINISTIC in flags.split(),
            **({"devices": devices} if devices > 1 else {}),
        },
    }


@cache
def _installed() -> str:
    """Return the sha256 over the names and versions of all that is installed."""
    names = sorted({f"{found.name}=={found.version}" for found in metadata.distributions()})
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _code() -> dict[str, Any]:
    """Return the sha256 over the names and contents of this package's files, and their revision if they lie in a
    checkout.
    """
    package, total = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        contents = path.read_bytes()
        total.update(f"{path.relative_to(package).as_posix()} {len(contents)}\n".encode() + contents)
    checkout = (package.parent / ".git").exists()  # and not just an environment within somebody's checkout
    return {"revision": revision(package) if checkout else None, "sha256": total.hexdigest()}


def revision(folder: Path) -> str | None:
    """Return the git revision of the checkout that a folder belongs to.

    `None` outside of any checkout, or where it cannot be told.

    It is read without git, which would run what the configuration of that checkout names (`core.fsmonitor`, filters):
    the folder may be a stranger's. https://git-scm.com/docs/gitrepository-layout
    """
    try:
        folder = folder.absolute()
        top = next(path for path in (folder, *folder.parents) if os.path.lexists(path / ".git"))
        git = top / ".git"
        if git.is_file():  # of a worktree or a submodule
            git = top / _text(git).removeprefix("gitdir:").strip()
        head = _text(git / "HEAD").strip()
        if name := _REFERENCE.fullmatch(head):
            common = git / _text(git / "commondir").strip() if (git / "commondir").exists() else git
            places = [place / name[1] for place in (git, common) if (place / name[1]).exists()]
            packed = (line.split() for line in _text(common / "packed-refs").splitlines()) if not places else ()
            head = _text(places[0]).strip() if places else next(line[0] for line in packed if line[1:] == [name[1]])
    except (InputError, OSError, ValueError, StopIteration):
        return None
    return head if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", head) else None


_REFERENCE = re.compile(r"ref: (refs/(?!.*\.\.)[^\0\n]+)")


def _text(path: Path) -> str:
    return durable.read_bytes(path, limit=2**24, what="git").decode()
