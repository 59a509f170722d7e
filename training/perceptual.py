"""How classifiers see what latents decode to."""

from __future__ import annotations

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


class PerceptualDistance:
    """How different faces look to classifiers that are not the one of the benchmarks.

    Several see more than one: what a single network passes over, a model learns to hide there. To
    save time each face is looked at by some of them alone, drawn at random.
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
        first, second = (around(face, self.decode(latents)) for latents in (made, truth))
        looks = torch.randperm(LOOKS * len(face), generator=generator) % len(face)
        seen = torch.zeros(len(face), device=face.device)
        for net, rows in zip(self.nets, looks.tensor_split(len(self.nets)), strict=True):
            chosen = rows.to(face.device)
            seen = seen.index_add(0, chosen, _apart(net, first[chosen], second[chosen]))
        return seen / LOOKS


def _apart(net: AttributeNet, first: Tensor, second: Tensor) -> Tensor:
    """Features and answers of two stacks of pictures: ``(B,)``, from 0."""
    seen, wanted = net.features(first), net.features(second)
    answers = (net.answer(seen[-1]) - net.answer(wanted[-1])).square().mean(1)
    return features_apart(seen, wanted) + ANSWERS * answers


def around(face: Tensor, pictures: Tensor) -> Tensor:
    """The square around each face, enlarged to the size of the pictures, ``(B, 3, H, W)``.

    Args:
        face: ``(B, 1, h, w)``, more than 0 inside a box that is not empty.
    """
    edges = [_extent((face > 0).amax((1, axis))) for axis in (2, 3)]  # across, then down
    side = torch.stack([end - start for start, end in edges]).amax(0)
    middles = [
        torch.minimum(torch.maximum((start + end) / 2, side / 2), 1 - side / 2)
        for start, end in edges
    ]
    corners = torch.zeros(len(face), 2, 3, device=face.device)
    for axis, middle in enumerate(middles):
        corners[:, axis, axis], corners[:, axis, 2] = side, 2 * middle - 1
    grid = functional.affine_grid(corners, list(pictures.shape), align_corners=False)
    cut: Tensor = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return cut


def _extent(inside: Tensor) -> tuple[Tensor, Tensor]:
    """Where ``(B, n)`` begins and ends to be true, as shares of n."""
    length = inside.shape[1]
    whole = inside.float()
    start = whole.argmax(1) / length
    return start, 1 - whole.flip(1).argmax(1) / length
