"""What is said along the way, on standard error: lines, and one that changes. No work ends because it cannot be."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TextIO, cast

from aevae_jax.types import printable


def tell(line: str) -> None:
    """Print a line on standard error, if that is possible: no work ends because its progress cannot be shown."""
    Quiet(sys.stderr).write(f"{printable(line)}\n")


class Quiet:
    """A stream whose errors are passed over: for what is only said along the way.

    Args:
      stream: standard error, or what stands for it.
    """

    def __init__(self, stream: TextIO):
        self._stream, self.encoding = stream, stream.encoding

    def write(self, text: str) -> int:
        """Write and flush, if that is possible."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed
            self._stream.write(encodable(self._stream, text))
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Do nothing: all is flushed."""

    def isatty(self) -> bool:
        """Say whether a terminal is at the other end."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream.isatty()
        return False


@contextlib.contextmanager
def live(stream: Quiet, text: str, *, stays: bool = True) -> Iterator[tuple[Callable[[str], None], Callable[[], int]]]:
    """Show a line that changes, below whatever else is printed on a terminal.

    Args:
      stream: the terminal.
      text: the line at first.
      stays: whether the last one is left there.

    Yields:
      What is called with the next line, and what gives the columns that there are for it.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn
    from rich.table import Column

    column = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    with Progress(SpinnerColumn(), column, console=Console(file=cast(TextIO, stream)), transient=not stays) as live:
        task = live.add_task(text, total=None)
        yield lambda line: live.update(task, description=line), lambda: live.console.width - 2  # of the spinner


def encodable(stream: TextIO, text: str) -> str:
    r"""Return `text` with `\u` escapes in place of what the stream's encoding does not have."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
