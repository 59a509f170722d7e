"""How well ``tiny`` repaints: held-out rendered faces, degraded, through the whole pipeline.

    python -m benchmarks.quality [--portraits FOLDER] [--count 40] [--models tiny]

Figures are taken inside the true face's box and averaged over the faces that the detector finds;
beside them stand the degraded input and the best unsharp mask of it, which needs no model.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from training.degrade import degrade
from training.portraits import Portrait, read_portraits

from afterdetail import Detailer, masks
from afterdetail.detectors.facemesh import meshes
from afterdetail.options import Sampler
from afterdetail.types import RGB, Detection, Mask

PORTRAITS = Path(__file__).parents[2] / "shared" / "portraits"
RESULTS = Path(__file__).with_name("results") / "quality.md"
DETECTOR = "face_full_mediapipe"
DILATION = BLUR = 4
EYE_CORNERS = (33, 263)
"""Outer corners of the right and left eye in the face mesh."""

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One held-out face: as it is, as it was degraded, and where the detector found it."""

    portrait: Portrait
    truth: RGB
    soft: RGB
    found: Detection

    @property
    def face(self) -> tuple[slice, slice]:
        """Rows and columns of the true face's box."""
        box = self.portrait.box.clipped((self.truth.shape[1], self.truth.shape[0]))
        return slice(round(box.y0), round(box.y1)), slice(round(box.x0), round(box.x1))


@dataclass(frozen=True, slots=True)
class Figures:
    """What one way of repainting did to one face, or the means of many.

    ``sharpness`` and ``seam`` are shares of the truth's; ``landmarks`` is the mesh's mean distance
    in percent of the distance between the eyes, NaN where no mesh is found; ``ring`` is the mean
    colour error that the mask's blurred border adds to the input's, in 1/255.
    """

    psnr: float
    ssim: float
    sharpness: float
    landmarks: float
    ring: float
    seam: float


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    sampler: Sampler
    strength: float
    steps: int = 20
    cfg_scale: float = 7.5

    def __str__(self) -> str:
        return f"{self.sampler}, strength {self.strength}, {self.steps} steps"


SETTINGS = (
    *(Setting(Sampler.DDIM, strength) for strength in (0.2, 0.4, 0.75)),
    Setting(Sampler.K_EULER, 0.4),
    Setting(Sampler.DPM_PLUS_PLUS_2M_KARRAS, 0.4),
)


def find_cases(
    portraits: Iterable[Portrait], detector: Detailer, count: int
) -> tuple[list[Case], int]:
    """The first ``count`` degraded faces that are found, and how many were missed on the way."""
    cases: list[Case] = []
    missed = 0
    for portrait in portraits:
        truth = portrait.read()
        soft = degrade(truth, portrait.box.height, np.random.default_rng(portrait.seed))
        found = detector.detect(soft, detector=DETECTOR)
        good = [item for item in found if item.box.iou(portrait.box) > 0.2]
        missed += not good
        cases += [Case(portrait, truth, soft, good[0])] if good else []
        if len(cases) == count:
            break
    return cases, missed


def measure(case: Case, made: RGB) -> Figures:
    ring = _border(case)
    return Figures(
        psnr=psnr(case.truth[case.face], made[case.face]),
        ssim=ssim(_luma(case.truth[case.face]), _luma(made[case.face])),
        sharpness=_sharpness(made[case.face]) / _sharpness(case.truth[case.face]),
        landmarks=landmark_error(case, made),
        ring=colour_shift(case.soft, made, ring),
        seam=_gradient(made)[ring].mean() / _gradient(case.truth)[ring].mean(),
    )


def psnr(truth: RGB, made: RGB) -> float:
    """Decibels, of 8-bit pictures."""
    error = np.square(truth.astype(np.float64) - made).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def ssim(truth: Floats, made: Floats) -> float:
    """Structural similarity (Wang et al. 2004) of two grey pictures, Gaussian windows of 1.5 px."""

    def blur(values: Floats) -> Floats:
        return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5), np.float64)

    a, b = blur(truth), blur(made)
    spread_a, spread_b = blur(truth * truth) - a * a, blur(made * made) - b * b
    both = blur(truth * made) - a * b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * a * b + c1) * (2 * both + c2)
    return float((likeness / ((a * a + b * b + c1) * (spread_a + spread_b + c2))).mean())


def landmark_error(case: Case, made: RGB) -> float:
    """Percent of the distance between the eyes; NaN if either has no mesh."""
    truth, other = meshes(case.truth, 0.3), meshes(made, 0.3)
    if not truth or not other:
        return float("nan")
    points, moved = truth[0].points, other[0].points
    eyes = np.linalg.norm(points[EYE_CORNERS[0]] - points[EYE_CORNERS[1]])
    return float(100 * np.linalg.norm(points - moved, axis=1).mean() / eyes)


