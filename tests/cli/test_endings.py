"""Signals end a real process in a line and soon, whatever it is doing, and nothing is left that it was writing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
BEGIN = """
import concurrent.futures, gc, lzma, os, signal, sys, time, traceback
from pathlib import Path
from aevae_jax import durable
from aevae_jax.cli.terminal import one_line_errors
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
def begun():
    print("begun", flush=True)
"""
IN_A_FILE = """
with one_line_errors(), durable.replacing(Path("whole")) as file, durable.begun(Path("folder")):
    Path("folder").mkdir()
    Path("folder/0.png").touch()
    file.write(b"half")
"""
WAITS = "    begun(); time.sleep(30)"
TIDIES = """\
    Path("its own").touch()
    try:
        begun(); time.sleep(30)
    finally:
        time.sleep(0.3)
        Path("its own").unlink()"""
WAITS_FOR_THREADS = """\
    pool = concurrent.futures.ThreadPoolExecutor(2)
    working = pool.submit(time.sleep, 30)
    begun(); working.result()"""
WRITES = "    os.write(1, b'begun\\n'); sys.stdout.buffer.write(bytes(10**7))"
COMPILES = "    data = os.urandom(2**26); begun(); lzma.compress(data)"
COLLECTS = """\
    gc.callbacks.append(lambda *_: time.sleep(0.3))
    begun()
    while True:
        gc.collect()"""
DELETES = """\
    class Slow:
        def __del__(self):
            time.sleep(0.3)
    begun()
    while True:
        Slow()"""
IMPORTS = """\
    Path("slow.py").write_text("import time; open('folder/1.png', 'w'); print('begun', flush=True); time.sleep(0.9)")
    sys.path.insert(0, ".")
    try:
        import slow
    except BaseException as error:  # as C code of NumPy and of JAX does
        traceback.print_exc()
        raise ImportError("of C code") from error
    Path("slow.py").unlink(); time.sleep(30)"""


def started(folder, code):
    """Start a process, and wait until it has said that it has begun."""
    process = subprocess.Popen(
        [sys.executable, "-B", "-c", code], cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"begun\n"
    time.sleep(0.2)  # until it does what it says next
    return process


def ended(process, *names):
    """Send signals, and return the exit code and standard error; it must take no two seconds."""
    began = time.monotonic()
    for name in names:
        process.send_signal(getattr(signal, name))
        time.sleep(0.05)
    code = process.wait(20)
    took = time.monotonic() - began
    with process:
        error = process.stderr.read().decode()
    assert took < 2 + 1  # one for machines that do something else
    return code, error


@pytest.mark.parametrize(
    ("does", "names", "said"),
    [
        (WAITS, ("SIGINT",), (130, "interrupted\n")),
        (WAITS, ("SIGTERM",), (143, "terminated\n")),
        (WAITS, ("SIGHUP",), (129, "hung up\n")),
        (TIDIES, ("SIGINT", "SIGINT", "SIGTERM"), (130, "interrupted\n")),
        (WAITS_FOR_THREADS, ("SIGTERM",), (143, "terminated\n")),
        (WRITES, ("SIGINT",), (130, "interrupted\n")),
        (COMPILES, ("SIGINT",), (130, "interrupted\n")),
        (COLLECTS, ("SIGTERM",), (143, "terminated\n")),
        (DELETES, ("SIGINT",), (130, "interrupted\n")),
        (IMPORTS, ("SIGINT",), (130, "interrupted\n")),
    ],
    ids=["waits", "terminated", "hung", "twice", "threads", "pipe", "compiles", "collects", "deletes", "imports"],
)
def test_a_signal_is_a_line_and_nothing_is_left(tmp_path, does, names, said):
    process = started(tmp_path, BEGIN + IN_A_FILE + does)
    assert ended(process, *names) == said
    assert [name for name in os.listdir(tmp_path) if name != "slow.py"] == []


def test_signals_that_are_ignored_or_handled_otherwise_are_left_alone(tmp_path):
    code = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
seen = []
with one_line_errors():
    begun()
    while not seen:
        time.sleep(0.01)
    time.sleep(1.5)  # longer than the way out may take
print("done", signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
"""
    process = started(tmp_path, BEGIN + code)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=20)
    assert (process.returncode, out, error) == (0, b"done True\n", b"")


def test_a_training_that_catches_a_signal_is_not_ended_by_it(tmp_path):
    code = """
from aevae_jax.checkpoints import signals
with one_line_errors():
    with signals.caught() as caught:
        begun()
        while not caught.name:
            time.sleep(0.01)
        time.sleep(1.5)
        print(caught.name, flush=True)
"""
    process = started(tmp_path, BEGIN + code)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=20)
    assert (process.returncode, out, error) == (0, b"SIGTERM\n", b"")


def test_who_reads_no_more_ends_a_program_whose_threads_still_compute(tmp_path):
    code = """
with one_line_errors():
    pool = concurrent.futures.ThreadPoolExecutor(2)
    pool.submit(time.sleep, 30)
    begun()
    os.read(0, 1)
    raise BrokenPipeError
"""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code],
        cwd=tmp_path,
        env=ENVIRONMENT,
        input=b".",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert time.monotonic() - began < 20
