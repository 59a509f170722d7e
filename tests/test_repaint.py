from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from afterdetail import masks
from afterdetail.errors import InpaintFailed, OutOfMemory
from afterdetail.options import MAX_SEED, DetailOptions
from afterdetail.repaint import Fate, Target, check_any_inpainted, make_targets, seeds_of, tell
from afterdetail.results import Outcome
from afterdetail.types import Box, Detection, Mask

SIZE = (64, 48)


def face(x: float, y: float, side: float = 10) -> Detection:
    return Detection("face", 0.9, Box(x, y, x + side, y + side))


def drawn(*faces: Detection) -> list[Mask]:
    return [masks.draw(item, SIZE) for item in faces]


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


def test_nothing_drawn_is_no_target() -> None:
    assert make_targets([], DetailOptions()) == []
    assert make_targets([], DetailOptions(union_masks=True)) == []


def test_one_target_per_object_in_their_order() -> None:
    targets = make_targets(drawn(face(5, 5), face(40, 20)), DetailOptions(seed=3))
    assert [(target.objects, target.seed) for target in targets] == [((0,), 3), ((1,), 4)]


def test_a_union_is_one_target_for_all_that_can_be_drawn() -> None:
    faces = drawn(face(5, 5), face(100, 100), face(40, 20))
    (target,) = make_targets(faces, DetailOptions(seed=3, union_masks=True))
    assert (target.objects, target.seed) == ((0, 2), 3)
    assert target.mask.box.x0 < 5
    assert target.mask.box.x1 > 50


def test_an_object_without_a_pixel_keeps_the_seeds_of_the_others() -> None:
    targets = make_targets(drawn(face(100, 100), face(5, 5)), DetailOptions(seed=3))
    assert [(target.objects, target.seed) for target in targets] == [((1,), 4)]


def target(*objects: int) -> Target:
    return Target(objects, masks.from_array(np.full((4, 4), 255, np.uint8)), seed=8)


def test_what_was_not_tried_was_skipped() -> None:
    (told,) = tell([face(0, 0)], [])
    assert (told.outcome, told.seed) == (Outcome.SKIPPED, None)
    assert told.reason


def test_every_object_of_a_union_shares_its_fate() -> None:
    told = tell([face(0, 0), face(9, 9), face(20, 20)], [Fate(target(0, 2))])
    assert [item.outcome for item in told] == [
        Outcome.INPAINTED,
        Outcome.SKIPPED,
        Outcome.INPAINTED,
    ]


def test_a_failure_gives_its_reason() -> None:
    (told,) = tell([face(0, 0)], [Fate(target(0), InpaintFailed("the model failed"))])
    assert (told.outcome, told.seed, told.reason) == (Outcome.FAILED, 8, "the model failed")


def test_a_refusal_is_told() -> None:
    (told,) = tell([face(0, 0)], [Fate(target(0), refused=True)])
    assert (told.outcome, told.seed) == (Outcome.REFUSED, 8)
    assert told.reason


def test_some_failures_are_a_result() -> None:
    check_any_inpainted([])
    check_any_inpainted([Fate(target(0)), Fate(target(1), InpaintFailed("no"))])
    check_any_inpainted([Fate(target(0), refused=True)])


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([InpaintFailed("no")], InpaintFailed),
        ([InpaintFailed("no"), OutOfMemory("full")], OutOfMemory),
    ],
)
def test_nothing_but_failures_is_an_error(
    errors: list[InpaintFailed | OutOfMemory], expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        check_any_inpainted([Fate(target(0), error) for error in errors])
    with pytest.raises(expected):
        check_any_inpainted([Fate(target(0), refused=True), *(Fate(target(1), e) for e in errors)])
