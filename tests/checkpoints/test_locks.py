"""One run at a time in a directory, whatever becomes of the others."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from aevae_jax.checkpoints import locks
from aevae_jax.checkpoints.locks import Lock
from aevae_jax.types import InputError

HOLD = "import sys, pathlib, aevae_jax.checkpoints.locks as l; lock = l.Lock.claim(pathlib.Path(sys.argv[1])); "


def python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock until it is killed or its input ends."""
    with python(HOLD + "print('held', flush=True); sys.stdin.read()", tmp_path) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_file_says_who_holds_the_lock_and_goes_with_it(tmp_path):
    with Lock.claim(tmp_path) as lock:
        line = (tmp_path / "lock").read_text()
        assert re.fullmatch(rf"process {os.getpid()} on {re.escape(socket.gethostname())} since 2\d{{3}}-.*T.*\n", line)
        since = datetime.fromisoformat(line.split()[-1])
        assert since.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - since) < timedelta(seconds=60)
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o644 & ~current_umask()
        lock.check()
    assert list(tmp_path.iterdir()) == []
    lock.release()
    with pytest.raises(RuntimeError, match="released"):
        lock.check()
    with Lock.claim(tmp_path):
        pass


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_second_claim_in_this_process_is_refused(tmp_path):
    with Lock.claim(tmp_path) as lock:
        with pytest.raises(
            InputError, match=f"in use by process {os.getpid()} on .*, expected one run at a time; wait"
        ):
            Lock.claim(tmp_path)
        lock.check()  # the refused claim took nothing with it
        with pytest.raises(InputError, match="in use"):
            Lock.claim(tmp_path)


def test_another_process_is_named_and_at_once(tmp_path, holder):
    begun = time.monotonic()
    with pytest.raises(InputError) as caught:
        Lock.claim(tmp_path)
    assert time.monotonic() - begun < 1
    assert (
        f"run directory ({tmp_path}): got one in use by process {holder.pid} on {socket.gethostname()} since "
        in str(caught.value)
    )
    assert (tmp_path / "lock").read_text().startswith(f"process {holder.pid} ")


def test_whoever_holds_it_is_named_where_a_long_path_is_cut(tmp_path):
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    with Lock.claim(folder), pytest.raises(InputError) as caught:
        Lock.claim(folder)
    line = caught.value.line(200)
    assert len(line) <= 200
    assert f"in use by process {os.getpid()} on " in line
    assert "wait for it" in line


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with (tmp_path / "lock").open("a") as file:
        file.write("more\n")
    with Lock.claim(tmp_path):
        assert re.fullmatch(f"process {os.getpid()} .*\n", (tmp_path / "lock").read_text())


def test_the_directory_removed_or_replaced_is_noticed(tmp_path):
    folder = tmp_path / "run"
    for replace in (
        lambda: None,
        folder.mkdir,
        lambda: (folder.mkdir(), (folder / "lock").write_text("process 1 on x since y\n")),
    ):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        lock = Lock.claim(folder)
        shutil.rmtree(folder)
        replace()
        with pytest.raises(InputError, match="run, removed or replaced while the run was writing to it"):
            lock.check()
        before = sorted(tmp_path.rglob("*"))
        lock.release()
        assert sorted(tmp_path.rglob("*")) == before  # what is another's by now is not removed


def test_a_removed_lock_file_does_not_let_two_in_unnoticed(tmp_path):
    first = Lock.claim(tmp_path)
    (tmp_path / "lock").unlink()
    with Lock.claim(tmp_path) as second:
        with pytest.raises(InputError, match="removed or replaced"):
            first.check()
        first.release()
        second.check()


def test_a_link_in_the_place_of_the_lock_is_not_the_lock(tmp_path):
    lock = Lock.claim(tmp_path)
    (tmp_path / "lock").rename(tmp_path / "moved")
    (tmp_path / "lock").symlink_to("moved")
    with pytest.raises(InputError, match="removed or replaced"):
        lock.check()
    lock.release()
    assert (tmp_path / "lock").is_symlink()


def test_a_lock_file_that_cannot_be_removed_locks_nobody_out(tmp_path, monkeypatch):
    lock = Lock.claim(tmp_path)

    def fail(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "unlink", fail)
    lock.release()
    monkeypatch.undo()
    assert (tmp_path / "lock").exists()
    Lock.claim(tmp_path).release()


def test_a_file_removed_between_opening_and_locking_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    """The holder releases just after this process opened its file: a lock on that file would lock nobody out."""
    from aevae_jax.checkpoints import locks

    flock, calls = locks.fcntl.flock, []

    def late(descriptor, operation):
        if not calls:
            (tmp_path / "lock").unlink()
        calls.append(operation)
        flock(descriptor, operation)

    monkeypatch.setattr(locks.fcntl, "flock", late)
    before = len(os.listdir("/dev/fd"))
    with Lock.claim(tmp_path) as lock:
        lock.check()
        assert len(os.listdir("/dev/fd")) == before + 1
    assert len(calls) == 2


