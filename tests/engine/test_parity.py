"""Our loop against diffusers' own inpainting pipeline: the same picture from the same seed.

The engine runs every case of a model at once, all samplers, strengths and step counts in shared
forwards; the reference runs them one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from afterdetail.engine.backend import Backend, EagerBackend
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
FEW_CASES: list[Case] = [(sampler, 4, 1.0) for sampler in Sampler]
"""For each backend: they differ in nothing but the UNet's forward."""
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
    model: DiffusionModel,
    face: RGB,
    oval: Gray,
    backend: Backend,
    cases: Sequence[Case] = CASES,
) -> Mapping[Case, RGB]:
    engine = Engine(backend=backend)
    numbers = {}
    for case in cases:
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
def four(tiny: DiffusionModel, face: RGB, oval: Gray) -> Mapping[Case, RGB]:
    return run_together(tiny, face, oval, EagerBackend())


@pytest.fixture(scope="module")
def nine(nine_channels: DiffusionModel, face: RGB, oval: Gray) -> Mapping[Case, RGB]:
    return run_together(nine_channels, face, oval, EagerBackend())


@pytest.fixture(scope="module")
def others(tiny: DiffusionModel, face: RGB, oval: Gray, backend: Backend) -> Mapping[Case, RGB]:
    return run_together(tiny, face, oval, backend, FEW_CASES)


def name(case: Case) -> str:
    return f"{case[0]}-{case[1]}-{case[2]}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_four_channels_give_the_pipelines_picture(
    tiny: DiffusionModel, four: Mapping[Case, RGB], face: RGB, oval: Gray, case: Case
) -> None:
    expected = reference(tiny, face, oval, case).astype(int)
    assert np.abs(expected - four[case]).max() <= 1


@pytest.mark.parametrize("case", CASES, ids=name)
def test_nine_channels_give_the_pipelines_picture(
    nine_channels: DiffusionModel, nine: Mapping[Case, RGB], face: RGB, oval: Gray, case: Case
) -> None:
    expected = reference(nine_channels, face, oval, case).astype(int)
    assert np.abs(expected - nine[case]).max() <= 1


@pytest.mark.parametrize("case", FEW_CASES, ids=name)
def test_every_backend_gives_the_pipelines_picture(
    tiny: DiffusionModel, others: Mapping[Case, RGB], face: RGB, oval: Gray, case: Case
) -> None:
    expected = reference(tiny, face, oval, case).astype(int)
    assert np.abs(expected - others[case]).max() <= 1


def test_the_samplers_differ(four: Mapping[Case, RGB]) -> None:
    """The parity above would hold for a table that maps every name to one scheduler."""
    pictures = {four[sampler, 20, 1.0].tobytes() for sampler in Sampler}
    assert len(pictures) == len(Sampler)
