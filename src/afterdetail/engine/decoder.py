"""Finished latents to pixels, with a second try in float32 for autoencoders that overflow."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from afterdetail.engine import codec
from afterdetail.engine.job import Running
from afterdetail.engine.placement import VAE, Placement
from afterdetail.errors import AfterdetailError, InpaintFailed
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.types import RGB


def decode(batch: Sequence[Running], placement: Placement) -> list[RGB | AfterdetailError]:
    """The picture of each job, or its error; jobs of one model and one picture size."""
    model = placement.visiting(batch[0].job.model, VAE)
    pictures = codec.decode_latents(model, [running.latents for running in batch])
    pairs = zip(batch, pictures, strict=True)
    return [_checked(model, running, picture) for running, picture in pairs]


def _checked(
    model: DiffusionModel, running: Running, picture: torch.Tensor
) -> RGB | AfterdetailError:
    if _is_broken(picture) and model.dtype != torch.float32:
        picture = codec.decode_latents(model, [running.latents], exact=True)[0]
    if _is_broken(picture):
        return InpaintFailed("the model made an empty picture (not a number, or all black)")
    return codec.to_pixels(picture)


def _is_broken(picture: torch.Tensor) -> bool:
    return not bool(torch.isfinite(picture).all()) or bool((picture <= -1).all())
