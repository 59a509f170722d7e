"""Whether the classifier that judges prompts can be believed."""

from __future__ import annotations

import pytest
from benchmarks.steering import AGE, AGED, SKIN, said_of, told
from training.portraits import Portrait, read_portraits


@pytest.fixture(scope="module")
def heads() -> list[Portrait]:
    """It has not learnt from them."""
    return read_portraits(AGED)


def test_heads_differ_in_their_age_alone_and_in_what_it_does_to_hairlines(
    heads: list[Portrait],
) -> None:
    pairs = list(zip(heads[::2], heads[1::2], strict=True))
    assert len(pairs) == 18
    other = {"age": 0, "recede": 0}
    for young, old in pairs:
        assert young.held_out and young.attributes | other == old.attributes | other
        assert float(str(old.attributes["age"])) > float(str(young.attributes["age"])) + 15


def test_it_tells_which_of_two_renders_of_a_head_is_the_older(heads: list[Portrait]) -> None:
    years = [told(AGE, [head], [head.read()]) for head in heads]
    apart = [old - young for young, old in zip(years[::2], years[1::2], strict=True)]
    assert sum(more > 0 for more in apart) >= 17
    assert sum(apart) / len(apart) > 15


@pytest.mark.parametrize(("gender", "said"), [("male", "old man"), ("female", "old woman")])
def test_an_old_person_is_a_man_or_a_woman(gender: str, said: str, heads: list[Portrait]) -> None:
    person = next(head for head in heads if head.attributes["gender"] == gender)
    assert said_of(person, AGE.up) == said
    assert said_of(person, SKIN.up) == "dark skin"
