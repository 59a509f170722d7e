"""Trains the text encoder and the UNet to make degraded faces sharp, and to paint described ones.

    python -m training.denoiser [--initial FOLDER] [--steps 4000]
    python -m torch.distributed.run --nproc-per-node 2 -m training.denoiser

Epsilon prediction on the betas of SD1.5. An eighth of each batch is plain diffusion of sharp
crops. The rest is what an after-detailer meets: the noised latent comes from the degraded face,
the target leads to the sharp one. It needs the ``EYES`` of ``training.attributes``.
``--initial`` takes a UNet, which may be narrower, and a text encoder to begin with, and
``--gain 3`` says that its latents were a third as loud as they are. With an accelerator,
``--device cuda --bf16 --batch 256``. A model that has learnt not to listen hears better after
``--louder 3``, given once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.batches import TOKENIZER
from training.contradiction import ToldBatches
from training.crops import CROPS
from training.loop import Plan, Run, options, placed, prepare
from training.loss import DenoiserLoss, new_scheduler
from training.perceptual import PerceptualDistance
from training.widen import widen

CHECKPOINT = Path("build/training/denoiser.pt")

WIDTH = 64
"""Of the text encoders."""


def text_config(vocabulary: int, layers: int, activation: str = "quick_gelu") -> CLIPTextConfig:
    """Of a CLIP text encoder, 64 wide."""
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        projection_dim=WIDTH,
        hidden_act=activation,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )


class Denoiser(nn.Module):
    """The UNet and its text encoder, trained together."""

    def __init__(self, vocabulary: int, latents: int) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(text_config(vocabulary, layers=2))
        self.unet = UNet2DConditionModel(
            sample_size=64,
            in_channels=latents,
            out_channels=latents,
            block_out_channels=(48, 64, 96, 128),
            down_block_types=("DownBlock2D",) * 2 + ("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=8,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            time_embedding_dim=192,
        )

    def forward(self, noised: Tensor, steps: Tensor, tokens: Tensor) -> Tensor:
        """Noised latents ``(B, C, h, w)``, timesteps ``(B,)``, token ids ``(B, 77)``: the noise."""
        words = self.text_encoder(tokens)[0]
        noise: Tensor = self.unet(noised, steps, words).sample
        return noise


def empty_tokens() -> Tensor:
    """``(1, 77)``: no caption."""
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    tokens: Tensor = tokenizer([""], padding="max_length", return_tensors="pt").input_ids
    return tokens


def load_denoiser(checkpoint: Path = CHECKPOINT) -> Denoiser:
    """The averaged weights of a run."""
    weights = torch.load(checkpoint, weights_only=True)["average"]
    vocabulary = weights["text_encoder.embeddings.token_embedding.weight"].shape[0]
    model = Denoiser(vocabulary, latents=weights["unet.conv_in.weight"].shape[1])
    model.load_state_dict(weights)
    return model.eval()


@torch.no_grad()
def start_from(model: Denoiser, folder: Path) -> None:
    """Begins with what a model in the diffusers layout knows, whose UNet may be narrower.

    Raises:
        ValueError: its UNet's levels are wider.
        RuntimeError: it has other words or layers.
    """
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    model.text_encoder.load_state_dict(text.state_dict())
    widen(model.unet, unet)


def adjust(unet: UNet2DConditionModel, gain: float) -> None:
    """Make a UNet take latents ``gain`` times as loud for what it knows.

    At the timestep t louder latents look as softer ones did at an earlier one, where noise was as
    loud beside them, but that the sum of both is louder, the more so the less noise there is. The
    time embedding is fitted to that; the first convolution is set for the middle of the way.
    """
    alphas = new_scheduler().alphas_cumprod
    ratio = (1 / alphas - 1).sqrt()
    before = torch.searchsorted(ratio, ratio / gain).clamp_max(len(ratio) - 1)
    with torch.no_grad():
        louder = ((1 - alphas) / (1 - alphas[before])).sqrt().mean()
        unet.conv_in.weight /= louder
        wanted = unet.time_embedding(unet.time_proj(before))
        now = unet.time_proj(torch.arange(len(ratio)))
    optimiser = torch.optim.Adam(unet.time_embedding.parameters(), 2e-3)
    for _ in range(3000):
        optimiser.zero_grad()
        loss = (unet.time_embedding(now) - wanted).square().mean()
        torch.autograd.backward(loss)
        optimiser.step()
    print(f"time embedding: {loss.item() / wanted.var().item():.4f} of its variance was lost")
    unet.zero_grad()


@torch.no_grad()
def speak_up(run: Run, empty: Tensor, factor: float) -> None:
    """Make texts differ ``factor`` times as much from the empty one, whose tokens are ``empty``.

    The empty text's mean stays, so that without a prompt little changes; its tokens differ from
    each other, too, and what that did has to be learnt again.
    """
    assert isinstance(run.model, Denoiser)
    mean = run.model.text_encoder(empty.to(run.model.unet.device))[0][0].mean(0)
    norm = "text_encoder.final_layer_norm"
    for weights in (run.model.state_dict(), run.average):
        weights[f"{norm}.weight"].mul_(factor)
        weights[f"{norm}.bias"].mul_(factor).add_((1 - factor) * mean)


def main() -> None:
    parser = options(__doc__, steps=4000, batch=16, rate=1e-3, device=True)
    parser.add_argument("--initial", type=Path, help="model in the diffusers layout")
    parser.add_argument("--gain", type=float, default=1.0, help="of latents since --initial")
    parser.add_argument("--louder", type=float, default=1.0, help="how much, once")
    parser.add_argument(
        "--decay", type=float, default=0.5, help="share of steps the rate falls over"
    )
    given = prepare(parser)
    batches = ToldBatches(CROPS, given.batch, device=given.device)
    vocabulary = int(batches.tokens.max()) + 1
    model = Denoiser(vocabulary, latents=4)
    if given.initial is not None:
        start_from(model, given.initial)
    if given.gain != 1 and not CHECKPOINT.exists():
        adjust(model.unet, given.gain)
    model = placed(model, given.device)
    average = max(0.995, 1 - 20 / given.steps)
    plan = Plan(given.steps, given.rate, decay=given.decay, average=average, save_every=50)
    run = Run(model, plan, CHECKPOINT, given.seed)
    empty = empty_tokens().to(given.device)
    speak_up(run, empty, given.louder)
    loss = DenoiserLoss(
        model,
        seen=PerceptualDistance(given.device),
        silence=lambda batch: replace(batch, tokens=empty.expand_as(batch.tokens)),
        bf16=given.bf16,
    )
    run.train(lambda generator: loss(batches.draw(generator), generator))


if __name__ == "__main__":
    main()
