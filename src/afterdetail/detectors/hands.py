"""Hands from MediaPipe's palm detector.

Zhang et al., MediaPipe Hands: On-device Real-time Hand Tracking, https://arxiv.org/abs/2006.10214.
The palm is what the network finds; the region of the whole hand is where
``modules/hand_landmark/palm_detection_detection_to_roi.pbtxt`` of MediaPipe 0.10.21 looks for its
joints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from afterdetail.detectors.base import DEFAULT_CONFIDENCE, score_threshold
from afterdetail.detectors.blazeface import PALM, Found, find
from afterdetail.detectors.geometry import Roi, distinct, turned_square
from afterdetail.detectors.select import by_score
from afterdetail.types import RGB, Box, Detection, Size

WRIST, MIDDLE_FINGER = 0, 2
"""Key points of a palm: the centre of the wrist and the knuckle of the middle finger."""
UNIT_SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


@dataclass(frozen=True, slots=True)
class Hands:
    """A box detector: the upright box around the region of each hand, a palm's seven key points."""

    name: str

    def detect(self, rgb: RGB, confidence: float = DEFAULT_CONFIDENCE) -> list[Detection]:
        """See :class:`~afterdetail.detectors.base.Detector`."""
        height, width = rgb.shape[:2]
        palms = find(rgb, PALM, score_threshold(PALM.floor, confidence))
        regions = [hand_region(palm) for palm in palms]
        detections = (
            Detection(
                label="hand",
                score=palms[index].score,
                box=upright_box(regions[index], (width, height)),
                keypoints=tuple((x, y) for x, y in palms[index].keypoints.tolist()),
            )
            for index in distinct(regions)
        )
        return by_score(item for item in detections if item.box.area > 0)


def hand_region(palm: Found) -> Roi:
    """The square of 2.6 times the palm, moved half a palm towards the fingers, fingers up."""
    wrist, knuckle = palm.keypoints[[WRIST, MIDDLE_FINGER]]
    return turned_square(palm.box, wrist, knuckle, target=math.pi / 2, scale=2.6, shift_y=-0.5)


def upright_box(region: Roi, size: Size) -> Box:
    """The part of a turned region's bounding box inside a picture of ``size``."""
    corners = region.to_picture(UNIT_SQUARE)
    return Box(*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()).clipped(size)
