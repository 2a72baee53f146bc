"""The same networks in PyTorch, in a process of their own that takes its turns when asked.

PyTorch is no dependency: without it, its rows say so. It may live in another environment than JAX (`speed.py --torch
PYTHON`), whose libraries cannot then get into each other's way. Requests and answers are lines of JSON.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from speed_cases import Case, case_of, images_of

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ImportError:  # as the parent has found out, too
    torch = nn = functional = None

MISSING = torch is None
Run = Callable[[], float]


# --------------------------------------------------------------------------------------------------------- the network


def encoder_of(case: Case) -> Any:
    """Return a module `[B, C, H, W] -> [B, 2 latent]`."""
    height, width, channels = case.event_shape
    if not case.channels:
        return nn.Sequential(nn.Flatten(), *dense_layers(case, height * width * channels, case.hidden, 2 * case.latent))
    layers: list[Any] = []
    for after in case.channels:
        layers.append(nn.Conv2d(channels, after, case.kernel, 2, padding=1))
        layers += [Residual(after) for _ in range(case.blocks)] or [nn.ReLU()]
        channels, height, width = after, height // 2, width // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, 2 * case.latent))


def decoder_of(case: Case) -> Any:
    """Return a module `[B, latent] -> [B, C, H, W]`."""
    height, width, channels = case.event_shape
    if not case.channels:
        layers = dense_layers(case, case.latent, case.hidden[::-1], height * width * channels)
        return nn.Sequential(*layers, nn.Unflatten(1, (channels, height, width)))
    low = height >> len(case.channels), width >> len(case.channels)
    last = case.channels[-1]
    layers = [nn.Linear(case.latent, last * low[0] * low[1]), nn.Unflatten(1, (last, *low))]
    for before, after in pairwise([*case.channels[::-1], channels]):
        layers += [Residual(before) for _ in range(case.blocks)] or [nn.ReLU()]
        layers.append(nn.ConvTranspose2d(before, after, 4, 2, padding=1))
    return nn.Sequential(*layers)


def dense_layers(case: Case, inputs: int, hidden: tuple[int, ...], outputs: int) -> list[Any]:
    layers: list[Any] = []
    for size in hidden:
        layers += [Gated(inputs, size)] if case.gated else [nn.Linear(inputs, size), nn.ReLU()]
        inputs = size
    return [*layers, nn.Linear(inputs, outputs)]


Module: Any = nn.Module if nn is not None else object


class Gated(Module):
    """A dense layer times a sigmoid gate of the same input."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.gate, self.value = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

    def forward(self, x: Any) -> Any:
        return self.value(x) * torch.sigmoid(self.gate(x))


class Residual(Module):
    """x + f(x), f two convolutions, each after GroupNorm and swish."""

    def __init__(self, channels: int):
        super().__init__()
        parts = [
            part
            for _ in range(2)
            for part in (nn.GroupNorm(8, channels, eps=1e-6), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))
        ]
        self.parts = nn.Sequential(*parts)

    def forward(self, x: Any) -> Any:
        return x + self.parts(x)


class VAE(Module):
    """The network with its loss."""

    def __init__(self, case: Case):
        super().__init__()
        self.case, self.encoder, self.decoder = case, encoder_of(case), decoder_of(case)
        if not case.binary:
            self.log_scale = nn.Parameter(torch.zeros(()))

    def encode(self, x: Any) -> tuple[Any, Any]:
        mean, raw = self.encoder(x).chunk(2, dim=1)
        return mean, bounded(raw, *self.case.log_scale_range)

    def log_likelihood(self, out: Any, x: Any) -> Any:
        """Return log p(x|z), `[B]`."""
        if self.case.binary:
            terms = x * out - functional.softplus(out)
        else:
            log_scale = bounded(self.log_scale, -7.0, 2.0)
            terms = -0.5 * (((x - out) * torch.exp(-log_scale)) ** 2 + math.log(2 * math.pi)) - log_scale
        return terms.flatten(1).sum(dim=1)

    def forward(self, x: Any) -> Any:
        """Return the negative ELBO in nats, the mean over the batch."""
        mean, log_scale = self.encode(x)
        out = self.decoder(mean + torch.exp(log_scale) * torch.randn_like(mean))
        rate = 0.5 * (mean**2 + torch.expm1(2 * log_scale) - 2 * log_scale).sum(dim=1)
        return (rate - self.log_likelihood(out, x)).mean()


def bounded(raw: Any, low: float, high: float) -> Any:
    """Return a smooth map of the real line into (low, high)."""
    u = (raw - (low + high) / 2) / ((high - low) / 2)
    return (low + high) / 2 + (high - low) / 2 * u / torch.sqrt(1 + u * u)


# -------------------------------------------------------------------------------------------------------- the programs


def device() -> str:
    return "cuda" if torch.cuda.is_available() and os.environ.get("SPEED_BACKEND", "gpu") == "gpu" else "cpu"


def wait() -> None:
    if device() == "cuda":
        torch.cuda.synchronize()


def pixels(case: Case, count: int) -> Any:
    """Return images `[N, C, H, W]` in host memory."""
    return torch.from_numpy(images_of(case, count)).permute(0, 3, 1, 2).contiguous()


