"""What the UNets are trained on: crops as latents with their captions as tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from training.autoencoder import as_tensor, load_autoencoder, recolour
from training.crops import SIZE
from training.linear_code import linear_encoder

TOKENIZER = Path(str(files("afterdetail"))) / "models" / "tiny" / "tokenizer"

RECOLOURED = 0.2
"""Share of crops in other colours. No more: captions name hair and skin."""

WITHOUT_CAPTION = 0.5
"""Share of captions left out. More than the usual tenth: the default prompt is the empty one."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Latents ``(B, C, h, w)``; ``face`` ``(B, 1, h, w)`` is 1 inside the face's box."""

    sharp: Tensor
    soft: Tensor
    face: Tensor
    tokens: Tensor

    def rows(self, chosen: slice | Tensor) -> Self:
        """Some of its rows."""
        rows = {field.name: getattr(self, field.name)[chosen] for field in fields(self)}
        return replace(self, **rows)

    def __add__(self, other: Self) -> Self:
        """The rows of both, these first."""
        return type(self)(
            torch.cat([self.sharp, other.sharp]),
            torch.cat([self.soft, other.soft]),
            torch.cat([self.face, other.face]),
            torch.cat([self.tokens, other.tokens]),
        )


class Batches:
    """Crops as latents, mirrored and recoloured at random, with their captions as tokens.

    ``rows`` numbers the crops that are drawn from. Of two the one with the larger face is taken:
    the engine cuts its regions more closely than most crops are cut.
    """

    def __init__(self, folder: Path, size: int, name: str = "train", device: str = "cpu") -> None:
        self.sharp = np.load(folder / f"{name}-sharp.npy", mmap_mode="r")
        self.soft = np.load(folder / f"{name}-soft.npy", mmap_mode="r")
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        self.faces = torch.stack([inside(record["face"]) for record in records])
        self.tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
        self.captions = [*(record["caption"] for record in records), ""]
        self.tokens = self.tokenize(self.captions)
        self.rows = torch.arange(len(records))
        self.encode = linear_encoder(load_autoencoder().to(device))
        self.size, self.device = size, device

    def draw(self, generator: torch.Generator) -> Batch:
        pairs = self.rows[torch.randint(len(self.rows), (self.size, 2), generator=generator)]
        nearer = self.faces[pairs].sum((2, 3, 4)).argmax(1, keepdim=True)
        chosen = pairs.gather(1, nearer)[:, 0]
        mirrored = torch.rand(self.size, generator=generator) < 0.5
        silent = torch.rand(self.size, generator=generator) < WITHOUT_CAPTION
        other = torch.rand(self.size, generator=generator) < RECOLOURED
        pair = [as_tensor(kind[chosen.numpy()], self.device) for kind in (self.sharp, self.soft)]
        for row in other.nonzero()[:, 0].tolist():
            both = recolour(torch.cat([kind[row] for kind in pair], 1).cpu(), generator)
            pair[0][row], pair[1][row] = torch.split(both.to(self.device), SIZE, 1)
        parts = (*pair, self.faces[chosen].to(self.device))
        sharp, soft, faces = (flipped(part, mirrored) for part in parts)
        rows = torch.where(silent, torch.full_like(chosen, -1), chosen)
        tokens = self.read(rows, generator).to(self.device)
        return Batch(self.encode(sharp), self.encode(soft), faces, tokens)

    def read(self, rows: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """The tokens of crops; -1 stands for no caption."""
        return self.tokens[rows]

    def tokenize(self, texts: list[str]) -> Tensor:
        """``(B, 77)``."""
        tokens: Tensor = self.tokenizer(
            texts, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        return tokens


def inside(face: dict[str, float]) -> Tensor:
    """``(1, h, w)``: 1 inside a box in pixels of the crop."""
    inside = torch.zeros(1, SIZE // 2, SIZE // 2)
    x0, y0, x1, y1 = (round(face[edge] / 2) for edge in ("x0", "y0", "x1", "y1"))
    inside[:, y0:y1, x0:x1] = 1
    return inside


def flipped(pictures: Tensor, mirrored: Tensor) -> Tensor:
    """Pictures ``(B, C, h, w)``, those left to right that ``(B,)`` says."""
    return torch.where(per_row(mirrored, pictures), pictures.flip(-1), pictures)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """Values ``(B,)`` as ``(B, 1, 1, 1)``, where ``like`` is."""
    return values[:, None, None, None].to(like.device)
