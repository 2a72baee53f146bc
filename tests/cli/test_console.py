"""What the command line and the experiments share: values as they are typed, errors of one line, a line of progress."""

from __future__ import annotations

import contextlib
import io
import math
import shlex
import subprocess
import sys
import typing
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pytest

from aevae_jax import durable, values
from aevae_jax.cli import arguments, console
from aevae_jax.data import Data, DynamicBinarization
from aevae_jax.models import VAE, Autoencoder
from aevae_jax.models.architectures import Conv
from aevae_jax.objectives.losses import ELBO, LinearWarmup
from aevae_jax.objectives.total_correlation import BetaTCVAE
from aevae_jax.runs import progress
from aevae_jax.runs.run import Run, unsized
from aevae_jax.runs.snapshots import Epoch, Steps
from aevae_jax.types import InputError

HINTS = typing.get_type_hints(Run)


def test_importing_it_waits_for_no_other_library():
    code = (
        "import sys; import aevae_jax.cli.console;"
        "print([name for name in ('jax', 'numpy', 'flax', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------------------------------- values as they are typed

TYPED = [
    ("data", Data(), "Data()"),
    ("data", Data("fashion_mnist", DynamicBinarization()), None),
    ("model", VAE(), "VAE()"),
    ("model", VAE(latent=3, network=Conv((4,))), "VAE(latent=3, network=Conv(channels=(4,)))"),
    ("model", Autoencoder(event_shape=(8, 8, 1)), None),
    ("objective", ELBO(beta=LinearWarmup(100)), "ELBO(beta=LinearWarmup(steps=100))"),
    ("objective", ELBO(beta=4), "ELBO(beta=4)"),
    ("epochs", 3, "3"),
    ("ema", 0.999, "0.999"),
]


@pytest.mark.parametrize(("field", "value", "text"), TYPED)
def test_a_spelled_value_is_read_back(field, value, text):
    assert text in (None, values.spell(value))
    assert values.parse(HINTS[field], values.spell(value), "here") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("fashion_mnist", Data("fashion_mnist")),
        ("mnist_corrupted/shot_noise:1.0.0", Data("mnist_corrupted/shot_noise:1.0.0")),
        ("data", Data()),
        ("Data('x')", Data("x")),
    ],
)
def test_a_plain_name_is_the_name_of_a_data_set(text, value):
    assert values.parse(Data, text, "--data") == value


def test_a_plain_name_is_no_shorthand_where_there_is_a_choice_or_no_text():
    for annotation, text in ((HINTS["model"], "vea"), (HINTS["optimizer"], "sgd")):
        with pytest.raises(InputError, match=f"got {text}, expected"):
            values.parse(annotation, text, "here")


def test_the_grammar_fits_a_terminal_and_what_it_shows_can_be_typed():
    rows = console.grammar(Run).splitlines()
    assert max(map(len, rows)) <= 78
    for field in ("data", "model", "objective", "optimizer"):
        words = values.vocabulary(HINTS[field])
        assert any(row.startswith(f"--{field} ") for row in rows)
        for text in words[""]:
            assert values.signature(type(values.parse(HINTS[field], text, "here"))) == text
    model = values.vocabulary(HINTS["model"])
    assert set(model) == {"", "network", "likelihood", "latent_prior", "code", "posterior", "quantizer"}
    shown = " ".join(model["network"])
    assert "ResidualConv(" in shown
    assert "Modules" not in shown  # it takes objects that cannot be typed


def run_as_typed(run: Annotated[Run, arguments.BY_FIELD]) -> Run:
    return run


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (Run(), "--data digits"),
        (Run(data=Data("./a b.npy"), batch_size=8), '--data "./a b.npy" --batch-size 8'),
        (Run(model=Autoencoder(event_shape=(8, 8, 1)), epochs=3), '--data digits --model "Autoencoder()" --epochs 3'),
        (
            Run(data=Data("x", DynamicBinarization()), objective=ELBO(beta=4)),
            '--data "Data(name=\'x\', preparation=DynamicBinarization())" --objective "ELBO(beta=4)"',
        ),
        (
            Run(objective=BetaTCVAE(3.0, num_examples=7)),  # of which the data say how many
            '--data digits --objective "BetaTCVAE(total_correlation=3.0)"',
        ),
    ],
)
def test_a_run_as_it_is_typed(run, text):
    command = console.train_command("a run", run)
    assert command == f"aevae train 'a run' {text}"
    _, _, directory, *typed = shlex.split(command)
    assert directory == "a run"
    given = console.parse_arguments(run_as_typed, typed, prog="x")()
    open_to_data = replace(run, model=replace(run.model, event_shape=()), objective=unsized(run.objective))
    assert given in (run, open_to_data)


