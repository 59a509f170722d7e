"""Portraits, crops and what is done to them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from training.crops import SIZE, cut, pack
from training.degrade import degrade, double, shrink, smear
from training.portraits import HELD_OUT_SHARE, Portrait, read_portraits

from afterdetail.types import RGB, Box


def test_an_empty_set_has_no_portraits(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").touch()
    assert read_portraits(tmp_path) == []


def test_portraits_are_read_in_order(portraits: list[Portrait]) -> None:
    assert [portrait.seed for portrait in portraits] == list(range(6))
    assert portraits[0].box == Box(56, 40, 136, 150)
    assert portraits[0].read().shape == (192, 192, 3)


def test_about_one_portrait_in_twenty_is_held_out_by_its_seed() -> None:
    def portrait(seed: int) -> Portrait:
        return Portrait(Path(), seed, "", Box(0, 0, 1, 1), {})

    held = [seed for seed in range(10_000, 14_000) if portrait(seed).held_out]
    assert len(held) == pytest.approx(4000 / HELD_OUT_SHARE, rel=0.1)
    assert {10_027, 10_122, 30_626} <= {s for s in range(40_000) if portrait(s).held_out}


def _detail(rgb: RGB) -> float:
    return float(cv2.Laplacian(rgb.astype(np.float32), cv2.CV_32F).std())


@pytest.mark.parametrize("seed", range(6))
def test_degrading_keeps_size_and_colour_and_loses_detail(
    portraits: list[Portrait], seed: int
) -> None:
    sharp = portraits[0].read()
    soft = degrade(sharp, 110, np.random.default_rng(seed))
    assert soft.shape == sharp.shape
    assert soft.dtype == np.uint8
    assert _detail(soft) < 0.6 * _detail(sharp)
    np.testing.assert_allclose(soft.mean((0, 1)), sharp.mean((0, 1)), atol=4)


def test_the_same_seed_degrades_alike(portraits: list[Portrait]) -> None:
    rgb = portraits[1].read()
    first, second = (degrade(rgb, 110, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "change",
    [
        lambda rgb: smear(rgb, 3, np.random.default_rng(0)),
        lambda rgb: double(rgb, 3, np.random.default_rng(0)),
        lambda rgb: shrink(rgb, 4, np.random.default_rng(3)),
    ],
    ids=["smear", "double", "shrink"],
)
def test_a_plain_picture_is_not_changed_by_misplacing_and_shrinking(change: object) -> None:
    plain = np.full((48, 40, 3), 120, np.uint8)
    assert callable(change)
    np.testing.assert_allclose(change(plain), plain, atol=1)


def test_a_crop_holds_the_face_and_both_twins_match(portraits: list[Portrait]) -> None:
    crop = cut(portraits[0], np.random.default_rng(0))
    assert crop.sharp.shape == crop.soft.shape == (SIZE, SIZE, 3)
    assert crop.face.area > 0.15 * SIZE**2
    assert crop.face == crop.face.clipped((SIZE, SIZE))
    assert np.abs(crop.sharp.astype(int) - crop.soft).mean() < 20


def test_packing_twice_writes_the_same(portraits: list[Portrait], tmp_path: Path) -> None:
    for name in ("a", "b"):
        pack(portraits[:2], name, tmp_path, per_portrait=2, seed=5, workers=1 + (name == "b"))
    for kind in ("sharp", "soft"):
        first, second = (np.load(tmp_path / f"{name}-{kind}.npy") for name in ("a", "b"))
        assert first.shape == (4, SIZE, SIZE, 3)
        np.testing.assert_array_equal(first, second)
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
