"""Base and refiner in the engine against diffusers' two pipelines one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from afterdetail.engine import denoiser
from afterdetail.engine.engine import Engine
from afterdetail.engine.job import Job, Progress, Running
from afterdetail.engine.samplers import SAMPLERS
from afterdetail.engine.scheduler import Scheduler
from afterdetail.errors import AfterdetailError, InpaintFailed
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.options import Sampler
from afterdetail.types import RGB

Make = Callable[[str], DiffusionModel]
Outcome = RGB | AfterdetailError

WIDTH, HEIGHT = 48, 32
START = 0.8
"""diffusers' word for the hand-over: t = 200 of 1000 is where a fifth is left."""
FIRST_ORDER = (Sampler.DDIM, Sampler.PNDM, Sampler.LMS, Sampler.K_EULER_ANCESTRAL, Sampler.UNI_PC)
MULTISTEP = (Sampler.DPM_PLUS_PLUS_2M_SDE_KARRAS, Sampler.DPM_SINGLE)
SECOND_ORDER = (Sampler.K_HEUN, Sampler.DPM_2_ANCESTRAL, Sampler.DPM_PLUS_PLUS_SDE_KARRAS)
CASES = list(zip(FIRST_ORDER + MULTISTEP + SECOND_ORDER, itertools.cycle((0.5, 1.0))))


