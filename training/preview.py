"""Shows what a run has learnt so far: held-out crops, degraded, repainted and true.

    python -m training.preview [--count 8] [--strength 0.4]

Prints PSNR inside the faces of the input, of one step and of a whole repaint, and writes
``build/training/preview.png``: those three and the truth, from top to bottom.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor
from torch.nn import functional

from training.autoencoder import as_tensor, decode, encode, load_autoencoder
from training.batches import inside
from training.crops import CROPS
from training.denoiser import Denoiser, empty_tokens, load_denoiser
from training.loss import new_scheduler

PICTURE = Path("build/training/preview.png")
STEPS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Crops ``(N, 3, H, W)``, -1..1; ``face`` ``(N, 1, H, W)`` is 1 inside the face's box."""

    sharp: Tensor
    soft: Tensor
    face: Tensor

    def psnr(self, made: Tensor) -> float:
        """Mean decibels inside the faces."""
        squared = (made.clamp(-1, 1) - self.sharp).square().mean(1, keepdim=True)
        means = (squared * self.face).sum((1, 2, 3)) / self.face.sum((1, 2, 3))
        return float((10 * torch.log10(4 / means)).mean())


def held_out(folder: Path, count: int) -> Faces:
    lines = (folder / "held.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    sharp, soft = (
        as_tensor(np.load(folder / f"held-{kind}.npy", mmap_mode="r")[:count])
        for kind in ("sharp", "soft")
    )
    small = torch.stack([inside(json.loads(line)["face"]) for line in lines])
    return Faces(sharp, soft, functional.interpolate(small, scale_factor=2.0))


@torch.no_grad()
def one_step(model: Denoiser, latents: Tensor, noise: Tensor, step: int) -> Tensor:
    """What the model takes for the truth at one noise level."""
    count = len(latents)
    level = new_scheduler().alphas_cumprod[step]
    noised = level.sqrt() * latents + (1 - level).sqrt() * noise
    words = empty_tokens().expand(count, -1)
    found = model(noised, torch.full((count,), step), words)
    clean: Tensor = (noised - (1 - level).sqrt() * found) / level.sqrt()
    return clean


@torch.no_grad()
def repaint(
    model: Denoiser, latents: Tensor, noise: Tensor, face: Tensor, strength: float
) -> Tensor:
    """DDIM; outside ``face`` ``(N, 1, h, w)`` the latents stay, as in inpainting."""
    scheduler, words = new_scheduler(), empty_tokens().expand(len(latents), -1)
    scheduler.set_timesteps(STEPS)
    steps = scheduler.timesteps[STEPS - max(1, int(STEPS * strength)) :]
    made: Tensor = scheduler.add_noise(latents, noise, steps[:1])
    for index, step in enumerate(steps):
        found = model(made, step.expand(len(latents)), words)
        made = scheduler.step(found, step, made).prev_sample
        after = steps[index + 1 : index + 2]
        around = scheduler.add_noise(latents, noise, after) if len(after) else latents
        made = face * made + (1 - face) * around
    return made


@torch.no_grad()
def preview(model: Denoiser, vae: AutoencoderKL, faces: Faces, strength: float) -> Image.Image:
    """The picture; prints the figures."""
    latents = encode(vae, faces.soft)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    small = functional.avg_pool2d(faces.face, 2)
    step = int(new_scheduler().config.num_train_timesteps * strength)
    once = decode(vae, one_step(model, latents, noise, step))
    whole = decode(vae, repaint(model, latents, noise, small, strength))
    for name, made in (("input", faces.soft), ("one step", once), ("repaint", whole)):
        print(f"{name}: {faces.psnr(made):.2f} dB")
    rows = [torch.cat([*kind], 2) for kind in (faces.soft, once, whole, faces.sharp)]
    sheet = (torch.cat(rows, 1).clamp(-1, 1) + 1) * 127.5
    return Image.fromarray(sheet.byte().permute(1, 2, 0).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--strength", type=float, default=0.4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    faces = held_out(CROPS, given.count)
    preview(load_denoiser(), load_autoencoder(), faces, given.strength).save(PICTURE)
    print(PICTURE)


if __name__ == "__main__":
    main()
