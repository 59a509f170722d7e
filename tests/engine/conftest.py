from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

import afterdetail
from afterdetail.engine.backend import Backend, EagerBackend
from afterdetail.engine.graphs import GraphBackend
from afterdetail.engine.openvino import OpenVINOBackend
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.folder import load_folder
from afterdetail.options import Base
from afterdetail.types import RGB, Gray

TINY = Path(afterdetail.__file__).parent / "models" / "tiny"
SIDE = 32
"""Pixels: small enough for hundreds of pictures in seconds, large enough for every layer."""

# Two threads on a busy machine wait for each other longer than they work.
torch.set_num_threads(1)


BACKENDS = ("eager", "openvino", "graphs")
"""Without a GPU ``graphs`` goes through its buckets and buffers, and records nothing."""


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every way to run the UNet, in turn; openvino is an extra."""
    match request.param:
        case "openvino":
            pytest.importorskip("openvino")
            return OpenVINOBackend()
        case "graphs":
            return GraphBackend()
        case _:
            return EagerBackend()


def load_tiny(dtype: torch.dtype = torch.float32) -> DiffusionModel:
    return load_folder("tiny", Base.SD15, TINY, torch.device("cpu"), dtype)


@pytest.fixture(scope="session")
def tiny() -> DiffusionModel:
    return load_tiny()


@pytest.fixture(scope="session")
def tiny_in() -> Callable[[torch.dtype], DiffusionModel]:
    """``tiny_in(torch.float16)``: an instance of its own in that precision."""
    return load_tiny


@pytest.fixture(scope="session")
def nine_channels(tiny: DiffusionModel) -> DiffusionModel:
    """A model of the layout made for inpainting: mask and masked latents go in as channels."""
    torch.manual_seed(0)
    layout = {"in_channels": 9, "block_out_channels": (16, 16, 32, 32), "norm_num_groups": 8}
    unet = UNet2DConditionModel.from_config({**tiny.unet.config, **layout}).eval()
    return DiffusionModel(
        name="nine",
        base=tiny.base,
        unet=unet.requires_grad_(False),
        vae=tiny.vae,
        text_encoder=tiny.text_encoder,
        tokenizer=tiny.tokenizer,
        scheduler_config=tiny.scheduler_config,
        device=tiny.device,
        dtype=tiny.dtype,
    )


@pytest.fixture(scope="session")
def face() -> RGB:
    photo = Path(__file__).parents[1] / "data" / "photos" / "skimage_astronaut.png"
    picture = Image.open(photo).convert("RGB").crop((170, 60, 280, 170))
    return np.asarray(picture.resize((SIDE, SIDE)))


@pytest.fixture(scope="session")
def oval() -> Gray:
    y, x = np.mgrid[:SIDE, :SIDE]
    inside = ((x - 15) / 9.0) ** 2 + ((y - 17) / 11.0) ** 2 <= 1
    return np.where(inside, 255, 0).astype(np.uint8)