class Mended(diffusers.StableDiffusionXLInpaintPipeline):  # type: ignore[misc]
    """diffusers' pipeline, with two faults of its hand-over mended.

    The known part always comes from the clean picture and the one noise of the job: diffusers puts
    the clean picture there after the last step of the base, then lets the refiner take the base's
    noisy latents for the picture and add noise to them at every step.

    A step of a second-order sampler is one model's. It is two forwards, and the second corrects the
    first from what the scheduler kept of it. diffusers divides the one that crosses t = 200: it
    stops the base after the first forward, whose half step the refiner, with a scheduler that has
    kept nothing, takes for a whole one. So the timesteps are cut between steps here.

    A base with nine channels blends no known part in; the refiner after it, with four, does. At
    full strength that pipeline has encoded no clean picture by then: it is drawn last.
    """

    given: tuple[torch.Tensor, torch.Tensor] | None = None
    """The base's noise and clean latents, for the refiner."""

    def get_timesteps(
        self, steps: int, strength: float, device: Any, denoising_start: float | None = None
    ) -> Any:
        second_order = self.scheduler.order == 2
        whole = None if second_order else denoising_start
        timesteps, count = super().get_timesteps(steps, strength, device, whole)
        above = 2 * int((timesteps[::2] >= 1000 * (1 - START)).sum())
        self.ahead = timesteps
        if second_order and denoising_start is None:
            timesteps = timesteps[:above]
        elif second_order:
            self.scheduler.set_begin_index(len(self.scheduler.timesteps) - len(timesteps[above:]))
            timesteps = self.ahead = timesteps[above:]
        return timesteps, count

    @property
    def takes_mask(self) -> bool:
        return bool(self.unet.config.in_channels == 9)

    def prepare_latents(self, *arguments: Any, image: torch.Tensor, **options: Any) -> Any:
        if self.given:
            return image, *self.given
        self.late = self.takes_mask and options["is_strength_max"]
        options["return_image_latents"] = not self.late
        latents, *self.drawn = super().prepare_latents(*arguments, image=image, **options)
        self.picture = image
        return latents, *self.drawn[: 1 if self.takes_mask else 2]

    def prepare_mask_latents(self, *arguments: Any) -> Any:
        prepared = super().prepare_mask_latents(*arguments)
        if not self.given and self.late:
            self.drawn.append(self._encode_vae_image(self.picture, generator=arguments[7]))
        return prepared

    def keep_known(self, _: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if self.takes_mask or index + 1 == len(self.ahead):
            return {}
        noise, clean = self.drawn if not self.given else self.given
        known = self.scheduler.add_noise(clean, noise, self.ahead[index + 1].reshape(1))
        mask = tensors["mask"][:1]
        return {"latents": (1 - mask) * known + mask * tensors["latents"]}


def pipeline(
    model: DiffusionModel,
    base: DiffusionModel,
    job: Job,
    cls: type[Any] = Mended,
) -> Any:
    name, options = SAMPLERS[job.sampler]
    if job.sampler is Sampler.DPM_PLUS_PLUS_SDE_KARRAS:
        options = {**options, "noise_sampler_seed": job.seed}
    pipe = cls(
        vae=base.vae,
        text_encoder=model.text_encoder,
        text_encoder_2=model.text_encoder_2,
        tokenizer=model.tokenizer,
        tokenizer_2=model.tokenizer_2,
        unet=model.unet,
        scheduler=getattr(diffusers, name).from_config(dict(model.scheduler_config), **options),
        requires_aesthetics_score=model.is_refiner,
        force_zeros_for_empty_prompt=not model.is_refiner,
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def told(job: Job) -> dict[str, Any]:
    """The arguments of every call; the generator is the job's one."""
    return {
        "mask_image": Image.fromarray(job.mask),
        "width": WIDTH,
        "height": HEIGHT,
        "strength": job.strength,
        "num_inference_steps": job.steps,
        "guidance_scale": job.guidance_scale,
        "generator": torch.Generator("cpu").manual_seed(job.seed),
    }


def refiner_alone(job: Job) -> RGB:
    """diffusers' own pipeline, as it is, of the refiner and the base's autoencoder."""
    assert job.refiner is not None
    pipe = pipeline(job.refiner, job.model, job, diffusers.StableDiffusionXLInpaintPipeline)
    image = Image.fromarray(job.image)
    result = pipe(job.prompt, negative_prompt=job.negative_prompt, image=image, **told(job))
    return np.asarray(result.images[0])


def reference(job: Job) -> RGB:
    """The base's pipeline up to t = 200, then the refiner's."""
    assert job.refiner is not None
    base, refiner = (pipeline(model, job.model, job) for model in (job.model, job.refiner))
    common = {**told(job), "callback_on_step_end_tensor_inputs": ["latents", "mask"]}
    cut = {} if base.scheduler.order == 2 else {"denoising_end": START}
    latents = base(
        job.prompt,
        negative_prompt=job.negative_prompt or None,
        image=Image.fromarray(job.image),
        callback_on_step_end=base.keep_known,
        output_type="latent",
        **common,
        **cut,
    ).images
    refiner.given = tuple(base.drawn)
    result = refiner(
        job.prompt,
        negative_prompt=job.negative_prompt,
        image=latents,
        callback_on_step_end=refiner.keep_known,
        denoising_start=START,
        **common,
    )
    return np.asarray(result.images[0])


@pytest.fixture(scope="module")
def jobs(photo: Any, make: Make) -> list[Job]:
    """One of each sampler and strength, of one base and one refiner."""
    face = Image.fromarray(photo("skimage_astronaut.png")[60:160, 160:310])
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[8:24, 12:36] = 255
    base, refiner = make("sdxl"), make("refiner")
    return [
        Job(
            model=base,
            refiner=refiner,
            image=np.asarray(face.resize((WIDTH, HEIGHT))),
            mask=mask,
            prompt="a young woman, smiling",
            negative_prompt=("", "old")[index % 2],
            sampler=sampler,
            steps=6,
            strength=strength,
            guidance_scale=(7.5, 1.0, 5.0)[index % 3],
            seed=index + 1,
        )
        for index, (sampler, strength) in enumerate(CASES)
    ]


@pytest.fixture(scope="module")
def job(jobs: list[Job]) -> Job:
    """Six steps, of which the refiner has two."""
    return replace(jobs[0], strength=1.0)


def finish(engine: Engine) -> Mapping[int, Outcome]:
    results: dict[int, Outcome] = {}
    while not engine.idle:
        results.update({done.number: done.outcome for done in engine.step()})
    return results


def run(jobs: Sequence[Job], engine: Engine | None = None) -> list[Outcome]:
    engine = engine or Engine()
    numbers = [engine.add(job) for job in jobs]
    results = finish(engine)
    return [results[number] for number in numbers]


def difference(one: Outcome, other: Outcome) -> int:
    assert isinstance(one, np.ndarray) and isinstance(other, np.ndarray), (one, other)
    return int(np.abs(one.astype(int) - other).max())


@pytest.fixture(scope="module")
def together(jobs: list[Job]) -> list[Outcome]:
    return run(jobs)


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda i: f"{CASES[i][0]}-{CASES[i][1]}")
def test_the_picture_is_that_of_the_pipelines(
    jobs: list[Job], together: list[Outcome], index: int
) -> None:
    assert difference(together[index], reference(jobs[index])) <= 1


def test_progress_goes_on_after_the_hand_over(job: Job) -> None:
    engine = Engine()
    number = engine.add(job)
    seen = []
    while not engine.idle:
        seen.append(engine.progress(number).step)
        engine.step()
    assert engine.forwards == 6
    assert seen == [0, *range(5), 4, 5, 6]  # one tick more to encode, and one to hand over


def test_a_refiner_shows(job: Job) -> None:
    refined, plain = run([job, replace(job, refiner=None)])
    assert difference(refined, plain) > 0


def test_the_latents_are_decoded_by_what_encoded_them(job: Job, make: Make) -> None:
    assert job.refiner is not None
    other = replace(job.refiner, vae=make("sd15").vae)
    other.vae.decoder.conv_out.weight.mul_(2)
    assert difference(*run([job, replace(job, refiner=other)])) == 0


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[DiffusionModel, int]]:
    """Of each forward from now on: the model, and how many jobs it had."""
    predict, seen = denoiser.predict, []

    def watched(batch: Sequence[Running], *rest: Any) -> list[torch.Tensor]:
        seen.append((batch[0].model, len(batch)))
        return predict(batch, *rest)

    monkeypatch.setattr(denoiser, "predict", watched)
    return seen


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize(("steps", "strength"), [(10, 0.2), (4, 0.2), (1, 0.05)])
def test_at_a_strength_of_a_fifth_and_less_only_the_refiner_steps(
    job: Job,
    steps: int,
    strength: float,
    spacing: str,
    forwards: list[tuple[DiffusionModel, int]],
) -> None:
    schedule = {**job.model.scheduler_config, "timestep_spacing": spacing}
    model = replace(job.model, scheduler_config=schedule)
    run([replace(job, model=model, steps=steps, strength=strength)])
    assert forwards == [(job.refiner, 1)] * max(1, int(steps * strength))


