"""Masked image-to-image, one step at a time, for many jobs in one UNet forward.

The loop is that of diffusers' ``StableDiffusionInpaintPipeline``, turned inside out: what its call
does before the loop is :func:`begin`, the forward is :func:`predict`, the rest of a step is
:func:`advance`. A job with a refiner changes its model once, by :func:`hand_over`. Random numbers
are drawn in that pipeline's order from a CPU generator of the job's own, so the same seed gives the
same picture there and here, and on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from afterdetail.engine import samplers
from afterdetail.engine.backend import Backend
from afterdetail.engine.job import Job, Running
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.text import Conditioning

SPACING = ("timestep_spacing", "steps_offset")
"""What of a scheduler's configuration decides which timesteps there are."""

Moments = tuple[torch.Tensor, torch.Tensor]
"""Mean and standard deviation of encoded latents, float32 ``(1, C, h, w)`` each."""


def begin(
    job: Job, text: Conditioning, mask: torch.Tensor, clean: Moments, masked: Moments | None
) -> Running:
    """A job ready for its first step.

    Args:
        text: the prompt's row, behind the negative one's if guided.
        mask: ``(1, 1, H, W)``, 1 where to repaint.
        clean: the encoded picture.
        masked: the encoded picture without what is under the mask; only for a model that
            takes it.
    """
    model = job.model
    generator = torch.Generator("cpu").manual_seed(job.seed)
    sampler, timesteps = samplers.make_sampler(
        job.sampler, model.scheduler_config, job.steps, job.strength, job.seed
    )
    # The order of the draws is the pipeline's: picture (not by a mask-taking model at full
    # strength), noise, masked picture (drawn there even where nothing uses it).
    full = job.strength == 1.0
    known = None if model.takes_mask and full else _sample(model, clean, generator)
    noise = _draw(clean[0], generator)
    hidden = _sample(model, masked if masked is not None else clean, generator)
    if known is None and (job.refiner or job.soft):
        known = _sample(model, clean, generator)
    latent_mask = F.interpolate(mask, size=noise.shape[-2:]).to(model.device)
    return Running(
        job=job,
        model=model,
        generator=generator,
        sampler=sampler,
        timesteps=timesteps,
        end=_own_end(job, sampler, timesteps),
        latents=_first_latents(sampler, timesteps, noise, None if full else known),
        noise=noise,
        mask=_shares(job, noise).to(model.device) if job.soft else latent_mask,
        known=known,
        channels=torch.cat([latent_mask, hidden], dim=1) if model.takes_mask else None,
        embeddings=text.tokens,
        added=text.added,
    )


def _shares(job: Job, latents: torch.Tensor) -> torch.Tensor:
    """The share of the steps that each latent pixel is for, float32 ``(1, 1, h, w)``, 0..1."""
    gray = torch.from_numpy(job.mask.astype(np.float32) / 255)
    return F.interpolate(gray[None, None], size=latents.shape[-2:], mode="area")


def _own_end(job: Job, sampler: object, timesteps: torch.Tensor) -> int:
    if job.refiner is None:
        return len(timesteps)
    return samplers.hand_over_index(sampler, timesteps, job.strength)


def hand_over(running: Running, text: Conditioning) -> Running:
    """The job as its refiner takes it over: the same latents and noise, a sampler without history.

    The steps are those that the first model's schedule has left, so that no noise level is passed
    over; all else is the refiner's own.

    Args:
        text: the job's prompts as the refiner reads them.
    """
    job, refiner = running.job, running.job.refiner
    assert refiner is not None, "only a job with a refiner is handed over"
    spacing = {key: running.sampler.config[key] for key in SPACING if key in running.sampler.config}
    sampler, timesteps = samplers.make_sampler(
        job.sampler,
        {**refiner.scheduler_config, **spacing},
        job.steps,
        job.strength,
        job.seed,
        skipped=running.end,
    )
    return replace(
        running,
        model=refiner,
        sampler=sampler,
        timesteps=timesteps,
        end=len(timesteps),
        channels=None,
        embeddings=text.tokens,
        added=text.added,
        index=0,
        before=running.end,
    )


