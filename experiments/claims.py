"""What is said of autoencoders and VAEs, in numbers; for `ae_vs_vae.py`.

A *claim* is a number and the limit that decides it, by its 95 % interval over seeds. A *fact* holds by construction,
and is shown with its number.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax.lazy import modules, np

if TYPE_CHECKING:
    from aevae_jax.evaluation import statistics
else:
    statistics = modules("aevae_jax.evaluation", "statistics")

COLUMNS = ("AE", "VAE", "VAE, beta", "VAE + VampPrior", "AE + mixture", "VAE + mixture")

NEARER = 2.5
"""How many times nearer to data, at least, a VAE's random codes are to decode: Ghosh et al. 2020 print 3.1 times for
MNIST (58.7 to 19.2)."""


class Claim(NamedTuple):
    """A statement, the number that decides it with its 95 % interval over seeds, and the verdict."""

    about: str
    claim: str
    number: str
    mean: float
    low: float
    high: float
    limit: float
    verdict: str
    remark: str


def claim(
    about: str, text: str, number: str, values: np.ndarray, limit: float, *, ratio: bool = False, remark: str = ""
) -> Claim:
    """Return the claim that `number`, seen as `values` `[S]`, is above `limit` on average, decided by its interval.

    Ratios are averaged as logarithms.
    """
    found = statistics.interval(np.log(values) if ratio else values)
    mean, low, high = np.exp(found).tolist() if ratio else found
    verdict = "holds" if low > limit else "does not hold" if high < limit else "undecided"
    return Claim(about, text, number, mean, low, high, limit, verdict, remark)


def facts(table: dict[str, np.ndarray], latent: int, size: int) -> list[dict[str, Any]]:
    """Return what holds by construction: the sizes, and that one encoder gives a point and the other a distribution."""

    def fact(text: str, number: str, name: str) -> dict[str, Any]:
        return {"fact": text, "number": number, **statistics.interval(table[name])._asdict()}

    return [
        {"fact": f"a code has {latent} numbers, an input {size}", "number": "input / code", "mean": size / latent},
        fact("the AE encodes an input twice to the same code", "equal codes", "equal when encoded twice | AE"),
        fact("two draws of the VAE's code differ", "mean difference", "difference of two encodings | VAE"),
        fact("the VAE's code has a variance", "mean standard deviation", "posterior standard deviation | VAE"),
    ]


def decide(table: dict[str, np.ndarray], baseline: dict[str, float]) -> list[Claim]:
    """Return every claim about the columns that can be decided: those about pictures need a judge, and all need
    numbers that are finite.
    """
    ae, vae, weighted, learned = (
        {key.split(" | ")[0]: v for key, v in table.items() if key.endswith(f" | {column}")} for column in COLUMNS[:4]
    )
    found = [*_compression(ae, vae, baseline), *_regularity(ae, vae)]
    if "Frechet distance" in ae:
        mixtures = [table[f"Frechet distance | {name} + mixture"] for name in ("AE", "VAE")]
        names = {"the VAE": vae, "the VAE with beta": weighted, "the VAE with a VampPrior": learned}
        found += [one for name, measures in names.items() for one in _generation(ae, measures, name)]
        found += _mixtures(ae, vae, mixtures)
    found += [*_smoothness(ae, vae), _latent_use(vae)]
    return [one for one in found if np.isfinite([one.mean, one.low, one.high]).all()]


Measures = dict[str, np.ndarray]
"""Measures of one column, an entry per seed."""


def _compression(ae: Measures, vae: Measures, baseline: dict[str, float]) -> list[Claim]:
    pca, mse = baseline["reconstruction MSE of PCA"], "reconstruction MSE"
    about = "compression"
    return [
        claim(about, "the AE reconstructs better than PCA", "error of PCA / AE", pca / ae[mse], 1, ratio=True),
        claim(about, "so does the VAE", "error of PCA / VAE", pca / vae[mse], 1, ratio=True),
        claim(
            about,
            "its regular latent space costs the VAE less than a doubling of the error",
            "error of AE / VAE",
            ae[mse] / vae[mse],
            0.5,
            ratio=True,
        ),
    ]


def _regularity(ae: Measures, vae: Measures) -> list[Claim]:
    kl, mmd = "KL of aggregate posterior", "MMD of aggregate posterior"
    text = "the VAE's codes are nearer to N(0, I)"
    return [
        claim("regularity", f"{text}: KL of their Gaussian fit", "KL of AE / VAE", ae[kl] / vae[kl], 1, ratio=True),
        claim("regularity", f"{text}: kernel distance", "MMD of AE - VAE", ae[mmd] - vae[mmd], 0),
    ]


def _generation(ae: Measures, vae: Measures, name: str) -> list[Claim]:
    """Return the two claims about a VAE's random codes, with the ratio and the reason: how far codes of data are from
    the prior.

    The first is decided by a difference, since a distance above the floor can be 0 or less.
    """
    excess, seen, gap = "... above that of data to data", "confident samples", "gap to the prior"
    remark = (
        "distances {:.3g} and {:.3g} above the floor; codes of data {:.1f} and {:.1f} nats from the prior, at least"
    )
    remark = remark.format(*(measures[key].mean() for key in (excess, gap) for measures in (ae, vae)))
    return [
        claim(
            "generation",
            f"random codes of {name} decode {NEARER} times nearer to data than the AE's",
            f"distance of AE - {NEARER} VAE",
            ae[excess] - NEARER * vae[excess],
            0,
            remark=remark,
        ),
        claim(
            "generation",
            f"classifiers are confident of more random codes of {name} than of the AE's",
            "share of VAE - AE",
            vae[seen] - ae[seen],
            0,
        ),
    ]


def _mixtures(ae: Measures, vae: Measures, mixtures: list[np.ndarray]) -> list[Claim]:
    fd = "Frechet distance"
    text = "a mixture fitted to its codes makes a generator of the {}"
    return [
        claim("generation", text.format(name), f"distance of {name} / {name} + mixture", m[fd] / mixture, 2, ratio=True)
        for name, m, mixture in zip(("AE", "VAE"), (ae, vae), mixtures, strict=True)
    ]


def _smoothness(ae: Measures, vae: Measures) -> list[Claim]:
    path, seen = "steepest step of a path", "confident on paths"
    lengths = ae["length of a path"].mean(), vae["length of a path"].mean()
    fade = "a fade of pixels is perfectly even; the AE's path is {:.2f} fades long, the VAE's {:.2f}".format(*lengths)
    text = "between two codes the VAE's picture changes more evenly"
    found = [claim("smoothness", text, "steepest step of AE - VAE", ae[path] - vae[path], 0, remark=fade)]
    if seen in ae:
        text = "... and classifiers are more often confident on the way"
        found.append(claim("smoothness", text, "share of VAE - AE", vae[seen] - ae[seen], 0))
    return found


def _latent_use(vae: Measures) -> Claim:
    spent = vae["rate per dimension"]
    remark = f"from {spent[:, 0].mean():.2f} to {spent[:, -1].mean():.2f} nats"
    ratio, text = spent[:, 0] / spent[:, -1], "the VAE spends its nats unevenly over its dimensions"
    return claim("latent use", text, "largest / smallest rate", ratio, 2, ratio=True, remark=remark)


# ------------------------------------------------------------------------------------------------------------ showing

UNITS = {
    "reconstruction MSE": "per pixel, test",
    "rate": "nats per image",
    "gap to the prior": "nats, at least",
    "Frechet distance": "features",
    "... above that of data to data": "features",
    "confident samples": "share",
    "confident reconstructions": "share",
    "confident on paths": "share",
    "KL of aggregate posterior": "nats, to N(0, I)",
    "MMD of aggregate posterior": "to N(0, I)",
    "steepest step of a path": "of the mean step",
    "length of a path": "of a fade of pixels",
    "active units": "",
}


def show(results: dict[str, Any], folder: Path) -> None:
    """Print the measures, the facts and the claims as tables, and where the picture is."""
    from rich.console import Console
    from rich.table import Table

    output = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    chosen, base = results["chosen"], results["baselines"]
    heads = [f"{column} {chosen['beta']:g}" if column == "VAE, beta" and chosen else column for column in COLUMNS]
    measures = Table("measure", *heads, "unit", title="Means over seeds ± half the 95 % interval")
    for name, unit in UNITS.items():
        measures.add_row(name, *(_cell(results["measures"].get(f"{name} | {column}")) for column in COLUMNS), unit)
    output.print(measures)
    if chosen:
        output.print(
            f"Chosen on validation data: weight decay {chosen['weight decay of the AE']:g} for the AE, beta "
            f"{chosen['beta']:g} for the VAE.\nFrechet distance of data to data "
            f"{base['Frechet distance of data to data']:.2f}, of training data "
            f"{base['Frechet distance of training data']:.2f}; classifiers are confident of "
            f"{base['confident held-out data']:.3f} of held-out data. Distances are of "
            f"{base['pictures compared']:,} pictures to as many, and comparable within this project only."
        )
    rates = results["rate per dimension, largest first, nats"]
    output.print("The VAE's nats per dimension, largest first: " + " ".join(f"{rate:.2f}" for rate in rates))
    output.print(f"PCA's error {base['reconstruction MSE of PCA']:.5f}.")
    for fact in results["facts"]:
        output.print(f"By construction: {fact['fact']} ({fact['number']} {fact['mean']:.3g}).")
    table = Table("about", "claim", "decided by [95 % interval]", "verdict", title="Claims", show_lines=False)
    colours = {"holds": "green", "does not hold": "red", "undecided": "yellow"}
    for c in results["claims"]:
        number = f"{c['number']} = {c['mean']:.3g} \\[{c['low']:.3g}, {c['high']:.3g}] > {c['limit']:g}"
        table.add_row(c["about"], c["claim"], number, f"[{colours[c['verdict']]}]{c['verdict']}[/]")
        if c["remark"]:
            table.add_row("", f"[dim]  ({c['remark']})[/]", "", "")
    output.print(table)
    if results["left out"]:
        output.print(f"Claims about pictures are left out, as {results['left out']}.")
    held = sum(c["verdict"] == "holds" for c in results["claims"])
    output.print(f"{held} of {len(results['claims'])} claims hold. Picture: {folder / 'report.png'}")


def _cell(interval: dict[str, float] | None) -> str:
    if interval is None:
        return ""
    return f"{interval['mean']:.4g} ± {(interval['high'] - interval['low']) / 2:.2g}"
