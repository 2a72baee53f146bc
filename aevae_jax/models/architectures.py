"""Architectures as values: a matching pair of encoder and decoder for any event shape.

Calling one gives the Linen modules, so a `VAE` value can build its networks wherever it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aevae_jax import limits
from aevae_jax.lazy import modules
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.models import networks
else:
    networks = modules("aevae_jax.models", "networks")

Outputs = int | tuple[int, ...]
"""How many numbers an encoder gives for an example; or the shape of a map of them, `(height, width, channels)`."""

Dtype = Literal["float32", "bfloat16"]
Upsampling = Literal["sub_pixel", "repeat"]
"""How a decoder doubles images: by convolutions of the small image, or by repetition of its pixels and convolutions of
the large one, as version 0.1 did, which takes several times the multiplications."""


Conditioning = Literal["maps", "film"]
"""How convolutions of a conditional model see what is known of an example: as maps, one number at all places, beside
the channels of the image; or by feature-wise linear modulation, a scale and a shift of each channel after each
convolution of stride 2, or before each doubling (`networks.FiLM`)."""


def _positive(sizes: tuple[int, ...], what: str, fewest: int = 0) -> None:
    limits.check_sizes(what, sizes)
    if len(sizes) < fewest:
        raise InputError(what, got=sizes, expected=f"at least {fewest} of them")


@dataclass(frozen=True)
class MLP:
    """Dense layers, the decoder's in reverse order. No hidden layers at all gives linear networks.

    Args:
      hidden: sizes of the encoder's hidden layers.
      gated: multiply every hidden layer by a learned sigmoid gate.
      dtype: type of the arithmetic; parameters, distributions and losses are float32 in any case.
    """

    hidden: tuple[int, ...] = (256, 256)
    gated: bool = False
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        _positive(self.hidden, "MLP hidden")

    def encoder(self, event_shape: tuple[int, ...], outputs: Outputs) -> Any:
        """Return a Linen module `[B, *event] -> [B, *outputs]`."""
        return networks.MLP(self.hidden, _shape(outputs), self.gated, self.dtype)

    def decoder(self, event_shape: tuple[int, ...], outputs: int) -> Any:
        """Return a Linen module `[B, *latent] -> [B, *event, outputs]`."""
        return networks.MLP(self.hidden[::-1], (*event_shape, outputs), self.gated, self.dtype)

    def beside(self, x: Array, known: Array) -> Array:
        """Return what its modules see of x `[B, ...]` and of what is known `[B, C]`: all numbers side by side."""
        return networks.beside(x.reshape(x.shape[0], -1), known)

    def joint(self, *shape: int) -> Any:
        """Return a Linen module `[B, ...], [B, ...] -> [B, *shape]`: what depends on two things."""
        return networks.JointMLP(self.hidden, shape, self.gated, self.dtype)

    def between(self, event_shape: tuple[int, ...], outputs: int) -> Any:
        """Return a Linen module `[B, codes] -> [B, outputs]`: what codes say of others."""
        return networks.MLP(self.hidden, (outputs,), self.gated, self.dtype)


def _image(event_shape: tuple[int, ...], what: str) -> None:
    if len(event_shape) != 3:
        raise InputError(f"{what} event shape", got=event_shape, expected="images [H, W, C]", hint="use MLP()")


def _shape(outputs: Outputs) -> tuple[int, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _check_map(outputs: Outputs, event_shape: tuple[int, ...], channels: tuple[int, ...], what: str) -> None:
    """Refuse a map of another height or width than convolutions of stride 2 make of images."""
    if not isinstance(outputs, tuple):
        return

    def size(strides: int) -> tuple[int, int]:
        return networks.halved((event_shape[0], event_shape[1]), strides)

    strides, given = len(channels), outputs[:-1]
    if len(outputs) == 3 and given == size(strides):
        return
    others = [n for n in range(1, 10) if given == size(n)][:1] or [strides - 1, strides + 1]
    raise InputError(
        "height and width of latent",
        got=given,
        expected=f"{size(strides)}, which {strides} strides make of {event_shape}",
        where=what,
        hint="; ".join(f"channels of {n} entries make {size(n)}" for n in others if n),
    )


@dataclass(frozen=True)
class Conv:
    """Convolutions of stride 2, one per entry of `channels`; the decoder mirrors them.

    Args:
      channels: of each convolution.
      dtype: type of the arithmetic; parameters, distributions and losses are float32 in any case.
      upsampling: how the decoder doubles images; "repeat" as in version 0.1, at several times the multiplications.
      conditioning: how a conditional model sees what it is told; of no use to others.
    """

    channels: tuple[int, ...] = (32, 64)
    dtype: Dtype = "float32"
    upsampling: Upsampling = "sub_pixel"
    conditioning: Conditioning = "maps"

    def __post_init__(self) -> None:
        _positive(self.channels, "Conv channels", fewest=1)

    def encoder(self, event_shape: tuple[int, ...], outputs: Outputs) -> Any:
        """Return a Linen module `[B, H, W, C] -> [B, *outputs]`; a map is that of the last convolution."""
        _image(event_shape, "Conv")
        _check_map(outputs, event_shape, self.channels, "Conv")
        return networks.ConvEncoder(self.channels, outputs, 0, self.dtype)

    def decoder(self, event_shape: tuple[int, ...], outputs: int) -> Any:
        """Return a Linen module `[B, *latent] -> [B, H, W, C, outputs]`."""
        _image(event_shape, "Conv")
        return networks.ConvDecoder(self.channels, event_shape, outputs, 0, self.dtype, self.upsampling == "repeat")

    def beside(self, x: Array, known: Array) -> Any:
        """Return what its modules see of x `[B, ..., D]` and what is known `[B, C]`: as channels `[B, ..., D + C]`, or
        a `networks.Beside` of both.
        """
        return networks.Beside(x, known) if self.conditioning == "film" else networks.beside(x, known)


@dataclass(frozen=True)
class ResidualConv:
    """`Conv` with `blocks` residual GroupNorm blocks after each change of scale."""

    channels: tuple[int, ...] = (32, 64)
    blocks: int = 1
    dtype: Dtype = "float32"
    upsampling: Upsampling = "sub_pixel"
    conditioning: Conditioning = "maps"

    def __post_init__(self) -> None:
        _positive(self.channels, "ResidualConv channels", fewest=1)
        _positive((self.blocks,), "ResidualConv blocks")

    def encoder(self, event_shape: tuple[int, ...], outputs: Outputs) -> Any:
        """Return a Linen module `[B, H, W, C] -> [B, *outputs]`; a map is that of the last convolution."""
        _image(event_shape, "ResidualConv")
        _check_map(outputs, event_shape, self.channels, "ResidualConv")
        return networks.ConvEncoder(self.channels, outputs, self.blocks, self.dtype)

    def decoder(self, event_shape: tuple[int, ...], outputs: int) -> Any:
        """Return a Linen module `[B, *latent] -> [B, H, W, C, outputs]`."""
        _image(event_shape, "ResidualConv")
        repeat = self.upsampling == "repeat"
        return networks.ConvDecoder(self.channels, event_shape, outputs, self.blocks, self.dtype, repeat)

    def beside(self, x: Array, known: Array) -> Any:
        """Return what its modules see of x `[B, ..., D]` and what is known `[B, C]`: as channels `[B, ..., D + C]`, or
        a `networks.Beside` of both.
        """
        return networks.Beside(x, known) if self.conditioning == "film" else networks.beside(x, known)


@dataclass(frozen=True)
class Mixer:
    """Patches of images, mixed across places and across channels in turn: dense layers that know what lies where.

    Codes stand at the places of the patches, channel after channel: of 28x28 pixels in patches of 4, the first 49 are
    one channel.

    Args:
      patch: height and width of a patch in pixels.
      width: channels at each place.
      blocks: how often both are mixed, in the encoder and in the decoder.
      dtype: type of the arithmetic; parameters, distributions and losses are float32 in any case.
    """

    patch: int = 4
    width: int = 64
    blocks: int = 2
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        for name in ("patch", "width", "blocks"):
            limits.check(f"Mixer {name}", getattr(self, name), 1)

    def encoder(self, event_shape: tuple[int, ...], outputs: Outputs) -> Any:
        """Return a Linen module `[B, H, W, C] -> [B, outputs]`."""
        _image(event_shape, "Mixer")
        if isinstance(outputs, tuple):
            raise InputError(
                "latent of a Mixer", got="a shape", expected="a number of codes", hint="use Conv() for maps"
            )
        return networks.MixerEncoder(self.patch, outputs, self.width, self.blocks, self.dtype)

    def decoder(self, event_shape: tuple[int, ...], outputs: int) -> Any:
        """Return a Linen module `[B, latent] -> [B, H, W, C, outputs]`."""
        _image(event_shape, "Mixer")
        return networks.MixerDecoder(self.patch, event_shape, outputs, self.width, self.blocks, self.dtype)

    def beside(self, x: Array, known: Array) -> Array:
        """Return what its modules see of x `[B, ..., D]` and what is known `[B, C]`, as channels: `[B, ..., D + C]`."""
        return networks.beside(x, known)

    def between(self, event_shape: tuple[int, ...], outputs: int) -> Any:
        """Return a Linen module `[B, codes] -> [B, outputs]`: what codes say of others at the same places."""
        _image(event_shape, "Mixer")
        places = networks.patches(event_shape, self.patch)
        return networks.Mixer(places[0] * places[1], outputs, self.width, 1, self.dtype)


@dataclass(frozen=True)
class Modules:
    """Your own pair of modules: anything with Linen's `init(key, x)` and `apply(variables, x)`.

    Args:
      encoder_module: `[B, *event] -> [B, 2 * latent]` for a VAE (means, then raw log scales), `[B, latent]` for an
        autoencoder; of a code that is a map `(h, w, c)`, `[B, h, w, 2 * c]` and `[B, h, w, c]`.
      decoder_module: `[B, *latent] -> [B, ...]` with as many numbers per example as the likelihood needs:
        the event's size times `likelihood.outputs`, the outputs of one element next to each other.
    """

    encoder_module: Any
    decoder_module: Any

    def __hash__(self) -> int:
        """Return a hash that equal modules share, though their fields may hold lists, which have none."""
        return hash((type(self.encoder_module), type(self.decoder_module)))

    def encoder(self, event_shape: tuple[int, ...], outputs: Outputs) -> Any:
        return self.encoder_module

    def decoder(self, event_shape: tuple[int, ...], outputs: int) -> Any:
        return self.decoder_module

    def beside(self, x: Array, known: Array) -> Array:
        """Return what its modules see of x `[B, ..., D]` and what is known `[B, C]`, as channels: `[B, ..., D + C]`."""
        return networks.beside(x, known)


Architecture = MLP | Conv | ResidualConv | Mixer | Modules
"""The architectures a run may name. `Modules` cannot be rebuilt from a file: pass the model to `load_run`."""
