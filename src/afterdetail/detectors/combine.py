"""Detectors made of detectors: several at once, and one that looks at a large picture in tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from afterdetail.detectors.base import DEFAULT_CONFIDENCE, Detector
from afterdetail.detectors.select import by_score
from afterdetail.detectors.suppress import Numbers, suppress
from afterdetail.types import RGB, Box, Detection, PixelBox, Size

SAME_IOU = 0.5
SAME_CONTAINED = 0.8
"""Share of the smaller box inside the larger one from which both are one object."""
MOST = 1000
"""Detections that are compared, the most confident: a confidence of 0 lets through what each tile
of a large picture takes for the least likely face."""

OVERLAP = 0.25
"""Part of a tile that its neighbour sees too: an object up to this size is whole in one of them."""

CUT = 2.0
"""Pixels: a box this near to an edge inside the picture is of an object cut by the tile."""


def no_hurry() -> None:
    """A check that never ends anything."""


@dataclass(frozen=True, slots=True)
class Several:
    """What any of several detectors finds; an object that several find counts once."""

    parts: tuple[Detector, ...]

    @property
    def name(self) -> str:
        return " + ".join(part.name for part in self.parts)

    def detect(self, rgb: RGB, confidence: float = DEFAULT_CONFIDENCE) -> list[Detection]:
        """See :class:`~afterdetail.detectors.base.Detector`."""
        return merge(item for part in self.parts for item in part.detect(rgb, confidence))


@dataclass(frozen=True, slots=True)
class Tiled:
    """Looks at the whole picture and at overlapping tiles of it, ``side`` pixels square.

    A detector sees its whole input at 128 to 640 pixels, so objects much smaller than a tenth of a
    large picture escape it; in a tile they are large. There may be hundreds: ``check`` is called
    before each and raises once nobody waits for what is found.
    """

    part: Detector
    side: int
    check: Callable[[], None] = no_hurry

    @property
    def name(self) -> str:
        return f"{self.part.name} in tiles of {self.side}"

    def detect(self, rgb: RGB, confidence: float = DEFAULT_CONFIDENCE) -> list[Detection]:
        """See :class:`~afterdetail.detectors.base.Detector`."""
        found = self.part.detect(rgb, confidence)
        height, width = rgb.shape[:2]
        for tile in tiles((width, height), self.side):
            self.check()
            seen = self.part.detect(rgb[tile.slices], confidence)
            moved = (shifted(item, tile.x0, tile.y0) for item in seen)
            found += [item for item in moved if not is_cut(item.box, tile, (width, height))]
            found = _best(found)
        return merge(found)


def tiles(size: Size, side: int) -> Iterator[PixelBox]:
    """Tiles of equal distance that cover the picture; none if one would be the whole of it."""
    width, height = size
    if max(width, height) <= side:
        return
    for y in _starts(height, side):
        for x in _starts(width, side):
            yield PixelBox(x, y, min(x + side, width), min(y + side, height))


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin along one side of the picture, neighbours sharing ``OVERLAP`` or more."""
    room = max(0, length - side)
    count = -(-room // max(1, int(side * (1 - OVERLAP))))
    return [round(room * index / count) for index in range(count + 1)] if count else [0]


def is_cut(box: Box, tile: PixelBox, size: Size) -> bool:
    """Whether a tile's edge, not the picture's, ends the box: a neighbour sees more of it."""
    width, height = size
    return (
        (tile.x0 > 0 and box.x0 - tile.x0 < CUT)
        or (tile.y0 > 0 and box.y0 - tile.y0 < CUT)
        or (tile.x1 < width and tile.x1 - box.x1 < CUT)
        or (tile.y1 < height and tile.y1 - box.y1 < CUT)
    )


def shifted(item: Detection, x: float, y: float) -> Detection:
    """The detection ``x`` pixels further right and ``y`` further down."""
    box = item.box
    return replace(
        item,
        box=Box(box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y),
        polygons=tuple(tuple((px + x, py + y) for px, py in part) for part in item.polygons),
        keypoints=tuple((px + x, py + y) for px, py in item.keypoints),
    )


def merge(found: Iterable[Detection]) -> list[Detection]:
    """Each object once, by its most confident detection, best first; of the ``MOST`` best.

    Two detections of one label are the same object if their boxes overlap by ``SAME_IOU``, or the
    smaller lies in the larger by ``SAME_CONTAINED``. A face in a person stays a face.
    """
    best = _best(found)
    kept: set[int] = set()
    for label in {item.label for item in best}:
        rows = np.array([row for row, item in enumerate(best) if item.label == label])
        boxes = np.array([_corners(best[row].box) for row in rows])
        kept.update(rows[suppress(boxes, _others, MOST)].tolist())
    return [best[row] for row in sorted(kept)]


def _best(found: Iterable[Detection]) -> list[Detection]:
    return by_score(found)[:MOST]


def _corners(box: Box) -> tuple[float, float, float, float]:
    """Of a box without area where this one is inside out."""
    return box.x0, box.y0, max(box.x0, box.x1), max(box.y0, box.y1)


def _others(area: Numbers, areas: Numbers, shared: Numbers) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):  # what has no area is like nothing else: 0 / 0
        contained = shared / np.minimum(area, areas) >= SAME_CONTAINED
        overlapping = shared / (area + areas - shared) >= SAME_IOU
    others: npt.NDArray[np.bool_] = ~(contained | overlapping)
    return others


def combine(
    parts: Sequence[Detector], tile: int | None = None, check: Callable[[], None] = no_hurry
) -> Detector:
    """One detector of all these, each looking in tiles if a side is given, as :class:`Tiled`."""
    looking = [Tiled(part, tile, check) for part in parts] if tile else list(parts)
    return looking[0] if len(looking) == 1 else Several(tuple(looking))
