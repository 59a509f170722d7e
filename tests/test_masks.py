from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from afterdetail.masks import (
    blur,
    dilate,
    draw,
    erode,
    from_array,
    invert,
    move,
    to_array,
    union,
)
from afterdetail.types import Box, Detection, Gray, Mask, PixelBox, Polygon, Size

SIZE = (40, 30)
NOTHING = np.zeros((30, 40), np.uint8)


def boxed(x0: float, y0: float, x1: float, y1: float) -> Detection:
    return Detection("face", 0.9, Box(x0, y0, x1, y1))


def outlined(*polygons: Polygon) -> Detection:
    return Detection("face", 0.9, Box(0, 0, 1, 1), polygons)


def filled(x0: int, y0: int, x1: int, y1: int, size: Size = SIZE) -> Gray:
    gray = np.zeros((size[1], size[0]), np.uint8)
    gray[y0:y1, x0:x1] = 255
    return gray


def assert_is(mask: Mask, gray: Gray) -> None:
    """The mask is this picture, and its box is that of the pixels > 0."""
    assert np.array_equal(to_array(mask), gray)
    assert mask.alpha.shape == (mask.box.height, mask.box.width)
    ys, xs = np.nonzero(gray)
    tight = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if xs.size else (0, 0, 0, 0)
    assert mask.box == tight
    assert mask.empty == (xs.size == 0)


@pytest.mark.parametrize(
    ("detection", "expected"),
    [
        pytest.param(boxed(5, 5, 5, 9), NOTHING, id="no width"),
        pytest.param(boxed(-9, 3, 0, 9), NOTHING, id="outside"),
        pytest.param(boxed(3, 4, 10, 12), filled(3, 4, 10, 12), id="whole pixels"),
        pytest.param(boxed(3.6, 4.2, 9.1, 11.9), filled(3, 4, 10, 12), id="every touched pixel"),
        pytest.param(boxed(7.2, 7.2, 7.3, 7.3), filled(7, 7, 8, 8), id="less than a pixel"),
        pytest.param(boxed(-5, -5, 99, 99), filled(0, 0, 40, 30), id="more than the picture"),
        pytest.param(outlined(((5, 5), (9.5, 5), (9.5, 8.9), (5, 8.9))), filled(5, 5, 10, 9),
                     id="a polygon"),
        pytest.param(outlined(((-50, -9), (-40, -9), (-40, -1))), NOTHING, id="polygon outside"),
        pytest.param(outlined(((-9, -9), (60, -9), (60, 60), (-9, 60))), filled(0, 0, 40, 30),
                     id="polygon around the picture"),
        pytest.param(outlined(((6.5, 7.5),)), filled(6, 7, 7, 8), id="a polygon of one point"),
        pytest.param(
            outlined(((2, 2), (6, 2), (6, 6), (2, 6)), ((20, 20), (29, 20), (29, 24), (20, 24))),
            filled(2, 2, 7, 7) | filled(20, 20, 30, 25), id="two apart"),
        pytest.param(
            outlined(((2, 2), (9, 2), (9, 9), (2, 9)), ((5, 5), (14, 5), (14, 14), (5, 14))),
            filled(2, 2, 10, 10) | filled(5, 5, 15, 15), id="two that overlap"),
    ],
)  # fmt: skip
def test_the_outline_is_filled(detection: Detection, expected: Gray) -> None:
    assert_is(draw(detection, SIZE), expected)


@pytest.mark.parametrize("corner", [(-7, -5), (25, -5), (-7, 19), (25, 19)])
def test_an_outline_that_leaves_the_picture_keeps_its_shape(corner: tuple[int, int]) -> None:
    x, y = corner
    shape = ((x, y + 4), (x + 13, y), (x + 22, y + 9), (x + 9, y + 16))
    larger = draw(outlined(tuple((px + 40, py + 30) for px, py in shape)), (120, 90))
    cut = to_array(larger)[30:60, 40:80]
    assert_is(draw(outlined(shape), SIZE), cut)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param([NOTHING], NOTHING, id="nothing"),
        pytest.param([filled(3, 3, 5, 5)], filled(3, 3, 5, 5), id="one"),
        pytest.param([filled(3, 3, 5, 5), NOTHING], filled(3, 3, 5, 5), id="one and nothing"),
        pytest.param([filled(9, 9, 20, 20) // 2, filled(0, 0, 12, 12)],
                     np.maximum(filled(9, 9, 20, 20) // 2, filled(0, 0, 12, 12)), id="the larger"),
    ],
)  # fmt: skip
def test_a_union_has_what_any_mask_has(parts: list[Gray], expected: Gray) -> None:
    assert_is(union([from_array(part) for part in parts]), expected)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (0, filled(10, 10, 14, 13)),
        (1, filled(10, 10, 14, 13)),
        (2, filled(9, 9, 15, 14)),
        (3, filled(9, 9, 15, 14)),
        (4, filled(8, 8, 16, 15)),
        (5, filled(8, 8, 16, 15)),
        (24, filled(0, 0, 26, 25)),
        (10**9, filled(0, 0, 40, 30)),
    ],
)
def test_dilation_grows_every_side_alike(kernel: int, expected: Gray) -> None:
    assert_is(dilate(from_array(filled(10, 10, 14, 13)), kernel), expected)


