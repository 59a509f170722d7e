from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from afterdetail.masks import from_array, to_array
from afterdetail.regions import extract, extract_mask, plan, restore
from afterdetail.types import RGB, PixelBox, Region, Size

SD15 = [(512, 512), (448, 576), (576, 448), (384, 704), (704, 384)]
SDXL = [
    (1024, 1024), (1152, 896), (896, 1152), (1216, 832), (832, 1216),
    (1344, 768), (768, 1344), (1536, 640), (640, 1536),
]  # fmt: skip
SQUARE = [(512, 512)]


def whole(size: Size) -> PixelBox:
    return PixelBox(0, 0, *size)


@pytest.mark.parametrize(
    ("mask_box", "picture", "padding", "sizes", "expected"),
    [
        pytest.param((100, 100, 101, 101), (512, 512), 0, SQUARE,
                     Region(PixelBox(100, 100, 101, 101), (512, 512), whole((512, 512))),
                     id="one pixel"),
        pytest.param((100, 100, 200, 200), (512, 512), 32, SQUARE,
                     Region(PixelBox(68, 68, 232, 232), (512, 512), whole((512, 512))),
                     id="padded on every side"),
        pytest.param((0, 0, 100, 100), (512, 512), 32, SQUARE,
                     Region(PixelBox(0, 0, 164, 164), (512, 512), whole((512, 512))),
                     id="slides from the corner, keeps its size"),
        pytest.param((400, 500, 500, 600), (512, 600), 32, SQUARE,
                     Region(PixelBox(348, 436, 512, 600), (512, 512), whole((512, 512))),
                     id="slides from the other corner"),
        pytest.param((100, 100, 200, 150), (512, 512), 0, SQUARE,
                     Region(PixelBox(100, 75, 200, 175), (512, 512), whole((512, 512))),
                     id="grows around its middle"),
        pytest.param((100, 0, 200, 50), (512, 512), 0, SQUARE,
                     Region(PixelBox(100, 0, 200, 100), (512, 512), whole((512, 512))),
                     id="grows, then slides"),
        pytest.param((100, 100, 200, 280), (512, 512), 0, SD15,
                     Region(PixelBox(100, 99, 200, 282), (384, 704), whole((384, 704))),
                     id="nearest ratio"),
        pytest.param((10, 10, 100, 20), (512, 120), 0, SD15,
                     Region(PixelBox(10, 0, 100, 49), (704, 384), whole((704, 384))),
                     id="wide"),
        pytest.param((0, 0, 300, 200), (300, 200), 10**9, SD15,
                     Region(PixelBox(0, 0, 300, 200), (576, 448), PixelBox(0, 32, 576, 416)),
                     id="the whole picture, filled above and below"),
        pytest.param((20, 20, 620, 1500), (640, 1536), 32, SD15,
                     Region(PixelBox(0, 0, 640, 1536), (384, 704), PixelBox(45, 0, 338, 704)),
                     id="a union across a tall picture, filled left and right"),
        pytest.param((0, 60, 200, 61), (200, 100), 0, SQUARE,
                     Region(PixelBox(0, 0, 200, 100), (512, 512), PixelBox(0, 128, 512, 384)),
                     id="a line across"),
        pytest.param((8, 30, 12, 34), (16, 500), 2, SDXL,
                     Region(PixelBox(6, 28, 14, 36), (1024, 1024), whole((1024, 1024))),
                     id="a four-pixel face in a narrow picture"),
    ],
)  # fmt: skip
def test_plan(
    mask_box: tuple[int, int, int, int],
    picture: Size,
    padding: int,
    sizes: list[Size],
    expected: Region,
) -> None:
    assert plan(PixelBox(*mask_box), picture, padding, sizes) == expected


def test_a_farther_ratio_is_taken_if_only_it_fits() -> None:
    # 100x150 is nearest to 448x576, which at 117x150 is wider than the picture; 384x704 fits.
    region = plan(PixelBox(0, 20, 100, 170), (110, 400), 0, SD15)
    assert region.size == (384, 704)
    assert region.context.height == round(100 * 704 / 384)


@st.composite
def masks_in_pictures(draw: st.DrawFn) -> tuple[PixelBox, Size]:
    width, height = draw(st.integers(16, 3000)), draw(st.integers(16, 3000))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    return PixelBox(x0, y0, x1, y1), (width, height)


@settings(deadline=None)
@given(masks_in_pictures(), st.integers(0, 300), st.sampled_from([SD15, SDXL, SQUARE]))
def test_every_plan_holds(given: tuple[PixelBox, Size], padding: int, sizes: list[Size]) -> None:
    mask_box, picture = given
    region = plan(mask_box, picture, padding, sizes)
    context, content = region.context, region.content

    assert 0 <= context.x0 <= mask_box.x0 and mask_box.x1 <= context.x1 <= picture[0]
    assert 0 <= context.y0 <= mask_box.y0 and mask_box.y1 <= context.y1 <= picture[1]
    assert context.width >= min(mask_box.width + 2 * padding, picture[0])
    assert context.height >= min(mask_box.height + 2 * padding, picture[1])

    assert region.size in sizes
    assert 0 <= content.x0 < content.x1 <= region.size[0]
    assert 0 <= content.y0 < content.y1 <= region.size[1]
    assert content.width == region.size[0] or content.height == region.size[1]
    if content.size != region.size:
        assert context.width == picture[0] or context.height == picture[1]


