"""What the engine is asked to do, and what it knows of a job while it runs."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch

from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.inversion import Inversion
from afterdetail.options import Sampler
from afterdetail.types import RGB, Gray, SizeConditioning


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One patch to repaint with a mask.

    ``image`` is uint8 ``(H, W, 3)`` at the size to denoise at (multiples of the model's latent
    factor), ``mask`` uint8 ``(H, W)``: values from 128 on are repainted. ``strength`` is in (0, 1];
    ``guidance_scale`` of 1 and below means no unconditional half. ``deadline`` is in the seconds of
    ``time.monotonic``. ``refiner``, if there is one, takes over from ``model`` at the first step
    whose timestep is below :data:`~afterdetail.engine.samplers.HAND_OVER`. ``soft`` repaints where
    the mask is v through the last v / 255 of the steps, instead of all or nothing. ``clip_skip``
    counts layers of the text encoders left out at their end; None: as many as the model says.
    ``size_conditioning`` None: SDXL is told the size of ``image``, and no crop.
    ``inversions`` are words that the prompts may have. Jobs of one ``owner``, a picture, begin in
    turn with those of others.
    """

    model: DiffusionModel
    image: RGB
    mask: Gray
    prompt: str = ""
    negative_prompt: str = ""
    sampler: Sampler = Sampler.DDIM
    steps: int = 20
    strength: float = 0.9
    guidance_scale: float = 7.5
    seed: int = 1
    deadline: float | None = None
    refiner: DiffusionModel | None = None
    clip_skip: int | None = None
    size_conditioning: SizeConditioning | None = None
    inversions: tuple[Inversion, ...] = ()
    soft: bool = False
    owner: Hashable = None

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1

    @property
    def rows(self) -> int:
        """Rows of a UNet batch this job takes in every step."""
        return 2 if self.guided else 1

    @property
    def row_steps(self) -> int:
        """The work it is: its rows times the steps it runs."""
        return self.rows * max(1, int(self.steps * self.strength))


@dataclass(frozen=True, slots=True)
class Progress:
    """Step ``step`` of ``steps`` is done; (0, 0) while the job waits."""

    step: int = 0
    steps: int = 0


@dataclass(slots=True, eq=False)
class Running:
    """A job between its first and its last step. All tensors have a leading row axis of 1, float32.

    ``model`` runs it now: the job's own, then its refiner if it has one. ``sampler`` is a diffusers
    scheduler of this job and model alone: it keeps the history of its steps. ``timesteps`` are the
    model's own and, behind those, its successor's: the model runs the first ``end`` of them.
    ``known`` are the latents of the clean picture, which the unmasked part is drawn back to, unless
    the model takes the mask as channels. ``channels`` are those extra channels.
    ``embeddings`` holds the prompt's row, behind the negative prompt's if the job is guided;
    ``added`` the rest of those rows' conditioning, of SDXL only. ``before`` counts the steps that
    another model has done.
    """

    job: Job
    model: DiffusionModel
    generator: torch.Generator
    sampler: Any
    timesteps: torch.Tensor
    end: int
    latents: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor
    known: torch.Tensor | None
    channels: torch.Tensor | None
    embeddings: torch.Tensor
    added: torch.Tensor | None = None
    index: int = 0
    before: int = 0

    @property
    def done(self) -> bool:
        """Whether its model has no more steps to run."""
        return self.index >= self.end

    @property
    def leaving(self) -> bool:
        """Whether its model's next step is the last."""
        return self.index == self.end - 1

    @property
    def successor(self) -> DiffusionModel | None:
        """The model that runs the steps behind ``end``."""
        return self.job.refiner if self.end < len(self.timesteps) else None

    @property
    def progress(self) -> Progress:
        return Progress(self.before + self.index, self.before + len(self.timesteps))
