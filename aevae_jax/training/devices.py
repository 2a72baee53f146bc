"""Which devices compute, and how arrays lie on them.

Examples are divided among the devices of one mesh, along its axis `data`; parameters are on each of them, or divided
as well. XLA makes the program of many devices out of that of one: a mean over a batch is summed across devices, and
noise is indexed by the example within the whole batch (`jax_threefry_partitionable`). So the numbers are those of one
device, up to the order of float32 sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aevae_jax.lazy import modules
from aevae_jax.types import InputError

multihost_utils = modules("jax.experimental", "multihost_utils")

SHARDED_ELEMENTS = 2**14
"""Smaller arrays are on each device even where parameters are divided: to send them takes longer than to hold them."""


@dataclass(frozen=True)
class Layout:
    """How arrays lie on devices.

    Args:
      mesh: with the axis `data`; `None` is one device, whose arrays and programs are as JAX makes them.
      shard_params: divide large parameters, and what the optimizer keeps of them, among the devices: each holds its
        part, and all are put together where they are used. Less memory for more communication.
    """

    mesh: Mesh | None = None
    shard_params: bool = False

    @property
    def count(self) -> int:
        """How many devices there are, of all processes."""
        return 1 if self.mesh is None else self.mesh.size

    def replicate(self, tree: Any) -> Any:
        """Return arrays, equal in all processes, on every device."""
        return jax.device_put(tree) if self.mesh is None else put(tree, self._divided())

    def divide(self, tree: Any, axis: int = 0) -> Any:
        """Return arrays, equal in all processes, divided along `axis`; on every device where one cannot be divided."""
        if self.mesh is None or any(leaf.shape[axis] % self.count for leaf in jax.tree.leaves(tree)):
            return self.replicate(tree)
        return put(tree, self._divided(axis))

    def place(self, state: Any) -> Any:
        """Return the state of a training, or parameters, equal in all processes, as this layout has them."""
        return jax.device_put(state) if self.mesh is None else jax.tree.map(lambda a: put(a, self._part(a)), state)

    @property
    def apart(self) -> bool:
        """Whether no process has the whole state of a training."""
        return self.shard_params and jax.process_count() > 1

    def read(self, spec: Any, region: Callable[[Any], Any], *, everywhere: bool = False) -> Any:
        """Return an array of a training's state, of which each process reads the regions that its devices hold.

        Args:
          spec: its shape and type.
          region: reads one, in host memory.
          everywhere: whether it is none of the state, and every device has it.
        """
        if self.mesh is None:
            return jax.device_put(region((slice(None),) * len(spec.shape)))
        sharding = self._divided() if everywhere else self._part(spec)
        return jax.make_array_from_callback(spec.shape, sharding, region)

    def shared(self, tree: Any, axis: int) -> Any:
        """Return arrays of which each process gives its share along `axis`, divided along it."""
        sharding = self._divided(axis)
        return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, a), tree)

    def whole(self, tree: Any) -> Any:
        """Return arrays that lie in any way as arrays of one device."""
        return tree if self.mesh is None else jax.device_put(jax.tree.map(on_host, tree))

    # ------------------------------------------------------------------------------------------------ inside programs

    def batch(self, tree: Any) -> Any:
        """Return a batch, `[B, ...]`, that each device computes its part of."""
        return self._constrained(tree, lambda a: self._divided(0))

    def state(self, state: Any) -> Any:
        """Return the state of a training, or parameters, as `place` places them."""
        return self._constrained(state, self._part)

    def everywhere(self, tree: Any) -> Any:
        """Return arrays that every device has."""
        return self._constrained(tree, lambda a: self._divided())

    def _constrained(self, tree: Any, sharding: Any) -> Any:
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, sharding(a)), tree)

    def _divided(self, axis: int | None = None) -> NamedSharding:
        assert self.mesh is not None  # what is asked before
        return NamedSharding(self.mesh, PartitionSpec(*[] if axis is None else [*[None] * axis, "data"]))

    def _part(self, array: Any) -> NamedSharding:
        """Return how one array of a training's state lies: along its largest axis that the devices divide."""
        axes = [axis for axis, size in enumerate(array.shape) if size % self.count == 0]
        if not self.shard_params or not axes or math.prod(array.shape) < SHARDED_ELEMENTS:
            return self._divided()
        return self._divided(max(axes, key=lambda axis: array.shape[axis]))


def local() -> Layout:
    """Return the layout of all devices that this process has."""
    return _on(jax.local_devices())


def replicate(tree: Any) -> Any:
    """Return arrays on every device that this process has."""
    return local().replicate(tree)


def shard_rows(tree: Any, axis: int = 0) -> Any:
    """Return arrays divided along `axis` among the devices that this process has; whole, where one cannot be."""
    return local().divide(tree, axis)


def choose(batch_size: int, *, devices: int = 0, shard_params: bool = False) -> Layout:
    """Return the layout of a training.

    Args:
      batch_size: of the whole training.
      devices: how many of this process to use; 0 for as many as there are and divide the batch.
      shard_params: see `Layout`.

    Raises:
      InputError: there are fewer devices, or they do not divide the batch.
    """
    there, processes = jax.local_device_count(), jax.process_count()
    if not 0 <= devices <= there:
        hint = "of a CPU, XLA_FLAGS=--xla_force_host_platform_device_count makes several"
        raise InputError("devices", got=devices, expected=f"at most {there}, as there are no more", hint=hint)
    count = devices or next((n for n in range(there, 0, -1) if batch_size % (n * processes) == 0), there)
    if batch_size % (count * processes):
        nearest = max(1, round(batch_size / (count * processes))) * count * processes
        raise InputError(
            "batch size",
            got=batch_size,
            expected=f"a multiple of the {count * processes} devices",
            hint=f"type --batch-size {nearest}, or fewer --devices",
        )
    each = [[d for d in jax.devices() if d.process_index == process][:count] for process in range(processes)]
    return _on([device for own in each for device in own], shard_params=shard_params)


def share() -> dict[str, int]:
    """Return which share of each batch this process reads, as `streams.windows` takes it."""
    return {"process": jax.process_index(), "processes": jax.process_count()}


def explained(layout: Layout) -> str:
    """Return what a training uses, in a line; empty where there is one device, and it is used."""
    there = jax.device_count()
    if there == 1:
        return ""
    several = "each batch is divided among them" + (", and so are large parameters" if layout.shard_params else "")
    return f"training on {layout.count} of {there} devices" + (f": {several}" if layout.count > 1 else "")


def beside(arrays: Any, tree: Any) -> Any:
    """Return `tree` on every device that the first of `arrays` is on."""
    sharding = getattr(next(iter(jax.tree.leaves(arrays)), None), "sharding", None)
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return Layout(mesh if isinstance(mesh, Mesh) else None).replicate(tree)


def _on(devices: list[Any], *, shard_params: bool = False) -> Layout:
    if len(devices) == 1:
        return Layout()
    # `Auto`: XLA finds how what is between lies, so a model of one's own need not know of devices
    return Layout(Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,)), shard_params)


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Return arrays with this sharding, the same in all processes."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    with jax.transfer_guard("allow"):
        return jax.tree.map(lambda a: _put(a, sharding), tree)


def _put(array: Any, sharding: NamedSharding) -> Any:
    """Return one array with this sharding; `jax.device_put` would first compare what the processes have."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return jax.device_put(array, sharding)
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(array), sharding), impl=jax.random.key_impl(array))
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def on_host(array: Any) -> np.ndarray:
    """Return an array in host memory; where it is divided among processes, all of them must call this."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
