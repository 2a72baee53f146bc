"""Up to how many devices does dividing a batch pay? A cost model of bytes, links and the time of a step.

Command:   python experiments/scaling.py        (at once; the table of docs/scaling.md)
           python experiments/scaling.py --parameters 2e7 --step 5e-3 --batch-size 256
Expected:  a dense network whose step takes 0.1 ms loses more than half of the time as soon as it leaves one machine;
           one of 1e8 parameters and 20 ms keeps four fifths of thousands of devices, each with a batch of its own.

Every device computes a batch of its own, and then all add their gradients: by a ring, over which each device sends
2 (n - 1) / n times the bytes of a gradient (Patarasuk & Yuan 2009), first among those of a machine and then, one part
per device, between machines. Messages wait 2 log2(n) times for the latency, as in trees. Nothing overlaps, although XLA
may send gradients of the last layers while it computes the first: so this is what can at least be had. It knows of no
straggler, no other traffic, and no time to read data.
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

from aevae_jax.cli import console
from aevae_jax.cli.terminal import say

COUNTS = (2, 8, 64, 512, 4096)


class Link(NamedTuple):
    """What devices send through, each."""

    bytes_per_second: float
    seconds: float
    """Latency of a message."""


class Network(NamedTuple):
    """What is trained, and how long one device takes for one step."""

    name: str
    parameters: float
    step: float
    """Seconds."""
    batch_size: int
    """Examples that one device sees in a step."""


NETWORKS = (
    Network("784-500-20 (measured)", 815_824, 0.118e-3, 128),
    Network("Conv() (measured)", 243_465, 0.65e-3, 128),
    Network("1e8 parameters (assumed)", 1e8, 20e-3, 128),
)
"""Steps of the first two were measured on an H100: experiments/results/speed_h100.json."""


def all_reduce(size: float, count: int, link: Link) -> float:
    """Return the seconds in which `count` devices add arrays of `size` bytes."""
    if count == 1:
        return 0.0
    return 2 * (count - 1) / count * size / link.bytes_per_second + 2 * math.log2(count) * link.seconds


def communication(parameters: float, count: int, *, machine: int, inside: Link, between: Link) -> float:
    """Return the seconds in which `count` devices, `machine` in each machine, add their float32 gradients."""
    near = min(count, machine)
    size = 4 * parameters
    return all_reduce(size, near, inside) + all_reduce(size / near, count // near, between)


def scaling(
    *,
    parameters: float = 0.0,
    step: float = 0.0,
    batch_size: int = 128,
    machine: int = 8,
    inside: float = 300e9,
    between: float = 40e9,
    latency_inside: float = 5e-6,
    latency_between: float = 15e-6,
) -> None:
    """Print how much of many devices' time is computation, and below which batch it is less than half.

    Args:
      parameters: of a network of your own; 0 for the networks of docs/scaling.md.
      step: seconds of its step on one device.
      batch_size: of one device.
      machine: devices in one machine.
      inside: bytes per second that a device sends to others of its machine. Assumed, as are those below.
      between: bytes per second that a device sends to other machines.
      latency_inside: seconds until a message arrives in the machine.
      latency_between: seconds until a message arrives at another one.
    """
    near, far = Link(inside, latency_inside), Link(between, latency_between)
    networks = (Network("yours", parameters, step, batch_size),) if parameters else NETWORKS
    say(*table(networks, machine=machine, inside=near, between=far))


def table(networks: tuple[Network, ...], *, machine: int, inside: Link, between: Link) -> list[str]:
    """Return the lines of a table: speedup over one device at equal batches of each, and the batch where half is lost.

    Args:
      networks: a row each.
      machine: devices in one machine.
      inside: the link within it.
      between: the link to others.
    """
    lines = [
        "| network | step | " + " | ".join(f"{count} devices" for count in COUNTS) + " | half is lost below |",
        "| --- | --- |" + " --- |" * (len(COUNTS) + 1),
    ]
    for name, parameters, step, batch_size in networks:
        waits = [communication(parameters, n, machine=machine, inside=inside, between=between) for n in COUNTS]
        cells = [
            f"{n * step / (step + wait):,.{1 if n < 100 else 0}f} ({step / (step + wait):.0%})"
            for n, wait in zip(COUNTS, waits, strict=True)
        ]
        least = math.ceil(waits[-1] / step * batch_size)
        lines.append(f"| {name} | {1e3 * step:.3g} ms | {' | '.join(cells)} | {least:,} examples each |")
    return lines


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(scaling, sys.argv[1:], prog="scaling.py")()
