"""What newcomers type, and that each of their mistakes is answered by what they can type instead."""

from __future__ import annotations

import re
import shlex
from typing import Literal

import numpy as np
import pytest
from commands import refused

from aevae_jax.cli import repairs
from aevae_jax.cli.arguments import parse_arguments
from aevae_jax.cli.main import COMMANDS, DATA_COMMANDS, train
from aevae_jax.data import Data
from aevae_jax.models.families import Model
from aevae_jax.runs import fitting
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import AdamW

MISTAKES = {
    # commands
    "trian runs/new": "did you mean aevae train runs/new?",
    "fit runs/new": "did you mean aevae train runs/new?",
    "generate runs/done --out s.png": "did you mean aevae sample runs/done --out s.png?",
    "inspect digits": "did you mean aevae data inspect digits?",
    "data digits": "did you mean aevae data inspect digits?",
    "help train": "did you mean aevae train --help?",
    "-v": "did you mean aevae --version?",
    # values
    "train runs/new --model VEA": "did you mean --model VAE?",
    "train runs/new --model AE": "did you mean --model Autoencoder?",
    'train runs/new --model "VAE(latent=8"': 'did you mean --model "VAE(latent=8)"?',
    'train runs/new --model "VAE(latent=8))"': 'did you mean --model "VAE(latent=8)"?',
    'train runs/new --model "VAE latent=8"': 'did you mean --model "VAE(latent=8)"?',
    "train runs/new --model latent=8": 'did you mean --model "Autoencoder(latent=8)"?',
    'train runs/new --model "VAE(latent_dim=8)"': 'did you mean --model "VAE(latent=8)"?',
    'train runs/new --model "VAE(hidden=(64,))"': 'did you mean --model "VAE(network=MLP(hidden=(64,)))"?',
    'train runs/new --model "VAE(network=CNN)"': 'did you mean --model "VAE(network=Conv())"?',
    'train runs/new --model "VAE(2, Conv(channels=32))"': 'did you mean --model "VAE(2, Conv(channels=(32,)))"?',
    "train runs/new --model \"VAE(network='conv')\"": 'did you mean --model "VAE(network=Conv())"?',
    'train runs/new --optimizer "Adam(lr=3e-4)"': 'did you mean --optimizer "AdamW(learning_rate=0.0003)"?',
    "train runs/new --objective beta-vae": 'did you mean --objective "ELBO(beta=4)"?',
    "train runs/new --objective MSE": "did you mean --objective ReconstructionError?",
    'train runs/new --data "Data(digits)"': "did you mean --data \"Data('digits')\"?",
    "train runs/new --data fashionmnist": "did you mean fashion_mnist?",
    "train runs/new --data ./imags.npy": "did you mean ./images.npy?",
    "train runs/new --epochs 1e2": "did you mean --epochs 100?",
    "evaluate runs/done --split val": "did you mean --split validation?",
    # options
    "train runs/new --lr 3e-4": "did you mean --optimizer.learning_rate 3e-4?",
    "train runs/new --latent 8": "did you mean --model.latent 8?",
    "train runs/new --latent_dim=8": "did you mean --model.latent 8?",
    "train runs/new --model VAE latent=8": "did you mean --model.latent 8?",
    "train runs/new --beta 4": "did you mean --objective.beta 4?",
    "train runs/new --hidden 64": 'did you mean --model.network.hidden "(64,)"?',
    "train runs/new --channels 32": 'did you mean --model "VAE(network=Conv(channels=(32,)))"?',
    "train runs/new --model.latnet 8": "did you mean --model.latent 8?",
    "train runs/new --model.network CNN": "did you mean --model.network Conv?",
    "train runs/new --save-every 5": 'did you mean --saving "Saving(every=5)"?',
    "train runs/new --epoch 3": "did you mean --epochs 3?",
    "train runs/new --batch 64": "did you mean --batch-size 64?",
    "evaluate runs/done --sampels 50": "did you mean --samples 50?",
    # places
    "encode runs/done --input imags.npy --out z.npy": "did you mean ./images.npy?",
    "encode runs/done --out z.npy": "such as: --split test",
    "train runs/new --from runs/dnoe": "did you mean runs/done?",
    "train": 'such as: aevae train runs/first --model "VAE(latent=8, network=Conv())" --epochs 50',
    "train images.npy": "type another name, such as images-2.npy",
    "train taken": "type another name, such as taken-2",
    "evaluate runs/dnoe": "did you mean runs/done?",
    "sample runs/done": "such as: aevae sample runs/first --out samples.png --num 100",
    "sample runs/done --out s.jpg": "did you mean --out s.png?",
    "sample runs/done --out pictures/s.png": "type: mkdir -p pictures",
    "sample runs/done --out old.png": "type --out old-2.png, or --force to replace it",
}
"""What is typed after `aevae`, and how the answer ends."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a run that is not looked into, a picture, images, and a folder of something else."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/done/run.json", "old.png", "taken/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    np.save("images.npy", np.zeros((9, 4, 4), np.uint8))
    (tmp_path / "tfds/fashion_mnist/3.0.1").mkdir(parents=True)
    (tmp_path / "tfds/fashion_mnist/3.0.1/dataset_info.json").touch()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(fitting, "fit", lambda *args, **kwargs: pytest.fail("it was accepted"))


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_answered_by_what_can_be_typed(typed, place, capsys):
    line = refused(capsys, *shlex.split(typed))
    assert line.startswith("error: ")
    assert line.endswith(MISTAKES[typed])
    assert len(line) <= 200


@pytest.mark.parametrize("typed", MISTAKES)
def test_what_is_proposed_can_be_read(typed):
    [found] = re.findall(r"(?:did you mean|type:?|such as:) (?:aevae )?(.*?)(?:, or .*)?\??$", MISTAKES[typed])
    name, *rest = shlex.split(found)
    if name.startswith("--") and typed.startswith("train "):
        parse_arguments(train, ["runs/new", name, *rest], prog="x")
    elif name in COMMANDS and "--help" not in rest:
        parse_arguments(COMMANDS[name], rest, prog="x")
    elif name == "data":
        parse_arguments(DATA_COMMANDS[rest[0]], rest[1:], prog="x")


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Model, "xyz"),
        (Model, "VAE(xyz=3)"),
        (Model, "VAE(latent=8, latent_dim='x')"),
        (Model, "VAE(latent=many)"),
        (Model, "VAE(1, 2, 3, 4, 5, 6, 7, 8, 9)"),
        (Model, "a.b(c)"),
        (Model, "VAE(**x)"),
        (Model, "__import__('os')"),
        (Model, "(" * 5000),
        (Model, ")" * 300),
        (Model, "'" * 3),
        (Model, "lambda: 0"),
        (Model, ""),
        (AdamW, "SGD(lr=1)"),
        (int, "many"),
        (int, "1.5"),
        (Literal["a", "b"], "c"),
        (Data, "Data('x', nonsense=3)"),
    ],
)
def test_nothing_is_proposed_where_nothing_is_known(annotation, text):
    assert repairs.repaired(annotation, text) == ""


def test_of_the_types_that_have_a_field_the_usual_one_is_proposed():
    kinds, usual = {"--model": Model}, {"--model": Run().model}
    assert repairs.unknown_option("--latent", "8", kinds, usual) == '--model "VAE(latent=8)"'
    assert repairs.unknown_option("--latent", "8", kinds, {}) == '--model "Autoencoder(latent=8)"'
    assert repairs.unknown_option("--latent", "many", kinds, usual) == '--model "VAE(latent=16)"'  # the default
    assert repairs.unknown_option("--hleep", "", kinds, usual) == "--help"
    assert repairs.unknown_option("--xyzzy", "8", kinds, usual) == ""
    assert repairs.unknown_option("--latent", "8", kinds, usual, dotted=usual) == "--model.latent 8"
    assert repairs.unknown_option("--latent", "many", kinds, usual, dotted=usual) == "--model.latent 16"
