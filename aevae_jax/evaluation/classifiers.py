"""A small ensemble of classifiers, trained on the same data as the models it measures.

It supplies features for Frechet distances and probabilities for "does this look like any class". Features depend on the
classifier, so such distances compare models within one study only, never with figures published elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from aevae_jax import keys, training
from aevae_jax.data import Prepared, Split
from aevae_jax.models.architectures import MLP, Architecture, Conv
from aevae_jax.training import loops
from aevae_jax.types import InputError, Metrics, Params

BLENDED = 0.2
"""How much images are blended in training: Zhang et al. find 0.1 to 0.4 best."""

CONFIDENT = 0.9
"""The mean probability of a class above which the classifiers are confident of a picture."""


class _Network(nn.Module):
    """`[B, *event]` -> logits `[B, classes]` and features `[B, features]`, the last hidden layer."""

    body: Any
    classes: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        features = nn.relu(self.body(x))
        return nn.Dense(self.classes)(features), features


KNOWN, GAIN = 0.2, 0.2
"""A cycle of training is followed by another one where the cross-entropy of validation data is above `KNOWN` nats, and
it has lowered it by the share `GAIN` at least."""


@dataclass(frozen=True)
class Classifier:
    """The classifier as a value; `init` is what training needs of a model."""

    event_shape: tuple[int, ...]
    classes: int
    network: Architecture
    features: int = 64

    def init(self, key: Array) -> Params:
        """Return fresh parameters."""
        return self._module().init(key, jnp.zeros((1, *self.event_shape)))["params"]

    def __call__(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Return logits `[B, classes]` and features `[B, features]` of x `[B, *event]`."""
        outputs: Any = self._module().apply({"params": params}, x)
        return outputs

    def _module(self) -> _Network:
        return _Network(self.network.encoder(self.event_shape, self.features), self.classes)


def mixed_cross_entropy(model: Any, params: Params, batch: Any, key: Array, step: Array) -> tuple[Array, Metrics]:
    """Return mean cross-entropy in nats of blends of pairs out of a batch (x, labels): an objective like any other.

    A blend lambda a + (1 - lambda) b, lambda ~ Beta(`BLENDED`, `BLENDED`), belongs to the class of a by lambda and to
    that of b by 1 - lambda. So classifiers fit their training images less closely, and are unsure of what lies between
    classes, where those of clean images are sure. Zhang, Cisse, Dauphin & Lopez-Paz 2018 (mixup).
    """
    x, labels = batch
    share = jax.random.beta(key, BLENDED, BLENDED, (len(x),))
    weight = share.reshape(-1, *[1] * (x.ndim - 1))
    logits, _ = model(params, weight * x + (1 - weight) * jnp.flip(x, axis=0))
    own, other = (
        optax.softmax_cross_entropy_with_integer_labels(logits, classes) for classes in (labels, jnp.flip(labels))
    )
    loss = (share * own + (1 - share) * other).mean()
    return loss, {"loss": loss}


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trained classifiers, their parameters stacked along a leading axis M."""

    classifier: Classifier
    params: Params

    def features(self, x: np.ndarray) -> np.ndarray:
        """Return the features of each member, `[N, *event] -> [M, N, features]`."""
        return np.concatenate([np.asarray(_outputs(self.classifier, self.params, b)[1]) for b in _batches(x)], axis=1)

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Return the class probabilities averaged over the members, `[N, *event] -> [N, classes]`.

        The average of several networks is unsure where they disagree, which a single network seldom is on inputs unlike
        its training data. Lakshminarayanan, Pritzel & Blundell 2017.
        """
        return np.concatenate([np.asarray(_outputs(self.classifier, self.params, b)[0]) for b in _batches(x)])

    def confident(self, x: np.ndarray) -> float:
        """Return the share of pictures `[N, *event]` whose likeliest class has a probability above `CONFIDENT`."""
        return float((self.probabilities(x).max(axis=1) > CONFIDENT).mean())


