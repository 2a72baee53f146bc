"""Write the README's tables of results and faults from the recorded ones: no figure in them is typed by hand.

Command:   python experiments/readme.py            (rewrites what stands between the marks in README.md)
           python experiments/readme.py --check    (writes nothing; exit code 2 if the README is not up to date)
Reads:     experiments/results/*.json
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import defaults
import disentangling
import families_table
import lossless_table
import lossy_table
import posteriors
import speed_table
import upsampling
from claims import verdict_of
from density_table import HEADINGS, cells
from faults.table import FAULTS
from written import markdown, typed

from aevae_jax.cli import console
from aevae_jax.runs import records
from aevae_jax.types import InputError

RESULTS = Path("experiments/results")


def readme(*, check: bool = False, path: Path = Path("README.md")) -> None:
    """Write the sections of the README that hold figures.

    Args:
      check: only look whether they are up to date.
      path: the README.
    """
    text = new = path.read_text()
    for name, written in (("results", section()), ("faults", faults())):
        begin, end = f"<!-- {name}, written by experiments/readme.py -->", f"<!-- end of {name} -->"
        if new.count(begin) != 1 or new.count(end) != 1:
            raise InputError(str(path), got=f"no section of {name}", expected=f"one between {begin!r} and {end!r}")
        new = f"{new.split(begin)[0]}{begin}\n\n{written}\n{end}{new.split(end)[1]}"
    if check and new != text:
        raise InputError(
            str(path),
            got="results other than those recorded",
            expected="the recorded ones",
            hint="type python experiments/readme.py",
        )
    path.write_text(new)
    print(f"{path}: results are {'up to date' if check else 'written'}")


def section() -> str:
    """Return the Markdown between the marks."""
    parts = [
        density_table("density_fashion_mnist"),
        density_table("density_fashion_mnist_10_epochs"),
        compression(),
        speed_tables(),
        decoders(),
        claims(),
        made_of(),
        disentangled(),
        side_by_side(),
        other_posteriors(),
        linear(),
    ]
    return "\n".join(part for part in parts if part)


def density_table(name: str) -> str:
    """Return test likelihoods; the published figures stand beside those of the published number of epochs."""
    found = recorded(f"{name}.json")
    if found is None:
        return ""
    short, lowest = name.endswith("epochs"), found["floor"]["drawn_bits"]
    head = [*HEADINGS, *([] if short else ["published"]), "command"]
    rows = []
    for row in found["rows"]:
        if short and not row["seeds"]:
            continue
        entries = cells(row, lowest)
        if not short:
            entries.append(f"{row['published']:.2f}" if row["published"] else "")
        command = row["seeds"][-1]["command"] if row["seeds"] else f"python experiments/density.py --rows {row['row']}"
        rows.append([*entries, f"`{typed(command)}`"])
    shares = [100 * entry["untrusted"] for row in found["rows"] for entry in row["seeds"]]
    what = "Few epochs, to compare the rows with each other; else the protocol" if short else "The published protocol"
    return (
        f"**Test likelihoods, {found['data']}**, in nats per image, {found['num_samples']:,} importance samples each. "
        f"{what}, stated in [density.py](experiments/density.py); no model can be below {lowest:.2f}, what the drawn "
        f"bits cost under the probabilities they were drawn with. The estimates are upper bounds on average; for "
        f"{min(shares):.0f} to {max(shares):.0f} % of the images the tail of the weights asks for more samples "
        f"([figures](experiments/results/{name}.json)).\n\n"
        f"{markdown(head, rows)}{'' if short else bounds(found['rows']) + annealed(found['rows'])}"
    )


def bounds(rows: list[dict[str, Any]]) -> str:
    """Return how the bound rises with the number of importance samples, for the first seed of the first row."""
    for row in rows:
        for entry in row["seeds"][:1]:
            steps = ", ".join(f"{value:.2f} with {k}" for k, value in entry["bound_with"].items())
            return (
                f"\nThe bound rises with the number of samples: on {entry['bound_images']:,} test images the first "
                f"{row['model']}'s negative log likelihood is at most {steps}.\n"
            )
    return ""


def annealed(rows: list[dict[str, Any]]) -> str:
    """Return what a second estimator says, where it was asked."""
    lines = []
    for row in rows:
        for entry in row["seeds"]:
            if (found := entry.get("annealed")) is not None:
                gap = found["nll_of_drawn_images_at_most"] - found["nll_of_drawn_images_at_least"]
                lines.append(
                    f"- {row['model']}, {row['prior']}, seed {entry['seed']}: {found['nll']:.2f} for the first "
                    f"{found['images']} test images, against {found['nll_by_importance_sampling']:.2f} by importance "
                    f"sampling; on images drawn from the model its two bounds are {gap:.2f} nats apart.\n"
                )
    if not lines:
        return ""
    head = "Annealed importance sampling, which does not see the encoder (`--annealed`):"
    return f"\n{head}\n\n{''.join(lines)}"


def compression() -> str:
    """Return into how few bytes test images go, without any loss and with some."""
    written = []
    for name, table in (("lossless.json", lossless_table), ("lossy.json", lossy_table)):
        found = recorded(name)
        if found is not None:
            written.append(table.of_readme(found, (RESULTS / name).as_posix()))
    return "\n".join(written)


def speed_tables() -> str:
    """Return what was recorded of speed, a table for each machine."""
    paths = sorted(RESULTS.glob("speed_*.json"))
    return "\n".join(speed_table.of_readme(records.read_json(path), path.as_posix()) for path in paths)


SETS = {"digits": "digits", "sprites": "sprites", "fashion_mnist": "Fashion-MNIST"}


def claims() -> str:
    """Compare AE with VAE, on all data sets side by side."""
    found = {name: record for data, name in SETS.items() if (record := recorded(f"ae_vs_vae_{data}.json"))}
    if not found:
        return ""
    texts = {claim["claim"]: claim["number"] for record in found.values() for claim in record["claims"]}
    decided = [{claim["claim"]: claim for claim in record["claims"]} for record in found.values()]
    rows = [
        [text, number, *(_interval(claims[text]) if text in claims else "" for claims in decided)]
        for text, number in texts.items()
    ]
    table = markdown(["claim", "in numbers", *found], rows)
    links = ", ".join(
        f"[{SETS[data]}](experiments/results/ae_vs_vae_{data}.json)" for data in SETS if SETS[data] in found
    )
    return (
        "**AE against VAE**: every claim as a number, with 95 % intervals over five seeds, and whether it holds. "
        f"`python experiments/ae_vs_vae.py`, and with `--data sprites` or `--data fashion_mnist` ({links}).\n\n{table}"
    )


def made_of() -> str:
    """Return what was compared before it became the default."""
    found = recorded("defaults.json")
    return "" if found is None else defaults.of_readme(found, (RESULTS / "defaults.json").as_posix())


def disentangled() -> str:
    """Return which losses make single dimensions stand for single factors."""
    path = RESULTS / "disentangling_sprites.json"
    found = recorded(path.name)
    return "" if found is None else disentangling.of_readme(found, path.as_posix())


def side_by_side() -> str:
    """Return the families of models in one table, and those of another library in a second one."""
    path, other = RESULTS / "families.json", RESULTS / "families_torch.json"
    found, theirs = recorded(path.name), recorded(other.name)
    if found is None:
        return ""
    beside = "" if theirs is None else families_table.of_library(found, theirs, other.as_posix())
    return "\n".join(part for part in (families_table.of_readme(found, path.as_posix()), beside) if part)


def other_posteriors() -> str:
    """Return what posteriors other than the diagonal normal are worth."""
    path = RESULTS / "posteriors_fashion_mnist.json"
    found = recorded(path.name)
    return "" if found is None else posteriors.of_readme(found, path.as_posix())


def decoders() -> str:
    """Return what the decoder of `Conv` loses against the former one."""
    path = RESULTS / "upsampling_fashion_mnist.json"
    found = recorded(path.name)
    return "" if found is None else upsampling.of_readme(found, path.as_posix())


def _interval(claim: dict[str, Any]) -> str:
    return f"{claim['mean']:.3g} [{claim['low']:.3g}, {claim['high']:.3g}] {verdict_of(claim)}"


def linear() -> str:
    """Compare linear models with linear algebra."""
    found = recorded("linear_oracles_fashion_mnist.json")
    if found is None:
        return ""
    rows = [
        [
            row["quantity"],
            row["split"],
            *(f"{row[name]:.7g}" for name in ("trained", "optimum")),
            f"{100 * row['gap']:.2g} %",
        ]
        for row in found["rows"]
    ]
    return (
        f"**Linear models against linear algebra**, Fashion-MNIST, k = {found['latent']}: PCA and probabilistic PCA. "
        "`python experiments/linear_oracles.py` "
        "([linear_oracles_fashion_mnist.json](experiments/results/linear_oracles_fashion_mnist.json)).\n\n"
        + markdown(["quantity", "split", "trained", "optimum", "apart"], rows)
    )


VERDICTS = ("same", "refused", "as it says", "silent", "traceback", "hang", "memory", "executed", "outside", "raw")


def faults() -> str:
    """Return what became of trainings under faults, and of hostile inputs: a row for each section."""
    found = recorded("faults.json")
    if found is None:
        return ""
    trainings, inputs, total = list[list[str]](), list[list[str]](), Counter[str]()
    for name, part in found["sections"].items():
        rows = [row for row in part["rows"] if not row["skipped"]]
        title = f"`{name}`: {part.get('what', FAULTS.get(name, name))}"
        if any(row.get("counts") for row in rows):
            counts = sum((Counter(row["counts"]) for row in rows), Counter[str]())
            total += counts
            inputs.append([title, *(f"{counts[kind]:,}" for kind in VERDICTS)])
        else:
            said = [f"{row['fault']}: {figure}" for row in rows if (figure := row["figure"].partition("; ")[2])]
            trials, failed = (sum(row[key] for row in rows) for key in ("trials", "failed"))
            trainings.append([title, f"{trials:,}", f"{failed:,}", "; ".join(said)])
    trained = markdown(["fault", "trials", "failed", "figures"], trainings)
    if not inputs:
        return trained
    inputs.append(["**all**", *(f"**{total[kind]:,}**" for kind in VERDICTS)])
    head = [
        "hostile input",
        "as before",
        "refused",
        "read as another valid input",
        "silent",
        "traceback",
        "hang",
        "too much memory",
        "code run",
        "files changed outside",
        "escape codes shown",
    ]
    return (
        f"{trained}\n**Hostile inputs**, {total.total():,} of them. Good: what is read is, to the bit, what is read "
        "from the intact file; or it is refused in one line, with exit code 2; or it is what the input says, as for an "
        "independent reader, under another sha256, which a run refuses. Bad: other numbers in silence, a traceback, "
        "more than 20 s, 1 GiB more than the file needs, code of the input that runs, a file outside that changes, "
        f"escapes on the terminal.\n\n{markdown(head, inputs)}"
    )


def recorded(name: str) -> dict[str, Any] | None:
    """Return what an experiment left; `None` where it was not run."""
    path = RESULTS / name
    return records.read_json(path) if path.exists() else None


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(readme, sys.argv[1:], prog="readme.py", compiles=False)()
