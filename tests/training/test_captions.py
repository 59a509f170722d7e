"""What is left of captions."""

from __future__ import annotations

import pytest
import torch
from training.captions import phrases, shortened

CAPTION = "a photo of a man, sad, short black hair, beard"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("", []),
        ("a man", ["a man"]),
        (CAPTION, ["a photo of a man", "sad", "short black hair", "beard"]),
    ],
)
def test_phrases_stand_between_commas(caption: str, expected: list[str]) -> None:
    assert phrases(caption) == expected


def test_nothing_is_left_of_nothing() -> None:
    assert shortened("", torch.Generator()) == ""


def test_phrases_are_dropped_and_simplified_but_stay_in_order() -> None:
    made = [shortened(CAPTION, torch.Generator().manual_seed(seed)) for seed in range(200)]
    whole = ["man", "sad", "black hair", "beard"]
    for text in made:
        places = [CAPTION.index(phrase) for phrase in phrases(text)]
        assert places == sorted(places)
    assert {"", CAPTION} <= set(made)
    assert all(any(word in text for text in made) for word in whole)
    assert any(text.endswith(", black hair") for text in made)
    assert any(text.startswith("a man") for text in made)
    assert 0.3 < sum(len(phrases(text)) == 4 for text in made) / len(made) < 0.7


def test_the_same_generator_drops_the_same() -> None:
    first, second = (shortened(CAPTION, torch.Generator().manual_seed(4)) for _ in range(2))
    assert first == second
