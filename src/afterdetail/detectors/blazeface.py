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
from afterdetail.detectors.geometry import Points, Roi, crop_letterbox
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
    tensor = crop_letterbox(rgb, side, architecture.low)
    regressors, logits = load_network(architecture.weights)(tensor)
    scores, points = decode(regressors, logits, anchors(side, architecture.grid), side, threshold)
    scores, points = weighted_nms(scores, points)
    placed = Roi.letterbox((width, height)).to_picture(points)
    return [
        Found(score, box.ravel(), keypoints)
        for score, box, keypoints in zip(scores.tolist(), placed[:, :2], placed[:, 2:], strict=True)
    ]


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
    scores = sigmoid(logits[:, 0].clip(-SCORE_CLIP, SCORE_CLIP))
    passed = np.flatnonzero(scores >= np.float32(threshold))
    points = regressors.reshape(len(regressors), -1, 2)[passed] / np.float64(side)
    half = points[:, 1] / 2
    points += centres[passed, None]
    points[:, 1] = points[:, 0] + half
    points[:, 0] -= half
    # A box of negative or undefined size is none. (NaN fails every comparison.)
    real = (half >= 0).all(axis=1)
    return scores[passed][real].astype(np.float64), points[real]


def sigmoid(logits: Tensor) -> Tensor:
    """Logits to scores, 0..1."""
    scores: Tensor = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
    return scores


def weighted_nms(scores: Floats, points: Points) -> tuple[Floats, Points]:
    """Weighted non-maximum suppression: boxes that overlap the best become one with it.

    Its score is the best one's; its points are the mean of all, weighted by score. ``scores`` is
    ``(N,)``; ``points`` is ``(N, P, 2)``, the first two being corners of the box. Returns what is
    left of both, best first. (``NonMaxSuppressionCalculator``, algorithm ``WEIGHTED``.)
    """
    order = np.argsort(-scores, kind="stable")
    scores, points = scores[order], points[order]
    tops: list[float] = []
    means: list[Points] = []
    while len(scores):
        tops.append(scores[0])
        same = overlapping(points)
        if not same.any():
            # A box without area does not even overlap itself. The reference ends here.
            means.append(points[0])
            break
        weights = scores[same] / scores[same].sum()
        means.append(np.einsum("n,npc->pc", weights, points[same]))
        scores, points = scores[~same], points[~same]
    return np.array(tops), np.array(means).reshape(-1, *points.shape[1:])


def overlapping(points: Points) -> npt.NDArray[np.bool_]:
    """Which boxes overlap the first by more than ``OVERLAP``; two corners begin each row."""
    low, high = points[:, 0], points[:, 1]
    extent = high - low
    shared = np.maximum(np.minimum(high, high[0]) - np.maximum(low, low[0]), 0)
    area, common = extent[:, 0] * extent[:, 1], shared[:, 0] * shared[:, 1]
    over: npt.NDArray[np.bool_] = common > OVERLAP * (area + area[0] - common)
    return over
