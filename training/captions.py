"""Captions as people write them: some of the portraits' phrases, not all.

The portraits' captions name everything. A prompt says "a woman with red hair" and leaves the rest
open, so models are trained on what is left of a caption when phrases are dropped.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

STYLES = ("short", "medium", "long", "curly", "buzz")
"""How hair is worn, before its colour."""


def phrases(caption: str) -> list[str]:
    """``"a photo of a man, sad, short black hair"``: what stands between the commas."""
    return [phrase.strip() for phrase in caption.split(",")] if caption else []


def shortened(caption: str, generator: torch.Generator, told: Collection[str] = ()) -> str:
    """As many of the phrases as a random share keeps, in their order; at times none.

    Of the hair's phrase half keep the colour alone, of the first half lose "a photo of". Phrases
    that are in ``told`` are kept in any case.
    """
    kept, *chances = torch.rand(1 + len(phrases(caption)), generator=generator).tolist()
    drawn = zip(phrases(caption), chances, strict=True)
    some = [phrase for phrase, chance in drawn if phrase in told or chance < 2 * kept]
    return ", ".join(_simplified(phrase, generator) for phrase in some)


def _simplified(phrase: str, generator: torch.Generator) -> str:
    if float(torch.rand((), generator=generator)) < 0.5:
        return phrase
    first, _, rest = phrase.partition(" ")
    return rest if first in STYLES else phrase.removeprefix("a photo of ")
