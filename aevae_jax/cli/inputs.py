"""What commands give to a model: rows of its data or of a file, with what it is told of each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from aevae_jax import evaluation, limits, values
from aevae_jax.cli import overview
from aevae_jax.cli.evaluate import prepared_of
from aevae_jax.cli.terminal import note
from aevae_jax.data import Data, Format, files
from aevae_jax.lazy import modules, np
from aevae_jax.runs import records
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax import conditions, keys
    from aevae_jax.conditions import Conditioned
    from aevae_jax.data import Source
    from aevae_jax.models import generation
    from aevae_jax.runs.fitting import Fitted
else:
    conditions, keys = modules("aevae_jax", "conditions", "keys")
    generation = modules("aevae_jax.models", "generation")

Part = Literal["train", "validation", "test"]
Condition = Annotated[str, "--condition CONDITION"]

NONE = "none"
"""What is typed for no condition."""


def format_of(directory: Path) -> Format:
    """Return what `run.json` says of the form of the training data."""
    return values.from_tree(Format, records.read_record(directory)["format"], f"{directory}, format")


def read(
    directory: Path, fitted: Fitted, path: Path | None, split: Part | None, *, data: str, condition: str
) -> tuple[Source | Conditioned, list[str]]:
    """Return what a model is to see, with what it is told of it, and the names of its classes, where there are any: a
    file or folder of the user's, or a part of the run's data, which may have moved. Classes that a model infers are
    those that it finds most probable.

    Raises:
      InputError: not one of both, or a condition that is missing, or that the run's own data have.
    """
    check_one(path, split)
    if path is not None:
        x = files.read_images(path, fitted.model, fitted.run.data, format_of(directory), note=note)
        infers = not condition and isinstance(fitted.model, conditions.Inferring)
        told = np.full(len(x), -1, np.int32) if infers else condition_of(directory, fitted, condition, len(x))
        rows = _inferred(fitted, conditions.beside(x, told))
        return rows, names_told(directory, conditions.condition_of(rows))
    if condition:
        expected = "an --input, as the run's own data have theirs"
        raise InputError("--condition", got=f"{condition} for --split {split}", expected=expected)
    prepared = prepared_of(directory, fitted.run, data)
    return _inferred(fitted, prepared.rows(str(split), keys.root(0))), prepared.classes(str(split))


def _inferred(fitted: Fitted, rows: Any) -> Any:
    """Return rows with the most probable class where a label is missing, of a model that infers it; else as they
    are.
    """
    if not isinstance(fitted.model, conditions.Inferring):
        return rows
    label = conditions.parts(rows.condition)["label"]
    if (label >= 0).all():
        return rows
    found = evaluation.per_example(_most_probable, fitted.model, fitted.params, rows.x, keys.root(0))["class"]
    return conditions.Conditioned(rows.x, np.where(label < 0, found, label).astype(np.int32))


def _most_probable(model: Any, params: Any, x: Any, key: Any) -> dict[str, Any]:
    return {"class": model.log_classes(params, x).argmax(axis=1)}


def check_one(path: Path | None, split: Part | None) -> None:
    """Refuse both of a file and a part of the run's data, and neither."""
    if (path is None) == (split is None):
        given = "neither --input nor --split" if path is None else "--input and --split"
        raise InputError("input", got=given, expected="one of them", hint="such as: --split test")


def check_files(
    run: Path, out: Path, suffixes: tuple[str, ...] = files.DATA, *, force: bool, inputs: Path | None = None
) -> None:
    """Refuse what can be seen before JAX is imported: files and directories that are not there, or are."""
    files.check_output(out, suffixes, force=force)
    if inputs is not None:
        files.check_input(inputs)
    overview.check_run(run)
    files.check_contents(out, format_of(run))


