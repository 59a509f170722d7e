"""The configuration of each network of a single-file checkpoint, read off its tensors' shapes.

The layout is that of the original Stable Diffusion code (CompVis, then generative-models), which
Civitai's files have too. Its configuration lies outside the file, but all of it that differs from
model to model shows in the weights; the rest (head sizes, activations) is the same for a base.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from afterdetail.models.header import Header, Shape, count
from afterdetail.options import Base

Config = dict[str, Any]
Shapes = Mapping[str, Shape]

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP_L = {
    Base.SD15: "cond_stage_model.transformer.text_model.",
    Base.SDXL: "conditioner.embedders.0.transformer.text_model.",
}
OPEN_CLIP = "conditioner.embedders.1.model."
OPEN_CLIP_OF_REFINER = "conditioner.embedders.0.model."

SCALING = {Base.SD15: 0.18215, Base.SDXL: 0.13025}
"""One over the standard deviation of each base's latents."""
HEADS = 8
"""Attention heads of SD 1.x, at every width."""
HEAD_WIDTH = 64
"""Width of an attention head of SDXL and of all the text encoders; their number grows instead."""
SIZE_NUMBERS = 6
"""Original size, crop and target size, two numbers each."""
REFINER_NUMBERS = 5
"""Original size, crop and aesthetic score."""


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a UNet: its width, and the transformer blocks after each resnet."""

    channels: int
    resnets: int
    depth: int


def input_channels(header: Header) -> int:
    """Of a UNet: 4 for latents, 9 with a mask and what it leaves."""
    return header.shapes[f"{UNET}input_blocks.0.0.weight"][1]


def unet_config(header: Header, base: Base) -> Config:
    """Of ``UNet2DConditionModel``."""
    shapes = header.under(UNET)
    levels = _levels(shapes)
    depths = [level.depth for level in levels]
    middle = count(shapes, "middle_block.1.transformer_blocks.")
    channels = [level.channels for level in levels]
    across = [bool(depth) for depth in depths]
    linear = base is Base.SDXL
    return {
        "in_channels": input_channels(header),
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": levels[0].resnets,
        "down_block_types": ["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in across],
        "up_block_types": ["CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in across[::-1]],
        "transformer_layers_per_block": [max(1, depth) for depth in depths[:-1]] + [middle],
        "attention_head_dim": [max(1, n // HEAD_WIDTH) for n in channels] if linear else HEADS,
        "cross_attention_dim": shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": linear,
        **(_added_config(header, shapes) if linear else {}),
    }


def _levels(shapes: Shapes) -> list[Level]:
    levels: list[Level] = []
    resnets: list[str] = []
    for number in range(1, count(shapes, "input_blocks.")):
        block = f"input_blocks.{number}."
        if f"{block}0.op.weight" in shapes:  # a downsampler ends a level
            levels.append(_level(shapes, resnets))
            resnets = []
        else:
            resnets.append(block)
    return [*levels, _level(shapes, resnets)]


def _level(shapes: Shapes, blocks: list[str]) -> Level:
    last = blocks[-1]
    depth = count(shapes, f"{last}1.transformer_blocks.")
    return Level(shapes[f"{last}0.out_layers.3.weight"][0], len(blocks), depth)


def _added_config(header: Header, shapes: Shapes) -> Config:
    """How SDXL takes the pooled text and the size numbers: side by side, each number embedded."""
    width = shapes["label_emb.0.0.weight"][1]
    refiner = header.has(OPEN_CLIP_OF_REFINER)
    prefix = OPEN_CLIP_OF_REFINER if refiner else OPEN_CLIP
    pooled = header.shapes[f"{prefix}text_projection"][1]
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (width - pooled)
        // (REFINER_NUMBERS if refiner else SIZE_NUMBERS),
        "projection_class_embeddings_input_dim": width,
    }


def vae_config(header: Header, base: Base) -> Config:
    """Of ``AutoencoderKL``."""
    shapes = header.under(VAE)
    levels = count(shapes, "encoder.down.")
    channels = [shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)]
    return {
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": count(shapes, "encoder.down.0.block."),
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "scaling_factor": SCALING[base],
    }


def clip_config(header: Header, prefix: str) -> Config:
    """Of ``CLIPTextConfig``: OpenAI's CLIP, the only encoder of SD 1.x and the first of SDXL."""
    shapes = header.under(prefix)
    words, width = shapes["embeddings.token_embedding.weight"]
    return _text_config(
        words,
        width,
        layers=count(shapes, "encoder.layers."),
        inner=shapes["encoder.layers.0.mlp.fc1.weight"][0],
        projected=width,
    )


def open_clip_config(header: Header, prefix: str) -> Config:
    """Of ``CLIPTextConfig`` with projection: OpenCLIP, the second encoder of SDXL."""
    shapes = header.under(prefix)
    words, width = shapes["token_embedding.weight"]
    config = _text_config(
        words,
        width,
        layers=count(shapes, "transformer.resblocks."),
        inner=shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        projected=shapes["text_projection"][1],
    )
    return {**config, "hidden_act": "gelu"}


def _text_config(words: int, width: int, *, layers: int, inner: int, projected: int) -> Config:
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "hidden_act": "quick_gelu",
        "projection_dim": projected,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 1,
    }
