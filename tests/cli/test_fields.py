"""Values that are typed on top of others: fields of fields, `--config`, `--from`."""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import pytest

from aevae_jax import values
from aevae_jax.cli import main
from aevae_jax.cli.arguments import BY_FIELD, parse_arguments
from aevae_jax.cli.fields import Fields
from aevae_jax.models import VAE, VQVAE, Autoencoder
from aevae_jax.models.architectures import MLP, Conv
from aevae_jax.models.code_priors import MarginalCodes
from aevae_jax.objectives.losses import ELBO, ReconstructionError
from aevae_jax.runs import fitting, records
from aevae_jax.runs.run import Run, Safeguard
from aevae_jax.training.optimizers import AdamW

pytestmark = pytest.mark.usefixtures("no_pictures")


def typed(run: Annotated[Fields[Run], BY_FIELD], *, out: str = "") -> Fields[Run]:
    return run


def value(*argv, base=None):
    return parse_arguments(typed, argv, prog="x")().value(base)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--model.latent", "8"], Run(model=VAE(latent=8))),
        (["--model.latent=8", "--epochs", "3"], Run(model=VAE(latent=8), epochs=3)),
        (["--model", "vae(latent=4, network=conv)", "--model.latent", "8"], Run(model=VAE(latent=8, network=Conv()))),
        (["--model.network.hidden", "(7, 5)"], Run(model=VAE(network=MLP((7, 5))))),
        (["--model.network", "Conv()"], Run(model=VAE(network=Conv()))),
        (["--objective.beta", "4", "--optimizer.learning-rate=1e-2"], Run(objective=ELBO(4.0), optimizer=AdamW(1e-2))),
        (["--objective.beta", "LinearWarmup(10)"], Run(objective=values.parse(ELBO, "ELBO(LinearWarmup(10))", ""))),
        (["--safeguard.max_norm", "5"], Run(safeguard=Safeguard(max_norm=5.0))),
    ],
)
def test_a_field_of_a_field_is_an_option(argv, expected):
    assert value(*argv) == expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--model.laten", "8"],
            "--model.laten: got no field 'laten' in VAE(), expected latent, .*did you mean --model.latent 8?",
        ),
        (["--model.latent", "many"], "--model.latent: got many, expected an integer"),
        (["--model.latent"], "--model.latent: got nothing, expected a value: --model.latent VALUE"),
        (
            ["--model.latent.more", "3"],
            "--model.latent.more: got no field 'more' in 16, expected a value that has fields",
        ),
        (["--model.latent", "0"], "latent"),
        (["--optimiser.beta", "3"], "--optimiser.beta: got no field 'optimiser'.*did you mean --optimizer.beta?"),
    ],
)
def test_what_is_no_field_of_a_field_is_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        value(*argv)
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert len(shown) < 320
    assert all(part in shown for part in message.split(".*"))


def test_fields_are_typed_on_top_of_another_value():
    base = Run(model=Autoencoder(latent=3), epochs=7, seed=5)
    assert value("--epochs", "9", base=base) == Run(model=Autoencoder(latent=3), epochs=9, seed=5)
    assert value("--model.latent", "4", base=base) == Run(model=Autoencoder(latent=4), epochs=7, seed=5)


def test_fields_of_another_value_are_no_mistake_where_one_is_given():
    """A prior of discrete codes is none of the usual model."""

    def trained(run: Annotated[Fields[Run], BY_FIELD], *, origin: str = "") -> Fields[Run]:
        return run

    argv = ["--model.latent_prior", "MarginalCodes()", "--origin", "runs/vq"]
    fields = parse_arguments(trained, argv, prog="x", bases=("origin",))()
    assert fields.value(Run(model=VQVAE())).model == VQVAE(latent_prior=MarginalCodes())
    with pytest.raises(SystemExit):
        parse_arguments(trained, argv[:2], prog="x", bases=("origin",))


# the command


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    np.save(folder / "x.npy", np.random.RandomState(0).randint(0, 256, (60, 3, 3, 1)).astype(np.uint8))
    model = "VAE(2, MLP((4,)), Normal(1.0), StandardNormal())"
    run_main("train", folder / "run", "--data", folder / "x.npy", "--model", model, "--epochs", 2, "--batch-size", 10)
    return folder / "run"


def run_main(*argv):
    main.main([str(word) for word in argv])


