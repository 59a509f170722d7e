"""Loads a checkpoint in one ``.safetensors`` file of the original layout (Civitai's files).

diffusers converts names and layouts; configurations are read off the weights' own shapes and the
tokenizer comes with this package, so nothing is ever fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from afterdetail.errors import WeightsError
from afterdetail.models import architecture
from afterdetail.models.catalogue import Kind
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.entries import Prediction
from afterdetail.models.header import Header, read_header, todays_key
from afterdetail.models.networks import Target, no_collection
from afterdetail.models.recognise import Recognised, recognise
from afterdetail.models.tensors import read_tensors
from afterdetail.models.tokenizer import PAD_OF_OPEN_CLIP, clip_tokenizer
from afterdetail.models.told import as_told
from afterdetail.options import Base

Tensors = dict[str, torch.Tensor]

SCHEDULE: Mapping[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "prediction_type": "epsilon",
}
"""The noise schedule of SD 1.x and SDXL alike (Rombach et al. 2022; Podell et al. 2023)."""


ZERO_SNR: Mapping[str, Any] = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
"""Of a schedule that ends without signal (Lin et al. 2024)."""

SERVED = (architecture.UNET, architecture.VAE, "cond_stage_model.", "conditioner.")
"""How the names of what is served begin; the rest are averages of training and the like."""


def is_served(name: str) -> bool:
    return name.startswith(SERVED)


@no_collection()
def load_single_file(
    name: str,
    base: Base,
    file: Path,
    device: torch.device,
    dtype: torch.dtype,
    vae: AutoencoderKL | None = None,
    *,
    kind: Kind | None = None,
    prediction: Prediction | None = None,
) -> DiffusionModel:
    """Read the networks of ``file`` into memory.

    Args:
        vae: takes the place of the file's own.
        kind: what the file must be; None: any whole model.
        prediction: what the UNet predicts, whatever the file says; None: what it says.

    Raises:
        WeightsError: the file is damaged, of another architecture, base or kind, or lacks a part.
    """
    header = read_header(file)
    found = as_told(name, file, base, kind, partial(recognise, header, with_vae=vae is None))
    try:
        tensors = read_tensors(file, dtype, is_served)
        weights = {todays_key(key): tensor for key, tensor in tensors.items()}
        told = schedule(header, prediction)
        return _Reader(name, header, weights, told, Target(device, dtype), vae).read(found)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{name}: {file} is not laid out like a {base} checkpoint "
            f"({' '.join(str(error).split())[:200]}); download it again, or the full version of it"
        ) from error


@dataclass(frozen=True, slots=True, eq=False)
class _Reader:
    """Makes the networks of one file."""

    name: str
    header: Header
    weights: Tensors
    schedule: Mapping[str, Any]
    target: Target
    vae: AutoencoderKL | None

    def read(self, found: Recognised) -> DiffusionModel:
        refiner, sdxl = found.kind is Kind.REFINER, found.base is Base.SDXL
        second = architecture.OPEN_CLIP_OF_REFINER if refiner else architecture.OPEN_CLIP
        return DiffusionModel(
            name=self.name,
            base=found.base,
            unet=self._unet(found.base),
            vae=self.vae or self._vae(found.base),
            text_encoder=None if refiner else self._clip(architecture.CLIP_L[found.base]),
            tokenizer=None if refiner else clip_tokenizer(),
            text_encoder_2=self._open_clip(second) if sdxl else None,
            tokenizer_2=clip_tokenizer(PAD_OF_OPEN_CLIP) if sdxl else None,
            scheduler_config=self.schedule,
            device=self.target.device,
            dtype=self.target.dtype,
        )

    def _unet(self, base: Base) -> UNet2DConditionModel:
        config = architecture.unet_config(self.header, base)
        tensors = convert_ldm_unet_checkpoint(self.weights, config)
        return self.target.network(UNet2DConditionModel, config, tensors)

    def _vae(self, base: Base) -> AutoencoderKL:
        config = architecture.vae_config(self.header, base)
        tensors = convert_ldm_vae_checkpoint(self.weights, config)
        return self.target.network(AutoencoderKL, config, tensors)

    def _clip(self, prefix: str) -> CLIPTextModel:
        config = CLIPTextConfig(**architecture.clip_config(self.header, prefix))
        tensors = convert_ldm_clip_checkpoint(self.weights)
        return self.target.network(CLIPTextModel, config, tensors)

    def _open_clip(self, prefix: str) -> CLIPTextModelWithProjection:
        config = CLIPTextConfig(**architecture.open_clip_config(self.header, prefix))
        with torch.device("meta"):
            layout = CLIPTextModelWithProjection(config)
        tensors = convert_open_clip_checkpoint(layout, self.weights, prefix=prefix)
        return self.target.network(CLIPTextModelWithProjection, config, tensors)


def schedule(header: Header, prediction: Prediction | None = None) -> Mapping[str, Any]:
    """The noise schedule a checkpoint was trained with.

    What predicts the velocity says so in its metadata (the model specification of Stability AI),
    or by an empty tensor ``v_pred``; a schedule that ends without signal (Lin et al. 2024) by one
    named ``ztsnr``. That one counts only where the velocity is predicted: without signal the noise
    alone tells nothing of the picture.

    Args:
        prediction: known from elsewhere; it goes before what the file says.
    """
    if (prediction or _prediction(header)) is Prediction.EPSILON:
        return SCHEDULE
    zero_snr = ZERO_SNR if "ztsnr" in header.shapes else {}
    return {**SCHEDULE, "prediction_type": str(Prediction.VELOCITY), **zero_snr}


def _prediction(header: Header) -> Prediction:
    said = header.metadata.get("modelspec.prediction_type", "")
    velocity = said.startswith("v") or "v_pred" in header.shapes
    return Prediction.VELOCITY if velocity else Prediction.EPSILON
