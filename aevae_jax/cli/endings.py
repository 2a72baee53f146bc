"""Signals that end a command: what it was writing goes away, and it ends in a line, soon.

By default SIGTERM and SIGHUP end Python at once, and leave behind what is written by halves. Here they raise, as Ctrl-C
does, so that every `with` and `finally` on the way out is gone through. What is raised may come to nothing: a compiler
does not return for seconds, and a destructor or a callback of the garbage collector swallows exceptions. So a thread
sees to it that the program ends nevertheless.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

from aevae_jax import asides, durable

_SAID = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}

WAY_OUT = 1.0
"""Seconds that the way out may take. Signals that come meanwhile, as of keys pressed twice, do not disturb it."""

_IMPORTING = "<frozen importlib._bootstrap>"

_AGAIN = 0.05
"""Seconds after which a signal that came at a moment in which nothing can be raised is sent again."""


class Ended(BaseException):
    """A signal ended the program. `KeyboardInterrupt` would do for SIGINT, but Python ends otherwise after it."""


class _Raise:
    """A handler of signals that raises `Ended` once, and not in a frame where it would be swallowed."""

    def __init__(self) -> None:
        self.number = 0
        """That of the signal which `Ended` was raised for, or 0."""
        self._threads = set(threading.enumerate())

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.number and not _swallows(frame):
            self.number = number
            raise Ended

    def watch(self, pipe: int, over: threading.Event) -> None:
        """Read signals from a pipe, which come there at once, and end the program `WAY_OUT` seconds after the first.

        Args:
          pipe: where each signal is a byte.
          over: set when nothing is to be ended any more, before a last byte.
        """
        number = 0
        while not (number and self._handles(number)):  # a signal that a training waits for ends nothing
            number = os.read(pipe, 1)[0]
            if over.is_set():
                return
        latest = time.monotonic() + WAY_OUT
        while not over.wait(_AGAIN):
            if time.monotonic() > latest:
                durable.remove_begun()
                _end(number)
            if not self.number:
                signal.pthread_kill(threading.main_thread().ident or 0, number)

    def _handles(self, number: int) -> bool:
        return signal.getsignal(number) is self

    def leaves_threads(self) -> bool:
        """Return whether there are threads that an end of the program would wait for, and were not there before."""
        return any(not each.daemon for each in set(threading.enumerate()) - self._threads)


def _swallows(frame: FrameType | None) -> bool:
    """Return whether what is raised in a frame may go no farther than to a callback of the garbage collector, or to the
    C code of a module that is being imported, which print it.
    """
    callbacks = [getattr(each, "__code__", None) for each in gc.callbacks]
    while frame is not None:
        code = frame.f_code
        if code in callbacks or code.co_name == "__del__" or code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False


def _end(number: int) -> NoReturn:
    """End the program by a signal, in a line. It waits for no thread, and for nobody who reads standard output."""
    asides.tell(_SAID[signal.Signals(number).name])
    os._exit(128 + number)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Raise `Ended` where SIGINT, SIGTERM or SIGHUP would end the program at once, and end it when that gets here.

    The exit code is 128 and the number of the signal. Signals that are ignored, or that somebody else handles, are left
    alone; so are all outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler, before, over = _Raise(), dict[int, Any](), threading.Event()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=handler.watch, args=(reading, over), daemon=True)
    watcher.start()
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        for name in _SAID:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, handler)
        yield
    except BaseException as error:
        if handler.number:  # whatever it has become: an import that it falls into says `ImportError`
            _end(handler.number)
        if isinstance(error, BrokenPipeError) and handler.leaves_threads():  # they would compute what nobody reads
            os._exit(1)
        raise
    finally:
        for number, old in before.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, old)
        signal.set_wakeup_fd(woken)
        over.set()
        with contextlib.suppress(BlockingIOError):
            os.write(writing, b"\0")
        watcher.join()
        os.close(reading)
        os.close(writing)
