"""Subjects: what is typed for an option."""

from __future__ import annotations

import ast
import dataclasses
import os
import random
from pathlib import Path
from typing import Any

from faults.mutate import BYTES, ESCAPES, at
from faults.trials import FREE, Change, Place, Subject

WARM = ("aevae_jax.runs.run", "aevae_jax.values")
"""What a worker imports before its first trial."""

SOUND = {
    "data": "Data('digits', DynamicBinarization(), splits=RandomSplits(), size=(8, 8), categorical=('a', 'b'))",
    "model": "VAE(8, Conv(channels=(8, 16)), likelihood=Bernoulli(), latent_prior=VampPrior(components=5))",
    "objective": "IWAE(num_samples=50)",
    "optimizer": "AdamW(0.001, warmup=5, cosine=True)",
    "epochs": "20",
    "ema": "0.999",
}


def subjects() -> list[Subject]:
    """Return each option, and sizes that no machine has."""
    return [*(_option(name, text) for name, text in SOUND.items()), _sizes()]


def _option(name: str, text: str) -> Subject:
    def write(folder: Path) -> None:
        (folder / "text").write_text(text)

    def read(folder: Path) -> Any:
        import typing

        from aevae_jax import values
        from aevae_jax.runs.run import Run

        hint = typing.get_type_hints(Run)[name]
        value = values.parse(hint, os.fsdecode((folder / "text").read_bytes()), f"--{name}")
        if values.parse(hint, values.spell(value), "again") != value:
            raise AssertionError(f"{values.spell(value)} does not spell {value!r}")
        return {"values": plain(value), "sha256": values.digest(value)}

    changes: dict[str, tuple[int, Change]] = {
        kind: (25 if kind in ("flip", "cut", "scatter") else 8, at("text", edit)) for kind, edit in BYTES.items()
    }
    changes |= {f"text-{n}": (1, _instead(n)) for n in range(len(TEXTS))}
    changes["within"] = (40, _within)
    return Subject(name, write, read, changes, reference)


def plain(value: Any) -> Any:
    """Return a value as dicts and lists, with all numbers as floats: 1 and 1.0 are one value where a float is asked
    for.
    """
    if dataclasses.is_dataclass(value):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def reference(folder: Path) -> Any:
    """Return what Python itself would make of the text, if its names were the classes."""
    from aevae_jax import data
    from aevae_jax.models import architectures, autoencoder, likelihoods, priors, two_level, vae
    from aevae_jax.objectives import losses
    from aevae_jax.training import optimizers

    modules = (architectures, data, likelihoods, autoencoder, vae, two_level, losses, optimizers, priors)
    classes: dict[str, Any] = {
        name.lower(): found
        for module in modules
        for name, found in vars(module).items()
        if dataclasses.is_dataclass(found)
    }

    def build(node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -build(node.operand)
        if isinstance(node, ast.Tuple | ast.List):
            return tuple(map(build, node.elts))
        if isinstance(node, ast.Name):
            return classes[node.id.lower()]()
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Name)
        made = classes[node.func.id.lower()]
        return made(*map(build, node.args), **{str(word.arg): build(word.value) for word in node.keywords})

    text = os.fsdecode((folder / "text").read_bytes()).strip()
    try:
        return plain(build(ast.parse(text, mode="eval").body))
    except (KeyError, SyntaxError):  # a name of data needs no quotes
        return plain(data.Data(text))


TEXTS: tuple[str | bytes, ...] = (
    "",
    " ",
    "None",
    "nan",
    "inf",
    "-1",
    "0",
    "1e400",
    "-1e400",
    "1e308",
    "9" * 400,
    "9" * 5000,
    "0x10",
    "1_000",
    "1j",
    "True",
    "...",
    "()",
    "(1,)",
    "[1]",
    "{}",
    "{1: 2}",
    "lambda: 1",
    "x if y else z",
    "f'{1}'",
    "b'x'",
    "*x",
    "a.b",
    "a[0]",
    "__import__('os').system('touch ../executed')",
    "VAE(latent=__import__('os').system('touch ../executed'))",
    "Data(open('../executed', 'w'))",
    "exec('x')",
    "type",
    "VAE",
    "VAE(",
    "VAE)",
    "VAE()()",
    "VAE(latent=8",
    "VEA()",
    "beta-vae",
    "VAE(8, latent=8)",
    "VAE(latent=8, latent=9)",
    "VAE(**{})",
    "VAE(type='Data')",
    "VAE(custom=1)",
    "VAE(network=VAE())",
    "ELBO(ELBO())",
    "(" * 90 + ")" * 90,
    "(" * 5000 + ")" * 5000,
    "-" * 5000 + "1",
    "1" + "+1" * 5000,
    "VAE(" * 1000 + ")" * 1000,
    "x" * 10**7,
    "'" * 10**6,
    "(" + "1, " * 10**6 + ")",
    ESCAPES,
    "[/s]",
    "\0",
    "\ud800",
    b"\xff\xfe",
    "VAE(latent='\x1b[31m')",
    "VAE(latent=1e1)",
    "VAE(latent=8.0)",
    "VAE(latent=True)",
    "VAE(latent=None)",
    "Data('x.npy', levels=10**9)",
    "Data('~nosuchuser/x.npy')",
    "Data('\\0')",
    "Data('a' * 10**9)",
    "DIGITS",
    "digits\n",
    "Data(name='digits', preparation=Scale)",
    "Data(name=Scale())",
    "Data(splits=RandomSplits(validation=nan))",
    "AdamW(nan)",
    "AdamW(-1.0)",
    "AdamW(learning_rate=1e400)",
    "IWAE(0)",
    "IWAE(10**12)",
    "IWAE(1.5)",
    "ELBO(beta=inf)",
    "ELBO(beta=-0.0)",
    "ELBO(free_bits=nan)",
    "Conv(channels=())",
    "Conv(channels=(0,))",
    "MLP((10**30,))",
)


