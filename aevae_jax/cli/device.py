"""`--device`: which device JAX computes on, chosen before it is imported."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from aevae_jax import limits, suggestions
from aevae_jax.cli import programs
from aevae_jax.cli.terminal import begin
from aevae_jax.lazy import jax
from aevae_jax.types import InputError

_PLATFORMS = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "rocm": "rocm", "tpu": "tpu"}
"""What JAX calls them."""

_INSTALLED = {
    "cuda": 'pip install "jax[cuda13]"',
    "rocm": 'pip install "jax[rocm7-local]"',
    "tpu": 'pip install "jax[tpu]"',
}
"""What brings what JAX needs for one."""


@contextlib.contextmanager
def chosen(text: str) -> Iterator[None]:
    """Compute on a device in this context.

    Args:
      text: `cpu`, `gpu`, `cuda`, `rocm`, `tpu`, or one of several GPUs, such as `cuda:1`; empty for JAX's own choice.

    Raises:
      InputError: another text, or the device is not there.
    """
    if not text:
        yield
        return
    name, colon, number = text.lower().partition(":")
    platform = _PLATFORMS.get(name, "")
    numbered = platform in ("cuda", "rocm") and re.fullmatch(r"\d{1,3}", number)
    if not platform or (colon and not numbered):
        meant = f"--devices {text}" if text.isdigit() else suggestions.meant_by(name, list(_PLATFORMS))
        raise InputError(
            "--device",
            got=limits.shown(text),
            expected="cpu, gpu, tpu, or one GPU of several, such as cuda:1",
            hint=f"did you mean {meant if text.isdigit() else f'--device {meant}'}?" if meant else "",
        )
    options = {"jax_platforms": platform} | ({f"jax_{platform}_visible_devices": number} if colon else {})
    with programs.settings(**options):
        begin(f"starting JAX on {text}")
        _check(text, platform)
        yield


def _check(text: str, platform: str) -> None:
    """Refuse a device that JAX does not find."""
    try:
        there = {device.platform for device in jax.devices()}
    except Exception as error:  # JAX raises whatever its plugins do
        reason = " ".join(str(error).split())[:60] or "it knows none"
        there, got = set(), f"{text}, which JAX does not find ({reason})"
    else:
        got = f"{text} in a process that computes on {', '.join(sorted(there))}"
    if not there & {platform, "gpu" if platform in ("cuda", "rocm") else platform}:
        hint = "type --device cpu" + (f", or: {_INSTALLED[platform]}" if platform in _INSTALLED else "")
        raise InputError("--device", got=got, expected="a device that is there", hint=hint)
