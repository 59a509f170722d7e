"""Prompts to what a UNet is told of them, for SD 1.x, SDXL and its refiner.

SD 1.x reads the last layer of one CLIP encoder. SDXL (Podell et al. 2023) reads the last layer but
one of two encoders side by side, and is told the whole text's vector and some numbers besides: the
sizes of the picture and where it was cropped, or, the refiner, how beautiful it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from afterdetail.errors import InvalidInput
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.inversion import FIRST, SECOND, Inversion
from afterdetail.prompts.weights import parse
from afterdetail.prompts.windows import Vector, Window, windows
from afterdetail.types import SizeConditioning

Windows = tuple[Window, ...]

AESTHETIC_SCORES = (2.5, 6.0)
"""Of the negative prompt's row and the prompt's: diffusers' defaults for the refiner."""


@dataclass(frozen=True, slots=True)
class Text:
    """What is encoded of a prompt: its windows, without the last ``clip_skip`` layers."""

    windows: Windows
    clip_skip: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """One text: ``tokens`` float32 ``(1, 77 * windows, D)``; of SDXL ``pooled`` ``(1, P)`` too."""

    tokens: torch.Tensor
    pooled: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """The rows of a job: the prompt's, behind the negative one's if it is guided.

    ``tokens`` is float32 ``(rows, tokens, D)``; ``added`` float32 ``(rows, P + N)``: of SDXL the
    text's vector and N numbers, else None.
    """

    tokens: torch.Tensor
    added: torch.Tensor | None = None


def prompt_windows(
    model: DiffusionModel, prompt: str, inversions: Sequence[Inversion] = ()
) -> Windows:
    """The 77-token windows of a weighted prompt, at least one."""
    return windows(parse(prompt), _tokenizer(model), inversions)


def _tokenizer(model: DiffusionModel) -> Any:
    """They differ in nothing but what fills a window up."""
    return model.tokenizer or model.tokenizer_2


def encode_texts(model: DiffusionModel, texts: Sequence[Text]) -> list[Embedded]:
    """Several texts in one forward of each text encoder, the windows of a text side by side."""
    flat = [window for text in texts for window in text.windows]
    skips = [text.clip_skip for text in texts for _ in text.windows]
    lengths = [len(text.windows) for text in texts]
    if model.text_encoder_2 is None:
        hidden, vectors = _sd15_tokens(model, flat, skips), None
    else:
        hidden, vectors = _sdxl_tokens(model, flat, skips)
    tokens = torch.split(hidden, lengths)
    # A text's vector is that of its first window.
    pooled = [None] * len(texts) if vectors is None else torch.split(vectors, lengths)
    return [
        Embedded(_weighted(part, text.windows), None if vector is None else vector[:1])
        for part, text, vector in zip(tokens, texts, pooled, strict=True)
    ]


def _sd15_tokens(
    model: DiffusionModel, flat: Sequence[Window], skips: Sequence[int]
) -> torch.Tensor:
    encoder: Any = model.text_encoder
    encoded = _read(model, FIRST, model.tokenizer, flat)
    body = getattr(encoder, "text_model", encoder)
    tokens: torch.Tensor = body.final_layer_norm(_layers(encoded, -1, skips))
    return tokens.float()


