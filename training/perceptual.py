"""How classifiers see what latents decode to."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.attributes import EYES, feature_distance, load_attribute_net
from training.autoencoder import load_autoencoder
from training.linear_code import linear_decoder


class PerceptualDistance:
    """How different faces look to classifiers that are not the one of the benchmarks.

    Two see more than one: what a single network passes over, a model learns to hide there.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.nets = [load_attribute_net(weights).to(device) for weights in EYES]
        self.decode = linear_decoder(load_autoencoder().to(device))

    def __call__(self, made: Tensor, truth: Tensor, face: Tensor) -> Tensor:
        """Of two stacks ``(B, C, h, w)``: ``(B,)``, from 0.

        Args:
            face: ``(B, 1, h, w)``: more than 0 inside a box, around which the pictures are cut.
        """
        first, second = (around(face, self.decode(latents)) for latents in (made, truth))
        apart = [feature_distance(net, first, second) for net in self.nets]
        return torch.stack(apart).mean(0)


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
