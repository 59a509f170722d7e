"""Face meshes and eye outlines against MediaPipe's."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from afterdetail.detectors.facemesh import MAX_FACES, bounding_box, hull, meshes
from afterdetail.detectors.mediapipe import MEDIAPIPE
from afterdetail.types import RGB, Box, Detection, Gray, Polygon, Size

FACES, EYES = MEDIAPIPE["face_mesh_mediapipe"], MEDIAPIPE["eyes_mesh_mediapipe"]
CONFIDENCE = 0.3
Golden = tuple[RGB, dict[str, Any]]
# Of the face's width. The issue asks for 0.01 and 0.03.
MEAN, WORST = 0.001, 0.003
SMALL_EYE = 200
"""Square pixels: below, outlines are held by their corners instead of their area."""


def left_to_right(detections: list[Detection]) -> list[Detection]:
    return sorted(detections, key=lambda found: found.box.x0)


def filled(polygons: list[Any], size: Size) -> Gray:
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [np.array(polygon, dtype=np.int32)], 255)
    return mask


def mask_iou(one: Gray, other: Gray) -> float:
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def farthest_corner(one: Any, other: Any) -> float:
    """The largest distance of a corner of one polygon to the nearest of the other, both ways."""
    a, b = np.array(one, dtype=float), np.array(other, dtype=float)
    distances: npt.NDArray[np.float64] = np.linalg.norm(a[:, None] - b, axis=-1)
    return float(max(distances.min(axis=0).max(), distances.min(axis=1).max()))


@pytest.mark.parametrize("detector", [FACES, EYES], ids=lambda detector: detector.name)
def test_nothing_is_found_in_nothing(detector: Any) -> None:
    assert detector.detect(np.zeros((200, 300, 3), dtype=np.uint8)) == []


def test_mesh_points_are_the_references(golden: Golden) -> None:
    rgb, expected = golden
    found = meshes(rgb, CONFIDENCE)
    assert len(found) == len(expected["face_mesh"])
    for ours, theirs in zip(found, expected["face_mesh"], strict=True):
        points = np.array(theirs["landmarks"])[:, :2] * (rgb.shape[1], rgb.shape[0])
        distances = np.linalg.norm(ours.points - points, axis=1) / np.ptp(points[:, 0])
        assert ours.points.shape == (468, 2)
        assert distances.mean() <= MEAN
        assert distances.max() <= WORST


def test_a_face_is_the_hull_of_its_mesh(golden: Golden) -> None:
    rgb, expected = golden
    size = (rgb.shape[1], rgb.shape[0])
    detections = left_to_right(FACES.detect(rgb))
    theirs = sorted(expected["face_mesh"], key=lambda face: face["bbox"][0])
    assert len(detections) == len(theirs)
    for found, face in zip(detections, theirs, strict=True):
        assert found.label == "face"
        assert found.score > 0.5
        assert len(found.keypoints) == 468
        assert found.box.iou(Box(*face["bbox"])) >= 0.97
        assert len(found.polygons) == 1
        assert mask_iou(filled([found.polygons[0]], size), filled([face["hull"]], size)) >= 0.99


def test_eyes_are_two_hulls_and_the_box_around_them(golden: Golden) -> None:
    rgb, expected = golden
    size = (rgb.shape[1], rgb.shape[0])
    detections = left_to_right(EYES.detect(rgb))
    theirs = sorted(expected["eyes"], key=lambda face: face["bbox"][0])
    assert len(detections) == len(theirs)
    for found, face in zip(detections, theirs, strict=True):
        assert found.label == "eyes"
        assert found.box.iou(Box(*face["bbox"])) >= 0.97
        outlines = [face["left"], face["right"]]
        if face["area"] >= SMALL_EYE:
            ours = filled(list(found.polygons), size)
            assert mask_iou(ours, filled(outlines, size)) >= 0.9
        for polygon, outline in zip(found.polygons, outlines, strict=True):
            assert farthest_corner(polygon, outline) <= (1 if face["area"] < SMALL_EYE else 2)


def test_equal_scores_go_left_to_right(golden: Golden) -> None:
    rgb, _ = golden
    keys = [(-found.score, found.box.x0) for found in FACES.detect(rgb)]
    assert keys == sorted(keys)


def test_confidence_is_the_inner_detections_threshold(golden: Golden) -> None:
    rgb, _ = golden
    assert FACES.detect(rgb, 1.0) == []


def test_at_most_twenty_faces() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    assert len(FACES.detect(noise, 0.0)) <= MAX_FACES


def test_a_hull_is_cut_to_whole_pixels_towards_zero() -> None:
    corners = hull(np.array([[-0.9, 0.9], [9.9, 0.2], [9.5, 9.99], [0.4, 9.1], [5.5, 5.5]]))
    assert set(corners) == {(0, 0), (9, 0), (9, 9), (0, 9)}


SQUARE, KITE = (
    ((2.0, 3.0), (6.0, 3.0), (6.0, 9.0), (2.0, 9.0)),
    ((5.0, 5.0), (15.0, 0.0), (15.0, 10.0)),
)


@pytest.mark.parametrize(
    ("polygons", "box"),
    [
        ((SQUARE,), Box(2, 3, 7, 10)),
        ((SQUARE, ((9.0, 9.0),)), Box(2, 3, 10, 10)),
        ((((-4.0, -4.0), (3.0, -4.0), (3.0, 5.0), (-4.0, 5.0)),), Box(0, 0, 4, 6)),
        ((KITE,), Box(5, 3, 10, 8)),
        ((((20.0, 20.0), (30.0, 20.0), (30.0, 30.0)),), Box(10, 10, 10, 10)),
    ],
    ids=["inside", "two parts", "cut", "its highest corner is cut off", "outside"],
)
def test_the_box_is_around_the_pixels_in_the_picture(
    polygons: tuple[Polygon, ...], box: Box
) -> None:
    assert bounding_box(polygons, (10, 10)) == box
