"""Checkpoints: all that a training needs to resume, durable once `save` returns, and refused when damaged.

`<step>/arrays/` is what Orbax wrote; `<step>/manifest.json` has notes, the digest of the run, the shape and type of
each array, and the size and sha256 of each file, as Orbax promises neither that bytes reach the disk nor that it reads
those it wrote. A name that ends in `.tmp` is no checkpoint: a killed process left it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax import durable
from aevae_jax.checkpoints import array_files
from aevae_jax.checkpoints.saving import DamageError, NonFiniteError, OtherRunError, Saving
from aevae_jax.lazy import jax
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from jax import Array, ShapeDtypeStruct

_FORMAT = 1
_SLACK = 64 * 2**20
"""Bytes that a manifest may take, and that files may take beyond four times those of the arrays in them."""


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
        try:
            kept = json.loads(array_files.canonical(dict(notes)))
        except ValueError:
            raise InputError(
                f"checkpoint of step {step}", got="NaN or infinity in its notes", expected="finite numbers"
            ) from None
        self._known.pop(step, None)
        try:
            self._write(step, arrays, kept)
        except BaseException as error:
            self._undo(step)
            if not isinstance(error, Exception):
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
        return self._manifest(step)["notes"]

    def check(self) -> None:
        """Refuse to resume where one of the checkpoints is another run's; damaged ones may be anybody's.

        Raises:
          OtherRunError: there is one.
        """
        for step in self.steps():
            with contextlib.suppress(DamageError):
                self.notes(step)

    def restore(self, step: int, like: Mapping[str, ShapeDtypeStruct], *, partial: bool = False) -> dict[str, Array]:
        """Return the arrays of a checkpoint, bit for bit, on the first device. Every file is checked before any is
        used.

        Args:
          step: one of `steps()`.
          like: the shape and type of each array; of typed keys, theirs.
          partial: whether it may hold others, too, which are not read.

        Raises:
          DamageError: what is on disk is not what was written.
          OtherRunError: it is another run's.
          InputError: it is intact, but holds other arrays than `like`.
        """
        manifest, path = self._manifest(step), self.folder / str(step) / "arrays"
        try:
            found, listed = array_files.walk(path), manifest["files"]
            if name := array_files.difference(found, {name: size for name, (size, _) in listed.items()}):
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
            for name in found:
                if array_files.digest(path / name) != listed[name][1]:
                    raise ValueError(f"bytes of arrays/{name} that do not match their sha256")
            specs = {name: spec for name, (spec, _) in raw.items()}
            arrays = array_files.read_arrays(path, specs, partial=partial)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # a damaged file may make Orbax raise anything
            raise self._damage(step, array_files.reason(error)) from error
        # to whichever device is the default here, and not bound to it: else jit would compile all again
        placed = {name: jax.device_put(array) for name, array in arrays.items()}
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
    ) -> Restored | None:
        """Return the newest checkpoint that is intact, and what is wrong with newer ones, which are left as they are.

        Args:
          like: of a step and its notes, the shape and type of each array. What it raises is not caught.
          until: the newest step to consider.
          partial: see `restore`.

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
                return Restored(step, self.restore(step, like(step, notes), partial=partial), notes, tuple(damaged))
            except DamageError as error:
                damaged.append(str(error))
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

    def _write(self, step: int, arrays: Mapping[str, Any], notes: dict[str, Any]) -> None:
        final, part, old = (self.folder / f"{step}{suffix}" for suffix in ("", ".tmp", ".old.tmp"))
        if not self._exists():
            self.folder.mkdir()  # and not its parents: if the run's directory is gone, somebody removed it
            durable.sync(self.folder.parent)
        self._tidy(step)
        part.mkdir()
        (part / "manifest.json").touch()
        array_files.write_arrays(part / "arrays", arrays)
        files = {
            name: (size, array_files.digest(part / "arrays" / name))
            for name, size in array_files.walk(part / "arrays").items()
        }
        manifest = {
            "format": _FORMAT,
            "step": int(step),
            "notes": notes,
            **({"run": self._run} if self._run else {}),
            "arrays": array_files.signatures(arrays),
            "files": files,
        }
        digest = hashlib.sha256(array_files.canonical(manifest)).hexdigest()
        with (part / "manifest.json").open("r+b") as file:  # fails if the directory was removed and Orbax made it anew
            file.write(array_files.canonical({**manifest, "sha256": digest}))
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

    def _manifest(self, step: int) -> dict[str, Any]:
        """Return what `_write` put in the manifest, if it is there byte for byte."""
        folder = self.folder / str(step)
        try:
            file = (folder / "manifest.json").lstat()
            if not (stat.S_ISDIR(folder.lstat().st_mode) and stat.S_ISREG(file.st_mode) and file.st_size <= _SLACK):
                raise ValueError("a link or something else in the place of manifest.json")
            text = (folder / "manifest.json").read_bytes()
            manifest = json.loads(text)
            digest = hashlib.sha256(
                array_files.canonical({n: part for n, part in manifest.items() if n != "sha256"})
            ).hexdigest()
            if manifest["sha256"] != digest or array_files.canonical(manifest) != text:
                raise ValueError("a manifest.json that does not match its sha256")
            if manifest["format"] == _FORMAT and (manifest["step"] != step or not isinstance(manifest["notes"], dict)):
                raise ValueError(f"the manifest.json of step {manifest['step']}")
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise self._damage(step, array_files.reason(error)) from None
        if manifest["format"] != _FORMAT:
            raise InputError(
                f"checkpoint of step {step}",
                got=f"format {manifest['format']}",
                where=str(folder),
                expected=f"format {_FORMAT}",
                hint="use the version that wrote it",
            )
        if self._run is not None and manifest.get("run", "") != self._run:
            raise OtherRunError(
                f"checkpoint of step {step}",
                got="that of another run",
                where=str(folder),
                expected=f"one of the run in {self.folder.parent / 'run.json'}",
                hint="remove it, or start over with --fresh",
            )
        return manifest

    def _damage(self, step: int, got: str) -> DamageError:
        where = str(self.folder / str(step))
        return DamageError(f"checkpoint of step {step}", got=got, expected="intact files", where=where)

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
