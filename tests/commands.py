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
    """The one line of a command that must fail with exit code 2."""
    capsys.readouterr()  # what came before
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in argv])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]
