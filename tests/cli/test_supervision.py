"""What the process that was started says and returns, however the child ends that trains."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHILD = """
import os, sys
from aevae_jax.cli import supervision
supervision.begin("lost another one")
def say(text):
    os.write(2, text.encode() + b"\\n")
JAX = "E0000 00:00:1 1 coordination_service_agent.cc:1] another process has gone"
"""


def ended(code):
    """Exit code and lines on standard error of a process whose child executes so much more."""
    command = [sys.executable, "-c", CHILD + code]
    found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert found.stdout == ""
    return found.returncode, found.stderr.splitlines()


@pytest.mark.parametrize("end", ["os._exit(2)", "os.abort()", "say(JAX); os.abort()", "say(JAX); os._exit(1)"])
def test_a_child_that_has_said_its_error_ends_by_it_even_if_jax_is_faster(end):
    assert ended(f"say('error: batch size: got 15'); {end}") == (2, ["error: batch size: got 15"])


@pytest.mark.parametrize("end", ["os._exit(1)", "os.abort()"])
def test_a_fault_stays_one(end):
    trace = ["Traceback (most recent call last):", "ZeroDivisionError: division by zero"]
    assert ended(f"say({trace[0]!r}); say({trace[1]!r}); {end}") == (1, trace)


@pytest.mark.parametrize("end", ["os.abort()", "say(JAX); os.abort()", "say(JAX); os._exit(1)"])
def test_a_child_that_jax_ends_has_lost_another_one(end):
    assert ended(f"say('training'); {end}") == (75, ["training", "lost another one"])


@pytest.mark.parametrize(("end", "code"), [("os._exit(0)", 0), ("os._exit(75)", 75), ("os.kill(os.getpid(), 9)", 137)])
def test_other_ends_are_those_of_the_child(end, code):
    assert ended(f"say('done'); {end}") == (code, ["done"])
