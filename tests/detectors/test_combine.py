from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from afterdetail.detectors.combine import (
    MOST,
    SAME_CONTAINED,
    SAME_IOU,
    Several,
    Tiled,
    combine,
    is_cut,
    merge,
    shifted,
    tiles,
)
from afterdetail.detectors.mediapipe import MEDIAPIPE
from afterdetail.errors import DeadlineExceeded
from afterdetail.types import RGB, Box, Detection, PixelBox


def found(
    x0: float, y0: float, x1: float, y1: float, score: float = 0.9, label: str = "face"
) -> Detection:
    return Detection(label, score, Box(x0, y0, x1, y1))


@dataclass(frozen=True)
class Bright:
    """Finds the one bright rectangle of a dark picture, if it is at least 20 pixels wide."""

    name: str = "bright"
    label: str = "face"
    score: float = 0.9

    def detect(self, rgb: RGB, confidence: float = 0.3) -> list[Detection]:
        ys, xs = np.nonzero(rgb[..., 0] > 127)
        if self.score < confidence or not xs.size or np.ptp(xs) < 20 * max(1, rgb.shape[1] / 400):
            return []
        box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        return [Detection(self.label, self.score, Box(*map(float, box)))]


@dataclass(frozen=True)
class Many:
    """Finds small things wherever it looks."""

    name: str = "many"

    def detect(self, _: RGB, confidence: float = 0.3) -> list[Detection]:
        boxes = (found(9 + 3 * x, 9, 11 + 3 * x, 11, score=x / 120) for x in range(120))
        return [item for item in boxes if item.score >= confidence]


def picture(box: PixelBox, width: int = 1000, height: int = 800) -> RGB:
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[box.slices] = 255
    return rgb


def test_nothing_merges_to_nothing() -> None:
    assert merge([]) == []


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        pytest.param(found(0, 0, 10, 10), found(20, 0, 30, 10), 2, id="apart"),
        pytest.param(found(0, 0, 10, 10), found(1, 1, 11, 11), 1, id="overlapping"),
        pytest.param(found(0, 0, 10, 10), found(7, 0, 17, 10), 2, id="touching"),
        pytest.param(found(0, 0, 30, 30), found(10, 10, 20, 20), 1, id="contained"),
        pytest.param(
            found(0, 0, 30, 30, label="person"), found(10, 10, 20, 20), 2, id="other-label"
        ),
        pytest.param(found(5, 5, 5, 9), found(0, 0, 10, 10), 2, id="without-area"),
    ],
)
def test_merge(one: Detection, other: Detection, count: int) -> None:
    assert len(merge([one, other])) == count


def test_the_most_confident_of_the_same_stays() -> None:
    weak, strong = found(0, 0, 10, 10, score=0.5), found(1, 1, 11, 11, score=0.8)
    assert merge([weak, strong]) == [strong]


def one_by_one(items: list[Detection]) -> list[Detection]:
    """The rule of ``merge``, pair by pair."""
    kept: list[Detection] = []
    for item in sorted(items, key=lambda item: -item.score):
        if not any(same(item, other) for other in kept):
            kept.append(item)
    return kept


def same(one: Detection, other: Detection) -> bool:
    smaller = min(one.box.area, other.box.area)
    if one.label != other.label or not smaller:
        return False
    contained = one.box.intersection(other.box) / smaller
    return contained >= SAME_CONTAINED or one.box.iou(other.box) >= SAME_IOU


@pytest.mark.parametrize("side", [3, 10, 200])
def test_merge_is_its_rule_for_every_pair(side: int) -> None:
    """Whole numbers, so that many boxes are equal, empty, inside out or right at a threshold."""
    rng = np.random.default_rng(side)
    items = [
        Detection("ab"[row % 2], 1 - row / 400, Box(*rng.integers(0, side, 4).tolist()))
        for row in range(400)
    ]
    assert merge(items) == one_by_one(items)


def test_merge_compares_the_most_confident_only() -> None:
    apart = [found(10 * x, 0, 10 * x + 5, 5, score=x / 20_000) for x in range(20_000)]
    assert merge(apart) == apart[: -MOST - 1 : -1]


