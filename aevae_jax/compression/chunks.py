"""A trained model as a lossless codec of chunks of examples, each decodable on its own.

Examples are coded in batches, one upon the other: bits that the code of one takes back are those of the batches before.
Batches begin with one example, and then have a certain part of as many as there are before them: in larger ones, codes
that take more bits than an example leaves would find too few. An example that is not certain to decode, or that the
model would make larger, is coded without the model.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from aevae_jax import codable, limits, values
from aevae_jax.compression import certified, elements, indices, latents, plain, tables
from aevae_jax.compression.certified import Evaluation, Networks
from aevae_jax.compression.codecs import Codec, bits_back, independent, monte_carlo_bits_back
from aevae_jax.compression.container import MOST_SAMPLES
from aevae_jax.compression.elements import TOTAL
from aevae_jax.compression.stack import LARGE, SMALL, Bits, Damaged, Dice, Nothing, Slices, Stack, Tally
from aevae_jax.types import InputError, Params

__all__ = ("Coder", "Damaged")

_BATCH = 64
_SAMPLES = np.append(10 * np.arange(MOST_SAMPLES), TOTAL)[None]  # counts of how many samples there are, the most first
_MOST_PARTS = 256
_SPARE = 1.25
"""How many times the bits that a batch takes should lie there before it."""
_DOUBT = 1e-6
"""Weights of codes must lie so far from where they round otherwise, and twice as far as they may be off."""
_RARE = 64  # of 65536 examples so many are expected to be coded without the model


class Coder:
    """A model and its parameters as a codec of integers.

    Args:
      model: with a likelihood of levels: `Bernoulli`, `Categorical`, `DiscretizedLogistic` or mixtures of these, and a
        prior of normals, mixtures of these, or two levels; or with discrete codes and a prior of their indices.
      params: its parameters, as trained.
      batch: number of examples that networks are evaluated on at once. Files do not depend on it.
      samples: number of codes of which one is chosen for each example, at so many times the work. Files are smaller
        where the mean of so many importance weights is a better bound, as it is of models of few bits per example.

    Raises:
      InputError: a model that no codec can be made of, or parameters that are not finite.
    """

    lossy: ClassVar[bool] = False

    def __init__(self, model: Any, params: Params, *, batch: int = _BATCH, samples: int = 1):
        plain.check_finite(params)
        self.event_shape = tuple(model.event_shape)
        self.sha256 = digest(model, params)
        limits.check("batch", batch, 1)
        limits.check("samples", samples, 1, MOST_SAMPLES)
        self._samples = samples
        self._networks, self._at_once = Networks(model, params), batch
        discrete = isinstance(self._networks.shapes(indices.prior_of), codable.OfIndices)
        self._latents: Any = (indices.Indices if discrete else latents.Latents)(self._networks)
        width = self._latents.width
        found = self._networks.shapes(lambda model, params: latents.decoded(model, params, jnp.zeros((1, width))))
        self._passes = found.passes if isinstance(found, codable.InPasses) else None
        self._logistic = isinstance(found, codable.LogisticMixture | codable.InPasses)
        self._numbers: Any = _log_masses
        if isinstance(found, codable.LogisticMixture | codable.InPasses):
            self._numbers = _logistics if self._passes is None else _logistics_given
            self.levels = found.levels
        elif isinstance(found, codable.LogMasses):
            shape = self._networks.shapes(lambda model, params: _log_masses(model, params, jnp.zeros((1, width)))).shape
            self.levels = int(shape[-1])
        else:
            raise InputError(
                "likelihood",
                got=f"{type(found).__name__}, which is no distribution of levels",
                expected="one with probabilities of levels",
                hint=f"{latents.CODED}, or Bernoulli() on bits",
            )
        self._latents.check(self.event_shape)
        self._networks.check(self._numbers, (1, width), *([] if self._passes is None else [(1, *self.event_shape)]))
        if self.levels > elements.MOST_LEVELS:
            raise InputError("levels", got=self.levels, expected=f"at most {elements.MOST_LEVELS} to be coded")

    @property
    def dtype(self) -> Any:
        """What symbols are decoded to: uint8 up to 256 levels, else uint16."""
        return plain.dtype_of(self.levels)

    def encode(self, symbols: np.ndarray) -> bytes:
        """Return a chunk of examples `[n, *event_shape]`, n >= 1, of integers below `levels`.

        Raises:
          InputError: another shape, symbols outside the levels, or a prior that does not round surely.
        """
        certified.check_prior(self._latents.sure)
        plain.check_examples("examples", symbols, self.event_shape, self.levels)
        stack, waiting = Stack(self._latents.seed * self._samples), deque(range(len(symbols)))
        without, part = np.zeros(len(symbols), bool), self._part(symbols[:_BATCH])
        for size, slices in _sizes(self.levels, part):
            stack.slices = slices
            rows: list[int] = []
            while True:
                while waiting and len(rows) < size:
                    rows.append(waiting.popleft())
                if not rows:
                    break
                before, batch = stack.copy(), symbols[rows].astype(np.int64)
                evaluate = Evaluation(self._networks, len(rows), self._at_once, certify=True)
                tally = Tally(len(rows), stack)
                self._batch(evaluate, self._samples).push(tally, batch)
                good = evaluate.sure & (tally.bits < batch[0].size * np.log2(self.levels) + 1)
                if good.all():
                    break
                stack = before
                without[np.array(rows)[~good]] = True
                rows = [row for row, is_good in zip(rows, good, strict=True) if is_good]
            if not waiting:
                break
        stack.slices = SMALL
        plain.uniform(int(without.sum()), self.event_shape, self.levels).push(stack, symbols[without].astype(np.int64))
        plain.marks(len(symbols), _RARE).push(stack, without.astype(np.int64))
        _parts().push(stack, np.array([part]))
        _sampled().push(stack, np.array([MOST_SAMPLES - self._samples]))
        return stack.payload()

    def decode(self, payload: bytes, n: int) -> np.ndarray:
        """Return the `n` examples of a chunk, `[n, *event_shape]`.

        Raises:
          Damaged: the payload is not what `encode` gave for so many examples.
        """
        stack, samples, part, without = self._opened(payload, n)
        out = np.zeros((n, *self.event_shape), self.dtype)
        out[without] = plain.uniform(int(without.sum()), self.event_shape, self.levels).pop(stack)
        modelled = np.flatnonzero(~without)
        first, batches = 0, []
        for size, slices in _sizes(self.levels, part):
            if first >= len(modelled):
                break
            batches.append((modelled[first : first + size], slices))
            first += size
        for rows, slices in reversed(batches):
            stack.slices = slices
            evaluate = Evaluation(self._networks, len(rows), self._at_once, certify=False)
            out[rows] = self._batch(evaluate, samples).pop(stack)
        stack.check_empty()
        return out

    def modelled(self, payload: bytes, n: int) -> np.ndarray:
        """Return of which of the `n` examples of a chunk the bits are those of the model, `[n]` bool.

        Raises:
          Damaged: the payload is too short to say.
        """
        return ~self._opened(payload, n)[-1]

    def _opened(self, payload: bytes, n: int) -> tuple[Stack, int, int, np.ndarray]:
        """Return the stack of a chunk, its samples and part, and which examples are coded without the model."""
        stack = Stack(0, payload)
        samples = MOST_SAMPLES - int(_sampled().pop(stack)[0])
        stack.seed = self._latents.seed * samples
        part = int(_parts().pop(stack)[0])
        return stack, samples, part, plain.marks(n, _RARE).pop(stack).astype(bool)

    def bound(self, symbols: np.ndarray, seed: int = 0) -> np.ndarray:
        """Return an estimate of the negative ELBO of the rounded model in bits per example, `[n]`.

        It has one draw of each code, from independent bits: what the examples would cost if nothing else did. With
        `samples` it is that of the importance-weighted bound.
        """
        plain.check_examples("examples", symbols, self.event_shape, self.levels)
        generator, found = np.random.default_rng(seed), []
        for first in range(0, len(symbols), _BATCH):
            batch = symbols[first : first + _BATCH].astype(np.int64)
            tally = Tally(len(batch), Dice(generator))
            evaluate = Evaluation(self._networks, len(batch), self._at_once, certify=False)
            self._batch(evaluate, self._samples).push(tally, batch)
            found.append(tally.bits)
        return np.concatenate(found)

    def _part(self, symbols: np.ndarray) -> int:
        """Return of how many examples before it a batch is to have one: 2, or more where codes take many bits."""
        tally = Tally(len(symbols), Dice(np.random.default_rng(0)))
        evaluate = Evaluation(self._networks, len(symbols), self._at_once, certify=False)
        self._batch(evaluate, self._samples).push(tally, symbols.astype(np.int64))
        wanted = _SPARE * tally.taken.mean() / max(tally.bits.mean(), 1.0)
        return int(np.clip(np.ceil(wanted), 2, _MOST_PARTS - 1))

    def _batch(self, evaluate: Evaluation, samples: int) -> Codec:
        """Return the codec of a batch of examples by bits back."""
        prior = self._latents.prior(evaluate, len(evaluate.sure))

        def likelihood(code: Any) -> Codec:
            z = self._latents.codes(evaluate, code)
            if self._passes is not None:
                return self._in_passes(evaluate, z)
            numbers = evaluate(self._numbers, z)
            if self._logistic:
                return independent(elements.Logistics(numbers, self.levels))
            return independent(elements.Table.of(numbers))

        def posterior(x: np.ndarray) -> Codec:
            return self._latents.posterior(evaluate, x / (self.levels - 1))

        def choice(x: np.ndarray, codes: list[Any]) -> Codec:
            """Return the codec of which code is chosen, by the weight p(x, z) / q(z|x) of each."""
            weights, doubt = np.zeros((len(x), samples)), np.zeros((len(x), samples))
            unit = np.log(2) * tables.GRID
            for place, code in enumerate(codes):
                cost, back = Tally(len(x), Nothing()), Tally(len(x), Nothing())
                likelihood(code).push(cost, x)
                prior.push(cost, code)
                posterior(x).push(back, code)
                weights[:, place] = (back.bits - cost.bits) * unit
                doubt[:, place] = (back.error + cost.error) * unit
            doubt += 2.0**-50 * np.abs(weights)  # that of `unit`, of the difference and of the product
            rounded = np.rint(weights)
            evaluate.sure &= (np.abs(weights - rounded) < 0.5 - np.maximum(_DOUBT, 2 * doubt)).all(1)
            return independent(elements.Table.of(rounded.astype(np.int64), floor=0))

        if samples == 1:
            return bits_back(prior, likelihood, posterior)
        return monte_carlo_bits_back(prior, likelihood, posterior, choice, samples)

    def _in_passes(self, evaluate: Evaluation, z: np.ndarray) -> Codec:
        """Return the codec of examples whose elements come in passes, each given those before."""
        passes: Any = self._passes
        count = passes.max() + 1

        def of(found: np.ndarray, number: int) -> Codec:
            return independent(elements.Logistics(found[:, passes == number], self.levels))

        def push(bits: Bits, x: np.ndarray) -> None:
            found = evaluate(self._numbers, z, x / (self.levels - 1))  # of a pass it looks at those before alone
            for number in reversed(range(count)):
                of(found, number).push(bits, x[:, passes == number])

        def pop(bits: Bits) -> np.ndarray:
            x, decoded = np.zeros((len(z), *self.event_shape), np.int64), evaluate.keep(latents.decoded, z)
            for number in range(count):
                found = evaluate(_logistics_after, x / (self.levels - 1), kept=decoded)
                x[:, passes == number] = of(found, number).pop(bits)
            return x

        return Codec(push, pop)


def _sizes(levels: int, part: int) -> Iterator[tuple[int, Slices]]:
    """Yield the sizes of batches, the first one first, and in what slices each is pushed.

    Each has one example for `part` of those before it. A bit that is all but certain takes back nearly all that it
    gives, so bits are pushed in many slices whatever lies below them.
    """
    coded = 0
    while True:
        size = min(max(1, coded // max(part, 2)), _BATCH)
        yield size, LARGE if size == _BATCH and levels > 2 else SMALL
        coded += size


def _parts() -> Codec:
    return independent(elements.Uniform(_MOST_PARTS, (1,)))


def _sampled() -> Codec:
    return independent(elements.Table(_SAMPLES))


def _logistics(model: Any, params: Params, z: Any) -> Any:
    """Return weights, places and scales `[B, *event, 3 K]` in units of their grids."""
    found = latents.decoded(model, params, z)
    return _on_grids(found.logistics(), found.levels)


def _logistics_given(model: Any, params: Params, z: Any, x: Any) -> Any:
    """Return the same of elements that come in passes, given those before in `x` `[B, *event]`."""
    return _logistics_after(model, params, latents.decoded(model, params, z), x)


def _logistics_after(model: Any, params: Params, decoded: Any, x: Any) -> Any:
    return _on_grids(decoded.logistics_given(x), decoded.levels)


def _on_grids(logistics: Any, levels: int) -> Any:
    logits, loc, log_scale = logistics
    most = levels - 1
    logits = jax.nn.log_softmax(logits) * tables.GRID
    return jnp.concatenate(
        [logits, loc * (most * elements.LOC_GRID), (log_scale + np.log(most)) * tables.GRID], axis=-1
    )


def _log_masses(model: Any, params: Params, z: Any) -> Any:
    """Return log probabilities `[B, *event, levels]` in units of the grid."""
    return jax.nn.log_softmax(latents.decoded(model, params, z).log_masses()) * tables.GRID


def digest(model: Any, params: Params) -> str:
    """Return what tells a model and its weights from all others."""
    digest = hashlib.sha256(values.digest(model).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