def _sdxl_tokens(
    model: DiffusionModel, flat: Sequence[Window], skips: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of both encoders side by side, and the vectors that the second makes."""
    parts: list[torch.Tensor] = []
    if model.text_encoder is not None:
        parts.append(_layers(_read(model, FIRST, model.tokenizer, flat), -2, skips))
    second = _read(model, SECOND, model.tokenizer_2, flat)
    parts.append(_layers(second, -2, skips))
    return torch.cat(parts, dim=-1).float(), second.text_embeds.float()


def _layers(encoded: Any, last: int, skips: Sequence[int]) -> torch.Tensor:
    """Of each window the layer ``last``, or as many before it as it skips: ``(windows, 77, D)``."""
    states = encoded.hidden_states
    # As many layers as there are can be skipped, not more.
    chosen = [max(last - skip, -len(states)) for skip in skips]
    return torch.stack([states[layer][row] for row, layer in enumerate(chosen)])


def _read(model: DiffusionModel, part: str, tokenizer: Any, flat: Sequence[Window]) -> Any:
    """The output of a text encoder for windows, the vectors of inversions in their places."""
    encoder: Any = model.networks[part]
    with _vectors_put_in(encoder, part, flat):
        return encoder(_ids(flat, model, tokenizer), output_hidden_states=True)


def _ids(flat: Sequence[Window], model: DiffusionModel, tokenizer: Any) -> torch.Tensor:
    """int64 ``(windows, 77)``, filled up after the end of the text as ``tokenizer`` does it."""
    rows = [[0 if isinstance(token, Vector) else token for token in w.ids] for w in flat]
    ids = torch.tensor(rows, device=model.device)
    ends = (ids == tokenizer.eos_token_id).int()
    return ids.masked_fill(ends.cumsum(dim=1) > ends, tokenizer.pad_token_id)


@contextmanager
def _vectors_put_in(encoder: Any, part: str, flat: Sequence[Window]) -> Iterator[None]:
    """While this lasts, the encoder reads the windows' vectors where they stand.

    Its own vocabulary stays as it is, so nothing is left of them afterwards.
    """
    places = [
        (row, column, token)
        for row, window in enumerate(flat)
        for column, token in enumerate(window.ids)
        if isinstance(token, Vector)
    ]
    if not places:
        yield
        return

    def put_in(_: object, __: object, embedded: torch.Tensor) -> torch.Tensor:
        embedded = embedded.clone()
        for row, column, token in places:
            embedded[row, column] = _vector(token, part, embedded.shape[-1]).to(embedded)
        return embedded

    handle = encoder.get_input_embeddings().register_forward_hook(put_in)
    try:
        yield
    finally:
        handle.remove()


def _vector(token: Vector, part: str, width: int) -> torch.Tensor:
    """float32 ``(width,)``.

    Raises:
        InvalidInput: the inversion is of another base.
    """
    assert isinstance(token.word, Inversion), "the only words there are"
    vector = token.word.vector(part, token.index)
    if vector is None or len(vector) != width:
        raise InvalidInput(
            "adapter_incompatible",
            f"embedding {token.word.name!r} does not fit this model",
            field="prompt",
        )
    return vector


def _weighted(hidden: torch.Tensor, text: Windows) -> torch.Tensor:
    """Each token times its weight, then the whole rescaled to the mean it had."""
    joined = hidden.reshape(1, -1, hidden.shape[-1])
    weights = torch.tensor([w for window in text for w in window.weights], device=hidden.device)
    if bool((weights == 1).all()):
        return joined
    scaled = joined * weights[None, :, None]
    mean = scaled.mean()
    return scaled * (joined.mean() / mean) if abs(float(mean)) > 1e-8 else scaled


def condition(
    model: DiffusionModel,
    texts: Sequence[Embedded],
    height: int,
    width: int,
    *,
    blank_negative: bool,
    told: SizeConditioning | None = None,
) -> Conditioning:
    """Put the rows of a job together.

    Args:
        texts: the prompt, behind the negative prompt if the job is guided.
        height: pixels of what is denoised, like ``width``.
        blank_negative: the negative prompt is empty: SDXL was trained with zeros in its place.
        told: None: the picture was not cropped, and is as large as it is painted.
    """
    if model.text_encoder_2 is None:
        return Conditioning(torch.cat([text.tokens for text in texts]))
    if blank_negative and len(texts) > 1 and not model.is_refiner:
        texts = [_zeros(texts[0]), *texts[1:]]
    sizes = _sizes(told or SizeConditioning((width, height)), height, width)
    rows = [_added(model, text, sizes, index, len(texts)) for index, text in enumerate(texts)]
    return Conditioning(torch.cat([text.tokens for text in texts]), torch.cat(rows))


def _zeros(text: Embedded) -> Embedded:
    assert text.pooled is not None
    return Embedded(torch.zeros_like(text.tokens), torch.zeros_like(text.pooled))


def _sizes(told: SizeConditioning, height: int, width: int) -> list[int]:
    """In SDXL's order: original height and width, what was cropped at top and left, the target."""
    (x, y), (original_width, original_height) = told.crop, told.original
    return [original_height, original_width, y, x, height, width]


def _added(
    model: DiffusionModel, text: Embedded, sizes: list[int], index: int, rows: int
) -> torch.Tensor:
    """float32 ``(1, P + N)``; a refiner is told a score in the place of the target."""
    assert text.pooled is not None
    score = AESTHETIC_SCORES[len(AESTHETIC_SCORES) - rows + index]
    told = [*sizes[:4], score] if model.is_refiner else sizes
    numbers = torch.tensor([told], dtype=torch.float32)
    return torch.cat([text.pooled, numbers.to(text.pooled.device)], dim=1)


def added_arguments(
    added: torch.Tensor | None, dtype: torch.dtype, *, refiner: bool
) -> dict[str, torch.Tensor]:
    """What diffusers' UNet calls ``added_cond_kwargs``; its numbers stay float32."""
    if added is None:
        return {}
    numbers = 5 if refiner else 6
    return {"text_embeds": added[:, :-numbers].to(dtype), "time_ids": added[:, -numbers:]}
