"""The origin of values that are not finite: each case has one by construction, and its line is marked in this file."""

from __future__ import annotations

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import random_params

import aevae_jax as ae
from aevae_jax import training
from aevae_jax.models import networks
from aevae_jax.models.architectures import MLP
from aevae_jax.runs import tracing

ZERO = jnp.array([0.0, 1.0])
BIG = jnp.array([1.0, 200.0])


def line(mark, file=__file__):
    """`file.py:number` of the one line that ends in `# mark`."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    (number,) = [i for i, text in enumerate(lines, 1) if text.endswith(f"# {mark}")]
    return f"{Path(file).name}:{number}"


def check(found, operation, mark, value, *, shape=(2,), output=""):
    assert found is not None
    where, _, name = found.where.partition(" ")
    assert found[:1] + found[2:] == (operation, value, shape, output)
    assert where == line(mark)
    assert name.startswith("(")
    assert name.endswith(")")


# masks


def masked_log(x):
    return jnp.where(x > 0, jnp.log(x), 0.0)  # masked log


def test_what_is_masked_is_not_blamed():
    assert tracing.first_non_finite(masked_log, ZERO) is None
    assert tracing.first_non_finite(lambda x: jnp.exp(-1 / x), ZERO) is None
    assert tracing.first_non_finite(lambda x: jax.nn.logsumexp(jnp.where(x > 0, x, -jnp.inf)), ZERO) is None
    assert tracing.first_non_finite(lambda x: jnp.max(x, initial=-jnp.inf), ZERO) is None


def test_a_masked_infinity_is_not_blamed_for_another():
    def f(x):
        return jnp.where(x > 0, jnp.log(x), 1 / x)  # other branch

    check(tracing.first_non_finite(f, ZERO), "div", "other branch", "inf")


def test_an_overwritten_row_is_not_blamed():
    def f(x):
        return jnp.log(x).at[0].set(jnp.exp(x[1] * 1000))  # overwritten

    check(tracing.first_non_finite(f, ZERO), "exp", "overwritten", "inf", shape=())


def test_the_gradient_through_a_mask_is_found():
    """The mask makes the cotangent 0; what divides it by x is the derivative of the masked logarithm."""
    found = tracing.first_non_finite(jax.grad(lambda x: masked_log(x).sum()), ZERO)
    check(found, "div", "masked log", "nan")
    assert found.where.endswith("(masked_log)")


# infinities and what becomes of them


def test_a_nan_is_traced_to_the_infinity_before_it():
    def f(x):
        a = jnp.exp(x)  # overflow
        return {"n": x.astype(int), "y": (a - a).sum(), "z": x}

    check(tracing.first_non_finite(f, BIG), "exp", "overflow", "inf", output="y")
    check(tracing.first_non_finite(lambda x: f(x)["y"] * 0, BIG), "exp", "overflow", "inf")


def test_the_earliest_of_two_infinities_and_a_nan_before_both():
    def f(x):
        a = jnp.exp(x)  # earliest
        b = jnp.exp(x + 1)
        c = jnp.log(-x)  # the nan
        return {"ab": a + b, "ba": b + a}, {"abc": a + b + c}

    check(tracing.first_non_finite(lambda x: f(x)[0], BIG), "exp", "earliest", "inf", output="ab")
    check(tracing.first_non_finite(lambda x: f(x)[0]["ba"], BIG), "exp", "earliest", "inf")
    check(tracing.first_non_finite(f, BIG), "log", "the nan", "nan", output="1/abc")


def test_the_gradient_of_a_root_at_zero_is_found_on_the_line_of_the_root():
    def norm(x):
        return jnp.sqrt((x**2).sum())  # root

    assert tracing.first_non_finite(norm, jnp.zeros(2)) is None
    found = tracing.first_non_finite(jax.value_and_grad(norm), jnp.zeros(2))
    check(found, "div", "root", "inf", shape=(), output="1")


# sources that are no operation


def test_inputs_are_named_by_their_path():
    tree = {"encoder": {"Dense_0": {"kernel": np.ones((2, 2)), "bias": np.array([1.0, np.nan])}}, "n": 3}

    def f(params, x, *rest):
        kernel, bias = params["encoder"]["Dense_0"].values()
        return kernel @ x + bias, rest[1] * 2

    found = tracing.first_non_finite(f, tree, jnp.ones(2), True, jnp.ones(1))
    assert found == ("input", "params/encoder/Dense_0/bias", "nan", (2,), "0")
    tree["encoder"]["Dense_0"]["bias"][1] = 0
    found = tracing.first_non_finite(f, tree, jnp.ones(2), True, jnp.array([-jnp.inf]))
    assert found == ("input", "rest/1", "inf", (1,), "1")
    assert tracing.first_non_finite(f, tree, 1 / jnp.zeros(2), True, jnp.ones(1)).where == "x"
    assert tracing.first_non_finite(jnp.log, float("nan")).operation == "input"
    assert tracing.first_non_finite(f, tree, jnp.ones(2), True, jnp.ones(1)) is None


def test_a_function_of_jax_itself_has_no_line():
    assert tracing.first_non_finite(jnp.log, ZERO) == ("log", "unknown", "inf", (2,), "")


def test_constants_are_blamed_last():
    closed = jnp.array([1.0, -jnp.inf])

    def literal(x):
        return jnp.where(x > 0, x, -jnp.inf)  # literal

    check(tracing.first_non_finite(literal, ZERO), "literal", "literal", "inf", shape=())
    check(tracing.first_non_finite(lambda x: literal(x) - jnp.log(x), ZERO), "log", "not blamed", "inf")  # not blamed
    assert tracing.first_non_finite(lambda x: closed * x, BIG) == ("input", "closed over", "inf", (2,), "")
    assert tracing.first_non_finite(lambda x: closed - jnp.exp(x), BIG).operation == "exp"


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.complex64])
def test_all_types_of_numbers(dtype):
    found = tracing.first_non_finite(lambda x: jnp.exp(x) * 2 - jnp.inf, BIG.astype(dtype))
    assert found.operation == "exp"


def test_inputs_come_before_all_operations():
    found = tracing.first_non_finite(lambda x, y: jnp.exp(x) + y, BIG, jnp.array([0.0, jnp.inf]))
    assert (found.operation, found.where) == ("input", "y")


def test_checks_of_jax_for_nans_do_not_come_in_between():
    with jax.debug_nans(True), jax.debug_infs(True):
        assert tracing.first_non_finite(lambda x: jnp.log(x - 1), ZERO).operation == "log"


# programs inside programs


@jax.jit
def inner(x):
    return jnp.log(x) + 1  # inner


@jax.custom_vjp
def own_gradient(x):
    return x


def _backward(residual, cotangent):
    return (cotangent / residual,)


own_gradient.defvjp(lambda x: (x, x), _backward)


def scanned(x):
    def body(carry, row):
        return carry * row, inner(carry)

    return jax.lax.scan(body, jnp.ones(2), jnp.stack([x, x, x]), reverse=True)[1]


def looped(x):
    return jax.lax.fori_loop(0, jnp.int32(x[1]) + 3, lambda i, c: c + inner(x + i), x)


def waited(x):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, inner(c[1])), (0, x))[1]


NESTED = {
    "jit": jax.jit(jax.jit(lambda x: inner(2 * x))),
    "vmap": jax.vmap(inner),
    "remat": jax.checkpoint(inner),
    "scan": scanned,
    "fori": looped,
    "while": waited,
    "cond": lambda x: jax.lax.cond(x[0] > 0, jnp.cos, inner, x),
    "switch": lambda x: jax.lax.switch(1, [jnp.cos, lambda x: jax.lax.map(inner, x)], x),
    "custom_jvp": lambda x: jax.nn.relu(-inner(x)),
    "softplus": lambda x: jax.nn.softplus(-inner(x)),
    "logsumexp": lambda x: jax.nn.logsumexp(-inner(x)),
}


@pytest.mark.parametrize("name", NESTED)
def test_operations_inside_programs_are_found(name):
    found = tracing.first_non_finite(NESTED[name], ZERO)
    check(found, "log", "inner", "inf", shape=() if name == "switch" else (2,))
    assert found.where.endswith("(inner)")
    assert tracing.first_non_finite(NESTED[name], jnp.full(2, 3.0)) is None


@pytest.mark.parametrize("name", ["jit", "scan", "remat", "vmap"])
def test_operations_of_their_gradients_are_found(name):
    """Going forward, all is masked; going backward, the derivative of the logarithm is not."""
    masked = jax.value_and_grad(lambda x: jnp.where(x > 0, NESTED[name](x), 0.0).sum())
    found = tracing.first_non_finite(masked, ZERO)
    assert found.operation in ("div", "mul")
    assert found.where == f"{line('inner')} (inner)"
    assert found.output == "1"


def test_the_branch_that_is_not_taken_is_not_blamed():
    def f(x):
        return jax.lax.cond(x[0] > 1, inner, lambda x: 1 / x, x)  # taken

    check(tracing.first_non_finite(f, ZERO), "div", "taken", "inf")


def test_entries_of_a_loop_stop_by_themselves():
    """An entry that has stopped would divide by zero if it went on."""

    def count(x):
        return jax.lax.while_loop(lambda c: c[0] > 0, lambda c: (c[0] - 1, c[1] / c[0]), (x, x))[1]

    assert tracing.first_non_finite(jax.vmap(count), jnp.array([3.0, 1.0, 2.0])) is None
    # 2 / 2 / 1 = 1 and 3 / 3 / 2 / 1 = 0.5
    found = tracing.first_non_finite(jax.vmap(lambda x: 1 / (count(x) - 0.5)), jnp.array([2.0, 3.0]))  # after
    check(found, "div", "after", "inf")


def test_a_loop_goes_on_as_long_as_any_entry_does():
    """The second entry makes an infinity in its last turn, when the first has stopped."""

    def count(x):
        def turn(c):
            return c[0] - 1, c[1] + jnp.log(c[0] - 1 + (x < 3))

        return jax.lax.while_loop(lambda c: c[0] > 0, turn, (x, 0 * x))[1]

    assert tracing.first_non_finite(jax.vmap(count), jnp.array([2.0, 5.0])).operation == "log"


def test_an_own_gradient_has_the_line_where_its_function_is_called():
    found = tracing.first_non_finite(jax.grad(lambda x: own_gradient(x).sum()), ZERO)  # own gradient
    check(found, "div", "own gradient", "inf")


def test_a_library_function_has_the_line_of_each_call():
    """JAX traces it once and keeps the program; the line must not be that of the first call."""
    assert tracing.first_non_finite(lambda x: jnp.var(x) + jnp.std(x), BIG) is None

    def f(x):
        return jnp.var(x) + jnp.std(x)  # each call

    found = tracing.first_non_finite(jax.grad(f), jnp.ones(2))
    assert found.where.startswith(line("each call"))


def test_a_scan_from_the_end_keeps_its_rows_in_place():
    def f(x):
        sums = jax.lax.scan(lambda c, row: (c + row, c), 0.0, x, reverse=True)[1]  # [5, 3, 0]
        return 1 / (sums[0] - 5)  # in place

    check(tracing.first_non_finite(f, jnp.array([1.0, 2.0, 3.0])), "div", "in place", "inf", shape=())


def test_long_scans_are_stepped_compiled():
    def f(x):
        return jax.lax.scan(lambda c, i: (c + jnp.where(i < 590, 1.0, inner(0 * x)), c), x, jnp.arange(600))

    start = time.perf_counter()
    check(tracing.first_non_finite(f, ZERO), "log", "inner", "inf", output="0")
    assert time.perf_counter() - start < 10


# randomness, and a model


def test_keys_may_be_arguments_and_stay_fresh():
    key = jax.random.key(3)

    @jax.jit
    def f(key, n, flag):
        keys = jax.random.split(key, 3)
        noise = jax.lax.scan(lambda c, k: (jax.random.fold_in(c, n), jax.random.normal(k, (2,))), key, keys)[1]
        return jnp.where(flag, noise.sum(0), 0.0) / jnp.maximum(n, 0)  # noise

    assert tracing.first_non_finite(f, key, 3, True) is None
    check(tracing.first_non_finite(f, key, -1, np.bool_(True)), "div", "noise", "inf")
    assert tracing.first_non_finite(lambda key: (key, jax.random.split(key)), key) is None
    jax.random.normal(key)  # the check of reused keys is on: it would refuse a key that was consumed


WIDE = (-200.0, 200.0)  # exp(200) is no float32
MODEL = ae.VAE(latent=4, network=MLP(hidden=(16,)), log_scale_range=WIDE, event_shape=(8, 8, 1))


@pytest.fixture(scope="module")
def batch():
    return jax.random.uniform(jax.random.key(1), (4, 8, 8, 1))


def gradient(params, x, key, step):
    return jax.value_and_grad(lambda p: ae.ELBO()(MODEL, p, x, key, step), has_aux=True)(params)


@pytest.fixture(scope="module")
def arguments(batch):
    return batch, jax.random.key(2), jnp.zeros((), jnp.int32)


@pytest.mark.slow
def test_a_model_whose_posterior_scale_overflows(arguments):
    params = random_params(MODEL)
    assert tracing.first_non_finite(gradient, params, *arguments) is None
    params["encoder"]["out"]["kernel"] *= 1e4
    found = tracing.first_non_finite(gradient, params, *arguments)
    assert found[:1] + found[2:] == ("exp", "inf", (4, 4), "0/0")
    assert found.where.startswith("elementary.py:")
    assert found.where.endswith("(Normal.scale)")


def test_a_weight_that_is_no_number(arguments):
    params = random_params(MODEL)
    kernel = params["decoder"]["out"]["kernel"]
    params["decoder"]["out"]["kernel"] = kernel.at[0, 0].set(jnp.nan)
    found = tracing.first_non_finite(gradient, params, *arguments)
    assert found == ("input", "params/decoder/out/kernel", "nan", kernel.shape, "0/0")


def test_a_model_is_an_argument_like_others_and_layers_have_the_line_of_their_network(batch):
    params = jax.tree.map(lambda a: a * 1e30, random_params(MODEL))
    found = tracing.first_non_finite(ae.ELBO(), MODEL, params, batch, jax.random.key(2), 0)
    assert found.operation == "dot_general"
    assert found.where.startswith(f"{Path(networks.__file__).name}:")
    assert found.where.endswith("(MLP.__call__)")


def test_a_training_step(batch):
    tx = optax.adam(1e-3)
    step = training.make_train_step(MODEL, ae.ELBO(), tx)
    state = training.init_state(MODEL, tx, jax.random.key(0))
    found = tracing.first_non_finite(step, state, batch.at[2].set(jnp.nan), jax.random.key(1))
    assert found[:4] == ("input", "batch", "nan", batch.shape)
