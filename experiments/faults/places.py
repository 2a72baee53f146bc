"""A training without room, permission, a directory, or one of its own."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from aevae_jax.runs import records
from faults.bench import ALL, Bench, Row
from faults.child import OFTEN
from faults.process import Process


def disk(bench: Bench) -> list[Row]:
    """Return no room, no permission, no directory."""

    def wrong(process: Process, folder: Path, late: int) -> str:
        if process.end() != 2 or len(process.lines) != 1 or late > 0:
            return f"{late} saved after the fault; {process}"
        newest = bench.newest(folder) if folder.exists() else process.saved
        return "" if newest >= process.saved else f"newest {newest}; {process}"

    def limited(item: tuple[str, int]) -> str:
        dice, folder = bench.dice("limit", *item), bench.work / "disk" / f"limit-{item}"
        n, size = {"prepare": (1, 3000), "save": (12, 5000), "evaluate": (2, 300), "finish": (1, 9000)}[item[0]]
        fault = {"kind": "limit", "phase": item[0], "n": dice.randint(1, n), "bytes": dice.randrange(size)}
        process = bench.start(folder, cache=False, fault=fault)  # which it would leave with half a program in it
        process.end()
        late = "".join(line for _, line in process.said).partition("@fault")[2].count("@saved")
        return wrong(process, folder, late) or bench.finish(folder, "disk")

    def mounted(number: int) -> str:
        folder, size = bench.work / "disk" / f"tmpfs-{number}", bench.dice("tmpfs", number).randint(300, 1500)
        _mount(folder, f"size={size}k")
        try:
            process = bench.start(folder / "run", saving={**OFTEN, **ALL})
            failure = wrong(process, folder / "run", 0)
            _mount(folder, "remount,size=100m")
            return failure or bench.finish(folder / "run", "disk")
        finally:
            subprocess.run(["umount", str(folder)], check=True)

    def closed(number: int) -> str:
        folder = bench.work / "disk" / f"closed-{number}"
        process = bench.start(folder, weak=True)
        process.wait_for("@saved")
        time.sleep(bench.dice("closed", number).uniform(0, 0.5))
        _permit(folder, 0o555)
        since = time.monotonic()
        process.end()
        failure = wrong(process, folder, len(process.told("@saved", since)) - 1)  # one may have been on its way
        failure = failure or wrong(bench.start(folder, weak=True), folder, 0)
        _permit(folder, 0o755)
        return failure or bench.finish(folder, "disk")

    def removed(number: int) -> str:
        folder = bench.work / "disk" / f"removed-{number}"
        process = bench.start(folder)
        process.wait_for("@saved")
        time.sleep(bench.dice("removed", number).uniform(0, 0.5))
        if number % 2:
            folder.rename(folder.with_name(f"{folder.name}.elsewhere"))
        while folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
        since = time.monotonic()
        process.end()
        failure = wrong(process, folder, len(process.told("@saved", since)) - 1)
        return failure or (f"made again; {process}" if folder.exists() else "")

    must, rows = "exit code 2, one line, within one save; what was saved restores", list[Row]()
    on = f"{must}; with room again, the same outcome"
    reason, trials = _mountable(bench.work / "probe"), bench.many(1, 6)
    for phase in ("prepare", "save", "evaluate", "finish")[(3 if reason else 4) if bench.short else 0 :]:
        items = [(phase, number) for number in range(bench.many(1, 6))]
        rows.append(Row(f"no room for files, from {phase!r} on", len(items), on, bench.each("limit", limited, items)))
    failures = [] if reason else bench.each("tmpfs", mounted, range(trials))
    rows.append(Row("small tmpfs, full", trials, on, failures, skipped=reason))
    if not bench.short:
        failures = bench.each("read-only", closed, range(trials))
        rows.append(Row("directory made read-only", trials, f"{on}; until then refused", failures))
    failures = bench.each("removed", removed, range(trials))
    must = "exit code 2, one line, within one save; it is not made again"
    return [*rows, Row("directory removed, or renamed", trials, must, failures)]


def _permit(folder: Path, mode: int) -> None:
    for path in (folder, folder / records.CHECKPOINTS):
        path.chmod(mode)


def _mount(folder: Path, options: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)


def _mountable(folder: Path) -> str:
    """Return why no tmpfs can be mounted here; nothing if it can."""
    try:
        _mount(folder, "size=100k")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"cannot be mounted here: {error}"
    subprocess.run(["umount", str(folder)], check=True)
    return ""


def lock(bench: Bench) -> list[Row]:
    """Return a second process, which is refused; then the first is killed, and the next start takes over."""
    second, inside, outside, slow = list[str](), list[float](), list[float](), {**ALL, "steps": 1}

    def trial(number: int) -> str:
        folder = bench.work / "lock" / str(number)
        holder = bench.start(folder, saving=slow)
        holder.wait_for("@saved")
        other = bench.start(folder, saving=slow)
        code = other.end()
        inside.append(float((other.told("@refused") or ["inf"])[0]))
        outside.append(other.ended - other.began)
        named = f"in use by process {holder.popen.pid} " in "".join(other.lines)
        if code != 2 or len(other.lines) != 1 or not named or inside[-1] >= 1:
            second.append(f"after {inside[-1]:.2f} s: {other}")
        holder.end(kill=True)
        heir = bench.start(folder, saving=slow)
        took_over = heir.wait_for("@saved")
        heir.end(kill=True)
        return "" if took_over and heir.saved > holder.saved else str(heir)

    trials = bench.many(1, 20)
    third = bench.each("lock", trial, range(trials))
    figure = f"at most {max(inside):.2f} s after the call, {max(outside):.2f} s from exec to exit"
    return [
        Row("second process in a directory", trials, "exit code 2, one line, within 1 s of the call", second, figure),
        Row("... and the first killed", trials, "the next start takes over", third),
    ]
