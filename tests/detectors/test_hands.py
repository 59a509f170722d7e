"""Hands against the palms and regions of MediaPipe's hand tracking."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from afterdetail.detectors.blazeface import PALM, find
from afterdetail.detectors.geometry import Roi
from afterdetail.detectors.hands import hand_region, upright_box
from afterdetail.detectors.mediapipe import MEDIAPIPE
from afterdetail.types import RGB, Box

HANDS = MEDIAPIPE["hand_mediapipe"]
Golden = tuple[RGB, dict[str, Any]]


def test_no_hand_in_nothing() -> None:
    assert HANDS.detect(np.zeros((200, 300, 3), dtype=np.uint8)) == []


def test_palms_and_their_regions_are_the_references(golden: Golden) -> None:
    rgb, expected = golden
    if "palms" not in expected:
        pytest.skip("no palms on record for photographs that are not committed")
    found = find(rgb, PALM, PALM.floor)
    assert len(found) == len(expected["palms"])
    for ours, theirs in zip(found, expected["palms"], strict=True):
        assert ours.score == pytest.approx(theirs["score"], abs=0.001)
        assert Box(*ours.box.tolist()).iou(Box(*theirs["box"])) >= 0.999
        np.testing.assert_allclose(ours.keypoints, theirs["keypoints"], atol=0.1)
        region = hand_region(ours)
        x, y, width, height, rotation = theirs["roi"]
        assert (region.x, region.y) == pytest.approx((x, y), abs=0.1)
        assert (region.width, region.height) == pytest.approx((width, height), abs=0.1)
        assert region.rotation == pytest.approx(rotation, abs=0.001)


def test_a_hand_is_the_upright_box_around_its_region(golden: Golden) -> None:
    rgb, expected = golden
    size = (rgb.shape[1], rgb.shape[0])
    for found, palm in zip(HANDS.detect(rgb), expected.get("palms", []), strict=False):
        assert found.label == "hand"
        assert len(found.keypoints) == 7
        assert found.box.iou(upright_box(Roi(*palm["roi"]), size)) >= 0.99


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        (Roi(50, 50, 20, 20), Box(40, 40, 60, 60)),
        (Roi(50, 50, 20, 20, np.pi / 4), Box(35.858, 35.858, 64.142, 64.142)),
        (Roi(0, 0, 20, 20), Box(0, 0, 10, 10)),
        (Roi(-50, 0, 20, 20), Box(0, 0, 0, 10)),
    ],
)
def test_a_box_is_cut_at_the_edges(region: Roi, expected: Box) -> None:
    box = upright_box(region, (100, 100))
    assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx(
        (expected.x0, expected.y0, expected.x1, expected.y1), abs=0.001
    )
