"""Whether our detectors find what their references find, on photographs and on unseen pictures.

    python -m benchmarks.agreement --mediapipe PYTHON --ultralytics PYTHON
        [--photographs FOLDER] [--portraits FOLDER] [--weights FILE...]

Each ``PYTHON`` is that of an environment with the library (benchmarks/detectors.py and
scripts/make_yolo_golden.py say how to make one). The unseen pictures are made here: photographs
turned, scaled, mirrored, darkened and cut out, and groups composed of portraits. ``--weights`` adds
YOLOv8 files to the random ones of the tests.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from afterdetail.detectors.blazeface import FULL_RANGE, PALM, SHORT_RANGE, find
from afterdetail.detectors.facemesh import meshes
from afterdetail.detectors.mediapipe import MEDIAPIPE
from afterdetail.detectors.registry import load_detector_file
from afterdetail.types import RGB, Box, Detection, Polygon
from benchmarks.detectors import PHOTOS, REFERENCES
from benchmarks.heading import heading

RESULTS = Path(__file__).with_name("results") / "agreement.md"
CONFIDENCE = 0.3
RANDOM_CASES = {"n1": 0.2, "s3": 0.2, "m80": 0.2}
"""Golden cases of random weights, and the confidence at which they find dozens of objects."""
TRAINED_CONFIDENCE = 0.1
GROUPS = 30
SMALL_EYES = 200
"""Square pixels: smaller outlines are compared by their corners."""

Finds = dict[str, Any]
"""What a reference found, by the path of the picture."""


@dataclass(slots=True)
class Tally:
    """Everything compared under one name: how often, and the worst of each figure."""

    pictures: int = 0
    miscounts: int = 0
    objects: int = 0
    worst: dict[str, float] = field(default_factory=dict)

    def saw(self, figure: str, value: float, *, least: bool = False) -> None:
        before = self.worst.get(figure, value)
        self.worst[figure] = min(before, value) if least else max(before, value)

    def matched(self, ours: Sequence[object], theirs: Sequence[object]) -> bool:
        """Counts a picture; whether its objects can be compared one by one."""
        self.pictures += 1
        self.miscounts += len(ours) != len(theirs)
        self.objects += len(theirs)
        return len(ours) == len(theirs)


def read(path: Path) -> RGB:
    with Image.open(path) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in {".png", ".jpg"})


def make_unseen(photographs: Sequence[Path], portraits: Sequence[Path], folder: Path) -> list[Path]:
    """Writes pictures that nobody tuned anything on; the same for the same sources."""
    rng = random.Random(7)
    made = {
        f"{path.stem}-{name}": image
        for path in photographs
        for name, image in variations(Image.fromarray(read(path)), rng)
    }
    if portraits:
        made |= {f"group-{number}": group(portraits, rng) for number in range(GROUPS)}
    for name, image in made.items():
        image.save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in made]


def variations(image: Image.Image, rng: random.Random) -> Iterator[tuple[str, Image.Image]]:
    width, height = image.size
    for angle in (-25, 12, 40, 90):
        yield f"turned{angle}", image.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    for scale in (0.33, 0.71, 1.37):
        size = (max(16, round(width * scale)), max(16, round(height * scale)))
        yield f"scaled{scale}", image.resize(size, Image.Resampling.LANCZOS)
    yield "mirrored", ImageOps.mirror(image)
    yield "darkened", ImageEnhance.Brightness(image).enhance(0.45)
    for number in range(3):
        part = rng.randint(width // 3, width), rng.randint(height // 3, height)
        x, y = rng.randint(0, width - part[0]), rng.randint(0, height - part[1])
        yield f"cut{number}", image.crop((x, y, x + part[0], y + part[1]))


def group(portraits: Sequence[Path], rng: random.Random) -> Image.Image:
    columns, rows, side = rng.randint(1, 4), rng.randint(1, 3), rng.choice((96, 128, 160, 256))
    canvas = Image.new("RGB", (columns * side, rows * side))
    for place in range(columns * rows):
        head = Image.fromarray(read(rng.choice(portraits))).resize((side, side))
        canvas.paste(head, (place % columns * side, place // columns * side))
    return canvas


def ask(python: str, script: str, *arguments: str | Path, pictures: Sequence[Path]) -> None:
    command = [python, str(REFERENCES / script), *map(str, arguments), *map(str, pictures)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def compare_boxes(tally: Tally, rgb: RGB, theirs: list[Any], architecture: Any) -> None:
    ours = find(rgb, architecture, architecture.floor)
    if not tally.matched(ours, theirs):
        return
    for mine, other in zip(ours, theirs, strict=True):
        tally.saw("box, px", float(np.abs(mine.box - other["box"]).max()))
        tally.saw("score", abs(mine.score - other["score"]))


def compare_meshes(tally: Tally, rgb: RGB, theirs: list[Any]) -> None:
    ours = meshes(rgb, CONFIDENCE)
    if not tally.matched(ours, theirs):
        return
    for mine, other in zip(ours, theirs, strict=True):
        points = np.array(other)
        distances = np.linalg.norm(mine.points - points, axis=1)
        width = np.ptp(points[:, 0])
        tally.saw("farthest point, px", float(distances.max()))
        tally.saw("farthest point, % of the face's width", 100 * float(distances.max() / width))
        tally.saw("mean point, % of the face's width", 100 * float(distances.mean() / width))


def compare_eyes(tally: Tally, rgb: RGB, theirs: list[Any]) -> None:
    """Their points through our outlines, so that only the points differ."""
    ours = MEDIAPIPE["eyes_mesh_mediapipe"].detect(rgb, CONFIDENCE)
    others = [eye_outlines(np.array(points)) for points in theirs]
    if not tally.matched(ours, others):
        return
    for other in others:
        nearest = min(ours, key=lambda one: farthest_corner(one.polygons[0], other[0]))
        compare_outlines(tally, nearest, other, (rgb.shape[1], rgb.shape[0]))


def eye_outlines(points: Any) -> list[Polygon]:
    from afterdetail.detectors.facemesh import hull

    parts = MEDIAPIPE["eyes_mesh_mediapipe"].parts  # type: ignore[attr-defined]
    return [hull(points[list(part)]) for part in parts]


def compare_outlines(
    tally: Tally, mine: Detection, other: Sequence[Polygon], size: tuple[int, int]
) -> None:
    one, two = filled(mine.polygons, size), filled(other, size)
    if two.sum() >= SMALL_EYES:
        tally.saw("least IoU of outlines", float((one & two).sum() / (one | two).sum()), least=True)
        return
    for polygon, outline in zip(mine.polygons, other, strict=True):
        tally.saw("farthest corner of small ones, px", farthest_corner(polygon, outline))


def filled(polygons: Sequence[Polygon], size: tuple[int, int]) -> Any:
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [np.array(polygon, dtype=np.int32)], 1)
    return mask.astype(bool)


def farthest_corner(one: Polygon, other: Polygon) -> float:
    """The largest distance of a corner of one outline to the other outline, both ways."""
    pairs = ((one, other), (other, one))
    return max(
        abs(cv2.pointPolygonTest(np.array(outline, np.float32), corner, measureDist=True))
        for corners, outline in pairs
        for corner in corners
    )


MEDIAPIPE_PARTS: dict[str, tuple[str, Callable[[Tally, RGB, list[Any]], None]]] = {
    "short range": ("face_short", lambda t, rgb, found: compare_boxes(t, rgb, found, SHORT_RANGE)),
    "full range": ("face_full", lambda t, rgb, found: compare_boxes(t, rgb, found, FULL_RANGE)),
    "palms": ("palms", lambda t, rgb, found: compare_boxes(t, rgb, found, PALM)),
    "meshes": ("meshes", compare_meshes),
    "eyes": ("meshes", compare_eyes),
}


def mediapipe_tallies(python: str, pictures: Sequence[Path], folder: Path) -> dict[str, Tally]:
    out = folder / "mediapipe.json"
    ask(python, "mediapipe_finds.py", out, pictures=pictures)
    finds: Finds = json.loads(out.read_text())
    tallies = {name: Tally() for name in MEDIAPIPE_PARTS}
    for path, found in finds.items():
        rgb = read(Path(path))
        for name, (key, compare) in MEDIAPIPE_PARTS.items():
            compare(tallies[name], rgb, found[key])
    return tallies


def yolo_tally(
    python: str, weights: str, confidence: float, pictures: Sequence[Path], folder: Path
) -> Tally:
    """``weights``: a file or the name of a golden case."""
    out = folder / "ultralytics.json"
    ask(python, "ultralytics_finds.py", weights, str(confidence), out, pictures=pictures)
    finds: Finds = json.loads(out.read_text())
    ours = load_detector_file(Path(weights) if "." in weights else folder / f"{weights}.pt")
    tally = Tally()
    for path, found in finds.items():
        with Image.open(path) as image:
            mine = ours.detect(np.array(image.convert("RGB")), confidence)
        if tally.matched(mine, found):
            compare_detections(tally, mine, found)
    return tally


def compare_detections(tally: Tally, mine: Sequence[Detection], theirs: list[Any]) -> None:
    """Each of theirs with that of ours which covers it best: equal scores have no order."""
    for other in theirs:
        box = Box(*other["box"])
        if box.area == 0:
            continue
        same = [one for one in mine if one.label == other["label"]]
        best = max(same, key=lambda one: one.box.iou(box))
        tally.saw("IoU", best.box.iou(box), least=True)
        tally.saw("score", abs(best.score - other["score"]))


def mediapipe_table(seen: dict[str, Tally], unseen: dict[str, Tally]) -> list[str]:
    lines = ["| | photographs | unseen pictures |", "|---|---:|---:|"]
    first = next(iter(seen))
    lines.append(f"| pictures | {seen[first].pictures} | {unseen[first].pictures} |")
    for name, tally in seen.items():
        other = unseen[name]
        lines.append(f"| {name}: objects | {tally.objects} | {other.objects} |")
        lines.append(f"| — pictures with another count | {tally.miscounts} | {other.miscounts} |")
        for figure in {**tally.worst, **other.worst}:
            cells = (_figure(t.worst.get(figure)) for t in (tally, other))
            lines.append(f"| — {figure} | {' | '.join(cells)} |")
    return lines


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if value < 0.1 else f"{value:.4g}"


def yolo_table(rows: dict[str, Tally]) -> list[str]:
    lines = [
        "| weights | pictures | objects | other counts | least IoU | score, at most |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, tally in rows.items():
        iou, score = tally.worst.get("IoU", 1.0), tally.worst.get("score", 0.0)
        lines.append(
            f"| {name} | {tally.pictures} | {tally.objects} | {tally.miscounts} | {iou:.6f} "
            f"| {score:.1g} |"
        )
    return lines


def page(given: argparse.Namespace) -> str:
    photographs = pictures_in(given.photographs)
    portraits = pictures_in(given.portraits) if given.portraits else []
    lines = [
        heading("Agreement with the references", ("torch", "ai-edge-litert")),
        f"`python -m benchmarks.agreement`; {len(photographs)} photographs, and pictures made of "
        "them and of portraits. Every figure is the worst over all objects.",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unseen = make_unseen(photographs, portraits, folder)
        if given.mediapipe:
            seen = mediapipe_tallies(given.mediapipe, photographs, folder)
            fresh = mediapipe_tallies(given.mediapipe, unseen, folder)
            lines += ["", "## MediaPipe 0.10.21", "", *mediapipe_table(seen, fresh)]
        if given.ultralytics:
            looked_at = photographs + portraits[:: max(1, len(portraits) // 60)][:60]
            cases = RANDOM_CASES | dict.fromkeys(map(str, given.weights), TRAINED_CONFIDENCE)
            rows = {
                Path(weights).name: yolo_tally(
                    given.ultralytics, weights, confidence, looked_at, folder
                )
                for weights, confidence in cases.items()
            }
            lines += ["", "## ultralytics 8.4", "", *yolo_table(rows)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare our detectors with their references.")
    parser.add_argument("--mediapipe", metavar="PYTHON", help="a Python that has it")
    parser.add_argument("--ultralytics", metavar="PYTHON", help="a Python that has it")
    parser.add_argument("--photographs", type=Path, default=PHOTOS, help="folder of pictures")
    parser.add_argument("--portraits", type=Path, help="folder of pictures, for groups")
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="YOLOv8 files")
    text = page(parser.parse_args())
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
