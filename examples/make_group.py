"""Composes examples/group.png: portraits on a wall, with the faces of diffusion models.

    python -m examples.make_group PORTRAITS [--sharp FILE]

``PORTRAITS`` is the folder of the rendered portraits. The heads are held-out ones, no real person.
``--sharp`` also saves the scene as it was before the faces were spoilt.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from training.degrade import shrink, smear
from training.portraits import Portrait, read_portraits

from afterdetail.types import Box

SIZE = (1024, 768)
COLUMNS = 3
SEEDS = (10672, 11077, 10647, 30626, 10735, 10833)
"""Held-out portraits, from the upper left."""

PICTURE, MAT, FRAME = 240, 24, 10
"""Pixels: side of a portrait, width of the card around it, width of the wood around that."""

FACE = 32
"""Pixels: as high as if the faces had been painted this high, and enlarged."""

WOODS = ((58, 42, 33), (96, 68, 46), (40, 40, 44))


@dataclass(frozen=True, slots=True)
class Hung:
    """A portrait on the wall, its picture's upper left corner in pixels of the scene."""

    portrait: Portrait
    left: int
    top: int

    @property
    def face(self) -> Box:
        """The face's box in the scene."""
        box, scale = self.portrait.box, PICTURE / 192
        return Box(
            self.left + box.x0 * scale,
            self.top + box.y0 * scale,
            self.left + box.x1 * scale,
            self.top + box.y1 * scale,
        )


def hang(portraits: list[Portrait]) -> list[Hung]:
    """Rows of ``COLUMNS`` with even gaps."""
    rows = -(-len(portraits) // COLUMNS)
    outer = PICTURE + 2 * (MAT + FRAME)
    gap_x = (SIZE[0] - COLUMNS * outer) / (COLUMNS + 1)
    gap_y = (SIZE[1] - rows * outer) / (rows + 1)
    hung = []
    for index, portrait in enumerate(portraits):
        row, column = divmod(index, COLUMNS)
        left = gap_x + column * (outer + gap_x) + MAT + FRAME
        top = gap_y + row * (outer + gap_y) + MAT + FRAME
        hung.append(Hung(portrait, round(left), round(top)))
    return hung


def wall(rng: np.random.Generator) -> Image.Image:
    """Plaster, lit from the upper left."""
    width, height = SIZE
    rows, columns = np.mgrid[0:height, 0:width]
    light = 1.06 - 0.22 * (rows / height) - 0.12 * (columns / width)
    grain = Image.fromarray(rng.normal(128, 26, (height // 2, width // 2)).astype(np.uint8))
    grain = grain.resize(SIZE, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(0.8))
    texture = (np.asarray(grain, np.float32) - 128) * 0.12
    colour = np.array([176, 184, 178], np.float32)
    plaster = colour * light[..., None] + texture[..., None]
    return Image.fromarray(np.clip(plaster, 0, 255).astype(np.uint8))


def paint(scene: Image.Image, hung: Hung, wood: tuple[int, int, int]) -> None:
    """Shadow, frame, card and portrait of one head."""
    picture = Image.fromarray(hung.portrait.read())
    picture = picture.resize((PICTURE, PICTURE), Image.Resampling.LANCZOS)
    _shadow(scene, _around(hung, MAT + FRAME))
    draw = ImageDraw.Draw(scene)
    lighter = tuple(min(255, round(value * 1.5)) for value in wood)
    draw.rectangle(_around(hung, MAT + FRAME), fill=wood)
    draw.rectangle(_around(hung, MAT + FRAME), outline=lighter, width=2)
    draw.rectangle(_around(hung, MAT), fill=(240, 236, 226))
    draw.rectangle(_around(hung, MAT), outline=(196, 190, 178), width=2)
    draw.rectangle(_around(hung, 2), fill=(212, 207, 196))
    scene.paste(picture, (hung.left, hung.top))


def _around(hung: Hung, margin: int) -> tuple[int, int, int, int]:
    right, bottom = hung.left + PICTURE - 1, hung.top + PICTURE - 1
    return hung.left - margin, hung.top - margin, right + margin, bottom + margin


def _shadow(scene: Image.Image, box: tuple[int, int, int, int]) -> None:
    mask = Image.new("L", scene.size)
    ImageDraw.Draw(mask).rectangle((box[0] + 8, box[1] + 12, box[2] + 8, box[3] + 12), fill=120)
    dark = ImageChops.multiply(scene, Image.new("RGB", scene.size, (90, 92, 96)))
    scene.paste(dark, mask=mask.filter(ImageFilter.GaussianBlur(9)))


def spoil(scene: Image.Image, face: Box, rng: np.random.Generator) -> None:
    """Degrades the face alone; the scene around it stays crisp, as it does in generated ones."""
    area = (round(face.x0) - 6, round(face.y0) - 6, round(face.x1) + 6, round(face.y1) + 6)
    crop = np.asarray(scene.crop(area))
    smeared = smear(crop, 0.008 * face.height, rng)
    spoilt = Image.fromarray(shrink(smeared, face.height / FACE, rng))
    mask = Image.new("L", spoilt.size)
    ImageDraw.Draw(mask).ellipse((5, 5, spoilt.width - 6, spoilt.height - 6), fill=255)
    scene.paste(spoilt, area[:2], mask.filter(ImageFilter.GaussianBlur(3)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("portraits", type=Path, help="folder with metadata.jsonl and img/")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("group.png"))
    parser.add_argument("--sharp", type=Path, help="also save the scene before it is spoilt")
    given = parser.parse_args()
    by_seed = {portrait.seed: portrait for portrait in read_portraits(given.portraits)}
    hung = hang([by_seed[seed] for seed in SEEDS])
    scene = wall(np.random.default_rng(5))
    for index, one in enumerate(hung):
        paint(scene, one, WOODS[index % len(WOODS)])
    if given.sharp is not None:
        scene.save(given.sharp, optimize=True)
    for one in hung:
        spoil(scene, one.face, np.random.default_rng(one.portrait.seed))
    scene.save(given.out, optimize=True)


if __name__ == "__main__":
    main()