@settings(deadline=None)
@given(masks_in_pictures(), st.integers(0, 300), st.sampled_from([SD15, SDXL, SQUARE]))
def test_nothing_is_stretched(
    given: tuple[PixelBox, Size], padding: int, sizes: list[Size]
) -> None:
    region = plan(*given, padding, sizes)
    (width, height), (to_width, to_height) = region.context.size, region.content.size
    # One side of either is rounded to a pixel: scaling the other way misses it by no more.
    off_in_picture = min(
        abs(width - height * to_width / to_height), abs(height - width * to_height / to_width)
    )
    off_in_model = min(
        abs(to_width - to_height * width / height), abs(to_height - to_width * height / width)
    )
    assert min(off_in_picture, off_in_model) <= 1


def smooth(size: Size) -> RGB:
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    return np.stack([x * 255 / size[0], y * 255 / size[1], x * 0 + 90], axis=2).astype(np.uint8)


TALL = plan(PixelBox(0, 0, 64, 256), (64, 256), 0, SQUARE)


def test_at_the_models_own_size_nothing_is_resampled() -> None:
    rgb = smooth((700, 700))
    region = plan(PixelBox(50, 60, 562, 572), (700, 700), 0, SQUARE)
    assert np.array_equal(extract(rgb, region), rgb[60:572, 50:562])
    assert np.array_equal(restore(extract(rgb, region), region), rgb[60:572, 50:562])


@pytest.mark.parametrize("box", [(100, 100, 164, 164), (0, 0, 600, 600), (20, 300, 900, 800)])
def test_there_and_back_is_the_same_place(box: tuple[int, int, int, int]) -> None:
    rgb = smooth((1000, 1000))
    region = plan(PixelBox(*box), (1000, 1000), 8, SD15)
    patch = extract(rgb, region)
    assert patch.shape == (region.size[1], region.size[0], 3)
    back = restore(patch, region)
    assert np.abs(back.astype(int) - rgb[region.context.slices]).max() <= 3


def test_what_the_picture_lacks_repeats_its_edge() -> None:
    rgb = smooth((64, 256))
    patch = extract(rgb, TALL)
    left, right = TALL.content.x0, TALL.content.x1
    assert (left, right) == (192, 320)
    assert np.array_equal(patch[:, :left], np.repeat(patch[:, left : left + 1], left, axis=1))
    assert np.array_equal(patch[:, right:], np.repeat(patch[:, right - 1 : right], 192, axis=1))
    assert np.abs(restore(patch, TALL).astype(int) - rgb).max() <= 3


def test_the_fill_is_cropped_off() -> None:
    patch = np.zeros((512, 512, 3), np.uint8)
    patch[:, 192:320] = 200
    assert (restore(patch, TALL) == 200).all()


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        pytest.param((10, 20), (212, 232), id="inside"),
        pytest.param((0, 20), (0, 232), id="at the left edge: the fill is repainted too"),
        pytest.param((30, 64), (252, 512), id="at the right edge"),
    ],
)
def test_the_masks_fill_repeats_its_edge(
    columns: tuple[int, int], expected: tuple[int, int]
) -> None:
    gray = np.zeros((256, 64), np.uint8)
    gray[:, slice(*columns)] = 255
    found = np.flatnonzero(extract_mask(from_array(gray), TALL)[100])
    assert (found[0], found[-1] + 1) == expected


@settings(deadline=None)
@given(masks_in_pictures(), st.integers(0, 50))
def test_the_masks_crop_is_read_as_the_whole_mask(
    given: tuple[PixelBox, Size], padding: int
) -> None:
    box, size = given
    assume(size[0] * size[1] < 500_000)
    gray = np.zeros((size[1], size[0]), np.uint8)
    gray[box.slices] = (
        np.arange(box.width * box.height, dtype=np.uint64).reshape(box.height, box.width) % 255 + 1
    )
    mask, region = from_array(gray), plan(box, size, padding, SD15)
    context, content = region.context, region.content
    x = [int((i + Fraction(1, 2)) * context.width / content.width) for i in range(content.width)]
    y = [int((i + Fraction(1, 2)) * context.height / content.height) for i in range(content.height)]
    nearest = to_array(mask)[context.slices][np.ix_(y, x)]
    assert np.array_equal(extract_mask(mask, region)[content.slices], nearest)


def test_a_photograph_survives_the_way_there_and_back(photo: Callable[[str], RGB]) -> None:
    rgb = photo("skimage_astronaut.png")
    region = plan(PixelBox(168, 48, 282, 212), (512, 512), 32, SD15)
    back = restore(extract(rgb, region), region)
    assert np.abs(back.astype(int) - rgb[region.context.slices]).mean() < 1.5
