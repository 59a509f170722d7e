"""The studio of one process: names in, patches out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from afterdetail.errors import DeadlineExceeded, InvalidInput, ModelUnavailable
from afterdetail.lifetime import Lifetime
from afterdetail.models import loader
from afterdetail.models.catalogue import Source, load_catalogue
from afterdetail.models.choose import Choice
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.folder import load_folder
from afterdetail.options import Base
from afterdetail.studio import LocalStudio, Order, make_studio
from afterdetail.types import RGB


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def painted(studio: LocalStudio, order: Order) -> RGB:
    (ticket,) = studio.open([order.choice], Lifetime()).begin([order])
    return ticket.result()


def test_no_orders_are_no_work(studio: LocalStudio) -> None:
    assert list(studio.open([], Lifetime()).begin([])) == []
    assert studio.stats.jobs == 0
    assert studio.model_stats.models == 0


def test_patches_come_in_the_order_of_orders(studio: LocalStudio, order: Order) -> None:
    sitting, other = studio.open([order.choice], Lifetime()), replace(order, seed=2)
    one, two = (ticket.result() for ticket in sitting.begin([order, other]))
    assert one.shape == two.shape == (64, 64, 3)
    assert not np.array_equal(one, two)
    (again,) = studio.open([order.choice], Lifetime()).begin([other])
    assert np.abs(again.result().astype(int) - two).max() <= 1


def test_orders_share_the_deadline_of_their_picture(studio: LocalStudio, order: Order) -> None:
    sitting = studio.open([order.choice], Lifetime(deadline=0))
    (ticket,) = sitting.begin([replace(order, steps=200)])
    with pytest.raises(DeadlineExceeded):
        ticket.result()


def test_jobs_go_on_while_another_model_is_read(
    studio: LocalStudio, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(order, choice=Choice(load_catalogue("tiny").bases()[Base.SDXL]))
    alone = painted(studio, other)
    both = make_studio("cpu")
    (long,) = both.open([order.choice], Lifetime()).begin([replace(order, steps=999, strength=1)])
    reads: list[str] = []

    def watched(name: str, *given: Any, **named: Any) -> DiffusionModel:
        """The real read, which takes until the other job has gone a step further."""
        began = long.progress.step
        model = load_folder(name, *given, **named)
        wait_for(lambda: long.progress.step > began)
        reads.append(name)
        return model

    monkeypatch.setattr(loader, "load_folder", watched)
    try:
        wait_for(lambda: long.progress.steps > 0)
        assert np.array_equal(painted(both, other), alone)
    finally:
        long.abort()
        both.close()
    assert reads == [other.choice.model.name]


def test_a_model_that_is_not_there_is_told_before_any_work(
    studio: LocalStudio, order: Order
) -> None:
    gone = replace(order.choice.model, name="gone", source=Source(path="/nowhere"))
    with pytest.raises(ModelUnavailable):
        studio.open([Choice(gone)], Lifetime())


def test_wrong_words_are_refused() -> None:
    with pytest.raises(InvalidInput, match="memory"):
        make_studio(memory="medium")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="device"):
        make_studio("abacus")