def test_what_only_python_can_give_is_not_typed():
    assert console.train_command("run", Run(objective=lambda *arguments: 0)) == ""


# ---------------------------------------------------------------------------------------------------------- progress

VAE_TERMS = {"loss": 50.0, "distortion": 12.25, "rate": 4.5, "negative_elbo": 16.75, "gradient_norm": 1.0}
VAE_BOUND = {"distortion": 12.5, "rate": 4.7, "negative_elbo": 17.2, "mse_at_mean": 0.01}


def epoch(i, epochs=10, train=VAE_TERMS, validation=VAE_BOUND):
    selects = "negative_elbo" if "negative_elbo" in validation else "distortion"
    return Epoch(i, epochs, i * 9, train, validation, 0, 12345.6, np.zeros(9, np.float32), selects)


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when it is told to."""

    @dataclass
    class Clock:
        now: float = 100.0

    ticking = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", lambda: ticking.now)
    return ticking


@pytest.fixture
def progress_line(capsys):
    """Begins to show a training, and returns a function from an epoch to the line that is told of it."""
    with contextlib.ExitStack() as held:

        def begin():
            show = held.enter_context(console.progress(every=0))

            def line(epoch):
                show(epoch)
                return capsys.readouterr().err.removesuffix("\n")

            return line

        yield begin


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        (VAE_TERMS, "distortion 12.2 + rate 4.5 = 16.8 nats/example"),
        ({"loss": 60.0, "distortion": 60.0, "mse": 0.01234}, "mse 0.0123"),
        ({"loss": 98.76, "negative_importance_weighted_bound": 98.76}, "loss 98.8 nats/example"),
        (
            {"loss": 1.0, "profile_distortion": -3.25, "rate": 4.5, "profile_loss": 1.25, "mse": 0.1},
            "profile distortion -3.2 + rate 4.5 = 1.2 nats/example",
        ),
    ],
)
def test_loss_terms_carry_their_unit(metrics, text):
    assert console.loss_terms(metrics) == text


def test_time_left_does_not_count_the_compilation_of_the_first_epoch(clock, progress_line):
    line = progress_line()
    clock.now += 50
    assert "left" not in line(epoch(1))  # all that is known is how long a compilation took
    clock.now += 2
    assert line(epoch(2)).endswith("  0:16 left")
    clock.now += 6
    assert line(epoch(4)).endswith("  0:16 left")  # 8 s for three epochs, six to go
    line(epoch(9))
    line = progress_line()  # in a process of its own, after a resume
    clock.now += 50
    assert "left" not in line(epoch(7))
    clock.now += 3
    assert line(epoch(8)).endswith("  0:06 left")


def test_parts_do_not_count_a_compilation(clock, monkeypatch, capsys):
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    with console.parts("likelihood", every=1.0) as show:
        for done, seconds in ((10, 60), (20, 2), (30, 2)):
            clock.now += seconds
            show(done, 100)
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "likelihood: 10 of 100 examples"
    assert second == "likelihood: 20 of 100 examples, 0:16 left"
    assert third == "likelihood: 30 of 100 examples, 0:14 left"


@pytest.mark.parametrize(
    ("speed", "text"),
    [(math.nan, "validation 17.2"), (0.04, "0.04 examples/s"), (3.6, "3.6 examples/s"), (12345.6, "12,346 examples/s")],
)
def test_a_speed_is_never_0(progress_line, speed, text):
    shown = progress_line()(epoch(1)._replace(examples_per_second=speed))
    assert shown.endswith(f"  {text}")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0:00"),
        (42, "0:42"),
        (59.6, "1:00"),
        (725, "12:05"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (3 * 3600 + 62.4, "3:01:02"),
    ],
)
def test_durations_are_read_as_on_a_clock(seconds, text):
    assert console.duration(seconds) == text


def test_the_validation_that_is_shown_is_what_selects(progress_line):
    distortion = epoch(1, validation={"distortion": 61.04, "mse_at_mean": 0.014})
    assert "  validation 61.0  " in progress_line()(distortion)
    profile = {"profile_distortion": 5.0, "profile_loss": 6.25, "mse_at_mean": 0.5}
    shown = epoch(1, validation={**VAE_BOUND, **profile})._replace(selects="profile_distortion")
    assert "  validation 5.0  " in progress_line()(shown)
    shown = shown._replace(train={"loss": 1.0, "mse": 0.25})
    assert progress_line()(shown).startswith("epoch 1/10  mse 0.25  validation mse 0.5  ")


def test_a_second_training_on_the_same_line_begins_anew(clock, progress_line):
    """As of several seeds, one after the other, of which the first went on from a checkpoint."""
    line = progress_line()
    for number, seconds, left in ((3, 50, ""), (4, 2, "  0:12 left"), (1, 90, ""), (2, 1, "  0:08 left")):
        clock.now += seconds
        assert line(epoch(number)).endswith(left or "examples/s")


def test_parts_are_told_now_and_then(clock, monkeypatch, capsys):
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    with console.parts("one") as show:
        for done, seconds in ((1000, 9), (2000, 1), (3000, 9), (4000, 0.5), (5000, 0.5)):
            clock.now += seconds
            show(done, 12_000)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" examples")[0] for line in lines] == ["one: 1,000 of 12,000", "one: 3,000 of 12,000"]


def test_parts_in_a_terminal_are_one_live_line_that_vanishes(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    with console.parts("judging", of="pairs") as show:
        for done in (1, 2):
            clock.now += 3
            show(done, 12)
    drawn = terminal.getvalue()
    assert "judging: 2 of 12 pairs, 0:30 left" in drawn
    assert drawn.rstrip().endswith("\x1b[2K")  # the line is erased


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a", "a"),
        ("a b", '"a b"'),
        ("a'b", '"a\'b"'),
        ("a!b", "'a!b'"),
        ("`a`", "'`a`'"),
        ("a$b", "'a$b'"),
        ('"', "'\"'"),
    ],
)
def test_words_of_a_shell_mean_themselves(text, word):
    assert console.train_command("run", Run(data=Data(text))) == f"aevae train run --data {word}"


def test_a_name_that_is_taken_gets_a_number(tmp_path):
    assert durable.unused(tmp_path / "run") == tmp_path / "run"
    (tmp_path / "run").mkdir()
    assert durable.unused(str(tmp_path / "run")) == tmp_path / "run-2"
    (tmp_path / "run-2").symlink_to("nowhere")
    assert durable.unused(tmp_path / "run") == tmp_path / "run-3"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_narrow_terminal_loses_speed_first_then_validation(clock, monkeypatch):
    def line(width):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", str(width + 2))  # a spinner and a space stand before it
        with console.progress() as on_epoch:
            on_epoch(epoch(1))
            clock.now += 1
            on_epoch(epoch(2))
        return terminal.getvalue().rpartition("epoch 2/10")[2].splitlines()[0].rstrip()

    whole = line(200)
    assert whole == ("  distortion 12.2 + rate 4.5 = 16.8 nats/example  validation 17.2  12,346 examples/s  0:08 left")
    assert line(90) == whole.replace("  12,346 examples/s", "")
    assert line(70) == "  distortion 12.2 + rate 4.5 = 16.8 nats/example  0:08 left"


@pytest.mark.parametrize("every", [10, 8])
def test_without_a_terminal_there_is_a_plain_line_now_and_then(clock, capsys, every):
    with console.progress("VAE", **({"every": every} if every != 10 else {})) as on_epoch:
        for i in range(1, 11):
            clock.now += 4
            on_epoch(epoch(i))
    out, err = capsys.readouterr()
    assert out == ""
    shown = [int(line.split("epoch ")[1].split("/")[0]) for line in err.splitlines()]
    assert shown == ([1, 4, 7, 10] if every == 10 else [1, 3, 5, 7, 9, 10])
    assert all(line.startswith("VAE: epoch ") and "\x1b" not in line for line in err.splitlines())


def test_the_last_epoch_is_shown_when_training_stops_early(clock, capsys):
    autoencoder = {"loss": 60.0, "distortion": 60.0, "mse": 0.01234}
    with console.progress() as on_epoch:
        for i in range(1, 4):
            clock.now += 1
            on_epoch(epoch(i, 100, autoencoder, {"distortion": 61.0, "mse_at_mean": 0.014}))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 3/100  mse 0.0123  validation mse 0.014  12,346 examples/s")


def test_in_a_terminal_there_is_one_live_line(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "110")
    with console.progress("VAE") as on_epoch:
        for i in range(1, 4):
            on_epoch(epoch(i, 3))
    drawn = terminal.getvalue()
    assert "compiling" in drawn
    assert drawn.count("\n") == 1  # every redrawing is on the same line, which is ended once
    last = drawn.split("\r")[-2] if drawn.endswith("\r") else drawn.split("\r")[-1]
    assert "VAE: epoch 3/3  distortion 12.2 + rate 4.5 = 16.8 nats/example  validation 17.2" in last


def test_an_error_while_training_leaves_the_progress_line(capsys):
    def training():
        with console.progress() as on_epoch:
            on_epoch(epoch(1))
            raise InputError("loss", got="a value that is not finite", expected="a number")

    with pytest.raises(InputError, match="not finite"):
        training()
    assert capsys.readouterr().err.startswith("epoch 1/10")


# ------------------------------------------------------------------------------------------------- within an epoch


def test_within_an_epoch_steps_are_told_and_the_time_left_counts_no_compilation(clock, capsys):
    with console.progress("VAE") as show:
        for number, done, seconds in (
            (1, 0, 0),
            (1, 1, 60),
            (1, 3, 9),
            (1, 5, 9),
            (1, 10, 20),
            (2, 1, 0.5),
            (2, 3, 10),
        ):
            clock.now += seconds
            show(Steps(number, 2, done, 10))
            if done == 10:
                clock.now += 7  # an evaluation
                show(epoch(1, 2))
    lines = [line.removeprefix("VAE: ") for line in capsys.readouterr().err.splitlines()]
    assert lines[:4] == [
        "epoch 1/2  compiling",
        "compiled in 60 s",
        "epoch 1/2  step 1/10",
        "epoch 1/2  step 5/10  0:22 left of this epoch",
    ]
    assert lines[4].startswith("epoch 1/2  distortion")
    assert lines[5:] == ["epoch 2/2  step 3/10  0:35 left of this epoch"]


def test_a_short_compilation_has_no_line_of_its_own(clock, capsys):
    with console.progress() as show:
        show(Steps(1, 9, 0, 10))
        clock.now += 2
        show(Steps(1, 9, 1, 10))
        clock.now += 2
        show(Steps(1, 9, 4, 10))
    assert capsys.readouterr().err == "epoch 1/9  compiling\n"


def test_in_a_terminal_the_live_line_shows_steps_of_long_epochs_alone(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "110")

    def told(*what):
        terminal.truncate(0)
        with console.progress() as show:
            for seconds, each in what:
                clock.now += seconds
                show(each)
        return terminal.getvalue()

    long = told((0, Steps(1, 9, 5, 10)), (1, Steps(1, 9, 6, 10)), (1, Steps(1, 9, 8, 10)))
    assert "epoch 1/9  step 8/10  0:01 left of this epoch" in long
    assert "epoch 1/9  evaluating" in told((0, Steps(1, 9, 9, 10)), (1, Steps(1, 9, 10, 10)))
    short = told((0, epoch(1)), (0.5, Steps(2, 10, 10, 10)), (0, epoch(2)), (0.4, Steps(3, 10, 10, 10)))
    assert "evaluating" not in short
    assert "epoch 2/10" in short


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"distortion": -9.0, "rate": 4.0, "negative_elbo": -5.0}, True),
        ({"distortion": -9.0, "rate": 14.0, "negative_elbo": 5.0}, False),
        ({"negative_log_likelihood": -1.0}, True),
        ({"mse": 0.1}, False),
        ({}, False),
    ],
)
def test_a_total_below_zero_is_explained(metrics, told):
    assert ("a density, which may exceed 1; less is better" in console.below_zero(metrics)) is told
