"""The tokenizer that checkpoints in one file use."""

from __future__ import annotations

import pytest

from afterdetail.models.tokenizer import PAD_OF_OPEN_CLIP, clip_tokenizer


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("Hello,  WORLD!", [3306, 267, 1002, 256]),
    ],
)
def test_words_have_the_numbers_clip_was_trained_with(text: str, ids: list[int]) -> None:
    assert clip_tokenizer()(text).input_ids == [49406, *ids, 49407]


@pytest.mark.parametrize(("pad", "number"), [(None, 49407), (PAD_OF_OPEN_CLIP, 0)])
def test_each_encoder_has_its_padding(pad: str | None, number: int) -> None:
    tokenizer = clip_tokenizer(pad) if pad else clip_tokenizer()
    assert tokenizer("a", padding="max_length").input_ids == [49406, 320, *[49407], *[number] * 74]


def test_nothing_is_lost() -> None:
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49408
    assert tokenizer.decode(tokenizer("naïve café 猫").input_ids, skip_special_tokens=True) == (
        "naïve café 猫"
    )
