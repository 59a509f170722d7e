"""YOLOv8's way into the network and out of it: letterbox, selection, back to the picture.

The arithmetic, rounding included, is that of ultralytics 8.4's ``predict``: the same pictures give
the same boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from afterdetail.detectors.suppress import Indices, Numbers, suppress
from afterdetail.types import RGB, Size

Floats: TypeAlias = npt.NDArray[np.float32]

INPUT_SIZE = 640
STRIDE = 32
GREY = (114, 114, 114)
"""The colour around the picture."""
NMS_IOU = 0.7
MAX_DETECTIONS = 300
MAX_CANDIDATES = 30_000
CLASS_OFFSET = 7680
"""Boxes of class i are moved by i times this, so that suppression stays within a class."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a network sees: N candidates in pixels of its input."""

    boxes: Floats
    """(N, 4) xyxy."""
    scores: Floats
    """(N, classes), 0..1."""
    coefficients: Floats | None
    """(N, prototypes): the share of each prototype in the candidate's mask."""
    prototypes: Floats | None
    """(prototypes, H / 4, W / 4); None also where N is 0."""


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a picture lies in the network's input: scaled evenly, grey around it."""

    picture: Size
    scaled: Size
    """The picture's size inside the input."""
    input: Size
    left: int
    top: int

    @classmethod
    def fit(cls, picture: Size, fixed: Size | None = None) -> Letterbox:
        """The least rectangle of multiples of 32 with a longer side of 640, or a ``fixed`` one."""
        target = fixed or (INPUT_SIZE, INPUT_SIZE)
        ratio = min(target[0] / picture[0], target[1] / picture[1])
        scaled = _scaled(picture, ratio)
        across, down = target[0] - scaled[0], target[1] - scaled[1]
        if fixed is None:
            across, down = across % STRIDE, down % STRIDE
        return cls(
            picture,
            scaled,
            (scaled[0] + across, scaled[1] + down),
            left=round(across / 2 - 0.1),
            top=round(down / 2 - 0.1),
        )

    def apply(self, rgb: RGB) -> RGB:
        """The network's input, uint8 ``(H, W, 3)``."""
        canvas = np.full((self.input[1], self.input[0], 3), GREY, np.uint8)
        width, height = self.scaled
        inside = canvas[self.top : self.top + height, self.left : self.left + width]
        if self.picture == self.scaled:
            inside[:] = rgb
        else:
            inside[:] = cv2.resize(rgb, self.scaled, interpolation=cv2.INTER_LINEAR)
        return canvas

    def to_picture(self, points: Floats) -> Floats:
        """Points ``(N, 2)`` of the input in pixels of the picture, clipped to it.

        Width and height have gains of their own, for each was rounded. They are recomputed from the
        input's size, as the reference does, which now and then is a pixel off ``scaled``.
        """
        ratio = min(self.input[0] / self.picture[0], self.input[1] / self.picture[1])
        size = np.array(_scaled(self.picture, ratio))
        picture = np.array(self.picture)
        pad = [
            round((whole - part) / 2 - 0.1) for whole, part in zip(self.input, size, strict=True)
        ]
        gain = (size / picture).astype(np.float32)
        moved: Floats = ((points - np.array(pad, np.float32)) / gain).clip(0, picture)
        return moved.astype(np.float32)


def _scaled(picture: Size, ratio: float) -> Size:
    return max(round(picture[0] * ratio), 1), max(round(picture[1] * ratio), 1)


def corners(boxes: Floats) -> Floats:
    """Boxes ``(N, 4)`` from centre x, centre y, width, height to xyxy."""
    half = boxes[:, 2:] / 2
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), 1)


@dataclass(frozen=True, slots=True)
class Kept:
    """The candidates kept, best first: their rows, classes and scores."""

    rows: Indices
    classes: Indices
    scores: Floats


def select(
    boxes: Floats, scores: Floats, confidence: float, classes: frozenset[int] | None = None
) -> Kept:
    """The best class of each candidate, above ``confidence``, without overlaps.

    Args:
        boxes: ``(N, 4)`` xyxy.
        scores: ``(N, classes)``, 0..1.
        confidence: a candidate needs more than this.
        classes: those to keep; None: all.
    """
    best = scores.argmax(1)
    score = scores.max(1)
    wanted = score > confidence
    if classes is not None:
        wanted &= np.isin(best, list(classes))
    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(-score[rows], kind="stable")][:MAX_CANDIDATES]
    offset = best[rows, None].astype(np.float32) * CLASS_OFFSET
    rows = rows[non_maximum_suppression(boxes[rows] + offset)]
    return Kept(rows, best[rows], score[rows])


def non_maximum_suppression(boxes: Floats) -> Indices:
    """The rows of xyxy ``boxes`` to keep, at most 300; the boxes come best first.

    A box goes when it overlaps a better one that stays with an IoU above 0.7.
    """

    def others(area: Numbers, areas: Numbers, shared: Numbers) -> npt.NDArray[np.bool_]:
        apart: npt.NDArray[np.bool_] = shared <= NMS_IOU * (area + areas - shared)
        return apart

    return suppress(boxes, others, MAX_DETECTIONS)
