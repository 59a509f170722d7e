"""How a classifier sees what latents decode to."""

from __future__ import annotations

from torch import Tensor

from training.attributes import EYE, feature_distance, load_attribute_net
from training.autoencoder import load_autoencoder
from training.linear_code import linear_decoder


class PerceptualDistance:
    """How different latents look to a classifier that is not the one of the benchmarks."""

    def __init__(self, device: str = "cpu") -> None:
        self.net = load_attribute_net(EYE).to(device)
        self.decode = linear_decoder(load_autoencoder().to(device))

    def __call__(self, made: Tensor, truth: Tensor) -> Tensor:
        """Of two stacks ``(B, C, h, w)``: ``(B,)``, from 0."""
        return feature_distance(self.net, self.decode(made), self.decode(truth))
