"""The portrait set: records, pictures, and which of them are held out."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from afterdetail.types import RGB, Box

HELD_OUT_SHARE = 20
"""One portrait in this many is never trained on."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """One rendered head. ``box`` holds the face, forehead included, in pixels of the picture."""

    path: Path
    seed: int
    caption: str
    box: Box
    attributes: dict[str, object]

    @property
    def held_out(self) -> bool:
        """Decided by the seed alone, so that portraits rendered later join the same halves."""
        return zlib.crc32(str(self.seed).encode()) % HELD_OUT_SHARE == 0

    def read(self) -> RGB:
        with Image.open(self.path) as picture:
            return np.asarray(picture.convert("RGB"))


def read_portraits(folder: Path) -> list[Portrait]:
    """The records of ``folder/metadata.jsonl``, in its order."""
    with (folder / "metadata.jsonl").open(encoding="utf-8") as lines:
        return [_portrait(folder, json.loads(line)) for line in lines]


def _portrait(folder: Path, record: dict[str, object]) -> Portrait:
    box = record["box"]
    attributes = record["attr"]
    assert isinstance(box, list) and isinstance(attributes, dict)
    return Portrait(
        path=folder / str(record["file"]),
        seed=int(str(record["seed"])),
        caption=str(record["caption"]),
        box=Box(*(float(edge) for edge in box)),
        attributes=attributes,
    )