@pytest.mark.parametrize("kind", ["sdxl", "sdxl-inpainting"])
@pytest.mark.parametrize("steps", [5, 20])
def test_alone_the_refiner_gives_its_own_pipelines_picture(
    job: Job,
    make: Make,
    kind: str,
    steps: int,
    forwards: list[tuple[DiffusionModel, int]],
) -> None:
    """Whatever base it stands in for: of that it needs the autoencoder."""
    weak = replace(job, model=make(kind), steps=steps, strength=0.2)
    samplers = (Sampler.DDIM, Sampler.K_EULER_ANCESTRAL, Sampler.K_HEUN)
    mine = [replace(weak, sampler=sampler, seed=seed) for seed, sampler in enumerate(samplers, 1)]
    found = run(mine)
    assert {model for model, _ in forwards} == {job.refiner}
    assert sum(count for _, count in forwards) == (1 + 1 + 2) * steps // 5 - 1  # Heun's last
    for one, picture in zip(mine, found, strict=True):
        assert difference(picture, refiner_alone(one)) <= 1, one.sampler


def test_a_schedule_without_low_noise_levels_needs_no_refiner(job: Job) -> None:
    last = {**job.model.scheduler_config, "timestep_spacing": "trailing"}
    model = replace(job.model, scheduler_config=last)
    short = replace(job, model=model, steps=2)  # t = 999 and 499
    assert difference(*run([short, replace(short, refiner=None)])) == 0


