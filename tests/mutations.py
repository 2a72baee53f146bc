"""Does a test fail when a known mistake is brought in? The mistakes stand in mistakes.py.

    python tests/mutations.py                 those whose file or tests differ from the commit before, or from main
    python tests/mutations.py --changed REV   the same from another commit
    python tests/mutations.py --all           all
    python tests/mutations.py 4 15            those of mistakes 4 and 15
    python tests/mutations.py 4 --unmutated   their tests without the mistake, which must pass

Every patch is applied to a copy of the package, which the named tests then import; nothing here is touched. The script
fails if a patch no longer applies, if the tests pass in spite of it, or if they cannot be run at all.

Each copy is tested in a process forked from this one, which has imported the libraries, but neither the package nor
started JAX; programs that the tests compiled before are taken from their cache, which is keyed by what is compiled.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from mistakes import MUTATIONS, Mutation

ROOT = Path(__file__).parents[1]
LIMIT = 900
"""Seconds after which the tests of one mistake are given up."""

LIBRARIES = (
    "flax.linen",
    "hypothesis",
    "jax",
    "jax.numpy",
    "numpy",
    "optax",
    "pytest",
    "safetensors.numpy",
    "scipy.stats",
    "skimage.metrics",
    "sklearn.datasets",
    "sklearn.mixture",
    "sklearn.neighbors",
)
"""What most tests import, and none of this project's own."""


def changed(revision: str) -> set[str] | None:
    """Return the paths that differ from a commit, or are new; `None` where git cannot tell.

    Without a name that is the commit where this branch left main, or, on main, the one before.
    """
    names = [revision] if revision else ["origin/main", "main"]
    bases = [_git("merge-base", "HEAD", name) for name in names]
    base = next((base for base in bases if base and (revision or base != _git("rev-parse", "HEAD"))), None)
    base = base or (None if revision else _git("rev-parse", "--verify", "--quiet", "HEAD~1"))
    if not base:
        return None
    print(f"since {base[:12]}")
    paths = {
        *_git("diff", "--name-only", base).splitlines(),
        *_git("ls-files", "--others", "--exclude-standard").splitlines(),
    }
    if "tests/mistakes.py" in paths:
        before: dict[str, object] = {"__name__": "before"}
        exec(_git("show", f"{base}:tests/mistakes.py"), before)  # noqa: S102  # of this repository
        known = set(before.get("MUTATIONS", ()))  # type: ignore[call-overload]
        paths |= {mutation.path for mutation in MUTATIONS if mutation not in known}
    return paths