def of(prepared: Prepared) -> Classifier:
    """Return the classifier of a data set.

    Raises:
      InputError: the data set has no labels.
    """
    labels = prepared.train.labels
    if labels is None or not (labels >= 0).any():
        raise InputError(
            f"{prepared.name} labels", got="none", expected="integer labels, to train the judging classifier"
        )
    network = Conv((16, 32)) if len(prepared.event_shape) == 3 else MLP((256,))
    return Classifier(prepared.event_shape, int(labels.max()) + 1, network)


TOLD_AFTER = 50
"""Steps after which it is told how many are done."""


def train_ensemble(
    prepared: Prepared,
    seeds: Sequence[int],
    *,
    steps: int = 600,
    cycles: int = 1,
    on_part: Callable[[int, int], None] | None = None,
) -> Ensemble:
    """Train one classifier per seed on the training split as a model sees it, all at once.

    Args:
      prepared: the data set; training examples whose label is negative have none and are left out.
      seeds: one per classifier.
      steps: of training, over which the learning rate falls along a cosine.
      cycles: how often to do so, at most (Loshchilov & Hutter 2017), as long as validation data say that it is worth
        it: see `KNOWN`. The classifiers are those for which their cross-entropy is least.
      on_part: called after some steps with how many are done, and how many there will be at least.

    Raises:
      InputError: the data set has no labels.
    """
    classifier, train, labels = of(prepared), prepared.train, np.asarray(prepared.train.labels)
    if not (labels >= 0).all():
        known = np.flatnonzero(labels >= 0)
        train, labels = train[known], labels[known]
    batch_size = min(64, len(train))
    per_epoch = len(train) // batch_size
    fall = optax.cosine_decay_schedule(2e-3, steps)
    tx = optax.adam(lambda step: fall(step % steps))
    step = training.make_train_step(
        classifier,  # type: ignore[arg-type]  # of a LatentModel, training calls `init` alone
        mixed_cross_entropy,  # type: ignore[arg-type]  # and so this objective may ask for a classifier
        tx,
        prepare=lambda batch, key: (prepared.batch(batch[0], key), batch[1]),
    )
    key = jax.vmap(keys.root)(jnp.asarray(seeds, jnp.uint32))
    init = jax.jit(jax.vmap(lambda k: training.init_state(classifier, tx, k)))  # type: ignore[arg-type]
    state = init(key)
    examples = jax.device_put((train.x[:], labels))
    done, least, found = 0, math.inf, Ensemble(classifier, state.params)
    for cycle in range(1, cycles + 1):
        while done < cycle * steps:
            chunk = min(per_epoch - done % per_epoch, cycle * steps - done, TOLD_AFTER)
            state, _ = training.train_epoch(step, state, examples, key, batch_size=batch_size, steps=chunk)
            done += chunk
            if on_part is not None:
                jax.block_until_ready(state)
                on_part(done, cycle * steps)
        trained = Ensemble(classifier, loops.copied(state.params))  # the state is donated
        entropy = math.inf if cycles == 1 else _cross_entropy(trained, prepared.validation)
        if cycle == 1 or entropy < least:
            found = trained
        if entropy < KNOWN or entropy > (1 - GAIN) * least:
            break
        least = entropy
    return found


def _cross_entropy(ensemble: Ensemble, split: Split) -> float:
    """Return the mean cross-entropy in nats of at most 5,000 examples whose class is known; 0 where there are none."""
    labels = np.full(len(split), -1) if split.labels is None else np.asarray(split.labels)
    rows = np.flatnonzero((labels >= 0) & (labels < ensemble.classifier.classes))[:5_000]
    if not len(rows):
        return 0.0
    own = ensemble.probabilities(split.x[:][rows])[np.arange(len(rows)), labels[rows]]
    return float(-np.log(own.clip(1e-30)).mean())


@jax.jit(static_argnums=0)
def _outputs(classifier: Classifier, params: Params, x: Array) -> tuple[Array, Array]:
    """Return the mean probabilities `[B, classes]` and features `[M, B, features]`."""
    logits, features = jax.vmap(lambda p: classifier(p, x))(params)
    return jax.nn.softmax(logits).mean(axis=0), features


def _batches(x: np.ndarray, size: int = 1000) -> list[np.ndarray]:
    return [x[i : i + size] for i in range(0, len(x), size)]
