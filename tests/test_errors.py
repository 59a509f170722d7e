"""Errors say what was given and what there is."""

from __future__ import annotations

import time

import pytest

from afterdetail.errors import UnknownName


@pytest.mark.parametrize(
    ("given", "known", "message"),
    [
        ("x", [], "unknown style 'x'; known: none"),
        ("qqq", ["base", "cinematic"], "unknown style 'qqq'; known: base, cinematic"),
        ("cinematik", ["base", "cinematic"], "unknown style 'cinematik'; closest: cinematic"),
    ],
)
def test_an_unknown_name_comes_with_those_that_are_near(
    given: str, known: list[str], message: str
) -> None:
    assert str(UnknownName("style", given, known, field="style_preset")) == message


def test_a_name_of_megabytes_costs_no_more_than_a_name() -> None:
    known = [f"style-{number}" for number in range(100)]
    began = time.thread_time()
    error = UnknownName("style", "style " * 4_000_000, known, field="style_preset")
    assert time.thread_time() - began < 0.5
    assert len(str(error)) < 1000
