"""SDXL in the engine against diffusers' own inpainting pipeline: the same picture."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from afterdetail.engine.engine import Engine
from afterdetail.engine.job import Job
from afterdetail.engine.samplers import SAMPLERS
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.header import Header
from afterdetail.models.single_file import schedule
from afterdetail.options import Sampler
from afterdetail.types import RGB, SizeConditioning

Make = Callable[[str], DiffusionModel]

WIDTH, HEIGHT = 48, 32
SAMPLERS_TRIED = (
    Sampler.DDIM,
    Sampler.K_EULER_ANCESTRAL,
    Sampler.DPM_PLUS_PLUS_2M_KARRAS,
    Sampler.DPM_2,
    Sampler.PNDM,
)
CASES = list(itertools.product(SAMPLERS_TRIED, (0.5, 1.0)))


def picture(photo: Any) -> RGB:
    face = Image.fromarray(photo("skimage_astronaut.png")[60:160, 160:310])
    return np.asarray(face.resize((WIDTH, HEIGHT)))


@pytest.fixture(scope="module")
def jobs(photo: Any) -> list[Job]:
    """They differ in everything that jobs of one model can differ in; models are put in later."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[8:24, 12:36] = 255
    return [
        Job(
            model=None,  # type: ignore[arg-type]
            image=picture(photo),
            mask=mask,
            prompt="a young woman, smiling",
            negative_prompt=("", "old")[index % 2],
            sampler=sampler,
            steps=5,
            strength=strength,
            guidance_scale=(7.5, 1.0, 5.0)[index % 3],
            seed=index + 1,
        )
        for index, (sampler, strength) in enumerate(CASES)
    ]


def run(jobs: Sequence[Job]) -> list[RGB]:
    engine = Engine()
    numbers = [engine.add(job) for job in jobs]
    results = {}
    while not engine.idle:
        results.update({done.number: done.outcome for done in engine.step()})
    pictures = [results[number] for number in numbers]
    assert all(isinstance(picture, np.ndarray) for picture in pictures), pictures
    return pictures  # type: ignore[return-value]


def reference(job: Job) -> RGB:
    """One call of ``StableDiffusionXLInpaintPipeline``."""
    model = job.model
    name, options = SAMPLERS[job.sampler]
    scheduler = getattr(diffusers, name).from_config(dict(model.scheduler_config), **options)
    pipe = diffusers.StableDiffusionXLInpaintPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        text_encoder_2=model.text_encoder_2,
        tokenizer=model.tokenizer,
        tokenizer_2=model.tokenizer_2,
        unet=model.unet,
        scheduler=scheduler,
        requires_aesthetics_score=model.is_refiner,
        force_zeros_for_empty_prompt=not model.is_refiner,
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    told = job.size_conditioning or SizeConditioning((WIDTH, HEIGHT))
    result = pipe(
        job.prompt,
        negative_prompt=job.negative_prompt or (None if not model.is_refiner else ""),
        image=Image.fromarray(job.image),
        mask_image=Image.fromarray(job.mask),
        width=WIDTH,
        height=HEIGHT,
        strength=job.strength,
        num_inference_steps=job.steps,
        guidance_scale=job.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(job.seed),
        original_size=told.original[::-1],
        crops_coords_top_left=told.crop[::-1],
        negative_crops_coords_top_left=told.crop[::-1],
    )
    return np.asarray(result.images[0])


@pytest.mark.parametrize("kind", ["sdxl", "sdxl-inpainting", "refiner"])
def test_each_job_gives_the_pipelines_picture(make: Make, jobs: list[Job], kind: str) -> None:
    model = make(kind)
    mine = [replace(job, model=model) for job in jobs]
    pictures = run(mine)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    for job, picture in zip(mine, pictures, strict=True):
        difference = np.abs(reference(job).astype(int) - picture).max()
        assert difference <= 1, (job.sampler, job.strength)


@pytest.mark.parametrize("kind", ["sdxl", "refiner"])
def test_other_sizes_told_are_the_pipelines_too(make: Make, jobs: list[Job], kind: str) -> None:
    told = SizeConditioning((20, 500), crop=(7, 90))
    (job,) = mine = [replace(jobs[0], model=make(kind), size_conditioning=told)]
    (picture,), (plain,) = run(mine), run([replace(job, size_conditioning=None)])
    assert not np.array_equal(picture, plain)
    assert np.abs(reference(job).astype(int) - picture).max() <= 1


@pytest.mark.parametrize("marks", [["v_pred"], ["v_pred", "ztsnr"]])
def test_velocity_and_zero_signal_are_the_pipelines_too(
    make: Make, jobs: list[Job], marks: list[str]
) -> None:
    """The noise schedules of checkpoints with these marks, in every sampler tried."""
    trained = schedule(Header(dict.fromkeys(marks, ()), {}))
    model = replace(make("sdxl"), scheduler_config=trained)
    mine = [replace(job, model=model) for job in jobs]
    plain = run([replace(job, model=make("sdxl")) for job in jobs[:1]])
    pictures = run(mine)
    assert not np.array_equal(pictures[0], plain[0])
    for job, picture in zip(mine, pictures, strict=True):
        difference = np.abs(reference(job).astype(int) - picture).max()
        assert difference <= 1, (job.sampler, job.strength)
