"""Sampler names to diffusers schedulers.

A diffusers scheduler keeps the history of its steps, so every job gets an instance of its own. It
is built from the base model's own scheduler configuration (betas, prediction type, spacing), so
that a name means the same as ``Scheduler.from_config(pipe.scheduler.config, ...)`` in diffusers.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import diffusers
import torch
from diffusers.schedulers.scheduling_dpmsolver_sde import (
    BrownianTreeNoiseSampler,
    DPMSolverSDEScheduler,
)

from afterdetail.options import Sampler

KARRAS = {"use_karras_sigmas": True}
PLAIN = {"use_karras_sigmas": False}
MULTISTEP = {"algorithm_type": "dpmsolver++", "solver_order": 2}
MULTISTEP_SDE = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}

# Names must give what they say, so the Karras setting is always written out: a base model's own
# configuration may carry one.
SAMPLERS: Mapping[Sampler, tuple[str, Mapping[str, Any]]] = {
    Sampler.PNDM: ("PNDMScheduler", {"skip_prk_steps": True}),
    Sampler.LMS: ("LMSDiscreteScheduler", PLAIN),
    Sampler.KLMS: ("LMSDiscreteScheduler", KARRAS),
    Sampler.DDIM: ("DDIMScheduler", {}),
    Sampler.DDPM: ("DDPMScheduler", {}),
    Sampler.HEUN: ("HeunDiscreteScheduler", PLAIN),
    Sampler.K_HEUN: ("HeunDiscreteScheduler", KARRAS),
    Sampler.K_EULER: ("EulerDiscreteScheduler", PLAIN),
    Sampler.K_EULER_ANCESTRAL: ("EulerAncestralDiscreteScheduler", {}),
    Sampler.DPM_SOLVER_MULTISTEP: ("DPMSolverMultistepScheduler", MULTISTEP | PLAIN),
    Sampler.DPM_PLUS_PLUS_2M_KARRAS: ("DPMSolverMultistepScheduler", MULTISTEP | KARRAS),
    Sampler.DPM_PLUS_PLUS_2M_SDE: ("DPMSolverMultistepScheduler", MULTISTEP_SDE | PLAIN),
    Sampler.DPM_PLUS_PLUS_2M_SDE_KARRAS: ("DPMSolverMultistepScheduler", MULTISTEP_SDE | KARRAS),
    Sampler.DPM_SINGLE: (
        "DPMSolverSinglestepScheduler",
        {"algorithm_type": "dpmsolver++"} | PLAIN,
    ),
    Sampler.DPM_2: ("KDPM2DiscreteScheduler", PLAIN),
    Sampler.DPM_2_KARRAS: ("KDPM2DiscreteScheduler", KARRAS),
    Sampler.DPM_2_ANCESTRAL: ("KDPM2AncestralDiscreteScheduler", PLAIN),
    Sampler.DPM_2_ANCESTRAL_KARRAS: ("KDPM2AncestralDiscreteScheduler", KARRAS),
    Sampler.DPM_PLUS_PLUS_SDE_KARRAS: ("DPMSolverSDEScheduler", KARRAS),
    Sampler.UNI_PC: ("UniPCMultistepScheduler", PLAIN),
    Sampler.LCM: ("LCMScheduler", {}),
}

NoiseSampler = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Noise between two sigmas."""

TRAINED_TIMESTEPS = 1000
HAND_OVER = 200
"""The timestep below which a refiner runs: what SDXL's was trained for (Podell et al. 2023)."""

LCM_ORIGINAL_STEPS = 50
"""Steps an LCM was distilled from (Luo et al. 2023); its schedule is a part of theirs."""


def make_sampler(
    sampler: Sampler,
    config: Mapping[str, Any],
    steps: int,
    strength: float,
    seed: int,
    skipped: int = 0,
) -> tuple[Any, torch.Tensor]:
    """A fresh scheduler, ready for its first step, and the timesteps to run: ``(N,)``, N >= 1.

    Of the ``steps`` of the whole schedule the last ``max(1, int(steps * strength))`` are run, as in
    diffusers' image-to-image pipelines. A second-order sampler has two timesteps to each step. Of
    the timesteps the first ``skipped`` are left out: another model has run them. ``seed`` feeds the
    Brownian noise of DPM++ SDE, the only noise not drawn from the job's generator.
    """
    scheduler = copy.deepcopy(_prototype(sampler, json.dumps(dict(config), sort_keys=True)))
    if sampler is Sampler.DPM_PLUS_PLUS_SDE_KARRAS:
        scheduler.noise_sampler_seed = seed
    if sampler is Sampler.LCM and steps > LCM_ORIGINAL_STEPS:
        scheduler.set_timesteps(steps, original_inference_steps=steps)
    else:
        scheduler.set_timesteps(steps)
    first = (steps - max(1, min(int(steps * strength), steps))) * scheduler.order + skipped
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return scheduler, scheduler.timesteps[first:]


def hand_over_index(sampler: Any, timesteps: torch.Tensor, strength: float) -> int:
    """How many of the timesteps come before the first step that begins below :data:`HAND_OVER`.

    A step of a second-order sampler is not divided: its two timesteps are one model's. None comes
    before it where the strength is no more than that share, however few the steps are.
    """
    if strength <= HAND_OVER / TRAINED_TIMESTEPS:
        return 0
    starts = range(0, len(timesteps), sampler.order)
    return next((i for i in starts if timesteps[i] < HAND_OVER), len(timesteps))


@lru_cache(maxsize=4 * len(SAMPLERS))
def _prototype(sampler: Sampler, config: str) -> Any:
    """An unused scheduler, to be copied: making one can take a hundred times as long."""
    name, options = SAMPLERS[sampler]
    return getattr(diffusers, name).from_config(json.loads(config), **options)


def advance(
    scheduler: Any,
    prediction: torch.Tensor,
    timestep: torch.Tensor,
    latents: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """The latents one step further: float32 ``(1, C, h, w)``, like the prediction."""
    extra = {"generator": generator} if _draws_noise(scheduler.__class__) else {}
    if isinstance(scheduler, DPMSolverSDEScheduler) and scheduler.noise_sampler is None:
        scheduler.noise_sampler = _brownian_noise(scheduler, latents)
    stepped: torch.Tensor = scheduler.step(
        prediction, timestep, latents, **extra, return_dict=False
    )[0]
    return stepped


def _brownian_noise(scheduler: Any, latents: torch.Tensor) -> NoiseSampler:
    """As the scheduler makes it itself, but drawn on the CPU: a seed's picture is any device's."""
    sigmas = scheduler.sigmas
    bounds = sigmas[sigmas > 0].min().item(), sigmas.max().item()
    tree = BrownianTreeNoiseSampler(latents.cpu(), *bounds, scheduler.noise_sampler_seed)
    return lambda begin, end: tree(begin, end).to(latents.device)


@lru_cache(maxsize=len(SAMPLERS))
def _draws_noise(scheduler: type) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters  # type: ignore[attr-defined]
