"""The studio of one process: names in, patches out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from afterdetail.errors import DeadlineExceeded, InvalidInput, ModelUnavailable
from afterdetail.lifetime import Lifetime
from afterdetail.models.catalogue import Source
from afterdetail.models.choose import Choice
from afterdetail.studio import LocalStudio, Order, make_studio


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
