"""The table of docs/models.md: gigabytes of weights on a small card, of networks of true size.

They are built without memory; what is there together is what the engine's ``Visiting`` brings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.true_sizes import AUTOENCODER, CLIP_L, OPEN_CLIP, REFINER_UNET, SD15_UNET, SDXL_UNET
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from afterdetail.engine.placement import TEXT, UNET, VAE
from afterdetail.models.networks import NoFirstValues

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HALF = torch.float16.itemsize
CARD = 8e9
PHASES = {
    "while it denoises": UNET,
    "while text is encoded": UNET + TEXT,
    "while a picture is encoded or decoded": UNET + VAE,
}
Sizes = Mapping[str, int]
"""Bytes of each network of a model, by its name in diffusers."""


def in_half(*networks: Any) -> Sizes:
    """Of a UNet, and of the text encoders from the last backwards; each has the same VAE."""
    vae = AutoencoderKL(**AUTOENCODER)
    named = dict(zip(UNET + TEXT, networks, strict=False)) | {"vae": vae}
    return {name: HALF * sum(p.numel() for p in net.parameters()) for name, net in named.items()}


@pytest.fixture(scope="module")
def models() -> Mapping[str, Sizes]:
    """By the columns of the table. A refiner has one text encoder, SDXL's second."""
    with torch.device("meta"), NoFirstValues():
        first = CLIPTextModel(CLIPTextConfig(**CLIP_L))
        second = CLIPTextModelWithProjection(CLIPTextConfig(**OPEN_CLIP))
        return {
            "SD 1.5": in_half(UNet2DConditionModel(**SD15_UNET), first),
            "SDXL": in_half(UNet2DConditionModel(**SDXL_UNET), first, second),
            "its refiner": in_half(UNet2DConditionModel(**REFINER_UNET), second),
        }


def together(sizes: Sizes, parts: tuple[str, ...]) -> int:
    return sum(sizes.get(part, 0) for part in parts)


@pytest.mark.parametrize("phase", PHASES)
def test_the_page_tells_what_is_on_the_card(models: Mapping[str, Sizes], phase: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"| on the card | {' | '.join(models)} |" in page
    line = re.search(rf"^\| {phase} \|(.*)\|$", page, re.MULTILINE)
    assert line, phase
    told = [float(cell.strip().removesuffix(" GB")) for cell in line[1].split("|")]
    computed = [together(sizes, PHASES[phase]) / 1e9 for sizes in models.values()]
    assert told == [round(gigabytes, 1) for gigabytes in computed]


def test_sdxl_and_its_refiner_leave_a_gigabyte_of_eight_for_the_work(
    models: Mapping[str, Sizes],
) -> None:
    """At the worst moment: a UNet stays until another comes, so the guests may be the other's."""
    pair = models["SDXL"], models["its refiner"]
    unet = max(together(sizes, UNET) for sizes in pair)
    guests = max(together(sizes, parts) for sizes in pair for parts in (TEXT, VAE))
    assert unet + guests < CARD - 1e9
    assert sum(sum(sizes.values()) for sizes in pair) > CARD  # all of both would not fit
