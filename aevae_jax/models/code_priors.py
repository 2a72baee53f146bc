"""Priors p(z) of discrete codes as values: distributions over indices, at each place of a code.

`init(key, model)` gives parameters (under `params["prior"]`); calling one gives the `Distribution` of a batch. The
model has `latent`; `symbols`: how many places a code has, and at each how many indices of how many choices; and
`book(params)`, the vectors by their indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aevae_jax import distributions, limits
from aevae_jax.lazy import jnp, modules
from aevae_jax.models import parts
from aevae_jax.types import Distribution, InputError, Params

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.models import code_networks
else:
    code_networks = modules("aevae_jax.models", "code_networks")


@dataclass(frozen=True)
class UniformCodes:
    """All codes are equally likely: log2 K bits for each index. Without parameters."""

    def init(self, key: Array, model: Any) -> Params:
        return {}

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        return _independent(model, params, jnp.zeros(model.symbols), n)


@dataclass(frozen=True)
class MarginalCodes:
    """Indices are independent, each with probabilities of its own that are learned: frequencies at every place."""

    def init(self, key: Array, model: Any) -> Params:
        return {"logits": jnp.zeros(model.symbols)}

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        return _independent(model, params, params["prior"]["logits"], n)


def _independent(model: Any, params: Params, logits: Array, n: int) -> Distribution:
    return distributions.IndependentCodes(model.book(params), logits, parts.code_shape(model.latent), n)


@dataclass(frozen=True)
class CausalTransformer:
    """Each index is predicted from all before it, place after place: an autoregressive prior.

    It is meant to be fitted after training (van den Oord, Vinyals & Kavukcuoglu 2017, section 3.3), see
    `objectives.PriorLikelihood`; until then all codes are equally likely. Attention takes codes of any shape and of any
    number of levels, and is made of matrix products, which CPUs do several times as fast as masked convolutions. A draw
    takes one step for each index, with what earlier ones have computed kept.

    Args:
      width: numbers at each position.
      layers: of attention.
      heads: of attention in each layer, a divisor of the width.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads"):
            limits.check(name, getattr(self, name), 1, where="CausalTransformer")

    def init(self, key: Array, model: Any) -> Params:
        nothing = jnp.zeros((1, 1), jnp.int32)
        params: Params = self._network(model).init(key, nothing, None, jnp.int32(0))["params"]
        return params

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        network = code_networks.Predictor(params["prior"], self._network(model))
        return distributions.SequentialCodes(model.book(params), network, parts.code_shape(model.latent), n)

    def _network(self, model: Any) -> Any:
        if self.width % self.heads:
            raise InputError(
                "heads", got=self.heads, expected=f"a divisor of width={self.width}", where="CausalTransformer"
            )
        places, levels, choices = model.symbols
        return code_networks.CausalTransformer(places * levels, levels, choices, self.width, self.layers, self.heads)


CodePrior = UniformCodes | MarginalCodes | CausalTransformer
"""The priors of discrete codes that a saved run may name. One of your own needs `init` and `__call__`."""
