"""How well ``tiny`` repaints: held-out rendered faces, degraded, through the whole pipeline.

    python -m benchmarks.quality [--portraits FOLDER] [--count 200] [--models tiny] [--short]

Figures are taken inside the true face's box, features in the box that the detector found, which is
repainted, and averaged over the faces that it finds;
beside them stand the degraded input, the best unsharp mask of it, which needs no model, and a loop
of diffusers' own inpainting pipeline with crop and paste, as other after-detailers do it, on the
same weights.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline
from PIL import Image, ImageFilter
from tqdm import tqdm
from training.attributes import feature_distance, load_attribute_net
from training.autoencoder import as_tensor
from training.degrade import degrade, smear
from training.portraits import Portrait, read_portraits

import afterdetail
from afterdetail import Detailer, masks
from afterdetail.options import Sampler
from afterdetail.types import RGB
from benchmarks.figures import BLUR, DILATION, Case, face_crop, mean, measure, psnr
from benchmarks.heading import heading

PORTRAITS = Path(__file__).parents[2] / "shared" / "portraits"
RESULTS = Path(__file__).with_name("results") / "quality.md"
DETECTOR = "face_full_mediapipe"
PADDING = 8
"""Pixels: less than a tenth of the mask, as the endpoint recommends."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. Without a prompt guidance changes nothing, so there is none."""

    sampler: Sampler
    strength: float
    steps: int = 20
    cfg_scale: float = 1.0
    color_match: bool = False
    use_refiner: bool = False
    size_conditioning: str | None = None

    def __str__(self) -> str:
        matched = ", color_match" if self.color_match else ""
        refined = ", refiner" if self.use_refiner else ""
        sized = f", told {self.size_conditioning}" if self.size_conditioning else ""
        how = f"{self.sampler}, strength {self.strength}, {self.steps} steps"
        return f"{how}{matched}{refined}{sized}"


PLAIN = Setting(Sampler.DDIM, 0.4)
SHORT = (PLAIN, Setting(Sampler.DDIM, 0.4, color_match=True), Setting(Sampler.DDIM, 0.75))
SETTINGS = (
    *SHORT,
    Setting(Sampler.DDIM, 0.2),
    Setting(Sampler.DDIM, 0.75, color_match=True),
    Setting(Sampler.DDIM, 0.4, steps=50),
    *(
        Setting(sampler, 0.4)
        for sampler in Sampler
        if sampler not in (Sampler.DDIM, Sampler.LCM, Sampler.KLMS, Sampler.K_HEUN)
    ),
    Setting(Sampler.LCM, 0.4, steps=8),
)
"""Two names are other names of LMS and HEUN."""
OF_XL = (
    *(replace(how, use_refiner=True) for how in (PLAIN, Setting(Sampler.DDIM, 0.75))),
    *(replace(PLAIN, size_conditioning=told) for told in ("32x32", "512x512", "128x128+32+32")),
)
"""What ``tiny-xl`` does besides."""


def find_cases(
    portraits: Sequence[Portrait], detector: Detailer, count: int
) -> tuple[list[Case], int]:
    """The first ``count`` degraded faces that are found, and how many were missed on the way.

    When all portraits have been tried, they are degraded in another way, up to three times.
    """
    cases: list[Case] = []
    missed = 0
    for again, portrait in itertools.product(range(3), portraits):
        truth = portrait.read()
        rng = np.random.default_rng(portrait.seed + again * 10**6)
        soft = degrade(truth, portrait.box.height, rng)
        found = detector.detect(soft, detector=DETECTOR)
        good = [item for item in found if item.box.iou(portrait.box) > 0.2]
        missed += not good
        cases += [Case(portrait, truth, soft, good[0])] if good else []
        if len(cases) == count:
            break
    return cases, missed


def repaint(detailer: Detailer, how: Setting, case: Case) -> RGB:
    """The whole pipeline."""
    options = {field.name: getattr(how, field.name) for field in fields(how)}
    result = detailer.detail(
        case.soft,
        **options,
        detector=DETECTOR,
        seed=case.portrait.seed,
        mask_dilation=DILATION,
        mask_blur=BLUR,
        mask_padding=PADDING,
        max_num_detections=1,
    )
    return result.picture.rgb


def crop_and_paste(folder: Path, case: Case) -> RGB:
    """As asdff does it: cut the padded mask's box, inpaint at the model's one size, paste."""
    mask = Image.fromarray(masks.to_array(case.mask))
    x0, y0, x1, y1 = case.mask.box
    height, width = case.soft.shape[:2]
    box = (
        max(0, x0 - PADDING),
        max(0, y0 - PADDING),
        min(width, x1 + PADDING),
        min(height, y1 + PADDING),
    )
    picture = Image.fromarray(case.soft)
    made = _pipe(folder)(
        "",
        image=picture.crop(box),
        mask_image=mask.crop(box),
        strength=PLAIN.strength,
        num_inference_steps=PLAIN.steps,
        guidance_scale=PLAIN.cfg_scale,
        generator=torch.Generator().manual_seed(case.portrait.seed),
    ).images[0]
    pasted = picture.copy()
    pasted.paste(made.resize((box[2] - box[0], box[3] - box[1])), box)
    return np.asarray(Image.composite(pasted, picture, mask))


@cache
def _pipe(folder: Path) -> Any:
    pipe = StableDiffusionInpaintPipeline.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False, torch_dtype=torch.float32
    )
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def unsharp(rgb: RGB, radius: float, percent: int) -> RGB:
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.UnsharpMask(radius, percent, 0)))


