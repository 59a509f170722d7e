"""How a classifier sees what latents decode to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from training.attributes import AttributeNet
from training.autoencoder import as_tensor, decode
from training.linear_code import linear_decoder, linear_encoder
from training.perceptual import PerceptualDistance

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
    save_file(net, tmp_path / "eye.safetensors")
    monkeypatch.setattr(perceptual, "EYE", tmp_path / "eye.safetensors")
    monkeypatch.setattr(perceptual, "load_autoencoder", lambda: linear)
    distance = PerceptualDistance()
    assert distance(latents, latents).tolist() == [0, 0]
    made = (latents + 0.5 * torch.randn_like(latents)).requires_grad_()
    apart = distance(made, latents)
    assert apart.shape == (2,) and bool((apart > 1e-3).all())
    torch.autograd.backward(apart.sum())
    assert made.grad is not None and made.grad.abs().sum() > 0
