"""Convolutions: as `lax` computes them, with all derivatives and maps, in the one form that XLA runs fast on CPUs."""

from __future__ import annotations

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from oracles import equations

from aevae_jax.training.convolutions import convolve

NHWC = ("NHWC", "HWIO", "NHWC")
CASES = {  # height and width, kernel, strides, padding, dilation of images and of kernels
    "SAME, stride 2, odd": ((5, 4), (3, 3), (2, 2), "SAME", None, None),
    "larger than its image": ((3, 3), (2, 2), (1, 1), [(1, 1), (1, 1)], None, None),
    "VALID, of which some is left over": ((6, 7), (2, 3), (3, 2), "VALID", None, (2, 1)),
    "transposed": ((3, 4), (4, 4), (1, 1), [(2, 2), (3, 1)], (2, 2), None),
    "cropped": ((4, 5), (3, 3), (2, 1), [(-1, 3), (2, -2)], None, (1, 2)),
}


on_cpus = pytest.mark.skipif(jax.default_backend() != "cpu", reason="it is the program of CPUs that is looked at")


def convolution(function, case):
    _, _, strides, padding, lhs, rhs = CASES[case]
    return partial(
        function, strides=strides, padding=padding, lhs_dilation=lhs, rhs_dilation=rhs, dimension_numbers=NHWC
    )


def convolution_of_lax(case):
    _, _, strides, padding, lhs, rhs = CASES[case]
    return partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        lhs_dilation=lhs,
        rhs_dilation=rhs,
        dimension_numbers=NHWC,
    )


def operands(case):
    """Three sets of two images of two channels, and of kernels to three."""
    random, (size, kernel, *_) = np.random.default_rng(0), CASES[case]
    shapes = (3, 2, *size, 2), (3, *kernel, 2, 3)
    return tuple(jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes)


def results(function, xs, kernels):
    """The convolution, both gradients, a tangent, and maps over images, over kernels, and of gradients over both."""

    def loss(x, kernel):
        return (function(x, kernel) ** 2).sum()

    gradient, pair = jax.grad(loss, (0, 1)), (xs[0], kernels[0])
    return {
        "forward": function(*pair),
        "reverse": gradient(*pair),
        "tangent of the gradient": jax.jvp(gradient, pair, (xs[1], kernels[1]))[1],
        "images": jax.vmap(function, (0, None))(xs, kernels[0]),
        "kernels": jax.vmap(function, (None, 1))(xs[0], kernels.swapaxes(0, 1)),
        "seeds": jax.vmap(gradient)(xs, kernels),
    }


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_convolution_of_lax_with_its_derivatives_and_maps(case):
    """Tolerance: float32 rounding of sums in another order."""
    xs, kernels = operands(case)
    found = jax.jit(partial(results, convolution(convolve, case)))(xs, kernels)
    expected = jax.jit(partial(results, convolution_of_lax(case)))(xs, kernels)
    for name, value in expected.items():
        for ours, theirs in zip(jax.tree.leaves(found[name]), jax.tree.leaves(value), strict=True):
            atol = 1e-5 * np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=atol, err_msg=name)


@on_cpus
@pytest.mark.parametrize("case", CASES)
def test_all_that_it_becomes_is_in_the_order_that_is_fast_on_cpus(case):
    program = jax.jit(partial(results, convolution(convolve, case))).lower(*operands(case)).as_text()
    orders = re.findall(r"dim_numbers = (.*?), window", program)
    assert len(orders) >= 9
    assert set(orders) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    assert set(re.findall(r"(?:feature|batch)_group_count = (\d+)", program)) == {"1"}


@on_cpus
def test_no_gradient_has_a_window_that_is_larger_than_what_it_moves_over():
    """Zeros around the image are written, and XLA does not undo that."""
    function = convolution(convolve, "larger than its image")
    x, kernel = (a[0] for a in operands("larger than its image"))
    gradient = jax.jit(jax.grad(lambda kernel, x: (function(x, kernel) ** 2).sum()))
    program = gradient.lower(kernel, x).compile().as_text()
    windows = re.findall(r" convolution\(.*window={(.*?)}", program)
    assert any("size=4x4" in window for window in windows), windows
    assert not any("size=4x4" in window and "pad" in window for window in windows), windows


@pytest.mark.parametrize(
    ("backend", "groups", "order", "primitive"),
    [
        ("cpu", 1, NHWC, "convolution"),
        ("gpu", 1, NHWC, "conv_general_dilated"),
        ("tpu", 1, NHWC, "conv_general_dilated"),
        ("cpu", 2, NHWC, "conv_general_dilated"),
        ("cpu", 1, ("NHWC", "IHWO", "NHWC"), "conv_general_dilated"),
    ],
)
def test_accelerators_groups_and_other_orders_are_left_to_lax(monkeypatch, backend, groups, order, primitive):
    x, kernel = jnp.zeros((2, 4, 4, 2 * groups)), jnp.zeros((2, 2, 2, 2))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    options = {"dimension_numbers": order, "feature_group_count": groups, "precision": "highest"}
    program = jax.make_jaxpr(lambda x, k: convolve(x, k, (2, 2), "VALID", **options))(x, kernel)
    assert [equation.primitive.name for equation in equations(program.jaxpr)] == [primitive]
