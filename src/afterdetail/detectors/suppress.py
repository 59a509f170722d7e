"""Greedy suppression of boxes that are one object: what all kinds of detectors share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[np.floating[Any]]
Indices: TypeAlias = npt.NDArray[np.intp]
Others: TypeAlias = Callable[[Numbers, Numbers, Numbers], npt.NDArray[np.bool_]]
"""Which of N boxes are other objects than one box: by its area ``()``, theirs ``(N,)``, and the
areas ``(N,)`` that they share with it."""


def suppress(boxes: Numbers, others: Others, limit: int) -> Indices:
    """The rows of ``boxes``, ``(N, 4)`` xyxy and best first, to keep: at most ``limit``.

    A box goes when it is the same object as a better one that stays.
    """
    x0, y0, x1, y1 = boxes.T
    areas = (x1 - x0) * (y1 - y0)
    order = np.arange(len(boxes))
    kept: list[int] = []
    while order.size and len(kept) < limit:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        width = np.minimum(x1[best], x1[rest]) - np.maximum(x0[best], x0[rest])
        height = np.minimum(y1[best], y1[rest]) - np.maximum(y0[best], y0[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        order = rest[others(areas[best], areas[rest], shared)]
    return np.array(kept, np.intp)
