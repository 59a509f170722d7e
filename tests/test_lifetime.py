"""When work may go on, and who is told when it may not."""

from __future__ import annotations

import time

import pytest

from afterdetail.errors import Aborted, AfterdetailError, DeadlineExceeded
from afterdetail.lifetime import Lifetime


@pytest.mark.parametrize("seconds", [None, 1000])
def test_it_lasts(seconds: float | None) -> None:
    deadline = None if seconds is None else time.monotonic() + seconds
    Lifetime(deadline).check()


@pytest.mark.parametrize(
    ("deadline", "ended", "error"),
    [(0.0, False, DeadlineExceeded), (None, True, Aborted), (0.0, True, Aborted)],
)
def test_it_is_over(deadline: float | None, ended: bool, error: type[AfterdetailError]) -> None:
    lifetime = Lifetime(deadline)
    if ended:
        lifetime.end()
    with pytest.raises(error):
        lifetime.check()
    assert lifetime.ended is ended


def test_each_action_runs_once_at_the_end_or_at_once_after_it() -> None:
    ran: list[str] = []
    lifetime = Lifetime()
    lifetime.on_end(lambda: ran.append("before"))
    assert ran == []
    lifetime.end()
    lifetime.end()
    lifetime.on_end(lambda: ran.append("after"))
    assert ran == ["before", "after"]