def class_names(directory: Path) -> list[str]:
    """Return the names of the classes that a conditional run was told, by their numbers; none where it was told none.

    Raises:
      InputError: the record has another thing in their place.
    """
    names = records.read_record(directory)["provenance"]["data"].get("class_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(records.RECORD, where=str(directory), got="other class names", expected="a list of texts")
    return names


def names_told(directory: Path, told: Any) -> list[str]:
    """Return the name of the class of each example that a model is told; nothing where it is told no class."""
    label = None if told is None else conditions.parts(told).get("label")
    names = class_names(directory)
    called = {-1: NONE, **dict(enumerate(names))}
    return [] if label is None else [called.get(code, str(code)) for code in label.tolist()]


def condition_of(directory: Path, fitted: Fitted, text: str, count: int, *, in_turn: bool = False) -> Any:
    """Return what a model is told of `count` examples, as it was typed: the same of each; `None` of a plain model.

    Args:
      directory: of the run.
      fitted: the run.
      text: the name or the number of a class; the numbers of a vector, with commas between; of both, the class first;
        "none" where the model has learned to do without.
      count: how many examples.
      in_turn: whether the classes in turn are meant where nothing was typed and the model is told a class alone.

    Raises:
      InputError: a condition that is missing, of another kind, or that the model does not know.
    """
    model: Any = fitted.model
    family = type(model).__name__
    if not isinstance(model, conditions.Conditional):
        if text:
            raise InputError("--condition", got=text, expected=f"none: a {family} is told nothing")
        return None
    if not isinstance(model, conditions.ConditionShaped):
        raise InputError("--condition", got=text or "none", expected="conditions from Python, for a model of one's own")
    if not text and in_turn and not model.vector:
        return (np.arange(count) % model.classes).astype(np.int32)
    if not text and model.classes and model.vector:
        expected = f"a class and {model.vector} numbers after it, with commas between"
        raise InputError("--condition", got="none", expected=expected)
    names = class_names(directory)
    if text == NONE and NONE not in names:
        _check_without(model, fitted.run.data)
        return conditions.none(model, count)
    entries = text.split(",") if model.vector else [text]
    told: dict[str, Any] = {}
    if model.classes:
        told["label"] = np.full(count, _class(entries.pop(0).strip(), names, model.classes), np.int32)
    if model.vector:
        told["vector"] = np.tile(_numbers(entries, model.vector, bool(model.classes)), (count, 1))
    return told if len(told) > 1 else next(iter(told.values()))


def guided(fitted: Fitted, weight: float, text: str, names: Sequence[str]) -> Fitted:
    """Return a run whose model is guided: see `generation.Guided`; the run itself where the weight is 0.

    Args:
      fitted: the run.
      weight: as it was typed.
      text: of the condition, as it was typed.
      names: of the classes.

    Raises:
      InputError: a weight that is none, or nothing to be led towards.
    """
    limits.check("--guidance", weight, -1.0, limits.LARGEST)
    if weight and text == NONE and NONE not in names:
        raise InputError("--guidance", got=f"{weight:g} for --condition none", expected="a condition to be led towards")
    return fitted._replace(model=generation.Guided(fitted.model, weight)) if weight else fitted


def _check_without(model: Any, data: Data) -> None:
    """Refuse to tell nothing to a model that was always told something."""
    drops = isinstance(model, conditions.DropsConditions)
    hidden = data.hidden_labels > 0 or data.labels_per_class > 0
    if not drops or not (model.drop > 0 or (hidden and not model.vector)):
        what = "a class" if model.classes else "a vector"
        expected = f"{what}: this {type(model).__name__} has not learned to do without"
        raise InputError("--condition", got=NONE, expected=expected, hint="train with drop=0.1" if drops else "")


def _class(text: str, names: Sequence[str], classes: int) -> int:
    """Return the number of a class by its name, or else by its number."""
    if text in names:
        return names.index(text)
    if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < classes:
        return int(text)
    known = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    raise InputError("--condition", got=text or "none", expected=f"a class: {known or f'0 to {classes - 1}'}")


def _numbers(entries: Sequence[str], size: int, after_class: bool) -> Any:
    """Return the entries of a vector, float32."""
    try:
        numbers = [float(entry) for entry in entries]
    except ValueError:
        numbers = []
    if len(numbers) != size or not all(map(math.isfinite, numbers)):
        expected = f"{'a class and ' if after_class else ''}{size} numbers, with commas between"
        raise InputError("--condition", got=",".join(entries) or "none", expected=expected)
    return np.array(numbers, np.float32)


def between(ends: Source | Conditioned, steps: int) -> Any:
    """Return what a model is told on the way from one example to another: the class of the nearer one, and a vector on
    the straight line; `None` of plain rows.

    Args:
      ends: the two examples.
      steps: how many, the two ends included.
    """
    told = conditions.condition_of(ends)
    if told is None:
        return None
    share = np.linspace(0.0, 1.0, steps)
    nearer = (share >= 0.5).astype(int)
    return {
        name: known[nearer] if name == "label" else _line(known, share)
        for name, known in conditions.parts(told).items()
    }


def captions_between(told: Any, ends: Sequence[Any], steps: int) -> tuple[list[str], str]:
    """Return what stands below two examples and what is made on the way from one to the other; and what a title says of
    what the model is told there.

    Args:
      told: what `between` returns.
      ends: what the two are called; where the model is told a class, theirs.
      steps: how many.
    """
    label = None if told is None else told.get("label")
    of_class = [""] * steps if label is None else [f"\n{ends[int(own != label[0])]}" for own in label]
    shares = [f"{share:.2f}{own}" for share, own in zip(np.linspace(0, 1, steps), of_class, strict=True)]
    remark = "" if told is None else " at conditions between" if label is None else " at the class written below"
    return [f"input\n{ends[0]}", *shares, f"input\n{ends[1]}"], remark


def _line(ends: Any, share: Any) -> Any:
    return ((1 - share[:, None]) * ends[0] + share[:, None] * ends[1]).astype(np.float32)
