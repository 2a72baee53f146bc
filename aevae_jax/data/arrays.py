"""Arrays in files: .npy, .npz, idx files as those of MNIST, and folders of .npy files.

Nothing is unpickled, and what a header claims is compared with the size of the file before any memory is taken. Raw
files of more than `datasets.RESIDENT_BYTES` stay where they are and are read as rows are asked for; what is compressed
is expanded into memory, up to `MAX_BYTES` and what is free.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import shlex
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.lib import format

from aevae_jax import durable, memory
from aevae_jax.data import datasets, rows
from aevae_jax.data.checks import as_source, check_factors, check_labels
from aevae_jax.data.datasets import Factor, Source, Split, levels_of
from aevae_jax.data.rows import inside, reading, refused
from aevae_jax.data.splits import Found
from aevae_jax.types import InputError, shortened

MAX_BYTES = 2**34
"""A compressed file may expand to at most 16 GiB."""

MAX_RATIO = 100
"""What expands to more than `SMALL_BYTES` may be at most this many times larger than it is compressed."""

SMALL_BYTES = 2**24
"""Up to 16 MiB any ratio will do: sorted labels and blank images compress a thousandfold."""

_WORDS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test", "t10k")}
_EXPECTED = "train, validation, test or x_train, y_train, ...; or one array, or images and labels"

Name = tuple[str, str]
"""A part, such as train, and "images", "labels" or "factors"."""


# -------------------------------------------------------------------------------------------------------- whole files


def read_npy(path: Path) -> Found:
    """Return one array, `[N, D]`, `[N, H, W]` or `[N, H, W, C]`: the training data.

    Raises:
      InputError: not an intact .npy file of numbers, another size than its header claims, or types and shapes that
        `checks.as_source` refuses.
    """
    x = as_source(rows.read_npy(path), str(path))
    return Found({"train": Split(x)}, levels_of(x))


def read_npy_folder(folder: Path) -> Found:
    """Return `train.npy`, and whichever of `validation.npy`, `test.npy` and `train_labels.npy`, ... there are.

    Names are as in `read_npz`; links must stay inside the folder.

    Raises:
      InputError: names of another kind, or files that `read_npy` refuses.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.npy")) if not path.name.startswith(".")}
    return _found(_named(files, folder), lambda name: rows.read_npy(inside(files[name], folder)), folder)


