"""What is said of a step that broke: which term, gradient or limit, which examples, and what to try."""

from __future__ import annotations

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aevae_jax import keys
from aevae_jax.runs import non_finite, training_loop
from aevae_jax.runs.callbacks import Callbacks
from aevae_jax.runs.non_finite import BrokenStep
from aevae_jax.runs.run import Safeguard
from aevae_jax.runs.snapshots import Broken, Progress, Snapshot
from aevae_jax.training.devices import Layout
from aevae_jax.training.step import TrainState
from aevae_jax.types import InputError

X = np.arange(10, dtype=np.float32)[:, None]
X[4] = 0.0
ROWS = (7, 4, 2, 3)  # of 7, 0, 2 and 3: their mean is 3


def slope(model, params, x, key, step):
    """Its gradient is the mean of the batch."""
    loss = params["w"] * x.mean()
    return loss, {"term": loss}


def steep(model, params, x, key, step):
    """Its gradient is finite, and the square of that is not."""
    loss = (params["w"] * x.mean() + params["b"] * x.max()) * 1e25
    return loss, {"term": loss}


def root(model, params, x, key, step):
    """Its gradient at 0 is infinite."""
    loss = params["w"] * x.mean() + jnp.sqrt(params["b"] * (x.mean() + 1))
    return loss, {"term": loss}


def logarithm(model, params, x, key, step):
    term = jnp.log(x).mean()
    return params["w"] * x.mean() - term, {"term": term, "other": jnp.ones(())}


def compared(model, params, x, key, step):
    """A loss of pairs, of which a batch of one has none."""
    if len(x) < 2:
        raise InputError("batch size", got=len(x), expected="at least 2")
    loss = params["w"] * jnp.log(x - x).mean()
    return loss, {"term": loss}


def trainer_of(objective, max_norm=0.0):
    run = SimpleNamespace(model=None, objective=objective, safeguard=Safeguard(max_norm=max_norm))
    prepared = SimpleNamespace(batch=lambda raw, key: raw, train=SimpleNamespace(x=X, rows=X))
    return SimpleNamespace(
        resolved=SimpleNamespace(run=run, prepared=prepared, beginning=None),
        key=jax.random.key(0),
        rows_of=lambda step: np.array(ROWS) if step == 17 else pytest.fail(f"step {step}"),
    )


SNAPSHOT = Snapshot(
    TrainState(jnp.int32(17), {"w": jnp.float32(0.5), "b": jnp.float32(0.0)}, (), None), {}, {}, None, Progress(step=17)
)


@pytest.mark.parametrize(
    ("objective", "max_norm", "broken", "examples"),
    [
        (slope, 0.0, (), ()),
        (slope, 3.0, (), ()),  # the limit itself may be reached
        (slope, 2.5, ("a gradient norm of 3, above max_norm = 2.5",), (7, 3)),
        (steep, 0.0, ("gradient_norm",), (7, 2, 3)),
        (root, 0.0, ("the gradient of b",), ROWS),
        (logarithm, 0.0, ("loss", "term"), (4,)),
        (compared, 0.0, ("loss", "term"), ()),
    ],
    ids=["sound", "at the limit", "beyond it", "overflow", "gradient", "term", "of pairs"],
)
def test_a_step_is_diagnosed(objective, max_norm, broken, examples):
    found = non_finite.examine(trainer_of(objective, max_norm), SNAPSHOT)
    assert (found.step, found.rows, found.broken, found.culprit) == (17, ROWS, broken, None)
    if objective is steep:  # XLA may multiply 0 by a square of what is large, and so blame the row of zeros, too
        assert set(examples) <= set(found.examples)
    else:
        assert found.examples == examples
    if objective is slope:
        assert found.metrics == {"loss": 1.5, "term": 1.5, "gradient_norm": 3.0}


