"""Our programs whose speed is measured, and the limit: the matrix products and convolutions in them alone.

Every maker returns a function without arguments that computes everything, waits for it, and gives a number to compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr
from speed_cases import Case

import aevae_jax as ae
from aevae_jax.evaluation import importance
from aevae_jax.models import generation
from aevae_jax.models.architectures import MLP, Architecture, Conv, Dtype, ResidualConv
from aevae_jax.models.likelihoods import Bernoulli, Likelihood, NormalSharedScale
from aevae_jax.models.priors import StandardNormal
from aevae_jax.objectives import bounds
from aevae_jax.runs import resolution, trainer
from aevae_jax.runs.sweeps import Population

PRODUCTS = ("dot_general", "conv_general_dilated", "convolution")


def model_of(case: Case, dtype: Dtype = "float32") -> ae.VAE:
    """Return the library's value for a case; kernels of its encoder are always 3 x 3."""
    network: Architecture
    if not case.channels:
        network = MLP(case.hidden, case.gated, dtype)
    elif case.blocks:
        network = ResidualConv(case.channels, case.blocks, dtype)
    else:
        network = Conv(case.channels, dtype)
    likelihood: Likelihood = Bernoulli() if case.binary else NormalSharedScale()
    return ae.VAE(case.latent, network, likelihood, StandardNormal(), case.log_scale_range, case.event_shape)


def training(case: Case, x: Any, epochs: int = 1, *, dtype: Dtype = "float32") -> Callable[[], float]:
    """Return what trains some epochs, with all metrics of every step, and gives the mean loss of the last."""
    model = model_of(case, dtype)
    tx = ae.AdamW().build(10**6)
    train_step = ae.make_train_step(model, ae.ELBO(), tx)
    state, x = ae.init_state(model, tx, jax.random.key(0)), jnp.asarray(x)

    def train() -> float:
        nonlocal state
        for _ in range(epochs):
            state, metrics = ae.train_epoch(train_step, state, x, jax.random.key(0), batch_size=case.batch)
        jax.block_until_ready(state)
        return float(metrics["loss"].mean())

    return train


