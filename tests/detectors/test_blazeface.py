"""The two face box detectors against MediaPipe's, and the parts they are made of."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from afterdetail.detectors.blazeface import (
    FULL_RANGE,
    PALM,
    SHORT_RANGE,
    Architecture,
    anchors,
    decode,
    find,
    weighted_nms,
)
from afterdetail.detectors.mediapipe import MEDIAPIPE
from afterdetail.types import RGB, Box, Size

SHORT, FULL = MEDIAPIPE["face_short_mediapipe"], MEDIAPIPE["face_full_mediapipe"]
Golden = tuple[RGB, dict[str, Any]]
# The issue asks for IoU 0.97 and scores within 0.01. A letterbox that rounds otherwise than the
# reference's keeps to that and fails these.
IOU, SCORE, PIXELS = 0.999, 0.001, 0.1


@pytest.mark.parametrize("detector", [SHORT, FULL], ids=lambda detector: detector.name)
@pytest.mark.parametrize("size", [(16, 16), (300, 200)])
def test_nothing_is_found_in_nothing(detector: Any, size: Size) -> None:
    assert detector.detect(np.zeros((size[1], size[0], 3), dtype=np.uint8)) == []


@pytest.mark.parametrize(
    ("architecture", "key"), [(SHORT_RANGE, "face_short"), (FULL_RANGE, "face_full")]
)
def test_finds_what_the_reference_finds(
    golden: Golden, architecture: Architecture, key: str
) -> None:
    rgb, expected = golden
    found = find(rgb, architecture, architecture.floor)
    assert len(found) == len(expected[key])
    for ours, theirs in zip(found, expected[key], strict=True):
        assert Box(*ours.box.tolist()).iou(Box(*theirs["box"])) >= IOU
        assert ours.score == pytest.approx(theirs["score"], abs=SCORE)
        np.testing.assert_allclose(ours.keypoints, theirs["keypoints"], atol=PIXELS)


@pytest.mark.parametrize(("detector", "key"), [(SHORT, "face_short"), (FULL, "face_full")])
def test_detections_are_clipped_and_come_best_first(
    golden: Golden, detector: Any, key: str
) -> None:
    rgb, expected = golden
    size = (rgb.shape[1], rgb.shape[0])
    detections = detector.detect(rgb)
    scores = [found.score for found in detections]
    assert scores == sorted(scores, reverse=True)
    for found, theirs in zip(detections, expected[key], strict=True):
        assert found.label == "face"
        assert found.polygons == ()
        assert len(found.keypoints) == 6
        assert found.box == found.box.clipped(size)
        assert found.box.iou(Box(*theirs["box"]).clipped(size)) >= IOU


@pytest.mark.parametrize("detector", [SHORT, FULL], ids=lambda detector: detector.name)
def test_lower_confidence_finds_more_and_higher_less(
    photo: Callable[[str], RGB], detector: Any
) -> None:
    rgb = photo("fr_obama.jpg")
    counts = [len(detector.detect(rgb, confidence)) for confidence in (0.1, 0.3, 0.95)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1] == 0


@pytest.mark.parametrize(
    "size", [(16, 16), (17, 301), (8192, 16), (16, 8192), (4000, 100), (8192, 8192)]
)
@pytest.mark.parametrize("detector", list(MEDIAPIPE.values()), ids=list(MEDIAPIPE))
def test_any_size_gives_boxes_inside_the_picture(
    photo: Callable[[str], RGB], detector: Any, size: Size
) -> None:
    face = photo("skimage_astronaut.png")[20:276, 100:356]
    rgb = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    height, width = min(size[1], 256), min(size[0], 256)
    rgb[:height, :width] = face[:height, :width]
    for found in detector.detect(rgb, 0.01):
        assert found.box.area > 0
        assert found.box == found.box.clipped(size)


def test_threads_do_not_disturb_each_other(photo: Callable[[str], RGB]) -> None:
    pictures = [photo("skimage_astronaut.png"), photo("mpl_grace_hopper.jpg")] * 6
    alone = [FULL.detect(rgb) for rgb in pictures]
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(FULL.detect, pictures)) == alone


@pytest.mark.parametrize(
    ("architecture", "count", "first", "last"),
    [
        (SHORT_RANGE, 896, (1 / 32, 1 / 32), (15 / 16, 15 / 16)),
        (FULL_RANGE, 2304, (1 / 96, 1 / 96), (95 / 96, 95 / 96)),
        (PALM, 2016, (1 / 48, 1 / 48), (23 / 24, 23 / 24)),
    ],
)
def test_anchors_are_the_centres_of_the_cells(
    architecture: Architecture, count: int, first: tuple[float, ...], last: tuple[float, ...]
) -> None:
    centres = anchors(architecture.side, architecture.grid)
    assert centres.shape == (count, 2)
    assert tuple(centres[0]) == pytest.approx(first)
    assert tuple(centres[-1]) == pytest.approx(last)


def test_decode_drops_low_scores_and_boxes_of_no_size() -> None:
    # Offset of the centre, size, one key point; pixels of an input of 100.
    regressors = np.array(
        [[0, 0, 20, 40, 5, 5], [10, 0, 20, 20, 0, 0], [0, 0, -1, 5, 0, 0], [0, 0, np.nan, 5, 0, 0]],
        dtype=np.float32,
    )
    logits = np.array([[2.0], [-2.0], [500.0], [3.0]], dtype=np.float32)
    scores, points = decode(regressors, logits, np.full((4, 2), 0.5), 100, 0.5)
    assert scores == pytest.approx([1 / (1 + np.exp(-2))])
    np.testing.assert_allclose(points, [[[0.4, 0.3], [0.6, 0.7], [0.55, 0.55]]], atol=1e-7)


BIG, SHIFTED, FAR = [[0, 0], [10, 10]], [[2, 0], [12, 10]], [[50, 50], [60, 60]]
LINE = [[0, 0], [10, 0]]


@pytest.mark.parametrize(
    ("scores", "boxes", "expected_scores", "expected_boxes"),
    [
        ([], [], [], []),
        ([0.7], [BIG], [0.7], [BIG]),
        ([0.6, 0.9], [FAR, BIG], [0.9, 0.6], [BIG, FAR]),
        ([0.25, 0.75], [SHIFTED, BIG], [0.75], [[[0.5, 0], [10.5, 10]]]),
        ([0.5, 0.5, 0.5], [BIG, FAR, SHIFTED], [0.5, 0.5], [[[1, 0], [11, 10]], FAR]),
        ([0.9, 0.8], [LINE, FAR], [0.9], [LINE]),
    ],
    ids=["none", "one", "apart", "weighted", "three", "a box without area ends it"],
)
def test_weighted_suppression_joins_what_overlaps(
    scores: list[float], boxes: list[Any], expected_scores: list[float], expected_boxes: list[Any]
) -> None:
    points = np.array(boxes, dtype=np.float64).reshape(-1, 2, 2)
    kept, means = weighted_nms(np.array(scores, dtype=np.float64), points)
    assert kept.tolist() == pytest.approx(expected_scores)
    np.testing.assert_allclose(means, np.array(expected_boxes).reshape(-1, 2, 2))
