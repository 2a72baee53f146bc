"""How near to the machine's own speed are we? Time of our programs over that of the matrix products in them.

Command:   python experiments/speed.py                              (a minute on two CPU cores)
           python experiments/speed.py --images 10000 --turns 1     (a whole test set, as recorded: ten minutes)
Writes:    runs/speed/results.json
Expected:  on CPUs the likelihood takes at most 1.5 times the products alone.

Machines are noisy, so nothing is timed by itself: ours and the products take turns, and the figure is the median of the
ratios of neighbours. The products are those of the same shapes in the same number, one after the other in a compiled
loop, with nothing between them: no activation, no noise, no density. On an accelerator they run in full float32, as
likelihoods do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aevae_jax.cli import console
from aevae_jax.types import InputError


def speed(
    *, images: int = 200, samples: int = 5_000, turns: int = 5, out: Path = Path("runs/speed"), record: str = ""
) -> None:
    """Time a likelihood and an epoch of training against the matrix products alone.

    Args:
      images: binary images of 28 x 28 pixels, random ones, that are scored, and trained on 25 times as many.
      samples: importance samples per image.
      turns: how often ours and the products alternate.
      out: directory for the results.
      record: also write the results to this JSON file.
    """
    for option, value in (("--images", images), ("--samples", samples), ("--turns", turns)):
        if value < 1:
            raise InputError(option, got=value, expected="at least 1")
    from aevae_jax.runs import provenance, records

    rows = [likelihood(images, samples, turns), training(25 * images, turns)]
    results = {
        "command": " ".join(["python", "experiments/speed.py", *sys.argv[1:]]),
        "rows": rows,
        "made": provenance.environment(),
    }
    out.mkdir(parents=True, exist_ok=True)
    records.write_json(out / "results.json", results)
    if record:
        records.write_json(Path(record), results)
    for row in rows:
        low, high = min(row["ratios"]), max(row["ratios"])
        print(
            f"{row['what']}: {row['ours']:.2f} s, products {row['products']:.2f} s, "
            f"ratio {row['ratio']:.2f} ({low:.2f} to {high:.2f} in {len(row['ratios'])} turns)"
        )


def likelihood(images: int, samples: int, turns: int) -> dict[str, Any]:
    """Return the importance-weighted likelihood of the published network: gated 300-300, 40 latent dimensions."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from aevae_jax.evaluation import importance
    from aevae_jax.models import VAE
    from aevae_jax.models.architectures import MLP
    from aevae_jax.models.likelihoods import Bernoulli

    model = VAE(40, MLP((300, 300), gated=True), Bernoulli(), log_scale_range=(-3.0, 1.0), event_shape=(28, 28, 1))
    params = jax.jit(model.init)(jax.random.key(0))
    x = (np.random.default_rng(0).random((images, 28, 28, 1)) < 0.3).astype(np.float32)
    rows = importance.ROWS
    kernels = [jnp.ones(shape) / 300 for shape in ((40, 600), (300, 600), (300, 784))]
    steps = -(-images * samples // rows)

    @jax.jit
    def products(z: Any) -> Any:
        def step(_: Any, z: Any) -> Any:
            h = z
            for kernel in kernels:  # the barrier keeps XLA from computing only the columns that go on
                out = jax.lax.optimization_barrier(jnp.matmul(h, kernel, precision="highest"))
                h = out[:, :300]
            return h[:, :40]

        return jax.lax.fori_loop(0, steps, step, z)

    what = f"likelihood of {images:,} images, {samples:,} samples"
    return alternately(
        what,
        lambda: importance.estimate(model, params, x, jax.random.key(1), num_samples=samples),
        lambda: jax.block_until_ready(products(jnp.ones((rows, 40)))),
        turns,
    )


def training(images: int, turns: int) -> dict[str, Any]:
    """Return an epoch of a VAE of 784-500-20-500-784 units, in batches of 128: with optimizer, noise and metrics."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import aevae_jax as ae
    from aevae_jax.models.architectures import MLP
    from aevae_jax.models.likelihoods import Bernoulli

    batch, images = 128, max(images, 128)
    model = ae.VAE(20, MLP((500,)), Bernoulli(), event_shape=(28, 28, 1))
    tx = ae.AdamW().build(10**6)
    x = jnp.asarray(np.random.default_rng(0).random((images, 28, 28, 1)) < 0.3, jnp.float32)
    train_step = ae.make_train_step(model, ae.ELBO(), tx)
    state = ae.init_state(model, tx, jax.random.key(0))

    def epoch() -> None:
        nonlocal state
        state, _ = ae.train_epoch(train_step, state, x, jax.random.key(0), batch_size=batch)
        jax.block_until_ready(state.params)

    kernels = [jnp.ones(shape) / 500 for shape in ((784, 500), (500, 40), (20, 500), (500, 784))]
    inputs = [jnp.ones((batch, kernel.shape[0])) for kernel in kernels]
    gradients = [jnp.ones((batch, kernel.shape[1])) for kernel in kernels]

    @jax.jit
    def products(inputs: Any) -> Any:
        def step(_: Any, inputs: Any) -> Any:
            out = [x @ kernel for x, kernel in zip(inputs, kernels, strict=True)]
            out += [x.T @ g for x, g in zip(inputs, gradients, strict=True)]
            out += [g @ kernel.T for g, kernel in zip(gradients[1:], kernels[1:], strict=True)]
            used = sum(a[0, 0] for a in jax.lax.optimization_barrier(out))
            return [x.at[0, 0].set(1e-9 * used) for x in inputs]  # so that the next step waits for this one

        return jax.lax.fori_loop(0, images // batch, step, inputs)

    return alternately(
        f"an epoch of training on {images:,} images", epoch, lambda: jax.block_until_ready(products(inputs)), turns
    )


def alternately(what: str, ours: Callable[[], Any], products: Callable[[], Any], turns: int) -> dict[str, Any]:
    """Return seconds of both, the best of all turns, and the ratios turn by turn."""
    import numpy as np

    def seconds(function: Callable[[], Any]) -> float:
        began = time.monotonic()
        function()
        return time.monotonic() - began

    seconds(ours)
    seconds(products)
    times = [(seconds(ours), seconds(products)) for _ in range(turns)]
    ratios = [a / b for a, b in times]
    return {
        "what": what,
        "ours": min(a for a, _ in times),
        "products": min(b for _, b in times),
        "ratios": ratios,
        "ratio": float(np.median(ratios)),
    }


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(speed, sys.argv[1:], prog="speed.py")()
