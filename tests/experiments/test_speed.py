"""The experiment on speed: the programs do the same work, and what is recorded has its form."""

from __future__ import annotations

import json
import math
import sys
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aevae_jax as ae
from aevae_jax.types import InputError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import readme  # noqa: E402
import speed  # noqa: E402
import speed_cases as cases  # noqa: E402
import speed_minimal as minimal  # noqa: E402
import speed_programs as programs  # noqa: E402
import speed_table  # noqa: E402
import speed_torch  # noqa: E402
import speed_turns as turns  # noqa: E402
import speed_workloads  # noqa: E402

SMALL = {
    "dense": cases.Case("dense", (4, 4, 1), 3, hidden=(8, 6), binary=False),
    "gated": cases.Case("gated", (4, 4, 1), 3, hidden=(8,), gated=True, log_scale_range=(-3.0, 1.0)),
    "conv": cases.Case("conv", (8, 8, 1), 3, channels=(8, 16)),
    "residual": cases.Case("residual", (8, 8, 3), 3, channels=(8, 16), blocks=1, binary=False),
}


def in_order(tree):
    """Return the layers of one of our networks in the order of their use: gates before values, `out` last."""
    if "kernel" in tree or "scale" in tree:
        return [(tree.get("kernel", tree.get("scale")), tree["bias"])]
    kinds = {"GroupNorm": 0, "Dense": 1, "gate": 1, "value": 2, "GatedDense": 1, "Conv": 2, "ResidualBlock": 3}

    def place(name):
        kind, _, number = name.partition("_")
        return (name == "out", int(number or 0), kinds.get(kind, 0))

    return [layer for name in sorted(tree, key=place) for layer in in_order(tree[name])]


def multiplications(function, *arguments):
    """Return how many multiplications the products and convolutions of a program take."""
    total = 0
    for equation in programs.equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        (a, b), out = (var.aval.shape for var in equation.invars), equation.outvars[0].aval
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += out.size * math.prod(a[axis] for axis in contracted)
        elif equation.primitive.name == "convolution":
            total += out.size * math.prod(b[:-1])
        else:
            kernel = equation.params["dimension_numbers"].rhs_spec
            total += out.size * math.prod(b) // b[kernel[0]]
    return total


def decoder_in_order(case, tree):
    """Return a decoder's: before each transposed convolution the blocks of its scale."""
    if not case.channels:
        return in_order(tree)
    layers = in_order(tree["Dense_0"])
    for i in range(len(case.channels)):
        layers += in_order(tree[f"ResidualBlock_{i}"]) if case.blocks else []
        [(kernel, bias)] = in_order(tree[f"SubPixelConv_{i}" if i < len(case.channels) - 1 else "out"])
        # from [position, channel, pixel of a cell, output] to the transposed convolution's own order
        cells = kernel.reshape(2, 2, kernel.shape[2], 2, 2, -1)[:, :, :, ::-1, ::-1]
        layers.append((cells.transpose(0, 3, 1, 4, 2, 5).reshape(4, 4, kernel.shape[2], -1), bias))
    return layers


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_minimal_loop_computes_our_loss_and_gradient(name):
    case = SMALL[name]
    model = programs.model_of(case)
    params = jax.jit(model.init)(jax.random.key(0))
    x, key = jnp.asarray(cases.images_of(case, 5)), jax.random.key(1)
    noise = jax.random.normal(key, (5, case.latent))

    def plain(params):
        layers = {
            "encoder": in_order(params["encoder"]),
            "decoder": decoder_in_order(case, params["decoder"]),
            "log_scale": params["likelihood"].get("log_scale"),
        }
        with jax.numpy_rank_promotion("allow"):
            return minimal.loss(case, layers, x, noise)

    with jax.debug_key_reuse(False):
        ours, gradient = jax.jit(jax.value_and_grad(lambda p: ae.ELBO()(model, p, x, key, jnp.asarray(0))[0]))(params)
    same, others = jax.jit(jax.value_and_grad(plain))(params)
    np.testing.assert_allclose(ours, same, rtol=1e-5)
    flat, same_flat = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(g)]) for g in (gradient, others))
    np.testing.assert_allclose(flat, same_flat, rtol=1e-4, atol=1e-5 * abs(flat).max())


@pytest.mark.parametrize("name", SMALL)
def test_fresh_parameters_of_the_minimal_loop_have_our_shapes(name):
    case = SMALL[name]
    params = jax.eval_shape(programs.model_of(case).init, jax.random.key(0))
    fresh = jax.eval_shape(lambda key: minimal.init(case, key), jax.random.key(0))
    assert [w.shape for w, _ in in_order(params["encoder"])] == [w.shape for w, _ in fresh["encoder"]]
    layers = jax.eval_shape(lambda tree: decoder_in_order(case, tree), params["decoder"])
    assert [w.shape for w, _ in layers] == [w.shape for w, _ in fresh["decoder"]]


