"""`aevae compress`, `decompress`, `info`: images as .aev files, coded by a trained model, losslessly."""

from __future__ import annotations

import contextlib
import lzma
import math
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from aevae_jax import cores, durable, limits
from aevae_jax.cli import console, overview
from aevae_jax.cli.terminal import begin, binary_input, binary_output, note, report, say
from aevae_jax.data import files
from aevae_jax.lazy import modules
from aevae_jax.runs import fitting, records, summaries
from aevae_jax.types import InputError, shortened

if TYPE_CHECKING:
    from aevae_jax import conditions
    from aevae_jax.compression import archive, chunks, container, files as images, latents, lossy as codecs, recovery
    from aevae_jax.compression.archive import Compressed
    from aevae_jax.compression.container import Header
    from aevae_jax.compression.files import Rows
else:
    conditions = modules("aevae_jax", "conditions")
    archive, chunks, container, images, latents, codecs, recovery = modules(
        "aevae_jax.compression", "archive", "chunks", "container", "files", "latents", "lossy", "recovery"
    )

SUFFIX, STREAM = ".aev", Path("-")
RUNS = Path("runs")


def compress(
    run: Path,
    input: Path,
    output: Path,
    *,
    chunk: int = 1000,
    array: Annotated[str, "--array NAME"] = "",
    no_verify: bool = False,
    compare: bool = False,
    lossy: int = 0,
    samples: int = 1,
    threads: int = 0,
    force: bool = False,
) -> None:
    """Compress images with a trained model, losslessly unless asked otherwise.

    What is kept is the array, bit for bit: values, type and shape. Labels and names of pictures are not, and how the
    file was packed. It can be decompressed with the weights of this run alone, so keep them.

    A file that cannot be written whole does not appear. A hyphen is standard input (.npy or idx) or standard output.

    Example: aevae compress runs/first images.npy images.aev

    Args:
      run: the directory of a finished run, whose likelihood has levels, such as DiscretizedLogistic or Bernoulli.
      input: .npy, .npz, an idx file as those of MNIST, a picture or a folder of them; - for standard input.
      output: a name ending in .aev; - for standard output.
      chunk: images that are coded together. Damage costs a chunk; small ones cost some bits each.
      array: which array of an .npz file; left out, the only one, or the one called images.
      no_verify: do not decode what was coded in order to compare it; takes about half the time.
      compare: also say how many bytes xz makes of the same images.
      lossy: the grey levels of the images, 256 of those of 8 bits, if the run is a CompressiveAutoencoder: each comes
        back as a picture like it, the same on every machine, and the error is said.
      samples: codes of which the best is chosen by bits back for each image: some bits fewer each, at so many times the
        work, also to decompress.
      threads: chunks that are coded at a time; 0 for as many as there are cores.
      force: replace the output file if it exists.
    """
    limits.check("--samples", samples, 1, container.MOST_SAMPLES)
    limits.check("--chunk", chunk, 1, 2**26)
    limits.check("--lossy", lossy, 0, container.MOST_LEVELS)
    threads = _threads(threads)
    if output != STREAM:
        files.check_output(output, (SUFFIX,), force=force, option="")
    if input != STREAM:
        files.check_input(input)
    overview.check_run(run)
    digest = records.digest_of(records.read_record(run))
    coder = _coder(run, lossy, asked=True, samples=samples)
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(binary_output() if output == STREAM else durable.replacing(output))
        looked = "" if input == STREAM else f"type: aevae data inspect {shlex.quote(str(input))}"
        with _naming(input, looked):
            if input == STREAM:
                rows = images.read_stream(opened.enter_context(binary_input()))
            else:
                rows = images.read(input, coder.event_shape, array)
            header = archive.header_of(coder, rows, chunk=chunk, run=digest)
            images.check_memory(header, threads)
            rival = _Xz(rows) if compare else None
            on_part = opened.enter_context(console.parts("compressing", of="images"))
            options: dict[str, Any] = {"verify": not no_verify, "threads": threads, "on_part": on_part}
            done = archive.compress(coder, rows if rival is None else rival.rows, header, file, **options)
        file.flush()
    if rows.left:
        note(f"{rows.left} are not kept")
    lines = [*_made(done, output, threads), *(rival.lines() if rival else ())]
    if output == STREAM:
        _on_standard_error(*lines)
    else:
        to = shlex.quote(str(output.with_suffix(".npy").name))
        report(*lines, f"next   aevae decompress {shlex.quote(str(output))} {to}")


