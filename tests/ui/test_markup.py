"""Progress and comparison as HTML; nothing that people wrote becomes a part of it."""

from __future__ import annotations

import pytest

from afterdetail.results import Outcome, Settled, Step
from afterdetail.ui.markup import Line, compare, complaint, progress, said
from afterdetail.ui.progress import Follower


def test_no_objects_are_an_empty_list() -> None:
    assert progress("Nothing.", []).endswith('<ul class="jobs"></ul>')


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (Line("0 face"), "waiting"),
        (Line("0 face", 3, 18), "step 3 of 18"),
        (Line("0 face", 18, 18, "done"), "done"),
    ],
)
def test_a_line_says_where_its_object_is(line: Line, shown: str) -> None:
    assert f"<span>{shown}</span>" in progress("", [line])


def test_text_is_no_markup() -> None:
    for made in (said("<b>"), complaint("<b>"), progress("<b>", [Line("<b>")])):
        assert "<b>" not in made and "&lt;b&gt;" in made
    assert '"onload="' not in compare('x"onload="', "y")


def test_a_follower_shows_what_it_has_heard() -> None:
    follower = Follower({0: Line("0 face"), 2: Line("2 face")})
    follower.hear(Step(0, (0,), 4, 18))
    follower.hear(Settled(0, (2,), Outcome.REFUSED))
    shown = follower.shown()
    assert "Repainting: 1 of 2 done." in shown
    assert "step 4 of 18" in shown and "refused by the safety checker" in shown
