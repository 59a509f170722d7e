"""Makes ``tiny-xl`` of ``tiny`` and trains it: SDXL's layout, which hears captions better.

    python -m training.xl [--steps 300] [--all]

Needs the checkpoints of ``training.denoiser`` and ``training.tower``. Converted, the UNet does what
``tiny`` does; what is new begins at zero: the second encoder's share of the attention, the whole
text's vector and the sizes. Then it learns to listen: the layers that hear the text's vector are
trained, on captions that name some of what is to be seen, and of which half contradict the picture.
``--all`` trains every layer but the second encoder; it is for accelerators.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from training.batches import Batch, Batches, per_row
from training.contradiction import ToldBatches
from training.crops import CROPS, SIZE
from training.denoiser import (
    WIDTH,
    Denoiser,
    empty_tokens,
    load_denoiser,
    text_config,
)
from training.loop import Plan, Run, options, placed, prepare
from training.loss import DenoiserLoss
from training.perceptual import PerceptualDistance
from training.tower import load_tower

CHECKPOINT = Path("build/training/xl.pt")
LISTENING = ("add_embedding.", "time_emb_proj.")
"""In the names of the layers through which the whole text's vector is heard. In them zeros and the
empty prompt stay the same, so that guidance without a prompt changes nothing."""
NUMBER_WIDTH = 16
"""Each of the size numbers is embedded as wide as this."""

LOUD = 4.0
"""Of the whole text's vector, so that the zeros behind it are soon left."""
SMALL = 0.08
"""Share of crops that stay degraded and are said to come from small pictures."""
SMALL_SIDE = 32


@dataclass(frozen=True, slots=True, eq=False)
class TextBatch(Batch):
    """With SDXL's numbers ``(B, N)``, and ``told`` ``(B, 1)``: 0 where text is replaced by zeros,
    as SDXL does it with the empty negative prompt."""

    numbers: Tensor
    told: Tensor


class XLDenoiser(nn.Module):
    """A UNet and the two text encoders of SDXL, or of its refiner the second alone.

    Args:
        unet: of ``UNet2DConditionModel``; what SDXL adds to it is added here.
        numbers: 6 of the base (original size, crop, target size), 5 of the refiner.
    """

    def __init__(
        self, unet: dict[str, Any], second: CLIPTextModelWithProjection, numbers: int = 6
    ) -> None:
        super().__init__()
        self.text_encoder_2 = second
        self.text_encoder: CLIPTextModel | None = None
        if numbers == 6:
            self.text_encoder = CLIPTextModel(text_config(second.config.vocab_size, layers=3))
        added = {
            "cross_attention_dim": WIDTH * (1 + (numbers == 6)),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": NUMBER_WIDTH,
            "projection_class_embeddings_input_dim": WIDTH + numbers * NUMBER_WIDTH,
        }
        config = {key: value for key, value in unet.items() if not key.startswith("_")}
        self.unet = UNet2DConditionModel(**config | added)

    def forward(self, noised: Tensor, steps: Tensor, batch: TextBatch) -> Tensor:
        """Noised latents ``(B, C, h, w)`` and timesteps ``(B,)`` to the noise."""
        second = self.text_encoder_2(batch.tokens, output_hidden_states=True)
        states = [second.hidden_states[-2]]
        if self.text_encoder is not None:
            first = self.text_encoder(batch.tokens, output_hidden_states=True)
            states.insert(0, first.hidden_states[-2])
        noise: Tensor = self.unet(
            noised,
            steps,
            torch.cat(states, -1) * batch.told[..., None],
            added_cond_kwargs={
                "text_embeds": second.text_embeds * batch.told,
                "time_ids": batch.numbers,
            },
        ).sample
        return noise


class XLLoss(DenoiserLoss):
    """The loss of ``tiny``; the model is told more."""

    def predict(self, noised: Tensor, steps: Tensor, batch: Batch) -> Tensor:
        noise: Tensor = self.model(noised, steps, batch)
        return noise


@dataclass(frozen=True, slots=True, eq=False)
class Normalisation:
    """What the last normalisation of a text encoder amounts to, as a linear map.

    SDXL reads a layer before that normalisation, so its map is put into what reads the layer.
    """

    matrix: Tensor
    """``(D, D)``: of a token's state to its normalised one, both without the empty text's mean."""
    before: Tensor
    """The mean over the empty text's tokens, ``(D,)``; ``after`` is normalised."""
    after: Tensor


@torch.no_grad()
def normalisation(encoder: CLIPTextModel, tokens: Tensor) -> Normalisation:
    """Of the last normalisation of an encoder, as it acts on ``tokens`` ``(N, T)``."""
    norm = encoder.final_layer_norm
    states = encoder(tokens, output_hidden_states=True).hidden_states[-1]
    empty = encoder(empty_tokens(), output_hidden_states=True).hidden_states[-1][0]
    spread = (states.var(-1, unbiased=False) + norm.eps).mean().sqrt()
    width = len(norm.weight)
    centring = torch.eye(width) - 1 / width
    matrix = norm.weight[:, None] * centring / spread
    return Normalisation(matrix, empty.mean(0), norm(empty).mean(0))


