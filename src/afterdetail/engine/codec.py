"""Text and pictures to embeddings and latents, and back: batched, without knowing of jobs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from afterdetail.models.diffusion import DiffusionModel
from afterdetail.types import RGB, Gray


def to_tensor(image: RGB) -> torch.Tensor:
    """uint8 ``(H, W, 3)`` to float32 ``(1, 3, H, W)`` in -1..1."""
    scaled = torch.tensor(image).permute(2, 0, 1)[None].float()
    return scaled / 255.0 * 2.0 - 1.0


def to_mask(mask: Gray) -> torch.Tensor:
    """uint8 ``(H, W)`` to float32 ``(1, 1, H, W)``: 1 where the mask is at least half."""
    return torch.from_numpy((mask >= 128).astype(np.float32))[None, None]


def encode_pictures(
    model: DiffusionModel, pictures: Sequence[torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Mean and standard deviation of the latents of pictures of one size.

    Args:
        pictures: float32 ``(1, 3, H, W)`` each, -1..1.

    Returns:
        For each two float32 ``(1, C, h, w)`` on the model's device, before the scaling factor.
    """
    batch = torch.cat(list(pictures)).to(model.device, model.dtype)
    posterior = model.vae.encode(batch).latent_dist
    mean, std = posterior.mean.float(), posterior.std.float()
    return [(mean[i : i + 1], std[i : i + 1]) for i in range(len(pictures))]


def decode_latents(
    model: DiffusionModel, latents: Sequence[torch.Tensor], *, exact: bool = False
) -> list[torch.Tensor]:
    """Latents of one size to pictures.

    Args:
        exact: decode in float32 whatever the model's own precision: some autoencoders overflow in
            16 bit.

    Returns:
        For each float32 ``(3, H, W)`` on the CPU, nominally -1..1; not finite where it overflowed.
    """
    dtype = torch.float32 if exact else model.dtype
    vae = model.vae.to(dtype) if exact and model.dtype != dtype else model.vae
    try:
        batch = torch.cat(list(latents)).to(model.device, dtype) / model.scaling_factor
        return list(vae.decode(batch, return_dict=False)[0].float().cpu())
    finally:
        if vae.dtype != model.dtype:
            vae.to(model.dtype)


def to_pixels(picture: torch.Tensor) -> RGB:
    """float32 ``(3, H, W)`` in -1..1 to uint8 ``(H, W, 3)``, rounded as diffusers rounds."""
    unit = (picture / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
    rounded: RGB = (unit * 255).round().astype(np.uint8)
    return rounded
