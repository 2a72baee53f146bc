"""`aevae diagnose` and `quality`: what is wrong with a trained model or its samples, and what to type against it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevae_jax import durable, evaluation, limits
from aevae_jax.cli import classes, console
from aevae_jax.cli.evaluate import Moved, entry, key_of, loaded, prepared_of, show, squared
from aevae_jax.cli.terminal import begin, say, show_table
from aevae_jax.lazy import jax, modules, np
from aevae_jax.runs import fitting
from aevae_jax.types import InputError, TotalNeeding, has_point_codes, support_of

if TYPE_CHECKING:
    from aevae_jax import conditions, keys
    from aevae_jax.data import Prepared
    from aevae_jax.evaluation import (
        collapse,
        disentanglement,
        findings,
        image_quality as measures,
        latents,
        learning_curve,
        random_codes,
    )
    from aevae_jax.evaluation.findings import Finding
    from aevae_jax.models import generation
    from aevae_jax.runs import judges
else:
    conditions, keys = modules("aevae_jax", "conditions", "keys")
    collapse, findings, measures = modules("aevae_jax.evaluation", "collapse", "findings", "image_quality")
    disentanglement = modules("aevae_jax.evaluation", "disentanglement")
    latents, learning_curve, random_codes = modules("aevae_jax.evaluation", "latents", "learning_curve", "random_codes")
    generation = modules("aevae_jax.models", "generation")
    judges = modules("aevae_jax.runs", "judges")


def diagnose(run: Path, *, factors: bool = False, seed: int = 0, data: Moved = "") -> None:
    """Say what is wrong with a trained model, and what to type against it.

    It looks for posterior collapse, dead units, over-regularisation, collapsed variances, holes between the codes that
    random codes fall into, and too short or too long a training, on validation data. All changes are in one command.

    Mutual information is what a code tells of which example it is of. How far the codes of all data together are from
    the prior is between prior gap, which few examples cannot show, and marginal kl, which few examples exaggerate.
    Total correlation is what the dimensions of the code tell of each other.

    Example: aevae diagnose runs/first

    Args:
      run: a run directory.
      factors: also measure, on test data, whether single dimensions of the code stand for single factors that the data
        were made of, where these are known, as of sprites.
      seed: of the codes that are sampled.
      data: where the run's data is by now, a name or path, if it has moved; its sha256 must be the same.
    """
    fitted = loaded(run)
    prepared = prepared_of(run, fitted.run, data)
    if factors:
        disentanglement.check_known(prepared.test.factors, prepared.name)

    x = prepared.validation.rows
    key, train = key_of(seed, keys.Stream.EVALUATE), _train(prepared)
    with console.parts("comparing codes with the prior", of="mixtures fitted") as on_part:
        found = collapse.diagnose(fitted, x, key, train=train, on_part=on_part)
    units = evaluation.UNITS | {
        "active_units": "",
        "latent_dimensions": "",
        "codes": "",
        "mse_at_mean": squared(prepared),
    }
    looked_at = min(len(x), collapse.MOST_EXAMPLES)
    say(f"the first {looked_at:,} examples of the validation data")
    if found.compared < looked_at and found.compared:
        say(
            f"of the first {found.compared:,} of them: mutual information, marginal kl and active units, as a density "
            "of a flow is found by inversion, of each code for each example"
        )
    for name, value in found.measured.items():
        text = f"{name.replace('_', ' '):<20} {value:<10.4g} {units.get(name, 'nats/example')}".rstrip()
        remark = _remark(name, value, found.measured, looked_at if name == "prior_gap" else found.compared)
        say(f"{text}{remark and f', {remark}'}")
    _say_classes(fitted, prepared, key)
    _say_findings(run, fitted, found.findings)
    say("", *([f"no sign of: {', '.join(found.absent)}"] if found.absent else []))
    for fault, why in found.unjudged.items():
        say(f"not judged: {fault}: {why}")
    if factors:
        _say_factors(fitted, prepared, key)
    elif prepared.factors:
        known, command = (
            ", ".join(factor.name for factor in prepared.factors),
            f"aevae diagnose {shlex.quote(str(run))}",
        )
        say("", f"known factors: {known}; what codes tell of them: {command} --factors")


def quality(run: Path, *, num: int = 2000, seed: int = 0, data: Moved = "") -> None:
    """Measure the quality of samples and reconstructions.

    Samples by features of classifiers trained here, reconstructions pixel by pixel.

    Classifiers are trained on the labels of the run's training data; figures that rest on them compare models of the
    same data in this project, and nothing else. Samples are clearly worse than data where one of the shares is less
    than two thirds of that of data, by more than three standard errors.

    Example: aevae quality runs/first

    Args:
      run: a run directory, of images.
      num: how many samples, at least 15 and at most as many as there are test images.
      seed: of the samples, and of the classifiers.
      data: where the run's data is by now, a name or path, if it has moved; its sha256 must be the same.
    """
    fitted = loaded(run)
    limits.check("--num", num, measures.FEWEST // 2)
    key = key_of(seed, keys.Stream.SAMPLE)
    prepared = prepared_of(run, fitted.run, data)
    if len(prepared.event_shape) != 3:
        raise InputError(
            "quality of pictures",
            got=f"{fitted.run.data.name}, events of shape {prepared.event_shape}",
            expected="images [H, W, C]",
        )

    given, x = prepared.test.rows[:num], np.asarray(prepared.test.x[:num])
    with console.parts("reconstructing") as on_part:
        seen = evaluation.per_example(
            _reconstruction, fitted.model, fitted.params, given, keys.root(0), on_part=on_part
        )
    again = seen["reconstructions"]
    pixels, (low, high) = measures.of_decoded(prepared, x, again)
    rows = {"mse": entry(pixels.mse, "squared error per element"), "psnr": entry(pixels.psnr, "dB")}
    if pixels.ssim is not None:
        rows["ssim"] = entry(pixels.ssim, "1 is perfect")
    caption = (
        f"Reconstructions of {len(x)} test images at the mean of q(z|x), in the units of the data, clipped to "
        f"its range, {low:g} to {high:g}."
    )
    train, codes = _train(prepared), prepared.validation.rows[:num]
    of_pixels = {"mse": pixels.mse, "psnr": pixels.psnr, **({} if pixels.ssim is None else {"ssim": pixels.ssim})}
    with console.parts("comparing codes with the prior", of="mixtures fitted") as on_part:
        gap = latents.prior_gap(fitted.model, fitted.params, codes, keys.root(1), others=train, on_part=on_part)
    why_not = measures.why_no_judge(prepared, "test")
    if why_not:
        found = random_codes.holes(fitted, gap, len(train))
        verdict = f"samples are not judged: {why_not}"
    else:
        seeds = [(seed + k) % 2**32 for k in range(3)]
        with console.parts("classifiers", of="steps") as on_part:
            ensemble = judges.ensemble(prepared, seeds, note=console.note, begin=begin, on_part=on_part)
        begin("judging samples")
        draw = jax.jit(_samples, static_argnums=(0, 3))
        drawn = draw(fitted.model, fitted.params, key, len(x), conditions.condition_of(given))
        support = support_of(fitted.model)
        bits = support is not None and support.levels == 2
        pictures = drawn.sample(jax.random.fold_in(key, 1)) if bits else drawn.mean()
        held_out = np.asarray(prepared.test.x[: 2 * num])
        with console.parts("judging", of="comparisons") as on_part:
            judged = measures.of_samples(held_out, np.asarray(pictures), ensemble, on_part=on_part)
        if bits:  # the classifiers have not seen their means
            again = (np.random.default_rng(seed).random(again.shape) < again).astype(np.float32)
        recognised = ensemble.confident(again)
        told = conditions.condition_of(given)
        if told is not None and "label" in conditions.parts(told):
            seen_as = ensemble.probabilities(np.asarray(pictures)).argmax(axis=1)
            of_pixels["samples_recognised"] = (seen_as == conditions.parts(told)["label"]).astype(np.float64)
        made, real = judged
        rows["frechet_distance"] = _single(made.frechet_distance, real.frechet_distance, "features")
        rows |= {name: _single(share, real.shares[name], "share") for name, share in made.shares.items()}
        caption += (
            f" {judged.samples.num_samples} samples against as many test images, and others of these in their place "
            "(data), by features of 3 classifiers trained on this data: only to be compared with such figures of the "
            "same data."
        )
        if doubt := measures.doubt(len(held_out)):
            caption += f" {doubt}."
        curve = learning_curve.look(fitted) if fitted.history else []
        found = random_codes.bad_samples(fitted, judged, recognised, gap=gap, examples=len(train), curve=curve)
        found = found or random_codes.holes(fitted, gap, len(train))
        verdict = "" if found else "samples are not clearly worse than data in any share"
        if judged.excess < 0:
            place = shlex.quote(str(run))
            verdict = (
                "WARNING: the samples are nearer to data than data are: the classifiers do not see what sets them "
                f"apart; look at them: aevae sample {place} --out samples.png"
            )
    show(f"{run}, {fitted.run.data.name}", rows, caption)
    _show_classes(of_pixels, prepared, given)
    _say_findings(run, fitted, found)
    if verdict:
        say("", verdict)


# ----------------------------------------------------------------------------------------------------------- printing


def _say_findings(run: Path, fitted: fitting.Fitted, found: Sequence[Finding]) -> None:
    """Say what was found, and the one command with all that is to be changed."""
    for finding in found:
        say("", f"{finding.fault}: {finding.evidence}", f"  try: {finding.remedy}")
    changed = {name for finding in found for name in finding.changes}
    if changed:
        new, optimizer = durable.unused(run), fitted.run.optimizer
        to_type = "  type:" if len(found) == 1 else "type, for all of these:"
        better = findings.improved(fitted.run, found)
        command = console.train_command(new, better)
        exact = isinstance(optimizer, TotalNeeding) and not optimizer.needs_total
        if changed == {"epochs"} and exact:
            command = f"aevae train {shlex.quote(str(new))} --from {shlex.quote(str(run))} --epochs {better.epochs}"
        if command:
            say(*([""] if len(found) > 1 else []), f"{to_type} {command}")


def _say_classes(fitted: fitting.Fitted, prepared: Prepared, key: Any) -> None:
    """Say what codes hold of the validation examples of each class that a model is told, where it is told one."""
    rows = prepared.validation.rows[: collapse.MOST_EXAMPLES]
    of_classes = classes.rows_of(prepared, rows)
    if not of_classes:
        return
    terms = evaluation.per_example(evaluation.SHOWN[0], fitted.model, fitted.params, rows, key)
    found = classes.means(terms, of_classes)
    for name, own in of_classes.items():
        if not has_point_codes(fitted.model) and len(own) > 1:
            some = own[: latents.affordable(fitted.model, fitted.params, rows[own])]
            of_codes = latents.describe(fitted.model, fitted.params, rows[some], key)
            found[name] |= {"mutual_information": of_codes.mutual_information, "active_units": of_codes.active.sum()}
    found = {name: own for name, own in found.items() if own.keys() == next(iter(found.values())).keys()}
    classes.show("of each class that the model is told", found, "Of n examples a code tells ln n nats at most.")


def _show_classes(values: dict[str, Any], prepared: Prepared, rows: Any) -> None:
    """Show measures of each picture by class; of samples, whether they are recognised as the class that was told."""
    found = classes.means(values, classes.rows_of(prepared, rows))
    classes.show("of each class that the model is told", found)
    if found and "samples_recognised" in values:
        share, chance = float(values["samples_recognised"].mean()), 1 / max(1, len(prepared.class_names))
        say(f"{share:.0%} of samples are recognised as the class that they were drawn for (by chance {chance:.0%})")


def _say_factors(fitted: fitting.Fitted, prepared: Prepared, key: Any) -> None:
    """Say how single dimensions of the code stand for the factors of the first test examples."""
    some = prepared.rows("test", key)[: collapse.MOST_EXAMPLES]
    factors = disentanglement.check_known(prepared.test.factors)[: collapse.MOST_EXAMPLES]
    begin("measuring what codes tell of the known factors")
    ordered = [factor.ordered for factor in prepared.factors]
    found = disentanglement.of_model(fitted.model, fitted.params, some, factors, key, ordered=ordered)
    rows = [(name.replace("_", " "), f"{score.value:.3f}", f"{score.chance:.3f}") for name, score in found.items()]
    title = f"what single dimensions of the code tell of {_named(prepared)}: {len(some):,} test examples"
    caption = (
        "1 is best. Codes are at the mean of q(z|x); dimensions that do not react to the data are taken for constant. "
        "By chance: of the same codes, with the factors of other examples."
    )
    show_table(title, ("score", "of the code", "by chance"), rows, right=("of the code", "by chance"), caption=caption)


def _named(prepared: Prepared) -> str:
    """Return the names of the known factors."""
    return ", ".join(factor.name for factor in prepared.factors)


def _remark(name: str, value: float, measured: dict[str, float], examples: int) -> str:
    """Return what is to be known of a figure to read it; empty where that is plain."""
    if name == "distortion" and value < 0:
        return "below 0 as the likelihood is a density, which may exceed 1"
    if name == "mutual_information" and value > 0.9 * math.log(max(1, examples)):
        return f"at least: {examples} examples show no more than ln {examples} = {math.log(examples):.4g}"
    if name == "marginal_kl":
        return "of these examples alone; that of all data is less"
    if name == "prior_gap":
        most = measured.get("marginal_kl", math.inf)
        if value == 0:
            told = f"{examples} examples"
            known = (
                f"what is below {most:.4g} cannot be told with {told}" if most < math.inf else f"none seen by {told}"
            )
        else:
            known = f"at least; at most {most:.4g}" if value < most < math.inf else "at least"
        return f"{known}; holes from {random_codes.HOLES:g} on"
    return ""


def _single(value: float, of_data: float, unit: str) -> dict[str, Any]:
    """Return a figure of all samples at once, and that of real data in their place."""
    return {"mean": value, "standard_error": None, "data": of_data, "unit": unit}


# ------------------------------------------------------------------------------------------------------------- a model


def _train(prepared: Prepared) -> Any:
    """Return some training data as the model sees it, with what it is told of them."""
    return jax.tree.map(np.asarray, prepared.rows("train", keys.root(0))[: collapse.MOST_EXAMPLES])


def _samples(model: Any, params: Any, key: Any, num: int, told: Any) -> Any:
    return generation.sample(conditions.given(model, told), params, key, num)


def _reconstruction(model: Any, params: Any, x: Any, key: Any) -> dict[str, Any]:
    return {"reconstructions": generation.reconstruct(model, params, x)}
