"""Jobs to what their first step needs: text and pictures encoded together, changing nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from afterdetail.engine import codec, denoiser
from afterdetail.engine.job import Job, Running
from afterdetail.engine.placement import VAE, Placement
from afterdetail.engine.prompts import PromptCache
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.text import Conditioning, Text, condition, prompt_windows


def encode(jobs: Sequence[Job], prompts: PromptCache, placement: Placement) -> list[Running]:
    """Start jobs of one model and one picture size."""
    texts = _conditioning(jobs[0].model, jobs, prompts)
    masks = [codec.to_mask(job.mask) for job in jobs]
    clean, masked = _latents(placement.visiting(jobs[0].model, VAE), jobs, masks)
    parts = zip(jobs, texts, masks, clean, masked, strict=True)
    return [denoiser.begin(*part) for part in parts]


def hand_over(batch: Sequence[Running], prompts: PromptCache) -> list[Running]:
    """Jobs as their refiner takes them over; jobs of one refiner."""
    jobs = [running.job for running in batch]
    refiner = batch[0].successor
    assert refiner is not None, "only jobs with a refiner are handed over"
    texts = _conditioning(refiner, jobs, prompts)
    return [denoiser.hand_over(running, text) for running, text in zip(batch, texts, strict=True)]


def _conditioning(
    model: DiffusionModel, jobs: Sequence[Job], prompts: PromptCache
) -> list[Conditioning]:
    """What the UNet is told of each job; a prompt that several jobs share is encoded once."""
    texts = [_texts(model, job) for job in jobs]
    encoded = prompts.encode(model, [text for pair in texts for text in pair])
    return [
        condition(
            model,
            [encoded[text] for text in pair],
            *job.image.shape[:2],
            told=job.size_conditioning,
            blank_negative=not job.negative_prompt,
        )
        for job, pair in zip(jobs, texts, strict=True)
    ]


def _texts(model: DiffusionModel, job: Job) -> tuple[Text, ...]:
    """The text of each row, the shorter prompt filled up with empty windows."""
    skip = model.clip_skip if job.clip_skip is None else job.clip_skip
    prompts = (job.negative_prompt, job.prompt) if job.guided else (job.prompt,)
    windows = [prompt_windows(model, prompt, job.inversions) for prompt in prompts]
    length = max(map(len, windows))
    empty = prompt_windows(model, "")
    return tuple(Text(text + empty * (length - len(text)), skip) for text in windows)


def _latents(
    model: DiffusionModel, jobs: Sequence[Job], masks: Sequence[torch.Tensor]
) -> tuple[list[denoiser.Moments], list[denoiser.Moments | None]]:
    """Moments of each clean picture, and of each masked one if the model takes them."""
    pictures = [codec.to_tensor(job.image) for job in jobs]
    if not model.takes_mask:
        return codec.encode_pictures(model, pictures), [None] * len(jobs)
    masked = [picture * (mask < 0.5) for picture, mask in zip(pictures, masks, strict=True)]
    moments = codec.encode_pictures(model, [*pictures, *masked])
    return moments[: len(jobs)], list(moments[len(jobs) :])
