"""Any model with a likelihood of levels codes its data exactly, near its bound, or says that it cannot."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import jax
import numpy as np
import oracles
import pytest
from scipy.special import logsumexp
from sklearn import datasets

import aevae_jax as ae
from aevae_jax.compression import Coder, Damaged, certified, chunks, latents, plain, tables
from aevae_jax.compression.stack import Dice, Nothing, Tally
from aevae_jax.models import architectures, generation, likelihoods, priors
from aevae_jax.objectives import bounds
from aevae_jax.types import InputError

SMALL = architectures.MLP((12,))


def model_of(kind):
    """Return a tiny model of each kind that can be coded."""
    grid, image = {"event_shape": (6,), "network": SMALL, "latent": 4}, {"event_shape": (5, 6, 1), "latent": 3}
    logistic, several = likelihoods.DiscretizedLogistic(levels=17), likelihoods.DiscretizedLogisticMixture(17, 2)
    return {
        "bits": lambda: ae.VAE(likelihood=likelihoods.Bernoulli(), **grid),
        "levels": lambda: ae.VAE(likelihood=likelihoods.Categorical(levels=5), **grid),
        "logistic": lambda: ae.VAE(likelihood=logistic, **grid),
        "logistics": lambda: ae.VAE(likelihood=several, **grid),
        "mixture": lambda: ae.VAE(likelihood=logistic, latent_prior=priors.GaussianMixture(3), **grid),
        "vampprior": lambda: ae.VAE(likelihood=logistic, latent_prior=priors.VampPrior(4), **grid),
        "two levels": lambda: ae.TwoLevelVAE(likelihood=logistic, latent_prior=priors.GaussianMixture(3), **grid),
        "convolutions": lambda: ae.VAE(likelihood=several, network=architectures.Conv((3,)), **image),
        "residual": lambda: ae.VAE(likelihood=logistic, network=architectures.ResidualConv((8,)), **image),
        "gated": lambda: ae.VAE(likelihood=logistic, **{**grid, "network": architectures.MLP((8,), gated=True)}),
        "passes": lambda: ae.VAE(
            likelihood=likelihoods.InterlacedLogisticMixture(17, 2, 4), network=architectures.Conv((3,)), **image
        ),
        "16 bits": lambda: ae.VAE(likelihood=likelihoods.DiscretizedLogistic(levels=300), **grid),
    }[kind]()


KINDS = [
    "bits",
    *(
        pytest.param(kind, marks=pytest.mark.slow)
        for kind in (
            "two levels",
            "passes",
            "levels",
            "logistic",
            "logistics",
            "mixture",
            "vampprior",
            "convolutions",
            "residual",
            "gated",
            "16 bits",
        )
    ),
]


def drawn(model, n, seed=0):
    """Return parameters that are not those of the start, a coder, and examples."""
    generator = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf + 0.2 * generator.normal(size=leaf.shape), np.float32),
        oracles.random_params(model, seed),
    )
    coder = Coder(model, params)
    return params, coder, generator.integers(0, coder.levels, (n, *model.event_shape))


def likely(model, n):
    """Return a coder of a model that has something to say, and examples that follow it, but for the last."""
    generator = np.random.default_rng(0)

    def draw(path, leaf):
        wide = 0.3 if "encoder" in str(path[0]) else 1.5  # so codes are near the prior
        scale = 0.3 * math.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else wide
        return (scale * generator.normal(size=leaf.shape)).astype(np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    coder = Coder(model, params)
    values = jax.jit(lambda a, b: generation.sample(model, params, a, n).sample(b))(
        jax.random.key(1), jax.random.key(2)
    )
    symbols = np.rint(np.asarray(values, np.float64) * (coder.levels - 1)).astype(int)
    symbols[-1] = generator.integers(0, coder.levels, model.event_shape)
    return coder, symbols


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_encoded_is_decoded(kind):
    coder, symbols = likely(model_of(kind), 70)
    payload = coder.encode(symbols)
    assert coder.modelled(payload, 70).mean() > 0.5
    found = coder.decode(payload, 70)
    assert np.array_equal(found, symbols)
    assert found.dtype == (np.uint16 if coder.levels > 256 else np.uint8)
    assert coder.encode(symbols) == payload


def test_who_decodes_in_passes_evaluates_the_network_once(monkeypatch):
    """... for a batch, and for each pass what depends on the pixels before it: equal pixels come of it."""
    coder, symbols = likely(model_of("passes"), 30)
    payload, seen = coder.encode(symbols), []
    unrounded = certified.Networks.unrounded

    def counted(networks, values, *arrays):
        seen.append(values.__name__)
        return unrounded(networks, values, *arrays)

    monkeypatch.setattr(certified.Networks, "unrounded", counted)
    assert np.array_equal(coder.decode(payload, 30), symbols)
    batches = seen.count("decoded")
    assert batches > 1
    assert seen.count("_logistics_after") == 4 * batches
    assert "_logistics_given" not in seen


def test_one_example_alone():
    _, coder, symbols = drawn(model_of("logistic"), 1)
    assert np.array_equal(coder.decode(coder.encode(symbols), 1), symbols)


@pytest.fixture(scope="module")
def trained():
    """A VAE that has learned the digits a little, with its data."""
    generator = np.random.default_rng(0)
    images = datasets.load_digits().images.astype(np.uint8)[generator.permutation(1797), :, :, None]
    model = ae.VAE(latent=6, network=architectures.MLP((64,)), likelihood=likelihoods.DiscretizedLogisticMixture(17, 2))
    fitted = ae.fit(ae.Run(model=model, epochs=4), ae.from_arrays(images[:1400], images[1400:], levels=17))
    return fitted, images[1400:]


@pytest.mark.parametrize("n", [2, 300])
def test_the_size_is_the_bound_and_little_more(trained, n):
    """Half a per cent at 300 examples of 64 elements, of which 3 % go into the first bits of a chunk."""
    fitted, images = trained
    coder = Coder(fitted.model, fitted.params)
    symbols = images[:n]
    payload = coder.encode(symbols)
    assert np.array_equal(coder.decode(payload, n), symbols)
    bits = 8 * len(payload)
    assert bits < coder.bound(symbols).sum() * 1.01 + 32 * 12
    assert bits > coder.bound(symbols).sum() * 0.97


@pytest.mark.parametrize("latent", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_codes_of_more_bits_than_an_example_costs_find_them(latent):
    """Each code takes 28 bits back, and each example leaves 16: batches that double, or 1,024 symbols that are pushed
    at once, would need bits of nowhere: 690, or 14,000. Of codes of 168 bits, so would those that grow by half.
    """
    model = ae.VAE(latent, SMALL, likelihoods.Bernoulli(), priors.StandardNormal(), (-3.0, 3.0), (16,))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    coder = Coder(model, params)  # q(z|x) = p(z), and p(x|z) = 1/2
    for n in (127, 300):
        symbols = np.random.default_rng(0).integers(0, 2, (n, 16))
        payload = coder.encode(symbols)
        assert np.array_equal(coder.decode(payload, n), symbols)
        assert coder.bound(symbols).sum() == pytest.approx(n * 16, rel=0.01)
        assert 8 * len(payload) < n * 16 + 32 * 12 + 16 * latent


def test_the_bound_is_the_negative_elbo(trained):
    """What the rounded model costs is what the model is trained on, within a hundredth."""
    fitted, images = trained
    coder = Coder(fitted.model, fitted.params)
    bound = np.mean([coder.bound(images, seed).mean() for seed in range(4)])
    nats = fitted.results["test"]["negative_elbo"]
    assert bound * np.log(2) == pytest.approx(nats["mean"] if isinstance(nats, dict) else nats, rel=0.01)


@pytest.mark.slow
def test_a_component_costs_what_its_weight_says():
    """Of very unequal weights, the components lying over one another: codes cost the rate, their logarithms' mean."""
    model = model_of("mixture")
    params, _, symbols = drawn(model, 60)
    params["prior"]["logits"] = np.array([4, 0, -3], np.float32)
    params["prior"]["loc"] = 0.2 * params["prior"]["loc"]
    networks = certified.Networks(model, params)
    codecs, evaluate = latents.Latents(networks), certified.Evaluation(networks, 60, 64, certify=True)
    generator, cost = np.random.default_rng(0), np.zeros(60)
    for _ in range(100):
        tally = Tally(60, Dice(generator))
        code = codecs.posterior(evaluate, symbols / 16).pop(tally)
        codecs.prior(evaluate, 60).push(tally, code)
        cost += tally.bits * np.log(2) / 100
    x = np.float32(symbols / 16)
    rates = jax.jit(jax.vmap(lambda key: bounds.elbo(model, params, x, key).rate))
    draws = np.asarray(rates(jax.random.split(jax.random.key(0), 100)))
    assert cost.mean() == pytest.approx(draws.mean(), rel=0.03)


