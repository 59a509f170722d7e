"""Loads Stable Diffusion 1.x and SDXL from a folder in the diffusers layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from afterdetail.errors import WeightsError
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.networks import Target, no_collection
from afterdetail.models.store import weights_of
from afterdetail.models.tensors import read_tensors
from afterdetail.options import Base

PARTS = {
    Base.SD15: ("unet", "vae", "scheduler", "text_encoder", "tokenizer"),
    Base.SDXL: ("unet", "vae", "scheduler", "text_encoder_2", "tokenizer_2"),
}
"""What a folder must have. SDXL has the parts of SD 1.x too, its refiner has not."""
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
"""What is read into memory, where it is there; never a safety checker's 1.2 GB."""


@no_collection()
def load_folder(
    name: str,
    base: Base,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    vae: AutoencoderKL | None = None,
) -> DiffusionModel:
    """Read the networks of ``folder`` into memory.

    Args:
        vae: takes the place of the folder's own.

    Raises:
        WeightsError: a part is missing, damaged, or not safetensors.
    """
    wanted = [part for part in PARTS[base] if part != "vae" or vae is None]
    missing = [part for part in wanted if not (folder / part).is_dir()]
    if missing:
        raise WeightsError(f"{name}: {folder} lacks {', '.join(missing)} of {base}; fetch it again")
    if base is Base.SD15 and (folder / "text_encoder_2").is_dir():
        raise WeightsError(
            f"{name}: {folder} is of sdxl, the catalogue says sd15; mend the catalogue"
        )
    try:
        return _read(name, base, folder, Target(device, dtype), vae)
    except (WeightsError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise WeightsError(
            f"{name}: {folder} cannot be loaded ({' '.join(str(error).split())[:200]}); "
            "fetch it again"
        ) from error


def _read(
    name: str, base: Base, folder: Path, target: Target, vae: AutoencoderKL | None
) -> DiffusionModel:
    def text(part: str, cls: Any) -> Any:
        return _text_encoder(cls, folder / part, target) if (folder / part).is_dir() else None

    def tokenizer(part: str) -> Any:
        path = folder / part
        return (
            CLIPTokenizer.from_pretrained(str(path), local_files_only=True)
            if path.is_dir()
            else None
        )

    model = DiffusionModel(
        name=name,
        base=base,
        unet=network_in(folder / "unet", UNet2DConditionModel, target),
        vae=vae or network_in(folder / "vae", AutoencoderKL, target),
        text_encoder=text("text_encoder", CLIPTextModel),
        tokenizer=tokenizer("tokenizer"),
        text_encoder_2=text("text_encoder_2", CLIPTextModelWithProjection),
        tokenizer_2=tokenizer("tokenizer_2"),
        scheduler_config=_config(folder / "scheduler", "scheduler_config.json"),
        device=target.device,
        dtype=target.dtype,
    )
    _check_channels(model)
    return model


def _check_channels(model: DiffusionModel) -> None:
    """Raises ValueError for a UNet made for something else, such as following instructions."""
    given, latents = int(model.unet.config.in_channels), model.latent_channels
    if given not in (latents, 2 * latents + 1):
        raise ValueError(
            f"its UNet takes {given} channels; {latents} and, for inpainting, {2 * latents + 1} are"
            " served"
        )


def network_in(part: Path, cls: Any, target: Target) -> Any:
    """A network from its folder: ``config.json`` and weights as safetensors.

    Raises:
        WeightsError, OSError, ValueError, RuntimeError, KeyError: a file is missing or damaged.
    """
    return target.network(cls, _config(part), _tensors(part, target.dtype))


def _text_encoder(cls: Any, part: Path, target: Target) -> Any:
    return target.network(cls, CLIPTextConfig(**_config(part)), _tensors(part, target.dtype))


def _config(part: Path, file: str = "config.json") -> Mapping[str, Any]:
    config: Mapping[str, Any] = json.loads((part / file).read_text("utf-8"))
    return config


def _tensors(part: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    files = weights_in(part)
    if not files:
        raise ValueError(f"{part.name} has no .safetensors weights")
    return {name: tensor for file in files for name, tensor in read_tensors(file, dtype).items()}


def weights_in(part: Path) -> list[Path]:
    """The weights of one network; the half-precision files where there are any: half the bytes."""
    names = weights_of(path.name for path in part.iterdir())
    return [part / name for name in names if ".json" not in name]