def decompress(
    file: Path,
    output: Path,
    *,
    run: Annotated[Path | None, "--run RUN"] = None,
    recover: bool = False,
    threads: int = 0,
    force: bool = False,
) -> None:
    """Decompress an .aev file, exactly, or not at all.

    The model is that of the run that compressed it: --run, or whichever in runs/ or beside the file has its digest.

    Whatever is damaged is refused, and no output appears, but in a stream what came before. With --recover, images of
    chunks that are intact are written; lost ones are zeros, or in a folder are left out, and said.

    Exit code 1: images were lost.

    Example: aevae decompress images.aev images.npy

    Args:
      file: an .aev file; - for standard input.
      output: .npy, .npz, an idx file such as images-idx3-ubyte, or a name without a suffix for a folder of PNG files; -
        for .npy on standard output.
      run: the directory of the run that compressed it.
      recover: write what is left of a damaged file.
      threads: chunks that are decoded at a time; 0 for as many as there are cores.
      force: replace the output file if it exists; a folder is never replaced.
    """
    threads = _threads(threads)
    folder = images.kind_of(output) == "pictures"
    if folder and os.path.lexists(output):
        other = f"type another name, such as {shlex.quote(str(durable.unused(output)))}"
        raise InputError("output", got=f"{output}, which exists", expected="a new folder", hint=other)
    if output != STREAM:
        files.check_output(output, (output.suffix,), force=force, option="")
    if run is not None:
        overview.check_run(run)
    if recover and file == STREAM:
        raise InputError("--recover", got="standard input", expected="a file, in which can be sought")
    with _opened(file) as opened, contextlib.ExitStack() as others:
        with _naming(file):
            found = recovery.look(opened) if recover else None
            reader = None if recover else container.Reader(opened)
        header = found.header if found else reader.header if reader else None
        assert header is not None
        images.check_output(output, header)
        images.check_memory(header, threads)
        coder, owner = _owner(file, header, run)
        stream = others.enter_context(binary_output()) if output == STREAM else None
        with _naming(file), images.writing(output, header, stream) as write:
            on_part = others.enter_context(console.parts("decompressing", of="images"))
            if found is not None:
                done = archive.recover(coder, opened, found, write, threads=threads, on_part=on_part)
            else:
                assert reader is not None
                done = archive.decompress(coder, reader, write, threads=threads, on_part=on_part)
    lost = sum(last - first + 1 for first, last in done.lost)
    what = f"{_images(header)}{' as PNG files' if folder else ''}"
    line = f"wrote {output}: {what}; decoded with {owner} at {_rate(header.count - lost, done.decoding / threads)}"
    (_on_standard_error if output == STREAM else report)(line)
    if lost:
        shown = ", ".join(f"{first:,} to {last:,}" for first, last in done.lost[:5])
        more = f" and {len(done.lost) - 5} more stretches" if len(done.lost) > 5 else ""
        instead = "left out of the output" if folder else "zeros in the output"
        note(f"{lost:,} of {header.count:,} images are lost, and are {instead}: {shown}{more}")
        raise SystemExit(1)
    if not done.whole:
        note("each image is as it was; the sha256 of all of them is lost with the end of the file")