@pytest.mark.parametrize("batch", [100, *(pytest.param(batch, marks=pytest.mark.slow) for batch in (1, 16, 500))])
def test_the_batch_size_of_networks_does_not_matter(trained, batch):
    """What one process wrote with networks evaluated 64 at a time, another reads with another number, and writes."""
    fitted, images = trained
    payload = Coder(fitted.model, fitted.params).encode(images[:150])
    other = Coder(fitted.model, fitted.params, batch=batch)
    assert np.array_equal(other.decode(payload, 150), images[:150])
    assert other.encode(images[:150]) == payload


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bits", "mixture", "two levels"])
@pytest.mark.parametrize("samples", [2, 7])
def test_one_of_several_codes_is_chosen_and_given_back(kind, samples):
    model = model_of(kind)
    params, coder, symbols = drawn(model, 40)
    several = Coder(model, params, samples=samples)
    assert np.array_equal(coder.decode(several.encode(symbols), 40), symbols)  # the file says how many


def test_more_samples_cost_what_the_better_bound_says(trained):
    """The importance-weighted bound, which falls with the number of samples; and the file follows it."""
    fitted, images = trained
    one, four = (Coder(fitted.model, fitted.params, samples=samples) for samples in (1, 4))
    bits = [coder.bound(images[:300]).sum() for coder in (one, four)]
    weigh = jax.jit(lambda x, key: bounds.log_weights(fitted.model, fitted.params, x, key, 4))
    log_w = weigh(images[:300] / np.float32(16), jax.random.key(0))
    expected = -float((logsumexp(log_w, axis=0) - np.log(4)).mean())
    payload = four.encode(images[:300])
    assert np.array_equal(one.decode(payload, 300), images[:300])
    assert bits[1] < bits[0] - 150
    assert bits[1] * np.log(2) / 300 == pytest.approx(expected, rel=0.01)
    assert 8 * len(payload) < bits[1] * 1.01 + 32 * 4 * 12


