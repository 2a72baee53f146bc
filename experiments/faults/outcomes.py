"""What a training computes: with NaN in it, from checkpoints with damage, from any step, on another machine."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aevae_jax.runs import records
from aevae_jax.types import InputError
from faults.bench import ALL, PER_EPOCH, Bench, Row
from faults.child import OFTEN


def damage(bench: Bench) -> list[Row]:
    """Damage every file of a checkpoint, and the weights of a finished run; here files suffer, and not processes."""
    import numpy as np

    from aevae_jax.checkpoints.saving import DamageError
    from aevae_jax.checkpoints.store import Store
    from aevae_jax.runs.fitting import load_run

    whole, folder, dice = bench.whole(), bench.work / "damage", bench.dice("damage")
    new, old, rows = bench.epochs * PER_EPOCH, bench.epochs * PER_EPOCH - 1, list[Row]()
    files: dict[int, list[Path]] = {}
    for step in (old, new):
        shutil.copytree(whole / records.CHECKPOINTS / str(step), folder / str(step))
        files[step] = sorted(path for path in (folder / str(step)).rglob("*") if path.is_file())
    store = Store(folder)
    _, intact, _ = bench.restore(store, until=old)

    def restored(paths: list[Path]) -> str:
        try:
            step, arrays, notes = bench.restore(store)
        except DamageError as error:
            return "" if len(paths) == 2 else f"{error}"
        same = all(np.array_equal(a, arrays[name], equal_nan=True) for name, a in intact.items())
        named = len(notes) == 1 and notes[0].startswith(f"checkpoint of step {new} ")
        return "" if step == old and same and named and len(paths) == 1 else f"silently restored {step}: {notes}"

    def loaded(paths: list[Path]) -> str:
        try:
            load_run(paths[0].parent)
        except InputError:
            return ""
        return "silently loaded"

    shutil.copytree(whole, folder / "finished", ignore=shutil.ignore_patterns(records.CHECKPOINTS))
    weights = [folder / "finished" / "weights.safetensors"]
    for kind, (targets, look) in [(k, t) for t in ((files[new], restored), (weights, loaded)) for k in DAMAGE]:
        failures, both = list[str](), 0
        for path in targets * (times := bench.many(1, 50)):
            paths = [path, dice.choice(files[old])] if look is restored and dice.random() < 0.2 else [path]
            both += len(paths) == 2
            contents = [file.read_bytes() for file in paths]
            for file in paths:
                DAMAGE[kind](file, dice)
            try:
                wrong = look(paths)
            except Exception as error:
                wrong = f"{type(error).__name__}: {error}"
            if wrong:
                failures.append(f"{[str(file.relative_to(folder)) for file in paths]}: {wrong}")
            for file, content in zip(paths, contents, strict=True):
                file.write_bytes(content)
        must, title = "load_run refuses", f"weights of a finished run {kind}"
        if look is restored:
            must, title = "the older one restores, the damage is named; DamageError if both are", f"checkpoint {kind}"
        figure = f"{len(targets)} file(s), {times} times each" + (f", {both} times both damaged" if both else "")
        rows.append(Row(title, len(targets) * times, must, failures, figure))
    return rows


def _flip(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path, random.Random], None]] = {
    "with a bit flipped": _flip,
    "truncated": lambda path, dice: os.truncate(path, dice.randrange(path.stat().st_size)),
    "deleted": lambda path, dice: path.unlink(),
}


def nan(bench: Bench) -> list[Row]:
    """Put NaN into the batch, the loss, the gradient or the parameters, for some steps or for ever."""
    import numpy as np

    from aevae_jax.checkpoints.store import Store

    epochs, rows = bench.many(2, 4), list[Row]()
    cases = {
        "1 to 4 steps": (1, 4, "they are skipped and counted, and nothing else"),
        "more in a row": (
            5,
            19,
            "they are skipped after a rollback, once for every 5 (params: up to 3 times), and finishes",
        ),
        "ever": (10**6, 10**6, "exit code 2, one line that names the step, after 3 rollbacks"),
    }

    def trial(item: tuple[str, int]) -> str:
        (low, high, _), dice, folder = cases[item[0]], bench.dice("nan", *item), bench.work / "nan" / f"{item}"
        places = ["batch", "loss", "gradient", "params"][: 3 if high < 5 else 4]  # spoiled params spoil what follows
        place, first = places[item[1] % len(places)], dice.randint(1, PER_EPOCH * epochs - 45)
        steps = dice.randint(low, 6 if place == "params" and high < 20 else high)
        process = bench.start(
            folder,
            epochs=epochs,
            saving={**OFTEN, **ALL},
            poison={"first": first, "after": first + steps, "place": place},
        )
        code, back = process.end(), sum("rolled back" in line for line in process.told("note:"))
        if high > 19:
            step = int("".join(process.told("error: step")).partition(" ")[0] or -1)
            named = step > first if place == "params" else step == first + 15
            sound = code == 2 and len(process.lines) == 1 and named and back == 3
        else:
            log = records.read_json(folder / "metrics.jsonl", lines=True)
            skipped = sum(entry["skipped"] for entry in log)
            sound = code == 0 and (1 <= back <= 3 if place == "params" else back == steps // 5)
            sound &= skipped == steps if high < 5 else skipped >= steps
        store = Store(folder / records.CHECKPOINTS)
        for step in store.steps():
            found, arrays, notes = bench.restore(store, step)
            numbers = [a for name, a in arrays.items() if a.dtype.kind == "f" and "logged" not in name]
            bench.outcomes["checkpoints"] += 1
            if found != step or notes or not all(np.isfinite(a).all() for a in numbers):
                return f"checkpoint of step {step}: {notes or 'not finite'}"
        shutil.rmtree(folder)
        return "" if sound else f"{place}, from step {first} for {steps}: rolled back {back} times; {process}"

    for number, (title, (*_, must)) in enumerate(cases.items()):
        if bench.short and number < 2:  # the last skips steps and makes rollbacks, too
            continue
        items = [(title, trial) for trial in range(bench.many(1, 17 - (number == 2)))]
        failures, read = bench.each("NaN for", trial, items), bench.outcomes.pop("checkpoints", 0)
        figure = f"{read} checkpoints were read, and all must be free of NaN"
        rows.append(Row(f"NaN for {title}", len(items), must, failures, figure))
    return rows


def resume(bench: Bench) -> list[Row]:
    """Return a copy of the undisturbed run, as it was when a step had just been saved, goes on."""

    def trial(item: tuple[bool, int]) -> str:
        stream, step = item
        later = [str(s) for s in range(step + 1, bench.epochs * PER_EPOCH + 1)]
        ignored = shutil.ignore_patterns("weights.*", "losses.*", "results.*", "*.png", *later)
        folder = Path(shutil.copytree(bench.whole(), bench.work / "resume" / f"{stream}-{step}", ignore=ignored))
        return bench.finish(folder, "resume", step, stream=stream, window=32 * 64 * 10)

    rows, trials = [], bench.many(1, 15)
    for stream in (False, True)[bench.many(1, 0) :]:
        steps = bench.dice("resume", stream).sample(range(1, bench.epochs * PER_EPOCH), trials)
        failures = bench.each("resume", trial, [(stream, step) for step in steps])
        title = f"going on at any step, data {'streamed' if stream else 'on the device'}"
        rows.append(Row(title, trials, "the outcome is the same", failures))
    return rows


def machines(bench: Bench) -> list[Row]:
    """Return fresh processes; fewer cores; another Python."""
    import numpy as np

    trials, whole, folder = bench.many(0, 3), bench.whole(), bench.work / "machines"
    failures = bench.each("machines", lambda n: bench.finish(folder / f"{n}", "machines", cache=n > 0), range(trials))
    figure = "the first compiled everything anew"
    rows = [Row("another process", trials, "the outcome is the same", failures, figure)] if trials else []
    others: list[tuple[str, str, dict[str, Any]]] = [
        ("1 core in place of 2", "" if len(os.sched_getaffinity(0)) > 1 else "there is only 1", {"cores": 1}),
        ("Python 3.12", "" if bench.python12 else "give --python12 an interpreter", {"python": bench.python12}),
    ]
    must = "the losses of 20 steps within 1e-5, the test bound within 1 %, relative"
    for name, reason, options in others:
        if reason:
            rows.append(Row(name, 0, must, skipped=reason))
            continue
        process = bench.start(folder / name, cache=False, **options)
        if process.end():
            rows.append(Row(name, 1, must, [str(process)]))
            continue
        one, two = (np.load(path / "losses.npy").astype(np.float64) for path in (whole, folder / name))
        off = np.abs(one - two) / np.abs(one)
        bounds = [records.read_json(path / "results.json")["test"]["negative_elbo"] for path in (whole, folder / name)]
        bound = abs(bounds[0] - bounds[1]) / abs(bounds[0])
        figure = f"losses differ by up to {off[:20].max():.1e} in 20 steps, {off[:100].max():.1e} in 100, "
        figure += f"{off.max():.1e} in all {len(off)}; the bound by {bound:.1e}" + ("" if off.any() else "; equal bits")
        rows.append(Row(name, 1, must, [figure] if off[:20].max() > 1e-5 or bound > 0.01 else [], figure))
    return rows
