"""Trains the autoencoder: 128 px pictures to 64 px latents of 4 channels and back.

    python -m training.autoencoder [--steps 4000]
    python -m torch.distributed.run --nproc-per-node 2 -m training.autoencoder

The encoder is a linear code and stays as it begins (``training.linear_code``), so that the next
step can start beside this one; the decoder begins as the code's best inverse and is trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from afterdetail.types import RGB
from training.crops import CROPS
from training.linear_code import sample, start_linear
from training.loop import Plan, Run, options, prepare

CHECKPOINT = Path("build/training/autoencoder.pt")
POSTERIOR_STD = 0.011
"""Fixed: the latents carry the picture, not a distribution."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The autoencoder's size.

    Of 4 x 4 pixels the best linear code of 4 channels leaves 28.6 dB, of 2 x 2 pixels 36.0 dB. One
    group per normalisation: several forget the picture's mean colour.
    """

    widths: tuple[int, ...] = (16, 32)
    latents: int = 4
    groups: int = 1


def new_autoencoder(shape: Shape) -> AutoencoderKL:
    levels = len(shape.widths)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=shape.widths,
        layers_per_block=1,
        latent_channels=shape.latents,
        norm_num_groups=shape.groups,
        sample_size=128,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    fix_posterior(vae)
    return vae


@torch.no_grad()
def fix_posterior(vae: AutoencoderKL) -> None:
    """Makes the encoder's variance a constant."""
    half = vae.quant_conv.out_channels // 2
    vae.quant_conv.weight[half:] = 0
    vae.quant_conv.bias[half:] = 2 * math.log(POSTERIOR_STD)


def encode(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Pictures ``(B, 3, H, W)``, -1..1, to mean latents ``(B, C, H / 2, W / 2)``."""
    moments: Tensor = vae.quant_conv(vae.encoder(pictures))
    return moments[:, : moments.shape[1] // 2]


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    pictures: Tensor = vae.decoder(vae.post_quant_conv(latents))
    return pictures


def reconstruction_loss(truth: Tensor, made: Tensor) -> Tensor:
    """Squared and absolute error, plus colour, average colour and edges, each on its own."""
    error = made - truth
    luma = 0.299 * error[:, 0] + 0.587 * error[:, 1] + 0.114 * error[:, 2]
    chroma = torch.stack([0.564 * (error[:, 2] - luma), 0.713 * (error[:, 0] - luma)], 1)
    coarse = functional.avg_pool2d(error, 16)
    edges = luma.diff(dim=-1).abs().mean() + luma.diff(dim=-2).abs().mean()
    loss: Tensor = (
        10 * error.square().mean()
        + 0.5 * error.abs().mean()
        + chroma.abs().mean()
        + coarse.abs().mean()
        + 0.5 * edges
    )
    return loss


class Batches:
    """Windows of the crops, in colours that the portraits do not have on their own."""

    def __init__(self, folder: Path, size: int, window: int) -> None:
        self.sharp = np.load(folder / "train-sharp.npy", mmap_mode="r")
        self.soft = np.load(folder / "train-soft.npy", mmap_mode="r")
        self.size, self.window = size, window

    def draw(self, generator: torch.Generator) -> Tensor:
        """``(B, 3, window, window)``, -1..1; every fifth is a degraded one."""
        rows = [self._one(generator) for _ in range(self.size)]
        return torch.stack([recolour(picture, generator) for picture in as_tensor(np.stack(rows))])

    def _one(self, generator: torch.Generator) -> RGB:
        def below(limit: int) -> int:
            return int(torch.randint(limit, (), generator=generator))

        source = self.soft if below(5) == 0 else self.sharp
        index, room = below(len(source)), source.shape[1] - self.window + 1
        top, left = below(room), below(room)
        window = source[index, top : top + self.window, left : left + self.window]
        return np.asarray(window[:, ::-1] if below(2) else window)


def recolour(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the pictures as they are; the others with other gains, contrast and channels."""
    chance, gain, lift, order = torch.rand(4, generator=generator).tolist()
    if chance < 0.5:
        return picture
    if order < 0.3:
        picture = picture[torch.randperm(3, generator=generator)]
    tint = 1 + 0.15 * torch.randn(3, 1, 1, generator=generator)
    made: Tensor = picture * tint * (0.6 + 0.8 * gain) + 0.4 * (lift - 0.5)
    return made.clamp(-1, 1)


def as_tensor(pictures: RGB, device: str = "cpu") -> Tensor:
    """uint8 ``(N, H, W, 3)`` to float32 ``(N, 3, H, W)``, -1..1."""
    return torch.from_numpy(np.array(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def begin(shape: Shape, crops: Path, going_on: bool = False) -> AutoencoderKL:
    """The linear code of the training crops, or, ``going_on``, what a checkpoint will fill."""
    vae = new_autoencoder(shape)
    if not going_on:
        start_linear(vae, sample(crops))
        fix_posterior(vae)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    return vae


def load_autoencoder(checkpoint: Path = CHECKPOINT) -> AutoencoderKL:
    """The averaged weights of a run."""
    vae = new_autoencoder(Shape())
    vae.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    return vae.eval()


def decoder_loss(
    vae: AutoencoderKL, pictures: Tensor, generator: torch.Generator, noise: float = 0.05
) -> Tensor:
    """Of one batch; a little noise, as latents that a UNet made are never exact either."""
    with torch.no_grad():
        latents = encode(vae, pictures)
    latents = latents + noise * torch.randn(latents.shape, generator=generator)
    return reconstruction_loss(pictures, decode(vae, latents))


def main() -> None:
    parser = options(__doc__, steps=2500, batch=4, rate=1e-4)  # the louder the latents, the less
    parser.add_argument("--window", type=int, default=96)
    given = prepare(parser)
    vae = begin(Shape(), CROPS, CHECKPOINT.exists()).to(memory_format=torch.channels_last)
    run = Run(vae, Plan(given.steps, given.rate), CHECKPOINT, given.seed)
    batches = Batches(CROPS, given.batch, given.window)
    run.train(lambda generator: decoder_loss(vae, batches.draw(generator), generator))


if __name__ == "__main__":
    main()
