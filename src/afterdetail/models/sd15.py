"""Loads Stable Diffusion 1.x weights in the diffusers folder layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from afterdetail.errors import WeightsError
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.options import Base

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def load_sd15(name: str, folder: Path, device: torch.device, dtype: torch.dtype) -> DiffusionModel:
    """Read the networks of ``folder`` into memory.

    Raises:
        WeightsError: a part is missing, damaged, or not safetensors.
    """
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise WeightsError(f"{name}: {folder} lacks {', '.join(missing)}; fetch it again")

    def network(cls: Any, part: str) -> Any:
        return _network(cls, folder / part, device, dtype)

    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))
        return DiffusionModel(
            name=name,
            base=Base.SD15,
            unet=network(UNet2DConditionModel, "unet"),
            vae=network(AutoencoderKL, "vae"),
            text_encoder=network(CLIPTextModel, "text_encoder"),
            tokenizer=tokenizer,
            scheduler_config=config,
            device=device,
            dtype=dtype,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise WeightsError(
            f"{name}: {folder} cannot be loaded ({_first_line(error)}); fetch it again"
        ) from error


def _network(cls: Any, part: Path, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """One network, from the half-precision file where there is one: half the bytes to read."""
    variant = "fp16" if any(part.glob("*.fp16.safetensors")) else None
    arguments: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    key = "dtype" if cls is CLIPTextModel else "torch_dtype"
    with _no_progress_bars():
        model = cls.from_pretrained(str(part), variant=variant, **{key: dtype}, **arguments)
    network: torch.nn.Module = model.to(device).eval().requires_grad_(False)
    return network


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Without transformers' bar for every file it reads: a server's log is no place for it."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
