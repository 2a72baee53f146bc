"""What distributions may offer to a codec: contracts beside those of `types`, each of them optional."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from jax import Array


@runtime_checkable
class Typed(Protocol):
    """An architecture, a frozen dataclass, that says in which type it computes."""

    @property
    def dtype(self) -> Any:
        """The name of the type."""
        ...


@runtime_checkable
class Gaussian(Protocol):
    """A distribution of independent normals."""

    def gaussian(self) -> tuple[Array, Array]:
        """Return means and log standard deviations, `[B, *event]`."""
        ...


@runtime_checkable
class Mixed(Protocol):
    """One mixture of distributions for a whole batch."""

    @property
    def logits(self) -> Array:
        """Unnormalised log weights, `[C]`."""
        ...

    @property
    def components(self) -> Any:
        """A batch of C distributions."""
        ...


@runtime_checkable
class Levelled(Protocol):
    """A distribution over two levels of codes: p(z2) p(z1|z2), z1 first in the code."""

    @property
    def above(self) -> Any:
        """p(z2)."""
        ...

    @property
    def below(self) -> Any:
        """(z2) -> p(z1|z2)."""
        ...


@runtime_checkable
class LogisticMixture(Protocol):
    """A distribution of independent elements, each a mixture of K logistics rounded to the levels of [0, 1]."""

    def logistics(self) -> tuple[Array, Array, Array]:
        """Return log weights, places and log scales in units of the data, `[B, *event, K]`."""
        ...

    @property
    def levels(self) -> int:
        """The number of values an element can take: k / (levels - 1)."""
        ...


@runtime_checkable
class InPasses(Protocol):
    """A distribution whose elements come in passes: mixtures of rounded logistics, given the elements before."""

    def logistics_given(self, value: Array) -> tuple[Array, Array, Array]:
        """Return what `LogisticMixture.logistics` does, of all elements, of which each depends on those of earlier
        passes in `value` `[B, *event]` alone.
        """
        ...

    @property
    def passes(self) -> Any:
        """The pass of each element, an integer array `[*event]`, from 0 on."""
        ...

    @property
    def levels(self) -> int:
        """The number of values an element can take: k / (levels - 1)."""
        ...


@runtime_checkable
class LogMasses(Protocol):
    """A distribution of independent elements over a few levels of [0, 1], of which each has its probability."""

    def log_masses(self) -> Array:
        """Return log probabilities of the levels, up to a constant, `[B, *event, levels]`."""
        ...


@runtime_checkable
class OfIndices(Protocol):
    """A distribution over codes that are known by their indices: L at each place, of K choices each."""

    @property
    def book(self) -> Any:
        """What has the vectors: `distributions.books.Book`."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one code, the last axis that of its vectors."""
        ...

    @property
    def sequential(self) -> bool:
        """Whether an index depends on those before it, in the order of places, and at each that of levels."""
        ...

    def log_odds(self, index: Array) -> Array:
        """Return log probabilities, up to a constant, of each index of `index` `[B, places, L]`, given those before it
        alone: `[B, places, L, K]`.
        """
        ...


@runtime_checkable
class OfClasses(Protocol):
    """A distribution of independent one-hot vectors."""

    def classes(self) -> Array:
        """Return log probabilities of the classes, up to a constant, `[B, places, K]`."""
        ...


@runtime_checkable
class Smoothed(Protocol):
    """A distribution of independent elements, each a mixture of K logistics with uniform noise of width 1.

    The density at an integer is the mass of what is rounded to it.
    """

    def smooth(self) -> tuple[Array, Array, Array]:
        """Return log weights, places and log scales of the logistics, `[B, *event, K]`."""
        ...


@runtime_checkable
class Lossy(Protocol):
    """A codec that says whether what it decodes may be something else than what was encoded; of others it is not."""

    @property
    def lossy(self) -> bool:
        """Whether it may."""
        ...