@torch.no_grad()
def convert(tiny: Denoiser, second: CLIPTextModelWithProjection, tokens: Tensor) -> XLDenoiser:
    """``tiny-xl`` as it begins: nearly ``tiny``, with the empty prompt and with zeros for it alike.

    Args:
        tokens: captions ``(N, 77)`` by which the normalisation is judged.
    """
    made = XLDenoiser(dict(tiny.unet.config), second)
    assert made.text_encoder is not None
    known = normalisation(tiny.text_encoder, tokens)
    made.text_encoder.load_state_dict(tiny.text_encoder.state_dict(), strict=False)
    made.text_encoder.encoder.layers[1].mlp.fc2.bias -= known.before
    copy_unet(made.unet, tiny.unet, known)
    return made


@torch.no_grad()
def copy_unet(
    unet: UNet2DConditionModel, source: UNet2DConditionModel, text: Normalisation
) -> None:
    """Copies what fits, makes 1 x 1 convolutions linear, and sets what is new to zero."""
    own, given = unet.state_dict(), source.state_dict()
    for name, value in given.items():
        if ".attn2.to_k." in name or ".attn2.to_v." in name:
            own[name].zero_()
            own[name][:, :WIDTH] = value @ text.matrix
        elif name in own:
            own[name].copy_(value.reshape(own[name].shape))
    for name in own:
        if name.endswith(".attn2.to_out.0.bias"):
            block = name.removesuffix("to_out.0.bias")
            values = given[f"{block}to_v.weight"] @ text.after
            own[name] += given[f"{block}to_out.0.weight"] @ values
    unet.add_embedding.linear_1.weight[:, :WIDTH] *= LOUD
    nn.init.zeros_(unet.add_embedding.linear_2.weight)
    nn.init.zeros_(unet.add_embedding.linear_2.bias)


class XLBatches(ToldBatches):
    """Half of the rows are variants; of the others some are small pictures."""

    asked = 0.5

    def draw(self, generator: torch.Generator) -> TextBatch:
        batch = super().draw(generator)
        rows = torch.arange(len(batch.tokens))
        zeros = self.silent(batch) & (torch.rand(rows.shape, generator=generator) < 0.5)
        small = torch.rand(rows.shape, generator=generator) < SMALL
        small &= rows >= self.variants.size
        return TextBatch(
            sharp=torch.where(per_row(small, batch.sharp), batch.soft, batch.sharp),
            soft=batch.soft,
            face=batch.face,
            tokens=batch.tokens,
            numbers=sizes(torch.where(small, SMALL_SIDE, SIZE)).to(batch.sharp),
            told=(~zeros)[:, None].to(batch.sharp),
        )


def sizes(original: Tensor) -> Tensor:
    """Original sides ``(B,)`` to SDXL's six numbers ``(B, 6)``: not cropped, made for 128 px."""
    height = width = original
    top = left = torch.zeros_like(original)
    target = torch.full_like(original, SIZE)
    return torch.stack([height, width, top, left, target, target], 1)


def load_xl(checkpoint: Path = CHECKPOINT) -> XLDenoiser:
    """The averaged weights of a run."""
    model = XLDenoiser(dict(load_denoiser().unet.config), load_tower())
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    return model.eval()


def new_xl() -> XLDenoiser:
    """Converted, not trained: captions of the crops judge the normalisation."""
    tiny = load_denoiser()
    return convert(tiny, load_tower(), Batches(CROPS, 1).tokens[:256])


def listens(name: str) -> bool:
    """Whether a parameter belongs to a layer that hears the whole text's vector."""
    return any(part in name for part in LISTENING)


def main() -> None:
    parser = options(__doc__, steps=300, batch=8, rate=2e-3, device=True)
    parser.add_argument("--all", action="store_true", help="train every layer")
    given = prepare(parser)
    batches = XLBatches(CROPS, given.batch, device=given.device)
    model = placed(new_xl(), given.device)
    for name, parameter in model.named_parameters():
        if not name.startswith("text_encoder_2."):
            parameter.requires_grad_(given.all or listens(name))
    plan = Plan(given.steps, given.rate, warmup=20, decay=0.5, average=0.98, save_every=50)
    seen = PerceptualDistance(given.device)
    loss = XLLoss(model, restored=0.7, seen=seen, bf16=given.bf16)
    run = Run(model, plan, CHECKPOINT, given.seed)
    run.train(lambda generator: loss(batches.draw(generator), generator))


if __name__ == "__main__":
    main()
