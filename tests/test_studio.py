"""The studio of one process: names in, patches out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from afterdetail.errors import DeadlineExceeded, InvalidInput, ModelUnavailable
from afterdetail.lifetime import Lifetime
from afterdetail.models.catalogue import Source, load_catalogue
from afterdetail.models.choose import Choice
from afterdetail.options import Base, Sampler
from afterdetail.studio import LocalStudio, Order, make_studio


@pytest.fixture(scope="module")
def studio() -> Iterator[LocalStudio]:
    made = make_studio("cpu")
    yield made
    made.close()


@pytest.fixture
def choice() -> Choice:
    return Choice(load_catalogue("tiny").bases()[Base.SD15])


def order(choice: Choice, seed: int = 1, steps: int = 2) -> Order:
    grey, all_of_it = np.full((64, 64, 3), 90, np.uint8), np.full((64, 64), 255, np.uint8)
    return Order(choice, grey, all_of_it, "", "", Sampler.DDIM, steps, 1.0, 7.5, seed)


def test_no_orders_are_no_work(studio: LocalStudio) -> None:
    assert list(studio.open([], Lifetime()).begin([])) == []
    assert studio.stats.jobs == 0
    assert studio.model_stats.models == 0


def test_patches_come_in_the_order_of_orders(studio: LocalStudio, choice: Choice) -> None:
    sitting = studio.open([choice], Lifetime())
    one, two = (ticket.result() for ticket in sitting.begin([order(choice), order(choice, 2)]))
    assert one.shape == two.shape == (64, 64, 3)
    assert not np.array_equal(one, two)
    (again,) = studio.open([choice], Lifetime()).begin([order(choice, 2)])
    assert np.abs(again.result().astype(int) - two).max() <= 1


def test_orders_share_the_deadline_of_their_picture(studio: LocalStudio, choice: Choice) -> None:
    (ticket,) = studio.open([choice], Lifetime(deadline=0)).begin([order(choice, steps=200)])
    with pytest.raises(DeadlineExceeded):
        ticket.result()


def test_a_model_that_is_not_there_is_told_before_any_work(
    studio: LocalStudio, choice: Choice
) -> None:
    gone = replace(choice.model, name="gone", source=Source(path="/nowhere"))
    with pytest.raises(ModelUnavailable):
        studio.open([Choice(gone)], Lifetime())


def test_wrong_words_are_refused() -> None:
    with pytest.raises(InvalidInput, match="memory"):
        make_studio(memory="medium")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="device"):
        make_studio("abacus")
