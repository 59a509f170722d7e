"""What a repainted face is measured by: against the truth, inside the face and along the seam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache, cached_property
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from training.attributes import AttributeNet, feature_distance, load_attribute_net
from training.autoencoder import as_tensor
from training.crops import SIZE
from training.portraits import Portrait

from afterdetail import masks
from afterdetail.detectors.facemesh import meshes
from afterdetail.types import RGB, Box, Detection, Mask

DILATION = BLUR = 4
EYE_CORNERS = (33, 263)
"""Outer corners of the right and left eye in the face mesh."""

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
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

    @cached_property
    def mask(self) -> Mask:
        size = (self.truth.shape[1], self.truth.shape[0])
        return masks.blur(masks.dilate(masks.draw(self.found, size), DILATION), BLUR)

    def among_truth(self) -> Self:
        """The same with nothing degraded but the face, as where a model draws a small one.

        What is degraded ends, softly, where the detector's box does: the mask, which is dilated and
        blurred, covers it. What a mask leaves degraded around it says nothing about its border.
        """
        size = (self.truth.shape[1], self.truth.shape[0])
        degraded = masks.blur(masks.draw(self.found, size), BLUR // 2)
        share = masks.to_array(degraded)[..., None] / 255
        soft = np.rint(share * self.soft + (1 - share) * self.truth).astype(np.uint8)
        return replace(self, soft=soft)

    @cached_property
    def border(self) -> npt.NDArray[np.bool_]:
        """Where the blurred mask is neither nearly 0 nor nearly 1."""
        alpha = masks.to_array(self.mask)
        return (alpha > 12) & (alpha < 243)

    @cached_property
    def landmarks(self) -> Floats | None:
        return mesh(self.truth)

    @cached_property
    def soft_landmarks(self) -> Floats | None:
        return mesh(self.soft)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one way of repainting did to one face, or the means of many.

    ``features`` is the distance in the attribute classifier's layers, times 100, in the box that
    the detector found. ``sharpness`` and ``seam`` are shares of the truth's. ``landmarks`` is the
    mesh's mean distance in percent of the distance between the eyes, NaN where the truth, the input
    or what was made has no mesh, and ``meshed`` is 1 where the last has one. ``ring`` is the mean
    colour error that the mask's blurred border adds to the input's, in 1/255.
    """

    psnr: float
    ssim: float
    features: float
    sharpness: float
    landmarks: float
    meshed: float
    ring: float
    seam: float


def measure(case: Case, made: RGB) -> Figures:
    points = mesh(made)
    return Figures(
        psnr=psnr(case.truth[case.face], made[case.face]),
        ssim=ssim(_luma(case.truth[case.face]), _luma(made[case.face])),
        features=features(case, made),
        sharpness=_sharpness(made[case.face]) / _sharpness(case.truth[case.face]),
        landmarks=_landmark_error(case, points),
        meshed=float(points is not None),
        ring=colour_shift(case.soft, made, case.border),
        seam=_gradient(made)[case.border].mean() / _gradient(case.truth)[case.border].mean(),
    )


def mean(figures: Sequence[Figures]) -> Figures:
    return Figures(*(float(value) for value in np.nanmean([astuple(f) for f in figures], axis=0)))


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


def features(case: Case, made: RGB) -> float:
    """The attribute classifier's distance of two faces, times 100."""
    truth, other = (as_tensor(face_crop(rgb, case.found.box)[None]) for rgb in (case.truth, made))
    return 100 * float(feature_distance(_net(), truth, other))


@cache
def _net() -> AttributeNet:
    return load_attribute_net()


def face_crop(rgb: RGB, face: Box) -> RGB:
    """The square around a face, 128 x 128."""
    side = min(*rgb.shape[:2], max(face.width, face.height))
    left = min(max(0.0, (face.x0 + face.x1 - side) / 2), rgb.shape[1] - side)
    top = min(max(0.0, (face.y0 + face.y1 - side) / 2), rgb.shape[0] - side)
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(rgb).resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=box))


def mesh(rgb: RGB) -> Floats | None:
    """Points of the first face mesh, ``(N, 2)`` pixels, if one is found."""
    found = meshes(rgb, 0.3)
    return found[0].points if found else None


def _landmark_error(case: Case, points: Floats | None) -> float:
    truth = case.landmarks
    if truth is None or case.soft_landmarks is None or points is None:
        return float("nan")
    eyes = np.linalg.norm(truth[EYE_CORNERS[0]] - truth[EYE_CORNERS[1]])
    return float(100 * np.linalg.norm(truth - points, axis=1).mean() / eyes)


def colour_shift(before: RGB, after: RGB, ring: npt.NDArray[np.bool_]) -> float:
    """Mean over the channels of how far the ring's mean colour moved, in 1/255."""
    moved = after[ring].mean(0, dtype=np.float64) - before[ring].mean(0, dtype=np.float64)
    return float(np.abs(moved).mean())


def _luma(rgb: RGB) -> Floats:
    return np.asarray(rgb @ np.array([0.299, 0.587, 0.114]), dtype=np.float64)


def _sharpness(rgb: RGB) -> float:
    return float(cv2.Laplacian(_luma(rgb), cv2.CV_64F).std())


def _gradient(rgb: RGB) -> Floats:
    luma = _luma(rgb)
    return np.hypot(cv2.Sobel(luma, cv2.CV_64F, 1, 0), cv2.Sobel(luma, cv2.CV_64F, 0, 1))
