from __future__ import annotations

import numpy as np
import pytest

from afterdetail.masks import from_array
from afterdetail.types import Gray, Mask
from afterdetail.waves import overlap, waves


def row(*spans: tuple[int, int]) -> Mask:
    """A mask of one row of 60 pixels."""
    gray = np.zeros((1, 60), np.uint8)
    for start, end in spans:
        gray[0, start:end] = 1
    return from_array(gray)


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        pytest.param([], (), id="nothing"),
        pytest.param([row((0, 9))], ((0,),), id="one"),
        pytest.param([row((0, 9)), row((10, 19))], ((0, 1),), id="apart"),
        pytest.param([row((0, 10)), row((10, 19))], ((0, 1),), id="side by side"),
        pytest.param([row((0, 10)), row((9, 19))], ((0,), (1,)), id="one pixel shared"),
        pytest.param([row((0, 9))] * 3, ((0,), (1,), (2,)), id="the same place"),
        pytest.param([row((0, 10)), row((9, 20)), row((19, 30))], ((0,), (1,), (2,)), id="a chain"),
        pytest.param([row((0, 10)), row((19, 30)), row((9, 20))], ((0, 1), (2,)), id="a bridge"),
        pytest.param([row((0, 10)), row((5, 15)), row((40, 50)), row((14, 20))],
                     ((0, 2), (1,), (3,)), id="one apart joins the first"),
        pytest.param([row((0, 9), (20, 29)), row((10, 19))], ((0, 1),), id="in the gap of another"),
        pytest.param([row((0, 9)), row()], ((0, 1),), id="an empty mask waits for none"),
    ],
)  # fmt: skip
def test_waves(masks: list[Mask], expected: tuple[tuple[int, ...], ...]) -> None:
    assert waves(masks) == expected


def triangle(lower: bool) -> Gray:
    gray = np.tri(20, 20, -1, np.uint8) * 255
    return gray if lower else gray.T


def test_boxes_may_overlap_where_masks_do_not() -> None:
    assert not overlap(from_array(triangle(True)), from_array(triangle(False)))
    assert overlap(from_array(triangle(True)), from_array(np.eye(20, k=-1, dtype=np.uint8)))
