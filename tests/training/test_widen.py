"""What a wider UNet begins with."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from training.widen import copies, widen


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (2, 2, [0, 1]),
        (2, 4, [0, 0, 1, 1]),
        (4, 6, [0, 0, 1, 2, 2, 3]),
        (4, 8, [0, 0, 1, 1, 2, 2, 3, 3]),
    ],
)
def test_new_channels_copy_channels_of_their_group(
    before: int, after: int, expected: list[int]
) -> None:
    assert copies(before, after, groups=2).tolist() == expected


@pytest.mark.parametrize(("before", "after"), [(4, 2), (3, 4), (2, 5)])
def test_fewer_channels_and_broken_groups_are_refused(before: int, after: int) -> None:
    with pytest.raises(ValueError, match=f"{before} channels cannot become {after}"):
        copies(before, after, groups=2)


def unet(*widths: int, seed: int = 1) -> UNet2DConditionModel:
    """Two levels without attention, one with it, of a layer each, drawn at random."""
    torch.manual_seed(seed)
    made = UNet2DConditionModel(
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
        time_embedding_dim=32,
    )
    for name, parameter in made.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    return made.eval()


@torch.no_grad()
def noise(model: UNet2DConditionModel) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 16, 16, generator=generator)
    words = torch.randn(2, 5, 8, generator=generator)
    found: Tensor = model(latents, torch.tensor([20, 700]), words).sample
    return found


@pytest.mark.parametrize(
    ("widths", "bound"),
    [
        pytest.param((8, 16, 24), 1e-5, id="as wide"),
        pytest.param((16, 16, 24), 0.2, id="the first"),
        pytest.param((16, 20, 24), 0.2, id="two, one by half a group"),
    ],
)
def test_a_wider_unet_does_nearly_the_same(widths: tuple[int, ...], bound: float) -> None:
    source, wider = unet(8, 16, 24, seed=0), unet(*widths)
    expected = noise(source)
    assert (noise(wider) - expected).norm() > 0.5 * expected.norm()
    widen(wider, source)
    assert (noise(wider) - expected).norm() <= bound * expected.norm()


def test_copies_are_read_by_weights_that_differ() -> None:
    source, wider = unet(8, 16, 24, seed=0), unet(16, 16, 24)
    widen(wider, source)
    weight = wider.conv_out.weight
    assert torch.allclose(weight[:, ::2] + weight[:, 1::2], source.conv_out.weight, atol=1e-6)
    assert (weight[:, ::2] - weight[:, 1::2]).std() > 0.3 * source.conv_out.weight.std()


@pytest.mark.parametrize(
    ("widths", "named"),
    [
        ((4, 16, 24), "8 channels cannot become 4"),
        ((8, 16, 32), "down_blocks.2"),
        ((12, 16, 24), "sines and cosines cannot become 12"),
    ],
)
def test_other_unets_are_refused(widths: tuple[int, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        widen(unet(*widths), unet(8, 16, 24))
