"""Invertible maps against automatic differentiation: determinants, inverses, and the derivatives of inverses."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from aevae_jax.distributions import bijections
from aevae_jax.models import flow_networks

B = 5


def array(seed: int, *shape: int, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(scale=scale, size=shape), jnp.float32)


def variables(network: Any, *inputs: jax.Array) -> Any:
    """Parameters at the scale at which a network bends, and none of them 0."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    leaves, tree = jax.tree.flatten(shapes)
    return jax.tree.unflatten(tree, [array(9 + i, *leaf.shape, scale=0.6) for i, leaf in enumerate(leaves)])


def split(out: jax.Array) -> tuple[jax.Array, jax.Array]:
    return out[:, 0], 0.7 * jnp.tanh(out[:, 1])


def autoregressive(params: Any, context: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    return split(flow_networks.MADE((7, 6)).apply(params, z, context))


def conditioner(params: Any, a: jax.Array) -> tuple[jax.Array, jax.Array]:
    size = params["params"]["out"]["bias"].shape[0] // 2
    return split(flow_networks.Conditioner((6,), size).apply(params, a))


def made(size: int) -> bijections.Autoregressive:
    context = array(3, B, 2)
    params = variables(flow_networks.MADE((7, 6)), jnp.zeros((1, size)), context[:1])
    return bijections.Autoregressive(Partial(autoregressive, params, context))


def coupling(size: int, kept: int) -> bijections.Coupling:
    params = variables(flow_networks.Conditioner((6,), size - kept), jnp.zeros((1, kept)))
    return bijections.Coupling(Partial(conditioner, params), kept)


def planar(size: int, scale: float = 1.0) -> bijections.PlanarMap:
    return bijections.PlanarMap(array(0, B, size, scale=scale), array(1, B, size, scale=scale), array(2, B))


MAPS = {
    "Affine": bijections.Affine(array(0, 1, 3), array(1, 1, 3, scale=0.5)),
    "Affine of each example": bijections.Affine(array(0, B, 3), array(1, B, 3, scale=0.5)),
    "Reverse": bijections.Reverse(),
    "Autoregressive": made(4),
    "Autoregressive, one dimension": made(1),
    "Autoregressive, two dimensions": made(2),
    "Inverse": bijections.Inverse(made(3)),
    "Coupling": coupling(4, 2),
    "Coupling, odd": coupling(3, 1),
    "Coupling, odd the other way": coupling(3, 2),
    "PlanarMap": planar(3),
    "PlanarMap, one dimension": planar(1),
    "PlanarMap, steep": planar(3, scale=2.5),
}
SIZES = {"Affine": 3, "Affine of each example": 3, "Reverse": 3, "Inverse": 3, "Coupling, odd": 3}
SIZES |= {"Coupling, odd the other way": 3, "PlanarMap": 3, "PlanarMap, steep": 3, "Autoregressive": 4, "Coupling": 4}
SIZES |= {"Autoregressive, one dimension": 1, "PlanarMap, one dimension": 1, "Autoregressive, two dimensions": 2}
each = pytest.mark.parametrize("name", MAPS)


@cache
def found(name: str) -> dict[str, np.ndarray]:
    """A map at points, there and back, and its whole Jacobian `[B, D, B, D]`."""
    z = array(4, B, SIZES[name])

    @jax.jit
    def program(of, z):
        y, log_det = of.forward(z)
        back, log_det_of_inverse = of.inverse(y)
        jacobian = jax.jacfwd(lambda z: of.forward(z)[0])(z)
        of_inverse = jax.jacfwd(lambda y: of.inverse(y)[0])(y)
        return {
            "z": z,
            "y": y,
            "back": back,
            "log_det": log_det,
            "log_det of inverse": log_det_of_inverse,
            "jacobian": jacobian,
            "jacobian of inverse": of_inverse,
        }

    return {key: np.asarray(value, np.float64) for key, value in program(MAPS[name], z).items()}


def blocks(jacobian: np.ndarray) -> np.ndarray:
    """The Jacobian of each example, `[B, D, D]`."""
    return np.stack([jacobian[i, :, i] for i in range(len(jacobian))])


@each
def test_log_determinant_is_that_of_automatic_differentiation(name):
    out = found(name)
    expected = np.linalg.slogdet(blocks(out["jacobian"]))[1]
    np.testing.assert_allclose(out["log_det"], expected, atol=2e-5)
    np.testing.assert_allclose(out["log_det of inverse"], expected, atol=2e-4)
    if "Reverse" not in name and name != "Affine":
        assert np.ptp(expected) > 1e-3  # several points, not one


@each
def test_an_example_does_not_see_the_others(name):
    jacobian = found(name)["jacobian"].copy()
    for i in range(B):
        jacobian[i, :, i] = 0
    np.testing.assert_array_equal(jacobian, 0.0)


@each
def test_the_inverse_leads_back_and_so_does_its_derivative(name):
    """Points at which a planar map nearly folds, of slope 1/100, are known to fewer digits."""
    out, loose = found(name), 50 if "steep" in name else 1
    np.testing.assert_allclose(out["back"], out["z"], atol=2e-5 * loose)
    product = blocks(out["jacobian of inverse"]) @ blocks(out["jacobian"])
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(product.shape[1]), product.shape), atol=1e-4 * loose)


