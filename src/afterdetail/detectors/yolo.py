"""YOLOv8 detectors: boxes, or outlines where the weights segment.

The network is Ultralytics' YOLOv8 (https://docs.ultralytics.com/models/yolov8), written anew here.
Held to ultralytics 8.4's ``predict`` with its defaults and ``iou=0.7, max_det=300``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from afterdetail.detectors.base import DEFAULT_CONFIDENCE
from afterdetail.detectors.select import by_score
from afterdetail.detectors.yolo_boxes import Floats, Letterbox, Predictions, select
from afterdetail.detectors.yolo_torch import TorchNetwork
from afterdetail.errors import WeightsError
from afterdetail.models.catalogue import Outline
from afterdetail.types import RGB, Box, Detection, Gray, Polygon, Size

SUFFIXES = (".pt", ".pth", ".safetensors", ".onnx")


class Network(Protocol):
    """A YOLOv8 network, wherever it runs; thread-safe."""

    class_names: tuple[str, ...]
    segments: bool
    """Whether it has masks."""
    input_size: Size | None
    """The one size it takes; None: any multiples of 32."""

    def __call__(self, picture: RGB, confidence: float) -> Predictions:
        """All candidates of a letterboxed picture that score above ``confidence``, or all."""
        ...


def open_network(path: Path) -> Network:
    """Load a weights file: ``.pt`` (never unpickled in full), ``.safetensors`` or ``.onnx``.

    Raises:
        WeightsError: another kind of file, a damaged one, or no YOLOv8 network.
        ModelUnavailable: an ``.onnx`` file, and onnxruntime is not installed.
    """
    if path.suffix not in SUFFIXES:
        allowed = ", ".join(SUFFIXES)
        raise WeightsError(f"{path} is no detector's weights; they end in {allowed}")
    if path.suffix == ".onnx":
        from afterdetail.detectors.yolo_onnx import OnnxNetwork

        return OnnxNetwork(path)
    return TorchNetwork(path)


class YoloDetector:
    """A YOLOv8 network as a detector.

    Args:
        name: what requests call it.
        network: from :func:`open_network`.
        label: what its detections are called; empty: the name of the class.
        classes: the classes to keep, by name or number; empty: all.
        outline: ``segmentation`` gives detections the polygons of the network's masks.

    Raises:
        WeightsError: the network has no such class, or no masks.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        *,
        label: str = "",
        classes: tuple[str | int, ...] = (),
        outline: Outline = Outline.BOX,
    ) -> None:
        if outline is Outline.SEGMENTATION and not network.segments:
            raise WeightsError(f"the weights of {name} have no masks; set outline = 'box'")
        self.name = name
        self._network = network
        self._classes = _class_numbers(name, classes, network.class_names)
        self._labels = tuple(label or own for own in network.class_names)
        self._outline = outline

    def detect(self, rgb: RGB, confidence: float = DEFAULT_CONFIDENCE) -> list[Detection]:
        """See :class:`~afterdetail.detectors.base.Detector`; needs more than ``confidence``."""
        height, width = rgb.shape[:2]
        letterbox = Letterbox.fit((width, height), self._network.input_size)
        found = self._network(letterbox.apply(rgb), confidence)
        return by_score(self._detections(found, letterbox, confidence))

    def _detections(
        self, found: Predictions, letterbox: Letterbox, confidence: float
    ) -> Iterator[Detection]:
        kept = select(found.boxes, found.scores, confidence, self._classes)
        for row, number, score in zip(kept.rows, kept.classes, kept.scores, strict=True):
            corner = letterbox.to_picture(found.boxes[row].reshape(2, 2))
            box = Box(*corner.flatten().tolist())
            mask = self._mask(found, row, letterbox.input)
            if box.area > 0 and (mask is None or mask.any()):
                polygons = () if mask is None else outlines(mask, letterbox)
                yield Detection(self._labels[number], float(score), box, polygons)

    def _mask(self, found: Predictions, row: int, size: Size) -> Gray | None:
        if self._outline is Outline.BOX:
            return None
        assert found.coefficients is not None
        assert found.prototypes is not None
        return instance_mask(found.prototypes, found.coefficients[row], found.boxes[row], size)


def instance_mask(prototypes: Floats, coefficients: Floats, box: Floats, size: Size) -> Gray:
    """One object's mask over the network's input: 1 inside, 0 outside and beyond its box.

    Args:
        prototypes: ``(P, H / 4, W / 4)``.
        coefficients: ``(P,)``.
        box: ``(4,)`` xyxy, pixels of the input.
        size: of the input.
    """
    logits = (coefficients @ prototypes.reshape(len(prototypes), -1)).reshape(prototypes.shape[1:])
    width, height = size
    enlarged = F.interpolate(torch.from_numpy(logits)[None, None], (height, width), mode="bilinear")
    mask = (enlarged[0, 0] > 0).numpy()
    columns, rows = np.arange(width), np.arange(height)
    inside_x = (columns >= box[0]) & (columns < box[2])
    inside_y = (rows >= box[1]) & (rows < box[3])
    cropped: Gray = (mask & inside_x & inside_y[:, None]).astype(np.uint8)
    return cropped


def outlines(mask: Gray, letterbox: Letterbox) -> tuple[Polygon, ...]:
    """The outer contours of a mask over the network's input, in pixels of the picture."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    areas = (contour[:, 0].astype(np.float32) for contour in contours if len(contour) >= 3)
    return tuple(tuple(map(tuple, letterbox.to_picture(area).tolist())) for area in areas)


def _class_numbers(
    name: str, wanted: tuple[str | int, ...], names: tuple[str, ...]
) -> frozenset[int] | None:
    known = {own: number for number, own in enumerate(names)}
    numbers = [known.get(entry, -1) if isinstance(entry, str) else entry for entry in wanted]
    for entry, number in zip(wanted, numbers, strict=True):
        if not 0 <= number < len(names):
            shown = ", ".join(names[:8])
            raise WeightsError(
                f"the weights of {name} have no class {entry!r}; their {len(names)}: {shown}"
            )
    return frozenset(numbers) or None
