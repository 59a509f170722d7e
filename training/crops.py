"""Cuts crops around the faces, sharp and degraded, as the after-detailer's regions are cut.

    python -m training.crops PORTRAITS [--per-portrait 2] [--workers 1] [--seed 0]
    python -m training.crops VARIANTS --name variants

Writes ``{train,held}-{sharp,soft}.npy`` (uint8 ``(N, 128, 128, 3)``) and ``{train,held}.jsonl``
(one record per crop: seed, caption, face box in the crop) to ``build/training/crops``; with a name,
all of the portraits under that. Variants of a head are cut and degraded alike.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image
from tqdm import tqdm

from afterdetail.types import RGB, Box
from training.degrade import degrade
from training.portraits import Portrait, read_portraits

SIZE = 128
CROPS = Path("build/training/crops")


@dataclass(frozen=True, slots=True)
class Crop:
    """A sharp crop, its degraded twin, and the box of what is repainted, in pixels of both."""

    sharp: RGB
    soft: RGB
    face: Box


def cut(portrait: Portrait, rng: np.random.Generator) -> Crop:
    """A square of 1.15 to 2.2 faces somewhere around the face, scaled to 128 x 128."""
    rgb = portrait.read()
    face = found(portrait.box, rng)
    square = _square(face, rgb.shape[0], rng)
    soft = degrade(rgb, portrait.box.height, rng)
    return Crop(_resize(rgb, square), _resize(soft, square), _inside(face, square))


def found(head: Box, rng: np.random.Generator) -> Box:
    """About what a face detector finds of a head: from the brows to the chin.

    Means and deviations are those of ``face_full_mediapipe`` on 60 held-out portraits.
    """
    left, right = rng.normal((-0.07, 1.06), 0.11)
    top, bottom = rng.normal((0.18, 0.97), 0.035)
    return Box(
        head.x0 + left * head.width,
        head.y0 + top * head.height,
        head.x0 + right * head.width,
        head.y0 + bottom * head.height,
    )


def pack(
    portraits: Sequence[Portrait],
    name: str,
    folder: Path,
    per_portrait: int,
    seed: int,
    workers: int = 1,
) -> None:
    """Writes the crops of ``portraits``; the same seed gives the same arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(portraits) * per_portrait, SIZE, SIZE, 3)
    arrays = [
        open_memmap(folder / f"{name}-{kind}.npy", mode="w+", dtype=np.uint8, shape=shape)
        for kind in ("sharp", "soft")
    ]
    drawn = [(p, (seed, p.seed, again)) for again in range(per_portrait) for p in portraits]
    with (
        (folder / f"{name}.jsonl").open("w", encoding="utf-8") as records,
        ProcessPoolExecutor(workers) as pool,
    ):
        made = pool.map(_cut_drawn, drawn, chunksize=16) if workers > 1 else map(_cut_drawn, drawn)
        for index, crop in enumerate(tqdm(made, desc=name, total=len(drawn), mininterval=2)):
            portrait = drawn[index][0]
            arrays[0][index], arrays[1][index] = crop.sharp, crop.soft
            record = {"seed": portrait.seed, "caption": portrait.caption, "face": asdict(crop.face)}
            records.write(json.dumps(record) + "\n")


def _cut_drawn(drawn: tuple[Portrait, tuple[int, ...]]) -> Crop:
    portrait, seeds = drawn
    return cut(portrait, np.random.default_rng(seeds))


def crop_seeds(folder: Path, name: str) -> list[int]:
    """The portrait of each packed crop, by its seed."""
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [int(json.loads(line)["seed"]) for line in lines]


def crop_heads(folder: Path, name: str) -> list[list[int]]:
    """The rows of packed crops that are cut and degraded alike: those of a head's variants."""
    rows = enumerate(crop_seeds(folder, name))
    return [[row for row, _ in head] for _, head in groupby(rows, itemgetter(1))]


def _square(face: Box, extent: int, rng: np.random.Generator) -> Box:
    side = min(extent, max(face.width, face.height) * rng.uniform(1.15, 2.2))
    slack = max(0.0, side - max(face.width, face.height)) / 4
    left = (face.x0 + face.x1 - side) / 2 + rng.uniform(-slack, slack)
    top = (face.y0 + face.y1 - side) / 2 + rng.uniform(-slack, slack)
    left, top = (min(max(edge, 0.0), extent - side) for edge in (left, top))
    return Box(left, top, left + side, top + side)


def _resize(rgb: RGB, square: Box) -> RGB:
    box = (square.x0, square.y0, square.x1, square.y1)
    picture = Image.fromarray(rgb).resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=box)
    return np.asarray(picture)


def _inside(face: Box, square: Box) -> Box:
    scale = SIZE / square.width
    moved = Box(
        (face.x0 - square.x0) * scale,
        (face.y0 - square.y0) * scale,
        (face.x1 - square.x0) * scale,
        (face.y1 - square.y0) * scale,
    )
    return moved.clipped((SIZE, SIZE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("portraits", type=Path, help="folder with metadata.jsonl and img/")
    parser.add_argument("--per-portrait", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of all of them; without: train and held")
    given = parser.parse_args()
    portraits = read_portraits(given.portraits)
    if given.name:
        pack(portraits, given.name, CROPS, given.per_portrait, given.seed, given.workers)
        return
    for name, held in (("held", True), ("train", False)):
        chosen = [portrait for portrait in portraits if portrait.held_out == held]
        pack(chosen, name, CROPS, 1 if held else given.per_portrait, given.seed, given.workers)


if __name__ == "__main__":
    main()
