"""How classifiers see what latents decode to."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from training.attributes import EYES, AttributeNet, features_apart, load_attribute_net
from training.autoencoder import load_autoencoder
from training.linear_code import linear_decoder

ANSWERS = 0.015
"""How much squared differences of answers count beside distances of features: what is asked for may
be small, like a smile or an age, and change few features."""

LOOKS = 2
"""Classifiers that look at each face."""

TURNED = 15.0
"""Up to how many degrees a face is turned before it is looked at, to either side."""

NEARER = (0.7, 1.1)
"""The least and the greatest side of what is looked at, in sides of the square around the face."""

DISCOLOURED = 0.5
"""Share of looks at a face whose colour channels are exchanged and inverted at random."""


class PerceptualDistance:
    """How different faces look to classifiers that are not the one of the benchmarks.

    Several see more than one: what a single network passes over, a model learns to hide there. To
    save time each face is looked at by some of them alone, drawn at random. Each look is at
    another view of it, which makes many of few classifiers (E-LPIPS, Kettunen et al. 2019).
    """

    def __init__(self, device: str = "cpu") -> None:
        self.nets = [load_attribute_net(eye.weights).to(device) for eye in EYES]
        self.decode = linear_decoder(load_autoencoder().to(device))

    def __call__(
        self, made: Tensor, truth: Tensor, face: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Of two stacks ``(B, C, h, w)``: ``(B,)``, from 0.

        Args:
            face: ``(B, 1, h, w)``: more than 0 inside a box, around which the pictures are cut.
        """
        pictures = [self.decode(latents) for latents in (made, truth)]
        looks = torch.randperm(LOOKS * len(face), generator=generator) % len(face)
        seen = torch.zeros(len(face), device=face.device)
        for net, rows in zip(self.nets, looks.tensor_split(len(self.nets)), strict=True):
            if not len(rows):  # a view of none cannot be sampled
                continue
            chosen = rows.to(face.device)
            squares = corners(face[chosen]) @ poses(len(rows), generator).to(face.device)
            colours = discoloured(len(rows), generator).to(face.device)
            views = [
                torch.einsum("bij,bjhw->bihw", colours, cut_out(picture[chosen], squares))
                for picture in pictures
            ]
            seen = seen.index_add(0, chosen, _apart(net, *views))
        return seen / LOOKS


def _apart(net: AttributeNet, first: Tensor, second: Tensor) -> Tensor:
    """Features and answers of two stacks of pictures: ``(B,)``, from 0."""
    seen, wanted = net.features(first), net.features(second)
    answers = (net.answer(seen[-1]) - net.answer(wanted[-1])).square().mean(1)
    return features_apart(seen, wanted) + ANSWERS * answers


def corners(face: Tensor) -> Tensor:
    """Where the square around each face lies: ``(B, 2, 3)``, what ``affine_grid`` takes.

    Args:
        face: ``(B, 1, h, w)``, more than 0 inside a box that is not empty.
    """
    edges = [_extent((face > 0).amax((1, axis))) for axis in (2, 3)]  # across, then down
    side = torch.stack([end - start for start, end in edges]).amax(0)
    middles = [
        torch.minimum(torch.maximum((start + end) / 2, side / 2), 1 - side / 2)
        for start, end in edges
    ]
    squares = torch.zeros(len(face), 2, 3, device=face.device)
    for axis, middle in enumerate(middles):
        squares[:, axis, axis], squares[:, axis, 2] = side, 2 * middle - 1
    return squares


def cut_out(pictures: Tensor, squares: Tensor) -> Tensor:
    """What lies in each square, enlarged to the size of the pictures, ``(B, 3, H, W)``."""
    grid = functional.affine_grid(squares, list(pictures.shape), align_corners=False)
    cut: Tensor = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return cut


def poses(count: int, generator: torch.Generator) -> Tensor:
    """``(B, 3, 3)``: turned, nearer, moved by as much as that leaves, half of them mirrored."""
    turn, near, across, down = torch.rand(4, count, generator=generator)
    angle = (2 * turn - 1) * math.radians(TURNED)
    side = NEARER[0] + (NEARER[1] - NEARER[0]) * near
    mirror = torch.randint(2, (count,), generator=generator) * 2.0 - 1
    made = torch.zeros(count, 3, 3)
    made[:, 0, 0], made[:, 0, 1] = mirror * side * angle.cos(), -side * angle.sin()
    made[:, 1, 0], made[:, 1, 1] = mirror * side * angle.sin(), side * angle.cos()
    for axis, share in enumerate((across, down)):
        made[:, axis, 2] = (2 * share - 1) * (1 - side).abs()
    made[:, 2, 2] = 1
    return made


def discoloured(count: int, generator: torch.Generator) -> Tensor:
    """``(B, 3, 3)``: what the channels of each picture, -1..1, are made of."""
    orders = torch.rand(count, 3, generator=generator).argsort(1)
    signs = torch.randint(2, (count, 1, 1), generator=generator) * 2.0 - 1
    exchanged = signs * torch.eye(3)[orders]
    plain = torch.rand(count, generator=generator) >= DISCOLOURED
    return torch.where(plain[:, None, None], torch.eye(3), exchanged)


def _extent(inside: Tensor) -> tuple[Tensor, Tensor]:
    """Where ``(B, n)`` begins and ends to be true, as shares of n."""
    length = inside.shape[1]
    whole = inside.float()
    start = whole.argmax(1) / length
    return start, 1 - whole.flip(1).argmax(1) / length
