"""How many codes of a book a trained model uses, and what to do about those that it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax import Array

from aevae_jax import conditions, values
from aevae_jax.conditions import Conditioned
from aevae_jax.data.datasets import Source
from aevae_jax.discrete import Indexed
from aevae_jax.evaluation import metrics
from aevae_jax.evaluation.findings import Finding, Trained, of_model
from aevae_jax.models.quantizers import Codebook
from aevae_jax.objectives import quantization
from aevae_jax.types import Distribution, LatentModel, Params

USED = 0.5
"""The share of codes in use, below which a book is larger than it has to be."""

ENOUGH = 10
"""Vectors for each code, from which on one that does not occur is said not to be in use."""

NOTHING = 1.5
"""A perplexity of codes that say nothing: hardly more than one is in use."""


def choices_of(model: LatentModel, params: Params, rows: Any) -> int:
    """Return how many codes there are to choose from; 0 where codes are not discrete. Nothing is computed.

    Args:
      model: any latent model.
      params: its parameters.
      rows: data as the model sees it, of which the shapes are looked at.
    """

    def posterior(params: Params, rows: Any) -> Distribution:
        own, x = conditions.bound_to(model, rows)
        return own.encode(params, x)

    q = jax.eval_shape(posterior, params, conditions.shapes(rows, 1))
    return q.choices if isinstance(q, Indexed) else 0


def look(
    fitted: Trained, x: Source | Conditioned, key: Array, choices: int
) -> tuple[dict[str, float], dict[str, list[Finding]]]:
    """Return how many codes are in use, and the faults that there are by their names, or no findings.

    Args:
      fitted: a trained model of discrete codes.
      x: examples as the model sees them, best those it was trained on.
      key: of the codes.
      choices: see `choices_of`.
    """
    index = metrics.per_example(_indices, fitted.model, fitted.params, x, key)["indices"]
    found = quantization.usage(index)
    measured = {**found, "codes": float(choices)}
    nothing = _nothing(found["perplexity"])
    return measured, {"posterior collapse": nothing, "dead codes": [] if nothing else _dead(fitted, index, choices)}


def _indices(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    q: Any = model.encode(params, x)
    return {"indices": q.indices(q.sample(key))}


def _nothing(perplexity: float) -> list[Finding]:
    """Return the finding that all examples have the same code, if so."""
    if perplexity >= NOTHING:
        return []
    evidence = f"the perplexity of the codes is {perplexity:.3g}: hardly more than one is in use, which says nothing"
    return [Finding("posterior collapse", evidence, "a lower learning rate, or fewer codes", {})]


def _dead(fitted: Trained, index: np.ndarray, choices: int) -> list[Finding]:
    """Return the finding that most codes are never used, if so."""
    used = quantization.usage(index)["codes_used"]
    if used >= USED * choices or index.shape[0] * index.shape[1] < ENOUGH * choices:
        return []
    evidence = f"{choices - used:.0f} of {choices} codes are not used by {len(index):,} examples"
    quantizer = getattr(fitted.run.model, "quantizer", None)
    if not isinstance(quantizer, Codebook):
        return [Finding("dead codes", evidence, "fewer codes are as good", {})]
    fewer = replace(quantizer, codes=2 ** max(1, int(used - 1).bit_length()))
    ways = [f"fewer codes are as good: quantizer={values.spell(fewer)} in --model"]
    if quantizer.revival == 0:
        fewer = replace(quantizer, revival=Codebook().revival)
        ways = [f"let them begin again: quantizer={values.spell(fewer)} in --model"]
    return [Finding("dead codes", evidence, ways[0], of_model(fitted, quantizer=fewer))]
