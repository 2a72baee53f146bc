"""Signals that ask a training to leave: it saves first. A scheduler sends SIGTERM or SIGUSR1, a user Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_CODE = 75
"""The exit code of a program that was asked to leave and has saved: the same command resumes it.

It is EX_TEMPFAIL of BSD's sysexits.h.
"""

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))


class Interrupted(SystemExit):
    """A training was asked to leave and has saved. Where nobody catches it, the program ends with `EXIT_CODE`."""

    def __init__(self, message: str):
        super().__init__(EXIT_CODE)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Caught:
    """Which signal came, if any: `name`, such as "SIGTERM", or empty."""

    def __init__(self) -> None:
        self.name = ""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal; the second SIGINT or SIGTERM ends the program at once."""
        name = signal.Signals(number).name
        if self.name and name == "SIGINT":
            raise KeyboardInterrupt
        if self.name and name == "SIGTERM":
            os._exit(128 + number)
        self.name = name


@contextlib.contextmanager
def caught() -> Iterator[Caught]:
    """Remember signals that ask to leave, in place of ending the program, while this context lasts.

    Outside the main thread nothing can be caught, and signals do what they always do.
    """
    found = Caught()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = {number: signal.signal(number, found) for number in _SIGNALS}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
