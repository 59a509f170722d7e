"""Our loop against diffusers' own inpainting pipeline: the same picture from the same seed.

The engine runs every case of a model at once, all samplers, strengths and step counts in shared
forwards; the reference runs them one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from afterdetail.engine.backend import Backend
from afterdetail.engine.engine import Engine
from afterdetail.engine.job import Job
from afterdetail.engine.samplers import SAMPLERS
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.options import Sampler
from afterdetail.types import RGB, Gray

Case = tuple[Sampler, int, float]

STEPS = (4, 20)
STRENGTHS = (0.3, 0.6, 1.0)
CASES: list[Case] = list(itertools.product(Sampler, STEPS, STRENGTHS))
PROMPT, NEGATIVE = "a young woman, smiling", "old"


def settings(case: Case) -> dict[str, Any]:
    """Seed and guidance differ from case to case; every third is unguided."""
    index = CASES.index(case)
    return {"seed": index + 1, "guidance": 1.0 if index % 3 == 2 else 7.5}


def reference(model: DiffusionModel, face: RGB, oval: Gray, case: Case) -> RGB:
    """One call of ``StableDiffusionInpaintPipeline``."""
    sampler, steps, strength = case
    name, options = SAMPLERS[sampler]
    seed, guidance = settings(case)["seed"], settings(case)["guidance"]
    if sampler is Sampler.DPM_PLUS_PLUS_SDE_KARRAS:
        options = {**options, "noise_sampler_seed": seed}
    pipe = diffusers.StableDiffusionInpaintPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=getattr(diffusers, name).from_config(dict(model.scheduler_config), **options),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    height, width = oval.shape
    result = pipe(
        PROMPT,
        negative_prompt=NEGATIVE,
        image=Image.fromarray(face),
        mask_image=Image.fromarray(oval),
        width=width,
        height=height,
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(seed),
    )
    return np.asarray(result.images[0])


def run_together(
    model: DiffusionModel, face: RGB, oval: Gray, backend: Backend
) -> Mapping[Case, RGB]:
    engine = Engine(backend=backend)
    numbers = {}
    for case in CASES:
        sampler, steps, strength = case
        seed, guidance = settings(case)["seed"], settings(case)["guidance"]
        job = Job(
            model, face, oval, PROMPT, NEGATIVE, sampler, steps, strength, guidance, seed
        )  # fmt: skip
        numbers[engine.add(job)] = case
    results = {}
    while not engine.idle:
        for finished in engine.step():
            assert isinstance(finished.outcome, np.ndarray), finished.outcome
            results[numbers[finished.number]] = finished.outcome
    return results


@pytest.fixture(scope="module")
def references(
    tiny: DiffusionModel, nine_channels: DiffusionModel, face: RGB, oval: Gray
) -> Mapping[int, Mapping[Case, RGB]]:
    """Diffusers' pictures by the UNet's channels: made once, for all backends."""
    models = {4: tiny, 9: nine_channels}
    return {
        channels: {case: reference(model, face, oval, case) for case in CASES}
        for channels, model in models.items()
    }


@pytest.fixture(scope="module")
def four(tiny: DiffusionModel, face: RGB, oval: Gray, backend: Backend) -> Mapping[Case, RGB]:
    return run_together(tiny, face, oval, backend)


@pytest.fixture(scope="module")
def nine(
    nine_channels: DiffusionModel, face: RGB, oval: Gray, backend: Backend
) -> Mapping[Case, RGB]:
    return run_together(nine_channels, face, oval, backend)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def test_four_channels_give_the_pipelines_picture(
    four: Mapping[Case, RGB], references: Mapping[int, Mapping[Case, RGB]], case: Case
) -> None:
    assert np.abs(references[4][case].astype(int) - four[case]).max() <= 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def test_nine_channels_give_the_pipelines_picture(
    nine: Mapping[Case, RGB], references: Mapping[int, Mapping[Case, RGB]], case: Case
) -> None:
    assert np.abs(references[9][case].astype(int) - nine[case]).max() <= 1


def test_the_samplers_differ(four: Mapping[Case, RGB]) -> None:
    """The parity above would hold for a table that maps every name to one scheduler."""
    pictures = {four[sampler, 20, 1.0].tobytes() for sampler in Sampler}
    assert len(pictures) == len(Sampler)