def training_alone(case: Case, images: int, epochs: int = 1) -> Callable[[], float]:
    """Return the products of a training of so many images, gradients included."""
    model = model_of(case)
    params = jax.eval_shape(model.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((case.batch, *case.event_shape), jnp.float32)

    def loss(params: Any, x: Any) -> Any:
        return ae.ELBO()(model, params, x, jax.random.key(0), jnp.asarray(0))[0]

    return alone(jax.grad(loss), (params, x), epochs * (images // case.batch))


def evaluation(case: Case, x: Any) -> Callable[[], float]:
    """Return what gives the mean negative ELBO of all images."""
    model = model_of(case)
    params, x = jax.jit(model.init)(jax.random.key(0)), jnp.asarray(x)
    return lambda: ae.evaluate(model, params, x, jax.random.key(1))["negative_elbo"]


def evaluation_alone(case: Case, images: int) -> Callable[[], float]:
    """Return the products of an evaluation: an encoding, and a decoding at a sample and one at the mean."""
    model = model_of(case)
    params = jax.eval_shape(model.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((256, *case.event_shape), jnp.float32)

    def terms(params: Any, x: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return bounds.bound_terms(model, params, x, jax.random.key(0))

    return alone(terms, (params, x), -(-images // 256))


def likelihood(case: Case, x: Any, samples: int) -> Callable[[], float]:
    """Return what gives the mean negative log likelihood by importance weights, always in full float32."""
    model = model_of(case)
    params = jax.jit(model.init)(jax.random.key(0))
    return lambda: float(importance.estimate(model, params, x, jax.random.key(1), num_samples=samples).nll.mean())


def likelihood_alone(case: Case, images: int, samples: int) -> Callable[[], float]:
    """Return the products of the decodings of a likelihood, so many at once as it takes them."""
    model, rows = model_of(case), importance.ROWS
    params = jax.eval_shape(model.init, jax.random.key(0))

    def decode(params: Any, z: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return model.decode(params, z).mean()

    return alone(decode, (params, jax.ShapeDtypeStruct((rows, case.latent), jnp.float32)), -(-images * samples // rows))


def sampling(case: Case, count: int) -> Callable[[], float]:
    """Return what draws codes from the prior and decodes them to means, and gives the first pixel."""
    model = model_of(case)
    params = jax.jit(model.init)(jax.random.key(0))
    draw = jax.jit(lambda params, key: generation.sample(model, params, key, count).mean())
    return lambda: float(jax.block_until_ready(draw(params, jax.random.key(1)))[0, 0, 0, 0])


def sampling_alone(case: Case, count: int) -> Callable[[], float]:
    """Return the products of a decoding."""
    model = model_of(case)
    params = jax.eval_shape(model.init, jax.random.key(0))
    z = jax.ShapeDtypeStruct((count, case.latent), jnp.float32)
    return alone(lambda params, z: model.decode(params, z).mean(), (params, z), 1)


USUAL = ae.VAE(likelihood=NormalSharedScale(), latent_prior=StandardNormal())
"""The VAE of the default sizes under N(0, I)."""


def seeds(count: int, epochs: int) -> Callable[[], float]:
    """Return what trains `USUAL` on the digits with so many seeds as `fit_seeds` does, without evaluation."""
    run = ae.Run(model=USUAL, epochs=10**4)
    loop = trainer.Trainer(resolution.resolve(run), Population(tuple(range(count))))
    snapshot = loop.start()

    def train() -> float:
        nonlocal snapshot
        snapshot = loop.train_to(snapshot, snapshot.progress.step + epochs * loop.steps_per_epoch)
        jax.block_until_ready(snapshot.state)
        return float(np.asarray(snapshot.metrics["loss"]).mean())

    return train


def fits(count: int, epochs: int) -> Callable[[], float]:
    """Return the same by a whole call of `fit_seeds` (`fit` for 0 seeds): data, evaluation after every epoch, test."""
    run = ae.Run(model=USUAL, epochs=epochs)

    def fit() -> float:
        fitted = ae.fit_seeds(run, range(count)) if count else ae.fit(run)
        jax.block_until_ready(fitted.params)
        return float(np.asarray(fitted.losses)[-1].mean())

    return fit


# ---------------------------------------------------------------------------------------------------------- the limit


def alone(function: Callable[..., Any], arguments: tuple[Any, ...], times: int) -> Callable[[], float]:
    """Return the matrix products and convolutions of a program alone, so many times one after the other.

    They have the shapes, types and precision that they have there, and nothing stands between them: no activation, no
    noise, no density. Each time waits for the one before. On CPUs, convolutions are called time by time, as XLA runs
    them slowly inside a loop.

    Args:
      function: the program.
      arguments: arrays or `jax.ShapeDtypeStruct`.
      times: how often.
    """
    found = list(equations(jax.make_jaxpr(function)(*arguments).jaxpr))
    random = np.random.default_rng(0)

    def ones_like(aval: Any) -> Any:
        size = max(1, aval.size)
        return jnp.asarray(random.standard_normal(aval.shape) / math.sqrt(size), aval.dtype)

    operands = [[ones_like(var.aval) for var in equation.invars] for equation in found]

    def step(operands: Any) -> Any:
        out = [
            equation.primitive.bind(*pair, **equation.params) for equation, pair in zip(found, operands, strict=True)
        ]
        used = sum(a[(0,) * a.ndim].astype(jnp.float32) for a in jax.lax.optimization_barrier(out))
        first = [a.at[(0,) * a.ndim].set((1e-9 * used).astype(a.dtype)) for a, _ in operands]  # the next step waits
        return [[a, b] for a, (_, b) in zip(first, operands, strict=True)]

    if jax.default_backend() == "cpu" and any(equation.primitive.name == PRODUCTS[1] for equation in found):
        one = jax.jit(step, donate_argnums=0)

        def run() -> Any:
            nonlocal operands
            for _ in range(times):
                operands = one(operands)
            return operands
    else:
        all_times = jax.jit(
            lambda operands: jax.lax.fori_loop(0, times, lambda _, a: step(a), operands), donate_argnums=0
        )

        def run() -> Any:
            nonlocal operands
            operands = all_times(operands)
            return operands

    return lambda: float(jnp.asarray(jax.block_until_ready(run())[0][0], jnp.float32).reshape(-1)[0])


def equations(jaxpr: Any) -> Iterator[Any]:
    """Yield the equations of all products and convolutions of a program, those of inner programs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in PRODUCTS:
            yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            if isinstance(value, ClosedJaxpr | Jaxpr):
                yield from equations(getattr(value, "jaxpr", value))


def precisely(function: Callable[[], float]) -> Callable[[], float]:
    """Return the same with products in full float32, which accelerators otherwise round to fewer bits."""

    def run() -> float:
        with jax.default_matmul_precision("highest"):
            return function()

    return run
