"""What a job gives must not depend on its neighbours, nor suffer from their faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afterdetail.engine import denoiser
from afterdetail.engine.backend import Backend
from afterdetail.engine.engine import Engine
from afterdetail.engine.job import Job, Progress, Running
from afterdetail.engine.scheduler import Scheduler
from afterdetail.errors import AfterdetailError, DeadlineExceeded, InpaintFailed, OutOfMemory
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.options import Sampler
from afterdetail.types import RGB, Gray

Outcome = RGB | AfterdetailError


@pytest.fixture(scope="module")
def job(tiny: DiffusionModel, face: RGB, oval: Gray) -> Job:
    return Job(tiny, face, oval, prompt="a woman", steps=4, strength=0.6, seed=5)


@pytest.fixture(scope="module")
def crowd(job: Job) -> list[Job]:
    """Twenty jobs that differ in everything jobs of one model can differ in."""
    return [
        replace(
            job,
            sampler=sampler,
            seed=index + 100,
            steps=3 + index % 4,
            strength=(0.4, 0.7, 1.0)[index % 3],
            guidance_scale=(1.0, 7.5, 3.0)[index % 3],
            prompt="an (old:1.2) man " * (1 + 30 * (index % 2)),
        )
        for index, sampler in enumerate(list(Sampler)[:20])
    ]


@pytest.fixture(scope="module")
def alone(crowd: list[Job]) -> list[RGB]:
    return [pixels(run(Engine(), [job])[0]) for job in crowd]


def finish(engine: Engine) -> Mapping[int, Outcome]:
    results: dict[int, Outcome] = {}
    while not engine.idle:
        results.update({finished.number: finished.outcome for finished in engine.step()})
    return results


def run(engine: Engine, jobs: Sequence[Job]) -> list[Outcome]:
    numbers = [engine.add(job) for job in jobs]
    results = finish(engine)
    return [results[number] for number in numbers]


def pixels(outcome: Outcome) -> RGB:
    assert isinstance(outcome, np.ndarray), outcome
    return outcome


def difference(one: RGB, other: RGB) -> int:
    return int(np.abs(one.astype(int) - other).max())


def test_an_idle_engine_does_nothing() -> None:
    engine = Engine()
    assert engine.idle
    assert engine.step() == []


def test_progress_counts_steps(job: Job) -> None:
    engine = Engine()
    number = engine.add(replace(job, steps=5, strength=1.0))
    seen = [engine.progress(number)]
    while not engine.idle:
        engine.step()
        seen.append(engine.progress(number))
    # One tick encodes, five step, one decodes and lets go.
    assert seen == [Progress(), *(Progress(k, 5) for k in range(6)), Progress()]


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_a_crowd_changes_no_pixel_by_more_than_rounding(
    crowd: list[Job], alone: list[RGB], order: str, backend: Backend
) -> None:
    step = 1 if order == "forward" else -1
    together = run(Engine(backend=backend), crowd[::step])[::step]
    assert max(map(difference, map(pixels, together), alone)) <= 1


def test_pinned_rows_change_no_bit(crowd: list[Job], backend: Backend) -> None:
    def exact(jobs: Sequence[Job]) -> list[RGB]:
        return [pixels(done) for done in run(Engine(pinned_rows=2, backend=backend), jobs)]

    alone = [exact([job])[0] for job in crowd]
    assert max(map(difference, exact(crowd[::-1])[::-1], alone)) == 0


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(data=st.data())
def test_random_arrivals_and_aborts_leave_the_others_alone(
    crowd: list[Job], alone: list[RGB], data: st.DataObject
) -> None:
    picks = data.draw(st.lists(st.integers(0, 19), min_size=1, max_size=8, unique=True))
    pauses = data.draw(st.lists(st.integers(0, 3), min_size=len(picks), max_size=len(picks)))
    aborted = data.draw(st.sets(st.sampled_from(picks)))
    row_limit = data.draw(st.sampled_from([2, 5, 16]))
    engine = Engine(Scheduler(row_limit=row_limit))
    numbers: dict[int, int] = {}
    results: dict[int, Outcome] = {}
    for pick, pause in zip(picks, pauses, strict=True):
        numbers[engine.add(crowd[pick])] = pick
        for _ in range(pause):
            results.update({done.number: done.outcome for done in engine.step()})
    for number, pick in numbers.items():
        if pick in aborted:
            engine.abort(number)
    results.update(finish(engine))
    for number, pick in numbers.items():
        if number in results:
            assert difference(pixels(results[number]), alone[pick]) <= 1
        else:
            assert pick in aborted


def test_a_deadline_ends_a_job_at_the_next_step(job: Job) -> None:
    engine = Engine()
    late = engine.add(replace(job, steps=200, strength=1.0, deadline=time.monotonic() + 0.05))
    in_time = engine.add(job)
    results = finish(engine)
    assert isinstance(results[late], DeadlineExceeded)
    assert isinstance(results[in_time], np.ndarray)


def test_one_broken_job_fails_alone(job: Job, alone: list[RGB], crowd: list[Job]) -> None:
    broken = replace(job, sampler="no such sampler")  # type: ignore[arg-type]
    outcomes = run(Engine(), [crowd[0], broken, crowd[2]])
    assert isinstance(outcomes[1], InpaintFailed)
    assert difference(pixels(outcomes[0]), alone[0]) <= 1
    assert difference(pixels(outcomes[2]), alone[2]) <= 1


def test_out_of_memory_halves_the_batch_and_lowers_the_limit(
    crowd: list[Job], alone: list[RGB], monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = denoiser.predict

    def cramped(batch: Sequence[Running], *rest: Any) -> list[torch.Tensor]:
        rows.append(sum(running.job.rows for running in batch))
        if rows[-1] > 4:
            raise torch.OutOfMemoryError("too many rows")
        return predict(batch, *rest)

    rows: list[int] = []

    monkeypatch.setattr(denoiser, "predict", cramped)
    monkeypatch.setattr("afterdetail.engine.backend.EAGER_ROWS_CPU", 16)
    engine = Engine(Scheduler(row_limit=16))
    outcomes = run(engine, crowd[:6])
    assert max(map(difference, map(pixels, outcomes), alone)) <= 1
    too_large = [count for count in rows if count > 4]
    assert 1 <= len(too_large) <= 2  # then the limit is low enough for all that follow


def test_a_job_too_large_even_alone_says_that_memory_was_the_cause(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> list[torch.Tensor]:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")

    monkeypatch.setattr(denoiser, "predict", full)
    assert isinstance(run(Engine(), [job])[0], OutOfMemory)


def test_not_a_number_fails_its_own_job_only(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = denoiser.predict

    def poisoned(batch: Sequence[Running], *rest: Any) -> list[torch.Tensor]:
        return [
            prediction * (float("nan") if running.job.seed == 13 else 1.0)
            for running, prediction in zip(batch, predict(batch, *rest), strict=True)
        ]

    monkeypatch.setattr(denoiser, "predict", poisoned)
    outcomes = run(Engine(), [job, replace(job, seed=13)])
    assert isinstance(outcomes[0], np.ndarray)
    assert isinstance(outcomes[1], InpaintFailed)


@pytest.mark.parametrize(("strength", "steps", "expected"), [(0.01, 20, 1), (0.3, 4, 1), (1, 4, 4)])
def test_at_least_one_step_runs(job: Job, strength: float, steps: int, expected: int) -> None:
    engine = Engine()
    number = engine.add(replace(job, strength=strength, steps=steps))
    engine.step()
    assert engine.progress(number) == Progress(0, expected)


def test_in_16_bit_a_crowd_moves_few_pixels(
    crowd: list[Job], tiny_in: Callable[[torch.dtype], DiffusionModel]
) -> None:
    model = tiny_in(torch.bfloat16)
    jobs = [replace(job, model=model) for job in crowd]
    alone = [pixels(run(Engine(), [job])[0]).astype(int) for job in jobs]
    together = [pixels(outcome) for outcome in run(Engine(), jobs[::-1])[::-1]]
    apart = np.concatenate([np.abs(a - b).ravel() for a, b in zip(alone, together, strict=True)])
    assert apart.mean() <= 0.5
    assert np.quantile(apart, 0.999) <= 4


def test_an_autoencoder_that_overflows_in_16_bit_is_run_again_in_32(
    job: Job,
    tiny_in: Callable[[torch.dtype], DiffusionModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_in(torch.float16)
    model.vae.decoder.conv_in.weight.mul_(3e4)  # garish, but a number
    decode, seen = type(model.vae).decode, []

    def watched(vae: Any, latents: torch.Tensor, **options: Any) -> Any:
        result = decode(vae, latents, **options)
        seen.append((latents.dtype, bool(torch.isfinite(result[0]).all())))
        return result

    monkeypatch.setattr(type(model.vae), "decode", watched)
    picture = pixels(run(Engine(), [replace(job, model=model)])[0])
    assert seen == [(torch.float16, False), (torch.float32, True)]
    assert picture.std() > 0
    assert model.vae.dtype == torch.float16