def colour_shift(before: RGB, after: RGB, ring: npt.NDArray[np.bool_]) -> float:
    """Mean over the channels of how far the ring's mean colour moved, in 1/255."""
    moved = after[ring].mean(0, dtype=np.float64) - before[ring].mean(0, dtype=np.float64)
    return float(np.abs(moved).mean())


def _mask(case: Case) -> Mask:
    size = (case.truth.shape[1], case.truth.shape[0])
    return masks.blur(masks.dilate(masks.draw(case.found, size), DILATION), BLUR)


def _border(case: Case) -> npt.NDArray[np.bool_]:
    """Where the blurred mask is neither nearly 0 nor nearly 1."""
    alpha = masks.to_array(_mask(case))
    return (alpha > 12) & (alpha < 243)


def _luma(rgb: RGB) -> Floats:
    return np.asarray(rgb @ np.array([0.299, 0.587, 0.114]), dtype=np.float64)


def _sharpness(rgb: RGB) -> float:
    return float(cv2.Laplacian(_luma(rgb), cv2.CV_64F).std())


def _gradient(rgb: RGB) -> Floats:
    luma = _luma(rgb)
    return np.hypot(cv2.Sobel(luma, cv2.CV_64F, 1, 0), cv2.Sobel(luma, cv2.CV_64F, 0, 1))


def unsharp(rgb: RGB, radius: float, percent: int) -> RGB:
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.UnsharpMask(radius, percent, 0)))


def best_unsharp(cases: Sequence[Case]) -> tuple[float, int]:
    """Radius and percent of the highest mean PSNR on faces that are not measured afterwards."""

    def score(setting: tuple[float, int]) -> float:
        made = [psnr(c.truth[c.face], unsharp(c.soft, *setting)[c.face]) for c in cases]
        return float(np.mean(made))

    return max(itertools.product((1.0, 2.0, 3.0, 4.0, 6.0), (25, 50, 75, 100, 150, 200)), key=score)


def mean(figures: Sequence[Figures]) -> Figures:
    return Figures(*(float(value) for value in np.nanmean([astuple(f) for f in figures], axis=0)))


def row(name: str, cases: Sequence[Case], paint: Callable[[Case], RGB]) -> str:
    figures = [measure(case, paint(case)) for case in cases]
    meshed = sum(not np.isnan(one.landmarks) for one in figures)
    m = mean(figures)
    return (
        f"| {name} | {m.psnr:.2f} | {m.ssim:.3f} | {m.sharpness:.2f} | {m.landmarks:.2f}"
        f" | {meshed}/{len(cases)} | {m.ring:.2f} | {m.seam:.2f} |"
    )


def take(portraits: Path, count: int, models: str) -> str:
    """The page of one run."""
    everyone = read_portraits(portraits)
    with Detailer(models) as detailer:
        cases, missed = find_cases((p for p in everyone if p.held_out), detailer, count)
        others, _ = find_cases((p for p in everyone if not p.held_out), detailer, 24)
        setting = best_unsharp(others)

        def paint(how: Setting, case: Case) -> RGB:
            options = {field.name: getattr(how, field.name) for field in fields(how)}
            result = detailer.detail(
                case.soft,
                **options,
                detector=DETECTOR,
                seed=case.portrait.seed,
                mask_dilation=DILATION,
                mask_blur=BLUR,
                max_num_detections=1,
            )
            return result.picture.rgb

        rows = [
            row("input", cases, lambda case: case.soft),
            row("best unsharp mask", cases, lambda case: unsharp(case.soft, *setting)),
            *(row(str(how), cases, partial(paint, how)) for how in SETTINGS),
        ]
    head = [
        "# Quality of repainted faces",
        "",
        f"{len(cases)} held-out rendered portraits, degraded, found by `{DETECTOR}` (it missed"
        f" {missed} more), repainted by `{models}` without a prompt at guidance"
        f" {SETTINGS[0].cfg_scale}. Taken by `python -m benchmarks.quality --count {count}`.",
        "",
        "| | PSNR dB | SSIM | sharpness | mesh error % | meshes | ring 1/255 | seam |",
        "|---|---|---|---|---|---|---|---|",
    ]
    tail = [
        "",
        f"Sharpness and seam are shares of the truth's. Unsharp mask: radius {setting[0]:g} px,"
        f" {setting[1]} %, chosen on 24 other faces.",
        "",
    ]
    return "\n".join([*head, *rows, *tail])


def report(portraits: Path = PORTRAITS, count: int = 40, models: str = "tiny") -> str:
    """The page; without the portraits the one taken last."""
    if portraits.exists():
        return take(portraits, count, models)
    return RESULTS.read_text(encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--portraits", type=Path, default=PORTRAITS)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--models", default="tiny")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    page = report(given.portraits, given.count, given.models)
    given.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
