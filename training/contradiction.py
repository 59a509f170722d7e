"""Degraded faces that differ from what their captions say.

Only there can be anything to hear: a face that is merely blurred says itself what it is.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from training.batches import Batch, Batches, per_row
from training.captions import shortened

BLOTS = (1, 2, 4, 8)
"""Latent pixels that one blot of such a picture is wide."""
LIFT = torch.tensor([0.8, 0.5, 0.5])
"""How far, at most times, the colours of such a picture are off: Y, U and V of the latents."""
LIGHTER = {
    "pale skin": -2.0,
    "light skin": -1.0,
    "tan skin": 0.0,
    "brown skin": 1.0,
    "dark skin": 2.0,
}
"""How much lighter than the caption says such a face is made, in the latents' Y: so much darker
it has to be painted."""


class PromptBatches(Batches):
    """Crops with captions that are as short as prompts; some of these may be contradicted."""

    share = 0.25
    """Of the captions, to be contradicted."""

    def read(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self.tokenize([shortened(self.captions[row], generator) for row in rows.tolist()])

    def silent(self, batch: Batch) -> Tensor:
        """Which rows have no caption: bool ``(B,)``."""
        return (batch.tokens == self.tokens[-1].to(batch.tokens)).all(1).cpu()

    def contradicted(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Which rows are to be: bool ``(B,)``, none without a caption."""
        return ~self.silent(batch) & (torch.rand(self.size, generator=generator) < self.share)

    def other(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Every degraded face lighter or darker than its caption says, and blurred."""
        blot = BLOTS[int(torch.randint(len(BLOTS), (), generator=generator))]
        texts = self.tokenizer.batch_decode(batch.tokens, skip_special_tokens=True)
        lighter = torch.tensor([sum(LIGHTER[p] for p in LIGHTER if p in t) for t in texts])
        return lightened(tinted(blotted(batch.soft, blot), generator), batch.face, lighter)


class ToldBatches(PromptBatches):
    """Some of the captions contradict the degraded picture."""

    def draw(self, generator: torch.Generator) -> Batch:
        batch = super().draw(generator)
        vague = per_row(self.contradicted(batch, generator), batch.soft)
        return replace(batch, soft=torch.where(vague, self.other(batch, generator), batch.soft))


def blotted(soft: Tensor, blot: int) -> Tensor:
    """Latents ``(B, C, h, w)``, as blurred as if each blot had been a pixel once."""
    small = functional.avg_pool2d(soft, blot)
    return functional.interpolate(small, scale_factor=float(blot), mode="bilinear")


def tinted(soft: Tensor, generator: torch.Generator) -> Tensor:
    """Latents ``(B, C, h, w)`` in other colours: the first three channels are Y, U and V."""
    count = len(soft)
    gain = 1 + 0.2 * torch.randn(count, 3, 1, 1, generator=generator).to(soft)
    lift = LIFT * torch.randn(count, 3, generator=generator)
    colours = soft[:, :3] * gain + lift[..., None, None].to(soft)
    return torch.cat([colours, soft[:, 3:]], 1)


def lightened(soft: Tensor, face: Tensor, lighter: Tensor) -> Tensor:
    """Latents ``(B, C, h, w)`` with ``lighter`` ``(B,)`` added to Y, by and by towards the face."""
    area = functional.avg_pool2d(face, 9, 1, 4)
    luma = soft[:, :1] + area * per_row(lighter, soft)
    return torch.cat([luma, soft[:, 1:]], 1)
