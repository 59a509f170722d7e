"""CLIP's tokenizer for checkpoints in a single file, which bring none of their own.

The merges are OpenAI's (MIT, see ``clip/LICENSE``); the vocabulary follows from them: 256 byte
units, the same at the end of a word, one token for each merge, begin and end of text.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path

from transformers import CLIPTokenizer

MERGES = Path(__file__).parent / "clip" / "merges.txt.gz"
LENGTH = 77
END_OF_TEXT = "<|endoftext|>"
PAD_OF_OPEN_CLIP = "!"
"""Token 0: what the second text encoder of SDXL was trained with."""


@lru_cache(maxsize=2)
def clip_tokenizer(pad_token: str = END_OF_TEXT) -> CLIPTokenizer:
    """The tokenizer of CLIP ViT-L/14, which all Stable Diffusion models share (49,408 tokens)."""
    lines = gzip.decompress(MERGES.read_bytes()).decode("utf-8").splitlines()
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines[1:])]
    units = _byte_units()
    words = [*units, *(f"{unit}</w>" for unit in units), *(a + b for a, b in merges)]
    vocabulary = [*words, "<|startoftext|>", END_OF_TEXT]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)},
        merges=merges,
        pad_token=pad_token,
        model_max_length=LENGTH,
    )


def _byte_units() -> list[str]:
    """A printable character for each byte, as byte-level BPE has them: printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(others)]
