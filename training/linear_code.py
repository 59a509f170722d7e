"""Starts the autoencoder as a linear code of the crops with its best inverse, in closed form.

A convolutional autoencoder first spends thousands of steps on learning what least squares give at
once. Here its straight path (convolutions, shortcuts, resampling) is set to the code by
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

LOUD = 1024.0
SPREAD = (16.0, 10.0, 10.0, 4.0)
"""Standard deviations of the latents, that of luma first. What is coarse and bright is spread most,
so noise covers details before it covers tones.

The betas of SD1.5 are for faces painted 512 pixels wide. Of one of 128 the same noise hides details
that are four times as large a share of the face (Hoogeboom et al. 2023, simple diffusion), so its
latents must be about four times as loud for a strength to keep as much of a face.
"""

RIDGE = 1e-5

Taps: TypeAlias = dict[tuple[int, int, int, int], float]
"""(output, input, row, column) of a convolution's kernel to its weight; the others are 0."""


def patch_code() -> Tensor:
    """What is kept of 2 x 2 pixels: mean Y, U and V, and luma along one diagonal.

    Principal components would be worse: beside the means they keep one direction of luma, and lose
    the other. The diagonal's neighbours tell both.

    Returns:
        ``(4, 12)``, to be applied to a patch laid out as ``pixel_unshuffle`` lays it.
    """
    luma, blue, red = (0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081)
    mean, diagonal = (0.25,) * 4, (0.5, 0.0, 0.0, -0.5)
    pairs = ((luma, mean), (blue, mean), (red, mean), (luma, diagonal))
    return torch.stack([torch.outer(torch.tensor(c), torch.tensor(p)).flatten() for c, p in pairs])


@torch.no_grad()
def start_linear(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Sets ``vae`` (one halving, ``norm_num_groups`` 1) to the linear code and its best inverse.

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
    encode = linear_encoder(vae)
    latents = torch.cat([encode(part) for part in torch.split(pictures, 16)])
    _set_decoder(vae, latents, pictures)


def _set_encoder(vae: AutoencoderKL, pictures: Tensor) -> None:
    encoder, count = vae.encoder, vae.config.latent_channels
    patches = functional.pixel_unshuffle(pictures, 2).permute(0, 2, 3, 1).reshape(-1, 12)
    plain = patches @ patch_code().T
    code = patch_code() * (torch.tensor(SPREAD) / plain.std(0))[:, None]
    _only(encoder.conv_in, {(channel, channel, 1, 1): 1.0 for channel in range(3)})
    halve = encoder.down_blocks[0].downsamplers[0].conv
    _only(halve, {})
    halve.weight[:count, :3, :2, :2] = code.view(count, 3, 2, 2)
    halve.bias[:count] = -code @ patches.mean(0)
    _pair(encoder.down_blocks[1].resnets[0].conv_shortcut, count)
    _drown(encoder.conv_norm_out, encoder.mid_block.resnets[-1], 2 * count)
    _only(encoder.conv_out, _unpair(count))
    _only(vae.quant_conv, _identity(count))


def _set_decoder(vae: AutoencoderKL, latents: Tensor, pictures: Tensor) -> None:
    """The first convolution gathers neighbours, the upsampling one is fitted to the pictures."""
    decoder, count = vae.decoder, vae.config.latent_channels
    _only(decoder.conv_in, _neighbours(count, decoder.conv_in.out_channels))
    near = functional.conv2d(latents, decoder.conv_in.weight, padding=1)
    _fit(decoder.up_blocks[0].upsamplers[0].conv, near, pictures)
    _pair(decoder.up_blocks[1].resnets[0].conv_shortcut, 3)
    _drown(decoder.conv_norm_out, decoder.up_blocks[1].resnets[-1], 6)
    _only(decoder.conv_out, _unpair(3))


def _fit(convolution: nn.Conv2d, below: Tensor, target: Tensor) -> None:
    """Sets ``convolution``, after enlarging ``below``, to ``target`` by least squares."""
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
    count, halve = vae.config.latent_channels, vae.encoder.down_blocks[0].downsamplers[0].conv
    kernel, offset = halve.weight[:count, :3, :2, :2].detach(), halve.bias[:count].detach()

    def encode(pictures: Tensor) -> Tensor:
        return functional.conv2d(pictures, kernel, offset, stride=2)

    return encode


def linear_decoder(vae: AutoencoderKL) -> Callable[[Tensor], Tensor]:
    """The decoder that ``start_linear`` builds, as the two convolutions that it amounts to."""
    gather, fitted = vae.decoder.conv_in, vae.decoder.up_blocks[0].upsamplers[0].conv
    near, kernel, offset = (
        part.detach() for part in (gather.weight, fitted.weight[:3], fitted.bias[:3])
    )

    def decode(latents: Tensor) -> Tensor:
        gathered = functional.conv2d(latents, near, padding=1)
        return functional.conv2d(_enlarged(gathered), kernel, offset, padding=1)

    return decode


def sample(crops: Path, count: int = 256) -> Tensor:
    """Training crops, evenly spread: float32 ``(count, 3, 128, 128)``, -1..1."""
    sharp = np.load(crops / "train-sharp.npy", mmap_mode="r")
    chosen = np.array(sharp[:: max(1, len(sharp) // count)][:count])
    return torch.from_numpy(chosen).permute(0, 3, 1, 2).float() / 127.5 - 1
