"""Degraded faces that differ from what their captions say.

Only there can be anything to hear: a face that is merely blurred says itself what it is. (So
InstructPix2Pix, Brooks et al. 2023, is trained on pairs of pictures and what differs in them.)
"""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from training.autoencoder import as_tensor
from training.batches import Batch, Batches, flipped, per_row
from training.captions import phrases, shortened
from training.crops import crop_heads

BLOTS = (1, 2, 4, 8)
"""Latent pixels that one blot of a blurred picture is wide."""

AGED = 0.5
"""Share of variants that are sure to be of another age, which changes least of a face and is heard
the most faintly. Of the others some are so, too."""


class PromptBatches(Batches):
    """Crops with captions that are as short as prompts."""

    def read(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self.tokenize([shortened(self.captions[row], generator) for row in rows.tolist()])

    def silent(self, batch: Batch) -> Tensor:
        """Which rows have no caption: bool ``(B,)``."""
        return (batch.tokens == self.tokens[-1].to(batch.tokens)).all(1).cpu()


class Variants(PromptBatches):
    """One variant of a head is seen, another is asked for (``training.variants``).

    Half of them become the other one as a whole, half within the face's box alone, as the engine
    repaints: around it the one that is seen stays.
    """

    def __init__(
        self, folder: Path, size: int, name: str = "variants", device: str = "cpu"
    ) -> None:
        super().__init__(folder, size, name, device)
        said = [phrases(caption) for caption in self.captions]
        self.pairs = [
            (seen, wanted)
            for head in crop_heads(folder, name)
            for seen, wanted in permutations(head, 2)
            if said[seen] != said[wanted] and len(said[seen]) <= len(said[wanted])
        ]
        """Two rows of one head; the second's caption leaves nothing of the first's unsaid."""
        self.aged = [pair for pair in self.pairs if said[pair[0]][0] != said[pair[1]][0]]
        """Those of them whose captions begin differently, with "an old man" and "a young man"."""

    def draw(self, generator: torch.Generator) -> Batch:
        pairs = [self.pair(generator) for _ in range(self.size)]
        seen, wanted = torch.tensor(pairs).T
        mirrored = torch.rand(self.size, generator=generator) < 0.5
        whole = torch.rand(self.size, generator=generator) < 0.5
        crops = (self.sharp[wanted.numpy()], self.sharp[seen.numpy()], self.soft[seen.numpy()])
        parts = (
            *(as_tensor(crop, self.device) for crop in crops),
            self.faces[wanted].to(self.device),
        )
        sharp, own, soft, face = (flipped(part, mirrored) for part in parts)
        face = torch.where(per_row(whole, face), torch.ones_like(face), face)
        texts = [self.asked(*pair, generator) for pair in pairs]
        return Batch(
            sharp=torch.where(face > 0, self.encode(sharp), self.encode(own)),
            soft=self.encode(soft),
            face=face,
            tokens=self.tokenize(texts).to(self.device),
        )

    def pair(self, generator: torch.Generator) -> tuple[int, int]:
        """Which row is seen and which is wanted."""
        aged = float(torch.rand((), generator=generator)) < AGED
        pairs = self.aged if aged and self.aged else self.pairs
        return pairs[int(torch.randint(len(pairs), (), generator=generator))]

    def asked(self, seen: int, wanted: int, generator: torch.Generator) -> str:
        """A prompt that names what is to be changed."""
        changed = set(phrases(self.captions[wanted])) - set(phrases(self.captions[seen]))
        return shortened(self.captions[wanted], generator, changed)


class ToldBatches(PromptBatches):
    """The first rows are variants, the others portraits whose captions are true."""

    asked = 0.25
    """Share of the variants in a batch."""

    def __init__(self, folder: Path, size: int, device: str = "cpu") -> None:
        self.variants = Variants(folder, round(size * self.asked), device=device)
        super().__init__(folder, size - self.variants.size, device=device)

    def draw(self, generator: torch.Generator) -> Batch:
        return self.variants.draw(generator) + super().draw(generator)


def blotted(soft: Tensor, blot: int) -> Tensor:
    """Latents ``(B, C, h, w)``, as blurred as if each blot had been a pixel once."""
    small = functional.avg_pool2d(soft, blot)
    return functional.interpolate(small, scale_factor=float(blot), mode="bilinear")


def lightened(soft: Tensor, face: Tensor, lighter: Tensor) -> Tensor:
    """Latents ``(B, C, h, w)`` with ``lighter`` ``(B,)`` added to Y, by and by towards the face."""
    area = functional.avg_pool2d(face, 9, 1, 4)
    luma = soft[:, :1] + area * per_row(lighter, soft)
    return torch.cat([luma, soft[:, 1:]], 1)
