"""``tiny-xl``, its refiner and LoRAs: how they begin, what they learn from, how they are saved."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from training.denoiser import Denoiser, empty_tokens
from training.export import PIPELINES, export
from training.loop import Plan, Run
from training.lora import AttributeBatches, adapted, begin_with, lora_of
from training.loss import new_scheduler
from training.refiner import BELOW, ScoredBatches, kept_of_groups, new_refiner
from training.tower import Tower, centre
from training.xl import (
    TextBatch,
    XLBatches,
    XLDenoiser,
    XLLoss,
    convert,
    sizes,
)
from transformers import CLIPTextModelWithProjection

from training import export as exporting

WORDS = 736


@pytest.fixture(scope="module")
def tiny() -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(WORDS, latents=4).eval()
    model.text_encoder.encoder.layers[1].mlp.fc2.bias.data.normal_()
    return model


@pytest.fixture(scope="module")
def second() -> CLIPTextModelWithProjection:
    torch.manual_seed(1)
    encoder: CLIPTextModelWithProjection = Tower(WORDS).encoder.eval()
    centre(encoder)
    return encoder.requires_grad_(False)


@pytest.fixture(scope="module")
def xl(tiny: Denoiser, second: CLIPTextModelWithProjection) -> XLDenoiser:
    return convert(tiny, second, empty_tokens()).eval()


def text_batch(told: float) -> TextBatch:
    latents = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = empty_tokens().expand(2, -1)
    face = torch.ones(2, 1, 64, 64)
    numbers = sizes(torch.tensor([128, 32])).float()
    return TextBatch(latents, latents, face, tokens, numbers, torch.full((2, 1), told))


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean().sqrt() / other.square().mean().sqrt())


def test_the_empty_text_steers_nothing(second: CLIPTextModelWithProjection) -> None:
    assert second(empty_tokens()).text_embeds.abs().max() < 1e-5


@pytest.mark.parametrize("told", [1.0, 0.0], ids=["the empty prompt", "zeros for it"])
@torch.no_grad()
def test_the_base_begins_as_tiny(tiny: Denoiser, xl: XLDenoiser, told: float) -> None:
    batch, steps = text_batch(told), torch.tensor([100, 800])
    expected = tiny(batch.sharp, steps, batch.tokens)
    assert apart(xl(batch.sharp, steps, batch), expected) < 0.02


@torch.no_grad()
def test_the_refiner_begins_with_the_bases_outer_levels(
    xl: XLDenoiser, second: CLIPTextModelWithProjection
) -> None:
    refiner = new_refiner(xl.unet, second).eval()
    names = ("conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "conv_out.bias")
    for name in names:
        assert torch.equal(refiner.unet.state_dict()[name], xl.unet.state_dict()[name])
    assert refiner.text_encoder is None
    assert refiner.unet.num_parameters() < 0.4 * xl.unet.num_parameters()
    narrow, wide = (model.unet.down_blocks[2].resnets[0].conv1 for model in (refiner, xl))
    assert torch.equal(narrow.weight, wide.weight[kept_of_groups(64, 96, groups=8)])
    batch = replace(text_batch(1.0), numbers=torch.tensor([[128.0, 128, 0, 0, 6]] * 2))
    assert refiner(batch.sharp, torch.tensor([50, 150]), batch).shape == batch.sharp.shape


@pytest.mark.usefixtures("autoencoder")
@pytest.mark.parametrize(("kind", "numbers"), [(XLBatches, 6), (ScoredBatches, 5)])
def test_batches_follow_their_generator(varied: Path, kind: type[XLBatches], numbers: int) -> None:
    batches = kind(varied, size=32)
    first, again = (batches.draw(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.soft, again.soft) and torch.equal(first.tokens, again.tokens)
    assert first.numbers.shape == (32, numbers)
    assert set(first.numbers[:, :2].flatten().tolist()) <= {32.0, 128.0}
    told = first.told[:, 0].bool()
    empty = (first.tokens == empty_tokens()).all(1)
    assert empty[~told].all()
    assert bool(told.all()) is (kind is ScoredBatches)
    if kind is ScoredBatches:
        assert 2 <= first.numbers[:, 4].min() < 6 == first.numbers[:, 4].max()


@pytest.mark.usefixtures("autoencoder")
def test_a_lora_learns_from_faces_that_have_it_and_captions_that_do_not_say_so(crops: Path) -> None:
    batches = AttributeBatches(crops, 4, ["smiling"])
    assert len(batches.rows) == len(batches.captions) - 1
    assert set(batches.captions) == {"a photo of a woman", ""}
    batch = batches.draw(torch.Generator().manual_seed(0))
    lighter = (batch.soft - batch.sharp)[:, :1]
    assert (lighter * batch.face).sum() / batch.face.sum() > 1
    assert (lighter * (1 - batch.face)).mean().abs() < 0.5


@pytest.mark.usefixtures("autoencoder")
def test_only_the_lora_is_trained(
    tiny: Denoiser, second: CLIPTextModelWithProjection, crops: Path, tmp_path: Path
) -> None:
    learner = adapted(convert(tiny, second, empty_tokens()))
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    batches = AttributeBatches(crops, 2, ["smiling"])
    run = Run(learner.model, Plan(2, 1e-2, warmup=1), tmp_path / "lora.pt", seed=0)
    run.train(lambda generator: learner.loss(batches.draw(generator), generator))
    changed = [n for n, v in learner.model.state_dict().items() if not torch.equal(v, before[n])]
    assert changed and all(".lora_" in name for name in changed)
    assert len(lora_of(run.average)) == sum(".lora_" in name for name in before)
    other = adapted(convert(tiny, second, empty_tokens()))
    begin_with(other, run.average)
    taken = other.model.state_dict()
    assert all(torch.equal(taken[name], run.average[name]) for name in changed)


@pytest.mark.parametrize(
    ("kind", "below"), [("tiny-xl", 1000), ("tiny-xl-refiner", BELOW)], ids=["base", "refiner"]
)
def test_a_step_lowers_the_loss_and_diffusers_reads_the_export(
    tiny: Denoiser,
    second: CLIPTextModelWithProjection,
    linear: AutoencoderKL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    below: int,
) -> None:
    model = convert(tiny, second, empty_tokens())
    if kind == "tiny-xl-refiner":
        model = new_refiner(model.unet, second)
    batch = replace(text_batch(1.0), soft=text_batch(1.0).sharp.roll(1, 0))
    if kind == "tiny-xl-refiner":
        batch = replace(batch, numbers=batch.numbers[:, :5])
    loss, seen = XLLoss(model, below=below), []

    def observed(generator: torch.Generator) -> Tensor:
        value = loss(batch, generator.manual_seed(0))
        seen.append(value.item())
        return value

    Run(model, Plan(3, 1e-3, warmup=1), tmp_path / "run.pt", seed=0).train(observed)
    assert seen[-1] < seen[0]
    monkeypatch.setattr(exporting, "load_autoencoder", lambda: deepcopy(linear))
    loader = "load_xl" if kind == "tiny-xl" else "load_refiner"
    monkeypatch.setattr(exporting, loader, lambda: model)
    assert kind in PIPELINES
    export(tmp_path / kind, kind)
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / kind, vae=linear)
    assert pipe.unet.config.addition_embed_type == "text_time"
    assert (pipe.text_encoder is None) is (kind == "tiny-xl-refiner")
    assert pipe.scheduler.config.beta_end == new_scheduler().config.beta_end
