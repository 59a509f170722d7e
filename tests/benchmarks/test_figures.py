"""The figures say what they are said to."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from benchmarks.figures import Case, colour_shift, face_crop, features, mean, measure, psnr, ssim
from training.portraits import read_portraits

from afterdetail import masks
from afterdetail.types import RGB, Box, Detection

PORTRAITS = Path(__file__).parents[1] / "data" / "portraits"


@pytest.fixture(scope="module")
def case() -> Case:
    portrait = read_portraits(PORTRAITS)[0]
    truth = portrait.read()
    return Case(portrait, truth, blurred(truth, 3), Detection("face", 1.0, portrait.box))


def blurred(rgb: RGB, sigma: float) -> RGB:
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma), np.uint8)


def test_the_mean_of_one_face_is_that_face(case: Case) -> None:
    figures = measure(case, case.soft)
    assert mean([figures]) == figures


def test_the_truth_has_the_best_figures(case: Case) -> None:
    best = measure(case, case.truth)
    assert best.psnr > 100
    assert (best.ssim, best.sharpness, best.seam) == pytest.approx((1, 1, 1))
    assert (best.features, best.landmarks) == pytest.approx((0, 0), abs=1e-4)
    assert best.meshed == 1


def test_the_input_has_no_shift_of_colour(case: Case) -> None:
    assert measure(case, case.soft).ring == 0


def test_among_truth_nothing_is_degraded_but_the_face(case: Case) -> None:
    alone, alpha = case.among_truth(), np.asarray(masks.to_array(case.mask))
    assert np.array_equal(alone.soft[alpha == 0], case.truth[alpha == 0])
    assert np.array_equal(alone.soft[alpha == 255], case.soft[alpha == 255])
    assert (alpha == 0).any() and (alpha == 255).any()


def test_among_truth_the_mask_covers_what_is_degraded(case: Case) -> None:
    degraded = (case.among_truth().soft != case.truth).any(-1)
    assert degraded[case.mask.box.slices].sum() == degraded.sum() > 0
    painted = np.asarray(masks.to_array(case.mask)) >= 128
    changed = np.abs(case.among_truth().soft.astype(int) - case.truth).sum()
    outside = np.abs(case.among_truth().soft.astype(int) - case.truth)[~painted].sum()
    assert outside < 0.1 * changed


def test_every_figure_falls_with_blur(case: Case) -> None:
    little, much = (measure(case, blurred(case.truth, sigma)) for sigma in (0.7, 3))
    assert little.psnr > much.psnr
    assert little.ssim > much.ssim
    assert little.features < much.features
    assert little.sharpness > much.sharpness
    assert little.seam > much.seam


def test_the_feature_distance_grows_with_every_degradation(case: Case) -> None:
    by_blur = [features(case, blurred(case.truth, sigma)) for sigma in (0.5, 1, 2, 4)]
    moved = [np.roll(case.truth, shift, axis=1) for shift in (1, 2, 4, 8)]
    by_place = [features(case, np.asarray(rgb)) for rgb in moved]
    assert by_blur == sorted(by_blur)
    assert by_place == sorted(by_place)
    assert by_blur[0] > 0


def test_psnr_and_ssim_of_known_pictures() -> None:
    black = np.zeros((16, 16, 3), np.uint8)
    assert psnr(black, black + 255) == pytest.approx(0)
    assert psnr(black, black + 16) == pytest.approx(10 * np.log10(255**2 / 256))
    ramp = np.linspace(0, 255, 256).reshape(16, 16)
    assert ssim(ramp, ramp) == pytest.approx(1)
    assert ssim(ramp, 255 - ramp) < 0


def test_colour_shift_is_the_mean_of_the_channels() -> None:
    before = np.full((4, 4, 3), 100, np.uint8)
    after = (before + np.array([3, -3, 0])).astype(np.uint8)
    assert colour_shift(before, after, np.ones((4, 4), np.bool_)) == pytest.approx(2)


def test_a_crop_of_a_face_is_a_square_inside_the_picture() -> None:
    rgb = np.zeros((100, 80, 3), np.uint8)
    rgb[:, 60:] = 255
    crop = face_crop(rgb, Box(50, -10, 100, 50))
    assert crop.shape == (128, 128, 3)
    assert crop[:, 0].max() == 0
    assert crop[:, -1].min() == 255
