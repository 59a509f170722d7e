"""Windows and unweighted text against compel, another way to prompts of any length.

Its syntax of weights is another, so only plain text compares. By default it also ends a window at
the last full stop and begins each with the first one's first embedding; ours fill every window.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from afterdetail.models.text import Text, encode_texts, prompt_windows

compel = pytest.importorskip("compel")
provider = pytest.importorskip("compel.embeddings_provider")

SMALL = runpy.run_path(str(Path(__file__).parents[1] / "models" / "conftest.py"))
SDXL: dict[str, Any] = {
    "requires_pooled": [False, True],
    "returned_embeddings_type": (
        provider.ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
    ),
}
PROMPTS = (
    "",
    "a portrait of a cat, 4k",
    "cat " * 75,
    "cat " * 76,
    "a photo, sharp " * 40,
    "antidisestablishmentarianism. " * 30,
)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@torch.inference_mode()
def test_plain_text_of_any_length_is_embedded_as_compel_does(kind: str) -> None:
    model = SMALL["MODELS"][kind]()
    tokenizers = [model.tokenizer, model.tokenizer_2]
    encoders = [model.text_encoder, model.text_encoder_2]
    reference = compel.Compel(
        tokenizer=tokenizers if kind == "sdxl" else model.tokenizer,
        text_encoder=encoders if kind == "sdxl" else model.text_encoder,
        truncate_long_prompts=False,
        split_long_text_mode=provider.SplitLongTextMode.BRUTAL,
        **(SDXL if kind == "sdxl" else {}),
    )
    found = encode_texts(model, [Text(prompt_windows(model, prompt)) for prompt in PROMPTS])
    for prompt, ours in zip(PROMPTS, found, strict=True):
        theirs = reference(prompt)
        tokens, pooled = theirs if kind == "sdxl" else (theirs, None)
        assert torch.allclose(ours.tokens, tokens, atol=1e-5), prompt
        if pooled is not None:
            assert ours.pooled is not None
            assert torch.allclose(ours.pooled, pooled, atol=1e-5), prompt
