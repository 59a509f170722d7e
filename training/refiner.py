"""Cuts a small refiner out of ``tiny-xl`` and trains it for the timesteps below 200.

    python -m training.refiner [--steps 200]

SDXL's refiner reads the second text encoder alone and is told how beautiful the picture is instead
of the size it is made for. Little noise hides small details only, so the innermost level and the
middle of the UNet are left out, and of the third level a third.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from training.batches import per_row
from training.crops import CROPS, SIZE
from training.loop import Plan, Run, options, placed, prepare
from training.perceptual import PerceptualDistance
from training.tower import load_tower
from training.widen import Channels, mapped
from training.xl import NUMBER_WIDTH, TextBatch, XLBatches, XLDenoiser, XLLoss, load_xl

CHECKPOINT = Path("build/training/refiner.pt")
BELOW = 200
"""Timesteps: where the engine, as diffusers, hands over to a refiner of SDXL."""
LEVELS = 3
"""Of the base's four."""
INNER = 64
"""Channels of the third level; the base's are more. Both have to be small together."""
UNHEARD = tuple(f"up_blocks.1.resnets.0.{layer}.weight" for layer in ("conv1", "conv_shortcut"))
"""Layers that read the third level first."""
BEST_SCORE = 6.0
"""What diffusers asks a refiner for; the negative prompt gets 2.5."""
BLUR_PER_POINT = 0.015
"""Share of the degraded picture that is left in one which scores a point less."""


def new_refiner(base: UNet2DConditionModel, second: CLIPTextModelWithProjection) -> XLDenoiser:
    """A refiner that does the part of ``tiny-xl``'s outer levels."""
    config = base.config
    levels = {
        "block_out_channels": (*config.block_out_channels[: LEVELS - 1], INNER),
        "down_block_types": config.down_block_types[:LEVELS],
        "up_block_types": config.up_block_types[-LEVELS:],
        "mid_block_type": None,
    }
    refiner = XLDenoiser({**config, **levels}, second, numbers=5)
    copy_outer_levels(refiner.unet, base)
    return refiner


@torch.no_grad()
def copy_outer_levels(unet: UNet2DConditionModel, base: UNet2DConditionModel) -> None:
    """Copies the levels that both have, as far as they fit, and sets to zero what came from inside.

    The third level is heard no more: what is left of its channels is no longer what the second
    expects, so that it learns again what to make of them. Attention begins with nothing to say. Of
    the numbers the first are kept; what is known of the target size becomes a constant, and the
    score says nothing yet.
    """
    given, own = base.state_dict(), unet.state_dict()
    widths = list(base.config.block_out_channels)
    levels = [Channels(torch.arange(width), width) for width in widths]
    inner = widths[LEVELS - 1]
    kept_inside = kept_of_groups(INNER, inner, base.config.norm_num_groups)
    levels[LEVELS - 1] = Channels(kept_inside, inner)
    joint = "up_blocks.0.resnets.0."
    for name, kept in own.items():
        parts = name.split(".")
        if parts[0] == "up_blocks":
            parts[1] = str(int(parts[1]) + len(widths) - LEVELS)
        if "attentions" in parts:
            if "proj_out" in parts:
                kept.zero_()
            continue
        value = mapped(".".join(parts), given[".".join(parts)], levels)
        if name.startswith(joint) and value.shape != kept.shape:
            kept.copy_(_without_inside(name, value, kept))
        elif name == "add_embedding.linear_1.weight":
            kept.zero_()
            kept[:, :-NUMBER_WIDTH] = value[:, : -2 * NUMBER_WIDTH]
        else:
            kept.copy_(value)
            if name in UNHEARD:
                kept[:, :INNER] = 0
    target = base.add_time_proj(torch.full((2,), float(SIZE))).flatten()
    weight = given["add_embedding.linear_1.weight"][:, -2 * NUMBER_WIDTH :]
    own["add_embedding.linear_1.bias"] += weight @ target


def kept_of_groups(count: int, of: int, groups: int) -> Tensor:
    """``count`` of ``of`` channels, ``(count,)``: of each group the last."""
    return torch.arange(of).view(groups, -1)[:, -(count // groups) :].flatten()


def _without_inside(name: str, value: Tensor, like: Tensor) -> Tensor:
    """Of a layer that reads the inner level and the one beside it: deaf to the inner one."""
    axis = 0 if value.ndim == 1 else 1
    beside = like.shape[axis] // 2
    made = torch.ones_like(like) if name.endswith("norm1.weight") else torch.zeros_like(like)
    made.narrow(axis, beside, beside).copy_(value.narrow(axis, -beside, beside))
    return made


class ScoredBatches(XLBatches):
    """Crops with scores: the lower, the more of the degraded picture is left in what is wanted."""

    def draw(self, generator: torch.Generator) -> TextBatch:
        batch = super().draw(generator)
        scores = 2 + (BEST_SCORE - 2) * torch.rand(len(batch.tokens), generator=generator)
        scores[::2] = BEST_SCORE
        share = per_row(BLUR_PER_POINT * (BEST_SCORE - scores), batch.sharp)
        return replace(
            batch,
            sharp=batch.sharp + share * (batch.soft - batch.sharp),
            numbers=score_numbers(scores).to(batch.sharp),
            told=torch.ones_like(batch.told),
        )


def score_numbers(scores: Tensor) -> Tensor:
    """Scores ``(B,)`` to the refiner's five numbers ``(B, 5)``: 128 px, not cropped, the score."""
    side, corner = torch.full_like(scores, SIZE), torch.zeros_like(scores)
    return torch.stack([side, side, corner, corner, scores], 1)


def load_refiner(checkpoint: Path = CHECKPOINT) -> XLDenoiser:
    """The averaged weights of a run."""
    model = new_refiner(load_xl().unet, load_tower())
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    return model.eval()


def main() -> None:
    given = prepare(options(__doc__, steps=200, batch=16, rate=1e-3, device=True))
    batches = ScoredBatches(CROPS, given.batch, device=given.device)
    model = placed(new_refiner(load_xl().unet, load_tower()), given.device)
    plan = Plan(given.steps, given.rate, warmup=20, decay=0.6, average=0.98, save_every=50)
    seen = PerceptualDistance(given.device)
    # It does not begin where it is used: nothing is rolled.
    loss = XLLoss(model, below=BELOW, rolled=0, seen=seen, bf16=given.bf16)
    run = Run(model, plan, CHECKPOINT, given.seed)
    run.train(lambda generator: loss(batches.draw(generator), generator))


if __name__ == "__main__":
    main()
