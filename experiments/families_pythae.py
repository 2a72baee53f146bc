"""The families of families_torch.py by pythae (Chadebec, Vincent & Allassonniere 2022), in a Python that has it.

It is typed by families_torch.py, not by hand: a request as JSON on standard input, with the file of the images and that
of the results; and it needs NumPy, scikit-learn, PyTorch and pythae alone, nothing of aevae_jax.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any

import numpy as np

try:
    import torch
    from pythae import models
    from pythae.data.datasets import BaseDataset
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from torch import nn
except ImportError as error:  # said in a line by whoever typed this
    print(json.dumps({"missing": str(error)}))
    sys.exit(3)

HIDDEN = 256

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "autoencoder": ("AE", {}),
    "VAE": ("VAE", {}),
    "VAE, rate weighed 0.02": ("BetaVAE", {"beta": 0.02}),
    "beta-VAE, beta = 4": ("BetaVAE", {"beta": 4.0}),
    "beta-TCVAE, 6 times TC": ("BetaTCVAE", {"alpha": 1.0, "beta": 6.0, "gamma": 1.0}),
    "IWAE, 5 samples": ("IWAE", {"number_samples": 5}),
    "InfoVAE": ("INFOVAE_MMD", {"alpha": 0.0, "lbd": 100.0}),
    "Wasserstein autoencoder": ("WAE_MMD", {"reg_weight": 1000.0}),
    "VQ": ("VQVAE", {"num_embeddings": 64, "use_ema": True}),
}
"""Class and settings of each row, as near to ours as they can be."""

CONFIGS = {"INFOVAE_MMD": "INFOVAE_MMD_Config", "WAE_MMD": "WAE_MMD_Config"}
"""The class of the settings, where it is called another name than the others."""


class Encoder(BaseEncoder):
    """Two dense layers, and what the family asks for: means, log variances, or 16 vectors of 4."""

    def __init__(self, pixels: int, latent: int, maps: bool) -> None:
        BaseEncoder.__init__(self)
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
        )
        self.embedding = nn.Linear(HIDDEN, 64 if maps else latent)
        self.log_covariance = nn.Linear(HIDDEN, latent)
        self.maps = maps

    def forward(self, x: Any) -> Any:
        """Return what pythae's models take from an encoder."""
        h = self.hidden(x)
        embedding = self.embedding(h)
        embedding = embedding.reshape(-1, 4, 4, 4) if self.maps else embedding
        return ModelOutput(embedding=embedding, log_covariance=self.log_covariance(h))


class Decoder(BaseDecoder):
    """The same the other way."""

    def __init__(self, shape: tuple[int, ...], latent: int) -> None:
        BaseDecoder.__init__(self)
        pixels = int(np.prod(shape))
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(latent, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
        )
        self.out, self.shape = nn.Linear(HIDDEN, pixels), shape

    def forward(self, z: Any) -> Any:
        """Return images."""
        return ModelOutput(reconstruction=self.out(self.layers(z)).reshape(-1, *self.shape))


def trained(title: str, seed: int, images: Any, asked: dict[str, Any], folder: str) -> tuple[Any, float]:
    """Return the model of the best epoch by validation, and the processor seconds of an epoch."""
    name, settings = ROWS[title]
    torch.manual_seed(seed)
    shape, maps = tuple(images["train"].shape[1:]), name == "VQVAE"
    kind = getattr(models, CONFIGS.get(name, f"{name}Config"))
    config = kind(input_dim=shape, latent_dim=16, **settings)
    networks = Encoder(int(np.prod(shape)), 16, maps), Decoder(shape, 64 if maps else 16)
    model = getattr(models, name)(config, *networks)
    training = BaseTrainerConfig(
        output_dir=folder,
        num_epochs=asked["epochs"],
        learning_rate=1e-3,
        per_device_train_batch_size=asked["batch_size"],
        per_device_eval_batch_size=256,
        seed=seed,
        no_cuda=True,
    )
    parts = [
        BaseDataset(torch.tensor(images[part]), torch.zeros(len(images[part]))) for part in ("train", "validation")
    ]
    trainer = BaseTrainer(model, *parts, training)
    began = time.process_time()
    trainer.train()
    seconds = (time.process_time() - began) / asked["epochs"]
    best = type(model).load_from_folder(os.path.join(trainer.training_dir, "final_model"))
    return best.eval(), seconds


