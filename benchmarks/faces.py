"""What the engine's benchmarks have in common: jobs and the serial loop of diffusers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

import afterdetail
from afterdetail.engine.job import Job
from afterdetail.engine.samplers import SAMPLERS
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.folder import load_folder
from afterdetail.options import Base, Sampler
from afterdetail.types import RGB, Gray

ROOT = Path(__file__).parents[1]
SIDE = 128
"""Pixels: the size the model ``tiny`` repaints at."""
PROMPTS = ("a young woman, smiling", "an old man with a beard", "a child", "a man, studio light")


@cache
def tiny() -> DiffusionModel:
    folder = Path(afterdetail.__file__).parent / "models" / "tiny"
    return load_folder("tiny", Base.SD15, folder, torch.device("cpu"), torch.float32)


def face() -> RGB:
    """The face of one of the tests' photographs, at the size of ``tiny``."""
    photo = ROOT / "tests" / "data" / "photos" / "skimage_astronaut.png"
    crop = Image.open(photo).convert("RGB").crop((160, 50, 288, 178))
    return np.asarray(crop.resize((SIDE, SIDE)))


def oval() -> Gray:
    y, x = np.mgrid[:SIDE, :SIDE]
    inside = ((x - 62) / 36.0) ** 2 + ((y - 68) / 46.0) ** 2 <= 1
    return np.where(inside, 255, 0).astype(np.uint8)


def face_jobs(count: int, model: DiffusionModel, steps: int = 20) -> list[Job]:
    """The faces of one picture: all alike but for their seeds."""
    job = Job(
        model, face(), oval(), PROMPTS[0], "blurry", Sampler.DPM_PLUS_PLUS_2M_KARRAS, steps, 0.5
    )
    return [replace(job, seed=index + 1) for index in range(count)]


def mixed_requests(count: int, model: DiffusionModel, seed: int = 0) -> list[list[Job]]:
    """Requests of two faces each that differ in everything requests for one model can."""
    chance = random.Random(seed)
    requests = []
    for number in range(count):
        guidance = chance.choice((1.0, 4.0, 7.5, 7.5))
        first = replace(
            face_jobs(1, model)[0],
            sampler=chance.choice(list(Sampler)),
            steps=chance.choice((10, 20, 30)),
            strength=chance.choice((0.3, 0.4, 0.6)),
            guidance_scale=guidance,
            prompt=chance.choice(PROMPTS),
            seed=2 * number + 1,
        )
        requests.append([first, replace(first, seed=first.seed + 1)])
    return requests


class SerialLoop:
    """What everyone does without an engine: one call of diffusers' pipeline after the other."""

    def __init__(self, model: DiffusionModel) -> None:
        self._pipe = _pipeline(model)
        self._pipe.set_progress_bar_config(disable=True)
        self._schedulers: dict[tuple[Sampler, int | None], Any] = {}

    def paint(self, job: Job) -> RGB:
        own = job.seed if job.sampler is Sampler.DPM_PLUS_PLUS_SDE_KARRAS else None
        if (job.sampler, own) not in self._schedulers:  # some take a tenth of a second to make
            self._schedulers[job.sampler, own] = scheduler(job)
        self._pipe.scheduler = self._schedulers[job.sampler, own]
        height, width = job.mask.shape
        result = self._pipe(
            job.prompt,
            negative_prompt=job.negative_prompt,
            image=Image.fromarray(job.image),
            mask_image=Image.fromarray(job.mask),
            width=width,
            height=height,
            strength=job.strength,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(job.seed),
        )
        return np.asarray(result.images[0])


def _pipeline(model: DiffusionModel) -> Any:
    shared = {
        "vae": model.vae,
        "text_encoder": model.text_encoder,
        "tokenizer": model.tokenizer,
        "unet": model.unet,
        "scheduler": diffusers.DDIMScheduler.from_config(dict(model.scheduler_config)),
    }
    if model.text_encoder_2 is None:
        return diffusers.StableDiffusionInpaintPipeline(
            **shared, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    return diffusers.StableDiffusionXLInpaintPipeline(
        **shared, text_encoder_2=model.text_encoder_2, tokenizer_2=model.tokenizer_2
    )


def scheduler(job: Job) -> Any:
    name, options = SAMPLERS[job.sampler]
    if job.sampler is Sampler.DPM_PLUS_PLUS_SDE_KARRAS:
        options = {**options, "noise_sampler_seed": job.seed}
    return getattr(diffusers, name).from_config(dict(job.model.scheduler_config), **options)


def same(ours: Sequence[RGB], theirs: Sequence[RGB]) -> bool:
    """Whether the pictures are equal to rounding: 1 of 255."""
    pairs = zip(ours, theirs, strict=True)
    return all(int(np.abs(a.astype(int) - b).max()) <= 1 for a, b in pairs)