def _git(*arguments: str) -> str:
    """What git says; nothing where it cannot."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def concerned(mutation: Mutation, paths: Collection[str]) -> bool:
    """Whether one of the paths could decide if a mistake is noticed."""
    tests = {f"tests/{test.partition('::')[0]}" for test in mutation.tests}
    helpers = {f"tests/{path.name}" for path in (ROOT / "tests").glob("*.py") if not path.name.startswith("test_")}
    shared = {*helpers, "pyproject.toml", "pins.txt"} - {"tests/mutations.py", "tests/mistakes.py"}
    return not shared.union(tests, {mutation.path}).isdisjoint(paths)


def problems(mutations: Sequence[Mutation], *, mutated: bool, until: float) -> Iterator[tuple[Mutation, str, float]]:
    """Test each: yields it, what went wrong, else an empty text, and the processor time it took in seconds."""
    waiting, running = list(mutations), {}
    while waiting or running:
        if time.perf_counter() > until:
            waiting = []
        while waiting and len(running) < (os.cpu_count() or 1):
            mutation = waiting.pop(0)
            folder = tempfile.mkdtemp()
            if not _patched(mutation if mutated else None, Path(folder)):
                shutil.rmtree(folder)
                yield mutation, f"the patch does not apply: {mutation.old!r} is not in {mutation.file}", 0.0
                continue
            sys.stdout.flush()
            with warnings.catch_warnings(action="ignore"):  # JAX warns of forks; none of its threads runs yet
                pid = os.fork()
            if pid == 0:
                _test(mutation, folder)
            running[pid] = mutation, folder
        if running:
            pid, status, used = os.wait4(-1, 0)
            mutation, folder = running.pop(pid)
            said = (Path(folder) / "output").read_text(errors="replace")
            shutil.rmtree(folder)
            yield mutation, _verdict(mutation, status, said, mutated), used.ru_utime + used.ru_stime


def _patched(mutation: Mutation | None, folder: Path) -> bool:
    """Copy what is tested, so that nothing of the checkout is on the import path, and patch the copy."""
    for name in ("aevae_jax", "docs", "experiments", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    if mutation is None:
        return True
    source = folder / mutation.path
    text = source.read_text()
    source.write_text(text.replace(mutation.old, mutation.new, 1))
    return mutation.old in text


def _test(mutation: Mutation, folder: str) -> NoReturn:
    """In a process of its own: run the tests in the copy, and leave with pytest's exit code."""
    code = 70
    try:
        signal.alarm(LIMIT)
        output = os.open(os.path.join(folder, "output"), os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1), os.dup2(output, 2)
        os.chdir(folder)
        os.environ |= {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        sys.path[:] = [
            folder,
            *(path for path in sys.path if path and Path(path).resolve() not in (ROOT, ROOT / "tests")),
        ]
        sys.argv = ["pytest"]
        import pytest

        import aevae_jax

        assert str(aevae_jax.__file__).startswith(folder), aevae_jax.__file__
        options = [
            "-x",
            "-q",
            "-n0",
            "-p",
            "no:cacheprovider",
            "--no-header",
            "--tb=line",
            "-m",
            "",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
        ]
        code = int(pytest.main([*options, *(f"tests/{test}" for test in mutation.tests)]))
    except BaseException:  # nothing may return into the loop of the process that forked
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _verdict(mutation: Mutation, status: int, said: str, mutated: bool) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == 0 and mutated:
        return f"SURVIVED: {', '.join(mutation.tests)} passed"
    if code == int(mutated):
        return ""
    return f"the tests {'could not be run' if mutated else 'do not pass'} (exit code {code}):\n{said[-2000:]}"


def main() -> int:
    """Check the mistakes that were asked for; 0 if every one is noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mistakes", nargs="*", help="their numbers")
    parser.add_argument("--changed", default="", metavar="REV", help="the commit to compare with")
    parser.add_argument("--all", action="store_true", help="whatever has changed")
    parser.add_argument("--seconds", type=float, default=0.0, help="begin no more after so many; 0 for no limit")
    parser.add_argument("--unmutated", action="store_true", help="see that the tests pass without the mistakes")
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if not options.mistakes or str(m.mistake) in options.mistakes]
    if not options.all and not options.mistakes:
        paths = changed(options.changed)
        chosen = chosen if paths is None else [m for m in chosen if concerned(m, paths)]
    elif not chosen:
        parser.error(f"no mistake has the number {', '.join(options.mistakes)}")
    if not chosen:
        print(f"none of {len(MUTATIONS)} mistakes is of a file that changed")
        return 0

    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "xla"))  # read when JAX is imported
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # as in conftest.py, of which they would be too late
        os.environ.setdefault(name, "1")
    for name in LIBRARIES:
        importlib.import_module(name)
    return _report(chosen, seconds=options.seconds, mutated=not options.unmutated)


def _report(chosen: Sequence[Mutation], *, seconds: float, mutated: bool) -> int:
    started, bad, done, used = time.perf_counter(), 0, 0, 0.0
    until = started + seconds if seconds else float("inf")
    for mutation, problem, took in problems(chosen, mutated=mutated, until=until):
        done, bad, used = done + 1, bad + bool(problem), used + took
        good = "noticed" if mutated else "passed"
        print(f"{mutation.mistake:>3} {mutation.what}: {problem or good} ({took:.0f} s)", flush=True)
    wall, used = time.perf_counter() - started, used + time.process_time()
    print(
        f"{done - bad} of {done} {'noticed' if mutated else 'passed'} in {wall:.0f} s, {used:.0f} s of processor "
        f"time; {len(chosen) - done} not begun, {len(MUTATIONS) - len(chosen)} not asked for"
    )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
