"""Regions and how they are cut out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from afterdetail.detectors.geometry import (
    Roi,
    crop_letterbox,
    crop_turned,
    distinct,
    letterbox_maps,
    turned_square,
)
from afterdetail.errors import InvalidInput
from afterdetail.types import Size

QUARTER = math.pi / 2


@pytest.mark.parametrize(
    ("roi", "relative", "expected"),
    [
        (Roi(50, 20, 10, 4), (0.5, 0.5), (50, 20)),
        (Roi(50, 20, 10, 4), (0.0, 1.0), (45, 22)),
        (Roi(50, 20, 10, 10, QUARTER), (1.0, 0.5), (50, 25)),
        (Roi(50, 20, 10, 10, QUARTER), (0.0, 0.0), (55, 15)),
        (Roi.letterbox((200, 100)), (0.0, 0.0), (0, -50)),
        (Roi.letterbox((200, 100)), (1.0, 0.75), (200, 100)),
    ],
)
def test_points_of_a_region_are_placed_in_the_picture(
    roi: Roi, relative: tuple[float, float], expected: tuple[float, float]
) -> None:
    assert roi.to_picture(np.array(relative)) == pytest.approx(np.array(expected))


@pytest.mark.parametrize(
    ("start", "end", "target", "rotation"),
    [
        ((0, 0), (10, 0), 0.0, 0.0),
        ((0, 0), (0, 10), 0.0, QUARTER),
        ((0, 0), (10, -10), 0.0, -QUARTER / 2),
        ((0, 10), (0, 0), QUARTER, 0.0),
        ((0, 0), (10, 0), QUARTER, QUARTER),
        ((10, 0), (0, 0), 0.0, -math.pi),
    ],
)
def test_a_region_is_turned_until_its_line_points_to_the_target(
    start: tuple[float, float], end: tuple[float, float], target: float, rotation: float
) -> None:
    box, line = np.array([0.0, 0.0, 20.0, 10.0]), np.array([start, end], dtype=float)
    roi = turned_square(box, line[0], line[1], target=target, scale=1.5)
    assert (roi.x, roi.y, roi.width, roi.height) == pytest.approx((10, 5, 30, 30))
    assert roi.rotation == pytest.approx(rotation)


def test_a_region_shifts_along_its_own_axis() -> None:
    box = np.array([0.0, 0.0, 20.0, 10.0])
    right = turned_square(
        box, np.array([0.0, 0.0]), np.array([10.0, 0.0]), target=QUARTER, scale=1, shift_y=-0.5
    )
    assert (right.x, right.y) == pytest.approx((15, 5))


@pytest.mark.parametrize(
    ("regions", "kept"),
    [
        ([], []),
        ([Roi(0, 0, 10, 10)], [0]),
        ([Roi(0, 0, 10, 10), Roi(20, 0, 10, 10)], [0, 1]),
        ([Roi(0, 0, 10, 10), Roi(1, 0, 10, 10)], [1]),
        ([Roi(0, 0, 10, 10), Roi(1, 0, 10, 10), Roi(30, 0, 10, 10), Roi(2, 0, 10, 10)], [2, 3]),
        ([Roi(0, 0, 0, 0), Roi(0, 0, 0, 0)], [0, 1]),
    ],
)
def test_of_nearly_equal_regions_the_last_stays(regions: list[Roi], kept: list[int]) -> None:
    assert distinct(regions) == kept


@pytest.mark.parametrize(
    ("size", "side", "first", "last"),
    [
        ((128, 128), 128, (0, 0), (127, 127)),
        ((256, 256), 128, (0, 0), (254, 254)),
        ((256, 128), 128, (0, -64), (254, 190)),
        ((64, 64), 128, (0, 0), (63, 63)),
        ((16, 8192), 128, (-4088, 0), (4040, 8128)),
    ],
)
def test_letterbox_maps_begin_at_the_corner_of_the_square(
    size: Size, side: int, first: Size, last: Size
) -> None:
    whole, _ = letterbox_maps(size, side)
    assert tuple(whole[0, 0]) == first
    assert tuple(whole[-1, -1]) == last


def test_letterbox_is_centred_and_black_outside() -> None:
    white = np.full((64, 128, 3), 255, dtype=np.uint8)
    tensor = crop_letterbox(white, 128, -1.0)
    assert tensor.shape == (128, 128, 3)
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor[:32], -1)
    np.testing.assert_allclose(tensor[32:96], 1, atol=1e-6)
    np.testing.assert_array_equal(tensor[96:], -1)


def test_a_turned_crop_repeats_the_edge_and_turns_the_picture() -> None:
    ramp = np.zeros((16, 16, 3), dtype=np.uint8)
    ramp[:, 8:] = 255
    crop = crop_turned(ramp, Roi(8, 8, 32, 32, QUARTER), 32)
    # The region's x axis runs down the picture, its y axis to the left: white comes first.
    np.testing.assert_allclose(crop[:15], 1, atol=1e-6)
    np.testing.assert_array_equal(crop[18:], 0)


def test_a_picture_too_long_for_the_maps_is_refused() -> None:
    with pytest.raises(InvalidInput, match="16x40000 pixels; detectors take up to 32766"):
        crop_letterbox(np.zeros((40000, 16, 3), dtype=np.uint8), 128, -1.0)
