"""Quantizers as values: which finitely many vectors there are, and which of them an encoder's outputs become.

`init(latent)` gives entries of the params tree; `outputs(latent)` is the shape of what the encoder gives. Calling one
on that gives q(z|x), at one code `[B, *latent]`, of which the decoder sees what `merged` makes; `book(params)` are the
vectors. The last axis of a code is that of its vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aevae_jax import distributions, limits
from aevae_jax.lazy import jax, jnp, modules, np
from aevae_jax.models.parts import LatentShape, code_shape
from aevae_jax.types import InputError, Params

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.distributions import books
else:
    books = modules("aevae_jax.distributions", "books")

_NEVER = 2**30
"""How long a codebook has not been used that has not begun, in steps."""


@dataclass(frozen=True)
class Codebook:
    """Vectors that follow what the encoder gives: vector quantisation. van den Oord, Vinyals & Kavukcuoglu 2017.

    It begins at outputs of the encoder for the first batch, drawn as k-means++ draws them (Arthur & Vassilvitskii
    2007): each in proportion to the squared distance from those that are there. Further levels begin a step later
    each, at what the levels before them leave. Codes that were not used for long begin again in the same way.

    Args:
      codes: K, how many vectors there are; codes are log2 K bits each under equal probabilities.
      levels: how many codebooks of this size there are, each for what is left by those before it. Vectors of a code
        have their entries side by side, the decoder sees the sum.
      learning: how vectors follow: as moving averages of the outputs that are nearest to them (van den Oord et al.,
        appendix A.1), which no optimizer sees, or by gradients.
      decay: of the averages; 0 puts every vector in the middle of its outputs of the last batch, as k-means does.
      revival: after how many steps without use a code begins again, 0 for never.
      gradient: what reaches the encoder: the gradient of the code as it is, or turned with it (see
        `distributions.discrete.rotated`).
    """

    codes: int = 512
    levels: int = 1
    learning: Literal["averages", "gradient"] = "averages"
    decay: float = 0.99
    revival: int = 100
    gradient: Literal["straight_through", "rotated"] = "straight_through"

    def __post_init__(self) -> None:
        limits.check("codes", self.codes, 1, 2**24, where="Codebook")
        limits.check("levels", self.levels, 1, 64, where="Codebook")
        limits.check("decay", self.decay, 0.0, 1.0, where="Codebook")
        if self.decay == 1:
            raise InputError("decay", got=1.0, expected="less than 1: vectors would stay", where="Codebook")
        limits.check("revival", self.revival, 0, _NEVER - 1, where="Codebook")

    @property
    def symbols(self) -> tuple[int, int]:
        """How many indices a vector has, and how many choices each."""
        return self.levels, self.codes

    def check(self, latent: LatentShape) -> None:
        """Refuse codes whose vectors are not so many entries side by side."""
        size = code_shape(latent)[-1]
        if size % self.levels:
            expected = f"vectors of {self.levels} times as many numbers as each level has"
            raise InputError("latent", got=latent, expected=expected, where=f"Codebook(levels={self.levels})")

    def outputs(self, latent: LatentShape) -> LatentShape:
        """Return the shape of what is quantised."""
        shape = code_shape(latent)
        size = shape[-1] // self.levels
        return (*shape[:-1], size) if isinstance(latent, tuple) else size

    def merged(self, z: Array) -> Array:
        """Return the sum over levels of codes `[B, *latent]`."""
        return z.reshape(*z.shape[:-1], self.levels, -1).sum(axis=-2)

    def check_examples(self, count: int, places: int) -> None:
        """Refuse a codebook that has more vectors than the encoder gives for all training examples together."""
        if self.codes > count * places:
            raise InputError(
                "codes of the Codebook",
                got=f"{self.codes:,}",
                expected=f"at most {count * places:,}, as {count:,} training examples have {places} vectors each",
            )

    def init(self, latent: LatentShape) -> dict[str, Params]:
        """Return the codebooks before they begin: zeros."""
        shape = (self.levels, self.codes, code_shape(self.outputs(latent))[-1])
        statistics = {
            "codebook": jnp.zeros(shape),
            "share": jnp.zeros(shape[:2]),
            "unused": jnp.full(shape[:2], _NEVER, jnp.int32),
        }
        learned = {"codebook": {"moved": jnp.zeros(shape)}} if self.learning == "gradient" else {}
        return {**learned, "statistics": statistics}

    def book(self, params: Params) -> books.Codebooks:
        """Return the codebooks as they are."""
        table = params["statistics"]["codebook"]
        return books.Codebooks(table + params["codebook"]["moved"] if self.learning == "gradient" else table)

    def __call__(self, params: Params, raw: Array) -> distributions.VectorQuantized:
        vectors = raw.reshape(raw.shape[0], -1, raw.shape[-1])
        index, left, entry = self.book(params).quantised(vectors)
        levels = jax.lax.stop_gradient(entry)
        through = distributions.straight_through if self.gradient == "straight_through" else distributions.rotated
        total = through(vectors, levels.sum(axis=-2))  # the sum has its gradient, by the first level
        first = distributions.straight_through(total, levels[:, :, 0])
        code = jnp.concatenate([first, *(levels[:, :, level] for level in range(1, self.levels))], axis=-1)
        shape = (*raw.shape[:-1], self.levels * raw.shape[-1])
        return distributions.VectorQuantized(
            code.reshape(shape), index, left, entry, self.codes, self.learning == "gradient"
        )

    def adapted(self, params: Params, q: Any, key: Array) -> Params:
        """Return the statistics after a batch, of which `q` is what `__call__` made."""
        old, left, index = jax.lax.stop_gradient((params["statistics"], q.left, q.index))
        moved = jax.lax.stop_gradient(params["codebook"]["moved"]) if self.learning == "gradient" else None
        found, ready = [], jnp.asarray(True)
        for level in range(self.levels):
            own = {name: a[level] for name, a in old.items()}
            offset = jnp.zeros_like(own["codebook"]) if moved is None else moved[level]
            rows = left[:, :, level].reshape(-1, left.shape[-1]), index[:, :, level].reshape(-1)
            found.append(self._adapted(own, *rows, (ready, offset, jax.random.fold_in(key, level))))
            ready = own["unused"][0] != _NEVER
        return jax.tree.map(lambda *a: jnp.stack(a), *found)

    def _adapted(
        self, old: dict[str, Array], vectors: Array, index: Array, beside: tuple[Array, Array, Array]
    ) -> dict[str, Array]:
        """Return the statistics of one level after a batch.

        With shares n and sums s of the vectors of each code, N' = decay N + (1 - decay) n, and the mean m / N of the
        moving averages of both moves to itself plus (1 - decay) (s - n m / N) / N'. Shares, not counts: a batch with
        every example twice says the same.

        Args:
          old: those before.
          vectors: what is to be quantised, `[M, D]`.
          index: of the code of each, `[M]`.
          beside: whether the levels above have begun; what gradients have added to the codebook, `[K, D]`; and a key,
            of what begins, or begins again.
        """
        ready, offset, key = beside
        begun = old["unused"][0] != _NEVER
        weight = jnp.full(len(vectors), 1 / len(vectors))
        share = jax.ops.segment_sum(weight, index, self.codes)
        sums = jax.ops.segment_sum(weight[:, None] * vectors, index, self.codes)
        book = old["codebook"]
        known = self.decay * old["share"] + (1 - self.decay) * share
        if self.learning == "averages":
            step = (1 - self.decay) * (sums - share[:, None] * book)
            book = jnp.where(begun, book + step / jnp.maximum(known, np.finfo(np.float32).tiny)[:, None], book)
        unused = jnp.where(begun, jnp.where(share > 0, 0, old["unused"] + 1), _NEVER)
        dead = jnp.where(begun, unused >= (self.revival or _NEVER), ready)
        far = jnp.where(begun, ((vectors - (old["codebook"] + offset)[index]) ** 2).sum(axis=1), 1e30)
        again = _seeded(book + offset, dead, vectors, far, key)
        return {
            "codebook": jnp.where(dead[:, None], again - offset, book),
            "share": jnp.where(dead, 0.0, known),
            "unused": jnp.where(dead, 0, unused).astype(jnp.int32),
        }


def _seeded(table: Array, dead: Array, vectors: Array, far: Array, key: Array) -> Array:
    """Return a table `[K, D]` whose dead rows are vectors, drawn one by one in proportion to `far`.

    Args:
      table: `[K, D]`.
      dead: which rows are to be replaced, `[K]`; where there are none nothing is computed.
      vectors: to be drawn from, `[M, D]`.
      far: squared distance of each from the nearest row that is not dead, `[M]`.
      key: of the draws.
    """

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        table, dead, far = carry
        row = jnp.argmax(dead)
        drawn = vectors[jax.random.categorical(jax.random.fold_in(key, row), jnp.log(far))]
        far = jnp.minimum(far, ((vectors - drawn[None]) ** 2).sum(axis=1))
        return table.at[row].set(drawn), dead.at[row].set(False), far

    found: Array = jax.lax.while_loop(lambda carry: carry[1].any(), step, (table, dead, far))[0]
    return found


@dataclass(frozen=True)
class FSQ:
    """Each number of a vector is bounded and rounded to a few levels: there is no codebook, and none to learn.

    Finite scalar quantisation: Mentzer, Minnen, Agustsson & Tschannen 2023, section 3.1. Gradients pass the rounding
    as they are.

    Args:
      levels: of each number of a vector, at least 2; the vectors of a code have as many numbers. There are 1,000 codes
        of (8, 5, 5, 5), 4,096 of (8, 8, 8, 8).
    """

    levels: tuple[int, ...] = (8, 5, 5, 5)

    def __post_init__(self) -> None:
        limits.check_sizes("levels", self.levels, 2, where="FSQ")
        if not self.levels:
            raise InputError("levels", got="()", expected="at least one, such as (8, 5, 5, 5)", where="FSQ")
        limits.check("codes", math.prod(self.levels), 2, 2**24, where="FSQ")

    @property
    def symbols(self) -> tuple[int, int]:
        """How many indices a vector has, and how many choices each."""
        return 1, math.prod(self.levels)

    def check(self, latent: LatentShape) -> None:
        """Refuse codes whose vectors have another number of numbers."""
        size, shape = len(self.levels), code_shape(latent)
        if shape[-1] != size:
            raise InputError(
                "latent",
                got=latent,
                expected=f"{(*shape[:-1], size) if len(shape) > 1 else size}: vectors of {size} numbers",
                where=f"FSQ({self.levels})",
            )

    def outputs(self, latent: LatentShape) -> LatentShape:
        """Return the shape of what is quantised: that of codes."""
        return latent

    def merged(self, z: Array) -> Array:
        """Return the codes."""
        return z

    def check_examples(self, count: int, places: int) -> None:
        """Refuse nothing: no vector has to be learned."""

    def init(self, latent: LatentShape) -> dict[str, Params]:
        """Return nothing."""
        return {}

    def book(self, params: Params) -> books.Grid:
        """Return the grid."""
        return books.Grid(self.levels)

    def __call__(self, params: Params, raw: Array) -> distributions.Quantized:
        sizes = np.asarray(self.levels, np.float32).reshape(*[1] * (raw.ndim - 1), -1)
        half = (sizes - 1) * 1.001 / 2  # a thousandth more, so that the outermost levels are reached
        offset = np.where(sizes % 2 == 0, np.float32(0.5), np.float32(0.0))
        bounded = jnp.tanh(raw + np.arctanh(offset / half)) * half - offset
        code = distributions.straight_through(bounded, jnp.round(bounded)) / (sizes // 2)
        index = self.book(params).indices(code.reshape(code.shape[0], -1, code.shape[-1]))
        return distributions.Quantized(code, index, math.prod(self.levels))

    def adapted(self, params: Params, q: Any, key: Array) -> Params:
        """Return `None`: there are no statistics."""
        return None


Quantizer = Codebook | FSQ
"""The quantizers a saved run may name."""
