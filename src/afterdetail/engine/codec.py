"""Text and pictures to embeddings and latents, and back: batched, without knowing of jobs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from afterdetail.models.diffusion import DiffusionModel
from afterdetail.prompts.weights import parse
from afterdetail.prompts.windows import Window, windows
from afterdetail.types import RGB, Gray


def prompt_windows(model: DiffusionModel, prompt: str) -> tuple[Window, ...]:
    """The 77-token windows of a weighted prompt, at least one."""
    return windows(parse(prompt), model.tokenizer)


def encode_windows(
    model: DiffusionModel, prompts: Sequence[tuple[Window, ...]]
) -> list[torch.Tensor]:
    """Embeddings of several prompts in one forward of the text encoder.

    Returns:
        For each prompt float32 ``(1, 77 * windows, D)``, the windows one after the other.
    """
    flat = [window for prompt in prompts for window in prompt]
    ids = torch.tensor([window.ids for window in flat], device=model.device)
    hidden = model.text_encoder(ids, attention_mask=None)[0].float()
    parts = torch.split(hidden, [len(prompt) for prompt in prompts])
    return [_weighted(part, prompt) for part, prompt in zip(parts, prompts, strict=True)]


def _weighted(hidden: torch.Tensor, prompt: tuple[Window, ...]) -> torch.Tensor:
    """Each token times its weight, then the whole rescaled to the mean it had."""
    joined = hidden.reshape(1, -1, hidden.shape[-1])
    weights = torch.tensor([w for window in prompt for w in window.weights], device=hidden.device)
    if bool((weights == 1).all()):
        return joined
    scaled = joined * weights[None, :, None]
    mean = scaled.mean()
    return scaled * (joined.mean() / mean) if abs(float(mean)) > 1e-8 else scaled


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