def test_what_is_not_certain_or_too_large_is_coded_without_the_model(trained, monkeypatch):
    fitted, images = trained
    coder = Coder(fitted.model, fitted.params)
    symbols = images[:40].copy()
    symbols[7] = np.random.default_rng(0).integers(0, 17, symbols[7].shape)  # noise: larger by the model
    size = len(coder.encode(symbols))
    assert np.array_equal(coder.decode(coder.encode(symbols), 40), symbols)

    seen = []

    class Doubting(certified.Evaluation):
        def __call__(self, *arguments, **options):
            out = super().__call__(*arguments, **options)
            if self._certify:
                self.sure &= np.arange(len(self.sure)) % 9 != 5
                seen.append(len(self.sure))
            return out

    monkeypatch.setattr(chunks, "Evaluation", Doubting)
    payload = coder.encode(symbols)
    assert seen
    assert len(payload) > size  # five bits an element cost more
    monkeypatch.undo()
    assert np.array_equal(coder.decode(payload, 40), symbols)


def test_a_choice_on_a_boundary_is_not_certain(monkeypatch):
    """The weights of several codes are floating-point sums: an image where one is half a unit is coded otherwise."""
    model, n = model_of("bits"), 6
    params, one, symbols = drawn(model, n, seed=1)

    class Halfway(Tally):
        """A row costs whole units, after 2 pushes, of z, and a half more after 3, of x and z."""

        pushes = 0

        def push(self, *arguments):
            super().push(*arguments)
            if isinstance(self._inner, Nothing):
                unit, self.pushes = 1 / (np.log(2) * tables.GRID), self.pushes + 1
                self.bits[:] = (np.floor(self.bits / unit) + 0.5 * (self.pushes % 2)) * unit

    several, seen = Coder(model, params, samples=2), []
    marks = plain.marks

    def noted(count, share):
        codec = marks(count, share)
        return codec._replace(push=lambda bits, which: (seen.append(which), codec.push(bits, which))[1])

    monkeypatch.setattr(plain, "marks", noted)
    several.encode(symbols)
    monkeypatch.setattr(chunks, "Tally", Halfway)
    payload = several.encode(symbols)
    monkeypatch.undo()
    assert np.array_equal(one.decode(payload, n), symbols)
    assert seen[1].all()
    assert not seen[0].all()


