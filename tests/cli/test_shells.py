"""What shells propose after TAB: the scripts name all that can be typed, and bash and fish propose it."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from commands import typed

from aevae_jax.cli import arguments
from aevae_jax.cli.main import COMMANDS, DATA_COMMANDS

PROPOSED = {
    "tr": ["train", "traverse"],
    "data ": ["inspect", "prepare"],
    "train new --mod": ["--model"],
    "train new --model V": ["VAE", "VQVAE"],
    "train new --stream ": ["auto", "yes", "no"],
    "train new --data sp": ["sprites"],
    "data inspect dig": ["digits"],
    "evaluate ": ["runs/first", "runs/second"],
    "evaluate runs/s": ["runs/second"],
    "evaluate runs/first/": ["runs/first/members/seed=0"],
    "reconstruct runs/first --split ": ["train", "validation", "test"],
    "sample runs/first --out pic": ["picture.png"],
    "decompress x.aev x.npy --run runs/s": ["runs/second"],
    "completion ": ["bash", "zsh", "fish"],
}
"""What is typed after `aevae`, and what is proposed."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with runs, a picture and the scripts."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("runs/first/run.json", "runs/first/members/seed=0/run.json", "runs/second/run.json", "picture.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for shell in ("bash", "zsh", "fish"):
        (folder / f"script.{shell}").write_text(typed("completion", shell))
    return folder


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option_is_proposed(shell, place):
    script = (place / f"script.{shell}").read_text()
    for name, command in {**COMMANDS, **DATA_COMMANDS}.items():
        assert name in script
        options = [label for label in arguments.Parser(command, "x").kinds if label.startswith("--")]
        assert [label for label in options if label.lstrip("-") not in script] == []
    if shutil.which(shell):
        subprocess.run([shell, "-n", place / f"script.{shell}"], check=True)


def words(out):
    return [sorted(line.split()) for line in out.splitlines()]


def test_bash_proposes_what_can_be_typed(place):
    lines = ["source script.bash"]
    for text in PROPOSED:
        given = " ".join(map(repr, ["aevae", *text.split(" ")]))
        lines += [
            f"COMP_WORDS=({given}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMPREPLY=()",
            '_shtab_aevae aevae "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"; echo "${COMPREPLY[@]}"',
        ]
    done = subprocess.run(["bash"], input="\n".join(lines), cwd=place, capture_output=True, text=True, check=True)
    assert dict(zip(PROPOSED, words(done.stdout), strict=True)) == {name: sorted(x) for name, x in PROPOSED.items()}


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_proposes_what_can_be_typed(place):
    lines = ["source script.fish"]
    lines += [f"echo (complete -C 'aevae {text}' | string split -f 1 \\t)" for text in PROPOSED]
    done = subprocess.run(
        ["fish", "--no-config", "-c", "\n".join(lines)],
        cwd=place,
        env={**os.environ, "HOME": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert dict(zip(PROPOSED, words(done.stdout), strict=True)) == {name: sorted(x) for name, x in PROPOSED.items()}
