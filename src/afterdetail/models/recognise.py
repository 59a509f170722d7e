"""What a weights file is, told from the names and shapes in its header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from afterdetail.models.architecture import (
    CLIP_L,
    OPEN_CLIP,
    OPEN_CLIP_OF_REFINER,
    UNET,
    VAE,
    input_channels,
)
from afterdetail.models.catalogue import Kind
from afterdetail.models.header import Header
from afterdetail.options import Base

SERVED = "only Stable Diffusion 1.x and SDXL are served"
OTHERS = {
    "cond_stage_model.model.": "a Stable Diffusion 2 checkpoint",
    "double_blocks.": "a Flux checkpoint",
    "model.diffusion_model.double_blocks.": "a Flux checkpoint",
    "joint_blocks.": "a Stable Diffusion 3 checkpoint",
    "model.diffusion_model.joint_blocks.": "a Stable Diffusion 3 checkpoint",
    "control_model.": "a ControlNet",
    "edm_": "a checkpoint with a noise schedule of its own (Playground 2.5, CosXL)",
}
"""What else people have: known by the first part of a tensor's name."""
CHANNELS = (4, 9)
"""What goes into a UNet: the latents or, made for inpainting, mask and masked latents too."""
OTHER_ADAPTERS = {
    "dora_scale": "a DoRA",
    "lora_magnitude": "a DoRA",
    "hada_w": "a LoHa",
    "lokr_": "a LoKr",
    "oft_blocks": "an OFT",
    "oft_diag": "an OFT",
    ".on_input": "an (IA)3",
    "lora_mid": "a LoCon in Tucker's form",
    ".diff": "an adapter of whole differences",
    "bundle_emb.": "a LoRA with embeddings in it",
    "base_model.model.": "peft's own adapter, without its scale (save it with diffusers)",
}
"""Adapters that are more than a product of two matrices: known by a part of a tensor's name."""
ADAPTER_MARKS = (
    ".lora_down.weight",
    ".lora_A.weight",
    ".lora.down.weight",
    "_lora.down.weight",
    ".lora_linear_layer.down.weight",
)
CONTEXT_WIDTHS = {768: Base.SD15, 2048: Base.SDXL}
"""Width of the text that each base's UNet attends to."""
PLACES = {
    Base.SDXL: re.compile(
        r"transformer_blocks[._][1-9]|up_blocks[._]0[._]attentions|add_embedding|label_emb"
        r"|lora_te[12]_|text_encoder_2[._]"
    ),
    Base.SD15: re.compile(
        r"down_blocks[._](0[._]attentions|3)|up_blocks[._](2[._]attentions|3)"
        r"|input_blocks[._]([12][._]1|9|10|11)[._]|output_blocks[._](9|10|11)[._]"
    ),
}
"""Layers that one base has and the other has not, in the layouts of diffusers and of kohya: SDXL
has no attention at its first level, no fourth level, and several transformer blocks at a place."""
KOHYA_XL = re.compile(r"lora_unet_(input|middle|output)_blocks?_")
"""kohya's scripts name layers like the original code for SDXL, like diffusers for SD 1.x."""
POOLED_WIDTH = 1280
"""Of SDXL's second text encoder."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """A file's place in a catalogue."""

    kind: Kind
    base: Base


class Unrecognised(Exception):
    """The header is of nothing that is served; the text says of what, if that is known."""


def recognise(header: Header, *, with_vae: bool = True) -> Recognised:
    """The kind and base of a file.

    Args:
        with_vae: a checkpoint must bring its own autoencoder.

    Raises:
        Unrecognised: it is of another architecture, or a part of a model only.
    """
    if header.has(f"{UNET}input_blocks."):
        return _checkpoint(header, with_vae=with_vae)
    for prefix, name in OTHERS.items():
        if header.has(prefix):
            raise Unrecognised(f"it is {name}; {SERVED}")
    if is_autoencoder(header):
        raise Unrecognised(
            "it is an autoencoder alone; write an entry of kind 'vae' and name it as a model's vae"
        )
    check_adapter(header)
    if any(name.endswith(ADAPTER_MARKS) for name in header.shapes):
        return Recognised(Kind.LORA, _base_of_lora(header))
    if header.has("down_blocks."):
        raise Unrecognised("it is a UNet alone; get the full checkpoint, or the whole folder")
    return Recognised(Kind.EMBEDDING, _base_of_embedding(header))


