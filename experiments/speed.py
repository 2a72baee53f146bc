"""How fast are we? Our programs beside a plain JAX loop, PyTorch, and the matrix products and convolutions alone.

Command:   python experiments/speed.py                                     (a quarter of an hour on two CPU cores)
           python experiments/speed.py --workloads mlp conv                (some of the workloads: see --help)
           python experiments/speed.py --quick --budget 170                (a look; what is late is skipped with a line)
           python experiments/speed.py --torch ../venv-torch/bin/python    (PyTorch lives in another environment)
           python experiments/speed.py --record experiments/results/speed_cpu.json
Writes:    runs/speed/results.json after each workload, table.md, speed.png
Expected:  training takes about as long as the minimal JAX loop, and at most 1.6 times as long as its products alone on
           CPUs; a likelihood at most 1.5 times. On CPUs one network keeps the cores busy: seeds trained at once take
           about as long as their products, one after the other. Accelerators, which a small network leaves idle,
           take much less.

Machines are noisy, so nothing is timed by itself: the programs of a workload take turns, each turn beginning with
another one, and a ratio is the median of the ratios within a turn, with the least and the largest. The load of the
machine, before and after, stands beside them. Every program is called twice before it counts; what the first call took
more is its compilation. Results are waited for. All programs draw a new order of the images in every epoch and fresh
noise in every step, and their losses at the end stand in results.json: they are alike where the work is.

* ours: `train_epoch` with `make_train_step` (all metrics of every step, and its check for numbers that are not finite).
* minimal JAX loop: the same network in plain JAX with optax, one jitted epoch (speed_minimal.py).
* PyTorch: the same network, images on the device, fused Adam; compiled, from a DataLoader, and as a CUDA graph. It is
  no dependency. It runs in a process of its own, which is idle while others take their turns, and whose threads sleep
  while they wait: a loaded machine would slow it down several times otherwise (speed_torch.py).
* products alone: the matrix products and convolutions of our program, gradients included, in the same shapes, number
  and precision, one after the other with nothing between them: the limit (`alone` in speed_programs.py).

Precision: training takes JAX's default for products, float32 on CPUs and TF32 on recent NVIDIA GPUs; likelihoods and
evaluations take full float32 everywhere. PyTorch takes full float32 unless its row says TF32. Ratios are between rows
of equal precision.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from aevae_jax import durable
from aevae_jax.cli import console, terminal
from aevae_jax.types import InputError

NAMES = (
    "mlp",
    "conv",
    "seeds",
    "digits",
    "likelihood",
    "repeatable",
    "bf16",
    "residual",
    "start",
    "growth",
    "sampling",
    "evaluation",
)
"""The workloads, the most important first."""


def speed(
    *,
    workloads: tuple[str, ...] = NAMES,
    turns: int = 0,
    images: int = 0,
    quick: bool = False,
    budget: int = 0,
    torch: str = "",
    out: Path = Path("runs/speed"),
    record: str = "",
) -> None:
    """Time our programs against plain JAX, PyTorch and the products alone.

    Args:
      workloads: which of them, done in the order of their importance.
      turns: how often the programs alternate; 0 for 5, or 3 with --quick.
      images: what dense networks train on in an epoch, others on fewer; 0 for what suits the machine.
      quick: less of everything, for a look.
      budget: seconds after which what is left is skipped, 0 for no limit.
      torch: a Python with PyTorch, where it is not this one.
      out: directory for results, table and picture.
      record: also write the results to this JSON file.
    """
    for option, value in (("--turns", turns), ("--images", images), ("--budget", budget)):
        if value < 0:
            raise InputError(option, got=value, expected="at least 1, or 0")
    if 0 < images < 512:
        raise InputError("--images", got=images, expected="at least 512, or 0")
    for name in workloads:
        if name not in NAMES:
            raise InputError("--workloads", got=name, expected=f"some of {', '.join(NAMES)}")
    terminal.begin(f"timing {' '.join(name for name in NAMES if name in workloads)}")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # others need memory of a GPU, too
    import jax
    import speed_picture
    import speed_table
    import speed_workloads
    from speed_turns import Clock, Torch, reason

    from aevae_jax.runs import provenance, records

    backend, clock, began = jax.default_backend(), Clock(budget), time.monotonic()
    jax.block_until_ready(jax.numpy.ones(1) + 1)  # JAX takes hold of the device before PyTorch does
    for path in filter(None, (record, str(out / "results.json"))):
        durable.make_room(Path(path))
    pytorch, compiling = (Torch(torch or sys.executable, out / "torch.log", backend) for _ in range(2))
    results: dict[str, Any] = {
        "command": shlex.join(["python", "experiments/speed.py", *sys.argv[1:]]),
        "turns": turns or (3 if quick else 5),
        "quick": quick,
        "torch": pytorch.about or {"reason": pytorch.missing},
        "precision": "products of training: JAX's default (float32 on CPUs, TF32 on recent NVIDIA GPUs); of "
        "likelihoods and evaluations: float32; PyTorch: float32, TF32 where a row says so",
        "workloads": [],
        "made": provenance.environment(),
    }
    chosen = [name for name in NAMES if name in workloads]
    try:
        for place, name in enumerate(chosen):
            entry: dict[str, Any] = {"name": name, "load": [load()]}
            if clock.left() < 5:
                entry["reason"] = f"skipped: the budget of {budget} s was used up"
            else:
                share = clock.part(max(0.3, 1 / (len(chosen) - place))) if budget else clock
                settings = speed_workloads.Settings(
                    *speed_workloads.sizes(images, quick=quick),
                    turns=results["turns"],
                    quick=quick,
                    torch=pytorch,
                    compiling=compiling,
                    python=torch or sys.executable,
                    clock=share,
                )
                start = time.monotonic()
                terminal.begin(f"{name}, {place + 1} of {len(chosen)}")
                try:
                    entry |= speed_workloads.WORKLOADS[name](settings)
                    pytorch.forget()
                    compiling.forget()
                except Exception as error:  # one workload must not lose the others
                    entry["reason"] = reason(error)
                jax.clear_caches()
                entry["took"] = time.monotonic() - start
            entry["load"].append(load())
            results["workloads"].append(entry)
            results["seconds"] = time.monotonic() - began
            records.write_json(out / "results.json", results)
            print(speed_table.lines(entry), flush=True)
    finally:
        pytorch.close()
        compiling.close()
    (out / "table.md").write_text(speed_table.table(results))
    speed_picture.draw(out / "speed.png", results)
    if record:
        records.write_json(Path(record), results)
    print(speed_table.table(results), end="")
    print(f"wrote  {out}: results.json, speed.png, table.md")


def load() -> float:
    """Return how many processes wanted the machine in the last minute, on average."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else -1.0


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(speed, sys.argv[1:], prog="speed.py", compiles=False)()