@pytest.mark.parametrize("step", [lambda mask: dilate(mask, 9), lambda mask: blur(mask, 9)])
def test_nothing_stays_nothing(step: Callable[[Mask], Mask]) -> None:
    assert step(from_array(NOTHING)).empty


def test_a_small_mask_under_a_wide_blur_is_nothing() -> None:
    assert blur(from_array(filled(9, 9, 10, 10)), 64).empty


@pytest.mark.parametrize("sigma", [100, 10**6, 10**9, 10**30])
def test_a_full_mask_stays_full_under_any_blur(sigma: int) -> None:
    assert_is(blur(from_array(filled(0, 0, 40, 30)), sigma), filled(0, 0, 40, 30))


def whole_dilated(gray: Gray, kernel: int) -> Gray:
    side = 2 * (kernel // 2) + 1
    return np.asarray(cv2.dilate(gray, np.ones((side, side), np.uint8)), np.uint8)


def whole_blurred(gray: Gray, sigma: int) -> Gray:
    return np.asarray(Image.fromarray(gray).filter(ImageFilter.GaussianBlur(sigma)))


WIDE = (150, 110)
PLACES = [
    pytest.param((60, 50, 75, 62), id="inside"),
    pytest.param((0, 0, 12, 9), id="corner"),
    pytest.param((140, 30, 150, 44), id="right edge"),
    pytest.param((20, 106, 40, 110), id="bottom edge"),
    pytest.param((70, 3, 74, 7), id="four pixels near the top"),
    pytest.param((0, 40, 150, 60), id="from edge to edge"),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kernel", [4, 9, 31, 64, 300])
def test_dilating_the_crop_is_dilating_the_picture(
    place: tuple[int, int, int, int], kernel: int
) -> None:
    gray = filled(*place, WIDE)
    assert_is(dilate(from_array(gray), kernel), whole_dilated(gray, kernel))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("sigma", [1, 2, 4, 7, 16, 40, 200])
def test_blurring_the_crop_is_blurring_the_picture(
    place: tuple[int, int, int, int], sigma: int
) -> None:
    gray = filled(*place, WIDE)
    assert_is(blur(from_array(gray), sigma), whole_blurred(gray, sigma))


def test_no_blur_reaches_further_than_its_crop() -> None:
    gray = filled(1500, 20, 1512, 40, (3000, 60))
    for sigma in range(1, 120):
        assert np.array_equal(to_array(blur(from_array(gray), sigma)), whole_blurred(gray, sigma))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 149), st.integers(0, 109), st.integers(1, 255)), max_size=6),
    st.integers(0, 40),
    st.integers(0, 12),
)
def test_any_mask_is_processed_as_in_the_whole_picture(
    dots: list[tuple[int, int, int]], kernel: int, sigma: int
) -> None:
    gray = np.zeros((110, 150), np.uint8)
    for x, y, value in dots:
        gray[y : y + 5, x : x + 8] = value
    expected = whole_blurred(whole_dilated(gray, kernel), sigma)
    assert_is(blur(dilate(from_array(gray), kernel), sigma), expected)


def test_many_objects_in_a_large_picture_stay_small() -> None:
    size = (8000, 6000)
    faces = [boxed(100 * i, 90 * i, 100 * i + 200, 90 * i + 250) for i in range(64)]
    masks = [blur(dilate(draw(face, size), 4), 4) for face in faces]
    assert sum(mask.alpha.nbytes for mask in masks) < 64 * 250 * 300
    assert all(mask.alpha.base is None or mask.alpha.base.nbytes < 100_000 for mask in masks)


def test_a_box_knows_its_sides() -> None:
    box = PixelBox(3, 4, 10, 20)
    assert (box.width, box.height, box.size) == (7, 16, (7, 16))


@pytest.mark.parametrize("kernel", [0, 1, 2, 4, 5, 9, 31, 1000])
@pytest.mark.parametrize(
    "gray",
    [
        NOTHING,
        filled(5, 5, 30, 25),
        filled(0, 10, 20, 30),
        filled(0, 0, 40, 30),
        filled(3, 3, 9, 9) | filled(20, 2, 40, 17),
    ],
    ids=["nothing", "inside", "at-two-edges", "everything", "two"],
)
def test_erosion_is_that_of_the_whole_picture(gray: Gray, kernel: int) -> None:
    reach = kernel // 2
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    expected = np.asarray(cv2.erode(gray, square), np.uint8)
    if reach >= 40:  # more than the picture: only an edgeless mask stays
        expected = gray if gray.min() == 255 else NOTHING
    assert_is(erode(from_array(gray), kernel), expected)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (0, 0, filled(5, 6, 15, 16)),
        (7, -2, filled(12, 4, 22, 14)),
        (-10, 0, filled(0, 6, 5, 16)),
        (30, 20, filled(35, 26, 40, 30)),
        (-15, 0, NOTHING),
        (0, 24, NOTHING),
        (-60_000, 60_000, NOTHING),
    ],
)
def test_moved_masks_end_at_the_pictures_edge(x: int, y: int, expected: Gray) -> None:
    assert_is(move(from_array(filled(5, 6, 15, 16)), x, y), expected)
    assert move(from_array(NOTHING), x, y).empty


@pytest.mark.parametrize("gray", [NOTHING, filled(5, 6, 15, 16), filled(0, 0, 40, 30)])
def test_inverted_twice_is_the_mask(gray: Gray) -> None:
    assert_is(invert(from_array(gray)), 255 - gray)
    assert_is(invert(invert(from_array(gray))), gray)
