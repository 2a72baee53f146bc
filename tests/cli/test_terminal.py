"""What is printed, and what happens if it cannot be: text and nothing else, errors of one line, work that goes on."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from aevae_jax import asides
from aevae_jax.checkpoints.signals import Interrupted
from aevae_jax.cli import terminal
from aevae_jax.cli.terminal import one_line_errors
from aevae_jax.types import InputError

HOSTILE = "a\x1b[31mred\x1b[0m\nb [bold]x[/s] \u202e:smile: [\udcff"
SHOWN = "a [31mred [0m b [bold]x[/s]  :smile: [ "


def test_a_mistake_of_the_user_is_one_line_and_code_2(capsys):
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise InputError("batch\nsize", got=0, expected="at least 1", where="--batch-size", hint="type 1")
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", "error: batch size (--batch-size): got 0, expected at least 1; type 1\n")


def test_ctrl_c_is_one_line_and_code_130(capsys):
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_training_that_saved_and_left_is_one_line_and_code_75(capsys):
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise Interrupted("stopped by SIGTERM, saved at step 3")
    assert stop.value.code == 75
    assert capsys.readouterr() == ("", "stopped by SIGTERM, saved at step 3\n")


def test_a_bug_keeps_its_traceback(capsys):
    with pytest.raises(OSError, match="of no file"), one_line_errors():
        raise OSError(5, "of no file")
    with pytest.raises(ZeroDivisionError), one_line_errors():
        _ = 1 / 0
    with pytest.raises(ValueError, match="plain"), one_line_errors():
        raise ValueError("plain")
    assert capsys.readouterr().err == ""


def test_errors_decorate_a_function_that_is_called_twice():
    @one_line_errors()
    def half(x):
        if x % 2:
            raise InputError("x", got=x, expected="an even number")
        return x // 2

    assert half(4) == 2
    with pytest.raises(SystemExit):
        half(3)
    assert half(6) == 3


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_error(unbuffered):
    code = "from aevae_jax.cli.terminal import one_line_errors\nwith one_line_errors():\n    print('x' * 100000)"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(2, "No such file or directory", "x"), "error: file: got x (No such file or directory)"),
        (MemoryError(), "error: memory: got too little"),
    ],
)
def test_what_the_system_refuses_is_one_line(error, message, capsys):
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise error
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(message)


# ------------------------------------------------------------------------------------------------------------ as text


def test_lines_and_notes_are_text_and_nothing_else(capsys):
    terminal.say(HOSTILE, "plain")
    terminal.report(HOSTILE)
    terminal.note(HOSTILE)
    asides.tell(HOSTILE)
    out, err = capsys.readouterr()
    assert out == f"{SHOWN}\nplain\n{SHOWN}\n"
    assert err == f"note: {SHOWN}\n{SHOWN}\n"


def test_tables_are_text_and_nothing_else(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    terminal.show_table(
        HOSTILE, ("flow [/s]", HOSTILE), [[HOSTILE, "[/]"], ["x" * 999, "age [years]"]], caption=HOSTILE
    )
    out = capsys.readouterr().out
    for text in (SHOWN.strip(), "flow [/s]", "age [years]", "[/]"):
        assert text in out
    assert out.count(SHOWN.strip()) == 4
    assert "\x1b" not in out
    assert "x" * 301 not in out.replace("\n", "")


def test_numbers_stand_to_the_right_and_words_to_the_left(capsys):
    terminal.show_table("title", ("name", "mean"), [["x", "1.5"], ["longer", "122"]], right=("mean",), caption="end")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [line.rstrip() for line in (lines[0], lines[1], *lines[3:])] == [
        "title",
        "  name     mean",
        "  x         1.5",
        "  longer    122",
        "end",
    ]


def test_numbers_are_whole_however_many_columns_there_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    headings = [f"negative {number}" for number in range(9)]
    rows = [[name, *(f"{place}.{place}{place}{place}{place}{place}" for place in range(9))] for name in "ab"]
    terminal.show_table("title", ("class", *headings), rows, right=headings)
    lines = capsys.readouterr().out.splitlines()
    of_a = [line.split() for line in lines if line.startswith("  a ")]
    assert len(of_a) > 1
    assert [entry for entries in of_a for entry in entries[1:]] == rows[0][1:]
    assert max(map(len, lines)) <= 40


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_what_an_encoding_lacks_is_escaped(encoding):
    code = (
        "from aevae_jax.cli import terminal as t\nt.say('\u0446\u0432\u0435\u0442')\nt.note('\u0446')\n"
        "t.show_table('\u0446', ('\u0446',), [['\u0446']])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": encoding}
    )
    shown = done.stdout.decode(encoding).splitlines()[0]
    assert shown == ("\u0446\u0432\u0435\u0442" if encoding == "utf-8" else r"\u0446\u0432\u0435\u0442")


# ------------------------------------------------------------------------------------------------ closed or full

RESULT = "terminal.say('result')"
DONE = "terminal.report('done')"
PROGRESS = "terminal.note('on the way'); terminal.say('result')"


@pytest.mark.parametrize(
    ("line", "streams", "code", "out", "err"),
    [
        (RESULT, ">/dev/full", 2, "", "error: standard output: got no room to print on (No space left on device)"),
        (RESULT, ">&-", 0, "", ""),
        (DONE, ">/dev/full", 0, "", "note: all is done and in its files, but standard output: got no room"),
        (DONE, ">&-", 0, "", ""),
        (DONE, "| true", 0, "", ""),
        (PROGRESS, "2>/dev/full", 0, "result\n", ""),
        (PROGRESS, "2>&-", 0, "result\n", ""),
        (PROGRESS, ">&- 2>&-", 0, "", ""),
        ("raise InputError('x', got=1, expected='2')", "2>/dev/full", 2, "", ""),
        ("print('x' * 9999)", "| true", 1, "", ""),
        ("print('printed')", ">/dev/full", 2, "", "error: standard output"),
    ],
)
def test_streams_that_take_nothing(line, streams, code, out, err):
    late = "time.sleep(.1); " if "|" in streams else ""  # the reader has left by then
    script = (
        "import time; from aevae_jax.cli import terminal; from aevae_jax.types import InputError\n"
        f"with terminal.one_line_errors():\n    {late}{line}"
    )
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {streams}', sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, out)
    assert done.stderr.startswith(err)
    assert len(done.stderr.splitlines()) == bool(err)


def test_a_closed_stream_lends_its_number_to_no_file(tmp_path):
    """Else what a library prints on standard error goes into the weights."""
    script = (
        "import os, sys; from aevae_jax.cli import terminal\nwith terminal.one_line_errors():\n"
        "    file = open(sys.argv[1], 'w'); os.write(2, b'from a library'); os.write(1, b'x')"
    )
    subprocess.run(
        ["bash", "-c", '"$0" -c "$1" "$2" >&- 2>&- <&-', sys.executable, script, tmp_path / "file"], check=True
    )
    assert (tmp_path / "file").read_text() == ""


def test_progress_that_cannot_be_shown_ends_no_training():
    script = (
        "import sys; from aevae_jax.cli import console; from tests.cli.test_console import epoch\n"
        "with console.one_line_errors(), console.progress() as show:\n"
        "    for i in range(1, 11): show(epoch(i))\n    console.note('end')\nprint('trained')"
    )
    for streams in ("2>/dev/full", "2>&-"):
        done = subprocess.run(
            ["bash", "-c", f'"$0" -c "$1" {streams}', sys.executable, script],
            capture_output=True,
            text=True,
            check=False,
            cwd=os.getcwd(),
        )
        assert (done.returncode, done.stdout) == (0, "trained\n")


@pytest.mark.parametrize("got", ["x", "x" * 300, "x " * 150])
@pytest.mark.parametrize("where", ["", "runs/first", "w" * 280])
def test_an_error_is_short_and_keeps_what_is_to_be_typed(got, where, capsys):
    with pytest.raises(SystemExit), one_line_errors():
        raise InputError("output", got=got, where=where, expected="e" * 250, hint=f"type: {'long ' * 10}")
    [line] = capsys.readouterr().err.splitlines()
    assert len(line) <= 200
    assert re.fullmatch(r"error: output( \(.*\))?: got x.*, expected e.*; type: (long ){9}long", line)
