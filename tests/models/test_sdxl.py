"""SDXL in the engine against diffusers' own inpainting pipeline: the same picture.

The engine runs all jobs of a model at once, the reference one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

WIDTH, HEIGHT = 32, 16
Case = tuple[Sampler, int, float]
OWN_CASES: list[Case] = [
    (sampler, *rest) for sampler in Sampler for rest in ((20, 0.3), (4, 0.6), (4, 1.0))
]
"""Half of what SD 1.5 is held to; 4 at 0.3 is one step, 20 at 0.6 and 1.0 more of the same."""
CASES: dict[str, list[Case]] = {
    "sdxl": OWN_CASES,
    "sdxl-inpainting": [(sampler, 4, 0.6) for sampler in Sampler],
    "refiner": [(sampler, 4, 0.6) for sampler in Sampler],
}
"""Fewer of the models that differ in nothing but their inputs."""
TRIED = (
    Sampler.DDIM,
    Sampler.K_EULER_ANCESTRAL,
    Sampler.DPM_PLUS_PLUS_2M_KARRAS,
    Sampler.DPM_2,
    Sampler.PNDM,
)


def picture(photo: Any) -> RGB:
    face = Image.fromarray(photo("skimage_astronaut.png")[60:160, 160:310])
    return np.asarray(face.resize((WIDTH, HEIGHT)))


@pytest.fixture(scope="module")
def narrow(make: Make) -> Make:
    """The small models with UNets smaller still: hundreds of pictures are made here."""

    def narrowed(kind: str) -> DiffusionModel:
        model = make(kind)
        levels = 4 if model.is_refiner else 3
        smaller = {
            "block_out_channels": (32, 32, 64, 64)[:levels],
            "transformer_layers_per_block": [1] * levels,
            "layers_per_block": 1,
        }
        torch.manual_seed(1)
        unet = diffusers.UNet2DConditionModel.from_config({**model.unet.config, **smaller})
        return replace(model, unet=unet.eval().requires_grad_(False))

    return narrowed


@pytest.fixture(scope="module")
def job(photo: Any) -> Job:
    """A model is put in later."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:12, 8:24] = 255
    return Job(
        model=None,  # type: ignore[arg-type]
        image=picture(photo),
        mask=mask,
        prompt="a young woman, smiling",
    )


def jobs_of(job: Job, model: DiffusionModel, cases: Sequence[Case]) -> dict[Case, Job]:
    """They differ in everything that jobs of one model can differ in."""
    return {
        (sampler, steps, strength): replace(
            job,
            model=model,
            negative_prompt=("", "old")[index % 2],
            sampler=sampler,
            steps=steps,
            strength=strength,
            guidance_scale=(7.5, 1.0, 5.0)[(index + index // 3) % 3],
            seed=index + 1,
        )
        for index, (sampler, steps, strength) in enumerate(cases)
    }


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
    if job.sampler is Sampler.DPM_PLUS_PLUS_SDE_KARRAS:
        options = {**options, "noise_sampler_seed": job.seed}
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


def difference(one: RGB, other: RGB) -> int:
    return int(np.abs(one.astype(int) - other).max())


@dataclass(frozen=True, eq=False)
class Together:
    """All jobs of a model, which ran at once, and their pictures."""

    jobs: dict[Case, Job]
    pictures: dict[Case, RGB]


@pytest.fixture(scope="module", params=CASES)
def together(request: pytest.FixtureRequest, narrow: Make, job: Job) -> Together:
    jobs = jobs_of(job, narrow(request.param), CASES[request.param])
    return Together(jobs, dict(zip(jobs, run(list(jobs.values())), strict=True)))


@pytest.mark.parametrize("sampler", Sampler)
def test_each_job_gives_the_pipelines_picture(together: Together, sampler: Sampler) -> None:
    mine = {case: job for case, job in together.jobs.items() if case[0] is sampler}
    differences = {
        case: difference(reference(mine[case]), together.pictures[case]) for case in mine
    }
    assert mine
    assert max(differences.values()) <= 1, differences


def test_no_two_pictures_are_the_same(together: Together) -> None:
    """The parity above would hold for a table that maps every name to one scheduler."""
    pictures = {picture.tobytes() for picture in together.pictures.values()}
    assert len(pictures) == len(together.jobs)


@pytest.mark.parametrize("kind", ["sdxl", "refiner"])
def test_other_sizes_told_are_the_pipelines_too(narrow: Make, job: Job, kind: str) -> None:
    told = SizeConditioning((20, 500), crop=(7, 90))
    mine = replace(job, model=narrow(kind), steps=5, size_conditioning=told)
    (picture,), (plain,) = run([mine]), run([replace(mine, size_conditioning=None)])
    assert not np.array_equal(picture, plain)
    assert difference(reference(mine), picture) <= 1


@pytest.mark.parametrize("marks", [["v_pred"], ["v_pred", "ztsnr"]])
def test_velocity_and_zero_signal_are_the_pipelines_too(
    narrow: Make, job: Job, marks: list[str]
) -> None:
    """The noise schedules of checkpoints with these marks, in samplers of every sort."""
    model = narrow("sdxl")
    trained = schedule(Header(dict.fromkeys(marks, ()), {}))
    strengths = itertools.cycle((0.5, 1.0))
    cases = [(sampler, 5, strength) for sampler, strength in zip(TRIED, strengths, strict=False)]
    mine = list(jobs_of(job, replace(model, scheduler_config=trained), cases).values())
    (plain,) = run([replace(mine[0], model=model)])
    pictures = run(mine)
    assert not np.array_equal(pictures[0], plain)
    for job, picture in zip(mine, pictures, strict=True):
        assert difference(reference(job), picture) <= 1, (job.sampler, job.strength)
