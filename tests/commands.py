"""Commands as they are typed, in this process."""

from __future__ import annotations

import contextlib
import io

import pytest

from aevae_jax.cli.main import main


def typed(*argv):
    """Standard output of a command that must succeed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main([str(arg) for arg in argv])
    return out.getvalue()


def refused(capsys, *argv):
    """The error of a command that must fail with exit code 2: one line, after what it said that it was doing."""
    capsys.readouterr()  # what came before
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in argv])
    assert stop.value.code == 2
    return the_line(capsys.readouterr().err)


def the_line(err):
    """The one line on standard error, after those that say what was begun."""
    *begun, line = err.splitlines()
    assert all(text.endswith(" ...") for text in begun), begun
    return line
