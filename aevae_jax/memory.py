"""How much memory is free, and the refusal of what would need more before any of it is taken."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path

from aevae_jax.types import InputError

GROUPS = Path("/sys/fs/cgroup")
"""Where the kernel shows the control group of this process."""

_GROUP_FILES = (
    ("", "memory.max", "memory.current", "inactive_file"),  # version 2
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
)
"""Files of a control group, such as a container: folder, limit, use, and what of it the kernel would give back."""


def check(
    need: int,
    *,
    what: str,
    got: object,
    expected: str = "",
    where: str = "",
    hint: str = "",
    available: int | None = None,
) -> None:
    """Refuse what needs more memory than is free.

    Args:
      need: an estimate in bytes, of everything that is held at once.
      what: the option or thing that decides how much it is.
      got: its value.
      expected: what would be accepted, if there is more to say than that less is.
      where, hint: as in `InputError`.
      available: how many bytes there are, of an accelerator's own memory; left out, what `free()` says.

    Raises:
      InputError: `need` is more than there is.
    """
    available = free() if available is None else available
    if need > available:
        raise InputError(
            what,
            got=f"{got}, which needs about {shown(need)} of memory",
            where=where,
            expected=f"{expected or 'less'}, as {shown(available)} are free",
            hint=hint,
        )


def free() -> int:
    """Return how many bytes this process can still take: what the system and its control group leave.

    Memory that holds copies of files counts as free. Where the system does not say, everything is.
    """
    return min(_system(), *(_group(*names) for names in _GROUP_FILES))


def shown(size: int) -> str:
    """Return a number of bytes as people read it: 3.5 GiB."""
    for power, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= power:
            number = size / power
            return f"{number:.3g} {unit}" if number < 999.5 else f"{number:,.0f} {unit}"  # not 1e+03
    return f"{size} bytes"


def _system() -> int:
    with contextlib.suppress(OSError, ValueError):
        if found := re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii")):
            return int(found[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):  # macOS says how much there is, not what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sys.maxsize


def _group(folder: str, limit: str, used: str, reclaimable: str) -> int:
    """Return what the control group leaves, as its files say where this process sees them: at the top of their tree."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max", which is no limit
        root = GROUPS / folder
        most, taken = (int((root / name).read_text(encoding="ascii")) for name in (limit, used))
        statistics = (root / "memory.stat").read_text(encoding="ascii")
        given_back = re.search(rf"^{reclaimable} (\d+)$", statistics, re.MULTILINE)
        return max(0, most - taken + int(given_back[1] if given_back else 0))
    return sys.maxsize