def test_tiles_are_looked_at_until_the_check_ends_it() -> None:
    looked: list[int] = []

    def check() -> None:
        looked.append(1)
        if len(looked) == 3:
            raise DeadlineExceeded("over")

    with pytest.raises(DeadlineExceeded):
        combine([Many()], 400, check).detect(np.zeros((4000, 4000, 3), np.uint8))
    assert len(looked) == 3


def test_tiles_keep_no_more_than_are_compared() -> None:
    everywhere = Tiled(Many(), 400).detect(np.zeros((4000, 4000, 3), np.uint8))
    assert MOST / 2 < len(everywhere) <= MOST


@pytest.mark.parametrize(
    ("size", "side", "count"),
    [((640, 480), 640, 0), ((641, 480), 640, 2), ((1000, 1000), 400, 9), ((100, 5000), 640, 11)],
)
def test_tiles_cover_the_picture_and_overlap(size: tuple[int, int], side: int, count: int) -> None:
    boxes = list(tiles(size, side))
    assert len(boxes) == count
    covered = np.zeros((size[1], size[0]), np.uint8)
    for box in boxes:
        assert box.width == min(side, size[0])
        assert box.height == min(side, size[1])
        covered[box.slices] = 1
    assert covered.all() or not boxes


def test_a_box_at_the_pictures_own_edge_is_not_cut() -> None:
    tile = PixelBox(0, 0, 100, 100)
    assert not is_cut(Box(0, 0, 50, 50), tile, (200, 200))
    assert is_cut(Box(60, 10, 100, 50), tile, (200, 200))
    assert not is_cut(Box(60, 10, 100, 50), tile, (100, 200))


def test_everything_of_a_detection_moves() -> None:
    item = Detection("face", 0.9, Box(0, 0, 2, 2), (((0, 0), (2, 2)),), ((1, 1),))
    assert shifted(item, 10, 5) == Detection(
        "face", 0.9, Box(10, 5, 12, 7), (((10, 5), (12, 7)),), ((11, 6),)
    )


def test_tiles_find_what_is_too_small_in_the_whole() -> None:
    box = PixelBox(700, 500, 730, 530)
    rgb = picture(box)
    assert Bright().detect(rgb) == []
    assert [item.box for item in Tiled(Bright(), 400).detect(rgb)] == [Box(700, 500, 730, 530)]


@pytest.mark.parametrize("x", range(0, 960, 37))
def test_an_object_on_a_tiles_edge_is_found_once_and_whole(x: int) -> None:
    box = PixelBox(x, 280, x + 40, 320)
    found_boxes = [item.box for item in Tiled(Bright(), 400).detect(picture(box))]
    assert found_boxes == [Box(*map(float, box))]


def test_several_find_an_object_once_and_name_themselves() -> None:
    rgb = picture(PixelBox(100, 100, 300, 300))
    both = Several((Bright("weak", score=0.5), Bright("strong", score=0.8)))
    assert [item.score for item in both.detect(rgb)] == [0.8]
    assert [item.score for item in both.detect(rgb, 0.9)] == []
    assert both.name == "weak + strong"


def test_combine_adds_nothing_that_is_not_asked_for() -> None:
    one = Bright()
    assert combine([one]) is one
    assert combine([one], tile=400) == Tiled(one, 400)
    assert combine([one, one]) == Several((one, one))


def test_a_small_face_of_a_large_photograph_is_found_in_tiles(
    photo: Callable[[str], RGB],
) -> None:
    """The astronaut's face, 71 of 1920 pixels wide: short range misses it in the whole."""
    scene = np.full((1080, 1920, 3), 90, np.uint8)
    head = cv2.resize(photo("skimage_astronaut.png"), (384, 384), interpolation=cv2.INTER_AREA)
    scene[600:984, 1300:1684] = head
    short = MEDIAPIPE["face_short_mediapipe"]
    assert short.detect(scene) == []
    (face,) = Tiled(short, 512).detect(scene)
    assert Box(1433, 662, 1505, 734).iou(face.box) > 0.8
