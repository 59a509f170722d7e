"""Measures the autoencoder's gate on held-out crops, sharp and degraded.

    python -m training.evaluate [--count 266] [--vae FOLDER]

The gate: at least 32 dB and at most 1/255 of mean colour error per channel.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training.autoencoder import as_tensor, decode, encode, load_autoencoder
from training.crops import CROPS

MIN_PSNR = 32.0
MAX_COLOUR_ERROR = 1.0


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Means over the crops: decibels, and |mean colour error| of R, G and B in 1/255."""

    psnr: float
    colour: tuple[float, float, float]

    @property
    def passes(self) -> bool:
        return self.psnr >= MIN_PSNR and max(self.colour) <= MAX_COLOUR_ERROR

    def __str__(self) -> str:
        red, green, blue = self.colour
        return f"{self.psnr:.2f} dB, colour error {red:.2f} {green:.2f} {blue:.2f} of 255"


@torch.no_grad()
def round_trip(vae: AutoencoderKL, pictures: Tensor) -> RoundTrip:
    """Encodes and decodes ``pictures``, ``(N, 3, H, W)``, -1..1, rounded to 8 bits as files are."""
    decibels, colours = [], []
    for part in torch.split(pictures, 8):
        made = decode(vae, encode(vae, part)).clamp(-1, 1)
        error = torch.round(made * 127.5 + 127.5) - torch.round(part * 127.5 + 127.5)
        squared = error.square().mean((1, 2, 3)).clamp_min(1e-9)
        decibels.append(10 * torch.log10(255**2 / squared))
        colours.append(error.mean((2, 3)).abs())
    red, green, blue = torch.cat(colours).mean(0).tolist()
    return RoundTrip(torch.cat(decibels).mean().item(), (red, green, blue))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=266)
    parser.add_argument("--vae", type=Path, help="in the diffusers layout; else the checkpoint")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.vae is None:
        vae = load_autoencoder()
    else:
        vae = AutoencoderKL.from_pretrained(given.vae, torch_dtype=torch.float32)
    for kind in ("sharp", "soft"):
        crops = np.load(CROPS / f"held-{kind}.npy", mmap_mode="r")[: given.count]
        print(f"{kind}: {round_trip(vae, as_tensor(crops))}")


if __name__ == "__main__":
    main()
