"""A dry run as a picture, and what was clicked in it."""

from __future__ import annotations

import numpy as np
import pytest

from afterdetail import masks
from afterdetail.results import DetailedObject, DryRun, Outcome
from afterdetail.types import Box, Detection, Picture
from afterdetail.ui.drawing import LONGEST, REPAINTED, sketch


def dry_run(*boxes: Box, size: tuple[int, int] = (100, 80), skipped: int = -1) -> DryRun:
    width, height = size
    found = [Detection("face", 0.9, box) for box in boxes]
    objects = tuple(
        DetailedObject(item, Outcome.SKIPPED if number == skipped else Outcome.PLANNED, id=number)
        for number, item in enumerate(found)
    )
    drawn = [masks.draw(item, size) for number, item in enumerate(found) if number != skipped]
    return DryRun(Picture(np.zeros((height, width, 3), np.uint8)), objects, tuple(drawn))


def test_nothing_found_is_the_picture() -> None:
    seen = sketch(dry_run())
    assert not seen.drawn.any()
    assert (seen.planned, seen.at((5, 5))) == ([], None)


def test_a_mask_is_coloured_inside_and_only_there() -> None:
    drawn = sketch(dry_run(Box(20, 20, 80, 70))).drawn
    assert not drawn[:18].any() and not drawn[:, :18].any()
    assert np.allclose(drawn[60, 50], np.array(REPAINTED) * 0.55, atol=1)


def test_what_is_left_alone_is_framed_and_not_filled() -> None:
    seen = sketch(dry_run(Box(10, 10, 90, 70), skipped=0))
    assert seen.planned == []
    assert seen.drawn[10, 50].any() and not seen.drawn[60, 50].any()


@pytest.mark.parametrize(
    ("point", "hit"), [((5, 5), None), ((15, 15), 0), ((40, 40), 1), ((95, 75), None)]
)
def test_a_click_hits_the_smallest_object(point: tuple[float, float], hit: int | None) -> None:
    assert sketch(dry_run(Box(10, 10, 90, 70), Box(30, 30, 50, 50))).at(point) == hit


def test_large_pictures_are_made_small_and_clicks_are_scaled() -> None:
    seen = sketch(dry_run(Box(2000, 10, 2100, 110), size=(2560, 1000)))
    assert seen.drawn.shape == (500, LONGEST, 3)
    assert seen.at((1010, 20)) == 0
