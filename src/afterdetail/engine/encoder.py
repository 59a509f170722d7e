"""Jobs to what their first step needs: text and pictures encoded together, changing nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from afterdetail.engine import codec, denoiser
from afterdetail.engine.job import Job, Running
from afterdetail.prompts.windows import Window

Windows = tuple[Window, ...]


def encode(jobs: Sequence[Job]) -> list[Running]:
    """Start jobs of one model and one picture size."""
    embeddings = _embeddings(jobs)
    masks = [codec.to_mask(job.mask) for job in jobs]
    clean, masked = _latents(jobs, masks)
    parts = zip(jobs, embeddings, masks, clean, masked, strict=True)
    return [denoiser.begin(*part) for part in parts]


def _embeddings(jobs: Sequence[Job]) -> list[torch.Tensor]:
    """For each job ``(rows, tokens, D)``; a prompt that several jobs share is encoded once."""
    texts = [_texts(job) for job in jobs]
    distinct = list(dict.fromkeys(text for pair in texts for text in pair))
    encoded = dict(zip(distinct, codec.encode_windows(jobs[0].model, distinct), strict=True))
    return [torch.cat([encoded[text] for text in pair]) for pair in texts]


def _texts(job: Job) -> tuple[Windows, ...]:
    """The windows of each row, the shorter prompt filled up with empty windows."""
    positive = codec.prompt_windows(job.model, job.prompt)
    if not job.guided:
        return (positive,)
    negative = codec.prompt_windows(job.model, job.negative_prompt)
    length = max(len(positive), len(negative))
    empty = codec.prompt_windows(job.model, "")
    return tuple(text + empty * (length - len(text)) for text in (negative, positive))


def _latents(
    jobs: Sequence[Job], masks: Sequence[torch.Tensor]
) -> tuple[list[denoiser.Moments], list[denoiser.Moments | None]]:
    """Moments of each clean picture, and of each masked one if the model takes them."""
    model = jobs[0].model
    pictures = [codec.to_tensor(job.image) for job in jobs]
    if not model.takes_mask:
        return codec.encode_pictures(model, pictures), [None] * len(jobs)
    masked = [picture * (mask < 0.5) for picture, mask in zip(pictures, masks, strict=True)]
    moments = codec.encode_pictures(model, [*pictures, *masked])
    return moments[: len(jobs)], list(moments[len(jobs) :])
