"""Saves networks in the original Stable Diffusion layout: the way back from diffusers' names.

Written from the two sets of names alone, so that reading such a file back tests the reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch

Tensors = dict[str, torch.Tensor]
Rules = tuple[tuple[str, str], ...]

UNET_ENDS: Rules = (
    (r"^time_embedding\.linear_1", "time_embed.0"),
    (r"^time_embedding\.linear_2", "time_embed.2"),
    (r"^add_embedding\.linear_1", "label_emb.0.0"),
    (r"^add_embedding\.linear_2", "label_emb.0.2"),
    (r"^conv_in", "input_blocks.0.0"),
    (r"^conv_norm_out", "out.0"),
    (r"^conv_out", "out.2"),
    (r"^mid_block\.resnets\.0", "middle_block.0"),
    (r"^mid_block\.attentions\.0", "middle_block.1"),
    (r"^mid_block\.resnets\.1", "middle_block.2"),
)
UNET_RESNET: Rules = (
    (r"norm1", "in_layers.0"),
    (r"conv1", "in_layers.2"),
    (r"time_emb_proj", "emb_layers.1"),
    (r"norm2", "out_layers.0"),
    (r"conv2", "out_layers.3"),
    (r"conv_shortcut", "skip_connection"),
)
VAE_NAMES: Rules = (
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d+)\.resnets\.(\d+)", r"up.\1.block.\2"),
    (r"up_blocks\.(\d+)\.upsamplers\.0", r"up.\1.upsample"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
)
OPEN_CLIP_NAMES: Rules = (
    (r"^text_model\.", ""),
    (r"^embeddings\.token_embedding\.weight", "token_embedding.weight"),
    (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^final_layer_norm", "ln_final"),
    (r"^encoder\.layers", "transformer.resblocks"),
    (r"layer_norm([12])", r"ln_\1"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
    (r"self_attn\.out_proj", "attn.out_proj"),
)


def original_unet(unet: torch.nn.Module) -> Tensors:
    per_level = int(unet.config.layers_per_block) + 1  # type: ignore[union-attr, arg-type]
    names = list(unet.state_dict())
    return {
        f"model.diffusion_model.{unet_name(name, per_level, names)}": tensor
        for name, tensor in unet.state_dict().items()
    }


def unet_name(name: str, per_level: int, names: Iterable[str]) -> str:
    """Levels are not nested in the original: their parts are numbered through."""
    match = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
    if match is None:
        return _renamed(name, (*UNET_ENDS, *(UNET_RESNET if ".resnets." in name else ())))
    way, level, part, number, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    side = "input_blocks" if way == "down" else "output_blocks"
    first = level * per_level + (way == "down")
    if part == "resnets":
        return f"{side}.{first + number}.0.{_renamed(rest, UNET_RESNET)}"
    if part == "attentions":
        return f"{side}.{first + number}.1.{rest}"
    if part == "downsamplers":
        return f"{side}.{first + per_level - 1}.0.op.{rest.removeprefix('conv.')}"
    attends = any(other.startswith(f"up_blocks.{level}.attentions.") for other in names)
    return f"{side}.{first + per_level - 1}.{2 if attends else 1}.{rest}"


def original_vae(vae: torch.nn.Module) -> Tensors:
    levels = len(vae.config.block_out_channels)  # type: ignore[union-attr, arg-type]
    saved: Tensors = {}
    for name, tensor in vae.state_dict().items():
        renamed = re.sub(
            r"decoder\.up_blocks\.(\d+)",
            lambda found: f"decoder.up_blocks.{levels - 1 - int(found[1])}",
            name,
        )
        new = _renamed(renamed, VAE_NAMES)
        # The original's attention is made of 1x1 convolutions.
        is_convolution = re.search(r"mid\.attn_1\.(q|k|v|proj_out)\.weight", new)
        saved[f"first_stage_model.{new}"] = tensor[..., None, None] if is_convolution else tensor
    return saved


def original_clip(encoder: torch.nn.Module, prefix: str) -> Tensors:
    return {
        f"{prefix}text_model.{name.removeprefix('text_model.')}": tensor
        for name, tensor in encoder.state_dict().items()
    }


def original_open_clip(encoder: torch.nn.Module, prefix: str) -> Tensors:
    weights = encoder.state_dict()
    saved: Tensors = {}
    for name, tensor in weights.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue
        new = _renamed(name, OPEN_CLIP_NAMES)
        if ".q_proj." in name:  # query, key and value lie in one tensor
            joined = [
                weights[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")
            ]
            new = re.sub(r"self_attn\.q_proj\.(weight|bias)", r"attn.in_proj_\1", new)
            saved[prefix + new] = torch.cat(joined)
        elif name == "text_projection.weight":
            saved[f"{prefix}text_projection"] = tensor.T.contiguous()
        else:
            saved[prefix + new] = tensor
    return saved


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