def refused(capsys, *argv):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_main(*argv)
    assert stop.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_run_goes_on_from_another_with_what_is_typed(old, tmp_path, capsys):
    run_main("train", tmp_path / "longer", "--from", old, "--epochs", 3)
    assert f"going on from epoch 2 of {old}: as if all 3 had been asked for at once" in capsys.readouterr().err
    first, longer = fitting.load_run(old), fitting.load_run(tmp_path / "longer")
    assert values.to_tree(longer.run) == {**values.to_tree(first.run), "epochs": 3}
    assert longer.losses[: first.losses.size].tobytes() == first.losses.tobytes()
    assert len(longer.history) == 3
    run_main("train", tmp_path / "other", "--from", old, "--objective.beta", "2", "--epochs", 1)
    assert "beginning at the weights of epoch" in capsys.readouterr().err
    assert fitting.load_run(tmp_path / "other").run.objective == ELBO(2.0)
    run_main("train", tmp_path / "kept", "--from", old, "--seed", 4, "--epochs", 1, "--keep-optimizer")
    assert "with the state of its optimizer" in capsys.readouterr().err
    run_main("reproduce", tmp_path / "kept")
    assert "PASS (bitwise)" in capsys.readouterr().out


def test_what_is_wrong_with_where_a_run_is_to_begin_is_one_line(old, tmp_path, capsys):
    new = tmp_path / "new"
    assert "no run.json" in refused(capsys, "train", new, "--from", tmp_path / "none")
    line = refused(capsys, "train", old, "--from", old, "--epochs", 9)
    assert "the run that is to be trained" in line
    assert "try more --epochs" in refused(capsys, "train", new, "--from", old)
    line = refused(capsys, "train", new, "--from", old, "--model.latent", 3)
    assert "weights 'decoder/" in line
    assert "as in the model to be trained" in line
    assert "expected --from RUN" in refused(capsys, "train", new, "--keep-optimizer")
    line = refused(capsys, "train", new, "--from", old, "--data", "digits")
    assert "event_shape of the model: got (3, 3, 1), expected (8, 8, 1), as in digits" in line
    assert not new.exists()


def test_more_epochs_in_the_same_directory_are_told_what_to_type(old, capsys):
    line = refused(capsys, "train", old, "--config", old / "run.json", "--epochs", 9)
    assert f"to go on from it: aevae train {old}-2 --from {old} --epochs 9" in line
    for changed in (("--seed", 9), ("--epochs", 1)):
        assert "--from" not in refused(capsys, "train", old, "--config", old / "run.json", *changed)


def test_a_printed_value_is_read_again(old, tmp_path, capsys):
    argv = ["--model", "autoencoder(latent=3)", "--epochs", 4, "--optimizer.learning_rate", 0.5]
    run_main("train", tmp_path / "x", "--print-config", *argv)
    text = capsys.readouterr().out
    assert values.from_tree(Run, json.loads(text), "") == Run(
        model=Autoencoder(latent=3), epochs=4, optimizer=AdamW(0.5), objective=ReconstructionError()
    )
    (tmp_path / "value.json").write_text(text)
    run_main("train", tmp_path / "x", "--print-config", "--config", tmp_path / "value.json", "--epochs", 5)
    assert json.loads(capsys.readouterr().out) == {**json.loads(text), "epochs": 5}
    run_main("train", tmp_path / "x", "--print-config", "--config", old / "run.json")
    assert json.loads(capsys.readouterr().out) == records.read_record(old)["run"]
    assert not (tmp_path / "x").exists()


def test_another_model_has_its_own_loss_but_where_one_was_chosen(old, tmp_path, capsys):
    (tmp_path / "value.json").write_text(values.to_json(Run()))
    run_main("train", tmp_path / "x", "--print-config", "--config", tmp_path / "value.json", "--model", "autoencoder")
    assert json.loads(capsys.readouterr().out)["objective"]["type"] == "ReconstructionError"
    (tmp_path / "value.json").write_text(values.to_json(Run(objective=ELBO(3.0))))
    line = refused(capsys, "train", tmp_path / "x", "--config", tmp_path / "value.json", "--model", "autoencoder")
    assert "objective of an Autoencoder: got ELBO" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", 'expected a run: an object of "type" "Run"'),
        ("[]", 'expected a run: an object of "type" "Run"'),
        ("{", "got an unreadable file"),
        ('{"type": "Run", "moment": 3}', "unknown field 'moment'"),
        ('{"type": "Run", "epochs": "many"}', "expected an integer"),
    ],
)
def test_a_file_that_holds_no_value_is_one_line(tmp_path, capsys, text, message):
    (tmp_path / "value.json").write_text(text)
    assert message in refused(capsys, "train", tmp_path / "x", "--config", tmp_path / "value.json")


def test_an_edited_record_is_no_value(old, tmp_path, capsys):
    record = records.read_record(old)
    record["run"]["epochs"] = 7
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert "sha256" in refused(capsys, "train", tmp_path / "x", "--config", tmp_path / "run.json")
    assert "expected a run.json" in refused(capsys, "train", tmp_path / "x", "--config", tmp_path / "none.json")
