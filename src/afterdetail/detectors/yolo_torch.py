"""YOLOv8 networks on PyTorch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from afterdetail.detectors.yolo_boxes import Predictions, corners
from afterdetail.detectors.yolo_network import decode_boxes
from afterdetail.detectors.yolo_weights import load_network
from afterdetail.types import RGB, Size

LOGIT_MARGIN = 1e-3
"""Candidates are chosen by logit first; those on the threshold are left to the exact test."""


class TorchNetwork:
    """A network from ``.pt`` or ``.safetensors`` weights, on the CPU; thread-safe.

    Raises:
        WeightsError: see :func:`~afterdetail.detectors.yolo_weights.load_network`.
    """

    input_size: Size | None = None
    """Any multiples of 32."""

    def __init__(self, path: Path) -> None:
        self.network, self.class_names = load_network(path)
        self.segments = self.network.segments

    @torch.inference_mode()
    def __call__(self, picture: RGB, confidence: float) -> Predictions:
        """See :class:`~afterdetail.detectors.yolo.Network`."""
        heads = self.network(to_batch(picture), _logit(confidence) - LOGIT_MARGIN)
        masks = heads.coefficients, heads.prototypes
        coefficients, prototypes = (None if one is None else one.numpy() for one in masks)
        return Predictions(
            boxes=corners(decode_boxes(heads).T.numpy()),
            scores=heads.scores.sigmoid().T.numpy(),
            coefficients=None if coefficients is None else coefficients.T,
            prototypes=prototypes,
        )


def to_batch(picture: RGB) -> Tensor:
    """A uint8 ``(H, W, 3)`` picture as a batch ``(1, 3, H, W)``, 0..1, channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float().div_(255)


def _logit(probability: float) -> float:
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else math.log(probability / (1 - probability))
