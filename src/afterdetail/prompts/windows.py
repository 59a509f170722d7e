"""Windows: what a CLIP text encoder reads at once, 77 tokens of which 75 are the prompt's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from afterdetail.prompts.weights import Fragment


class Tokenizer(Protocol):
    """What is used of transformers' ``CLIPTokenizer``."""

    model_max_length: int
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int

    def encode(self, text: str, *, add_special_tokens: bool, verbose: bool) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Window:
    """One input of the text encoder: as many ids as it takes, and the weight of each.

    Begin, end and padding weigh 1.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]


def windows(fragments: Iterable[Fragment], tokenizer: Tokenizer) -> tuple[Window, ...]:
    """Tokenize a prompt and lay it out in windows; nothing is cut off, and there is at least one.

    Each fragment is tokenized on its own, so a bracket inside a word divides the word, as it does
    in AUTOMATIC1111's web UI. A short prompt without weights has exactly the ids that transformers
    gives it with ``padding="max_length"``.
    """
    tokens = [
        (token, fragment.weight)
        for fragment in fragments
        for token in tokenizer.encode(fragment.text, add_special_tokens=False, verbose=False)
    ]
    room = tokenizer.model_max_length - 2
    starts = range(0, max(len(tokens), 1), room)
    return tuple(_window(tokens[start : start + room], tokenizer) for start in starts)


def _window(tokens: list[tuple[int, float]], tokenizer: Tokenizer) -> Window:
    padding = tokenizer.model_max_length - 2 - len(tokens)
    ids = [token for token, _ in tokens]
    weights = [weight for _, weight in tokens]
    return Window(
        (tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding),
        (1.0, *weights, *[1.0] * (padding + 1)),
    )
