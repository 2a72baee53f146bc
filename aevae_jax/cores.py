"""How many cores this process may use."""

from __future__ import annotations

import os


def available() -> int:
    """Return their number: where the system says so those that are lent to this process, else those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
