"""The networks of a diffusers pipeline that somebody else has loaded, used where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from afterdetail.errors import InvalidInput
from afterdetail.models.catalogue import Catalogue, Kind, ModelSpec, Source, built_in
from afterdetail.models.choose import LoraUse
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.loader import ModelPool
from afterdetail.models.lora import with_loras
from afterdetail.options import Base
from afterdetail.types import Size

NAME = "pipe"
"""Of the model in the catalogue."""


def model_of(pipe: Any) -> DiffusionModel:
    """The model that a ``StableDiffusionPipeline`` or ``StableDiffusionXLPipeline`` is made of.

    Nothing is copied, moved or changed: networks, tokenizers and the noise schedule are the pipe's.
    Its sampler is not: each request names one.

    Raises:
        InvalidInput: it is of another kind, its networks are of several precisions, or it moves
            them between devices by itself.
    """
    if not (
        isinstance(getattr(pipe, "unet", None), UNet2DConditionModel)
        and isinstance(getattr(pipe, "vae", None), AutoencoderKL)
        and isinstance(getattr(pipe, "text_encoder", None), CLIPTextModel)
    ):
        raise _unfit(f"{type(pipe).__name__} is no pipeline of Stable Diffusion 1.x or SDXL")
    second = getattr(pipe, "text_encoder_2", None)
    model = DiffusionModel(
        name=NAME,
        base=Base.SD15 if second is None else Base.SDXL,
        unet=pipe.unet,
        vae=pipe.vae,
        text_encoder=pipe.text_encoder,
        tokenizer=pipe.tokenizer,
        scheduler_config=dict(pipe.scheduler.config),
        device=pipe.unet.device,
        dtype=pipe.unet.dtype,
        text_encoder_2=second,
        tokenizer_2=getattr(pipe, "tokenizer_2", None),
    )
    _check(model)
    return model


def _check(model: DiffusionModel) -> None:
    """The engine runs a model on one device, in one precision, and leaves it where it is."""
    for name, network in model.networks.items():
        if any(hasattr(module, "_hf_hook") for module in network.modules()):
            raise _unfit(f"its {name} is offloaded; load the pipe without offloading")
        parameter = next(network.parameters())
        if parameter.device.type == "meta" or parameter.device != model.device:
            raise _unfit(f"its {name} is on {parameter.device}, its unet on {model.device}")
        if parameter.dtype != model.dtype:
            raise _unfit(f"its {name} is {parameter.dtype}, its unet {model.dtype}; make them one")
        if network.training:
            raise _unfit(f"its {name} is in training mode; call pipe.{name}.eval()")


def _unfit(problem: str) -> InvalidInput:
    return InvalidInput("pipe_unfit", f"the pipe cannot be used: {problem}", field="pipe")


def catalogue_of(model: DiffusionModel, sizes: Sequence[Size] = ()) -> Catalogue:
    """The built-in detectors, and the model as the one base served.

    Args:
        sizes: what it repaints at, width and height; none: those of the built-in base of its kind,
            or the one it was trained at, where that is smaller.
    """
    own = tuple(sizes) or _usual_sizes(model)
    spec = ModelSpec(NAME, Kind.BASE, Source(path=NAME), base=model.base, sizes=own)
    detectors = (spec for spec in built_in().models if spec.kind is Kind.DETECTOR)
    return Catalogue((spec, *detectors))


def _usual_sizes(model: DiffusionModel) -> tuple[Size, ...]:
    usual = built_in().find(Kind.BASE, model.base).sizes
    trained = model.unet.config.sample_size
    if not isinstance(trained, int):  # some configurations do not say
        return usual
    side = trained * model.latent_factor
    return usual if side >= max(min(size) for size in usual) else ((side, side),)


class PipePool(ModelPool):
    """Hands out one model that is there already, with LoRAs or without."""

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__(model.device)
        self.dtype: torch.dtype = model.dtype
        self._model = model

    def get(self, spec: ModelSpec, loras: frozenset[LoraUse] = frozenset()) -> DiffusionModel:
        """See :class:`~afterdetail.models.loader.ModelPool`; whatever the entry, it is this one."""
        if not loras:
            return self._model
        return self._held((spec, loras), lambda: with_loras(self._model, loras))
