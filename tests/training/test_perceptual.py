"""How a classifier sees what latents decode to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch.nn import functional
from training.attributes import EYES, AttributeNet
from training.autoencoder import as_tensor, decode
from training.linear_code import linear_decoder, linear_encoder
from training.perceptual import PerceptualDistance, corners, cut_out, discoloured, poses

from afterdetail.types import RGB
from training import perceptual


@pytest.fixture
def latents(linear: AutoencoderKL, sharp: RGB) -> torch.Tensor:
    return linear_encoder(linear)(as_tensor(sharp[:2]))


def test_the_linear_decoder_is_the_one_that_training_begins_with(
    linear: AutoencoderKL, latents: torch.Tensor
) -> None:
    with torch.no_grad():
        torch.testing.assert_close(
            linear_decoder(linear)(latents), decode(linear, latents), atol=2e-3, rtol=0
        )


def test_only_other_pictures_look_different_and_gradients_lead_back(
    linear: AutoencoderKL, latents: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = {name: value.half() for name, value in AttributeNet().state_dict().items()}
    monkeypatch.chdir(tmp_path)
    EYES[0].weights.parent.mkdir(parents=True)
    for eye in EYES:
        save_file(net, eye.weights)
    monkeypatch.setattr(perceptual, "load_autoencoder", lambda: linear)
    distance = PerceptualDistance()
    face = torch.ones(2, 1, 64, 64)
    generator = torch.Generator().manual_seed(0)
    assert distance(latents, latents, face, generator).tolist() == [0, 0]
    made = (latents + 0.5 * torch.randn_like(latents)).requires_grad_()
    apart = distance(made, latents, face, generator)
    assert apart.shape == (2,) and bool((apart > 1e-3).all())
    torch.autograd.backward(apart.sum())
    assert made.grad is not None and made.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("rows", "columns", "cut"),
    [
        pytest.param((0, 64), (0, 64), (0, 0, 128), id="the whole picture"),
        pytest.param((16, 48), (16, 48), (32, 32, 64), id="a square"),
        pytest.param((16, 48), (24, 40), (32, 32, 64), id="a tall face"),
        pytest.param((0, 32), (28, 36), (0, 32, 64), id="at the upper border"),
        pytest.param((60, 64), (0, 32), (64, 0, 64), id="in the lower corner"),
    ],
)
def test_what_is_looked_at_is_the_square_around_the_face(
    rows: tuple[int, int], columns: tuple[int, int], cut: tuple[int, int, int]
) -> None:
    face = torch.zeros(1, 1, 64, 64)
    face[..., slice(*rows), slice(*columns)] = 0.5
    picture = torch.linspace(0, 1, 128)[:, None] + torch.linspace(0, 2, 128)  # no curvature
    top, left, side = cut
    inside = picture[None, None, top : top + side, left : left + side]
    expected = functional.interpolate(inside, (128, 128), mode="bilinear")
    seen = cut_out(picture.expand(1, 3, -1, -1), corners(face))
    assert seen.shape == (1, 3, 128, 128)
    middle = slice(2, -2)  # beyond the border of the cut another picture lies
    torch.testing.assert_close(
        seen[:, :1, middle, middle], expected[..., middle, middle], atol=1e-5, rtol=0
    )


def test_a_view_shows_the_square_around_the_face_turned_mirrored_and_nearer() -> None:
    drawn = poses(200, torch.Generator().manual_seed(0))
    sides = torch.linalg.det(drawn[:, :2, :2]).abs().sqrt()
    assert 0.7 <= sides.min() < 0.75 and 1.05 < sides.max() <= 1.1
    turned = torch.rad2deg(torch.atan(drawn[:, 1, 0] / drawn[:, 0, 0]))
    assert -15 <= turned.min() < -13 and 13 < turned.max() <= 15
    mirrored = torch.linalg.det(drawn[:, :2, :2]) < 0
    assert 70 < mirrored.sum() < 130
    beside = drawn[:, :2, 2].abs() - (1 - sides).abs()[:, None]
    assert beside.max() <= 1e-6


def test_a_view_has_its_colours_or_each_channel_of_another_one() -> None:
    drawn = discoloured(200, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.abs().sum(1), torch.ones(200, 3))
    torch.testing.assert_close(drawn.abs().sum(2), torch.ones(200, 3))
    inverted = drawn.sum((1, 2)) < 0
    plain = (drawn == torch.eye(3)).all(1).all(1)
    assert 30 < inverted.sum() < 70 and 85 < plain.sum() < 135
