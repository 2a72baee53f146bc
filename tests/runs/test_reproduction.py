"""A run computed again from its record alone: equal to the bit, or told apart, and one step of it with checks on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from run_files import edit_results, edit_run

from aevae_jax.checkpoints.saving import Saving
from aevae_jax.cli.main import main
from aevae_jax.data import Data, DynamicBinarization
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Bernoulli
from aevae_jax.models.priors import StandardNormal
from aevae_jax.runs import fitting, provenance as environment, records, reproduction
from aevae_jax.runs.run import Run, Safeguard
from aevae_jax.runs.snapshots import Progress, Snapshot
from aevae_jax.runs.weights import save_weights
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

pytestmark = pytest.mark.usefixtures("no_pictures")

RUN = Run(
    data=Data(preparation=DynamicBinarization()),
    model=VAE(2, MLP((8,)), Bernoulli(), StandardNormal()),
    batch_size=100,
    epochs=2,
    ema=0.9,
)
STEPS = 12  # per epoch


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    fitting.fit(RUN, directory=folder, saving=Saving(steps=10))
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def here(copied):
    """A run of this environment."""
    edit(copied, lambda provenance: provenance.update(environment.environment()))
    return copied


def edit(folder, change):
    edit_run(folder, lambda record: change(record["provenance"]))


def typed(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return stopped.value.code


# the whole run


@pytest.mark.exact
def test_the_same_run_passes_bitwise(here):
    epochs = []
    verdict = reproduction.reproduce(here, on_epoch=epochs.append)
    assert verdict.outcome == "PASS (bitwise)"
    assert verdict.reason.startswith(f"{2 * STEPS} losses, the weights (")
    assert verdict.differences == ()
    assert len(epochs) == 2


def test_it_passes_bitwise_elsewhere_too_if_the_bits_are_equal(here):
    edit(here, lambda provenance: provenance["host"].update(cores=77))
    verdict = reproduction.reproduce(here)
    assert verdict.outcome == "PASS (bitwise)"
    assert verdict.differences == (f"host cores 77, here {environment.environment()['host']['cores']}",)


def test_one_bit_of_one_loss_fails_and_names_the_step(here, capsys):
    losses = np.load(here / "losses.npy")
    losses[17] = np.nextafter(losses[17], np.float32(0))
    np.save(here / "losses.npy", losses)
    edit_results(here)
    verdict = reproduction.reproduce(here)
    assert (verdict.outcome, verdict.step) == ("FAIL", 17)
    assert verdict.reason.startswith("the loss of step 17 (epoch 2) is ")
    assert typed("reproduce", str(here)) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("FAIL: the loss of step 17 (epoch 2) is")
    assert "device, versions and settings are the same" in printed


def test_other_losses_in_another_environment_pass_or_fail_by_the_tolerance(here):
    edit(here, lambda provenance: provenance["versions"].update(jax="0.1"))
    losses = np.load(here / "losses.npy")
    np.save(here / "losses.npy", losses * np.float32(1 + 1e-5))
    edit_results(here)
    verdict = reproduction.reproduce(here)
    assert verdict.outcome == "PASS within tolerance"
    assert verdict.differences[0].startswith("versions jax 0.1, here ")
    np.save(here / "losses.npy", losses * np.float32(1 + 1e-3))
    edit_results(here)
    verdict = reproduction.reproduce(here)
    assert (verdict.outcome, verdict.step) == ("FAIL", 0)


def test_other_weights_or_figures_fail(here):
    def times(factor):
        edit_results(here, lambda results: results["test"].update(rate=results["test"]["rate"] * factor))

    times(1.001)
    assert reproduction.reproduce(here)[:2] == (
        "FAIL",
        "all losses are equal, but the figures in results.json or metrics.jsonl are not those of this run",
    )
    edit(here, lambda provenance: provenance["device"].update(kind="abacus"))
    assert reproduction.reproduce(here).outcome == "PASS within tolerance"
    times(1.1)
    assert reproduction.reproduce(here).outcome == "FAIL"


def test_one_weight_fails(here):
    params = fitting.load_run(here).params
    params["decoder"]["Dense_0"]["bias"] = params["decoder"]["Dense_0"]["bias"] + 1e-6
    save_weights(here / "weights.safetensors", params, run=records.read_record(here)["digest"])
    edit_results(here)
    verdict = reproduction.reproduce(here)
    assert (verdict.outcome, verdict.reason[:34]) == ("FAIL", "all losses are equal, but the weig")


@pytest.fixture
def again(here, monkeypatch):
    """Makes verdicts on a training that gave what is there; nothing is trained."""
    original = fitting.load_run(here)
    monkeypatch.setattr(
        reproduction,
        "resolve_again",
        lambda *given: SimpleNamespace(run=None, dataset=None, stream=None, beginning=None),
    )
    monkeypatch.setattr(fitting, "fit", lambda run, dataset, **options: original)
    return lambda: reproduction.reproduce(here)


def test_what_differs_is_named_also_of_where_it_went_on(here, again):
    found = environment.environment()
    other = {name: dict(found[name] or {}) for name in reproduction.MATTER}
    other["host"]["cores"] = 5
    edit_run(here, lambda record: record.update(resumed=[other]))
    assert again().differences == (f"host cores 5, here {found['host']['cores']}",)


def test_changed_code_is_named(again, monkeypatch):
    found = environment.environment()
    monkeypatch.setattr(environment, "environment", lambda **_: {**found, "code": {**found["code"], "sha256": "b"}})
    assert again().differences == (f"code sha256 {found['code']['sha256'][:60]}..., here b",)


def test_all_that_a_run_made_is_compared(here, monkeypatch):
    """Both parts of the results, the log, and nothing that differs from one time to the next."""
    original, resolved, asked = fitting.load_run(here), reproduction.resolve_again(here, ""), []
    this = environment.environment()
    other = {**this, "host": {**this["host"], "cores": 0}}
    monkeypatch.setattr(reproduction, "resolve_again", lambda *given: resolved)
    monkeypatch.setattr(fitting, "load_run", lambda folder, on_note: original)

    def again(change=lambda fitted: fitted, elsewhere=False):
        monkeypatch.setattr(environment, "environment", lambda **_: other if elsewhere else this)

        def fit(run, dataset, **options):
            asked.append((run, dataset.digest(), options["stream"]))
            return change(original)

        monkeypatch.setattr(fitting, "fit", fit)
        return reproduction.reproduce(here)

    def results(part, **changes):
        def change(fitted):
            found = fitted.results
            new = {**found[part], **changes} if isinstance(found[part], dict) else next(iter(changes.values()))
            return fitted._replace(results={**found, part: new})

        return change

    rate = original.results["validation"]["rate"]
    assert again(results("seconds", seconds=99.0))[:2] == again()[:2] == again(elsewhere=True)[:2]
    assert again().outcome == "PASS (bitwise)"
    assert asked[0] == (original.run, original.run.data.load().digest(), False)
    for change in (
        results("validation", rate=np.nextafter(rate, 0)),
        results("test", rate=0.0),
        results("best_epoch", best=9),
        lambda fitted: fitted._replace(history=[*fitted.history[:-1], {**fitted.history[-1], "skipped": 1}]),
    ):
        found = again(change)
        assert (found.passed, found.step) == (False, None)
        assert "but the figures in results.json or metrics.jsonl are not" in found.reason
    for part in ("validation", "test"):
        rate = original.results[part]["rate"]
        for factor, outcome in ((0.992, "PASS within tolerance"), (0.988, "FAIL"), (1 / 0.988, "FAIL")):
            found = again(results(part, rate=rate * factor), elsewhere=True)
            assert found.outcome == outcome
            assert found.reason == f"figures within {1 - min(factor, 1 / factor):.1e} (0.01 is allowed)"


@pytest.mark.slow
def test_figures_that_are_not_finite_are_those_that_were_written(tmp_path):
    """A test value of 1e30, whose square no float32 holds: results.json has null where the training had infinity."""
    x = np.random.RandomState(0).randn(80, 3).astype(np.float32)
    x[75, 1] = 1e30
    folder = tmp_path / "data"
    folder.mkdir()
    for part, rows in (("train", slice(64)), ("validation", slice(64, 72)), ("test", slice(72, 80))):
        np.save(folder / f"{part}.npy", x[rows])
    run = Run(data=Data(str(folder)), model=VAE(2, MLP((4,)), latent_prior=StandardNormal()), batch_size=16, epochs=1)
    made = fitting.fit(run, directory=tmp_path / "run")
    figures = made.results["test"].values()
    assert not all(map(np.isfinite, figures))
    assert all(map(np.isfinite, made.results["validation"].values()))
    verdict = reproduction.reproduce(tmp_path / "run")
    assert (verdict.outcome, verdict.differences) == ("PASS (bitwise)", ())


@pytest.mark.parametrize(
    ("recorded", "now", "outcome", "elsewhere"),
    [
        (np.nan, np.inf, "PASS (bitwise)", "PASS (bitwise)"),
        (np.nan, np.nan, "PASS (bitwise)", "PASS (bitwise)"),
        (np.nan, -np.inf, "PASS (bitwise)", "PASS (bitwise)"),
        (np.nan, 1.0, "FAIL", "FAIL"),
        (1.0, np.inf, "FAIL", "FAIL"),
        (1.0, 1.001, "FAIL", "PASS within tolerance"),
    ],
)
def test_what_is_not_finite_is_compared_as_it_is_written(here, monkeypatch, *, recorded, now, outcome, elsewhere):
    original = fitting.load_run(here)

    def with_rate(rate):
        return original._replace(results={**original.results, "test": {**original.results["test"], "rate": rate}})

    monkeypatch.setattr(
        reproduction,
        "resolve_again",
        lambda *given: SimpleNamespace(run=None, dataset=None, stream=None, beginning=None),
    )
    monkeypatch.setattr(fitting, "load_run", lambda folder, on_note: with_rate(recorded))
    monkeypatch.setattr(fitting, "fit", lambda run, dataset, **options: with_rate(now))
    assert reproduction.reproduce(here).outcome == outcome
    edit(here, lambda provenance: provenance["device"].update(kind="abacus"))
    assert reproduction.reproduce(here).outcome == elsewhere


@pytest.mark.parametrize("steps", [STEPS, 3 * STEPS])
def test_a_training_of_another_length_fails_here_and_is_judged_by_its_figures_elsewhere(here, monkeypatch, steps):
    """As patience may end it. Each epoch is compared with what was recorded of it, if there was one."""
    original = fitting.load_run(here)
    losses = np.concatenate([original.losses, original.losses[:STEPS]])[:steps]

    def fit(run, dataset, *, on_epoch, **options):
        for epoch in range(1, steps // STEPS + 1):
            rows = slice((epoch - 1) * STEPS, epoch * STEPS)
            on_epoch(SimpleNamespace(epoch=epoch, step=epoch * STEPS, losses=losses[rows]))
        return original._replace(losses=losses)

    monkeypatch.setattr(
        reproduction,
        "resolve_again",
        lambda *given: SimpleNamespace(run=None, dataset=None, stream=None, beginning=None),
    )
    monkeypatch.setattr(fitting, "fit", fit)
    verdict = reproduction.reproduce(here)
    assert (verdict.outcome, verdict.step) == ("FAIL", min(steps, 2 * STEPS))
    said = {
        12: "training ended after 12 steps, was 24",
        36: f"the loss of step 24 (epoch 3) is {losses[-12]}, was none",
    }
    assert verdict.reason == said[steps]
    edit(here, lambda provenance: provenance["device"].update(kind="abacus"))
    assert reproduction.reproduce(here).outcome == "PASS within tolerance"


def test_an_epoch_elsewhere_that_was_not_recorded_is_no_error(here, monkeypatch):
    """Of the first twenty losses there are twelve to compare."""
    original = fitting.load_run(here)
    short = original._replace(losses=original.losses[:STEPS])

    def fit(run, dataset, *, on_epoch, **options):
        for epoch in (1, 2):
            rows = slice((epoch - 1) * STEPS, epoch * STEPS)
            on_epoch(SimpleNamespace(epoch=epoch, step=epoch * STEPS, losses=original.losses[rows]))
        return original

    monkeypatch.setattr(
        reproduction,
        "resolve_again",
        lambda *given: SimpleNamespace(run=None, dataset=None, stream=None, beginning=None),
    )
    monkeypatch.setattr(fitting, "load_run", lambda folder, on_note: short)
    monkeypatch.setattr(fitting, "fit", fit)
    edit(here, lambda provenance: provenance["device"].update(kind="abacus"))
    assert reproduction.reproduce(here).outcome == "PASS within tolerance"


ONES = np.ones(30, np.float32)


@pytest.mark.parametrize(
    ("first", "place", "factor", "exact", "found"),
    [
        (0, 19, 1 + 2e-4, False, 19),
        (0, 19, 1 + 5e-5, False, None),
        (0, 19, 1 - 2e-4, False, 19),
        (0, 20, 2.0, False, None),
        (12, 7, 2.0, False, 19),
        (12, 8, 2.0, False, None),
        (24, 0, 2.0, False, None),
        (24, 2, 1 + 2e-7, True, 26),
        (24, 2, 1.0, True, None),
        (0, 3, np.nan, False, 3),
    ],
)
def test_losses_are_compared_bit_by_bit_or_in_the_first_twenty_steps(first, place, factor, exact, found):
    ours = ONES.copy()
    ours[place] *= np.float32(factor)
    for one, other in ((ONES, ours), (ours, ONES)):
        assert reproduction.first_difference(one, other, first, exact=exact) == found


def test_losses_that_are_both_no_number_are_the_same_and_those_that_were_not_recorded_are_not():
    nan = ONES * np.float32(np.nan)
    for exact in (False, True):
        assert reproduction.first_difference(nan, nan.copy(), 0, exact=exact) is None
    assert reproduction.first_difference(ONES[:4], ONES[:6], 12, exact=True) == 16
    assert reproduction.first_difference(ONES[:4], 2 * ONES[:6], 12, exact=True) == 12  # the first of all
    assert reproduction.first_difference(ONES[:4], ONES[:6], 12, exact=False) is None


def test_an_unfinished_run_is_refused(copied):
    (copied / "results.json").unlink()
    with pytest.raises(
        InputError, match=r"got no results\.json, .*it is not finished: the command that began it resumes it"
    ):
        reproduction.reproduce(copied)


def test_other_data_is_refused(copied):
    edit(copied, lambda provenance: provenance["data"].update(sha256="0" * 64))
    for compute in (reproduction.reproduce, lambda folder: reproduction.replay(folder, 3)):
        with pytest.raises(
            InputError, match=r"data set .*: got other data under the name 'digits', expected that of the"
        ):
            compute(copied)


def test_flags_of_the_compiler_are_never_taken_from_a_record(copied, tmp_path, monkeypatch):
    """Some of them write files, or load code."""
    monkeypatch.setattr(environment, "make_deterministic", lambda: pytest.fail("asked for"))
    before = dict(__import__("os").environ)
    flags = f"--xla_dump_to={tmp_path / 'dump'} --xla_gpu_deterministic_ops=true2"
    edit(copied, lambda provenance: provenance["settings"].update(xla_flags=flags))
    main(["reproduce", str(copied)])
    assert dict(__import__("os").environ) == before
    assert not (tmp_path / "dump").exists()


# one step


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 11, 12, 23])
def test_a_step_replayed_has_the_loss_that_was_recorded(finished, step):
    found = reproduction.replay(finished, step)
    assert found.diagnosis.metrics["loss"] == pytest.approx(np.load(finished / "losses.npy")[step], rel=1e-6)
    assert found.recorded == np.load(finished / "losses.npy")[step]
    assert found.diagnosis.step == step
    assert len(found.diagnosis.rows) == 100
    assert found.diagnosis.broken == found.diagnosis.examples == ()
    assert found.diagnosis.culprit is found.rollback is None


DETOURS = ((20, 30), (15, 30), (5, 30))


@pytest.mark.parametrize(
    ("step", "until", "known", "rollback"),
    [
        (4, 4, DETOURS, None),
        (5, 5, DETOURS[:2], (5, 30)),
        (14, 5, DETOURS[:2], (5, 30)),
        (15, 5, DETOURS[:1], (15, 30)),
        (20, 5, (), (20, 30)),
        (29, 5, (), (20, 30)),
        (30, 30, DETOURS, None),
    ],
)
@pytest.mark.parametrize("losses", [None, 30, 31])
def test_a_step_is_replayed_as_it_was_before_it_was_gone_round(
    tmp_path, monkeypatch, *, step, until, known, rollback, losses
):
    """From a checkpoint that knows of no rollback that was found later."""
    asked = []

    def restore(store, trainer, *, until=None, note=None):
        asked.append(until)
        return Snapshot(None, None, {}, None, Progress(step=4, rollbacks=DETOURS))

    trainer = SimpleNamespace(
        steps_per_epoch=STEPS, train_to=lambda snapshot, to: (to, snapshot.progress.rollbacks), resolved=None
    )
    monkeypatch.setattr(records, "read_record", lambda folder: {})
    monkeypatch.setattr(reproduction, "resolve_again", lambda folder, data: SimpleNamespace(run=replace(RUN, epochs=3)))
    monkeypatch.setattr(reproduction, "Trainer", lambda resolved: trainer)
    monkeypatch.setattr(reproduction.resume, "restore", restore)
    monkeypatch.setattr(reproduction, "examine", lambda trainer, at, trace: (at, trace))
    if losses:
        (tmp_path / "results.json").touch()
        monkeypatch.setattr(records, "read_results", lambda folder, run: None)
        monkeypatch.setattr(fitting, "read_losses", lambda folder, results: np.arange(losses) + 0.5)
    found = reproduction.replay(tmp_path, step)
    assert asked == [None, until]
    assert found.diagnosis == ((step, known), True)
    assert found.rollback == rollback
    assert found.recorded == (step + 0.5 if losses and step < losses else None)  # it may have stopped before


def test_replay_writes_nothing_and_refuses_steps_that_are_none(finished):
    before = sorted((path, path.stat().st_mtime_ns) for path in finished.rglob("*"))
    for step in (-1, 2 * STEPS):
        with pytest.raises(InputError, match=rf"step: got {step}, expected 0 to 23"):
            reproduction.replay(finished, step)
    assert sorted((path, path.stat().st_mtime_ns) for path in finished.rglob("*")) == before


@pytest.mark.slow
def test_a_run_that_stops_names_the_command_that_finds_the_operation(tmp_path, capsys):
    """Adam with a step of 1e18: the weights are finite, and the squares of what they make are not."""
    run = replace(RUN, optimizer=AdamW(1e18), safeguard=Safeguard(in_a_row=2, rollbacks=1), ema=0.0)
    notes = []
    with pytest.raises(InputError, match=r"step (\d+) \(epoch 1\): got NaN or infinity in ") as stopped:
        fitting.fit(run, directory=tmp_path / "run", on_note=notes.append)
    command = str(stopped.value).partition("type: ")[2].partition(";")[0].split()
    assert command[:2] == ["aevae", "replay"]
    main(command[1:])
    printed = capsys.readouterr().out
    step = command[-1]
    assert printed.startswith(f"step {step} of {tmp_path / 'run'}, training examples ")
    assert "<- not finite" in printed
    assert "cannot be used: " in printed
    assert "was made by " in printed
    assert "networks.py:" in printed or "distributions.py:" in printed or "likelihoods.py:" in printed
    # a step that was skipped is shown as it was before that
    [note] = notes
    first = int(note.partition("steps ")[2].split()[0])
    found = reproduction.replay(tmp_path / "run", first)
    assert found.rollback is not None
    assert found.diagnosis.broken