def test_a_choice_by_sums_that_may_be_off_is_not_certain(monkeypatch):
    """Weights are known as surely as their sums: that of the first image may be off by a thirtieth of a bit."""
    model, n = model_of("bits"), 6
    params, one, symbols = drawn(model, n, seed=1)
    several, seen = Coder(model, params, samples=2), []
    marks = plain.marks

    class Doubtful(Tally):
        def push(self, *arguments):
            super().push(*arguments)
            if isinstance(self._inner, Nothing) and len(self.bits) == 1:
                self.error[:] = 1 / 30

    def noted(count, share):
        codec = marks(count, share)
        return codec._replace(push=lambda bits, which: (seen.append(which), codec.push(bits, which))[1])

    monkeypatch.setattr(plain, "marks", noted)
    several.encode(symbols)
    monkeypatch.setattr(chunks, "Tally", Doubtful)
    payload = several.encode(symbols)
    monkeypatch.undo()
    assert np.array_equal(one.decode(payload, n), symbols)
    assert not seen[0].all()
    assert seen[1][: n - 1].all()  # images come one by one at first


def test_a_number_near_a_boundary_is_not_certain():
    model, params = SimpleNamespace(network=None), {"w": np.ones(1)}
    networks = certified.Networks(model, params)
    near = np.array([[0.5 - 1e-13], [0.5 - 1e-3], [np.nan], [np.inf], [-0.5 + 1e-13], [7.0]])
    codes, sure = networks.rounded(lambda model, params, x: x * params["w"][None], near, certify=True)
    assert sure.tolist() == [False, True, False, False, False, True]
    assert codes[1, 0] == 0
    assert codes[5, 0] == 7
    rough = np.array([[0.5 - 1e-7]])  # float32 differs from float64 by 0.5 here, so float64 may by 4096 / 2^29 of it
    _, sure = networks.rounded(
        lambda model, params, x: (x + 2.0**24) * params["w"][None] - 2.0**24, rough, certify=True
    )
    assert sure.tolist() == [False]


