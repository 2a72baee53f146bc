"""Standard output and standard error: everything that this package prints goes through this file.

What is printed may come from a stranger's file, so it is text and nothing else: no escape reaches the terminal, and no
markup is interpreted. Results that cannot be printed are an error; progress and notes that cannot are left out.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import BinaryIO, NoReturn, TextIO

from aevae_jax.asides import encodable, tell
from aevae_jax.checkpoints.signals import EXIT_CODE, Interrupted
from aevae_jax.cli import endings
from aevae_jax.types import InputError, printable, shortened

LONGEST = 200
"""Characters of an error, at most, as far as what is to be typed next leaves room."""


@contextlib.contextmanager
def one_line_errors(*, program: bool = True) -> Iterator[None]:
    """Return a context, or called a decorator, that ends the program in one line where the user can do something.

    `InputError` gives `error: <message>` and exit code 2, as do files that the system refuses and too little memory; a
    signal after which training was saved gives a line, 75; Ctrl-C elsewhere gives `interrupted` and 130, SIGTERM
    `terminated` and 143, SIGHUP `hung up` and 129; a pipe whose reader has left gives nothing and 1. Other exceptions
    are bugs and keep their traceback.

    Args:
      program: whether the process is this program's, which ends by a signal at once when all is tidied up.
    """
    _open_streams()
    try:
        try:
            with endings.raised() if program else contextlib.nullcontext():
                yield
        finally:
            _write(sys.stdout, "")  # what was printed by others: an error of theirs comes again here
    except InputError as error:
        leave(f"error: {error.line(LONGEST - len('error: '))}", 2)
    except Interrupted as stop:
        leave(str(stop), EXIT_CODE)
    except KeyboardInterrupt:
        leave("interrupted", 130)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        raise SystemExit(1) from None
    except OSError as error:
        if error.filename is None:
            raise
        refused = InputError(
            "file", got=f"{shortened(error.filename, 100)} ({error.strerror})", expected="one that can be used"
        )
        leave(f"error: {refused}", 2)
    except MemoryError:
        leave("error: memory: got too little, expected more of it, or smaller sizes and counts", 2)
    finally:
        try:
            sys.stderr.flush()
        except (OSError, ValueError):
            _discard(sys.stderr)


def say(*lines: str) -> None:
    """Print lines of results on standard output.

    Raises:
      InputError: they cannot be written, for example because the disk is full.
      BrokenPipeError: nobody reads them any more.
    """
    _write(sys.stdout, "".join(f"{printable(line)}\n" for line in lines))


def report(*lines: str) -> None:
    """Print what has been done and lies in files by now: if that cannot be printed, it is done all the same."""
    try:
        say(*lines)
    except BrokenPipeError:
        pass
    except InputError as error:
        note(f"all is done and in its files, but {error}")


def begin(text: str) -> None:
    """Say on standard error what takes its time from here on."""
    tell(f"{text} ...")


def note(text: str) -> None:
    """Say on standard error what happened; above the line of progress, where there is one."""
    tell(f"note: {' '.join(text.split())}")


def show_table(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    caption: str = "",
) -> None:
    """Print a table on standard output. Where the terminal is narrow, text is folded; numbers, of which a part would be
    another number, go into further tables below, each with the first column again.

    Args:
      title: the line above it.
      headings: one per column.
      rows: the entries, as many in each row; long ones are cut.
      right: the headings of the columns of numbers, which are aligned to the right.
      caption: the text below it.

    Raises:
      InputError, BrokenPipeError: as `say`.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def text(entry: str) -> Text:
        return Text(encodable(sys.stdout, printable(shortened(entry))))  # a `str` would be searched for markup

    lines, console = [list(map(text, row)) for row in rows], Console()
    numbers = [heading in right for heading in headings]
    widths = [
        max([*map(len, heading.split()), *(len(line[place]) for line in lines)])
        for place, heading in enumerate(headings)
    ]
    with console.capture() as captured:
        console.print(text(title), style="bold", soft_wrap=True)  # a name that is cut in two cannot be copied
        for places in _beside(widths, numbers, console.width):
            table = Table(box=SIMPLE_HEAD)
            for place in places:
                least = widths[place] if numbers[place] else None
                table.add_column(
                    text(headings[place]), overflow="fold", justify="right" if least else "left", min_width=least
                )
            for line in lines:
                table.add_row(*(line[place] for place in places))
            console.print(table)
        if caption:
            console.print(Text(encodable(sys.stdout, printable(caption))))
    _write(sys.stdout, captured.get())


_GAP, _FOLDED = 3, 16
"""Characters between two columns of a table, and those that a column of longer text is left at least."""


def _beside(widths: Sequence[int], numbers: Sequence[bool], width: int) -> list[list[int]]:
    """Return which columns stand in one table, in their order: as many as fit, and the first one in each.

    Args:
      widths: of the columns, in characters.
      numbers: which of them may not be folded.
      width: of the terminal.
    """
    needed = [own if whole else min(own, _FOLDED) for own, whole in zip(widths, numbers, strict=True)]
    found, room = [[0]], width - needed[0] - _GAP
    for place in range(1, len(needed)):
        if numbers[place] and len(found[-1]) > 1 and needed[place] + _GAP > room:
            found, room = [*found, [0]], width - needed[0] - _GAP
        found[-1].append(place)
        room -= needed[place] + _GAP
    return found


@contextlib.contextmanager
def binary_output() -> Iterator[BinaryIO]:
    """Open standard output for bytes: a file that is made. It is flushed when the block ends.

    Raises:
      InputError: it is a terminal, or cannot be written.
      BrokenPipeError: nobody reads it any more.
    """
    if sys.stdout.isatty():
        raise InputError("standard output", got="a terminal", expected="a file or a pipe, as bytes are written")
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        raise
    except OSError as error:
        _discard(sys.stdout)
        raise _no_room(error) from None


@contextlib.contextmanager
def binary_input() -> Iterator[BinaryIO]:
    """Open standard input for bytes. Raises `InputError` where it is a terminal."""
    if sys.stdin.isatty():
        raise InputError("standard input", got="a terminal", expected="a file or a pipe, as bytes are read")
    yield sys.stdin.buffer


def leave(message: str, code: int) -> NoReturn:
    """End the program after a line on standard error."""
    tell(" ".join(message.split()))
    raise SystemExit(code) from None


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(encodable(stream, text))
        stream.flush()
    except BrokenPipeError:
        _discard(stream)
        raise
    except (OSError, ValueError) as error:
        _discard(stream)
        raise _no_room(error) from None


def _no_room(error: Exception) -> InputError:
    reason = error.strerror if isinstance(error, OSError) else error
    return InputError(
        "standard output",
        got=f"no room to print on ({reason})",
        expected="a terminal, file or pipe that takes all of it",
    )


def _discard(stream: TextIO) -> None:
    """Lead what a stream still holds to nowhere: the interpreter flushes it at exit, and would fail."""
    with contextlib.suppress(OSError, ValueError):  # a stream of Python's own has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _open_streams() -> None:
    """Open the null device in place of standard streams that are closed.

    Otherwise the next file to be opened gets their number, and what a library prints goes into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
