"""Where several processes train as one, the process that was started waits for one that trains.

JAX ends a process that loses another one by SIGABRT, with a trace of C++: here that becomes a line and an exit code.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time

from aevae_jax.checkpoints.signals import EXIT_CODE

_LOST = re.compile(rb"[EF]\d{4} .*(coordination|distributed)|terminate called|\*\*\* Check failure")
"""How a line of JAX begins when a process is lost; nothing that follows is for a user."""

_SAID = {b"error: ": 2, b"Traceback (": 1}
"""How a line begins in which the child says why it ends, and its exit code then, even if JAX ends it before it does."""

_CHATTER = re.compile(rb"\[Gloo\] |[IW]\d{4} .*\.cc:\d+\]")


def begin(lost: str) -> None:
    """Return in a child, which trains. The parent ends as the child does, and does not return.

    It passes signals on, as SIGUSR1: a scheduler may have sent them to the child as well, and the second SIGTERM would
    end it at once.

    Args:
      lost: what to say where JAX ended the child; the exit code is `EXIT_CODE` then, as for a training that was saved.
    """
    reading, writing = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child == 0:
        os.close(reading)
        sys.stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding)
        for number in (1, 2):  # what C++ writes on standard output is no result
            os.dup2(writing, number)
        os.close(writing)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        return
    os.close(writing)

    def pass_on(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGUSR1)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, pass_on)
    silent, said = False, 0
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            silent = silent or _LOST.match(line) is not None
            if not silent and not _CHATTER.match(line):
                _write(line)
                said = said or next((code for begun, code in _SAID.items() if line.startswith(begun)), 0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code and said:
        code = said
    elif code and (silent or code == -signal.SIGABRT):
        _write(f"{lost}\n".encode())
        code = EXIT_CODE
    os._exit(code if code >= 0 else 128 - code)


def _write(line: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(2, line)


def _end_with(parent: int) -> None:
    """End this process soon after its parent: a scheduler that kills knows the parent alone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