def test_products_alone_are_those_of_the_program():
    """Three of every dense layer but the first one, which has no gradient to its input."""
    case, batch = SMALL["dense"], 128
    model = programs.model_of(case)
    params = jax.eval_shape(model.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((batch, *case.event_shape), jnp.float32)

    def loss(params, x):
        return ae.ELBO()(model, params, x, jax.random.key(0), jnp.asarray(0))[0]

    sizes = [(16, 8), (8, 6), (6, 6), (3, 6), (6, 8), (8, 16)]
    assert multiplications(loss, params, x) == batch * sum(a * b for a, b in sizes)
    every = 3 * sum(a * b for a, b in sizes) - 16 * 8
    assert multiplications(jax.grad(loss), params, x) == batch * every
    assert math.isfinite(programs.training_alone(case, 2 * batch)())


def test_a_convolution_takes_as_many_multiplications_as_its_definition_says():
    x, w = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))

    def convolve(x, w):
        return jax.lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert multiplications(convolve, x, w) == 2 * 4 * 4 * 5 * 3 * 3 * 3


@pytest.mark.parametrize("name", SMALL)
def test_pytorch_has_the_same_network(name):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    case = SMALL[name]
    network, model = speed_torch.VAE(case), programs.model_of(case)
    params = jax.jit(model.init)(jax.random.key(0))
    assert sum(p.numel() for p in network.parameters()) == sum(leaf.size for leaf in jax.tree.leaves(params))
    x = jnp.asarray(cases.images_of(case, 2))
    with FlopCounterMode(display=False) as counted:
        loss = network(speed_torch.pixels(case, 2))
    assert torch.isfinite(loss)
    forward = multiplications(lambda p: ae.ELBO()(model, p, x, jax.random.key(1), jnp.asarray(0))[0], params)
    # we compute the cells that stand half outside of a small image, too
    back = [*case.channels[::-1], case.event_shape[-1]]
    low = [case.event_shape[0] >> scale for scale in range(len(case.channels), 0, -1)]
    outside = 2 * sum(16 * a * b * (2 * n + 1) for n, (a, b) in zip(low, pairwise(back), strict=False))
    assert counted.get_total_flops() == 2 * (forward - outside)


# taking turns


def after(calls, name, seconds, fails_at=None):
    def make():
        def turn():
            calls.append(name)
            if calls.count(name) == fails_at:
                raise ValueError("went wrong\nat length")
            return seconds, 1.5

        return turn

    return make


def test_programs_take_turns_and_ratios_are_those_within_a_turn():
    calls: list[str] = []
    rows = turns.take_turns(
        [
            turns.Program("a", after(calls, "a", 2.0), base=True, images=10),
            turns.Program("b", after(calls, "b", 3.0)),
            turns.Program("c", after(calls, "c", 1.0), "default"),
        ],
        2,
        turns.Clock(),
    )
    assert "".join(calls) == "aabbcc" + "abc" + "bca"
    assert [row["ratio"] for row in rows] == [[1.0] * 3, [1.5] * 3, [0.5] * 3]
    assert rows[0]["images_per_second"] == 5.0
    assert rows[1]["times"] == [3.0, 3.0]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_a_program_that_fails_leaves_its_reason_and_the_others(fails_at, threads):
    rows = turns.take_turns(
        [turns.Program("a", after([], "a", 2.0, fails_at), base=True), turns.Program("b", after([], "b", 3.0))],
        2,
        turns.Clock(),
        threads=threads,
    )
    assert rows[0]["reason"] == "ValueError: went wrong"
    assert rows[1]["times"] == [3.0, 3.0]
    assert rows[1]["ratio"] is None


def test_what_a_budget_leaves_no_time_for_is_skipped_with_a_line():
    clock = turns.Clock(1e-9)
    rows = turns.take_turns([turns.Program("a", after([], "a", 2.0))], 2, clock)
    assert rows[0]["reason"] == "no time left in the budget"


def test_without_pytorch_its_rows_say_so(tmp_path):
    fake = tmp_path / "python"
    code = 'import sys; sys.modules["torch"] = None; import speed_torch; speed_torch.serve()'
    fake.write_text(f"#!/bin/sh\nPYTHONPATH={ROOT}/experiments exec {sys.executable} -c '{code}'\n")
    fake.chmod(0o755)
    pytorch = turns.Torch(str(fake), tmp_path / "log", "cpu")
    assert pytorch.missing == "PyTorch is not installed"
    rows = turns.take_turns([pytorch.program("PyTorch", "training", cases.MLP, 128, 1, "eager")], 1, turns.Clock())
    assert rows[0]["reason"] == "PyTorch is not installed"
    pytorch.forget()  # does not fail, which would lose the workload's other rows
    pytorch.close()