@each
def test_there_and_back_depends_on_no_parameter(name):
    """inverse(forward(z)) is z whatever the parameters: its derivatives by them are 0, of an inverse found by search,
    too, and to second order.
    """
    of, z = MAPS[name], array(4, B, SIZES[name])
    leaves, tree = jax.tree.flatten(of)
    if not leaves:
        return
    direction = [array(20 + i, *leaf.shape) for i, leaf in enumerate(leaves)]

    @jax.jit
    def derivatives(leaves):
        def along(t):
            moved = jax.tree.unflatten(tree, [a + t * d for a, d in zip(leaves, direction, strict=True)])
            y, there = moved.forward(z)
            back, again = moved.inverse(y)
            return back, there - again, jax.lax.stop_gradient(y), moved.inverse(jax.lax.stop_gradient(y))[0]

        return jax.jvp(lambda t: jax.jvp(along, (t,), (1.0,))[1], (0.0,), (1.0,))  # the first and the second

    (back, log_det, _, moved), (second, log_det_2, *_) = derivatives(leaves)
    for zero in (back, log_det, second, log_det_2):
        np.testing.assert_allclose(zero, 0.0, atol=2e-2 if "steep" in name else 2e-3)
    assert np.abs(moved).max() > 1e-2  # the inverse of one y does depend on them


def test_an_element_sees_all_those_before_it_and_no_other():
    """Also where there are fewer hidden units than dimensions."""
    for size, hidden in ((4, (7, 6)), (6, (3,)), (2, (5,)), (1, (5,))):
        network, z = flow_networks.MADE(hidden), array(5, 1, size)
        params = variables(network, z)
        jacobian = jax.jit(jax.jacfwd(lambda z, n=network, p=params: n.apply(p, z)[0]))(z)[:, :, 0]  # [2, D, D]
        np.testing.assert_array_equal(np.triu(jacobian), 0.0)
        seen = np.abs(np.asarray(jacobian)).max(axis=0) > 0
        if hidden[0] >= size:
            np.testing.assert_array_equal(seen, np.tri(size, k=-1, dtype=bool))
        else:
            assert all(seen[d].any() for d in range(1, size))


def test_networks_begin_at_zero():
    z = array(6, B, 3)
    for network in (flow_networks.MADE((4,)), flow_networks.Conditioner((4,), 2)):
        params = jax.jit(network.init)(jax.random.key(0), z)
        np.testing.assert_array_equal(network.apply(params, z), 0.0)
        assert np.any(params["params"]["hidden_0" if "hidden_0" in params["params"] else "Dense_0"]["kernel"])


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 30.0, 1e3])
def test_a_planar_map_never_folds(scale):
    """However u and w lie: along w it increases, with a finite determinant, and u stays of the size it was given."""
    w = scale * array(1, B, 3)
    u = -3 * scale * array(1, B, 3) + array(0, B, 3)  # against w
    of = bijections.PlanarMap(u, w, jnp.zeros(B))
    z = jnp.stack([t * array(1, B, 3) for t in np.linspace(-2, 2, 41)])
    y, log_det = jax.jit(jax.vmap(of.forward))(z)
    along = np.asarray((y * array(1, B, 3)[None]).sum(-1), np.float64)
    assert (np.diff(along, axis=0) > 0).all()
    assert np.isfinite(log_det).all()
    assert (np.asarray(log_det) >= np.log(bijections.LEAST_SLOPE) - 1e-3).all()
    assert np.abs(y - z).max() <= 4 * np.abs(u).max() + 1 / (scale + 1e-3) * (scale > 1e-3)


def test_a_planar_map_is_the_formula_where_it_needs_no_constraint():
    """Where w . u = 0, u is as it was given."""
    w, b = array(1, B, 3), array(2, B)
    u = array(0, B, 3)
    u = u - w * ((u * w).sum(1) / (w**2).sum(1))[:, None]
    z = array(4, B, 3)
    y, log_det = bijections.PlanarMap(u, w, b).forward(z)
    np.testing.assert_allclose(y, z + u * np.tanh((w * z).sum(1) + b)[:, None], atol=1e-5)
    np.testing.assert_allclose(log_det, 0.0, atol=1e-5)
