"""A training that is killed, asked to stop, or left by an exception."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter, defaultdict
from typing import Any

from aevae_jax.checkpoints.signals import EXIT_CODE
from faults.bench import AGAIN, PER_EPOCH, Bench, Row
from faults.child import OFTEN


def kills(bench: Bench) -> list[Row]:
    """Kill half at any time of a process's life, half at an operation on files."""
    return _killed(bench, "kills", bench.many(1, 200), bench.many(1, 10))


def sweeps(bench: Bench) -> list[Row]:
    """Do the same to a sweep, whose members are trained as one."""
    return _killed(bench, "sweeps", bench.many(1, 20), bench.many(1, 5), sweep=True)


def _killed(bench: Bench, section: str, total: int, each: int, *, sweep: bool = False) -> list[Row]:
    """Return the rows of so many kills, each run being killed some times before it may finish."""
    lost, phases, starts = list[str](), Counter[str](), Counter[str]()
    bench.whole(sweep)  # fills the cache
    life = {True: 6.0, False: 12.0}  # seconds
    for cache in () if bench.short else life:
        process = bench.start(bench.work / section / f"life-{cache}", cache=cache, sweep=sweep)
        process.end()
        life[cache] = process.ended - process.began

    def series(number: int) -> str:
        folder, saved, cache = bench.work / section / str(number), -1, bench.short or number % 5 > 1
        dice, wrong, done = bench.dice(section, number), list[str](), 0
        while done < each:
            fault: dict[str, Any] = {}
            if done % 2:
                phase, most = dice.choice([("", 1500), ("", 1500), ("save", 300), ("clean up", 60), ("finish", 12)])
                fault = {"kind": "kill", "phase": phase, "n": round(most ** dice.random()), "late": dice.random() < 0.5}
            process = bench.start(folder, cache=cache, fault=fault, sweep=sweep)
            if not fault:
                time.sleep(dice.uniform(0, life[cache]))
            code = process.end(kill=not fault)
            starts[str(cache)] += 1
            if code == -signal.SIGKILL:
                done, saved = done + 1, max(saved, process.saved)
                phases[process.phase] += 1
                if (newest := bench.newest(folder, sweep)) < saved:
                    lost.append(f"{saved} was acknowledged in {folder.name}, the newest is {newest}; {process}")
            elif code:
                wrong.append(f"a start failed in {folder.name}: {process}")
                shutil.rmtree(folder)
                done, saved = done + 1, -1
            else:  # it ended before it could be killed
                wrong.append(bench.finish(folder, section, sweep=sweep))
                saved = -1
        return "; ".join(filter(None, [*wrong, bench.finish(folder, section, sweep=sweep)]))

    failures = bench.each(section, series, range(total // each))
    during = "during " + ", ".join(f"{phase} {n}" for phase, n in phases.most_common())
    figure = f"{bench.outcomes[section]} finished, after {starts.total()} starts, {starts['False']} without a cache"
    return [
        Row("SIGKILL", phases.total(), "every acknowledged checkpoint, or a newer one, restores", lost, during),
        Row("... and then", bench.outcomes[section], AGAIN, failures, figure),
    ]


def signals(bench: Bench) -> list[Row]:
    """Send signals at any moment of preparation, training, evaluation and saving."""
    import numpy as np

    names = ["SIGTERM"] * bench.many(1, 50) + ["SIGINT"] * bench.many(0, 50) + ["SIGUSR1"] * bench.many(0, 10)
    bench.dice("signals").shuffle(names)
    failed, took, before = defaultdict[str, list[str]](list), defaultdict[str, list[float]](list), list[float]()
    late, per, rows = Counter[str](), bench.many(1, 11), list[Row]()

    def series(number: int) -> str:
        folder, dice, wrong = bench.work / "signals" / str(number), bench.dice("signals", number), list[str]()
        left = names[number * per : number * per + per]
        while left:
            process, early = bench.start(folder), not bench.short and dice.random() < 0.15
            process.wait_for("@phase prepare" if early else "@saved")
            time.sleep(dice.uniform(0, 3) if early else dice.uniform(0, 0.8))
            sent = time.monotonic()
            process.popen.send_signal(getattr(signal, left[0]))
            code = process.end()
            if (folder / "results.json").exists():  # it was finished before, or nearly so
                late[left[0]] += 1
                wrong.append(bench.finish(folder, "signals"))
                continue
            (took[left[0]] if process.told("@saved", before=sent) else before).append(process.ended - sent)
            told = f"stopped by {left[0]}, saved at step {bench.newest(folder)}: "
            if code != EXIT_CODE or len(process.lines) != 1 or not process.lines[0].startswith(told):
                failed[left[0]].append(f"not {told!r} in {folder.name}: {process}")
            left = left[1:]
        return "; ".join(filter(None, [*wrong, bench.finish(folder, "signals")]))

    failures = bench.each("signals", series, range(len(names) // per))
    must = f"exit code {EXIT_CODE}, one line, saved at the step that it names"
    for name in sorted(set(names)):
        parts = np.percentile(took[name] or [np.nan], [50, 95, 100])
        figure = "exit after {:.2f} s (median), {:.2f} s (95 %), {:.2f} s (most)".format(*parts)
        figure += f"; {late[name]} more came after the last step"
        rows.append(Row(name, names.count(name), must, failed[name], figure))
    figure = f"{len(before)} signals came before a first checkpoint: exit after at most {max(before, default=0):.1f} s"
    rows.append(Row("... and then", bench.outcomes["signals"], AGAIN, failures, figure))
    return rows


def exits(bench: Bench) -> list[Row]:
    """Let processes end by themselves, and from within `on_epoch` or the training."""
    cases = {
        "return": ("", 0),
        "exception in on_epoch": ("epoch", 1),
        "sys.exit in on_epoch": ("epoch", 3),
        "exception in training": ("train", 1),
    }

    def trial(item: tuple[str, int]) -> str:
        (phase, code), dice = cases[item[0]], bench.dice("exits", *item)
        folder = bench.work / "exits" / f"{item}"
        n = dice.randint(1, bench.epochs) if phase == "epoch" else dice.randint(3, 8)
        fault = {"kind": "raise", "phase": phase, "n": n, "exit": code == 3}
        process = bench.start(folder, saving=OFTEN if phase == "train" else {"seconds": 1e6}, fault=fault)
        process.end()
        asked = {"": bench.epochs, "epoch": n}.get(phase, 0) * PER_EPOCH or process.saved
        newest, code_too = bench.newest(folder), process.popen.returncode
        return "" if (newest, code_too) == (asked, code) and asked > 0 else f"{asked} asked, newest {newest}; {process}"

    rows, trials = [], bench.many(1, 10)
    for title, (phase, code) in list(cases.items())[bench.many(1, 0) : bench.many(2, 4)]:
        failures = bench.each("exits", trial, [(title, number) for number in range(trials)])
        asked = "that was acknowledged last" if phase == "train" else "of the last epoch, never due before,"
        rows.append(Row(title, trials, f"exit code {code}; the checkpoint {asked} is there", failures))
    return rows