# the command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workloads": ("mlp", "none")}, "--workloads: got none"),
        ({"turns": -1}, "--turns: got -1"),
        ({"images": 100}, "--images: got 100"),
        ({"budget": -1}, "--budget: got -1"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        speed.speed(**arguments, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_workload_has_its_program():
    assert tuple(speed_workloads.WORKLOADS) == speed.NAMES


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("speed")
    with jax.numpy_rank_promotion("allow"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        patch.setattr(turns.Torch, "exchange", lambda torch, request: '{"reason": "PyTorch is not installed"}')
        names = ("sampling", "bf16")
        speed.speed(workloads=names, turns=2, images=512, out=out, record=str(out / "record.json"))
    return out


def test_a_small_run_leaves_figures_a_table_and_a_picture(measured):
    results = json.loads((measured / "results.json").read_text())
    assert json.loads((measured / "record.json").read_text()) == results
    assert results["torch"] == {"reason": "PyTorch is not installed"}
    halved, drawn = results["workloads"]
    assert halved["reason"] == "on accelerators only"
    rows = {row["program"]: row for row in drawn["rows"]}
    assert rows["PyTorch"]["reason"] == "PyTorch is not installed"
    assert rows["ours"]["ratio"] == [1.0] * 3
    for name in ("ours", "minimal JAX loop", "products alone"):
        assert len(rows[name]["times"]) == 2
        assert rows[name]["seconds"][1] == min(rows[name]["times"]) > 0
        assert rows[name]["images_per_second"] == 512 / rows[name]["seconds"][0]
    assert len(drawn["load"]) == 2
    assert (measured / "speed.png").stat().st_size > 1000


def test_the_tables_say_what_was_measured(measured):
    results = json.loads((measured / "results.json").read_text())
    ours = results["workloads"][1]["rows"][0]
    table = (measured / "table.md").read_text()
    assert "## bf16\n\non accelerators only\n" in table
    assert f"| ours | float32 | {ours['seconds'][0]:.3g} s (" in table
    assert "| PyTorch | float32 |  |  |  | PyTorch is not installed |" in table
    said = speed_table.of_readme(results, "experiments/results/speed_cpu.json")
    assert "| what | ours | minimal JAX loop | products alone |" in said
    assert f"| sampling 512 images, 784-500-20 | {ours['seconds'][0]:.3g} s |" in said
    assert "experiments/results/speed_cpu.json" in said


def test_the_readme_has_a_table_for_each_machine(measured, tmp_path, monkeypatch):
    record = json.loads((measured / "record.json").read_text())
    (tmp_path / "speed_cpu.json").write_text(json.dumps(record))
    record["made"]["device"] = {"backend": "gpu", "kind": "NVIDIA H100", "count": 1}
    rows = record["workloads"][1]["rows"]
    rows.append({**rows[0], "program": "ours, full float32", "seconds": [12.3] * 3})
    (tmp_path / "speed_h100.json").write_text(json.dumps(record))
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    first, second = readme.speed_tables().split("**Speed**")[1:]
    assert f"JAX {jax.__version__}" in first
    assert "CPU cores, " in first
    assert "float32" not in first.partition("\n")[2]
    assert "NVIDIA H100, " in second
    assert "| what | ours | ours in full float32 |" in second
    assert " s | 12.3 s |" in second


def test_other_workloads_become_sentences():
    row = {"precision": "", "times": [1.0], "seconds": [1.0] * 3, "compilation": 0.0, "images_per_second": None}
    memory = {"imports": 1.0, "first_step": 2.5, "host_bytes": 2**30, "device_bytes": 2**21}
    results = {
        "workloads": [
            {"name": "seeds", "rows": [{**row, "program": "5 seeds", "ratio": [2.0, 1.5, 3.0]}]},
            {"name": "start", "rows": [{"program": "ours, cold", "precision": "", **memory}]},
            {"name": "repeatable", "rows": [{"program": "aevae train", "precision": "", "repeatable": False}]},
        ]
    }
    said = speed_table.sentences(results)
    assert "5 seeds 2.00 (1.50 to 3.00)" in said
    assert "ours, cold 2.5 s, 1,024 MiB and 2 MiB on the device" in said
    assert "`aevae train`, twice: other bits" in said
