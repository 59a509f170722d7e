"""Our loop against diffusers' own inpainting pipeline: the same picture from the same seed.

The engine runs every case of a model at once, all samplers, strengths and step counts in shared
forwards; the reference runs them one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from benchmarks.faces import SerialLoop

from afterdetail.engine.backend import Backend, EagerBackend
from afterdetail.engine.engine import Engine
from afterdetail.engine.job import Job
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


def job_of(model: DiffusionModel, face: RGB, oval: Gray, case: Case) -> Job:
    """Seed and guidance differ from case to case; every third is unguided."""
    sampler, steps, strength = case
    index = CASES.index(case)
    guidance = 1.0 if index % 3 == 2 else 7.5
    return Job(
        model, face, oval, PROMPT, NEGATIVE, sampler, steps, strength, guidance, seed=index + 1
    )


def reference(model: DiffusionModel, face: RGB, oval: Gray, case: Case) -> RGB:
    """One call of ``StableDiffusionInpaintPipeline``."""
    return SerialLoop(model).paint(job_of(model, face, oval, case))


def run_together(
    model: DiffusionModel,
    face: RGB,
    oval: Gray,
    backend: Backend,
    cases: Sequence[Case] = CASES,
) -> Mapping[Case, RGB]:
    engine = Engine(backend=backend)
    numbers = {engine.add(job_of(model, face, oval, case)): case for case in cases}
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
