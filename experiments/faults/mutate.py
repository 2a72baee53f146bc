"""What is done to files: to their bytes, to their place, and to the JSON in them. Each is a `trials.Change`."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from faults.trials import Change, Place, remove

Bytes = Callable[[bytearray, random.Random], bytes | bytearray]


def at(name: str, edit: Bytes) -> Change:
    """Return what edits the bytes of the file `name`."""

    def change(folder: Path, dice: random.Random, place: Place) -> None:
        path = folder / name
        path.write_bytes(edit(bytearray(path.read_bytes()), dice))

    return change


# ------------------------------------------------------------------------------------------------------------- bytes


def flip(content: bytearray, dice: random.Random) -> bytearray:
    """Return one bit."""
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    return content


def flip_early(content: bytearray, dice: random.Random) -> bytearray:
    """Return one bit of the first 256 bytes, where headers are."""
    content[dice.randrange(min(256, len(content)))] ^= 1 << dice.randrange(8)
    return content


def flip_late(content: bytearray, dice: random.Random) -> bytearray:
    """Return one bit of the last 256 bytes, where directories are."""
    content[-1 - dice.randrange(min(256, len(content)))] ^= 1 << dice.randrange(8)
    return content


def scatter(content: bytearray, dice: random.Random) -> bytearray:
    """Change up to 16 random bytes."""
    for _ in range(dice.randint(2, 16)):
        content[dice.randrange(len(content))] = dice.randrange(256)
    return content


def blank(content: bytearray, dice: random.Random) -> bytearray:
    """Return a stretch of zeros, as a file system leaves after a crash."""
    start = dice.randrange(len(content))
    size = min(dice.randint(1, 512), len(content) - start)
    content[start : start + size] = bytes(size)
    return content


def cut(content: bytearray, dice: random.Random) -> bytearray:
    """Truncate the file."""
    return content[: dice.randrange(len(content))]


def remove_middle(content: bytearray, dice: random.Random) -> bytearray:
    """Return some bytes are lost, and the rest moves up."""
    start = dice.randrange(len(content))
    del content[start : start + dice.randint(1, 64)]
    return content


def repeat(content: bytearray, dice: random.Random) -> bytearray:
    """Return a stretch stands there twice."""
    start = dice.randrange(len(content))
    stretch = content[start : start + dice.randint(1, 256)]
    content[start:start] = stretch
    return content


def extend(content: bytearray, dice: random.Random) -> bytearray:
    """Return more at the end: zeros, noise, or all of it again."""
    more = (bytes(dice.randint(1, 1000)), dice.randbytes(dice.randint(1, 1000)), bytes(content))
    return content + dice.choice(more)


def exchange(content: bytearray, dice: random.Random) -> bytearray:
    """Return two stretches change places."""
    size = min(16, len(content) // 2)
    a = dice.randrange(0, len(content) // 2 - size + 1)
    b = dice.randrange(len(content) // 2, len(content) - size + 1)
    content[a : a + size], content[b : b + size] = content[b : b + size], content[a : a + size]
    return content


def number(content: bytearray, dice: random.Random) -> bytearray:
    """Set four or eight bytes to a number that is at the edge of something."""
    size = dice.choice((4, 8))
    values = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
    value = dice.choice(values) % 2 ** (8 * size)
    start = dice.randrange(max(1, min(len(content), 512) - size))
    content[start : start + size] = value.to_bytes(size, dice.choice(("little", "big")))
    return content


BYTES: dict[str, Bytes] = {
    "flip": flip,
    "flip-early": flip_early,
    "flip-late": flip_late,
    "scatter": scatter,
    "blank": blank,
    "cut": cut,
    "remove": remove_middle,
    "repeat": repeat,
    "extend": extend,
    "exchange": exchange,
    "number": number,
}


# ------------------------------------------------------------------------------------------------- what is at a place


def things(name: str) -> dict[str, Change]:
    """Return changes of what is at the path `name`: other kinds of files, links, giants."""

    def instead(make: Callable[[Path, Place, bytes], None]) -> Change:
        def change(folder: Path, dice: random.Random, place: Place) -> None:
            path = folder / name
            content = path.read_bytes() if path.is_file() else b""
            remove(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path, place, content)

        return change

    def giant(path: Path, place: Place, content: bytes) -> None:
        path.write_bytes(content)
        os.truncate(path, 2**36)

    def hollow(path: Path, place: Place, content: bytes) -> None:
        with path.open("wb") as file:
            file.truncate(2**36)

    def bound(path: Path, place: Place, content: bytes) -> None:
        here = socket.socket(socket.AF_UNIX)
        os.chdir(path.parent)  # the name of a socket is short
        here.bind(path.name)
        os.chdir(place.trial)
        here.close()

    def loop(path: Path, place: Place, content: bytes) -> None:
        path.with_name("loop").symlink_to(path.name)
        path.symlink_to("loop")

    made: dict[str, Callable[[Path, Place, bytes], None]] = {
        "missing": lambda path, place, content: None,
        "empty": lambda path, place, content: path.touch(),
        "directory": lambda path, place, content: path.mkdir(),
        "fifo": lambda path, place, content: os.mkfifo(path),
        "socket": bound,
        "giant": giant,
        "hollow": hollow,
        "link-outside": lambda path, place, content: path.symlink_to(place.lend("lent", content)),
        "link-precious": lambda path, place, content: path.symlink_to(place.outside / "precious"),
        "link-nowhere": lambda path, place, content: path.symlink_to(place.outside / "nothing"),
        "link-zero": lambda path, place, content: path.symlink_to("/dev/zero"),
        "link-random": lambda path, place, content: path.symlink_to("/dev/urandom"),
        "link-memory": lambda path, place, content: path.symlink_to("/proc/self/mem"),
        "link-environment": lambda path, place, content: path.symlink_to("/proc/self/environ"),
        "link-folder": lambda path, place, content: path.symlink_to(place.outside),
        "link-loop": loop,
    }
    return {kind: instead(make) for kind, make in made.items()}


# -------------------------------------------------------------------------------------------------------------- JSON

ESCAPES = "\x1b[31mred\x1b]0;title\x07[/s] [bold] \u202ereversed\r\n"
"""What a terminal or rich would obey."""

DEEP = 100_000


def hostile_texts() -> Sequence[str]:
    """Return JSON texts that stand where a value should be."""
    return (
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1",
        "0",
        "1e308",
        "9" * 400,
        "9" * 5000,
        "1.5",
        "true",
        "null",
        "[]",
        "{}",
        '""',
        json.dumps("x" * 10**6),
        json.dumps(ESCAPES),
        '"\\ud800"',
        '"../../outside/precious"',
        '"/dev/zero"',
        '{"type": "os.system"}',
        '{"type": "Run"}',
        '{"custom": "function"}',
        '[{"a": [[]]}]',
        "[" * DEEP + "]" * DEEP,
        '{"a":' * 2000 + "1" + "}" * 2000,
        "9223372036854775808",
        "[1, 2, 3]",
        "{,}",
        "1 2",
        '"\\u0000"',
        "-0.0",
        "1E5",
        "[NaN]",
    )


class _Raw(str):
    """Text that is put into JSON as it is."""


def write_tree(tree: Any) -> str:
    """Return JSON in which `_Raw` texts stand as they are."""
    if isinstance(tree, _Raw):
        return str(tree)
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {write_tree(item)}" for key, item in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(write_tree, tree)) + "]"
    return json.dumps(tree)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values in a tree, but the tree itself."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def holder(tree: Any, path: tuple[Any, ...]) -> Any:
    """Return what holds the value at a path."""
    for key in path[:-1]:
        tree = tree[key]
    return tree


def hostile_value(tree: Any, dice: random.Random) -> Any:
    """Return one value becomes a hostile one, is taken away, or stands there twice."""
    path = dice.choice(list(places(tree)))
    inner, key = holder(tree, path), path[-1]
    what = dice.random()
    if what < 0.75:
        inner[key] = _Raw(dice.choice(hostile_texts()))
    elif what < 0.85:
        del inner[key]
    elif isinstance(inner, dict):
        other = _Raw(dice.choice(hostile_texts()))
        if what < 0.93:
            inner[key] = _Raw(f"{write_tree(inner[key])}, {json.dumps(key)}: {other}")  # the key twice
        else:
            inner[dice.choice(("extra", ESCAPES, "", "__class__", "type", "custom"))] = other
    else:
        inner.insert(key, inner[key])
    return tree


def nudged(tree: Any, dice: random.Random) -> Any:
    """Return one value becomes another of its type: what somebody would edit by hand."""
    candidates = [path for path in places(tree) if not isinstance(holder(tree, path)[path[-1]], dict | list)]
    path = dice.choice(candidates)
    inner, key = holder(tree, path), path[-1]
    value = inner[key]
    if isinstance(value, bool):
        inner[key] = not value
    elif isinstance(value, int | float):
        inner[key] = value + 1 if isinstance(value, int) else value * 1.5 + 0.25
    elif isinstance(value, str):
        inner[key] = value + "x" if not value or dice.random() < 0.5 else ("0" if value[0] != "0" else "1") + value[1:]
    else:
        inner[key] = 1
    return tree


def json_changes(name: str, *, lines: bool = False) -> dict[str, Change]:
    """Return changes of the values in a JSON file, or in one of its lines."""

    def edited(edit: Callable[[Any, random.Random], Any]) -> Change:
        def change(folder: Path, dice: random.Random, place: Place) -> None:
            path = folder / name
            if lines:
                rows = [json.loads(row) for row in path.read_text().splitlines()]
                n = dice.randrange(len(rows))
                texts = [write_tree(edit(row, dice) if i == n else row) for i, row in enumerate(rows)]
                path.write_text("\n".join(texts) + "\n", errors="surrogatepass")
            else:
                tree = edit(json.loads(path.read_text()), dice)
                path.write_text(write_tree(tree), errors="surrogatepass")

        return change

    def whole(folder: Path, dice: random.Random, place: Place) -> None:
        (folder / name).write_text(dice.choice(hostile_texts()), errors="surrogatepass")

    def encoded(folder: Path, dice: random.Random, place: Place) -> None:
        path = folder / name
        raw = path.read_bytes()
        starts = [start + raw for start in (b"\xef\xbb\xbf", b"\xff", b"//x\n", b"\n\n", raw)]
        others = [raw.replace(*pair) for pair in ((b"\n", b"\r\n"), (b":", b"="), (b'"', b"'"))]
        path.write_bytes(dice.choice([*starts, *others, raw + b"\0", raw.upper(), raw.decode().encode("utf-16")]))

    return {"value": edited(hostile_value), "nudge": edited(nudged), "whole": whole, "encoding": encoded}
