"""BlazeFace, the single-shot detector of MediaPipe, as its face and palm graphs run it.

Bazarevsky et al., BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs,
https://arxiv.org/abs/1907.05047. Constants are those of the graphs of MediaPipe 0.10.21
(``modules/face_detection/*.pbtxt``, ``modules/palm_detection/palm_detection_cpu.pbtxt``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from afterdetail.detectors.base import DEFAULT_CONFIDENCE, score_threshold
from afterdetail.detectors.geometry import Border, Points, Roi, crop
from afterdetail.detectors.litert import Tensor, load_network
from afterdetail.detectors.select import by_score
from afterdetail.types import RGB, Box, Detection

SCORE_CLIP = 100.0
OVERLAP = 0.3
"""Boxes that overlap more (intersection over union) are one object."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Architecture:
    """What tells one BlazeFace network from another.

    ``grid`` lists, for each feature map, its stride in pixels of the input and its number of
    anchors in a cell. ``low`` is the input's value for black (white is 1). ``floor`` is the least
    score the graph lets pass.
    """

    weights: str
    side: int
    grid: tuple[tuple[int, int], ...]
    low: float
    floor: float


SHORT_RANGE = Architecture(
    "face_detection_short_range.tflite", side=128, grid=((8, 2), (16, 6)), low=-1.0, floor=0.5
)
FULL_RANGE = Architecture(
    "face_detection_full_range_sparse.tflite", side=192, grid=((4, 1),), low=-1.0, floor=0.6
)
PALM = Architecture(
    "palm_detection_full.tflite", side=192, grid=((8, 2), (16, 6)), low=0.0, floor=0.5
)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """An object as the network places it, in pixels, perhaps reaching out of the picture."""

    score: float
    box: Floats
    """xyxy, ``(4,)``."""
    keypoints: Points
    """``(K, 2)``: right eye, left eye, nose, mouth, right ear, left ear; of palms, the joints."""


@dataclass(frozen=True, slots=True)
class BlazeFace:
    """A box detector: one box and six key points for each face."""

    name: str
    architecture: Architecture
    label: str = "face"

    def detect(self, rgb: RGB, confidence: float = DEFAULT_CONFIDENCE) -> list[Detection]:
        """See :class:`~afterdetail.detectors.base.Detector`."""
        height, width = rgb.shape[:2]
        threshold = score_threshold(self.architecture.floor, confidence)
        detections = (
            Detection(
                label=self.label,
                score=found.score,
                box=Box(*found.box.tolist()).clipped((width, height)),
                keypoints=tuple((x, y) for x, y in found.keypoints.tolist()),
            )
            for found in find(rgb, self.architecture, threshold)
        )
        return by_score(item for item in detections if item.box.area > 0)


def find(rgb: RGB, architecture: Architecture, threshold: float) -> list[Found]:
    """Every object that scores at least ``threshold``, best first."""
    side = architecture.side
    height, width = rgb.shape[:2]
    whole = Roi.letterbox((width, height))
    tensor = crop(rgb, whole, side, Border.BLACK, architecture.low)
    regressors, logits = load_network(architecture.weights)(tensor)
    scores, points = decode(regressors, logits, anchors(side, architecture.grid), side, threshold)
    found = []
    for score, relative in weighted_nms(scores, points):
        placed = whole.to_picture(relative)
        found.append(Found(score, placed[:2].ravel(), placed[2:]))
    return found


@cache
def anchors(side: int, grid: tuple[tuple[int, int], ...]) -> Points:
    """Centres of the SSD anchors, relative to the input, ``(N, 2)``, in the network's order."""
    maps = []
    for stride, count in grid:
        cells = -(-side // stride)
        y, x = np.mgrid[:cells, :cells]
        centres = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells
        maps.append(np.repeat(centres, count, axis=0))
    return np.concatenate(maps)


def decode(
    regressors: Tensor, logits: Tensor, centres: Points, side: int, threshold: float
) -> tuple[Floats, Points]:
    """Scores ``(N,)`` and points ``(N, 2 + K, 2)`` of the anchors that reach ``threshold``.

    ``regressors`` is ``(A, 4 + 2K)``: centre, size and key points in pixels of the input, centre
    and key points from the anchor. The first two points returned are the corners of the box.
    """
    scores = sigmoid(np.clip(logits[:, 0], -SCORE_CLIP, SCORE_CLIP))
    raw = regressors.reshape(len(regressors), -1, 2)
    # A box of negative or undefined size is none. (NaN fails every comparison.)
    kept = (scores >= np.float32(threshold)) & (raw[:, 1] >= 0).all(axis=1)
    placed = raw[kept].astype(np.float64) / side
    half = placed[:, 1:2] / 2
    placed[:, 1] = 0
    placed += centres[kept, None]
    corners = np.concatenate([placed[:, :1] - half, placed[:, :1] + half], axis=1)
    return scores[kept].astype(np.float64), np.concatenate([corners, placed[:, 2:]], axis=1)


def sigmoid(logits: Tensor) -> Tensor:
    """Logits to scores, 0..1."""
    scores: Tensor = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
    return scores


def weighted_nms(scores: Floats, points: Points) -> list[tuple[float, Points]]:
    """Weighted non-maximum suppression: boxes that overlap the best become one with it.

    Its score is the best one's; its points are the mean of all, weighted by score. ``scores`` is
    ``(N,)``; ``points`` is ``(N, P, 2)``, the first two being corners of the box.
    (``NonMaxSuppressionCalculator``, algorithm ``WEIGHTED``.)
    """
    kept: list[tuple[float, Points]] = []
    order = np.argsort(-scores, kind="stable")
    while len(order):
        best = order[0]
        same = overlaps(points[best, :2], points[order, :2]) > OVERLAP
        if not same.any():
            # A box without area does not even overlap itself. The reference ends here.
            return [*kept, (float(scores[best]), points[best])]
        joined = order[same]
        mean = np.average(points[joined], axis=0, weights=scores[joined])
        kept.append((float(scores[best]), mean))
        order = order[~same]
    return kept


def overlaps(box: Points, boxes: Points) -> Floats:
    """Intersection over union of one box ``(2, 2)`` with many ``(N, 2, 2)``."""
    shared = np.minimum(box[1], boxes[:, 1]) - np.maximum(box[0], boxes[:, 0])
    intersection = shared.clip(min=0).prod(axis=1)
    union = (box[1] - box[0]).prod() + (boxes[:, 1] - boxes[:, 0]).prod(axis=1) - intersection
    ratio: Floats = intersection / np.where(union > 0, union, 1)
    return ratio