def _instead(n: int) -> Change:
    """Return one of these in place of the text."""

    def change(folder: Path, dice: random.Random, place: Place) -> Any:
        text = TEXTS[n]
        (folder / "text").write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
        return FREE

    return change


def _within(folder: Path, dice: random.Random, place: Place) -> Any:
    """Return a hostile text in place of one of the values that are typed."""
    text = (folder / "text").read_text()
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant | ast.Tuple | ast.Call)]
    node = dice.choice(nodes)
    assert node.end_col_offset is not None
    other = dice.choice(TEXTS)
    other = other.encode(errors="surrogatepass") if isinstance(other, str) else other
    content = text.encode()
    (folder / "text").write_bytes(content[: node.col_offset] + other + content[node.end_col_offset :])
    return FREE


# --------------------------------------------------------------------------------------------------------------- sizes

SIZES: tuple[tuple[str, str], ...] = (
    ("model", "VAE(latent=1000000000)"),
    ("model", "VAE(latent=1000000000000)"),
    ("model", "VAE(network=MLP((1000000000,)))"),
    ("model", "VAE(network=MLP((100000, 100000)))"),
    ("model", "VAE(network=Conv((1000000000,)))"),
    ("model", "VAE(network=Conv((8, 1000000000)))"),
    ("model", "VAE(likelihood=Categorical(levels=1000000000))"),
    ("model", "VAE(likelihood=DiscretizedLogistic(levels=1000000000))"),
    ("model", "VAE(latent_prior=VampPrior(components=1000000000))"),
    ("model", "VAE(latent_prior=VampPrior(components=100000000000000))"),
    ("objective", "IWAE(1000000000)"),
    ("objective", "IWAE(100000000000000000000)"),
    ("batch_size", "1000000000000"),
    ("batch_size", "100000000000000000000"),
    ("epochs", "100000000000000000000"),
    ("patience", "100000000000000000000"),
    ("data", "Data('digits', size=(1000000000, 1000000000))"),
    ("optimizer", "AdamW(warmup=100000000000000000000)"),
)
"""Refused before memory or hours are taken; epochs and patience are only numbers, and the training is stopped."""


def _sizes() -> Subject:
    def write(folder: Path) -> None:
        (folder / "text").write_text("model\nVAE(latent=2, network=MLP((8,)))")

    def read(folder: Path) -> Any:
        import typing

        from aevae_jax import values
        from aevae_jax.runs import fitting
        from aevae_jax.runs.run import Run

        option, text = (folder / "text").read_text().splitlines()
        value = values.parse(typing.get_type_hints(Run)[option], text, f"--{option}")
        model = values.parse(typing.get_type_hints(Run)["model"], "VAE(latent=2, network=MLP((8,)))", "")
        small: Any = {"epochs": 1, "batch_size": 256, "model": model}
        try:
            fitting.fit(Run(**{**small, option: value}), on_epoch=_stop)
        except _Stop:
            return "trained"
        return "trained"

    changes = {f"size-{n}": (1, _size(n)) for n in range(len(SIZES))}
    return Subject("sizes", write, read, changes)


class _Stop(Exception):
    """After the first epoch."""


def _stop(epoch: Any) -> None:
    raise _Stop


def _size(n: int) -> Change:
    def change(folder: Path, dice: random.Random, place: Place) -> Any:
        (folder / "text").write_text("\n".join(SIZES[n]))
        return FREE

    return change
