"""Begins a wider UNet with what a narrower one knows (Net2Wider, Chen et al. 2016).

Each channel that is new copies one of its group's, so that normalisation by groups finds nearly
what it found. What reads a channel and its copies reads them with weights whose sum is the old one,
but which differ, so that they grow apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

APART = 0.5
"""How far the weights by which copies are read differ, as a share of the old weights' spread."""


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """Channels that another UNet has of a level's ``of``: ``chosen`` ``(n,)``, perhaps repeated."""

    chosen: Tensor
    of: int

    def __add__(self, beside: Self) -> Self:
        """Those of both, joined as an up block joins its state, this one, and a skip."""
        joined = torch.cat([self.chosen, beside.chosen + self.of])
        return type(self)(joined, self.of + beside.of)


@torch.no_grad()
def widen(unet: UNet2DConditionModel, source: UNet2DConditionModel) -> None:
    """Copies ``source`` into a UNet of which levels without attention may be wider.

    Then both do nearly the same: a level's and a skip's channels, joined, may be normalised in
    other groups than before.

    Raises:
        ValueError: a level is narrower than the source's, or wider and has attention.
    """
    widths = zip(source.config.block_out_channels, unet.config.block_out_channels, strict=True)
    groups = unet.config.norm_num_groups
    levels = [Channels(copies(before, after, groups), before) for before, after in widths]
    given = source.state_dict()
    for name, own in unet.state_dict().items():
        value = given[name]
        if name == "time_embedding.linear_1.weight":
            value = _between(value, own.shape[1])
        value = mapped(name, value, levels)
        if value.shape != own.shape:
            raise ValueError(f"{name} is {tuple(value.shape)}, not {tuple(own.shape)}")
        own.copy_(value)


def copies(before: int, after: int, groups: int) -> Tensor:
    """Which of ``before`` channels each of ``after`` copies, ``(after,)``, group by group."""
    if after < before or before % groups or after % groups:
        raise ValueError(f"{before} channels cannot become {after} in {groups} groups")
    small, large = before // groups, after // groups
    within = torch.arange(large).remainder(small).sort().values
    return (torch.arange(groups)[:, None] * small + within).flatten()


def mapped(name: str, value: Tensor, levels: Sequence[Channels]) -> Tensor:
    """A UNet's tensor for another that has these channels of its levels, attention apart.

    Those that are not chosen are not read.
    """
    written, read = _channels(name.split("."), levels)
    if value.ndim > 1 and read is not None:
        value = _read(value, read.chosen)
    elif value.ndim == 1 and "norm" in name:
        written = read
    return value if written is None else value[written.chosen]


def _channels(
    parts: list[str], levels: Sequence[Channels]
) -> tuple[Channels | None, Channels | None]:
    """Which channels a layer writes and reads; None: all of them, as they are."""
    if parts[0] == "conv_in":
        return levels[0], None
    if parts[0] in ("conv_norm_out", "conv_out"):
        return None, levels[0]
    if parts[0] not in ("down_blocks", "up_blocks") or parts[2] == "attentions":
        return None, None
    down, layer = parts[0] == "down_blocks", int(parts[3])
    level = int(parts[1]) if down else len(levels) - 1 - int(parts[1])
    kind, own = parts[4], levels[level]
    if kind == "time_emb_proj":
        return own, None
    if kind not in ("norm1", "conv1", "conv_shortcut"):
        return own, own
    inner, outer = levels[min(level + 1, len(levels) - 1)], levels[max(level - 1, 0)]
    if down:
        return own, outer if layer == 0 else own
    return own, inner + own if layer == 0 else own + outer  # of one layer a level


def _read(weight: Tensor, channels: Tensor) -> Tensor:
    """``(O, I, ...)`` for ``channels``, copies of I: what is read of a channel's copies adds up."""
    shares = 1 / torch.bincount(channels, minlength=weight.shape[1])[channels]
    shares = shares.view(1, -1, *(1,) * (weight.ndim - 2))
    noise = APART * weight.std() * torch.randn(weight[:, channels].shape)
    total = torch.zeros_like(weight).index_add_(1, channels, noise)
    return weight[:, channels] * shares + (noise - total[:, channels] * shares)


def _between(weight: Tensor, wide: int) -> Tensor:
    """Of the layer that reads sines and cosines: frequencies in between are not read yet."""
    times, rest = divmod(wide, weight.shape[1])
    if rest:
        raise ValueError(f"{weight.shape[1]} sines and cosines cannot become {wide}")
    made = torch.zeros(len(weight), wide)
    made[:, ::times] = weight
    return made