def info(file: Path) -> None:
    """Say what is in an .aev file, and whether it is intact, without a model.

    All checksums are compared. Whether the model decodes it to what it was is seen by decompressing it alone.

    Example: aevae info images.aev

    Args:
      file: an .aev file; - for standard input.
    """
    with _opened(file) as opened, _naming(file):
        reader = container.Reader(opened)
        header, sizes, damage = reader.header, list[int](), ""
        try:
            for _ in range(header.chunks):
                sizes.append(len(reader.chunk().payload))
            reader.finish()
        except InputError as error:
            damage = error.got
    place = next(_runs_of(file, header), None)
    say(
        f"{file}: version {container.VERSION} of the format",
        f"images {_images(header)}{f', array {header.name}' if header.name else ''}",
        f"model  {header.model}, with {header.levels} levels",
        f"run    {header.run or 'made from Python, of no run'}{f', which is {place}' if place else ''}",
        f"chunks {header.chunks:,} of {header.rows:,} images",
    )
    typed = f"aevae decompress {shlex.quote(str(file))} {'images.npy' if file == STREAM else f'{file.stem}.npy'}"
    if damage:
        hint = f"type: {typed} --recover"
        raise InputError("checksums", where=str(file), got=damage, expected="an intact file", hint=hint)
    bits = 8 * reader.size / (header.count * header.elements)
    share = 100 * reader.size / header.nbytes
    say(
        f"size   {reader.size:,} bytes, {bits:.4f} bits/dimension, {share:.1f} % of the {header.nbytes:,} of the array",
        "intact: all checksums are right",
        f"next   {typed}{'' if place else ' --run RUN'}",
    )


# ----------------------------------------------------------------------------------------------------- models and runs


def _coder(run: Path, levels: int, *, asked: bool = False, samples: int = 1) -> Any:
    """Return the codec of a finished run: the weights of another one may be others tomorrow.

    Args:
      run: its directory.
      levels: of images, if the codec is lossy.
      asked: whether it must be lossy if there are levels, and else must not be.
      samples: of codes, if it is not.
    """
    records.read_record(run)
    begin(f"reading {run}")
    fitted = fitting.load_run(run, on_note=note)
    if isinstance(fitted.model, conditions.Conditional):
        got = f"{type(fitted.model).__name__}, told something of each image"
        raise InputError("model", got=got, where=str(run), expected="one of images alone", hint=latents.CODED)
    is_lossy = codecs.has_rounded_codes(fitted.model, fitted.params)
    if asked and is_lossy != bool(levels):
        family = type(fitted.model).__name__
        raise InputError(
            "--lossy",
            got=levels or "0, so without loss",
            where=str(run),
            expected=f"the grey levels of the images, as codes of a {family} are rounded"
            if is_lossy
            else f"nothing: a {family} compresses without loss",
            hint="add --lossy 256, if they have 8 bits" if is_lossy else "",
        )
    with _naming(run):
        if is_lossy:
            return codecs.LossyCoder(fitted.model, fitted.params, levels)
        return chunks.Coder(fitted.model, fitted.params, samples=samples)


def _owner(file: Path, header: Header, run: Path | None) -> tuple[Any, str]:
    """Return the codec that a file was made with, and the name of its run.

    Raises:
      InputError: the run that was named is another one, or none was and none here is the one.
    """
    if run is not None:
        coder = _coder(run, header.levels)
        if coder.sha256 != header.model:
            same = header.run and records.digest_of(records.read_record(run)) == header.run
            got = "this run with changed weights" if same else f"another model, {coder.sha256[:12]}"
            expected = f"the model of {shortened(file, 40)}, {header.model[:12]}"
            raise InputError("--run", where=str(run), got=got, expected=expected, hint=_wanted(header))
        return coder, str(run)
    for place in _runs_of(file, header):
        coder = _coder(place, header.levels)
        if coder.sha256 == header.model:
            return coder, str(place)
        note(f"{place} has the digest of the run, and other weights")
    raise InputError(
        "run",
        got=f"none in {RUNS} or beside {shortened(file, 60)} that has its model",
        expected=f"the run with the digest {header.run[:16]}" if header.run else f"the model {header.model[:16]}",
        hint="name it: --run RUN",
    )


def _wanted(header: Header) -> str:
    return f"the run with digest {header.run[:16]} decodes it" if header.run else ""