def test_a_network_that_computes_in_float32_is_refused():
    import flax.linen as nn

    encoder, decoder = nn.Dense(8, dtype="float32"), nn.Dense(12)
    model = ae.VAE(4, architectures.Modules(encoder, decoder), likelihoods.DiscretizedLogistic(8), event_shape=(6,))
    params = oracles.random_params(model)
    with pytest.raises(InputError, match="arithmetic of the model: got float32, expected float64"):
        Coder(model, params).encode(np.zeros((1, 6), int))
    model = dataclasses.replace(model, network=architectures.Modules(nn.Dense(8), decoder))
    coder = Coder(model, params)
    assert np.array_equal(coder.decode(coder.encode(np.ones((3, 6), int)), 3), np.ones((3, 6)))


def test_what_cannot_be_coded_is_one_line(trained):
    fitted, _ = trained
    with pytest.raises(InputError, match=r"likelihood: got Normal, which is no distribution of levels"):
        drawn(ae.VAE(likelihood=likelihoods.NormalSharedScale(), event_shape=(6,), network=SMALL), 1)
    with pytest.raises(InputError, match=r"levels: got 65536, expected at most 4096"):
        drawn(ae.VAE(likelihood=likelihoods.DiscretizedLogistic(2**16), event_shape=(6,), network=SMALL), 1)
    with pytest.raises(
        InputError, match=r"posterior: got Delta, expected independent normals.*; train with --model .VAE"
    ):
        drawn(ae.Autoencoder(likelihood=likelihoods.DiscretizedLogistic(), event_shape=(6,), network=SMALL), 1)
    with pytest.raises(InputError, match=r"prior: got MultivariateNormal"):
        drawn(
            ae.VAE(
                likelihood=likelihoods.DiscretizedLogistic(), event_shape=(6,), network=SMALL,
                latent_prior=priors.FullGaussianMixture(2),
            ), 1,
        )  # fmt: skip
    coder = Coder(fitted.model, fitted.params)
    for symbols in (np.zeros((0, 8, 8, 1), int), np.zeros((2, 8, 8), int)):
        with pytest.raises(InputError, match="examples: got shape"):
            coder.encode(symbols)
    for symbols in (np.full((1, 8, 8, 1), 17), np.full((1, 8, 8, 1), -1), np.zeros((1, 8, 8, 1))):
        with pytest.raises(InputError, match="expected integers from 0 to 16"):
            coder.encode(symbols)
    bad = jax.tree.map(np.array, fitted.params)
    bad["encoder"]["out"]["bias"][0] = np.nan
    with pytest.raises(InputError, match=r"parameters: got NaN or infinity in .*encoder.*out.*bias"):
        Coder(fitted.model, bad)


def test_another_model_or_other_weights_have_another_sha256(trained):
    fitted, _ = trained
    digest = Coder(fitted.model, fitted.params).sha256
    assert digest == Coder(fitted.model, jax.tree.map(np.array, fitted.params)).sha256
    other = jax.tree.map(np.array, fitted.params)
    other["encoder"]["out"]["bias"][0] = np.nextafter(other["encoder"]["out"]["bias"][0], np.float32(9))
    assert Coder(fitted.model, other).sha256 != digest
    assert Coder(dataclasses.replace(fitted.model, log_scale_range=(-6.0, 2.0)), fitted.params).sha256 != digest


def test_damage_is_told_or_gives_what_was_there(trained):
    """A flip in a chunk is found by the seed below it, which is why no checksum stands there; a wrong count as well."""
    fitted, images = trained
    coder = Coder(fitted.model, fitted.params)
    symbols = images[:7]
    payload = coder.encode(symbols)
    generator = np.random.default_rng(0)
    for _ in range(20):
        bad = bytearray(payload)
        bad[generator.integers(len(bad))] ^= 1 << generator.integers(8)
        with pytest.raises(Damaged):
            coder.decode(bytes(bad), 7)
    for n in (6, 8, 1):
        with pytest.raises(Damaged):
            coder.decode(payload, n)
    for cut in (payload[:-4], payload[4:], payload[:8], b""):
        with pytest.raises(Damaged):
            coder.decode(cut, 7)
