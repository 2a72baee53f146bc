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
    from collections.abc import Mapping

    from rich.table import Table

    from aevae_jax.evaluation import statistics
else:
    statistics = modules("aevae_jax.evaluation", "statistics")

COLUMNS = ("AE", "VAE", "VAE, beta", "VAE + VampPrior", "AE + mixture", "VAE + mixture")

NEARER = 2.5
"""How many times nearer to data, at least, a VAE's random codes are to decode: Ghosh et al. 2020 print 3.1 times for
MNIST (58.7 to 19.2)."""

HOLDS, UNDECIDED, MISSED, REVERSE = "holds", "undecided", "does not hold", "the reverse holds"
"""Verdicts. What is claimed is not so: it misses what was asked of it, or the opposite is true."""


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
    about: str,
    text: str,
    number: str,
    values: np.ndarray,
    limit: float,
    *,
    ratio: bool = False,
    plain: np.ndarray | None = None,
    remark: str = "",
) -> Claim:
    """Return the claim that `number`, seen as `values` `[S]`, is above `limit` on average, decided by its interval.

    Args:
      about, text, number: as in `Claim`.
      values: of every seed.
      limit: that the mean must exceed.
      ratio: average logarithms; a ratio favours neither side at 1, a difference at 0.
      plain: of every seed, the difference without the factor that `values` weigh one side with.
      remark: as in `Claim`.
    """
    found = statistics.interval(np.log(values) if ratio else values)
    mean, low, high = np.exp(found).tolist() if ratio else found
    opposite = high < min(limit, float(ratio)) if plain is None else statistics.interval(plain).high < 0
    verdict = HOLDS if low > limit else UNDECIDED if high >= limit else REVERSE if opposite else MISSED
    return Claim(about, text, number, mean, low, high, limit, verdict, remark)


def verdict_of(recorded: Mapping[str, Any]) -> str:
    """Return the verdict of a recorded claim. Records of earlier versions have one word for what misses its limit and
    for what is reversed; a limit other than 0 is that of a ratio.
    """
    weighted = f" - {NEARER} " in recorded["number"]
    if recorded["verdict"] != MISSED or weighted:
        return recorded["verdict"]
    return REVERSE if recorded["high"] < min(recorded["limit"], float(recorded["limit"] != 0)) else MISSED