def _runs_of(file: Path, header: Header) -> Iterator[Path]:
    """Yield the runs in `runs` and beside a file that have the digest of the one which it was made with."""
    beside = [] if file == STREAM else [file.parent / RUNS, file.parent]
    seen = set[str]()
    for root in (RUNS, *beside) if header.run else ():
        with contextlib.suppress(InputError):
            for folder in summaries.find(root):
                members = folder / records.MEMBERS
                for place in (folder, *(summaries.find(members) if members.is_dir() else ())):
                    with contextlib.suppress(InputError):
                        real = os.path.realpath(place)
                        if real not in seen and records.digest_of(records.read_record(place)) == header.run:
                            seen.add(real)
                            yield place


# ------------------------------------------------------------------------------------------------------ what is said


def _made(done: Compressed, output: Path, threads: int) -> Iterator[str]:
    """Yield lines on a file that was made."""
    header, share = done.header, 100 * done.size / done.header.nbytes
    yield f"images {_images(header)}: {header.nbytes:,} bytes"
    yield f"coded  {done.size:,} bytes, {done.bits_per_dim:.4f} bits/dimension, {share:.1f} % of that: {output}"
    coded, bound = done.measured_bits / done.measured, done.bound_bits / done.measured
    some = "" if done.measured == header.count * header.elements else f" of the first {done.measured_images:,} images"
    lossless = limits.is_zero(done.squared_error)
    what = "the negative ELBO" if lossless else "the rounded code by the model's own density"
    yield (f"bound  {bound:.4f} bits/dimension, {what}{some}; their code is {100 * (coded / bound - 1):+.2f} % from it")
    verified = f", verified at {_rate(header.count, done.verifying / threads)}" if done.verified else ", not verified"
    if not lossless:
        peak = 10 * math.log10((header.levels - 1) ** 2 / done.squared_error)
        yield f"loss   mean squared error {done.squared_error:.4g} in levels, PSNR {peak:.2f} dB: not the same images"
    yield f"speed  encoded at {_rate(header.count, done.encoding / threads)}{verified}"


class _Xz:
    """What xz makes of rows that are read by somebody else."""

    def __init__(self, rows: Rows):
        self._xz, self._size, self._raw = lzma.LZMACompressor(), 0, 0
        self.rows = rows._replace(blocks=self._watched(rows.blocks))

    def _watched(self, blocks: Callable[[int], Iterator[Any]]) -> Callable[[int], Iterator[Any]]:
        def watched(size: int) -> Iterator[Any]:
            for block in blocks(size):
                self._size, self._raw = self._size + len(self._xz.compress(block.data)), self._raw + block.size
                yield block

        return watched

    def lines(self) -> Iterator[str]:
        size = self._size + len(self._xz.flush())
        yield f"xz     {size:,} bytes, {8 * size / self._raw:.4f} bits/dimension"


def _images(header: Header) -> str:
    """Return how many images there are, and of what kind: `10,000 of 28x28, uint8`."""
    return f"{header.count:,} of {'x'.join(map(str, header.shape))}, {images.type_name(header)}"


def _rate(count: int, seconds: float) -> str:
    return f"{count / max(seconds, 1e-9):,.0f} images/s"


# ---------------------------------------------------------------------------------------------------- files, streams


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, or standard input."""
    if path == STREAM:
        with binary_input() as stream:
            yield stream
        return
    files.check_input(path)
    with durable.open_regular(path, what=".aev file") as file:
        yield file


@contextlib.contextmanager
def _naming(path: Path, hint: str = "") -> Iterator[None]:
    """Say of which file or stream something is that is refused, and what to do then where nothing else is said."""
    try:
        yield
    except InputError as error:
        where, hint = error.where or ("standard input" if path == STREAM else str(path)), error.hint or hint
        raise InputError(error.what, got=error.got, expected=error.expected, where=where, hint=hint) from None


def _on_standard_error(*lines: str) -> None:
    """Say what would be on standard output, if that were not the file."""
    for line in lines:
        note(line)


def _threads(number: int) -> int:
    """Return how many threads are meant."""
    limits.check("--threads", number, 0, 64)
    return number or min(8, cores.available())