def parts_of(model: Any, x: Any) -> tuple[Any, Any, Any]:
    """Return the reconstruction at the mean code, that at a draw, and the rate in nats, of points `None`."""
    with torch.no_grad():
        seen = torch.tensor(x)
        out = model.encoder(seen)
        if isinstance(model, models.VQVAE):
            again = model({"data": seen}).recon_x
            return again, again, torch.full((len(x),), 16 * float(np.log(64)))
        again = model.decoder(out.embedding).reconstruction
        if not isinstance(model, models.VAE):
            return again, again, None
        log_var = out.log_covariance
        rate = 0.5 * (out.embedding**2 + log_var.exp() - log_var - 1).sum(dim=1)
        z = out.embedding + (0.5 * log_var).exp() * torch.randn_like(log_var)
        return again, model.decoder(z).reconstruction, rate


def measured(model: Any, images: Any, samples: int, seed: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Return figures of test images, images of random codes, and of a mixture of 10 Gaussians fitted to codes.

    The bound is under a Gaussian of the one scale that is best at draws of validation codes: pythae's has a scale of 1.
    """
    from sklearn.mixture import GaussianMixture

    torch.manual_seed(1_000 + seed)
    _, drawn, _ = parts_of(model, images["validation"])
    variance = float(((drawn.numpy() - images["validation"]) ** 2).mean())
    again, drawn, rate = parts_of(model, images["test"])
    errors = ((drawn.numpy() - images["test"]) ** 2).reshape(len(again), -1)
    found: dict[str, Any] = {"mse": float(((again.numpy() - images["test"]) ** 2).mean()), "nats": None}
    if rate is not None:
        distortion = 0.5 * (errors / variance + np.log(2 * np.pi * variance)).sum(axis=1)
        found["nats"] = float((distortion + rate.numpy()).mean())
    with torch.no_grad():
        if isinstance(model, models.VQVAE):
            table = model.quantizer.embeddings.detach()
            table = table if table.shape[0] == 64 else table.T
            codes = table[torch.randint(0, 64, (samples, 16))].reshape(samples, 4, 4, 4).permute(0, 3, 1, 2)
            return found, model.decoder(codes.contiguous()).reconstruction.numpy(), np.empty(0, np.float32)
        prior = model.decoder(torch.randn(samples, 16)).reconstruction.numpy()
        codes = model.encoder(torch.tensor(images["train"][:2_000])).embedding.numpy().astype(np.float64)
        mixture = GaussianMixture(10, reg_covar=1e-4 * codes.var(), random_state=0).fit(codes)
        z = mixture.sample(samples)[0].astype(np.float32)
        return found, prior, model.decoder(torch.tensor(z)).reconstruction.numpy()


def answer(asked: dict[str, Any]) -> None:
    """Train what is asked for, and leave figures and images in the file of the results."""
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)  # layers so small are not sooner done by two, and much later where others are at work
    with np.load(asked["images"]) as file:
        images = {part: np.moveaxis(file[part], -1, 1) for part in ("train", "validation", "test")}
    figures: dict[str, list[dict[str, Any]]] = {}
    arrays: Any = {}
    for title in asked["rows"]:
        for seed in range(asked["seeds"]):
            print(f"{title}, seed {seed}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
                model, seconds = trained(title, seed, images, asked, folder)
                found, *pictures = measured(model, images, asked["samples"], seed)
            figures.setdefault(title, []).append({**found, "epoch_seconds": seconds})
            for name, made in zip(("prior", "mixture"), pictures, strict=True):
                arrays[f"{title}/{seed}/{name}"] = np.moveaxis(made, 1, -1) if made.size else made
    np.savez(asked["results"], **arrays)
    versions = {"pythae": version("pythae"), "torch": torch.__version__, "python": sys.version.split()[0]}
    print(json.dumps({"figures": figures, "versions": versions}))


if __name__ == "__main__":
    answer(json.load(sys.stdin))
