"""Soft inpainting: the strength falls off with the mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from afterdetail.engine.engine import Engine
from afterdetail.engine.job import Job
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.options import Sampler
from afterdetail.types import RGB, Gray


@pytest.fixture(scope="module")
def job(tiny: DiffusionModel, face: RGB) -> Job:
    return Job(tiny, face, flat(face, 255), steps=10, strength=0.8, seed=5, soft=True)


def flat(face: RGB, value: int) -> Gray:
    return np.full(face.shape[:2], value, np.uint8)


def painted(job: Job) -> RGB:
    engine = Engine()
    engine.add(job)
    while not engine.idle:
        for finished in engine.step():
            assert isinstance(finished.outcome, np.ndarray), finished.outcome
            return finished.outcome
    raise AssertionError("the job never finished")


def change(job: Job) -> float:
    """How far from the picture, which the autoencoder alone does not keep exactly."""
    kept = painted(replace(job, mask=flat(job.image, 0)))
    return float(np.abs(painted(job).astype(int) - kept).mean())


@pytest.mark.parametrize("sampler", [Sampler.DDIM, Sampler.HEUN, Sampler.DPM_2, Sampler.LCM])
@pytest.mark.parametrize("value", [0, 255])
def test_all_or_nothing_is_the_same_softly(job: Job, value: int, sampler: Sampler) -> None:
    hard = replace(job, mask=flat(job.image, value), sampler=sampler)
    np.testing.assert_array_equal(painted(hard), painted(replace(hard, soft=False)))


def test_the_weaker_the_mask_the_nearer_the_picture(job: Job) -> None:
    changes = [change(replace(job, mask=flat(job.image, v))) for v in (0, 1, 70, 140, 255)]
    assert changes[0] == 0
    assert changes == sorted(changes)
    assert changes[1] < 0.5 * changes[-1]
    assert changes[2] < changes[3] < changes[4]


def test_a_ramp_fades_from_the_picture_into_the_new(job: Job) -> None:
    height, width = job.mask.shape
    ramp = np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))
    kept = painted(replace(job, mask=flat(job.image, 0)))
    moved = np.abs(painted(replace(job, mask=ramp)).astype(int) - kept).mean(axis=(0, 2))
    assert moved[: width // 4].mean() < moved[-width // 4 :].mean()
