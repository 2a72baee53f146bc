"""The contracts that every other file is written against. Read this first.

A latent variable model is four pure functions: `init`, `encode`, `decode` and `prior`. Everything that trains,
evaluates, samples or compresses consumes these four and nothing else, so a model of your own only has to provide them.

Shapes are written as `[B, *event]`: `B` examples, each one event (an image `[H, W, C]` or a vector `[D]`).
Densities are in nats, summed over the event axes, with all their constants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:  # at run time the contracts must not import JAX: `aevae --help` reads them
    from jax import Array

Params: TypeAlias = Any
"""A plain pytree of arrays."""

Latent: TypeAlias = Any
"""A batch of codes: an array `[B, *latent]`, or a pytree of such arrays for hierarchical models."""

Metrics: TypeAlias = "dict[str, Array]"
"""Named scalars; the unit of each is nats per example unless its name says otherwise."""


@runtime_checkable
class Distribution(Protocol):
    """`B` independent distributions over one event each: a frozen pytree whose leaves all have a leading axis `B`."""

    def sample(self, key: Array) -> Any:
        """One draw of each distribution, `[B, *event]`, differentiable in the parameters where that is possible."""
        ...

    def log_prob(self, value: Any) -> Array:
        """Log density (or log mass) in nats of `value` `[B, *event]`, summed over event axes: `[B]`."""
        ...

    def mean(self) -> Any:
        """Expected value, `[B, *event]`."""
        ...

    def kl(self, other: Distribution) -> Any:
        """KL(self || other) in nats, `[B]`; `NotImplemented` where no closed form exists."""
        ...


@runtime_checkable
class LatentModel(Protocol):
    """p(z) p(x|z) with a recognition model q(z|x)."""

    def init(self, key: Array) -> Params:
        """Fresh parameters."""
        ...

    def encode(self, params: Params, x: Array) -> Distribution:
        """x `[B, *event]` -> q(z|x)."""
        ...

    def decode(self, params: Params, z: Latent) -> Distribution:
        """z `[B, *latent]` -> p(x|z)."""
        ...

    def prior(self, params: Params, n: int) -> Distribution:
        """p(z) for a batch of `n`."""
        ...


class Objective(Protocol):
    """A scalar to be minimised, in nats per example, and metrics to be logged.

    Any function with this signature is an objective; those with hyper-parameters are frozen dataclasses.
    """

    def __call__(
        self, model: LatentModel, params: Params, x: Array, key: Array, step: Array
    ) -> tuple[Array, Metrics]: ...


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one line that says what to do next.

    Args:
      what: the thing that is wrong, for example "batch size".
      got: what was given.
      expected: what would have been accepted.
      where: the file, option or argument it came from.
      hint: what to type next.
    """

    def __init__(self, what: str, *, got: object, expected: str, where: str = "", hint: str = ""):
        place = f" ({shortened(where)})" if where else ""
        advice = f"; {hint}" if hint else ""
        super().__init__(printable(f"{shortened(what)}{place}: got {shortened(got)}, expected {expected}{advice}"))


def not_installed(package: str, extra: str, *, purpose: str, got: object = "not installed") -> InputError:
    """Return what to say of a package that is missing.

    The package index has no project of this name, and whoever made one there could be installed in its place: what is
    typed names the checkout.

    Args:
      package: what is missing.
      extra: the optional dependencies in pyproject.toml that bring it.
      purpose: what it is needed for: "to stream data".
      got: what is there in its place.
    """
    return InputError(package, got=got, expected=f"installed, {purpose}",
                      hint=f'type in the checkout of this project: pip install -e ".[{extra}]"')  # fmt: skip


def printable(text: object) -> str:
    """Return `text` with a blank for each character that could steer a terminal, break the line or not be encoded."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def shortened(text: object, limit: int = 300) -> str:
    """Return at most about `limit` characters of `text`: what was given may be a whole file."""
    shown = str(text)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."
