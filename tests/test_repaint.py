from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from afterdetail import masks
from afterdetail.engine.job import Progress
from afterdetail.errors import (
    AfterdetailError,
    DeadlineExceeded,
    InpaintFailed,
    InvalidInput,
    ModelUnavailable,
    OutOfMemory,
    QueueFull,
)
from afterdetail.lifetime import Lifetime
from afterdetail.models.catalogue import Kind, ModelSpec, Source, load_catalogue
from afterdetail.models.choose import Choice
from afterdetail.recipes import Wish, make_recipe
from afterdetail.repaint import Brush, Fate, Stopwatch, check_any_inpainted, tell
from afterdetail.results import Outcome
from afterdetail.stages import parse_stages
from afterdetail.studio import Order
from afterdetail.targets import Plan, Target
from afterdetail.types import RGB, Box, Detection

WISH = Wish("", "", 0.5, Choice(ModelSpec("m", Kind.BASE, Source(path="m"))))


def face(x: float, y: float, side: float = 10) -> Detection:
    return Detection("face", 0.9, Box(x, y, x + side, y + side))


def target(*objects: int) -> Target:
    return Target(objects, masks.from_array(np.full((4, 4), 255, np.uint8)), 8, WISH)


@dataclass
class Over:
    """A commission and its sitting: what comes of every order is known."""

    error: AfterdetailError
    progress: Progress = field(default_factory=Progress)
    aborted: int = 0

    def begin(self, orders: Sequence[Order]) -> list[Over]:
        return [self] * len(orders)

    def wait(self, seconds: float) -> bool:
        return seconds >= 0

    def result(self) -> RGB:
        raise self.error

    def abort(self) -> None:
        self.aborted += 1


def paint(over: Over) -> list[Fate]:
    (stage,) = parse_stages(None, {})
    recipe = make_recipe(stage, (64, 64), load_catalogue("tiny"), Lifetime())
    canvas = np.zeros((64, 64, 3), np.uint8)
    mask = masks.draw(face(20, 20), (64, 64))
    return Brush(over, recipe).paint(canvas, [Target((0,), mask, 8, WISH)], Stopwatch())


@pytest.mark.parametrize("error", [InpaintFailed("no"), OutOfMemory("no")])
def test_an_error_of_one_object_is_its_fate(error: AfterdetailError) -> None:
    (fate,) = paint(Over(error))
    assert fate.error is error


@pytest.mark.parametrize(
    "error",
    [
        QueueFull("busy", retry_after=1),
        InvalidInput("adapter_incompatible", "no"),
        ModelUnavailable("gone"),
        DeadlineExceeded("late"),
    ],
)
def test_any_other_error_is_the_requests(error: AfterdetailError) -> None:
    over = Over(error)
    with pytest.raises(type(error)):
        paint(over)
    assert over.aborted


def test_nothing_found_is_nothing_told() -> None:
    assert tell([], Plan((), {}), []) == ()


def test_what_was_left_out_is_told_why() -> None:
    (told,) = tell([face(0, 0)], Plan((), {0: "too small"}), [])
    assert (told.outcome, told.seed, told.reason) == (Outcome.SKIPPED, None, "too small")


def test_what_was_not_tried_yet_is_planned() -> None:
    told = tell([face(0, 0), face(9, 9)], Plan((target(1),), {0: "too small"}), [], stage=2)
    assert [(item.id, item.stage) for item in told] == [(0, 2), (1, 2)]
    assert [(item.outcome, item.seed) for item in told] == [
        (Outcome.SKIPPED, None),
        (Outcome.PLANNED, 8),
    ]


def test_every_object_of_a_union_shares_its_fate() -> None:
    plan = Plan((target(0, 2),), {1: "too small"})
    told = tell([face(0, 0), face(9, 9), face(20, 20)], plan, [Fate(target(0, 2))])
    assert [item.outcome for item in told] == [
        Outcome.INPAINTED,
        Outcome.SKIPPED,
        Outcome.INPAINTED,
    ]


def test_a_failure_gives_its_reason() -> None:
    fate = Fate(target(0), InpaintFailed("the model failed"))
    (told,) = tell([face(0, 0)], Plan((target(0),), {}), [fate])
    assert (told.outcome, told.seed, told.reason) == (Outcome.FAILED, 8, "the model failed")


def test_a_refusal_is_told() -> None:
    (told,) = tell([face(0, 0)], Plan((target(0),), {}), [Fate(target(0), refused=True)])
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
