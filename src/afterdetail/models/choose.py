"""Which models repaint a request: options and picture size in, catalogue entries out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from afterdetail.errors import InvalidInput, ModelUnavailable
from afterdetail.models.catalogue import Catalogue, Kind, ModelSpec
from afterdetail.models.resolutions import NATIVE_AREA, RESOLUTIONS
from afterdetail.options import Base, DetailOptions
from afterdetail.prompts.windows import names_pattern
from afterdetail.types import Size


@dataclass(frozen=True, slots=True)
class LoraUse:
    """A LoRA and how much of it: any weight but 0."""

    spec: ModelSpec
    weight: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The models of one request. ``model`` is a base or a checkpoint; ``embeddings`` are those
    whose names stand in its prompts."""

    model: ModelSpec
    loras: frozenset[LoraUse] = frozenset()
    refiner: ModelSpec | None = None
    embeddings: tuple[ModelSpec, ...] = ()


def choose(options: DetailOptions, picture_size: Size, catalogue: Catalogue) -> Choice:
    """The models that the options name, and the base that suits a picture of ``picture_size``.

    The base is the one the options name; else that of their checkpoint; else, of those served, the
    one whose resolution list holds the picture (sdxl first), else the one nearest in native area.

    Raises:
        UnknownName: no checkpoint or LoRA of that name.
        InvalidInput: a checkpoint or LoRA of another base, or a refiner for sd15.
        ModelUnavailable: what is named is known, but not served.
    """
    served = catalogue.bases()
    checkpoint = _checkpoint(options, catalogue)
    loras = _loras(options, catalogue)
    base = options.inpainting_base_model or (checkpoint and checkpoint.base)
    base = base or suitable_base(picture_size, served)
    _check_same_base(base, checkpoint, loras)
    if options.use_refiner and base is Base.SD15:
        raise InvalidInput(
            "refiner_unsupported", "sd15 has no refiner; set use_refiner to false or use sdxl",
            field="use_refiner",
        )  # fmt: skip
    if base not in served:
        raise ModelUnavailable(
            f"{base} is not served here; served: {', '.join(served)}", field="inpainting_base_model"
        )
    model = checkpoint or served[base]
    _check_made_for(model, loras)
    return Choice(
        model=model,
        loras=frozenset(lora for lora in loras if lora.weight != 0),
        refiner=_refiner(model, catalogue) if options.use_refiner else None,
        embeddings=_embeddings(options, base, catalogue),
    )


def suitable_base(picture_size: Size, served: Iterable[Base]) -> Base:
    """Of the served bases, the one for a picture of this size.

    Raises:
        ModelUnavailable: none is served.
    """
    bases = sorted(served, key=list(Base).index)
    if not bases:
        raise ModelUnavailable(
            "no base model is served here; add a model of kind 'base' to the catalogue",
            field="inpainting_base_model",
        )
    holding = [base for base in bases if picture_size in RESOLUTIONS[base]]
    area = picture_size[0] * picture_size[1]
    nearest = min(bases, key=lambda base: abs(NATIVE_AREA[base] - area))
    return holding[0] if holding else nearest


def _checkpoint(options: DetailOptions, catalogue: Catalogue) -> ModelSpec | None:
    if options.checkpoint is None:
        return None
    return catalogue.find(Kind.CHECKPOINT, options.checkpoint, field="checkpoint")


def _loras(options: DetailOptions, catalogue: Catalogue) -> tuple[LoraUse, ...]:
    return tuple(
        LoraUse(catalogue.find(Kind.LORA, name, field="loras"), 1.0 if weight is None else weight)
        for name, weight in (options.loras or {}).items()
    )


def _refiner(model: ModelSpec, catalogue: Catalogue) -> ModelSpec:
    refiners = (s for s in catalogue.models if s.kind is Kind.REFINER and s.suits(model))
    refiner = next(refiners, None)
    if refiner is None:
        message = f"no refiner of {model.base} is served here; set use_refiner to false"
        raise ModelUnavailable(message, field="use_refiner")
    return refiner


def _embeddings(options: DetailOptions, base: Base, catalogue: Catalogue) -> tuple[ModelSpec, ...]:
    """Those of the base whose names stand in a prompt as words of their own."""
    by_name = {spec.name.lower(): spec for spec in catalogue.of(Kind.EMBEDDING, base)}
    if not by_name:
        return ()
    pattern = names_pattern(by_name)
    prompts = (options.prompt or "", options.negative_prompt or "")
    found = {name.lower() for prompt in prompts for name in pattern.findall(prompt)}
    return tuple(by_name[name] for name in sorted(found))


def _check_same_base(base: Base, checkpoint: ModelSpec | None, loras: Iterable[LoraUse]) -> None:
    if checkpoint is not None and checkpoint.base is not base:
        raise InvalidInput(
            "checkpoint_incompatible",
            f"checkpoint {checkpoint.name!r} is of {checkpoint.base}, the request of {base}",
            field="checkpoint",
        )
    for lora in loras:
        if lora.spec.base is not base:
            raise InvalidInput(
                "adapter_incompatible",
                f"LoRA {lora.spec.name!r} is of {lora.spec.base}, the request of {base}",
                field="loras",
            )


def _check_made_for(model: ModelSpec, loras: Iterable[LoraUse]) -> None:
    for lora in loras:
        if not lora.spec.suits(model):
            raise InvalidInput(
                "adapter_incompatible",
                f"LoRA {lora.spec.name!r} is made for {lora.spec.of}, the request is for"
                f" {model.name}",
                field="loras",
            )
