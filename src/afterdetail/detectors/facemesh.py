"""MediaPipe's face mesh: 468 points on every face, and the outlines taken from them.

Kartynnik et al., Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs,
https://arxiv.org/abs/1907.06724. Follows ``modules/face_landmark/face_landmark_front_cpu.pbtxt`` of
MediaPipe 0.10.21 for a single picture without iris refinement.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from PIL import Image, ImageDraw

from afterdetail.detectors.base import DEFAULT_CONFIDENCE
from afterdetail.detectors.blazeface import SHORT_RANGE, Found, find, sigmoid
from afterdetail.detectors.geometry import Points, Roi, crop_turned, distinct, turned_square
from afterdetail.detectors.litert import load_network
from afterdetail.detectors.select import by_score
from afterdetail.types import RGB, Box, Detection, Polygon, Size

WEIGHTS = "face_landmark.tflite"
SIDE = 192
MAX_FACES = 20
MIN_PRESENCE = 0.5
RIGHT_EYE, LEFT_EYE = 0, 1
"""Key points of the short-range detector."""

WHOLE_FACE = (tuple(range(468)),)
EYES = (
    (249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466),
    (7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246),
)
"""The mesh points around the left and the right eye (of the person)."""


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """The mesh of one face: its presence score and its points, pixels, ``(468, 2)``."""

    score: float
    points: Points


@dataclass(frozen=True, slots=True)
class FaceMesh:
    """A detector of outlines: the convex hull of each of ``parts``, lists of mesh points.

    A detection's key points are those of its parts, one part after the other.
    """

    name: str
    label: str
    parts: tuple[tuple[int, ...], ...]

    def detect(self, rgb: RGB, confidence: float = DEFAULT_CONFIDENCE) -> list[Detection]:
        """See :class:`~afterdetail.detectors.base.Detector`; at most ``MAX_FACES``."""
        height, width = rgb.shape[:2]
        outlined = (self._outline(mesh, (width, height)) for mesh in meshes(rgb, confidence))
        return by_score(item for item in outlined if item.box.area > 0)

    def _outline(self, mesh: Mesh, size: Size) -> Detection:
        parts = [mesh.points[list(part)] for part in self.parts]
        hulls = tuple(hull(part) for part in parts)
        return Detection(
            label=self.label,
            score=mesh.score,
            box=bounding_box(hulls, size),
            polygons=hulls,
            keypoints=tuple(zip(*np.concatenate(parts).T.tolist(), strict=True)),
        )


def meshes(rgb: RGB, confidence: float) -> list[Mesh]:
    """The mesh of every face, in the order of the inner detection (short range)."""
    regions = regions_of_interest(find(rgb, SHORT_RANGE, confidence)[:MAX_FACES])
    inputs = [partial(crop_turned, rgb, roi, SIDE) for roi in regions]
    found = []
    for roi, (landmarks, presence) in zip(regions, load_network(WEIGHTS).map(inputs), strict=True):
        score = sigmoid(presence).item()
        if score > MIN_PRESENCE:
            relative = landmarks.reshape(-1, 3)[:, :2].astype(np.float64) / SIDE
            found.append(Mesh(score, roi.to_picture(relative)))
    return found


def regions_of_interest(faces: list[Found]) -> list[Roi]:
    """One square region for each face, 1.5 times its box, the eyes level."""
    regions = [
        turned_square(
            face.box, face.keypoints[RIGHT_EYE], face.keypoints[LEFT_EYE], target=0.0, scale=1.5
        )
        for face in faces
    ]
    return [regions[index] for index in distinct(regions)]


def hull(points: Points) -> Polygon:
    """The convex hull of points, cut to whole pixels as those who draw MediaPipe's meshes do."""
    corners = cv2.convexHull(np.trunc(points).astype(np.int32))
    return tuple((float(x), float(y)) for x, y in corners[:, 0].tolist())


def bounding_box(polygons: tuple[Polygon, ...], size: Size) -> Box:
    """The box around the pixels that filled polygons reach in a picture of ``size``."""
    corners = np.concatenate(polygons)
    (x0, y0), (x1, y1) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    whole = Box(x0, y0, x1 + 1, y1 + 1)
    box = whole.clipped(size)
    if box == whole or box.area == 0:
        return box
    # A corner outside the picture does not count, and what it cut off may have been the highest
    # part. (Pillow, because fillPoly of OpenCV bends edges that leave the mask.)
    mask = Image.new("L", (int(box.width), int(box.height)))
    for polygon in polygons:
        moved = [(x - box.x0, y - box.y0) for x, y in polygon]
        ImageDraw.Draw(mask).polygon(moved, fill=255)
    left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
    return Box(box.x0 + left, box.y0 + top, box.x0 + right, box.y0 + bottom)