def test_a_holder_that_has_not_signed_yet_is_another_process(tmp_path):
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(
            InputError, match=r"in use by another process, expected one run at a time; wait for it, stop"
        ):
            Lock.claim(tmp_path)
        (tmp_path / "lock").write_bytes(b"process 1 on m\xfcller\n")  # not UTF-8
        with pytest.raises(InputError, match=r"in use by process 1 on m.ller, expected one run at a time"):
            Lock.claim(tmp_path)


def test_the_working_directory_may_change(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    lock = Lock.claim((tmp_path / "run").relative_to(tmp_path))
    monkeypatch.chdir(tmp_path / "elsewhere")
    lock.check()
    lock.release()
    assert not (tmp_path / "run" / "lock").exists()


def test_places_where_no_lock_can_be_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing \(No such file or directory\), expected a directory to write in"):
        Lock.claim(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file \(Not a directory\)"):
        Lock.claim(tmp_path / "file")
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "lock").symlink_to("elsewhere")
    with pytest.raises(InputError, match=r"\(Too many levels of symbolic links\)"):
        Lock.claim(tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_what_is_no_lock_is_refused_at_once_and_left_as_it_is(tmp_path):
    path, precious = tmp_path / "run" / "lock", tmp_path / "precious"
    path.parent.mkdir()
    signed = "process 1 on x since y\n"
    precious.write_text(signed)  # with a name elsewhere, though it looks like a lock
    for text, make in (
        ("mine", lambda: path.write_text("mine")),
        ("processes", lambda: path.write_text("processes")),
        (f"a {signed}", lambda: path.write_text(f"a {signed}")),
        (signed, lambda: path.hardlink_to(precious)),
        (None, lambda: os.mkfifo(path)),
    ):
        make()
        with pytest.raises(InputError, match=r"run \(lock is (not )?a file of"):
            Lock.claim(path.parent)
        assert text is None or path.read_text() == text
        path.unlink()
    for text in (b"\0" * 60, b"", signed.encode()):  # a power cut, a process that was killed before or after it signed
        path.write_bytes(text)
        Lock.claim(path.parent).release()
        assert not path.exists()
    assert precious.read_text() == signed


def test_no_descriptor_is_left_open(tmp_path):
    count = len(os.listdir("/dev/fd"))
    with Lock.claim(tmp_path), pytest.raises(InputError):
        Lock.claim(tmp_path)
    assert len(os.listdir("/dev/fd")) == count
    (tmp_path / "lock").write_text("mine")
    with pytest.raises(InputError):
        Lock.claim(tmp_path)
    assert len(os.listdir("/dev/fd")) == count
    (tmp_path / "lock").unlink()
    (tmp_path / "gone").mkdir()
    lock = Lock.claim(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    lock.release()
    assert len(os.listdir("/dev/fd")) == count


CHILDREN = {
    "fork": "child = os.fork() or time.sleep(30)",
    "fork that releases its copy": "child = os.fork() or (lock.release(), time.sleep(30))",
    "program": "child = subprocess.Popen(['sleep', '30'], close_fds=False).pid",
    "fork that becomes a program": "child = os.fork() or os.execvp('sleep', ['sleep', '30'])",
}


@pytest.mark.parametrize("kind", CHILDREN)
def test_a_child_does_not_keep_the_lock_of_a_killed_parent(tmp_path, kind):
    code = f"{HOLD}import os, subprocess, time; {CHILDREN[kind]}; print(child, flush=True); sys.stdin.read()"
    with python(code, tmp_path) as parent:
        child = int(parent.stdout.readline())
        try:
            time.sleep(0.1)
            with pytest.raises(InputError, match=f"in use by process {parent.pid}"):
                Lock.claim(tmp_path)
            parent.kill()
            parent.wait()
            with Lock.claim(tmp_path) as lock:
                lock.check()
                os.kill(child, 0)  # still there
        finally:
            os.kill(child, signal.SIGKILL)


def test_importing_is_light():
    code = "import sys, aevae_jax.checkpoints.locks; assert not {'jax', 'numpy', 'orbax'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_whoever_looks_who_holds_a_lock_keeps_nobody_out(tmp_path, monkeypatch):
    assert locks.holder(tmp_path) == ""
    with Lock.claim(tmp_path):
        assert locks.holder(tmp_path).startswith(f"process {os.getpid()} on ")
    (tmp_path / "lock").write_text("process 1 on another since 2000")  # of a process that was killed
    assert locks.holder(tmp_path) == ""
    with (tmp_path / "lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr(locks.time, "sleep", lambda seconds: looking.close())
        Lock.claim(tmp_path).release()
