from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from afterdetail.composite import composite, match_color
from afterdetail.masks import blur, dilate, draw, from_array, to_array
from afterdetail.regions import extract, plan, restore
from afterdetail.types import RGB, Box, Detection, Gray, PixelBox, Region

SIZES = [(512, 512), (448, 576), (576, 448), (384, 704), (704, 384)]


def same_place(gray: Gray) -> Region:
    size = gray.shape[1], gray.shape[0]
    return Region(PixelBox(0, 0, *size), size, PixelBox(0, 0, *size))


def blended(base: int, patch: int, alpha: int) -> int:
    canvas = np.full((1, 1, 3), base, np.uint8)
    gray = np.full((1, 1), alpha, np.uint8)
    composite(canvas, np.full((1, 1, 3), patch, np.uint8), from_array(gray), same_place(gray))
    return int(canvas[0, 0, 0])


def test_an_empty_mask_changes_nothing() -> None:
    canvas, gray = np.full((4, 5, 3), 7, np.uint8), np.zeros((4, 5), np.uint8)
    composite(canvas, np.zeros((4, 5, 3), np.uint8), from_array(gray), same_place(gray))
    assert (canvas == 7).all()


@pytest.mark.parametrize(
    ("base", "patch", "alpha", "expected"),
    [(10, 200, 0, 10), (10, 200, 255, 200), (0, 255, 128, 128), (255, 0, 128, 127), (3, 4, 127, 3),
     (3, 4, 128, 4), (255, 255, 77, 255), (0, 0, 77, 0)],
)  # fmt: skip
def test_one_pixel(base: int, patch: int, alpha: int, expected: int) -> None:
    assert blended(base, patch, alpha) == expected


def test_every_alpha_rounds_to_the_nearest() -> None:
    alpha, values = np.arange(256), np.arange(256)
    gray = np.repeat(alpha.astype(np.uint8)[:, np.newaxis], 256, axis=1)
    canvas = np.zeros((256, 256, 3), np.uint8)
    canvas[...] = values[np.newaxis, :, np.newaxis]
    patch = 255 - canvas
    exact = np.round((patch * gray[..., np.newaxis].astype(float)
                      + canvas * (255.0 - gray[..., np.newaxis])) / 255)  # fmt: skip
    composite(canvas, patch, from_array(gray), same_place(gray))
    assert np.array_equal(canvas, exact)


PHOTOGRAPHS = [
    pytest.param("skimage_astronaut.png", [(180, 60, 270, 200)], id="a face"),
    pytest.param("skimage_astronaut.png", [(0, 0, 80, 90), (450, 430, 512, 512)], id="in corners"),
    pytest.param("fr_obama_partial_face.jpg", [(-40, 300, 200, 700)], id="half outside"),
    pytest.param("derived_mosaic6.png", [(100, 100, 300, 360), (250, 200, 500, 500)],
                 id="overlapping"),
    pytest.param("derived_small_face.png", [(500, 300, 504, 304)], id="four pixels"),
    pytest.param("mpl_grace_hopper.jpg", [(0, 0, 512, 600)], id="the whole picture"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "boxes"), PHOTOGRAPHS)
@pytest.mark.parametrize(("dilation", "sigma"), [(0, 0), (4, 4), (31, 1)])
def test_outside_the_masks_not_a_bit_changes(
    name: str,
    boxes: list[tuple[float, float, float, float]],
    dilation: int,
    sigma: int,
    photo: Callable[[str], RGB],
) -> None:
    rgb = photo(name)
    size = rgb.shape[1], rgb.shape[0]
    canvas, touched = rgb.copy(), np.zeros(rgb.shape[:2], np.uint8)
    for box in boxes:
        mask = blur(dilate(draw(Detection("face", 0.9, Box(*box)), size), dilation), sigma)
        region = plan(mask.box, size, 32, SIZES)
        composite(canvas, restore(extract(canvas, region) ^ np.uint8(128), region), mask, region)
        touched = np.maximum(touched, to_array(mask))
    assert np.array_equal(canvas[touched == 0], rgb[touched == 0])
    assert (canvas != rgb).any()


def test_where_the_mask_is_full_the_patch_is_the_picture(photo: Callable[[str], RGB]) -> None:
    rgb = photo("skimage_coffee.png")
    mask = blur(draw(Detection("cup", 0.9, Box(100, 100, 250, 220)), (600, 400)), 4)
    region = plan(mask.box, (600, 400), 32, SIZES)
    patch = restore(255 - extract(rgb, region), region)
    canvas = rgb.copy()
    composite(canvas, patch, mask, region)
    full = to_array(mask)[region.context.slices] == 255
    assert full.any()
    assert np.array_equal(canvas[region.context.slices][full], patch[full])


@pytest.mark.parametrize("size", [(40, 60), (300, 300), (7, 5)])
@pytest.mark.parametrize("shift", [(0, 0, 0), (12, -9, 4)])
def test_a_matched_patch_has_lost_its_shift_of_colour(
    size: tuple[int, int], shift: tuple[int, int, int]
) -> None:
    width, height = size
    canvas = np.random.default_rng(0).integers(40, 200, (height, width, 3), np.uint8)
    mask = from_array(np.full((height, width), 255, np.uint8))
    made = match_color(
        (canvas + np.array(shift)).astype(np.uint8), canvas, mask, same_place(mask.alpha)
    )
    assert np.abs(made.astype(int) - canvas).max() <= 1


def test_a_matched_patch_keeps_its_features_and_takes_the_light() -> None:
    canvas = np.full((160, 160, 3), 90, np.uint8)
    patch = np.full((160, 160, 3), 140, np.uint8)
    patch[78:82] = 240
    mask = from_array(np.full((160, 160), 255, np.uint8))
    before = canvas.copy()
    made = match_color(patch, canvas, mask, same_place(mask.alpha)).astype(int)
    assert made[80].mean() - made[70].mean() > 90
    assert abs(made.mean() - 90) < 1
    assert np.array_equal(canvas, before)