def _first_latents(
    sampler: object, timesteps: torch.Tensor, noise: torch.Tensor, known: torch.Tensor | None
) -> torch.Tensor:
    """Pure noise at full strength, else the known latents noised to the first timestep."""
    first: torch.Tensor
    if known is None:
        first = noise * sampler.init_noise_sigma  # type: ignore[attr-defined]
    else:
        first = sampler.add_noise(known, noise, timesteps[:1])  # type: ignore[attr-defined]
    return first


def _sample(model: DiffusionModel, moments: Moments, generator: torch.Generator) -> torch.Tensor:
    mean, std = moments
    return model.scaling_factor * (mean + std * _draw(mean, generator))


def _draw(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like.device)


def predict(
    batch: Sequence[Running],
    model: DiffusionModel,
    backend: Backend,
    pinned_rows: int | None = None,
) -> list[torch.Tensor]:
    """The guided noise prediction of each job at its own timestep, in one forward.

    Changes nothing, so it can be tried again with fewer jobs.

    Args:
        batch: jobs of one model, latent size and number of prompt windows.
        model: that model, its UNet where it can be run.
        pinned_rows: fill the forward up to this many rows. Kernels are chosen by row count: at
            the same count a row's result does not depend on its neighbours to the last bit.
            Needless with a backend that computes rows apart.

    Returns:
        For each job float32 ``(1, C, h, w)``.
    """
    rows = torch.cat([_model_input(running) for running in batch])
    timesteps = torch.cat([_timesteps(running) for running in batch])
    embeddings = torch.cat([running.embeddings for running in batch])
    pinned = 0 if backend.rows_apart else pinned_rows or 0
    added = _added(batch)
    filler = pinned - len(rows)
    prediction = backend.predict(
        model,
        _filled(rows, filler),
        _filled(timesteps, filler),
        _filled(embeddings, filler),
        None if added is None else _filled(added, filler),
    )
    parts = torch.split(prediction[: len(rows)], [running.job.rows for running in batch])
    return [_guide(running.job, part) for running, part in zip(batch, parts, strict=True)]


def _added(batch: Sequence[Running]) -> torch.Tensor | None:
    """The rest of SDXL's conditioning; jobs of one model all have it or none."""
    rows = [running.added for running in batch if running.added is not None]
    return torch.cat(rows) if rows else None


def _filled(rows: torch.Tensor, filler: int) -> torch.Tensor:
    return torch.cat([rows, rows[:1].expand(filler, *rows.shape[1:])]) if filler > 0 else rows


def _model_input(running: Running) -> torch.Tensor:
    timestep = running.timesteps[running.index]
    scaled: torch.Tensor = running.sampler.scale_model_input(running.latents, timestep)
    if running.channels is not None:
        scaled = torch.cat([scaled, running.channels], dim=1)
    return scaled.expand(running.job.rows, -1, -1, -1)


def _timesteps(running: Running) -> torch.Tensor:
    # Some samplers' timesteps are fractional: every row keeps its own value, as float.
    return running.timesteps[running.index].reshape(1).float().expand(running.job.rows)


def _guide(job: Job, prediction: torch.Tensor) -> torch.Tensor:
    """Classifier-free guidance (Ho & Salimans 2022)."""
    if not job.guided:
        return prediction
    without, with_prompt = torch.chunk(prediction, 2)
    guided: torch.Tensor = without + job.guidance_scale * (with_prompt - without)
    return guided


def advance(running: Running, prediction: torch.Tensor) -> None:
    """Finish the step: move the latents on, and draw the unmasked part back to the picture."""
    timestep = running.timesteps[running.index]
    latents = samplers.advance(
        running.sampler, prediction, timestep, running.latents, running.generator
    )
    running.index += 1
    if running.known is not None and (running.job.soft or not running.model.takes_mask):
        known = running.known
        if running.index < len(running.timesteps):
            following = running.timesteps[running.index].reshape(1)
            known = running.sampler.add_noise(known, running.noise, following)
        mask = _free(running)
        latents = (1 - mask) * known + mask * latents
    running.latents = latents


def _free(running: Running) -> torch.Tensor:
    """1 where the latents may go their own way from this step on, else 0.

    Softly (differential diffusion, Levin & Fried 2023), a pixel joins when what is left of the
    steps is its share of them.
    """
    if not running.job.soft:
        return running.mask
    progress = running.progress
    left = 1 - progress.step / progress.steps
    return ((running.mask > 0) & (running.mask >= left)).float()
