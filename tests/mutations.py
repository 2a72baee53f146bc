"""Does a test fail when a known mistake is brought in? For each, a small patch and the tests that must notice it.

    python tests/mutations.py            all of them, about three minutes on two cores
    python tests/mutations.py 4 15       those of mistakes 4 and 15

Every patch is applied to a copy of the package, which the named tests then import; nothing here is touched. The script
fails if a patch no longer applies, if the tests pass in spite of it, or if they cannot be run at all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutation(NamedTuple):
    """A mistake, the text that makes it, and the tests of which at least one must fail."""

    mistake: int
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(1, "reconstruction averaged over pixels, KL summed", "bounds.py",
             "    return -likelihood.log_prob(x)\n", "    return -likelihood.log_prob(x) / x[0].size\n",
             ("test_bounds.py::test_duplicating_every_pixel_doubles_the_distortion_alone",
              "test_bounds.py::test_elbo_terms_are_the_closed_form")),
    Mutation(2, "another KL weight in evaluation than in training", "evaluation.py",
             '"negative_elbo": bound.negative_elbo}', '"negative_elbo": bound.distortion + 0.5 * bound.rate}',
             ("test_evaluation.py::test_terms_are_those_of_the_bound",)),
    Mutation(3, "beta not applied", "objectives.py",
             "weight_at(self.beta, step) * rate", "rate",
             ("test_objectives.py",)),
    Mutation(4, "KL of the wrong sign", "distributions.py",
             "return 0.5 * (shift**2 + jnp.expm1(log_ratio) - log_ratio)",
             "return -0.5 * (shift**2 + jnp.expm1(log_ratio) - log_ratio)",
             ("test_distributions.py::test_normal_kl_is_the_closed_form",)),
    Mutation(5, "a log-variance's exponential used as standard deviation", "distributions.py",
             "        return jnp.exp(self.log_scale)\n", "        return jnp.exp(2 * self.log_scale)\n",
             ("test_distributions.py::test_normal_moments_are_loc_and_scale",)),
    Mutation(6, "noise with another scale than 1", "distributions.py",
             "self.loc + self.scale * jax.random.normal", "self.loc + 0.5 * self.scale * jax.random.normal",
             ("test_distributions.py::test_normal_moments_are_loc_and_scale",)),
    Mutation(7, "z at its mean, called ELBO", "bounds.py",
             "    z = q.sample(key)\n", "    z = q.mean()\n",
             ("test_bounds.py::test_evaluation_samples_and_names_what_it_computes_at_the_mean",)),
    Mutation(8, "reconstruction silently random", "generation.py",
             "model.decode(params, model.encode(params, x).mean()).mean()",
             "model.decode(params, model.encode(params, x).sample(jax.random.key(id(x) % 1000))).mean()",
             ("test_generation.py::test_reconstruction_is_the_decoded_mean_of_the_code",)),
    Mutation(9, "grey levels scored as bits", "likelihoods.py",
             "    support: ClassVar[Support] = BINARY\n", "    support: ClassVar[Support] = UNIT_INTERVAL\n",
             ("test_likelihoods.py::test_bernoulli_refuses_grey_levels",)),
    Mutation(10, "log(p + eps)", "distributions.py",
             "return (value * logits - _softplus(logits)).sum(axis=-1)",
             "p = sigmoid(logits)\n"
             "        return (value * jnp.log(p + 1e-7) + (1 - value) * jnp.log(1 - p + 1e-7)).sum(axis=-1)",
             ("test_distributions.py::test_bernoulli_equals_the_softplus_form_at_any_logit",)),
    Mutation(11, "unstable cross-entropy", "distributions.py",
             "return (value * logits - _softplus(logits)).sum(axis=-1)",
             "return (value * logits - jnp.log1p(jnp.exp(logits))).sum(axis=-1)",
             ("test_distributions.py::test_bernoulli_equals_the_softplus_form_at_any_logit",)),
    Mutation(12, "sigmoid twice", "likelihoods.py",
             "return distributions.Bernoulli(raw[..., 0])",
             "return distributions.Bernoulli(1 / (1 + 2.718 ** -raw[..., 0]))",
             ("test_likelihoods.py::test_bernoulli_takes_raw_outputs_as_log_odds",)),
    Mutation(13, "range of the data not checked", "likelihoods.py",
             "        if outside.any():\n", "        if False:\n",
             ("test_likelihoods.py::test_refuses_data_outside_its_interval",)),
    Mutation(14, "unbounded log-variance", "distributions.py",
             "    middle, half = (low + high) / 2, (high - low) / 2\n", "    return raw\n",
             ("test_distributions.py::test_bounded_stays_inside_and_rises",)),
    Mutation(14, "log-variance clipped, without gradient", "distributions.py",
             "    middle, half = (low + high) / 2, (high - low) / 2\n", "    return jnp.clip(raw, low, high)\n",
             ("test_distributions.py::test_bounded_has_a_gradient_everywhere",)),
    Mutation(15, "analytic KL inside importance weights", "bounds.py",
             "    return model.decode(params, z).log_prob(x) + p.log_prob(z) - q.log_prob(z)\n",
             "    return model.decode(params, z).log_prob(x) - rate(q, p, z)\n",
             ("test_bounds.py::test_with_the_exact_posterior_every_weight_is_the_evidence",
              "test_bounds.py::test_log_weights_are_those_of_the_samples")),
    Mutation(16, "mean of logs for log of means", "bounds.py",
             "jax.nn.logsumexp(log_w, axis=0) - jnp.log(log_w.shape[0])", "log_w.mean(axis=0)",
             ("test_bounds.py::test_bound_is_the_log_of_the_mean",)),
    Mutation(16, "batch summed inside logsumexp", "bounds.py",
             "jax.nn.logsumexp(log_w, axis=0) - jnp.log(log_w.shape[0])",
             "jax.nn.logsumexp(log_w.sum(axis=1)) - jnp.log(log_w.shape[0])",
             ("test_bounds.py::test_bound_is_the_log_of_the_mean",)),
    Mutation(17, "the number of samples ignored", "bounds.py",
             "q.sample(k)))(keys.many(key, num_samples))", "q.sample(k)))(keys.many(key, 1))",
             ("test_bounds.py::test_exactly_that_many_samples_are_used",)),
    Mutation(16, "a streamed mean that forgets its scale", "importance.py",
             "sums.total * kept + w", "sums.total + w",
             ("test_importance.py::test_exactly_so_many_samples_are_used_whatever_the_chunk",)),
    Mutation(17, "the last chunk of samples used whole", "importance.py",
             "jnp.where(index < num_samples, log_w, -jnp.inf)", "log_w",
             ("test_importance.py::test_exactly_so_many_samples_are_used_whatever_the_chunk",)),
    Mutation(19, "evaluation data binarised anew every time", "data/preparation.py",
             "np.random.RandomState(777)", "np.random.RandomState()",
             ("test_data_preparation.py::test_evaluation_data_is_drawn_once_and_never_changes",
              "test_data_preparation.py::test_binarized_evaluation_follows_the_published_protocol")),
    Mutation(20, "train and validation overlap", "data/__init__.py",
             "slice(0, 1257), slice(1257, 1437)", "slice(0, 1257), slice(1200, 1437)",
             ("test_data.py::test_splits_of_digits_are_disjoint",)),
    Mutation(20, "an example left in two splits", "data/splits.py",
             "        if not keep.all():\n", "        if False:\n",
             ("test_data.py::test_an_example_that_stands_in_two_splits_is_left_out_of_the_earlier_one",)),
    Mutation(21, "random augmentation of evaluation data", "data/preparation.py",
             "_float32(raw) / _float32(max(format.levels - 1, 1))) for",
             "_float32(raw + __import__('numpy').random.rand(*raw.shape)) / _float32(max(format.levels - 1, 1))) for",
             ("test_data_preparation.py::test_evaluation_data_is_pure",)),
    Mutation(18, "the overlap of two windows of evaluation counted twice", "evaluation.py",
             "v[start - first :]", "v",
             ("test_data_streams.py::test_evaluation_in_windows_gives_the_same_numbers",)),
    Mutation(29, "a resume that loads nothing", "keeping.py",
             "    found = store.restore_newest(like, until=until)\n", "    found = None\n",
             ("test_fitting.py::test_lines_past_the_restored_step_are_cut",)),
    Mutation(30, "a resume that restarts the schedule and the optimizer", "keeping.py",
             'state=type(like.state)(**tree["state"])',
             'state=type(like.state)(**tree["state"])._replace(opt_state=jax.tree.map(lambda a: 0 * a, '
             'tree["state"]["opt_state"]))',
             ("test_fitting.py::test_lines_past_the_restored_step_are_cut",)),
    Mutation(30, "a resume that forgets the epoch's first steps", "keeping.py",
             'metrics=tree["logged"]["metrics"]', 'metrics=jax.tree.map(lambda a: 0 * a, tree["logged"]["metrics"])',
             ("test_fitting.py::test_lines_past_the_restored_step_are_cut",)),
    Mutation(32, "a deterministic switch that sets nothing", "environment.py",
             'DETERMINISTIC = "--xla_gpu_deterministic_ops=true"', 'DETERMINISTIC = "--xla_gpu_autotune_level=4"',
             ("test_fitting.py::test_the_deterministic_switch_sets_the_flag_and_is_refused_too_late",)),
    Mutation(30, "a data order that is the same in every epoch", "training.py",
             "epoch_order(key, step // per_epoch, count)", "epoch_order(key, 0, count)",
             ("test_data_streams.py::test_order_is_that_of_resident_training",)),
    Mutation(36, "missing entries of a table scored", "tabular.py",
             "outputs = jnp.where(there[..., None], outputs, 0.0)", "pass", ("test_tabular.py",)),
    Mutation(23, "an aggregate posterior of half the examples", "latents.py",
             "- jnp.log(log_q.shape[0])", "- jnp.log(log_q.shape[0] / 2)",
             ("test_latents.py::test_the_marginal_kl_is_the_integral",)),
    Mutation(25, "free bits per example", "objectives.py",
             "        per_dimension = kl_terms.mean(axis=0).reshape(-1)\n",
             "        return jnp.maximum(self.free_bits, kl_terms).mean(axis=0).sum()\n",
             ("test_objectives.py",)),
    Mutation(25, "limited rate logged as the rate", "objectives.py",
             '            "rate": bound.rate.mean(),\n', '            "rate": rate,\n',
             ("test_objectives.py",)),
    Mutation(31, "the seed ignored", "keys.py",
             "return jax.random.key(seed)", "return jax.random.key(jax.numpy.zeros_like(seed))",
             ("test_training.py::test_noise_of_a_step_is_a_function_of_root_key_and_step", "test_runs.py")),
    Mutation(31, "a key used twice", "models.py",
             "decoder.init(key_decoder,", "decoder.init(key_encoder,",
             ("test_models.py",)),
    Mutation(33, "step without jit", "training.py",
             "    @jax.jit\n    def train_step(", "    def train_step(",
             ("test_training.py::test_objective_is_traced_once_and_compiled_once_over_epochs",)),
    Mutation(33, "a fetch by the host at every step", "training.py",
             "        metrics = {\"loss\": value,",
             "        jax.debug.callback(lambda v: None, value)\n        metrics = {\"loss\": value,",
             ("test_training.py::test_the_step_calls_nothing_on_the_host",)),
    Mutation(36, "Gaussian without its constant", "distributions.py",
             "_LOG_2PI = 1.8378770664093453", "_LOG_2PI = 0.0",
             ("test_distributions.py::test_normal_log_prob_is_scipys_with_its_constants",)),
    Mutation(37, "outer bins closed", "distributions.py",
             "lowest, highest = value < step / 2, value > 1 - step / 2", "lowest, highest = value < -1, value > 2",
             ("test_distributions.py::test_masses_over_all_levels_sum_to_one",)),
    Mutation(37, "samples off the grid", "distributions.py",
             "return jnp.round(jnp.clip(draw, 0.0, 1.0) * (levels - 1)) / (levels - 1)",
             "return jnp.clip(draw, 0.0, 1.0)",
             ("test_distributions.py::test_samples_of_256_levels_are_valid_uint8",)),
    Mutation(38, "sizes that are no powers of two not reached", "networks.py",
             "[:, :height, :width]", "",
             ("test_networks.py::test_encoder_and_decoder_fit_any_event_shape",)),
    Mutation(39, "bytes overflow", "figures.py",
             "np.round(np.clip(images, 0.0, 1.0) * 255).astype(np.uint8)", "np.round(images * 255).astype(np.uint8)",
             ("test_figures.py::test_values_outside_the_range_are_clipped_before_the_cast",)),
    Mutation(40, "losses in half precision", "networks.py",
             "return x.astype(jnp.float32).reshape(x.shape[0], *shape)",
             "return x.reshape(x.shape[0], *shape)",
             ("test_networks.py::test_half_precision_computes_in_it_and_keeps_float32_around_it",)),
)  # fmt: skip


def killed(mutation: Mutation) -> str:
    """Apply a patch to a copy and run its tests: an empty text if one of them fails, else what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("aevae_jax", "tests"):  # the tests, too, so that nothing of the checkout is on the import path
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        source = Path(folder) / "aevae_jax" / mutation.file
        text = source.read_text()
        if mutation.old not in text:
            return f"the patch does not apply: {mutation.old!r} is not in {mutation.file}"
        source.write_text(text.replace(mutation.old, mutation.new, 1))
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n0",
            "-p",
            "no:cacheprovider",
            "--no-header",
            "--tb=line",
            "-m",
            "",
        ]
        command += [f"tests/{test}" for test in mutation.tests]
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 1:
        return ""
    if done.returncode == 0:
        return f"SURVIVED: {', '.join(mutation.tests)} passed"
    return f"the tests could not be run (exit code {done.returncode}):\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def main(wanted: list[str]) -> int:
    """Check all mutations, or those of the mistakes `wanted`; 0 if every one is noticed."""
    chosen = [m for m in MUTATIONS if not wanted or str(m.mistake) in wanted]
    started, bad = time.perf_counter(), 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for mutation, problem in zip(chosen, pool.map(killed, chosen), strict=True):
            bad += bool(problem)
            print(f"{mutation.mistake:>3} {mutation.what}: {problem or 'noticed'}", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} mistakes noticed in {time.perf_counter() - started:.0f} s")
    return int(bad > 0 or not chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
