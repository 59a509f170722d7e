"""Order and choice of detections."""

from __future__ import annotations

import pytest

from afterdetail.detectors.select import by_score, top_k
from afterdetail.types import Box, Detection


def detection(score: float, x0: float = 0.0, y0: float = 0.0) -> Detection:
    return Detection("face", score, Box(x0, y0, x0 + 10, y0 + 10))


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


@pytest.mark.parametrize(
    ("k", "expected"),
    [(1, [BEST]), (2, [BEST, LEFT]), (9, [BEST, LEFT, UPPER]), (None, [BEST, LEFT, UPPER])],
)
def test_top_k_keeps_the_most_confident(k: int | None, expected: list[Detection]) -> None:
    assert top_k([UPPER, LEFT, BEST], k) == expected


def test_top_k_of_nothing_is_nothing() -> None:
    assert top_k([], 3) == []
