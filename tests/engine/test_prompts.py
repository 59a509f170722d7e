from __future__ import annotations

import pytest

from afterdetail.engine import prompts
from afterdetail.engine.prompts import PromptCache
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.text import Embedded, Text, encode_texts, prompt_windows


def texts(model: DiffusionModel, *words: str) -> list[Text]:
    return [Text(prompt_windows(model, word)) for word in words]


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each forward of the text encoder took."""
    seen: list[int] = []

    def counted(model: DiffusionModel, fresh: list[Text]) -> list[Embedded]:
        seen.append(len(fresh))
        return encode_texts(model, fresh)

    monkeypatch.setattr(prompts, "encode_texts", counted)
    return seen


def test_no_texts_need_no_forward(tiny: DiffusionModel, forwards: list[int]) -> None:
    assert PromptCache().encode(tiny, []) == {}
    assert forwards == []


def test_only_new_texts_are_encoded_and_each_once(
    tiny: DiffusionModel, forwards: list[int]
) -> None:
    cache = PromptCache()
    cache.encode(tiny, texts(tiny, "a man", "", "a man"))
    cache.encode(tiny, texts(tiny, "a woman", ""))
    cache.encode(tiny, texts(tiny, "a man", "a woman"))
    assert forwards == [2, 1]


def test_the_least_recently_used_leave_first(tiny: DiffusionModel, forwards: list[int]) -> None:
    cache = PromptCache(capacity=2)
    for prompt in ("one", "two", "one", "three", "one", "two"):
        cache.encode(tiny, texts(tiny, prompt))
    assert forwards == [1, 1, 1, 1]


def test_more_texts_at_once_than_the_capacity_are_all_given(tiny: DiffusionModel) -> None:
    wanted = texts(tiny, "one", "two", "three")
    assert set(PromptCache(capacity=1).encode(tiny, wanted)) == set(wanted)