@pytest.mark.parametrize(
    ("x", "advice"),
    [
        ([0.0, 1.0], ""),
        ([-99.0, 99.0], ""),
        ([-1e-3, 1e-3], "the data reach 0.001 with a standard deviation of 0.001"),
        ([-100.0, 100.0], "the data reach 100 with a standard deviation of 100"),
        ([-1500.0, -1499.0], "the data reach 1.5e+03 with a standard deviation of 0.5"),
    ],
)
def test_data_far_from_unit_scale_get_advice(x, advice):
    def seen(part, key):
        assert part == "train"
        assert key == keys.root(3)
        return iter([(None, np.array(x, np.float32))])

    said = non_finite.scale_advice(SimpleNamespace(run=SimpleNamespace(seed=3), prepared=SimpleNamespace(seen=seen)))
    assert said == (f"{advice}: try the preparation Standardize()" if advice else "")


def manager_of(snapshot, folder):
    """A checkpoint manager that is where `snapshot` is, and writes nothing."""
    return SimpleNamespace(
        folder=folder,
        restore=lambda trainer, until: snapshot,
        truncate_to=lambda snapshot: None,
        save_if_due=lambda snapshot, boundary: None,
        next_stop=lambda step, chunk: step + chunk,
    )


BAD = {"loss": math.nan, "gradient_norm": math.nan}


@pytest.mark.parametrize(
    ("found", "start"),
    [
        (
            BrokenStep(17, BAD, tuple("abcdefg"), tuple(range(30)), (), None),
            "step 17 (epoch 3): got NaN or infinity in a, b, c, d, e, from training examples "
            "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 20 more, expected finite numbers, also after 2 rollbacks",
        ),
        (
            BrokenStep(16, BAD, ("loss",), tuple(range(30)), tuple(range(20, 31)), None),
            "step 16 (epoch 3): got NaN or infinity in loss, from training examples "
            "20, 21, 22, 23, 24, 25, 26, 27, 28, 29 and 1 more, expected",
        ),
        (
            BrokenStep(15, BAD, ("loss",), tuple(range(30)), tuple(range(10)), None),
            "step 15 (epoch 2): got NaN or infinity in loss, from training examples 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, exp",
        ),
        (
            BrokenStep(7, {"loss": 1.0, "gradient_norm": 3.0}, ("a gradient norm of 3, above ...",), (5,), (), None),
            "step 7 (epoch 1): got a gradient norm of 3, above ..., from training examples 5, expected",
        ),
        (
            BrokenStep(8, {"loss": 1.0}, (), (5,), (), None),
            "validation bound after step 8: got NaN or infinity, expected a finite number",
        ),
    ],
    ids=["rows", "examples", "ten", "norm", "validation"],
)
@pytest.mark.parametrize("advice", ["", "the data are large"])
def test_a_training_that_stops_says_where_and_what_to_type(monkeypatch, found, start, advice):
    monkeypatch.setattr(non_finite, "examine", lambda trainer, snapshot: found)
    monkeypatch.setattr(non_finite, "scale_advice", lambda resolved: advice)
    snapshot = SNAPSHOT._replace(progress=Progress(step=17, rollbacks=((3, 5), (1, 5))))

    def advance(snapshot, stop):
        raise Broken(18, 23, 0)

    resolved = SimpleNamespace(run=SimpleNamespace(safeguard=Safeguard(rollbacks=2)), beginning=None)
    trainer = SimpleNamespace(
        steps_per_epoch=8,
        resolved=resolved,
        population=None,
        start=lambda: snapshot,
        finished=lambda progress: False,
        end_of_epoch=lambda progress: 24,
        advance=advance,
        train_to=lambda snapshot, step: snapshot,
        layout=Layout(),
    )
    monkeypatch.setattr(training_loop, "Trainer", lambda resolved, seeds: trainer)
    last = "; or ".join(filter(None, [advice, "lower the learning rate or set clip_norm"]))
    for manager, command in (
        (None, ""),
        (manager_of(snapshot, "runs/first"), f"type: aevae replay runs/first --step {found.step}; or "),
    ):
        with pytest.raises(InputError) as stopped:
            training_loop.train(resolved, None, manager, Callbacks(None, print, print))
        said = str(stopped.value)
        assert said.startswith(start)
        assert said.endswith(f"; {command}{last}")
