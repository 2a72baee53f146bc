"""A process that was started, and what it said and when."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence

HANGS = 180.0
"""Seconds after which a process is given up."""


class Process:
    """A `Child` that has been started, and what it has said, with the time."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]):
        self.began, self.ended, self.said = time.monotonic(), 0.0, list[tuple[float, str]]()
        self.popen = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout
        with self.popen.stdout as lines:
            for line in lines:
                with self._news:
                    self.said.append((time.monotonic(), line.strip()))
                    self._news.notify_all()
        self.popen.wait()
        with self._news:
            self.ended = time.monotonic()
            self._news.notify_all()

    def told(self, start: str, after: float = 0.0, before: float = float("inf")) -> list[str]:
        """Return what followed, in the lines that begin so."""
        return [
            line[len(start) :].strip() for at, line in self.said[:] if line.startswith(start) and after <= at <= before
        ]

    def wait_for(self, start: str) -> bool:
        """Wait until a line begins so; False if the process ends first."""
        with self._news:
            self._news.wait_for(lambda: self.ended or self.told(start), HANGS)
        return bool(self.told(start))

    def end(self, *, kill: bool = False) -> int:
        """Wait for the exit code."""
        if kill:
            self.popen.kill()
        self._reader.join(HANGS)
        if self._reader.is_alive():
            self.popen.kill()
            raise TimeoutError(f"hangs: {self}")
        return int(self.popen.returncode)

    @property
    def saved(self) -> int:
        """The newest step that was acknowledged."""
        return max(map(int, self.told("@saved")), default=-1)

    @property
    def phase(self) -> str:
        """Where it is, or was when it ended."""
        return (self.told("@phase") or ["start"])[-1]

    @property
    def lines(self) -> list[str]:
        """What a user sees, apart from notes."""
        return [line for _, line in self.said[:] if not line.startswith(("@", "note:"))]

    def __str__(self) -> str:
        lines, code = self.lines, self.popen.returncode
        shown = lines if len(lines) < 5 else [*lines[:2], f"... {len(lines) - 4} more lines ...", *lines[-2:]]
        return f"exit code {code}, phase {self.phase!r}, saved {self.saved}: {' | '.join(shown)}"