def best_unsharp(cases: Sequence[Case]) -> tuple[float, int]:
    """Radius and percent of the highest mean PSNR on faces that are not measured afterwards."""

    def score(setting: tuple[float, int]) -> float:
        made = [psnr(c.truth[c.face], unsharp(c.soft, *setting)[c.face]) for c in cases]
        return float(np.mean(made))

    return max(itertools.product((1.0, 2.0, 3.0, 4.0, 6.0), (25, 50, 75, 100, 150, 200)), key=score)


def row(name: str, cases: Sequence[Case], paint: Callable[[Case], RGB]) -> str:
    figures = [measure(case, paint(case)) for case in tqdm(cases, name, mininterval=10)]
    m = mean(figures)
    return (
        f"| {name} | {m.psnr:.2f} | {m.ssim:.3f} | {m.features:.2f} | {m.sharpness:.2f}"
        f" | {m.landmarks:.2f} | {100 * m.meshed:.0f} % | {m.ring:.2f} | {m.seam:.2f} |"
    )


def validity(cases: Sequence[Case]) -> list[str]:
    """A table: how the feature distance grows with what is done to the faces."""
    net = load_attribute_net()
    truth = as_tensor(np.stack([face_crop(case.truth, case.found.box) for case in cases]))

    def distance(change: Callable[[Case], RGB]) -> float:
        made = np.stack([face_crop(change(case), case.found.box) for case in cases])
        return 100 * float(feature_distance(net, truth, as_tensor(made)).mean())

    def blurred(radius: float, case: Case) -> RGB:
        picture = Image.fromarray(case.truth)
        return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)))

    def misplaced(share: float, case: Case) -> RGB:
        rng = np.random.default_rng(case.portrait.seed)
        return smear(case.truth, share * case.portrait.box.height, rng)

    others = [*cases[1:], cases[0]]
    stranger = {case.portrait.seed: other.truth for case, other in zip(cases, others, strict=True)}
    changes: list[tuple[str, Callable[[Case], RGB]]] = [
        *((f"blur, {radius} px", partial(blurred, radius)) for radius in (0.5, 1, 2, 4)),
        *(
            (f"smear, {100 * s:g} % of the face", partial(misplaced, s))
            for s in (0.005, 0.01, 0.02)
        ),
        ("someone else", lambda case: stranger[case.portrait.seed]),
    ]
    return ["| | features |", "|---|---|", *(f"| {n} | {distance(c):.2f} |" for n, c in changes)]


def take(portraits: Path, count: int, models: str, settings: Sequence[Setting]) -> str:
    """The page of one run."""
    everyone = read_portraits(portraits)
    folder = Path(afterdetail.__file__).parent / "models" / "tiny"
    with Detailer(models) as detailer:
        cases, missed = find_cases([p for p in everyone if p.held_out], detailer, count)
        others, _ = find_cases([p for p in everyone if not p.held_out], detailer, 24)
        setting = best_unsharp(others)
        rows = [
            row("input", cases, lambda case: case.soft),
            row("best unsharp mask", cases, lambda case: unsharp(case.soft, *setting)),
            *(row(str(how), cases, partial(repaint, detailer, how)) for how in settings),
        ]
        alone = [case.among_truth() for case in cases]
        intact = [replace(case, soft=case.truth) for case in cases]
        rows += [
            row("input, sharp around the face", alone, lambda case: case.soft),
            row(f"{PLAIN}, sharp around the face", alone, partial(repaint, detailer, PLAIN)),
            row(f"{PLAIN}, nothing degraded", intact, partial(repaint, detailer, PLAIN)),
        ]
        if models == "tiny":
            rows.append(row(f"diffusers, {PLAIN}", cases, partial(crop_and_paste, folder)))
    short = "--short " if len(settings) < len(SETTINGS) else ""
    head = [
        heading("Quality of repainted faces", ("torch", "diffusers")),
        f"{len(cases)} held-out rendered portraits, degraded, found by `{DETECTOR}` (it missed"
        f" {missed} more), repainted by `{models}` without a prompt."
        f" Taken by `python -m benchmarks.quality {short}--count {count} --models {models}`.",
        "",
        "| | PSNR dB | SSIM | features | sharpness | mesh error % | meshes | ring 1/255 | seam |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    tail = [
        "",
        "Features: distance in the layers of a classifier of the portraits' attributes (x 100),"
        " in the detected box, outside of which nothing is repainted; below, what it is for faces"
        " that were changed on purpose."
        " Sharpness and seam are shares of the truth's; where the picture around the face is"
        " degraded, the seam's shows that. Sharp around the face: there nothing else is degraded."
        " Nothing degraded: what is repainted is the truth, so that the seam's share is what"
        " repainting itself does to the border."
        " Mesh error: of faces whose mesh is found in truth, input and result."
        f" Unsharp mask: radius {setting[0]:g} px, {setting[1]} %, chosen on {len(others)} other"
        " faces.",
        "",
        *validity(cases),
        "",
    ]
    return "\n".join([*head, *rows, *tail])


def report(
    portraits: Path = PORTRAITS,
    count: int = 200,
    models: str = "tiny",
    settings: Sequence[Setting] = SHORT,
) -> str:
    """The page; without the portraits the one taken last."""
    if portraits.exists():
        return take(portraits, count, models, settings)
    return RESULTS.read_text(encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--portraits", type=Path, default=PORTRAITS)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--models", default="tiny")
    parser.add_argument("--short", action="store_true", help="DDIM alone")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    settings = SHORT if given.short else SETTINGS
    settings += OF_XL if given.models == "tiny-xl" else ()
    page = report(given.portraits, given.count, given.models, settings)
    given.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
