"""The same images four ways: TensorFlow Datasets, idx files, .npz and a folder of pictures are one data set."""

from __future__ import annotations

import gzip
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import optax
import pytest
from oracles import train_windows
from PIL import Image

from aevae_jax import keys, training
from aevae_jax.data import Data, prepare
from aevae_jax.models import VAE
from aevae_jax.objectives.losses import ELBO

FEW = {"train": 6_000, "t10k": 1_000}
"""How many images become pictures, each a file."""

IDX = Path(__file__).parents[3] / "shared" / "data" / "fashion-mnist"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def idx():
    if not IDX.is_dir():
        pytest.skip(f"the upstream files of Fashion-MNIST are not in {IDX}")
    return Data(str(IDX)).load()


@pytest.fixture
def few(idx, tmp_path):
    """The first images of the same files."""
    for path in IDX.glob("*-ubyte.gz"):
        count, head = FEW[path.name.partition("-")[0]], 16 if "images" in path.name else 8
        content = gzip.decompress(path.read_bytes())
        size = (len(content) - head) // int.from_bytes(content[4:8], "big")
        kept = content[:4] + count.to_bytes(4, "big") + content[8 : head + count * size]
        (tmp_path / path.stem).write_bytes(kept)
    return Data(str(tmp_path)).load()


def first_losses(dataset, steps=20):
    """Of a small VAE, step by step."""
    prepared = prepare(Data().preparation, dataset)
    model, tx = VAE(latent=2, event_shape=dataset.event_shape), optax.adam(1e-3)
    step = training.make_train_step(model, ELBO(), tx, prepare=prepared.batch)
    key = keys.root(0)
    rows = training.batch_rows(
        key, training.init_state(model, tx, key).step, len(dataset.train), batch_size=64, steps=steps
    )
    _, metrics = train_windows(step, training.init_state(model, tx, key), [dataset.train.x[rows]], key)
    return np.asarray(metrics["loss"])


def whole(dataset, part):
    """All training data, or the test data, in upstream order with labels."""
    parts = (dataset.train, dataset.validation) if part == "train" else (dataset.test,)
    return np.concatenate([p.x[:] for p in parts]), np.concatenate([p.labels for p in parts])


def tfds(dataset, folder, request):
    directory = request.getfixturevalue("fashion_mnist_directory")
    return Data("fashion_mnist", directory=str(directory))


def npz(dataset, folder, request):
    (x_train, y_train), (x_test, y_test) = whole(dataset, "train"), whole(dataset, "test")
    np.savez(folder / "fashion.npz", x_train=x_train[..., 0], y_train=y_train, x_test=x_test[..., 0], y_test=y_test)
    return Data(str(folder / "fashion.npz"))


def pictures(dataset, folder, request):
    def write(place):
        path, image = place
        Image.fromarray(image).save(path, compress_level=0)

    for part in ("train", "test"):
        x, labels = whole(dataset, part)
        for label in range(10):
            (folder / part / str(label)).mkdir(parents=True)
        paths = [folder / part / str(label) / f"{i:05}.png" for i, label in enumerate(labels)]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write, zip(paths, x[..., 0], strict=True)))
    return Data(str(folder))


@pytest.mark.parametrize(("way", "files"), [(tfds, "idx"), (npz, "idx"), (pictures, "few")])
def test_every_way_gives_the_same_arrays_and_first_losses(way, files, tmp_path, request, monkeypatch):
    monkeypatch.setenv("AEVAE_CACHE_DIR", str(tmp_path / "cache"))
    idx = request.getfixturevalue(files)
    (tmp_path / "data").mkdir()
    dataset = way(idx, tmp_path / "data", request).load()
    assert dataset.digest() == idx.digest()
    assert dataset.record()["splits"] == idx.record()["splits"]
    for part in ("train", "validation", "test"):
        assert np.array_equal(getattr(dataset, part).labels, getattr(idx, part).labels)
    losses = first_losses(dataset)
    assert np.array_equal(losses, first_losses(idx))
    assert losses[-1] < losses[0]
