"""Which objects of a picture are repainted together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from afterdetail.types import Mask, PixelBox


def waves(masks: Sequence[Mask]) -> tuple[tuple[int, ...], ...]:
    """The objects' indices in the order of work: all of one wave are repainted together.

    An object waits for every earlier one (a more confident one) whose blurred mask overlaps its
    own. All objects of a wave start from one and the same picture: the original with the results
    of all earlier waves.
    """
    levels: list[int] = []
    for index, mask in enumerate(masks):
        waits = [levels[earlier] for earlier in range(index) if overlap(masks[earlier], mask)]
        levels.append(max(waits, default=-1) + 1)
    count = max(levels, default=-1) + 1
    return tuple(
        tuple(index for index, level in enumerate(levels) if level == wave) for wave in range(count)
    )


def overlap(one: Mask, other: Mask) -> bool:
    """Whether two masks of a picture have a pixel > 0 in common."""
    x0, y0 = max(one.box.x0, other.box.x0), max(one.box.y0, other.box.y0)
    x1, y1 = min(one.box.x1, other.box.x1), min(one.box.y1, other.box.y1)
    if x0 >= x1 or y0 >= y1:
        return False
    shared = PixelBox(x0, y0, x1, y1)
    return bool(np.any(np.minimum(_part(one, shared), _part(other, shared))))


def _part(mask: Mask, box: PixelBox) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    left, top = mask.box.x0, mask.box.y0
    return mask.alpha[box.y0 - top : box.y1 - top, box.x0 - left : box.x1 - left]
