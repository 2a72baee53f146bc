"""One training in a process of its own: how long until its first step, and how much memory it takes.

Called by speed.py with what to train and when the process was started, in seconds since the epoch. Prints JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from speed_cases import MLP, images_of


def measure(what: str, images: int, began: float) -> dict[str, Any]:
    """Return seconds to the imports' end and to the first step's end, and the peaks of memory after two epochs.

    Args:
      what: "ours", "minimal" or "torch".
      images: to train on.
      began: when the process was started.
    """
    found: dict[str, Any] = {}
    if what == "torch":
        import speed_torch

        if speed_torch.MISSING:
            return {"reason": "PyTorch is not installed"}
        found["imports"] = time.time() - began
        first = speed_torch.training(MLP, MLP.batch, 1, "eager")
        first()
        found["first_step"] = time.time() - began
        train = speed_torch.training(MLP, images, 2, "eager")
        train()
        found["device_bytes"] = speed_torch.peak_memory()
    else:
        import jax

        if what == "ours":
            import speed_programs as programs
        else:
            import speed_minimal as programs  # type: ignore[no-redef]
        found["imports"] = time.time() - began
        train = programs.training(MLP, images_of(MLP, MLP.batch))
        train()
        found["first_step"] = time.time() - began
        train = programs.training(MLP, images_of(MLP, images), 2)
        train()
        stats = jax.devices()[0].memory_stats() or {}
        found["device_bytes"] = stats.get("peak_bytes_in_use")
    found["host_bytes"] = peak_memory()
    return found


def peak_memory() -> int:
    """Return the most bytes of host memory that this process held at once."""
    try:  # what getrusage says begins, on Linux, with the parent's
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
