"""Members of a population: models that one program trains, and that differ in their seeds and in numbers of the run.

A number that differs is traced: it is put into the frozen value inside the program. Whether it is in its range is seen
before that, on the run of each member.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from aevae_jax import limits, suggestions
from aevae_jax.runs import resolution
from aevae_jax.runs.resolution import ResolvedRun
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

_PARTS = ("model", "objective", "optimizer")
"""The fields of a run that are used in compiled code alone."""


class Population(NamedTuple):
    """What the members of a population have of their own."""

    seeds: tuple[int, ...]
    """One per member."""
    fields: tuple[str, ...] = ()
    """Dotted paths of the numbers in which members differ, such as "objective.beta"."""
    numbers: tuple[tuple[float, ...], ...] = ()
    """One tuple per field, with one number per member."""

    @property
    def seeds_each(self) -> int:
        """How many seeds each combination of numbers has."""
        return len(set(self.seeds))

    def own(self, member: int) -> dict[str, float]:
        """Return the numbers of a member by field."""
        return {field: column[member] for field, column in zip(self.fields, self.numbers, strict=True)}

    def folder(self, member: int) -> str:
        """Return a name for the directory of a member, such as "beta=2,seed=3"."""
        short = [field.rpartition(".")[2] for field in self.fields]
        names = short if len(set(short)) == len(short) else self.fields
        own = [
            f"{name}={float(number)!r}".removesuffix(".0")
            for name, number in zip(names, self.own(member).values(), strict=True)
        ]
        return ",".join([*own, f"seed={self.seeds[member]}"])

    def name(self, member: int) -> str:
        """Return what tells a member from the others, such as "seed 3, objective.beta 4"."""
        own = [f", {field} {number:g}" for field, number in self.own(member).items()]
        return "".join([f"seed {self.seeds[member]}", *own])


def combine(run: Run, fields: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> tuple[Run, Population]:
    """Return the run of the first combination of numbers, and the population of all with all seeds: seed after seed of
    one combination, and then the next.

    Raises:
      InputError: an impossible seed, a field that does not exist or is no number, or a number that it cannot hold.
    """
    seeds = tuple(seeds)
    if not seeds or any(not 0 <= seed < 2**32 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise InputError("seeds", got=list(seeds), expected="at least one, each from 0 to 4294967295, each once")
    candidates = _candidates(run)
    for field, values in fields.items():
        if field not in candidates:
            raise _refusal(run, field)
        for value in values:
            limits.check(field, value, -limits.LARGEST, limits.LARGEST)
            try:
                _replaced(run, [field], [float(value)])
            except InputError as error:
                raise InputError(field, got=value, expected=error.expected, hint=error.hint) from None
        if not values or len(set(values)) < len(values):
            raise InputError(field, got=list(values), expected="at least one number, each once")
    combinations = list(itertools.product(*(map(float, values) for values in fields.values())))
    runs = [_replaced(run, list(fields), numbers) for numbers in combinations]
    members = [numbers for numbers in combinations for _ in seeds]
    return runs[0], Population(seeds * len(runs), tuple(fields), tuple(zip(*members, strict=True)))


def replaced(run: Run, population: Population, member: int) -> Run:
    """Return the run with the numbers of a member."""
    return _replaced(run, population.fields, [column[member] for column in population.numbers])


def mean_entry(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what is logged of an epoch of several members: means over them, and the sum of skipped steps."""

    def mean(part: str) -> dict[str, float | None]:
        columns = {name: [entry[part][name] for entry in entries] for name in entries[0][part]}
        return {name: None if None in column else float(np.mean(column)) for name, column in columns.items()}

    train, validation, skipped = mean("train"), mean("validation"), sum(entry["skipped"] for entry in entries)
    return {**entries[0], "train": train, "validation": validation, "skipped": skipped}


def check(resolved: ResolvedRun, fields: Sequence[str]) -> None:
    """Refuse numbers that no program can take as an input, since they decide what it computes.

    Raises:
      InputError: about the first such field.
    """
    if not _can_be_traced(resolved, fields):
        at_fault = (field for field in fields if not _can_be_traced(resolved, [field]))
        raise _refusal(resolved.run, next(at_fault, ", ".join(fields)), resolved)


def place(value: Any, fields: Sequence[str], numbers: Sequence[Any]) -> Any:
    """Return a frozen value with numbers in place of its own, which may be traced: nothing is checked."""
    return _placed(value, fields, numbers, _set)


def _replaced(value: Any, fields: Sequence[str], numbers: Sequence[float]) -> Any:
    """Return what `place` does, with the checks of every value that changes."""
    return _placed(value, fields, numbers, lambda part, name, new: dataclasses.replace(part, **{name: new}))


def _placed(value: Any, fields: Sequence[str], numbers: Sequence[Any], change: Callable[[Any, str, Any], Any]) -> Any:
    """Return a value with each number at its path, every part on the way made anew by `change`."""

    def put(part: Any, path: Sequence[str], number: Any) -> Any:
        return change(part, path[0], put(getattr(part, path[0]), path[1:], number)) if path else number

    for field, number in zip(fields, numbers, strict=True):
        value = put(value, field.split("."), number)
    return value


def _set(part: Any, name: str, new: Any) -> Any:
    """Return a copy of a frozen value with a field set, whose checks are not run."""
    changed = copy.copy(part)
    object.__setattr__(changed, name, new)
    return changed


def _candidates(run: Run) -> list[str]:
    """Return the paths of all fields that may hold a float."""

    def visit(value: Any, path: str) -> Iterator[str]:
        known: Any = getattr(type(value), "__dataclass_params__", None)
        if known is None or not known.frozen:
            return
        try:
            hints = typing.get_type_hints(type(value))
        except NameError:  # of a type that was made inside a function
            hints = {field.name: type(getattr(value, field.name)) for field in dataclasses.fields(value)}
        for field in dataclasses.fields(value):
            hint, inner = hints[field.name], f"{path}.{field.name}"
            union = typing.get_origin(hint) in (typing.Union, types.UnionType)
            if float in (typing.get_args(hint) if union else (hint,)):
                yield inner
            yield from visit(getattr(value, field.name), inner)

    return [path for part in _PARTS for path in visit(getattr(run, part), part)]


def _can_be_traced(resolved: ResolvedRun, fields: Sequence[str]) -> bool:
    def everything(numbers: Any, *inputs: Any) -> Any:
        run = place(resolved.run, fields, numbers)
        params, *rest = resolution.everything(run, resolved.prepared, *inputs)
        tx = run.optimizer.build(run.epochs)
        return rest, tx.update(params, tx.init(params), params)

    numbers = [jax.ShapeDtypeStruct((), "float32") for _ in fields]
    try:
        jax.eval_shape(everything, numbers, *resolution.first_inputs(resolved.run, resolved.prepared))
    except Exception:  # a number that is compared, hashed or rounded raises whatever its reader makes of it
        return False
    return True


def _refusal(run: Run, field: str, resolved: ResolvedRun | None = None) -> InputError:
    """Return the error that a field cannot be swept, with those that can."""
    candidates = [each for each in _candidates(run) if resolved is None or _can_be_traced(resolved, [each])]
    by_name = {each.rpartition(".")[2]: each for each in candidates}
    meant = by_name.get(suggestions.meant_by(field.rpartition(".")[2], list(by_name)))
    if meant:
        return InputError("sweep", got=field, expected="", hint=f"did you mean {meant}?")
    return InputError("sweep", got=field, expected=f"a number that can be traced: {', '.join(candidates) or 'none'}")
