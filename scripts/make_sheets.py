"""Draw the pictures of docs/parameters.md: a strip for each parameter, a crop for each value.

    python scripts/make_sheets.py [NAME...]

Masks are drawn on a photograph. What is repainted is so by the embedded model, which knows rendered
heads: one of those in the demo's picture. After it has been trained again, run this again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from afterdetail import Detailer, regions
from afterdetail.images import from_any, to_pil
from afterdetail.options import Base
from afterdetail.results import DryRun
from afterdetail.types import Picture, PixelBox
from afterdetail.ui.drawing import sketch

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "parameters"
PHOTO = ROOT / "tests" / "data" / "photos" / "skimage_astronaut.png"
FACE = PixelBox(150, 30, 310, 190)
GROUP = ROOT / "examples" / "group.png"
HEAD = PixelBox(391, 442, 633, 684)
SIDE, LABEL, GAP = 168, 22, 6
"""Pixels of one crop, of the line above it, and between crops."""

COMMON: Mapping[str, Any] = {
    "prompt": "pale skin",
    "cfg_scale": 1.5,
    "seed": 3,
}


@dataclass(frozen=True, slots=True)
class Sheet:
    """Values of one option. ``masks``: draw the masks, repaint nothing; ``crop`` is theirs."""

    option: str
    values: tuple[object, ...]
    strength: float = 0.5
    masks: bool = False
    crop: PixelBox = FACE


SHEETS = (
    Sheet("strength", (0.1, 0.4, 0.7, 0.9, 1.0)),
    Sheet("steps", (2, 5, 10, 20, 50)),
    Sheet("sampler", ("DDIM", "K_EULER", "K_EULER_ANCESTRAL", "UNI_PC", "LCM")),
    Sheet("cfg_scale", (1.0, 2.0, 4.0, 7.5, 15.0)),
    Sheet("seed", (1, 2, 3, 4, 5), strength=1.0),
    Sheet(
        "detector",
        ("face_full_mediapipe", "face_mesh_mediapipe", "eyes_mesh_mediapipe"),
        masks=True,
    ),
    Sheet("mask_dilation", (-24, 0, 4, 24, 48), masks=True),
    Sheet("mask_blur", (0, 4, 8, 16, 32), masks=True),
    Sheet("mask_offset_y", (-32, 0, 32), masks=True),
    Sheet("invert_masks", (False, True), masks=True, crop=PixelBox(0, 0, 512, 512)),
)


def main(wanted: list[str]) -> None:
    """Draw the sheets of these options; of all, if none is named."""
    FOLDER.mkdir(exist_ok=True)
    photo, head = from_any(PHOTO), Image.open(GROUP).crop(HEAD)
    with Detailer(models="tiny", backend="eager") as detailer:
        for sheet in SHEETS:
            if not wanted or sheet.option in wanted:
                draw = partial(_masks, photo) if sheet.masks else partial(_repainted, head)
                _save(sheet, [draw(detailer, sheet, value) for value in sheet.values])
        if not wanted or "mask_padding" in wanted:
            _save_padding(detailer, photo)


def _repainted(
    picture: Image.Image, detailer: Detailer, sheet: Sheet, value: object
) -> Image.Image:
    options = {**COMMON, "strength": sheet.strength, sheet.option: value}
    return to_pil(detailer.detail(picture, **options).picture)


def _masks(picture: Picture, detailer: Detailer, sheet: Sheet, value: object) -> Image.Image:
    option: dict[str, Any] = {sheet.option: value}
    masks = detailer.dry_run(PHOTO, **option).masks
    return Image.fromarray(sketch(DryRun(picture, (), masks)).drawn).crop(sheet.crop)


def _save_padding(detailer: Detailer, picture: Picture) -> None:
    """What the model sees of the picture: the box of the mask and its context."""
    values = (0, 16, 32, 64, 128)
    (mask,) = detailer.dry_run(PHOTO).masks
    spec = detailer.catalogue.bases()[Base.SD15]
    seen = [
        to_pil(picture).crop(regions.plan(mask.box, picture.size, value, spec.sizes).context)
        for value in values
    ]
    _save(Sheet("mask_padding", values), seen)


def _save(sheet: Sheet, crops: list[Image.Image]) -> None:
    width = len(crops) * (SIDE + GAP) - GAP
    strip = Image.new("RGB", (width, SIDE + LABEL), "white")
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(size=14)
    for number, (value, crop) in enumerate(zip(sheet.values, crops, strict=True)):
        left = number * (SIDE + GAP)
        pen.text((left + SIDE / 2, LABEL / 2), str(value), "black", font, anchor="mm")
        strip.paste(crop.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, LABEL))
    strip.save(FOLDER / f"{sheet.option}.jpg", quality=85)


if __name__ == "__main__":
    main(sys.argv[1:])
