"""Signals that ask to leave: remembered while a training lasts, and everybody's own again after it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from aevae_jax.checkpoints import signals

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@pytest.fixture
def own():
    """A handler of somebody else's for each of the signals."""
    handlers = {number: (lambda *_, number=number: pytest.fail(f"{number}")) for number in NUMBERS}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield handlers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("error", [None, RuntimeError, SystemExit])
def test_handlers_of_ones_own_are_given_back(own, error):
    with contextlib.suppress(RuntimeError, SystemExit), signals.caught() as found:
        assert [signal.getsignal(number) for number in NUMBERS] == [found] * 3
        os.kill(os.getpid(), signal.SIGUSR1)
        assert found.name == "SIGUSR1"
        if error:
            raise error
    for number, handler in own.items():
        assert signal.getsignal(number) is handler


def test_in_a_fresh_process_ctrl_c_is_an_interrupt_again():
    code = (
        "import os, signal\nfrom aevae_jax.checkpoints import signals\n"
        # as Python starts in a terminal: whatever started these tests may have had signals ignored, which is inherited
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "for number in (signal.SIGTERM, signal.SIGUSR1): signal.signal(number, signal.SIG_DFL)\n"
        "with signals.caught() as found:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "assert found.name == 'SIGINT'\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_outside_the_main_thread_handlers_stay_as_they_are(own):
    seen = []

    def look():
        with signals.caught() as found:
            seen.append((found.name, *(signal.getsignal(number) for number in NUMBERS)))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [("", *own.values())]


def test_the_second_request_to_leave_is_obeyed_at_once(monkeypatch):
    """Of SIGTERM by the code that a shell gives to it; SIGUSR1, which a scheduler may repeat, is none."""
    codes = []
    monkeypatch.setattr(signals.os, "_exit", codes.append)
    for first in NUMBERS:
        found = signals.Caught()
        found(first, None)
        assert found.name == first.name
        found(signal.SIGUSR1, None)
        with pytest.raises(KeyboardInterrupt):
            found(signal.SIGINT, None)
        assert codes == []
        found(signal.SIGTERM, None)
        assert codes.pop() == 143