def facts(table: dict[str, np.ndarray], latent: int, size: int) -> list[dict[str, Any]]:
    """Return what holds by construction: the sizes, and that one encoder gives a point and the other a distribution."""

    def fact(text: str, number: str, name: str) -> dict[str, Any]:
        return {"fact": text, "number": number, **statistics.interval(table[name])._asdict()}

    return [
        {"fact": f"a code has {latent} numbers, an input {size}", "number": "input / code", "mean": size / latent},
        fact("the AE encodes an input twice to the same code", "share of inputs", "equal when encoded twice | AE"),
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
        "distances {:.3g} and {:.3g} above that of data to data; codes of data {:.1f} and {:.1f} nats from the prior, "
        "at least"
    )
    remark = remark.format(*(measures[key].mean() for key in (excess, gap) for measures in (ae, vae)))
    return [
        claim(
            "generation",
            f"random codes of {name} decode {NEARER} times nearer to data than the AE's",
            f"distance of AE - {NEARER} VAE",
            ae[excess] - NEARER * vae[excess],
            0,
            plain=ae[excess] - vae[excess],
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


class _Row(NamedTuple):
    """How a measure is shown."""

    short: str
    words: str


ROWS = {
    "reconstruction MSE": _Row("squared error", "per pixel, of reconstructed test images"),
    "rate": _Row("rate", "nats per image, KL(q(z|x) || p(z)): what a code costs"),
    "gap to the prior": _Row(
        "prior gap", "nats, at least, between the codes of data and the prior that random codes are drawn from"
    ),
    "Frechet distance": _Row(
        "Frechet distance", "of pictures decoded from random codes to data, in features of classifiers"
    ),
    "... above that of data to data": _Row("... above data", "the same less the distance of data to data"),
    "confident samples": _Row("confident, random", "share of those pictures of whose class classifiers are confident"),
    "confident reconstructions": _Row("confident, decoded", "share of reconstructions"),
    "confident on paths": _Row("confident, paths", "share of what straight paths between two codes decode to"),
    "KL of aggregate posterior": _Row("KL of codes", "nats from the Gaussian fit of all codes to N(0, I)"),
    "MMD of aggregate posterior": _Row(
        "MMD of codes", "maximum mean discrepancy of all codes and N(0, I), by a kernel: 0 where they are alike"
    ),
    "steepest step of a path": _Row(
        "steepest step", "largest change of a picture along a path, in mean changes: 1 is perfectly even"
    ),
    "length of a path": _Row("path length", "all changes, in fades: in the change of one picture faded into the other"),
    "active units": _Row("active units", "numbers of a code that react to the data"),
}
"""The measures in their order. A word of a short name, as of a column's, has at most ten letters: it must fit into a
narrow terminal."""

COLOURS = {HOLDS: "green", UNDECIDED: "yellow", MISSED: "red", REVERSE: "bold red"}


def show(results: dict[str, Any], folder: Path) -> None:
    """Print the measures, the facts and the claims as tables, and where the picture is."""
    from rich.console import Console

    output = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    chosen, base = results["chosen"], results["baselines"]
    table, legend = _measures(results)
    output.print(table)
    output.print(legend)
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
    output.print(_claims(results["claims"]))
    output.print(
        f"{HOLDS.capitalize()}: its whole interval is above the limit. {MISSED.capitalize()}: all of it is below. "
        f"{REVERSE.capitalize()}: even the opposite of what is claimed is shown. {UNDECIDED.capitalize()}: the limit "
        "lies in it."
    )
    if chosen:
        output.print(
            f"{NEARER} times nearer is asked, of distances above that of data to data, so that chance and small gains "
            "do not pass: published for MNIST are 3.1 times (Ghosh et al. 2020)."
        )
    if results["left out"]:
        output.print(f"Claims about pictures are left out: {results['left out']}.", markup=False)
    held = sum(c["verdict"] == HOLDS for c in results["claims"])
    output.print(f"{held} of {len(results['claims'])} claims hold. Picture: {folder / 'report.png'}", markup=False)


def _measures(results: dict[str, Any]) -> tuple[Table, Table]:
    """Return what was measured, without rows and columns of which nothing was, and what its rows mean."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    found, chosen = results["measures"], results["chosen"]
    columns = [column for column in COLUMNS if any(f"{name} | {column}" in found for name in ROWS)]
    heads = [f"{column} {chosen['beta']:g}" if column == "VAE, beta" and chosen else column for column in columns]
    table = Table(box=SIMPLE_HEAD, title="Means over seeds ± half the 95 % interval")
    for head in ("measure", *heads):
        table.add_column(head, min_width=max(map(len, head.split())), overflow="fold")
    legend = Table(box=None, show_header=False)
    for name, (short, words) in ROWS.items():
        cells = [_cell(found.get(f"{name} | {column}")) for column in columns]
        if any(cells):
            table.add_row(short, *cells)
            legend.add_row(short, words)
    table.columns[0].min_width = 10
    return table, legend


def _claims(claims: list[dict[str, Any]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("about", "claim", "decided by [95 % interval]", "verdict", box=SIMPLE_HEAD, title="Claims")
    for c in claims:
        number = f"{c['number']} = {c['mean']:.3g} \\[{c['low']:.3g}, {c['high']:.3g}] > {c['limit']:g}"
        table.add_row(c["about"], c["claim"], number, f"[{COLOURS[c['verdict']]}]{c['verdict']}[/]")
        if c["remark"]:
            table.add_row("", f"[dim]  ({c['remark']})[/]", "", "")
    return table


def _cell(interval: dict[str, float] | None) -> str:
    if interval is None:
        return ""
    return f"{interval['mean']:.3g} ± {(interval['high'] - interval['low']) / 2:.2g}"