def read_npz(path: Path) -> Found:
    """Return arrays called `train`, `x_train` or `train_images` and alike for `validation` (`valid`, `val`) and `test`,
    each with `y_train` or `train_labels` where there are labels; or `images`, `x` or `data` with `labels` or `y`; or
    one array of any name. `factors`, integers `[N, F]`, are those that training data were made of. Capitals do not
    matter. Other arrays of Python objects are passed over.

    Raises:
      InputError: arrays of other names, a damaged or encrypted archive, one that expands too far (see `MAX_BYTES`,
        `MAX_RATIO`), or arrays that `read_npy` would refuse.
    """
    with _archive(path) as archive:
        members = {_stem(info, path): info for info in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise refused(path, "two arrays of one name", "a name for each")
        foreign = [n for n, info in members.items() if n.lower() not in _KNOWN and _holds_objects(archive, info)]
        if len(foreign) < len(members):
            members = {name: info for name, info in members.items() if name not in foreign}
        _check_expansion(_sizes(members.values()), path)
        names = {("train", "images"): next(iter(members))} if len(members) == 1 else _named(members, path)
        return _found(names, lambda name: _member(archive, members[name], f"{path}: {name}"), path)


def read_array(path: Path, name: str) -> Source:
    """Read one array of numbers `[N, ...]`: that of a .npy file, or of .npz its only one or the one called `name`.

    Raises:
      InputError: as `read_npy` and `read_npz`, but for types and shapes.
    """
    return rows.read_npy(path) if path.suffix.lower() == ".npy" else read_named(path, name)[1]


def read_named(path: Path, name: str, option: str = "") -> tuple[str, Source, list[str]]:
    """Read the only array of an .npz file, or the one called `name`: what it is called, the array, and the others.

    Args:
      path: where it is.
      name: of an array.
      option: what takes another name, to be typed where there is none of this.

    Raises:
      InputError: as `read_npz`, but for types and shapes.
    """
    with _archive(path) as archive:
        names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
        members = dict(zip(names, archive.infolist(), strict=True))
        chosen = names[0] if len(names) == 1 else name
        if names.count(chosen) != 1:
            hint = f"add {option} {shlex.quote(shortened(names[0], 40))}" if option and names else ""
            raise refused(path, ", ".join(names) or "no arrays", f"one array, or one called {name!r}", hint)
        _stem(members[chosen], path)
        _check_expansion(_sizes([members[chosen]]), path)
        others = [each for each in names if each != chosen]
        return chosen, _member(archive, members[chosen], f"{path}: {chosen}"), others


def is_idx_folder(folder: Path) -> bool:
    """Return whether there are files here that are called as MNIST's files of images are."""
    return any(kind == "images" for _, kind in map(_idx_name, _idx_files(folder)))


def read_idx(folder: Path) -> Found:
    """Return files of MNIST and its relatives: `train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte` and alike, gzip or
    not.

    A name with the word train is of the training data, one with t10k or test of the test data. Where a file lies here
    both unpacked and as .gz, the first is read. Links must stay inside the folder.

    Raises:
      InputError: two files for one part, a file that is truncated, damaged or goes on after its last image, a wrong
        magic number, a header that claims more than the file has, or labels of another number.
    """
    names: dict[Name, str] = {}
    for path in _idx_files(folder):
        part, kind = _idx_name(path)
        if not part:
            raise refused(path, "a name without train, t10k or test", "one of them")
        _add(names, (part, kind), path.name, folder)
    for path in sorted(filter(Path.is_dir, folder.iterdir())):  # some archives unpack to one beside each file
        if _IDX.fullmatch(path.name) and _idx_name(path) not in names:
            raise refused(path, "a folder", "a file")
    return _found(names, lambda name: _idx(inside(folder / name, folder)), folder)


def read_idx_images(path: Path) -> Source:
    """Read one idx file of images, `[N, H, W]`, gzip or not, of any name. Raises `InputError` as `read_idx`."""
    return _idx(path, "images")


# -------------------------------------------------------------------------------------------------------------- names


def _known_names() -> dict[str, Name]:
    known: dict[str, Name] = {}
    for part, words in _WORDS.items():
        for word in words:
            known |= dict.fromkeys((word, f"x_{word}", f"{word}_x", f"{word}_images"), (part, "images"))
            known |= dict.fromkeys((f"y_{word}", f"{word}_y", f"{word}_labels"), (part, "labels"))
    known |= {"factors": ("train", "factors")} | dict.fromkeys(("images", "x", "data"), ("train", "images"))
    return known | dict.fromkeys(("labels", "y"), ("train", "labels"))


_KNOWN = _known_names()
"""Which array is what, by its name in small letters."""


def _named(names: Iterable[str], where: Path) -> dict[Name, str]:
    """Return which array is what, by its name; all must be known."""
    chosen: dict[Name, str] = {}
    for name in names:
        if name.lower() not in _KNOWN:
            raise refused(where, f"arrays called {', '.join(names)}", _EXPECTED)
        _add(chosen, _KNOWN[name.lower()], name, where)
    return chosen


def _add(chosen: dict[Name, str], key: Name, name: str, where: Path) -> None:
    if key in chosen:
        raise refused(where, f"{chosen[key]} and {name}", f"one for {' '.join(key)}")
    chosen[key] = name


_IDX = re.compile(r"(?!\.).*(?:images.*idx3|labels.*idx1).*ubyte.*", re.IGNORECASE)


def _idx_files(folder: Path) -> list[Path]:
    """Return files that are called as idx files are, each once."""
    with reading(folder, "a folder that can be read"):
        paths = sorted(path for path in folder.iterdir() if _IDX.fullmatch(path.name) and not path.is_dir())
    return [path for path in paths if path.suffix.lower() != ".gz" or path.with_suffix("") not in paths]


def _idx_name(path: Path) -> Name:
    """Return part and kind of an idx file; the part is empty where its name does not say."""
    words = set(re.split("[^a-z0-9]+", path.name.lower()))
    part = next((part for part, known in _WORDS.items() if words & set(known)), "")
    return part, "images" if "idx3" in path.name.lower() else "labels"


def _found(names: Mapping[Name, str], load: Callable[[str], Source], where: Path) -> Found:
    """Return the parts under `names`, each read by `load(name)`."""
    parts: dict[str, Split] = {}
    for part in datasets.PARTS:
        images, labels = names.get((part, "images")), names.get((part, "labels"))
        if images is not None:
            x = as_source(load(images), f"{where}: {images}")
            parts[part] = Split(x, None if labels is None else check_labels(load(labels), x, f"{where}: {labels}"))
        elif labels is not None:
            raise refused(where, f"{labels} alone", f"the {part} images as well")
    if "train" not in parts:
        raise refused(where, ", ".join(names.values()) or "no arrays", _EXPECTED)
    x, made_of = parts["train"].x, names.get(("train", "factors"))
    if made_of is None:
        return Found(parts, levels_of(x))
    values, known = _factors(load(made_of), x, f"{where}: {made_of}")
    parts["train"] = replace(parts["train"], factors=values)
    return Found(parts, levels_of(x), factors=known)


def _factors(columns: Source, x: Source, where: str) -> tuple[np.ndarray, tuple[Factor, ...]]:
    """Return factors of the training data by their columns, and what these are called: factor 1, factor 2, ..."""
    if len(columns.shape) not in (1, 2) or 0 in columns.shape:
        raise InputError(where, got=f"shape {columns.shape}", expected="integers [N, F]")
    whole = columns[:].reshape(len(columns), -1)
    return check_factors({f"factor {number}": each for number, each in enumerate(whole.T, 1)}, x, where)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with durable.open_regular(path, what="data") as file:
        with reading(path, "an intact .npz file"):
            archive = zipfile.ZipFile(file)
        with archive:
            yield archive


def _stem(info: zipfile.ZipInfo, path: Path) -> str:
    """Return what a member of .npz is called, if it is an array as NumPy writes them."""
    stem, suffix = info.filename[:-4], info.filename[-4:]
    if suffix != ".npy" or not stem or not {"/", "\\", ":"}.isdisjoint(stem):
        raise refused(path, f"a member called {info.filename!r}", "arrays, called NAME.npy")
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refused(
            f"{path}: {stem}",
            "encryption, or another compression than deflate",
            "an archive as np.savez or np.savez_compressed writes it",
        )
    return stem


def _check_expansion(sizes: Sequence[tuple[int, int]], path: Path) -> None:
    """Refuse what would expand out of all proportion, or into more memory than is free, before any of it is expanded.

    Args:
      sizes: of each array in the file, how many bytes it is said to have, and how many it takes there.
      path: of the file.
    """
    size, hint = os.path.getsize(path), "save the training data alone, as .npy"
    whole, packed = sum(one for one, _ in sizes), sum(one for _, one in sizes)
    if whole > max(SMALL_BYTES, MAX_RATIO * packed):
        raise refused(path, f"{packed} bytes that expand to {whole}", f"at most {MAX_RATIO} times as many", hint)
    if whole > MAX_BYTES or packed > size:
        raise refused(
            path, f"arrays of {whole} bytes in {size}", f"each once, and at most {MAX_BYTES} bytes in all", hint
        )
    memory.check(whole, what="data", got=f"{packed} bytes that expand", where=str(path), hint=hint)


def _sizes(members: Iterable[zipfile.ZipInfo]) -> list[tuple[int, int]]:
    """Return what the directory of an archive says of the arrays in it; nothing else is read for that."""
    return [(info.file_size, info.compress_size) for info in members]


def _holds_objects(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    """Return whether the header of a member says that it is of Python objects, which nothing here reads."""
    with contextlib.suppress(Exception), archive.open(info) as file:  # one that cannot be read is refused later
        head = io.BytesIO(file.read(rows.MAX_HEADER))
        read = {1: format.read_array_header_1_0, 2: format.read_array_header_2_0}[format.read_magic(head)[0]]
        return bool(read(head, max_header_size=rows.MAX_HEADER)[2].hasobject)
    return False


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> np.ndarray:
    with reading(where, "an intact array"):
        with archive.open(info) as file:
            layout = rows.npy_layout(file.read(rows.MAX_HEADER), info.file_size, where)
        with archive.open(info) as file:
            file.read(layout.offset)
            return rows.read_all(file, layout)


def _idx(path: Path, kind: str = "") -> Source:
    kind = kind or _idx_name(path)[1]
    axes = {"images": 3, "labels": 1}[kind]
    zipped = path.suffix.lower() == ".gz"
    with durable.open_regular(path, what="data") as raw, gzip.GzipFile(fileobj=raw) if zipped else raw as file:
        size = os.fstat(raw.fileno()).st_size
        with reading(path, "an intact idx file"):
            head = file.read(4 + 4 * axes)
            if len(head) < 4 + 4 * axes or head[:4] != bytes((0, 0, 8, axes)):
                raise refused(
                    path,
                    f"a file that begins with {head[:4].hex(' ') or 'nothing'}",
                    f"00 00 08 {axes:02}, the magic number of {kind}, and {axes} sizes",
                )
            layout = rows.Layout(struct.unpack(f">{axes}I", head[4:]), np.dtype(np.uint8), len(head))
            if not zipped:
                return rows.rows_of(file, path, rows.checked(layout, size, path))
            _check_expansion([(layout.nbytes, size)], path)
            if size > layout.nbytes + layout.nbytes // 100 + 2**16:  # zeros that follow would be read to their end
                raise refused(path, f"{size:,} bytes", f"no more than the {layout.nbytes:,} that are packed in them")
            return rows.read_all(file, layout)
