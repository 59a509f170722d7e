"""Windows: what a CLIP text encoder reads at once, 77 tokens of which 75 are the prompt's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from afterdetail.errors import InvalidInput
from afterdetail.prompts.weights import Fragment

MAX_WINDOWS = 64
"""Of one prompt. A text encoder reads them all at once, while every other job waits."""


class Tokenizer(Protocol):
    """What is used of transformers' ``CLIPTokenizer``."""

    model_max_length: int
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int

    def encode(self, text: str, *, add_special_tokens: bool, verbose: bool) -> list[int]: ...


class Word(Protocol):
    """A word that is in no vocabulary, worth some tokens; what they are is the models' affair."""

    @property
    def name(self) -> str: ...

    @property
    def vectors(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Vector:
    """Token number ``index`` of such a word."""

    word: Word
    index: int


Token = int | Vector


@dataclass(frozen=True, slots=True)
class Window:
    """One input of the text encoder: as many tokens as it takes, and the weight of each.

    Begin, end and padding weigh 1.
    """

    ids: tuple[Token, ...]
    weights: tuple[float, ...]


def windows(
    fragments: Iterable[Fragment], tokenizer: Tokenizer, words: Sequence[Word] = ()
) -> tuple[Window, ...]:
    """Tokenize a prompt and lay it out in windows; nothing is cut off, and there is at least one.

    Each fragment is tokenized on its own, so a bracket inside a word divides the word, as it does
    in AUTOMATIC1111's web UI. A short prompt without weights has exactly the ids that transformers
    gives it with ``padding="max_length"``. Where the name of one of ``words`` stands, in capitals
    or not, its vectors take the place of its tokens.

    Raises:
        InvalidInput: there are more than ``MAX_WINDOWS``.
    """
    tokens = [
        (token, fragment.weight)
        for fragment in fragments
        for token in _tokens(fragment.text, tokenizer, words)
    ]
    room = tokenizer.model_max_length - 2
    if len(tokens) > MAX_WINDOWS * room:
        message = f"the prompt has {len(tokens)} tokens; {MAX_WINDOWS * room} are allowed"
        raise InvalidInput("prompt_too_long", message, field="prompt")
    starts = range(0, max(len(tokens), 1), room)
    return tuple(_window(tokens[start : start + room], tokenizer) for start in starts)


def _tokens(text: str, tokenizer: Tokenizer, words: Sequence[Word]) -> Iterator[Token]:
    by_name = {word.name.lower(): word for word in words}
    for part in re.split(names_pattern(by_name), text) if by_name else [text]:
        if word := by_name.get(part.lower()):
            yield from (Vector(word, index) for index in range(word.vectors))
        else:
            yield from tokenizer.encode(part, add_special_tokens=False, verbose=False)


def names_pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Finds each of the names where it stands as words of its own, in capitals or not."""
    longest_first = sorted(names, key=len, reverse=True)
    either = "|".join(re.escape(name) for name in longest_first)
    return re.compile(rf"(?<!\w)({either})(?!\w)", re.IGNORECASE)


def _window(tokens: list[tuple[Token, float]], tokenizer: Tokenizer) -> Window:
    padding = tokenizer.model_max_length - 2 - len(tokens)
    ids = [token for token, _ in tokens]
    weights = [weight for _, weight in tokens]
    return Window(
        (tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding),
        (1.0, *weights, *[1.0] * (padding + 1)),
    )
