"""Windows, laid out by the shipped tokenizer and held to transformers' own."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import CLIPTokenizer

import afterdetail
from afterdetail.errors import InvalidInput
from afterdetail.prompts.weights import Fragment, parse
from afterdetail.prompts.windows import MAX_WINDOWS, Tokenizer, windows

FOLDER = Path(afterdetail.__file__).parent / "models" / "tiny" / "tokenizer"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    loaded: Tokenizer = CLIPTokenizer.from_pretrained(FOLDER)
    return loaded


def ids_of_transformers(tokenizer: Tokenizer, prompt: str) -> list[int]:
    return list(tokenizer(prompt, padding="max_length", max_length=77)["input_ids"])  # type: ignore[operator]


def test_the_empty_prompt_is_one_window_of_padding(tokenizer: Tokenizer) -> None:
    (window,) = windows((), tokenizer)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    assert window.ids == (tokenizer.bos_token_id, end, *[pad] * 75)
    assert window.weights == (1.0,) * 77


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "   ",
        "a face",
        "  A   FACE ,blue eyes!!  ",
        "don't; 50mm f/1.8, ¡él! 脸 🙂",
        "line\nbreak\tand tab",
    ],
)
def test_a_prompt_without_weights_has_the_ids_of_transformers(
    tokenizer: Tokenizer, prompt: str
) -> None:
    (window,) = windows(parse(prompt), tokenizer)
    assert list(window.ids) == ids_of_transformers(tokenizer, prompt)


@pytest.mark.parametrize(
    ("weighted", "plain"),
    [
        ("a (smiling) face", "a smiling face"),
        ("a (smiling:1.3)face", "a smiling face"),
        ("([blue] eyes:0.8), freckles", "blue eyes, freckles"),
        (r"a face \(old\)", "a face (old)"),
    ],
)
def test_brackets_and_weights_cost_no_tokens(
    tokenizer: Tokenizer, weighted: str, plain: str
) -> None:
    (window,) = windows(parse(weighted), tokenizer)
    assert list(window.ids) == ids_of_transformers(tokenizer, plain)


def test_each_token_has_the_weight_of_its_fragment(tokenizer: Tokenizer) -> None:
    fragments = (Fragment("a ", 1.0), Fragment("smiling face", 1.3), Fragment(", old", 0.5))
    counts = [
        len(tokenizer.encode(fragment.text, add_special_tokens=False, verbose=False))
        for fragment in fragments
    ]
    (window,) = windows(fragments, tokenizer)
    expected = [1.0] * counts[0] + [1.3] * counts[1] + [0.5] * counts[2]
    assert list(window.weights) == [1.0, *expected, *[1.0] * (76 - sum(counts))]


@pytest.mark.parametrize(("tokens", "expected"), [(74, 1), (75, 1), (76, 2), (150, 2), (151, 3)])
def test_long_prompts_become_windows_and_lose_no_token(
    tokenizer: Tokenizer, tokens: int, expected: int
) -> None:
    prompt = ", " * tokens
    laid_out = windows(parse(prompt), tokenizer)
    assert len(laid_out) == expected
    assert {len(window.ids) for window in laid_out} == {77}
    comma = tokenizer.encode(",", add_special_tokens=False, verbose=False)[0]
    assert sum(window.ids.count(comma) for window in laid_out) == tokens
    assert all(window.ids[0] == tokenizer.bos_token_id for window in laid_out)


def test_windows_split_between_fragments_keep_the_weights(tokenizer: Tokenizer) -> None:
    first, second = windows((Fragment(", " * 70, 1.0), Fragment(", " * 10, 2.0)), tokenizer)
    assert first.weights == (*[1.0] * 71, *[2.0] * 5, 1.0)
    assert second.weights == (1.0, *[2.0] * 5, *[1.0] * 71)


def test_more_windows_than_allowed_are_refused(tokenizer: Tokenizer) -> None:
    assert len(windows((Fragment(", " * 75 * MAX_WINDOWS, 1.0),), tokenizer)) == MAX_WINDOWS
    with pytest.raises(InvalidInput, match="4801 tokens; 4800 are allowed"):
        windows((Fragment(", " * (75 * MAX_WINDOWS + 1), 1.0),), tokenizer)
