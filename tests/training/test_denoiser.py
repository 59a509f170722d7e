"""The UNet's steps, and what is written in the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor
from training.autoencoder import CHECKPOINT
from training.batches import Batches
from training.denoiser import Denoiser, adjust, speak_up
from training.export import export
from training.loop import Plan, Run
from training.loss import DenoiserLoss, new_scheduler

from training import denoiser


def test_training_lowers_the_loss_and_is_exported_to_diffusers(
    batches: Batches, linear: AutoencoderKL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = Denoiser(vocabulary=736, latents=4)
    loss = DenoiserLoss(model)
    seen: list[float] = []

    def observed(generator: torch.Generator) -> Tensor:
        generator.manual_seed(0)
        value = loss(batches.draw(generator), generator)
        seen.append(value.item())
        return value

    monkeypatch.chdir(tmp_path)
    Run(model, Plan(4, 1e-3, warmup=1), denoiser.CHECKPOINT, seed=0).train(observed)
    assert seen[-1] < seen[0]
    torch.save({"average": linear.state_dict()}, CHECKPOINT)
    export(tmp_path / "model")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert pipeline.unet.config.in_channels == pipeline.vae.config.latent_channels == 4
    files = (tmp_path / "model").rglob("*.safetensors")
    assert sum(file.stat().st_size for file in files) <= 16 * 2**20


@torch.no_grad()
def test_louder_texts_differ_more_from_the_empty_one_which_stays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Denoiser(vocabulary=736, latents=4)
    empty, text = torch.full((1, 77), 735), torch.arange(77)[None]

    def read() -> tuple[Tensor, Tensor]:
        words = model.text_encoder(torch.cat([empty, text]))[0]
        return words[0].mean(0), words[1] - words[0]

    run = Run(model, Plan(1, 1e-3), tmp_path / "run.pt", seed=0)
    mean, told = read()
    speak_up(run, empty, 3.0)
    louder_mean, louder = read()
    torch.testing.assert_close(louder_mean, mean)
    torch.testing.assert_close(louder, 3 * told)
    model.load_state_dict(run.average)
    torch.testing.assert_close(read()[1], louder)


@torch.no_grad()
def test_a_unet_takes_louder_latents_for_those_that_it_knows() -> None:
    """Where noise was as loud beside softer latents, and apart from how loud both are."""
    torch.manual_seed(0)
    gain, unet = 3.0, Denoiser(vocabulary=736, latents=4).unet
    ratio = (1 / new_scheduler().alphas_cumprod - 1).sqrt()
    after = torch.tensor([100, 400, 750, 950])
    before = torch.searchsorted(ratio, ratio[after] / gain)
    known = unet.time_embedding(unet.time_proj(before))
    kernel = unet.conv_in.weight.clone()
    with torch.enable_grad():
        adjust(unet, gain)
    apart = (unet.time_embedding(unet.time_proj(after)) - known).square().mean()
    assert apart < 0.05 * known.var()
    louder = kernel / unet.conv_in.weight
    torch.testing.assert_close(louder, louder.mean().expand_as(louder))
    assert 1 < louder.mean() < gain