def training(case: Case, count: int, epochs: int, how: str) -> Run:
    """Return what trains some epochs and gives the mean loss of the last.

    Args:
      case: the network.
      count: images, which lie on the device unless a DataLoader brings them.
      epochs: at each call.
      how: "eager", "compile", "loader" or "graph": one CUDA graph of the whole step.
    """
    torch.manual_seed(0)
    model, batch, place = VAE(case).to(device()), case.batch, device()
    graphed = how == "graph"
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True, capturable=graphed)
    loss_of = torch.compile(model) if how == "compile" else model
    host = pixels(case, count)
    x = host if how == "loader" else host.to(place)

    def stepped(data: Any) -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(data)
        loss.backward()
        optimizer.step()
        return loss.detach()

    step: Callable[[Any], Any] = stepped
    if graphed:
        step = captured(stepped, x[:batch].clone(), optimizer)
    if how == "loader":
        dataset = torch.utils.data.TensorDataset(host)
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=batch, shuffle=True, drop_last=True, pin_memory=place == "cuda"
        )

    def batches() -> Iterator[Any]:
        if how == "loader":
            for (rows,) in loader:
                yield rows.to(place, non_blocking=True)
            return
        order = torch.randperm(count, device=place)
        for start in range(0, count // batch * batch, batch):
            yield x[order[start : start + batch]]

    def train() -> float:
        total = torch.zeros((), device=place)
        for _ in range(epochs):
            total.zero_()
            for data in batches():
                total += step(data)
        wait()
        return float(total) / (count // batch)

    return train


def captured(step: Callable[[Any], Any], fixed: Any, optimizer: Any) -> Callable[[Any], Any]:
    """Return a step replayed from a CUDA graph, after https://docs.pytorch.org/docs/stable/notes/cuda.html."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(fixed)
    torch.cuda.current_stream().wait_stream(side)
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(fixed)

    def replay(data: Any) -> Any:
        fixed.copy_(data)
        graph.replay()
        return loss

    return replay


def evaluation(case: Case, count: int) -> Run:
    """Return what gives the mean negative ELBO of all images."""
    torch.manual_seed(0)
    model, x = VAE(case).to(device()), pixels(case, count).to(device())

    def run() -> float:
        with torch.no_grad():
            return float(torch.stack([model(rows) for rows in x.split(256)]).mean())

    return run


def likelihood(case: Case, count: int, samples: int) -> Run:
    """Return what gives the mean negative log likelihood by importance weights, an image at a time."""
    torch.manual_seed(0)
    model, x = VAE(case).to(device()), pixels(case, count).to(device())

    def one(image: Any) -> Any:
        mean, log_scale = model.encode(image)
        noise = torch.randn(samples, case.latent, device=image.device)
        z = mean + torch.exp(log_scale) * noise
        log_ratio = (0.5 * (noise**2 - z**2) + log_scale).sum(dim=1)
        return torch.logsumexp(model.log_likelihood(model.decoder(z), image) + log_ratio, dim=0) - math.log(samples)

    def run() -> float:
        with torch.no_grad():
            return -float(torch.stack([one(image) for image in x.split(1)]).mean())

    return run


def sampling(case: Case, count: int) -> Run:
    """Return what draws codes from the prior and decodes them to means, and gives the first pixel."""
    torch.manual_seed(0)
    model = VAE(case).to(device())

    def run() -> float:
        with torch.no_grad():
            out = model.decoder(torch.randn(count, case.latent, device=device()))
            out = torch.sigmoid(out) if case.binary else out
            return float(out[0, 0, 0, 0])

    return run


MAKERS: dict[str, Callable[..., Run]] = {
    "training": training,
    "evaluation": evaluation,
    "likelihood": likelihood,
    "sampling": sampling,
}


# --------------------------------------------------------------------------------------------------------- the process


def peak_memory() -> int | None:
    """Return the most bytes that were in use on the device, `None` on a CPU."""
    return int(torch.cuda.max_memory_allocated()) if device() == "cuda" else None


def answer(request: dict[str, Any], made: dict[int, tuple[Run, bool]]) -> dict[str, Any]:
    """Return what was asked for: versions, a program that is made, or a turn of one, in seconds."""
    if MISSING:
        raise ImportError("PyTorch is not installed")
    if request["do"] == "hello":
        kind = torch.cuda.get_device_name() if device() == "cuda" else "cpu"
        return {"version": torch.__version__, "device": kind, "threads": torch.get_num_threads()}
    if request["do"] == "make":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = request["tf32"]
        case = case_of(request["case"])
        made[request["id"]] = MAKERS[request["maker"]](case, *request["arguments"]), request["tf32"]
        return {}
    if request["do"] == "forget":
        made.clear()
        if device() == "cuda":
            torch.cuda.empty_cache()
        return {}
    run, tf32 = made[request["id"]]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    began = time.perf_counter()
    value = run()
    wait()
    return {"seconds": time.perf_counter() - began, "value": value}


def serve() -> None:
    """Answer requests on standard input until it ends; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    made: dict[int, tuple[Run, bool]] = {}
    for line in sys.stdin:
        try:
            found = answer(json.loads(line), made)
        except Exception as error:  # every row may fail by itself
            said = [line for line in str(error).splitlines() if line.strip()]
            name = "" if MISSING else f"{type(error).__name__}: "
            found = {"reason": f"{name}{said[0].strip()[:300] if said else ''}"}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
