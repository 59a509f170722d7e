"""Starts the autoencoder as the best linear code of the crops, in closed form.

A convolutional autoencoder first spends thousands of steps on learning what principal components
give at once. Here its straight path (convolutions, shortcuts, resampling) is set to the code by
least squares, and every residual branch begins at zero; training then only adds what a linear code
cannot do.

Two things in the path are not linear, and are made so:

* The last normalisation divides by the picture's own contrast. Two constant channels, +LOUD and
  -LOUD, drown it, so that it divides by nearly the same number for every picture.
* ``silu(x) - silu(-x) = x``: signals travel in pairs of opposite sign through the last activation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional

LOUD = 256.0
SPREAD = 2.0
"""Root mean square of the latents' standard deviations: the betas of SD1.5 assume about this."""

RIDGE = 1e-5

Taps: TypeAlias = dict[tuple[int, int, int, int], float]
"""(output, input, row, column) of a convolution's kernel to its weight; the others are 0."""


@torch.no_grad()
def start_linear(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Sets ``vae`` (two halvings, ``norm_num_groups`` 1) to the linear code of ``pictures``.

    Args:
        pictures: ``(N, 3, H, W)``, -1..1; some hundred suffice.
    """
    for module in vae.modules():
        if hasattr(module, "conv2"):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    _set_encoder(vae, pictures)
    vae.post_quant_conv.weight.zero_()
    vae.post_quant_conv.weight[..., 0, 0] = torch.eye(vae.config.latent_channels)
    vae.post_quant_conv.bias.zero_()
    latents = torch.cat([_latents(vae, part) for part in torch.split(pictures, 16)])
    _set_decoder(vae, latents, pictures)


def components(pictures: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Principal components of 4 x 4 pixels, scaled to be latents.

    A component of great variance stays greater, by the square root: noise then covers details
    before it covers colours, and a repaint at low strength keeps what is coarse.

    Returns:
        ``(count, 48)``, to be applied to a patch laid out as ``pixel_unshuffle`` lays it, and the
        offset ``(count,)`` that centres the latents.
    """
    patches = functional.pixel_unshuffle(pictures, 4).permute(0, 2, 3, 1).reshape(-1, 48)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    values, vectors = values[-count:].flip(0), vectors[:, -count:].flip(1)
    spread = values**0.25
    spread = spread * SPREAD / spread.square().mean().sqrt()
    code = (vectors * (spread / values.sqrt())).T
    return code, -code @ patches.mean(0)


def _set_encoder(vae: AutoencoderKL, pictures: Tensor) -> None:
    encoder, count = vae.encoder, vae.config.latent_channels
    code, offset = components(pictures, count)
    _only(encoder.conv_in, {(channel, channel, 1, 1): 1.0 for channel in range(3)})
    halve = {
        (channel * 4 + down * 2 + right, channel, down, right): 1.0
        for channel in range(3)
        for down in range(2)
        for right in range(2)
    }
    _only(encoder.down_blocks[0].downsamplers[0].conv, halve)
    _only(encoder.down_blocks[1].resnets[0].conv_shortcut, _identity(12))
    _only(encoder.down_blocks[1].downsamplers[0].conv, {})
    # A patch of 4 x 4 is 2 x 2 patches of 2 x 2: rows (Y, y), columns (X, x).
    fine = code.view(count, 3, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(count, 12, 2, 2)
    encoder.down_blocks[1].downsamplers[0].conv.weight[:count, :12, :2, :2] = fine
    encoder.down_blocks[1].downsamplers[0].conv.bias[:count] = offset
    _pair(encoder.down_blocks[2].resnets[0].conv_shortcut, count)
    _drown(encoder.conv_norm_out, encoder.mid_block.resnets[-1], 2 * count)
    _only(encoder.conv_out, _unpair(count))
    _only(vae.quant_conv, _identity(count))


def _latents(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    moments: Tensor = vae.quant_conv(vae.encoder(pictures))
    return moments[:, : vae.config.latent_channels]


def _set_decoder(vae: AutoencoderKL, latents: Tensor, pictures: Tensor) -> None:
    """Level by level, each upsampling convolution is fitted to the picture at its size."""
    decoder, count = vae.decoder, vae.config.latent_channels
    _only(decoder.conv_in, _neighbours(count, decoder.conv_in.out_channels))
    near = functional.conv2d(latents, decoder.conv_in.weight, padding=1)
    half = _fit(decoder.up_blocks[0].upsamplers[0].conv, near, _half_size(pictures))
    _only(decoder.up_blocks[1].resnets[0].conv_shortcut, _identity(half.shape[1]))
    _fit(decoder.up_blocks[1].upsamplers[0].conv, half, pictures)
    _pair(decoder.up_blocks[2].resnets[0].conv_shortcut, 3)
    _drown(decoder.conv_norm_out, decoder.up_blocks[2].resnets[-1], 6)
    _only(decoder.conv_out, _unpair(3))


def _half_size(pictures: Tensor) -> Tensor:
    """Two grids of 2 x 2 patches, one pixel apart: ``(N, 24, H / 2, W / 2)``.

    Enlarging by repetition and a convolution cannot tell left from right in a lone patch; with the
    second grid it can.
    """
    beside = functional.pad(pictures, (0, 1, 0, 1), mode="replicate")[..., 1:, 1:]
    return torch.cat([functional.pixel_unshuffle(grid, 2) for grid in (pictures, beside)], 1)


def _fit(convolution: nn.Conv2d, below: Tensor, target: Tensor) -> Tensor:
    """Sets ``convolution``, after enlarging ``below``, to ``target`` by least squares.

    Returns:
        What it makes of ``below``: as many channels as ``target`` has.
    """
    rows = 9 * below.shape[1] + 1
    gram, moment = torch.zeros(rows, rows), torch.zeros(rows, target.shape[1])
    for source, wanted in zip(torch.split(below, 4), torch.split(target, 4), strict=True):
        inputs = functional.unfold(_enlarged(source), 3, padding=1)
        inputs = functional.pad(inputs.transpose(1, 2), (0, 1), value=1.0).reshape(-1, rows)
        gram += inputs.T @ inputs
        moment += inputs.T @ wanted.permute(0, 2, 3, 1).reshape(-1, target.shape[1])
    gram += RIDGE * gram.diagonal().mean() * torch.eye(rows)
    solution = torch.linalg.solve(gram, moment).T
    _only(convolution, {})
    kernel = solution[:, :-1].reshape(-1, below.shape[1], 3, 3)
    convolution.weight[: len(kernel), : below.shape[1]] = kernel
    assert convolution.bias is not None
    convolution.bias[: len(kernel)] = solution[:, -1]
    parts = [
        functional.conv2d(_enlarged(p), kernel, solution[:, -1], padding=1)
        for p in torch.split(below, 16)
    ]
    return torch.cat(parts)


def _enlarged(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")


def _neighbours(count: int, room: int) -> Taps:
    """Each latent, then its neighbours above, below and beside, then across, as far as they fit."""
    taps = [(1, 1), (0, 1), (1, 0), (1, 2), (2, 1), (0, 0), (0, 2), (2, 0), (2, 2)]
    places = [(channel, row, column) for row, column in taps for channel in range(count)]
    return {(index, *place): 1.0 for index, place in enumerate(places[:room])}


def _identity(count: int) -> Taps:
    return {(index, index, 0, 0): 1.0 for index in range(count)}


def _only(convolution: nn.Conv2d, taps: Taps) -> None:
    """Zero but for ``taps``."""
    nn.init.zeros_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    for place, weight in taps.items():
        convolution.weight[place] = weight


def _pair(shortcut: nn.Conv2d, count: int) -> None:
    """Signal i to channels 2 i and, negated, 2 i + 1."""
    _only(shortcut, {(2 * i + k, i, 0, 0): 1.0 - 2.0 * k for i in range(count) for k in range(2)})


def _unpair(count: int) -> Taps:
    return {(i, 2 * i + k, 1, 1): 1.0 - 2.0 * k for i in range(count) for k in range(2)}


def _drown(norm: nn.GroupNorm, below: ResnetBlock2D, first: int) -> None:
    """Adds the loud channels in ``below``, the block before ``norm``, and undoes their division.

    The norm itself silences them, so that nothing after it can learn from them.
    """
    below.conv2.bias[first : first + 2] = torch.tensor([LOUD, -LOUD])
    norm.weight.fill_(LOUD * (2 / norm.num_channels) ** 0.5)
    norm.weight[first : first + 2] = 0
    norm.bias.zero_()


def linear_encoder(vae: AutoencoderKL) -> Callable[[Tensor], Tensor]:
    """The encoder that ``start_linear`` builds, as the one convolution that it amounts to."""
    count, convolution = vae.config.latent_channels, vae.encoder.down_blocks[1].downsamplers[0].conv
    code = convolution.weight[:count, :12, :2, :2].detach().reshape(count, 3, 2, 2, 2, 2)
    kernel = code.permute(0, 1, 4, 2, 5, 3).reshape(count, 3, 4, 4)
    offset = convolution.bias[:count].detach()

    def encode(pictures: Tensor) -> Tensor:
        return functional.conv2d(pictures, kernel, offset, stride=4)

    return encode


def sample(crops: Path, count: int = 256) -> Tensor:
    """Training crops, evenly spread: float32 ``(count, 3, 128, 128)``, -1..1."""
    sharp = np.load(crops / "train-sharp.npy", mmap_mode="r")
    chosen = np.array(sharp[:: max(1, len(sharp) // count)][:count])
    return torch.from_numpy(chosen).permute(0, 3, 1, 2).float() / 127.5 - 1
