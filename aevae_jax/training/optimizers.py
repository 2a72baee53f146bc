"""Optimizers as values that build optax transformations. In Python, any optax transformation will do instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aevae_jax import limits
from aevae_jax.lazy import jax, jnp, optax
from aevae_jax.types import Params


@dataclass(frozen=True)
class AdamW:
    """`optax.adamw`, with the usual company. Kingma & Ba 2015; decoupled weight decay of Loshchilov & Hutter 2019.

    Args:
      learning_rate: the peak.
      warmup: steps over which the rate rises linearly from 0.
      cosine: let the rate fall to 0 along a half cosine by the end of training.
      weight_decay: decoupled, 0 for none; of `kernel`s alone, as Linen and NNX name the weights of their layers.
        Biases, scales of likelihoods, pseudo-inputs and codebooks have no reason to be near 0 and are left alone.
      clip_norm: largest global norm of a gradient, 0 for no limit.
    """

    learning_rate: float = 1e-3
    warmup: int = 0
    cosine: bool = False
    weight_decay: float = 0.0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        limits.check("AdamW learning_rate", self.learning_rate, limits.SMALLEST, limits.LARGEST)
        limits.check("AdamW warmup", self.warmup, 0)
        limits.check("AdamW weight_decay", self.weight_decay, 0.0, limits.LARGEST)
        limits.check("AdamW clip_norm", self.clip_norm, 0.0, limits.LARGEST)

    @property
    def needs_total(self) -> bool:
        """Whether the rate depends on how many steps there will be."""
        return self.cosine

    def build(self, steps: int) -> Any:
        """Return the `optax.GradientTransformation` for a training of `steps` steps."""
        rate: Any = self.learning_rate
        if self.cosine:
            rise = optax.linear_schedule(0.0, rate, self.warmup)
            fall = optax.cosine_decay_schedule(rate, max(steps - self.warmup, 1))
            rate = optax.join_schedules([rise, fall], [self.warmup])
        elif self.warmup:
            rate = optax.linear_schedule(0.0, rate, self.warmup)
        limit: Any = self.clip_norm
        if not isinstance(limit, float | int):  # traced, as in a sweep
            limit = jnp.where(limit == 0, jnp.inf, limit)
        clip = [] if limits.is_zero(limit) else [optax.clip_by_global_norm(limit)]
        return optax.chain(*clip, optax.adamw(rate, weight_decay=self.weight_decay, mask=_kernels))


def _kernels(params: Params) -> Any:
    """Tell which arrays of `params` are the weights of layers: a tree of bools."""

    def is_kernel(path: tuple[Any, ...], _: Any) -> bool:
        return jax.tree_util.keystr(path[-1:], simple=True) == "kernel"

    return jax.tree_util.tree_map_with_path(is_kernel, params)