def test_an_inpainting_base_hands_over_too(jobs: list[Job], make: Make) -> None:
    """Its pipeline's picture, stochastic and second-order samplers and full strength included."""
    nine = make("sdxl-inpainting")
    mine = [replace(job, model=nine) for job in jobs[::3]]
    *refined, plain = run([*mine, replace(mine[0], refiner=None)])
    assert difference(refined[0], plain) > 0
    for job, picture in zip(mine, refined, strict=True):
        assert difference(picture, reference(job)) <= 1, (job.sampler, job.strength)


def test_jobs_of_one_base_share_the_refiners_forwards(
    job: Job, forwards: list[tuple[DiffusionModel, int]]
) -> None:
    run([job, replace(job, seed=2, sampler=Sampler.K_EULER_ANCESTRAL)])
    assert forwards == [(job.model, 2)] * 4 + [(job.refiner, 2)] * 2


def test_jobs_of_two_bases_share_the_refiners_forwards(
    job: Job, make: Make, forwards: list[tuple[DiffusionModel, int]]
) -> None:
    other = replace(make("sdxl"), name="other")
    other.unet.conv_out.weight.mul_(1.5)
    other.vae.decoder.conv_out.weight.mul_(0.5)
    mine = [job, replace(job, model=other, guidance_scale=1.0)]
    patient = Scheduler(turn=1e9)  # no model is left before its jobs are, however slow the machine
    engine = Engine(patient)
    pictures = run(mine, engine)
    assert forwards == [(job.model, 1)] * 4 + [(other, 1)] * 4 + [(job.refiner, 2)] * 2
    assert engine.rows == 4 * 2 + 4 * 1 + 2 * 3
    alone = [run([one])[0] for one in mine]
    assert max(map(difference, pictures, alone)) <= 1
    assert difference(*pictures) > 1


def test_neighbours_change_nothing(jobs: list[Job], together: list[Outcome]) -> None:
    """Jobs with and without a refiner, and those of the refiner alone, in one engine."""
    mine, refiner = jobs[:2], jobs[0].refiner
    assert refiner is not None
    crowd = [
        part
        for job in mine
        for part in (job, replace(job, refiner=None), replace(job, model=refiner, refiner=None))
    ]
    outcomes = run(crowd, Engine(Scheduler(row_limit=4)))
    for expected, found in zip(together[:2], outcomes[::3], strict=True):
        assert difference(expected, found) <= 1


def test_pinned_rows_are_exact(jobs: list[Job]) -> None:
    mine = [replace(job, steps=3) for job in jobs[:2]]
    alone = [run([job], Engine(pinned_rows=2))[0] for job in mine]
    assert list(map(difference, alone, run(mine[::-1], Engine(pinned_rows=2))[::-1])) == [0, 0]


def test_an_aborted_job_is_gone_on_either_side_of_the_hand_over(job: Job) -> None:
    engine = Engine()
    numbers = [engine.add(job), engine.add(job), engine.add(job)]
    while engine.progress(numbers[0]) != Progress(5, 6):
        if engine.progress(numbers[1]).step == 2:
            engine.abort(numbers[1])
        engine.step()
    engine.abort(numbers[0])
    assert set(finish(engine)) == {numbers[2]}


def test_a_refiner_that_fails_fails_its_own_jobs_only(job: Job) -> None:
    assert job.refiner is not None
    broken = replace(job.refiner, text_encoder_2=None)
    outcomes = run([replace(job, refiner=broken), job])
    assert isinstance(outcomes[0], InpaintFailed)
    assert isinstance(outcomes[1], np.ndarray)
