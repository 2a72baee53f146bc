"""What is claimed of an autoencoder and a VAE, each as a number and the limit that decides it; for `ae_vs_vae.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aevae_jax.lazy import modules, np

if TYPE_CHECKING:
    from aevae_jax.evaluation import statistics
else:
    statistics = modules("aevae_jax.evaluation", "statistics")


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


def above(
    limit: float, values: np.ndarray, number: str, about: str, claim: str, *, ratio: bool = False, remark: str = ""
) -> Claim:
    """Return the claim that `number`, seen as `values` `[S]`, is above `limit` on average, decided by its interval.

    Ratios are averaged as logarithms.
    """
    found = statistics.interval(np.log(values) if ratio else values)
    mean, low, high = np.exp(found).tolist() if ratio else found
    verdict = "holds" if low > limit else "does not hold" if high < limit else "undecided"
    return Claim(about, claim, number, mean, low, high, limit, verdict, remark)


def decide(table: dict[str, np.ndarray], baseline: dict[str, float], latent: int, size: int) -> list[Claim]:
    """Return every claim about the two models, as one number per seed against a limit."""
    ae, vae, mixture = (
        {key.split(" | ")[0]: v for key, v in table.items() if key.endswith(f"| {column}")}
        for column in ("AE", "VAE", "AE + mixture")
    )
    pca, mse = baseline["reconstruction MSE of PCA"], "reconstruction MSE"
    kl, mmd, fd = "KL of aggregate posterior", "MMD of aggregate posterior", "Frechet distance"
    above_floor = "... above that of data to data"
    seen, path = "confident samples", "steepest step of a path"
    on_path, spent = "confident on paths", vae["rate per dimension"]
    mixed = f"its distance is {np.mean(vae[fd] / mixture[fd]):.1f} times below the VAE's, too"
    lengths = np.mean(ae["length of a path"]), np.mean(vae["length of a path"])
    fade = "a fade of pixels is perfectly even; the AE's path is {:.2f} fades long, the VAE's {:.2f}".format(*lengths)
    return [
        above(
            1,
            np.full_like(ae[mse], size / latent),
            "input / code",
            "compression",
            f"a code ({latent} numbers) is smaller than its input ({size})",
            ratio=True,
        ),
        above(
            1,
            pca / ae[mse],
            "error of PCA / AE",
            "compression",
            "the AE reconstructs better than PCA with as many numbers",
            ratio=True,
        ),
        above(1, pca / vae[mse], "error of PCA / VAE", "compression", "so does the VAE", ratio=True),
        above(
            0.5,
            ae[mse] / vae[mse],
            "error of AE / VAE",
            "compression",
            "its regular latent space costs the VAE less than a doubling of the error",
            ratio=True,
        ),
        above(
            1,
            ae[kl] / vae[kl],
            "KL of AE / VAE",
            "regularity",
            "the VAE's codes are nearer to N(0, I): KL of their Gaussian fit",
            ratio=True,
        ),
        above(
            0,
            ae[mmd] - vae[mmd],
            "MMD of AE - VAE",
            "regularity",
            "the VAE's codes are nearer to N(0, I): kernel distance",
        ),
        above(
            1,
            ae[above_floor] / vae[above_floor],
            "distance of AE / VAE",
            "generation",
            "the AE's random codes decode farther from data than the VAE's, each above data to data",
            ratio=True,
            remark="3.1 published for MNIST (58.7 / 19.2), and at least 2.5 was expected",
        ),
        above(
            0,
            vae[seen] - ae[seen],
            "share of VAE - AE",
            "generation",
            "more of the VAE's random codes decode to what classifiers are confident of",
        ),
        above(
            2,
            ae[fd] / mixture[fd],
            "distance of AE / AE + mixture",
            "generation",
            "a mixture fitted to its codes makes a generator of the AE",
            ratio=True,
            remark=mixed,
        ),
        above(
            0.999,
            ae["equal when encoded twice"],
            "equal codes",
            "determinism",
            "the AE encodes an input twice to the same code",
        ),
        above(
            0,
            vae["difference of two encodings"],
            "mean difference",
            "determinism",
            "the VAE encodes to a distribution: two draws differ",
        ),
        above(
            0,
            vae["posterior standard deviation"],
            "standard deviation",
            "determinism",
            "... with a mean and a variance",
        ),
        above(
            0,
            ae[path] - vae[path],
            "steepest step of AE - VAE",
            "smoothness",
            "between two codes the VAE's picture changes more evenly",
            remark=fade,
        ),
        above(
            0,
            vae[on_path] - ae[on_path],
            "share of VAE - AE",
            "smoothness",
            "... and classifiers are more often confident on the way",
        ),
        above(
            2,
            spent[:, 0] / spent[:, -1],
            "largest / smallest rate",
            "latent use",
            "the VAE spends its nats unevenly over its dimensions",
            ratio=True,
        ),
    ]