def is_autoencoder(header: Header) -> bool:
    """Whether there is one in it, by itself or among others, in either layout."""
    return header.has("encoder.conv_in.") or header.has(f"{VAE}encoder.")


def check_adapter(header: Header) -> None:
    """Raises :class:`Unrecognised` for an adapter that is no plain LoRA."""
    for mark, kind in OTHER_ADAPTERS.items():
        if any(mark in name for name in header.shapes):
            raise Unrecognised(f"it is {kind}; of adapters only plain LoRA is served")


def _checkpoint(header: Header, *, with_vae: bool) -> Recognised:
    for prefix, name in OTHERS.items():
        if header.has(prefix):
            raise Unrecognised(f"it is {name}; {SERVED}")
    if with_vae and not header.has(VAE):
        raise Unrecognised(
            "it has no autoencoder (first_stage_model); get the full checkpoint, or write an entry "
            "that names one as its vae"
        )
    if input_channels(header) not in CHANNELS:
        raise Unrecognised(
            f"its UNet takes {input_channels(header)} channels (4 and, for inpainting, 9 are "
            "served); get another checkpoint"
        )
    if header.has(OPEN_CLIP):
        return Recognised(Kind.CHECKPOINT, Base.SDXL)
    if header.has(OPEN_CLIP_OF_REFINER):
        return Recognised(Kind.REFINER, Base.SDXL)
    if header.has(CLIP_L[Base.SD15]):
        return Recognised(Kind.CHECKPOINT, Base.SD15)
    raise Unrecognised("it has no text encoder that is known; get the full checkpoint")


def _base_of_lora(header: Header) -> Base:
    """By the width of the text that its cross-attention reads, else by the layers it changes, else
    by what its metadata or its names say; SD 1.x where nothing tells."""
    widths = {
        shape[1]
        for name, shape in header.shapes.items()
        if re.search(r"attn2.*to_[kv]", name) and _goes_in(name) and len(shape) > 1
    }
    bases = _known(widths)
    if len(bases) == 1:
        return bases.pop()
    if widths:
        raise Unrecognised(f"it is a LoRA for text of width {max(widths)}; {SERVED}")
    for base, places in PLACES.items():
        if any(map(places.search, header.shapes)):
            return base
    return _told_base(header)


def _told_base(header: Header) -> Base:
    version = header.metadata.get("ss_base_model_version") or header.metadata.get(
        "modelspec.architecture", ""
    )
    if version:
        xl = version.startswith(("sdxl", "stable-diffusion-xl"))
    else:
        xl = any(map(KOHYA_XL.match, header.shapes))
    return Base.SDXL if xl else Base.SD15


def _goes_in(name: str) -> bool:
    return name.endswith(ADAPTER_MARKS)


def _base_of_embedding(header: Header) -> Base:
    """Vectors of the text encoders' input: one tensor for SD 1.x, one for each encoder of SDXL."""
    widths = {shape[-1] for shape in header.shapes.values() if shape}
    if widths == {768, POOLED_WIDTH}:
        return Base.SDXL
    if widths == {768} and len(header.shapes) == 1:
        return Base.SD15
    raise Unrecognised(f"it is neither a checkpoint, a LoRA nor an embedding; {SERVED}")


def _known(widths: Iterable[int]) -> set[Base]:
    return {CONTEXT_WIDTHS[width] for width in widths if width in CONTEXT_WIDTHS}
