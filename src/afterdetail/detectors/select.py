"""Which detections to keep, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from afterdetail.types import Detection


def by_score(detections: Iterable[Detection]) -> list[Detection]:
    """The most confident first; of equal scores the leftmost, then the topmost."""
    return sorted(detections, key=lambda found: (-found.score, found.box.x0, found.box.y0))


def top_k(detections: Sequence[Detection], k: int | None) -> list[Detection]:
    """The ``k`` most confident, best first; None keeps them all."""
    return by_score(detections)[:k]
