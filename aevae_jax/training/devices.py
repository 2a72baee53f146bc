"""Several devices in one process: examples are divided among them, parameters are on each.

The numbers are those of one device, up to the order of float32 sums.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def devices() -> int:
    """Return how many this process has."""
    return jax.local_device_count()


def shard_rows(tree: Any, axis: int = 0) -> Any:
    """Return `tree` with `axis` of every leaf divided among the devices; as it is where there is one, or it does not
    fit.
    """
    if devices() == 1 or any(leaf.shape[axis] % devices() for leaf in jax.tree.leaves(tree)):
        return tree
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec(*[None] * axis, "examples")))


def replicate(tree: Any) -> Any:
    """Return `tree` on every device."""
    return tree if devices() == 1 else jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec()))


def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), ("examples",), axis_types=(AxisType.Auto,))
