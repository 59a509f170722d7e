"""Previews: what is drawn where."""

from __future__ import annotations

import numpy as np

from afterdetail.masks import draw as draw_mask
from afterdetail.preview import COLOURS, FILL, MASK, draw
from afterdetail.types import Box, Detection, Picture

GRAY = Picture(np.full((200, 300, 3), 100, np.uint8))
FACE = Detection("face", 0.9, Box(100, 80, 200, 180))
TRIANGLE = ((100.0, 80.0), (199.0, 80.0), (100.0, 179.0))


def test_nothing_found_is_the_picture_itself() -> None:
    assert np.array_equal(draw(GRAY, []).rgb, GRAY.rgb)


def test_a_box_is_filled_and_framed_and_the_rest_is_left() -> None:
    drawn = draw(GRAY, [FACE]).rgb
    tint = 100 + (np.array(COLOURS[0]) - 100) * FILL / 255
    assert np.abs(drawn[130, 150] - tint).max() <= 1
    assert tuple(drawn[80, 150]) == COLOURS[0]
    assert tuple(drawn[179, 150]) == COLOURS[0]
    assert np.array_equal(drawn[185:], GRAY.rgb[185:])
    assert not np.array_equal(drawn[:80], GRAY.rgb[:80])  # label and score stand above the box


def test_an_outline_is_filled_instead_of_its_box() -> None:
    drawn = draw(GRAY, [Detection("face", 0.9, FACE.box, (TRIANGLE,))]).rgb
    assert tuple(drawn[150, 110]) != (100, 100, 100)
    assert tuple(drawn[170, 190]) == (100, 100, 100)


def test_a_mask_is_filled_instead_of_the_outline() -> None:
    mask = draw_mask(Detection("face", 0.9, Box(110, 90, 120, 100)), (300, 200))
    drawn = draw(GRAY, [FACE], [mask]).rgb
    tint = 100 + (np.array(MASK) - 100) * FILL / 255
    assert np.abs(drawn[95, 115] - tint).max() <= 1
    assert tuple(drawn[130, 150]) == (100, 100, 100)
    assert tuple(drawn[80, 150]) == COLOURS[0]


def test_neighbours_differ_in_colour() -> None:
    other = Detection("face", 0.5, Box(10, 100, 60, 160))
    drawn = draw(GRAY, [FACE, other]).rgb
    assert tuple(drawn[159, 30]) == COLOURS[1]


def test_objects_at_every_edge_keep_their_label_inside() -> None:
    whole = Detection("a label far longer than the picture is wide " * 5, 1.0, Box(0, 0, 300, 200))
    drawn = draw(GRAY, [whole, Detection("face", 0.1, Box(299, 199, 300, 200))]).rgb
    assert drawn.shape == GRAY.rgb.shape
    assert tuple(drawn[100, 0]) == COLOURS[0]


def test_alpha_and_profile_are_kept() -> None:
    alpha = np.full((200, 300), 7, np.uint8)
    drawn = draw(Picture(GRAY.rgb, alpha, b"profile"), [FACE])
    assert drawn.alpha is alpha
    assert drawn.icc_profile == b"profile"
