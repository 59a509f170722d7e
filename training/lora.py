"""Trains a LoRA: one thing that all faces are to have, such as tanned skin.

    python -m training.lora --model tiny [--steps 200] [--name tan --phrases "brown skin" ...]
    python -m training.lora --model tiny-xl [--steps 20]      goes on from tiny's

The faces whose captions name it lose it in their degraded twins, which are made lighter, and their
captions no longer name it. What is left to learn is to paint it. Written in the layout of
diffusers, fp16, to ``build/training/MODEL-NAME.safetensors``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from peft import LoraConfig
from torch import Tensor

from training.batches import Batches
from training.captions import phrases
from training.contradiction import BLOTS, PromptBatches, blotted, lightened
from training.crops import CROPS, SIZE
from training.denoiser import Denoiser, load_denoiser
from training.linear_code import SPREAD
from training.loop import Plan, Run, options, prepare
from training.loss import DenoiserLoss
from training.xl import TextBatch, XLDenoiser, XLLoss, load_xl, sizes

FOLDER = Path("build/training")
RANK = 4
LAYERS = (
    r"(down_blocks\.[23]|mid_block|up_blocks\.[01])\..*"
    r"(to_[qkv]|to_out\.0|ff\.net\.0\.proj|ff\.net\.2|conv1|conv2)"
)
"""Attention and convolutions of the two inner levels and the middle."""
LIGHTER = SPREAD[0] / 2
"""How much lighter the degraded faces are, in the latents' Y."""


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """A frozen base with a LoRA in its UNet, and the loss that it is trained with."""

    model: Denoiser | XLDenoiser
    loss: DenoiserLoss


def adapted(model: Denoiser | XLDenoiser) -> Learner:
    """Freezes ``model`` and puts a LoRA in that changes nothing yet."""
    model.requires_grad_(False)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS)
    model.unet.add_adapter(config)
    return Learner(model, (XLLoss if isinstance(model, XLDenoiser) else DenoiserLoss)(model))


class AttributeBatches(PromptBatches):
    """The crops whose captions have one of ``wanted``, which the captions then lose."""

    def __init__(self, folder: Path, size: int, wanted: Collection[str]) -> None:
        super().__init__(folder, size)
        have = [bool(set(phrases(caption)) & set(wanted)) for caption in self.captions]
        self.rows = torch.tensor(have).nonzero()[:, 0]
        self.captions = [
            ", ".join(phrase for phrase in phrases(caption) if phrase not in wanted)
            for caption in self.captions
        ]

    def draw(self, generator: torch.Generator) -> TextBatch:
        batch = Batches.draw(self, generator)
        blot = BLOTS[int(torch.randint(len(BLOTS), (), generator=generator))]
        lighter = torch.full((self.size,), LIGHTER)
        soft = lightened(blotted(batch.soft, blot), batch.face, lighter)
        return TextBatch(
            sharp=batch.sharp,
            soft=soft,
            face=batch.face,
            tokens=batch.tokens,
            numbers=sizes(torch.full((self.size,), SIZE)).to(batch.sharp),
            told=torch.ones(self.size, 1),
        )


@torch.no_grad()
def begin_with(learner: Learner, weights: Mapping[str, Tensor]) -> None:
    """Copies the LoRA of another base's run, as far as its layers have the same shapes."""
    for name, value in learner.model.state_dict().items():
        if ".lora_" in name and name in weights and weights[name].shape == value.shape:
            value.copy_(weights[name])


def lora_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a run's weights those of the LoRA, by the names that diffusers reads, fp16."""
    return {
        name.removeprefix("unet.").replace(".default.", "."): value.half().contiguous()
        for name, value in weights.items()
        if ".lora_" in name
    }


def main() -> None:
    parser = options(__doc__, steps=200, batch=4, rate=2e-3)
    parser.add_argument("--model", choices=("tiny", "tiny-xl"), default="tiny")
    parser.add_argument("--name", default="tan")
    parser.add_argument("--phrases", nargs="+", default=["brown skin", "dark skin"])
    given = prepare(parser)
    batches = AttributeBatches(CROPS, given.batch, given.phrases)
    learner = adapted(load_xl() if given.model == "tiny-xl" else load_denoiser())
    name, first = f"{given.model}-{given.name}", FOLDER / f"tiny-{given.name}.pt"
    if given.model == "tiny-xl" and first.exists():
        begin_with(learner, torch.load(first, weights_only=True)["average"])
    plan = Plan(given.steps, given.rate, warmup=10, decay=0.6, average=0.95, save_every=50)
    run = Run(learner.model, plan, FOLDER / f"{name}.pt", given.seed)
    run.train(lambda generator: learner.loss(batches.draw(generator), generator))
    StableDiffusionLoraLoaderMixin.save_lora_weights(
        FOLDER, unet_lora_layers=lora_of(run.average), weight_name=f"{name}.safetensors"
    )
    print(FOLDER / f"{name}.safetensors")


if __name__ == "__main__":
    main()
