"""The linear code and what training adds to it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from training.autoencoder import (
    Batches,
    Shape,
    as_tensor,
    decode,
    decoder_loss,
    encode,
    new_autoencoder,
    recolour,
    reconstruction_loss,
)
from training.evaluate import round_trip
from training.linear_code import SPREAD, linear_encoder
from training.loop import Plan, Run

from afterdetail.types import RGB


@pytest.fixture(scope="module")
def pictures(sharp: RGB) -> Tensor:
    return as_tensor(sharp[:4])


def test_the_linear_code_keeps_colours_before_any_training(
    linear: AutoencoderKL, pictures: Tensor
) -> None:
    made = round_trip(linear, pictures)
    assert made.psnr > 32
    assert max(made.colour) < 1


def test_the_latents_are_as_spread_as_the_betas_assume(linear: AutoencoderKL, sharp: RGB) -> None:
    with torch.no_grad():
        spread = encode(linear, as_tensor(sharp)).std((0, 2, 3))
    assert spread.tolist() == pytest.approx(SPREAD, rel=0.01)


def test_the_encoder_is_one_convolution(linear: AutoencoderKL, pictures: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(
            linear_encoder(linear)(pictures), encode(linear, pictures), atol=0.02, rtol=0.01
        )


def test_diffusers_sees_the_same_latents_with_a_fixed_deviation(
    linear: AutoencoderKL, pictures: Tensor
) -> None:
    with torch.no_grad():
        posterior = linear.encode(pictures).latent_dist
        torch.testing.assert_close(posterior.mean, encode(linear, pictures))
        torch.testing.assert_close(posterior.std, torch.full_like(posterior.std, 0.011))


def test_a_few_steps_lower_the_loss(linear: AutoencoderKL, crops: Path, tmp_path: Path) -> None:
    vae = deepcopy(linear)
    batches = Batches(crops, size=2, window=64)
    seen: list[float] = []

    def observed(generator: torch.Generator) -> Tensor:
        generator.manual_seed(0)
        loss = decoder_loss(vae, batches.draw(generator), generator)
        seen.append(loss.item())
        return loss

    Run(vae, Plan(8, rate=1e-5, warmup=2), tmp_path / "run.pt", seed=0).train(observed)
    assert seen[-1] < seen[0]


def test_an_untrained_autoencoder_fails_the_gate(pictures: Tensor) -> None:
    assert not round_trip(new_autoencoder(Shape()), pictures[:1]).passes


def test_the_loss_is_zero_for_the_truth_alone(pictures: Tensor) -> None:
    assert reconstruction_loss(pictures, pictures) == 0
    assert reconstruction_loss(pictures, pictures + 0.01) > 0


@pytest.mark.parametrize("window", [64, 128])
def test_batches_follow_their_generator(crops: Path, window: int) -> None:
    batches = Batches(crops, size=3, window=window)
    first, second = (batches.draw(torch.Generator().manual_seed(2)) for _ in range(2))
    assert first.shape == (3, 3, window, window)
    assert first.abs().max() <= 1
    torch.testing.assert_close(first, second)


def test_recolouring_stays_in_range(pictures: Tensor) -> None:
    made = [recolour(pictures[0], torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert all(one.abs().max() <= 1 for one in made)
    assert 3 < sum(torch.equal(one, pictures[0]) for one in made) < 17


def test_decoding_keeps_the_size(linear: AutoencoderKL) -> None:
    with torch.no_grad():
        assert decode(linear, torch.zeros(1, 4, 16, 24)).shape == (1, 3, 32, 48)


def test_pictures_span_minus_one_to_one() -> None:
    pictures = as_tensor(np.array([[[[0, 255, 255]]]], np.uint8))
    assert pictures.flatten().tolist() == [-1, 1, 1]
