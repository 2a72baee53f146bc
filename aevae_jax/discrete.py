"""What models, distributions and objectives of discrete codes may offer beyond the contracts of `types`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from aevae_jax.types import Distribution, Params

if TYPE_CHECKING:
    from jax import Array


@runtime_checkable
class Indexed(Protocol):
    """A distribution over codes of which each is made of entries of a finite table."""

    @property
    def choices(self) -> int:
        """How many entries there are to choose from."""
        ...

    def indices(self, value: Any) -> Array:
        """Return which entries the codes `value` `[B, *event]` are made of, `[B, places, levels]`, integers from 0."""
        ...


@runtime_checkable
class Committed(Protocol):
    """A distribution at those codes of a codebook that are nearest to what an encoder gives."""

    @property
    def learned(self) -> bool:
        """Whether gradients train the codebook."""
        ...

    def commitment(self) -> Array:
        """Return the squared distance of the encoder's outputs from their codes, which are held fixed, `[B]`."""
        ...

    def codebook_error(self) -> Array:
        """Return the same, the outputs held fixed."""
        ...


@runtime_checkable
class Relaxable(Protocol):
    """A distribution over one-hot vectors, of which draws can be made that depend smoothly on its parameters."""

    def relaxed(self, key: Array, temperature: Any) -> tuple[Array, Array]:
        """Return a draw that is softer the higher the temperature; and its limit at 0, which is a draw of the
        distribution itself, with the derivatives of the soft one.
        """
        ...


@runtime_checkable
class Adapting(Protocol):
    """A model with statistics that follow the data, such as a codebook of moving averages."""

    def adapted(self, params: Params, posterior: Distribution, key: Array) -> Params:
        """Return `params["statistics"]` after a batch whose q(z|x) is `posterior`."""
        ...


@runtime_checkable
class Snapping(Protocol):
    """A model that has no code between its codes."""

    def nearest(self, params: Params, z: Array) -> Array:
        """Return the code that is nearest to each of z `[B, *latent]`."""
        ...


@runtime_checkable
class Preferring(Protocol):
    """A model that says what it is trained by where nobody does."""

    def usual_objective(self) -> Any:
        """Return the objective."""
        ...


@runtime_checkable
class Demanding(Protocol):
    """A model that is not for any number of training examples."""

    def check_examples(self, count: int) -> None:
        """Raise `InputError` if that many are too few."""
        ...
