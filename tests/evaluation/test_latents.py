"""Where the rate goes: identities, closed forms and tiny data sets of which everything is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import integrate, special, stats

from aevae_jax import evaluation
from aevae_jax.evaluation import latents
from aevae_jax.models import VAE, Autoencoder, TwoLevelVAE, likelihoods
from aevae_jax.models.architectures import MLP
from aevae_jax.models.priors import GaussianMixture, VampPrior
from aevae_jax.types import InputError

MODEL = VAE(latent=2, network=MLP(()), likelihood=likelihoods.Normal(), event_shape=(2,))


def identity(scale):
    """Parameters with q(z|x) = N(x, scale^2)."""
    raw = oracles.unbounded(np.log(scale), *MODEL.log_scale_range)
    tree = {
        "encoder": {"out": {"kernel": np.eye(2, 4), "bias": np.array([0, 0, raw, raw])}},
        "decoder": {"out": {"kernel": np.eye(2), "bias": np.zeros(2)}},
        "likelihood": {},
        "prior": {},
    }
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)


def describe(x, scale, **options):
    return latents.describe(MODEL, identity(scale), np.asarray(x, np.float32), jax.random.key(0), **options)


def test_the_terms_telescope():  # mistake 23
    x = np.random.default_rng(0).normal(size=(50, 2)) @ [[1, 0.8], [0, 0.6]]
    found = describe(x, 0.3)
    assert found.mutual_information + found.marginal_kl == pytest.approx(found.rate, rel=1e-5)
    assert found.num_examples == 50
    assert found.total_correlation + found.dimension_wise_kl.sum() == pytest.approx(found.marginal_kl, rel=1e-5)
    for block in (1, 7, 50, 64):
        again = describe(x, 0.3, block=block)
        assert again.mutual_information == pytest.approx(found.mutual_information, rel=1e-5)
        np.testing.assert_allclose(again.dimension_wise_kl, found.dimension_wise_kl, rtol=1e-4)


def test_the_rate_per_dimension_is_the_closed_form():
    x = np.random.default_rng(1).normal(size=(40, 2))
    found = describe(x, 0.5)
    np.testing.assert_allclose(found.rate_per_dimension, oracles.normal_kl(x, 0.5).mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.mean_variance, 0.25, rtol=1e-5)
    np.testing.assert_allclose(found.variance_of_means, x.var(axis=0), rtol=1e-5)


def test_far_apart_posteriors_say_which_example_it_was():
    x = np.repeat([[-3, 0], [3, 0], [0, 9], [0, -9]], 20, axis=0)
    found = describe(x, 0.05)
    assert found.mutual_information == pytest.approx(np.log(4), abs=1e-4)


def test_the_marginal_kl_is_the_integral():
    """Three posteriors in one dimension, each met 700 times: q(z) is their mixture, whose KL is integrated."""
    centres = np.array([-1.5, 0.2, 2.0])
    x = np.repeat(np.stack([centres, np.zeros(3)], axis=1), 700, axis=0)
    found = describe(x, 0.6)

    def mixture(z):
        return stats.norm(centres[:, None], 0.6).pdf(z).mean(axis=0)

    z = np.linspace(-8, 8, 4001)
    exact = integrate.trapezoid(mixture(z) * (np.log(mixture(z)) - stats.norm.logpdf(z)), z)
    assert found.dimension_wise_kl[0] == pytest.approx(exact, abs=0.06)
    assert found.dimension_wise_kl[1] == pytest.approx(oracles.normal_kl(0.0, 0.6), abs=0.06)


def test_total_correlation_is_none_on_a_grid_and_large_on_a_diagonal():
    side = np.array([-2.0, 0.0, 1.0, 3.0])
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    assert describe(grid, 0.2).total_correlation == pytest.approx(0, abs=1e-4)
    assert describe(np.stack([side, side], axis=1), 0.05).total_correlation == pytest.approx(np.log(4), abs=1e-3)


def test_dimensions_that_do_not_react_are_not_active():
    x = np.stack([np.linspace(-1, 1, 30), np.full(30, 0.3)], axis=1)
    assert describe(x, 0.5).active.tolist() == [True, False]


def test_a_prior_that_does_not_factorise_leaves_out_what_needs_it():
    model = VAE(2, MLP(()), likelihoods.Normal(), VampPrior(3), event_shape=(2,))
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    found = latents.describe(model, oracles.random_params(model), x, jax.random.key(0))
    assert found.dimension_wise_kl is None
    assert found.rate_per_dimension is None
    plain = VAE(2, MLP(()), likelihoods.Normal(), event_shape=(2,))  # q(z) does not depend on the prior
    same = latents.describe(plain, {**oracles.random_params(model), "prior": {}}, x, jax.random.key(0))
    assert found.total_correlation == pytest.approx(same.total_correlation, rel=1e-4)
    assert found.mutual_information == pytest.approx(same.mutual_information, rel=1e-4)
    np.testing.assert_allclose(found.mean_variance, same.mean_variance, rtol=1e-5)
    assert found.mutual_information + found.marginal_kl == pytest.approx(found.rate, rel=1e-4, abs=1e-5)


def drawn(model, params, x, key):
    """The code that is drawn of one example, and its log densities."""
    q = model.encode(params, x)
    z = q.sample(jax.random.split(key)[0])
    return {"z": z, "log_q": q.log_prob(z), "log_p": model.prior(params, 1).log_prob(z)}


@pytest.mark.slow
def test_two_levels_have_the_statistics_of_their_joint_code():
    """q(z1, z2|x) does not factorise: every code is scored under every posterior, one by one."""
    model = TwoLevelVAE(4, MLP((5,)), likelihoods.Normal(), event_shape=(2,))
    params = oracles.random_params(model)
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    key = jax.random.key(0)
    found = latents.describe(model, params, x, key, block=7)
    codes = evaluation.per_example(drawn, model, params, x, key)
    under = jax.jit(lambda x, z: jax.vmap(lambda z: model.encode(params, x[None]).log_prob(z[None])[0])(z))
    each = np.stack([under(row, codes["z"]) for row in x], axis=1)  # [code, example]
    own, log_q = np.diagonal(each), special.logsumexp(each, axis=1) - np.log(200)
    assert found.mutual_information == pytest.approx((own - log_q).mean(), rel=1e-4)
    assert found.mutual_information + found.marginal_kl == pytest.approx(found.rate, rel=1e-5)
    assert found.rate == pytest.approx((codes["log_q"] - codes["log_p"]).mean(), rel=1e-5)
    draws = jax.vmap(lambda k: model.encode(params, x).sample(k))(jax.random.split(key, 1000))
    np.testing.assert_allclose(found.mean_variance, draws.var(axis=0).mean(axis=0), rtol=0.4)  # of 200 pairs of draws
    assert (found.total_correlation, found.dimension_wise_kl, found.rate_per_dimension) == (None, None, None)


def test_posteriors_and_codes_are_computed_in_full_float32(monkeypatch):
    """The codes were drawn so; at another precision their own posterior would not be the one that they came from.

    The two loops are those over examples and over codes; between them all examples are encoded at once.
    """
    sizes = []

    class Watched(TwoLevelVAE):
        def encode(self, params, x):
            if len(x) > 1:
                sizes.append(len(x))
                oracles.assert_products_in_full(lambda x: TwoLevelVAE.encode(self, params, x), x)
            return super().encode(params, x)

    model = Watched(4, MLP((5,)), likelihoods.Normal(), event_shape=(2,))
    scans = oracles.recorded_scans(monkeypatch, run=False)
    latents.describe(model, oracles.random_params(model), np.ones((3, 2), np.float32), jax.random.key(0), block=2)
    assert sizes == [3]
    examples, codes = scans
    oracles.assert_scan_in_full(examples)
    oracles.assert_scan_in_full(codes)


def test_two_examples_are_enough():
    """Whose posteriors are far apart: which of the two it was is one bit."""
    found = describe([[-9.0, 0], [9.0, 0]], 0.1)
    assert found.mutual_information == pytest.approx(np.log(2), rel=1e-4)
    assert found.num_examples == 2


def test_codes_that_are_maps_are_described_number_by_number():
    """In the order of their elements."""
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32) * [1, 0.02]
    maps = oracles.AsMaps(MODEL, (1, 2, 1))
    found = latents.describe(maps, identity(0.3), x.astype(np.float32), jax.random.key(0), block=7)
    expected = describe(x, 0.3, block=7)
    for name, one, other in zip(found._fields, found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, err_msg=name)
    assert found.active.tolist() == [True, False]
    assert found.dimension_wise_kl.shape == found.rate_per_dimension.shape == (2,)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Parts:
    loc: object
    measure: ClassVar[str] = "density"

    def mean(self):
        return {"a": self.loc}


class InParts:
    """A model whose codes are a dict."""

    def encode(self, params, x):
        return _Parts(x)


def test_codes_that_are_no_array_are_refused():
    expected = "got InParts, whose codes are of type dict, expected codes that are one array"
    with pytest.raises(InputError, match=expected):
        latents.describe(InParts(), {}, np.zeros((3, 2), np.float32), jax.random.key(0))


@pytest.mark.parametrize(
    ("model", "count", "message"),
    [
        (Autoencoder(2, MLP(()), event_shape=(2,)), 5, "whose codes are points, expected a VAE"),
        (MODEL, 1, "evaluation data: got 1 examples, expected at least 2"),
    ],
)
def test_what_has_no_statistics_is_refused(model, count, message):
    with pytest.raises(InputError, match=message):
        latents.describe(model, oracles.random_params(model), np.zeros((count, 2), np.float32), jax.random.key(0))


def gap(x, scale, **options):
    return latents.prior_gap(MODEL, identity(scale), np.asarray(x, np.float32), jax.random.key(0), **options)


def test_the_gap_of_normal_codes_is_their_kl_from_the_prior():
    """q(z) = N(m, s^2 + scale^2), p(z) = N(0, 1), in two dimensions; one component is all it takes."""
    x = np.random.default_rng(0).normal([2.0, 0.0], [0.5, 0.3], (4000, 2))
    variance = np.array([0.25, 0.09]) + 0.4**2
    exact = 0.5 * (variance + np.array([4.0, 0.0]) - 1 - np.log(variance)).sum()
    assert gap(x, 0.4, components=(1,)) == pytest.approx(exact, rel=0.02)
    assert gap(x, 0.4) == pytest.approx(exact, rel=0.02)


def test_the_gap_of_codes_in_two_places_needs_more_than_one_component():
    """Far apart at -3 and 3 with variance 1/4: KL from the mixture is log 1/2 + KL of one from N(0, 1)."""
    signs = np.sign(np.random.default_rng(0).normal(size=(2000, 1)))
    x = np.concatenate([3 * signs, 0 * signs], axis=1)
    one = 0.5 * (0.25 + 9 - 1 - np.log(0.25)) + 0.5 * (0.25 - 1 - np.log(0.25))
    assert gap(x, 0.5, components=(2,)) == pytest.approx(one - np.log(2), rel=0.03)
    assert gap(x, 0.5, components=(1,)) < 0.8 * (one - np.log(2))
    told = []
    gap(x[:60], 0.5, components=(2, 40, 1), on_part=lambda *part: told.append(part))  # 40 are too many for so few
    assert told == [(done, 10) for done in range(1, 11)]
    assert gap(x, 0.5, components=(1, 2)) == gap(x, 0.5, components=(2, 1)) == gap(x, 0.5, components=(2,))


def test_the_gap_is_that_to_the_prior_of_the_model():
    """Codes at 3 are far from N(0, I), and like a learned prior that is there, too."""
    model = replace(MODEL, latent_prior=GaussianMixture(1))
    prior = {"logits": np.zeros(1), "loc": np.full((1, 2), 3.0), "log_scale": np.zeros((1, 2))}
    prior["log_scale"] += oracles.unbounded(0.0, *model.log_scale_range)
    params = {**identity(1.0), "prior": jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), prior)}
    x = np.full((200, 2), 3.0, np.float32)
    assert latents.prior_gap(model, params, x, jax.random.key(0), components=(1,)) < 0.05
    assert gap(x, 1.0, components=(1,)) == pytest.approx(9.0, rel=0.05)


@pytest.mark.parametrize("count", [2, 4, 12, 2000])
def test_codes_like_the_prior_have_no_gap_however_few_there_are(count):
    """Scored by densities of other codes: those of their own would seem far from the prior."""
    x = np.random.default_rng(1).normal(size=(count, 2))
    assert gap(x, 1e-3, components=(1, 3)) < 0.02


def test_a_gap_is_seen_by_fewer_examples_where_other_codes_are_known():
    """Codes on a circle of 8 places: ten components know it of 2,000 others, and not of 40 that are scored, too."""
    angles = np.arange(2000) * np.pi / 4
    x = 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    many, others = gap(x, 0.2), np.asarray(x, np.float32)
    few = gap(x[:40], 0.2)
    helped = gap(x[:40], 0.2, others=others)
    assert few < 0.7 * many
    assert helped == pytest.approx(many, rel=0.05)
    near = np.random.default_rng(1).normal(size=(40, 2))
    assert gap(near, 1e-3, others=np.random.default_rng(2).normal(size=(2000, 2)).astype(np.float32)) < 0.1


def test_codes_that_are_all_the_same_have_a_gap():
    model = Autoencoder(2, MLP(()), event_shape=(2,))
    params = jax.tree.map(jnp.zeros_like, oracles.random_params(model))
    x = np.ones((12, 2), np.float32)
    assert latents.prior_gap(model, params, x, jax.random.key(0), components=(1,)) > 10


def test_units_are_active_whatever_the_scale_of_the_codes():
    """A learned prior may have any; Burda et al. count variances above 0.01 where it is 1."""
    x = np.stack([np.linspace(-1, 1, 30), np.full(30, 0.3)], axis=1)
    for scale in (1e-2, 1.0):
        assert describe(scale * x, 0.5 * scale).active.tolist() == [True, False]
