"""Degraded faces that differ from what their captions say.

Only there can be anything to hear: a face that is merely blurred says itself what it is. (So
InstructPix2Pix, Brooks et al. 2023, is trained on pairs of pictures and what differs in them.)
"""

from __future__ import annotations

from dataclasses import fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from training.autoencoder import as_tensor
from training.batches import Batch, Batches, per_row
from training.captions import phrases, shortened
from training.crops import crop_seeds

ASKED = 0.375
"""Share of the variants in a batch."""
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


class Variants(PromptBatches):
    """One variant of a head is seen, another is asked for (``training.variants``).

    Half of them become the other one as a whole, half within the face's box alone, as the engine
    repaints: around it the one that is seen stays.
    """

    def __init__(
        self, folder: Path, size: int, name: str = "variants", device: str = "cpu"
    ) -> None:
        super().__init__(folder, size, name, device)
        rows = enumerate(crop_seeds(folder, name))
        self.heads = [[row for row, _ in head] for _, head in groupby(rows, itemgetter(1))]
        """The rows of each."""

    def draw(self, generator: torch.Generator) -> Batch:
        pairs = [self.pair(generator) for _ in range(self.size)]
        seen, wanted = torch.tensor(pairs).T
        mirrored = torch.rand(self.size, generator=generator) < 0.5
        whole = torch.rand(self.size, generator=generator) < 0.5
        crops = (self.sharp[wanted.numpy()], self.sharp[seen.numpy()], self.soft[seen.numpy()])
        sharp, own, soft, face = (
            torch.where(per_row(mirrored, part), part.flip(-1), part)
            for part in (
                *(as_tensor(crop, self.device) for crop in crops),
                self.faces[wanted].to(self.device),
            )
        )
        face = torch.where(per_row(whole, face), torch.ones_like(face), face)
        texts = [self.asked(*pair, generator) for pair in pairs]
        return Batch(
            sharp=torch.where(face > 0, self.encode(sharp), self.encode(own)),
            soft=self.encode(soft),
            face=face,
            tokens=self.tokenize(texts).to(self.device),
        )

    def pair(self, generator: torch.Generator) -> tuple[int, int]:
        """Two rows of one head; the second's caption leaves nothing of the first's unsaid."""
        while True:
            head = self.heads[int(torch.randint(len(self.heads), (), generator=generator))]
            first, second = (head[i] for i in torch.randperm(len(head), generator=generator)[:2])
            said = [len(phrases(self.captions[row])) for row in (first, second)]
            if said[1] >= said[0] and self.captions[first] != self.captions[second]:
                return first, second

    def asked(self, seen: int, wanted: int, generator: torch.Generator) -> str:
        """A prompt that names what is to be changed."""
        changed = set(phrases(self.captions[wanted])) - set(phrases(self.captions[seen]))
        return shortened(self.captions[wanted], generator, changed)


class ToldBatches(PromptBatches):
    """The first rows are variants, the others portraits whose captions are true."""

    def __init__(self, folder: Path, size: int, device: str = "cpu") -> None:
        asked = round(size * ASKED)
        super().__init__(folder, size - asked, device=device)
        self.variants = Variants(folder, asked, device=device)

    def draw(self, generator: torch.Generator) -> Batch:
        asked, true = self.variants.draw(generator), super().draw(generator)
        both = {
            f.name: torch.cat([getattr(asked, f.name), getattr(true, f.name)])
            for f in fields(Batch)
        }
        return Batch(**both)


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
