"""Order and choice of detections."""

from __future__ import annotations

import pytest

from afterdetail.detectors.select import by_score, select
from afterdetail.options import LibraryOptions
from afterdetail.types import Box, Detection

SIZE = (100, 100)


def detection(score: float, x0: float = 0.0, y0: float = 0.0, side: float = 10) -> Detection:
    return Detection("face", score, Box(x0, y0, x0 + side, y0 + side))


BEST, LEFT, UPPER, LOWER = (
    detection(0.9, x0=50),
    detection(0.5, x0=10, y0=80),
    detection(0.5, x0=30),
    detection(0.5, x0=30, y0=40),
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        ([BEST], [BEST]),
        ([LEFT, BEST], [BEST, LEFT]),
        ([LOWER, UPPER, LEFT, BEST], [BEST, LEFT, UPPER, LOWER]),
    ],
)
def test_order_is_by_score_then_left_to_right_then_downwards(
    given: list[Detection], expected: list[Detection]
) -> None:
    assert by_score(given) == expected


def test_equals_stay_in_their_order() -> None:
    first, second = detection(0.5), detection(0.5)
    ordered = by_score([first, second])
    assert ordered[0] is first
    assert ordered[1] is second


def test_of_nothing_nothing_is_selected() -> None:
    chosen = select([], SIZE, LibraryOptions(), 64)
    assert (chosen.kept, chosen.left_out) == ((), {})


# Best first: a large one at the left edge, a small one in the middle, one between in all.
FOUND = [
    detection(0.9, 0, 30, side=40),
    detection(0.8, 45, 45, side=10),
    detection(0.7, 60, 60, side=20),
]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, (0, 1, 2)),
        ({"order": "left_to_right"}, (0, 1, 2)),
        ({"order": "center_to_edge"}, (1, 2, 0)),
        ({"order": "area"}, (0, 2, 1)),
        ({"min_area_ratio": 0.04}, (0, 2)),
        ({"max_area_ratio": 0.04}, (1, 2)),
        ({"min_area_ratio": 0.5}, ()),
        ({"k_largest": 1}, (0,)),
        ({"k_largest": 2}, (0, 2)),
        ({"max_num_detections": 2}, (0, 1)),
        ({"max_num_detections": 9}, (0, 1, 2)),
        ({"max_area_ratio": 0.05, "k_largest": 1}, (2,)),
        ({"k_largest": 2, "max_num_detections": 1, "order": "area"}, (0,)),
    ],
)
def test_what_is_kept_and_in_which_order(options: dict[str, object], kept: tuple[int, ...]) -> None:
    chosen = select(FOUND, SIZE, LibraryOptions.model_validate(options), 64)
    assert chosen.kept == kept
    assert set(chosen.left_out) == set(range(3)) - set(kept)


@pytest.mark.parametrize(
    ("options", "limit", "reason"),
    [
        ({"min_area_ratio": 0.05}, 64, "min_area_ratio"),
        ({"k_largest": 1}, 64, "k_largest"),
        ({"max_num_detections": 1}, 64, "max_num_detections"),
        ({}, 1, "at most"),
    ],
)
def test_who_is_left_out_is_told_why(options: dict[str, object], limit: int, reason: str) -> None:
    chosen = select(FOUND, SIZE, LibraryOptions.model_validate(options), limit)
    assert reason in chosen.left_out[1]


def test_equal_objects_are_taken_by_their_confidence() -> None:
    found = [detection(score, 10, 10) for score in (0.9, 0.8, 0.7)]
    for order in ("left_to_right", "center_to_edge", "area"):
        options = LibraryOptions.model_validate({"order": order, "k_largest": 2})
        assert select(found, SIZE, options, 64).kept == (0, 1)
