"""Checkpoints: all that a training needs to resume, durable once `save` returns, and refused when damaged.

`<step>/arrays/` is what Orbax wrote; `<step>/manifest.json` has notes, the digest of the run, the shape and type of
each array, and the size and sha256 of each file, as Orbax promises neither that bytes reach the disk nor that it reads
those it wrote. A name that ends in `.tmp` is no checkpoint: a killed process left it.

What several processes wrote together (see `together`) has format 2: `arrays/` holds the files of `pieces`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax import durable
from aevae_jax.checkpoints import array_files, manifests
from aevae_jax.checkpoints.pieces import Pieces
from aevae_jax.checkpoints.saving import DamageError, NonFiniteError, Saving
from aevae_jax.lazy import jax, np
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from jax import Array, ShapeDtypeStruct

_SLACK = 64 * 2**20
"""Bytes that files may take beyond four times those of the arrays in them."""

Region = tuple[slice, ...]
"""A block of an array: a slice along each axis."""

Place = Callable[[str, "ShapeDtypeStruct", Callable[[Region], Any]], Any]
"""(name, shape and type, what reads a region, in host memory) -> the array."""


def _whole(name: str, spec: ShapeDtypeStruct, read: Callable[[Region], Any]) -> Any:
    """Put an array on whichever device is the default, and not bound to it: else jit would compile all again."""
    return jax.device_put(read((slice(None),) * len(spec.shape)))


class Restored(NamedTuple):
    """What `Store.restore_newest` found; `damaged` has a message for each newer checkpoint that is not intact."""

    step: int
    arrays: dict[str, Array]
    notes: dict[str, Any]
    damaged: tuple[str, ...]


class Store:
    """The checkpoints of one run in `folder`. One process at a time may write there: see `aevae_jax.checkpoints.locks`.

    Args:
      folder: where they are; a link is refused, as it may lead to those of another run.
      run: the digest of the run, which each of them carries, and without which none is read; empty where they carry
        none. `None` reads those of any run.
    """

    def __init__(self, folder: Path, *, run: str | None = None):
        self.folder = folder.absolute()  # the process may change its working directory
        self._run = run
        self._known: dict[int, dict[str, Any]] = {}  # notes, for `retain`
        self._saved = -1

    def steps(self) -> list[int]:
        """Return steps whose save was completed, ascending; their files may have been damaged since."""
        return self._numbers(r"(0|[1-9][0-9]*)")

    def save(self, step: int, arrays: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
        """Write a checkpoint; once this returns it survives a crash of the machine. One of the same step is replaced.

        A process killed while it replaces one leaves the old or the new one, or, in the moment between two renames,
        neither: then `clean` brings the old one back.

        Args:
          step: at least 0.
          arrays: flat, names such as `state/params/encoder/Dense_0/kernel`; of JAX or NumPy, typed keys included.
          notes: what JSON can hold; `retain` says which have a meaning here.

        Raises:
          NonFiniteError: NaN or infinity in an array whose name does not start with `logged/`.
          InputError: NaN or infinity in the notes, or a file cannot be written. The other checkpoints are untouched.
        """
        if name := array_files.not_finite(arrays):  # nobody can resume from such numbers
            raise NonFiniteError(
                f"checkpoint of step {step}", got=f"NaN or infinity in {name}", expected="finite numbers"
            )
        with self.writing(step, arrays, notes) as folder:
            array_files.write_arrays(folder, arrays)

    @contextlib.contextmanager
    def writing(
        self, step: int, arrays: Mapping[str, Any], notes: Mapping[str, Any], *, pieces: bool = False
    ) -> Iterator[Path]:
        """Give a folder, to be made, for the files of a checkpoint, which exists and is durable once the block ends.

        Args:
          step: see `save`.
          arrays: of which the shapes and types are noted.
          notes: see `save`.
          pieces: whether they are written as `pieces.write` does.

        Raises:
          InputError: as `save`, and what the block raises. There is no such checkpoint then.
        """
        try:
            kept = json.loads(array_files.canonical(dict(notes)))
        except ValueError:
            raise InputError(
                f"checkpoint of step {step}", got="NaN or infinity in its notes", expected="finite numbers"
            ) from None
        self._known.pop(step, None)
        try:
            part = self._begin(step)
            yield part / "arrays"
            self._commit(step, arrays, kept, pieces=pieces)
        except BaseException as error:
            self._undo(step)
            if not isinstance(error, Exception) or isinstance(error, InputError):
                raise
            good, where = self.steps(), str(self.folder / str(step))
            hint = f"the last good one is step {good[-1]}" if good else "no checkpoint exists yet"
            raise InputError(
                "checkpoint",
                got=array_files.reason(error),
                expected="room and permission to write",
                where=where,
                hint=hint,
            ) from error
        self._saved = step

    def notes(self, step: int) -> dict[str, Any]:
        """Return the notes of a checkpoint, whose arrays are not looked at.

        Raises:
          DamageError: the manifest is missing or not the one that was written.
          OtherRunError: it is another run's.
          InputError: a newer version wrote it.
        """
        return manifests.read(self.folder / str(step), self._run)["notes"]

    def check(self) -> None:
        """Refuse to resume where one of the checkpoints is another run's; damaged ones may be anybody's.

        Raises:
          OtherRunError: there is one.
        """
        for step in self.steps():
            with contextlib.suppress(DamageError):
                self.notes(step)

    def restore(
        self, step: int, like: Mapping[str, ShapeDtypeStruct], *, partial: bool = False, place: Place = _whole
    ) -> dict[str, Array]:
        """Return the arrays of a checkpoint, bit for bit. Every file is checked before any is used; of one that is in
        pieces, each piece that is read.

        Args:
          step: one of `steps()`.
          like: the shape and type of each array; of typed keys, theirs.
          partial: whether it may hold others, too, which are not read.
          place: makes each array of what it reads; by default whole, on the first device.

        Raises:
          DamageError: what is on disk is not what was written.
          OtherRunError: it is another run's.
          InputError: it is intact, but holds other arrays than `like`.
        """
        folder = self.folder / str(step)
        manifest, path = manifests.read(folder, self._run), folder / "arrays"
        try:
            found, listed = array_files.walk(path), manifest["files"]
            sizes, pieces = {name: size for name, (size, _) in listed.items()}, None
            if manifest["format"] == manifests.IN_PIECES:
                pieces = Pieces(path, listed, found)
                sizes |= pieces.sizes
            if name := array_files.difference(found, sizes):
                raise ValueError(f"{found.get(name, 'no')} bytes in arrays/{name}, not as in manifest.json")
            saved, wanted = manifest["arrays"], array_files.signatures(like)
            if partial:
                saved = {name: entry for name, entry in saved.items() if name in wanted}
            if name := array_files.difference(saved, wanted):
                got, expected = saved.get(name, "nothing"), f"{wanted.get(name, 'nothing')}, as in run.json"
                raise InputError(
                    f"checkpoint of step {step}",
                    got=f"{got} for {name}, of another model",
                    expected=expected,
                    where=str(path.parent),
                )
            raw = {name: array_files.raw(spec) for name, spec in like.items()}
            most = 4 * sum(spec.size * spec.dtype.itemsize for spec, _ in raw.values()) + _SLACK
            if not partial and sum(found.values()) > most:
                raise ValueError("files much larger than the arrays in them")
            specs = {name: spec for name, (spec, _) in raw.items()}
            arrays: dict[str, Any] = {}
            if pieces is None:
                for name in found:
                    if array_files.digest(path / name) != listed[name][1]:
                        raise ValueError(f"bytes of arrays/{name} that do not match their sha256")
                arrays = array_files.read_arrays(path, specs, partial=partial)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # a damaged file may make Orbax raise anything
            raise manifests.damage(folder, array_files.reason(error)) from error

        def read(name: str, region: Region) -> Any:
            try:
                return np.asarray(arrays[name][region]) if pieces is None else pieces.read(name, specs[name], region)
            except (ValueError, TypeError, OSError, AttributeError) as error:
                raise manifests.damage(folder, array_files.reason(error)) from error

        placed = {name: place(name, spec, functools.partial(read, name)) for name, spec in specs.items()}
        return {
            name: array if raw[name][1] is None else jax.random.wrap_key_data(array, impl=raw[name][1])
            for name, array in placed.items()
        }

    def restore_newest(
        self,
        like: Callable[[int, dict[str, Any]], Mapping[str, ShapeDtypeStruct]],
        *,
        until: int | None = None,
        partial: bool = False,
        place: Place = _whole,
        agreed: Callable[[str], str] = lambda damage: damage,
    ) -> Restored | None:
        """Return the newest checkpoint that is intact, and what is wrong with newer ones, which are left as they are.

        Args:
          like: of a step and its notes, the shape and type of each array. What it raises is not caught.
          until: the newest step to consider.
          partial: see `restore`.
          place: see `restore`.
          agreed: of what is wrong with a checkpoint, "" for nothing, what is to count as wrong with it.

        Returns:
          None if there is no checkpoint, intact or not.

        Raises:
          DamageError: there are checkpoints, and none is intact.
          OtherRunError: the newest that is intact is another run's.
          InputError: it holds other arrays than `like` says.
        """
        damaged: list[str] = []
        for step in reversed([step for step in self.steps() if until is None or step <= until]):
            try:
                notes = self.notes(step)
                arrays, wrong = self.restore(step, like(step, notes), partial=partial, place=place), ""
            except DamageError as error:
                wrong = str(error)
            if not (wrong := agreed(wrong)):
                return Restored(step, arrays, notes, tuple(damaged))
            damaged.append(wrong)
        if not damaged:
            return None
        raise DamageError(
            "checkpoints",
            got=f"{len(damaged)} of {len(damaged)} damaged, the newest: {damaged[0]}",
            expected="one that is intact",
            hint="start over with --fresh",
        )

    def retain(self, saving: Saving) -> None:
        """Delete what `saving` does not keep; the checkpoint that this object wrote last is always kept.

        The best have the lowest `value` in their notes, beside an `epoch`; of equals, the older. For good are kept
        those with `boundary: true` at an `epoch` that `every` divides. One with a damaged manifest is only kept for
        being new.

        Raises:
          InputError: a file cannot be deleted.
        """
        steps = self.steps()
        notes = {step: known for step in steps if "epoch" in (known := self._notes_once(step))}
        values = sorted((known["value"], step) for step, known in notes.items() if known.get("value") is not None)
        epochs = {step: known["epoch"] for step, known in notes.items() if known.get("boundary") is True}
        kept = {*steps[-saving.last :], *(step for _, step in values[: saving.best]), self._saved}
        kept |= {step for step, epoch in epochs.items() if saving.every and epoch > 0 and epoch % saving.every == 0}
        self.discard(step for step in steps if step not in kept)

    def discard(self, steps: Iterable[int]) -> None:
        """Delete the checkpoints of these steps, where they exist.

        Raises:
          InputError: a file cannot be deleted.
        """
        with self._files():
            gone = [step for step in sorted(set(steps)) if os.path.lexists(self.folder / str(step))]
            for step in gone:  # renamed first: what is half deleted must not look like a damaged checkpoint
                array_files.remove(self.folder / f"{step}.gone.tmp")
                (self.folder / str(step)).rename(self.folder / f"{step}.gone.tmp")
            if gone:
                durable.sync(self.folder)
            for step in gone:
                array_files.remove(self.folder / f"{step}.gone.tmp")

    def clean(self) -> None:
        """Remove what a killed process left, and bring back a checkpoint that it was about to replace.

        Raises:
          InputError: a file cannot be deleted.
        """
        with self._files():
            for step in self._numbers(r"(0|[1-9][0-9]*)(?:\.old|\.gone)?\.tmp"):
                self._tidy(step)

    def _begin(self, step: int) -> Path:
        """Return an empty folder for a checkpoint that is not complete."""
        part = self.folder / f"{step}.tmp"
        if not self._exists():
            self.folder.mkdir()  # and not its parents: if the run's directory is gone, somebody removed it
            durable.sync(self.folder.parent)
        self._tidy(step)
        part.mkdir()
        (part / "manifest.json").touch()
        return part

    def _commit(self, step: int, arrays: Mapping[str, Any], notes: dict[str, Any], *, pieces: bool) -> None:
        """Give a checkpoint its manifest and its name."""
        final, part, old = (self.folder / f"{step}{suffix}" for suffix in ("", ".tmp", ".old.tmp"))
        form = manifests.IN_PIECES if pieces else manifests.WHOLE
        described = array_files.signatures(arrays)
        manifests.write(part, form=form, step=step, run=self._run, arrays=described, notes=notes)
        for path in (*part.rglob("*"), part):
            durable.sync(path)
        if os.path.lexists(final):
            final.rename(old)
        part.rename(final)
        durable.sync(self.folder)
        array_files.remove(old)

    def _undo(self, step: int) -> None:
        """Leave no trace of a save that failed, as far as that is possible."""
        with contextlib.suppress(OSError):
            anew = not (self.folder / f"{step}.tmp" / "manifest.json").exists()
            self._tidy(step)
            for path in (self.folder, self.folder.parent) if anew else ():
                path.rmdir()  # only what is empty: a run's directory that was removed, and that Orbax made again

    def _tidy(self, step: int) -> None:
        """Remove what was begun with this step and not completed."""
        final, old = self.folder / str(step), self.folder / f"{step}.old.tmp"
        if os.path.lexists(old) and not os.path.lexists(final):
            old.rename(final)
        for suffix in (".tmp", ".old.tmp", ".gone.tmp"):
            array_files.remove(self.folder / f"{step}{suffix}")

    def _notes_once(self, step: int) -> dict[str, Any]:
        """Return its notes, read once; none where the manifest is damaged."""
        if step not in self._known:
            try:
                self._known[step] = self.notes(step)
            except InputError:
                self._known[step] = {}
        return self._known[step]

    def _numbers(self, pattern: str) -> list[int]:
        """Return the steps in names that match, ascending."""
        with self._files():
            names = os.listdir(self.folder) if self._exists() else []
            return sorted({int(match[1]) for name in names if (match := re.fullmatch(pattern, name))})

    def _exists(self) -> bool:
        """Return whether there is a directory; refuses anything else in its place."""
        try:
            mode = self.folder.lstat().st_mode
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(mode):
            raise InputError(
                "checkpoints",
                got="a link" if stat.S_ISLNK(mode) else "a file",
                expected="a directory",
                where=str(self.folder),
                hint="remove it, or start over with --fresh",
            )
        return True

    @contextlib.contextmanager
    def _files(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                "checkpoints",
                got=error.strerror,
                expected="a directory to read and to write in",
                where=str(self.folder),
            ) from None
