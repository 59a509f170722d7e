"""Which detections to repaint, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import dist

from afterdetail.options import LibraryOptions, Order
from afterdetail.types import Box, Detection, Point, Size

Numbered = tuple[int, Detection]
"""A detection and its id: its place among all that were found, best first."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The ids of what to repaint, in the order of work; and of all else, why not."""

    kept: tuple[int, ...]
    left_out: Mapping[int, str]


def by_score(detections: Iterable[Detection]) -> list[Detection]:
    """The most confident first; of equal scores the leftmost, then the topmost."""
    return sorted(detections, key=lambda found: (-found.score, found.box.x0, found.box.y0))


def select(
    found: Sequence[Detection], size: Size, options: LibraryOptions, limit: int
) -> Selection:
    """Choose among what was found, and put it in order.

    First an object must have the right share of the picture, then be among the largest, then among
    the most confident.

    Args:
        found: best first.
        size: the picture's.
        limit: most objects, whatever the options say.
    """
    kept: list[Numbered] = list(enumerate(found))
    left_out: dict[int, str] = {}
    for keep, reason in (
        (_of_area(options, size), "not between min_area_ratio and max_area_ratio of the picture"),
        (_largest(options.k_largest), "not among the k_largest"),
        (_first(options.max_num_detections), "not among the max_num_detections most confident"),
        (_first(limit), f"not among the {limit} objects repainted in one picture at most"),
    ):
        survivors = keep(kept)
        staying = {number for number, _ in survivors}
        left_out |= {number: reason for number, _ in kept if number not in staying}
        kept = survivors
    kept.sort(key=_turn(options.order, size))  # equals stay as they are, the most confident first
    return Selection(tuple(number for number, _ in kept), left_out)


Keep = Callable[[list[Numbered]], list[Numbered]]


def _of_area(options: LibraryOptions, size: Size) -> Keep:
    least, most = (
        ratio * size[0] * size[1] for ratio in (options.min_area_ratio, options.max_area_ratio)
    )
    return lambda kept: [item for item in kept if least <= item[1].box.area <= most]


def _largest(k: int | None) -> Keep:
    def keep(kept: list[Numbered]) -> list[Numbered]:
        largest = sorted(kept, key=lambda item: -item[1].box.area)[:k]
        return sorted(largest, key=lambda item: item[0])

    return keep


def _first(k: int | None) -> Keep:
    return lambda kept: kept[:k]


def _turn(order: Order, size: Size) -> Callable[[Numbered], float]:
    """What the objects are sorted by."""
    middle = (size[0] / 2, size[1] / 2)
    keys: dict[Order, Callable[[Numbered], float]] = {
        Order.CONFIDENCE: lambda item: item[0],
        Order.LEFT_TO_RIGHT: lambda item: item[1].box.x0,
        Order.CENTER_TO_EDGE: lambda item: dist(middle, _centre(item[1].box)),
        Order.AREA: lambda item: -item[1].box.area,
    }
    return keys[order]


def _centre(box: Box) -> Point:
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
