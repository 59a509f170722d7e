"""From drawn masks to jobs: which masks, which seeds, which words."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import pytest

from afterdetail import masks
from afterdetail.errors import InvalidInput
from afterdetail.lifetime import Lifetime
from afterdetail.models.catalogue import load_catalogue
from afterdetail.options import MAX_SEED, DetailOptions
from afterdetail.recipes import make_recipe
from afterdetail.stages import parse_stages
from afterdetail.targets import Plan, Sight, make_plan, seeds_of
from afterdetail.types import Box, Detection

SIZE = (64, 48)


def face(x: float, y: float, side: float = 10) -> Detection:
    return Detection("face", 0.9, Box(x, y, x + side, y + side))


NEAR, OUTSIDE, FAR = face(5, 5), face(100, 100), face(40, 20)


def plan(*faces: Detection, left_out: Mapping[int, str] | None = None, **options: Any) -> Plan:
    (stage,) = parse_stages(None, options)
    recipe = make_recipe(stage, SIZE, load_catalogue("tiny"), Lifetime())
    drawn = {number: masks.draw(item, SIZE) for number, item in enumerate(faces)}
    return make_plan(Sight(faces, drawn, left_out or {}), recipe)


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (1, [1, 2, 3]),
        (MAX_SEED - 1, [MAX_SEED - 1, MAX_SEED, 1]),
        ([7], [7, 7, 7]),
        ([7, 9], [7, 9, 7]),
    ],
)
def test_each_object_has_a_seed_of_its_own(seed: int | list[int], expected: list[int]) -> None:
    assert list(islice(seeds_of(DetailOptions(seed=seed)), 3)) == expected


def test_without_a_seed_every_seed_is_random_and_in_range() -> None:
    seeds = list(islice(seeds_of(DetailOptions()), 100))
    assert len(set(seeds)) > 90
    assert all(1 <= seed <= MAX_SEED for seed in seeds)


@pytest.mark.parametrize("options", [{}, {"union_masks": True}, {"invert_masks": True}])
def test_nothing_drawn_is_no_target(options: dict[str, Any]) -> None:
    assert plan(**options).targets == ()


def test_one_target_per_object_in_their_order() -> None:
    targets = plan(NEAR, FAR, seed=3).targets
    assert [(target.objects, target.seed) for target in targets] == [((0,), 3), ((1,), 4)]


def test_a_union_is_one_target_for_all_that_can_be_drawn() -> None:
    made = plan(NEAR, OUTSIDE, FAR, seed=3, union_masks=True)
    (target,) = made.targets
    assert (target.objects, target.seed) == ((0, 2), 3)
    assert target.mask.box.x0 < 5
    assert target.mask.box.x1 > 50
    assert made.left_out.keys() == {1}


def test_an_object_without_a_pixel_keeps_the_seeds_of_the_others() -> None:
    made = plan(OUTSIDE, NEAR, seed=3)
    assert [(target.objects, target.seed) for target in made.targets] == [((1,), 4)]
    assert "lies in the picture" in made.left_out[0]


@pytest.mark.parametrize(
    ("options", "box"),
    [
        ({"mask_dilation": 0}, (5, 5, 15, 15)),
        ({"mask_dilation": 4}, (3, 3, 17, 17)),
        ({"mask_dilation": -4}, (7, 7, 13, 13)),
        ({"mask_dilation": 0, "mask_offset_x": 4, "mask_offset_y": -7}, (9, 0, 19, 8)),
        ({"mask_dilation": 0, "invert_masks": True}, (0, 0, 64, 48)),
    ],
)
def test_masks_are_moved_then_grown_or_shrunk(
    options: dict[str, Any], box: tuple[int, int, int, int]
) -> None:
    (target,) = plan(NEAR, **options, mask_blur=0).targets
    assert target.mask.box == box


def test_inverted_masks_leave_the_objects_alone() -> None:
    (target,) = plan(NEAR, FAR, mask_dilation=0, mask_blur=0, invert_masks=True).targets
    gray = masks.to_array(target.mask)
    assert gray[10, 10] == gray[25, 45] == 0
    assert (gray == 255).sum() == 64 * 48 - 200


def test_inverted_masks_leave_skipped_objects_alone() -> None:
    options: dict[str, Any] = {"mask_dilation": 0, "mask_blur": 0, "objects": {1: {"skip": True}}}
    made = plan(NEAR, FAR, invert_masks=True, **options)
    gray = masks.to_array(made.targets[0].mask)
    assert gray[10, 10] == gray[25, 45] == 0
    assert made.targets[0].objects == (0,)


def test_a_mask_that_erodes_away_is_left_out() -> None:
    made = plan(NEAR, face(30, 5, side=20), mask_dilation=-12)
    assert [target.objects for target in made.targets] == [(1,)]
    assert made.left_out[0]


def test_reasons_of_the_selection_are_kept() -> None:
    assert plan(NEAR, left_out={1: "too small"}).left_out == {1: "too small"}


def test_options_of_single_objects() -> None:
    made = plan(
        NEAR,
        FAR,
        face(25, 30),
        seed=3,
        prompt="a face",
        strength=0.4,
        objects={1: {"skip": True}, 2: {"seed": 99, "prompt": "a cat", "strength": 0.9}},
    )
    assert [(t.objects, t.seed, t.wish.prompt, t.wish.strength) for t in made.targets] == [
        ((0,), 3, "a face", 0.4),
        ((2,), 99, "a cat", 0.9),
    ]
    assert made.left_out == {1: "skipped as asked for"}


@pytest.mark.parametrize(("found", "there"), [((), "none"), ((NEAR, FAR), "0 to 1")])
def test_options_of_an_object_that_there_is_not(found: tuple[Detection, ...], there: str) -> None:
    with pytest.raises(InvalidInput, match=f"there is no object 2; found: {there}") as caught:
        plan(*found, objects={2: {"skip": True}})
    assert (caught.value.code, caught.value.field) == ("object_unknown", "objects")


def test_a_skipped_object_is_left_out_of_the_union() -> None:
    made = plan(NEAR, FAR, union_masks=True, mask_blur=0, objects={0: {"skip": True}})
    (target,) = made.targets
    assert target.objects == (1,)
    assert target.mask.box.x0 > 30
