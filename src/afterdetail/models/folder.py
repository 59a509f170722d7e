"""Loads Stable Diffusion 1.x and SDXL from a folder in the diffusers layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
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
from afterdetail.models.architecture import REFINER_NUMBERS
from afterdetail.models.catalogue import Kind
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.networks import Target, no_collection
from afterdetail.models.recognise import OTHERS, SERVED, Recognised, Unrecognised
from afterdetail.models.store import weights_of
from afterdetail.models.tensors import read_tensors
from afterdetail.models.told import as_told
from afterdetail.options import Base

Config = Mapping[str, Any]

PARTS = {
    Base.SD15: frozenset({"unet", "vae", "scheduler", "text_encoder", "tokenizer"}),
    Base.SDXL: frozenset({"unet", "vae", "scheduler", "text_encoder_2", "tokenizer_2"}),
}
"""What a folder must have. SDXL has the parts of SD 1.x too, its refiner has not."""
SCHEDULER_CONFIG = "scheduler_config.json"
WIDTH_OF_SD2 = 1024
"""Of the text that the UNet of Stable Diffusion 2 attends to, whose folders look like SD 1.x's."""
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
"""What is read into memory, where it is there; never a safety checker's 1.2 GB."""
FETCH = "fetch it again"


@dataclass(frozen=True, slots=True)
class Layout:
    """What a folder is, and those of its sub-folders that are read."""

    found: Recognised
    parts: frozenset[str]


@no_collection()
def load_folder(
    name: str,
    base: Base,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    vae: AutoencoderKL | None = None,
    *,
    kind: Kind | None = None,
) -> DiffusionModel:
    """Read the networks of ``folder`` into memory.

    Args:
        vae: takes the place of the folder's own.
        kind: what the folder must be; None: any whole model.

    Raises:
        WeightsError: it is of another architecture, base or kind, or a part is missing, damaged, or
            not safetensors.
    """
    layout = read_layout(name, base, folder, kind, with_vae=vae is None)
    try:
        return _read(name, layout, folder, Target(device, dtype), vae)
    except (WeightsError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise _damaged(name, folder, error, FETCH) from error


def read_layout(
    name: str,
    base: Base,
    folder: Path,
    kind: Kind | None,
    *,
    with_vae: bool = True,
    todo: str = FETCH,
) -> Layout:
    """What lies in a folder, by its settings and sub-folders; reads no weights.

    Args:
        kind: what it must be; None: any whole model.
        with_vae: it must bring its own autoencoder.
        todo: ends the message where something is missing or damaged.

    Raises:
        WeightsError: it is of another architecture, base or kind, or lacks settings or a part.
    """
    try:
        found = as_told(name, folder, base, kind, lambda: _recognise(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(name, folder, error, todo) from error
    parts = _needed_parts(found) - (frozenset() if with_vae else {"vae"})
    missing = sorted(part for part in parts if not (folder / part).is_dir())
    if missing:
        raise WeightsError(f"{name}: {folder} lacks {', '.join(missing)} of {base}; {todo}")
    return Layout(found, parts)


def _damaged(name: str, folder: Path, error: Exception, todo: str) -> WeightsError:
    reason = " ".join(str(error).split())[:200]
    return WeightsError(f"{name}: {folder} cannot be loaded ({reason}); {todo}")


def _recognise(folder: Path) -> Recognised:
    """The kind and base of a diffusers folder, by the settings of its UNet.

    Raises:
        Unrecognised: it is of another architecture.
        OSError, ValueError, KeyError, TypeError: its settings are missing or damaged.
    """
    if not (folder / "unet").is_dir():
        raise Unrecognised(f"it has no unet; {SERVED}")
    unet = _config(folder / "unet")
    if _has_own_noise(folder / "scheduler"):
        raise Unrecognised(f"it is {OTHERS['edm_']}; {SERVED}")
    if unet.get("addition_embed_type") == "text_time":
        return Recognised(_kind_of_sdxl(folder, unet), Base.SDXL)
    if unet.get("cross_attention_dim") == WIDTH_OF_SD2:
        raise Unrecognised(f"it is {OTHERS['cond_stage_model.model.']}; {SERVED}")
    return Recognised(Kind.CHECKPOINT, Base.SD15)


def _has_own_noise(scheduler: Path) -> bool:
    if not (scheduler / SCHEDULER_CONFIG).exists():
        return False
    return str(_config(scheduler, SCHEDULER_CONFIG).get("_class_name")).startswith("EDM")


def _kind_of_sdxl(folder: Path, unet: Config) -> Kind:
    """The refiner's UNet takes fewer numbers beside the pooled text."""
    numbers = unet["projection_class_embeddings_input_dim"] - _pooled_width(folder, unet)
    refiner = numbers == REFINER_NUMBERS * unet["addition_time_embed_dim"]
    return Kind.REFINER if refiner else Kind.CHECKPOINT


def _pooled_width(folder: Path, unet: Config) -> int:
    """What the second text encoder gives; where it is missing, the width of the text that is read.

    For SDXL's refiner, which reads that encoder alone, the two are the same: 1280.
    """
    encoder = folder / "text_encoder_2"
    width = _config(encoder)["projection_dim"] if encoder.is_dir() else unet["cross_attention_dim"]
    return int(width)


def _needed_parts(model: Recognised) -> frozenset[str]:
    """The sub-folders that such a model must have."""
    first = {"text_encoder", "tokenizer"} if model.kind is not Kind.REFINER else set()
    return PARTS[model.base] | first


def _read(
    name: str, layout: Layout, folder: Path, target: Target, vae: AutoencoderKL | None
) -> DiffusionModel:
    parts = layout.parts

    def text(part: str, cls: Any) -> Any:
        return _text_encoder(cls, folder / part, target) if part in parts else None

    def tokenizer(part: str) -> Any:
        path = str(folder / part)
        return CLIPTokenizer.from_pretrained(path, local_files_only=True) if part in parts else None

    model = DiffusionModel(
        name=name,
        base=layout.found.base,
        unet=network_in(folder / "unet", UNet2DConditionModel, target),
        vae=vae or network_in(folder / "vae", AutoencoderKL, target),
        text_encoder=text("text_encoder", CLIPTextModel),
        tokenizer=tokenizer("tokenizer"),
        text_encoder_2=text("text_encoder_2", CLIPTextModelWithProjection),
        tokenizer_2=tokenizer("tokenizer_2"),
        scheduler_config=_config(folder / "scheduler", SCHEDULER_CONFIG),
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


def _config(part: Path, file: str = "config.json") -> Config:
    config: Config = json.loads((part / file).read_text("utf-8"))
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
