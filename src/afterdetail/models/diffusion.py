"""A diffusion model as the engine sees it: networks, tokenizer and noise schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from afterdetail.options import Base


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """Everything one base or checkpoint needs to repaint.

    Compared by identity: jobs share a forward only when they hold the same instance. The networks
    are in evaluation mode and never changed after loading. They are on ``device``, where they are
    run; where memory is low, they wait for that in host memory.

    SD 1.x has one text encoder, SDXL two, its refiner only the second.
    """

    name: str
    base: Base
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel | None
    tokenizer: CLIPTokenizer | None
    scheduler_config: Mapping[str, Any]
    device: torch.device
    dtype: torch.dtype
    text_encoder_2: CLIPTextModelWithProjection | None = None
    tokenizer_2: CLIPTokenizer | None = None
    clip_skip: int = 0
    """Layers of the text encoders left out at their end; other tools' "clip skip 2" is 1 here."""
    adapted: bool = False
    """Its UNet has LoRAs in it: one of many such sets, not worth seconds of compiling."""

    @cached_property
    def networks(self) -> dict[str, torch.nn.Module]:
        """Those that are there, by the names they have in diffusers."""
        all_of_them = {
            "unet": self.unet,
            "vae": self.vae,
            "text_encoder": self.text_encoder,
            "text_encoder_2": self.text_encoder_2,
        }
        return {name: network for name, network in all_of_them.items() if network is not None}

    @cached_property
    def storages(self) -> dict[int, int]:
        """Bytes of each piece of memory that the weights lie in, by its address."""
        tensors = (t for net in self.networks.values() for t in net.state_dict().values())
        pieces = (tensor.untyped_storage() for tensor in tensors)
        return {piece.data_ptr(): piece.nbytes() for piece in pieces}

    @cached_property
    def latent_factor(self) -> int:
        """Pixels of the picture to one of the latent, along each side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @cached_property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @cached_property
    def takes_mask(self) -> bool:
        """Whether mask and masked latents go in as channels (made for inpainting: 9 in all)."""
        return int(self.unet.config.in_channels) > self.latent_channels

    @property
    def is_refiner(self) -> bool:
        """SDXL's second stage: told the picture's beauty instead of its size."""
        return self.text_encoder is None

    @cached_property
    def scaling_factor(self) -> float:
        return float(self.vae.config.scaling_factor)
