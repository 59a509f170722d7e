"""`make demo`: detail a group of portraits and a photograph, and show before and after.

Everything runs on this machine with what is in the repository: the embedded model `tiny`, trained
on rendered heads, and MediaPipe's face detector. Nothing is downloaded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from afterdetail import Box, Detailer, DetailResult
from afterdetail.cli.quiet import quiet_libraries

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "demo"
GROUP = ROOT / "examples" / "group.png"
PHOTO = ROOT / "tests" / "data" / "photos" / "skimage_astronaut.png"

# The mesh hugs the face; where the mesh is not found, the box is repainted.
DETECTOR = "face_full_mediapipe, face_mesh_mediapipe"
# Without a prompt there is nothing to follow.
GUIDANCE = 1.0

PAPER, INK = (250, 249, 246), (70, 70, 70)
GAP, CAPTION, WIDTH = 20, 30, 1200

Area = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture to detail, and how."""

    title: str
    before: Image.Image
    prompt: str
    strength: float


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A scene and what became of it."""

    scene: Scene
    result: DetailResult


def scenes(detailer: Detailer) -> list[Scene]:
    group, photo = Image.open(GROUP).convert("RGB"), Image.open(PHOTO).convert("RGB")
    face = detailer.detect(photo)[0].box
    return [
        Scene("a group of rendered portraits", group, "a photo of a person", 0.4),
        Scene(
            "a photograph whose face was made soft first",
            soften(photo, face),
            "a photo of a woman",
            0.3,  # a photograph is stranger to the model than a rendered head
        ),
    ]


def soften(photo: Image.Image, face: Box, factor: int = 4) -> Image.Image:
    """The photograph with its face as soft as image models leave faces that are small."""
    area = around(face, photo, 0.15)
    part = photo.crop(area)
    small = part.resize((part.width // factor, part.height // factor), Image.Resampling.BOX)
    softened = photo.copy()
    softened.paste(small.resize(part.size, Image.Resampling.BICUBIC), area[:2])
    return softened


def around(box: Box, picture: Image.Image, margin: float) -> Area:
    """The box with a margin, a part of its height, and more of it above: hair."""
    by = margin * box.height
    return (
        max(0, round(box.x0 - by)),
        max(0, round(box.y0 - 2 * by)),
        min(picture.width, round(box.x1 + by)),
        min(picture.height, round(box.y1 + by)),
    )


def describe(shown: Shown) -> None:
    result = shown.result
    found, done = result.num_objects_detected, result.num_objects_inpainted
    print(f"\n{shown.scene.title}: found {found}, repainted {done}")
    for item in result.objects:
        box = item.detection.box
        print(
            f"  score {item.detection.score:.2f}, {box.width:.0f}x{box.height:.0f} pixels "
            f"at {box.x0:.0f},{box.y0:.0f}: {item.outcome}, seed {item.seed}"
        )
    print("  " + ", ".join(f"{stage} {taken:.2f} s" for stage, taken in result.timings.items()))


def before_after(all_shown: list[Shown]) -> Image.Image:
    """For every scene the two pictures side by side, and under them their faces up close."""
    strips = [strip for shown in all_shown for strip in (pair(shown), close_ups(shown))]
    height = sum(strip.height + GAP for strip in strips) + GAP
    sheet = Image.new("RGB", (WIDTH + 2 * GAP, height), PAPER)
    top = GAP
    for strip in strips:
        sheet.paste(strip, (GAP, top))
        top += strip.height + GAP
    return sheet


def pair(shown: Shown) -> Image.Image:
    side = (WIDTH - GAP) // 2
    before, after = shown.scene.before, shown.result.image.convert("RGB")
    size = (side, round(before.height * side / before.width))
    strip = Image.new("RGB", (WIDTH, size[1] + CAPTION), PAPER)
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(18)
    for column, (name, picture) in enumerate((("before", before), ("after", after))):
        left = column * (side + GAP)
        draw.text((left, 2), name, INK, font)
        strip.paste(picture.resize(size, Image.Resampling.LANCZOS), (left, CAPTION))
    return strip


def close_ups(shown: Shown, most: int = 4) -> Image.Image:
    """The first faces, each before and after side by side."""
    boxes = [item.detection.box for item in shown.result.objects][:most]
    side = (WIDTH - GAP * (most - 1)) // (2 * most)
    strip = Image.new("RGB", (WIDTH, side), PAPER)
    for column, box in enumerate(boxes):
        area = around(box, shown.scene.before, 0.2)
        for half, picture in enumerate((shown.scene.before, shown.result.image.convert("RGB"))):
            face = picture.resize((side, side), Image.Resampling.LANCZOS, box=area)
            strip.paste(face, (column * (2 * side + GAP) + half * side, 0))
    return strip


def main() -> None:
    began = time.perf_counter()
    OUT.mkdir(parents=True, exist_ok=True)
    print("afterdetail: the embedded model tiny, on this machine")
    with quiet_libraries(), Detailer(models="tiny") as detailer:
        all_shown = [
            Shown(
                scene,
                detailer.detail(
                    scene.before,
                    detector=DETECTOR,
                    prompt=scene.prompt,
                    strength=scene.strength,
                    cfg_scale=GUIDANCE,
                    seed=1,
                ),
            )
            for scene in scenes(detailer)
        ]
    for shown in all_shown:
        describe(shown)
    all_shown[0].result.image.save(OUT / "after.png")
    all_shown[1].result.image.save(OUT / "after-photo.png")
    before_after(all_shown).save(OUT / "before-after.png")
    print(f"\n{time.perf_counter() - began:.1f} s in all. Now look at {OUT / 'before-after.png'}")


if __name__ == "__main__":
    main()
