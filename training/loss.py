"""What the UNets are trained for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeAlias

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from training.batches import Batch, per_row
from training.linear_code import SPREAD

RESTORED = 0.875
"""Share of each batch that begins at the degraded face."""

ROLLED = 0.8
"""Share of those that are met where the model itself has led them."""

ERASED = 0.03
"""Share of restored faces of which nothing is left: a repaint at strength 1 begins at noise alone.
At the last timestep SD1.5's betas leave some of the picture, whose absence would look grey."""

SEEN = 200.0
"""How much looks count beside squared errors."""

GAIN = SPREAD[0] / 4
"""How loud latents are beside those whose noise is as SD1.5's betas say: what is weighed by noise
is weighed by noise / GAIN."""

GUIDED = 0.5
"""Share of the rows led where the model itself goes that it is guided there."""

GUIDANCE = (1.0, 7.5)
"""The least and the greatest guidance scale of those."""

Seen: TypeAlias = Callable[[Tensor, Tensor, Tensor, torch.Generator], Tensor]
Silence: TypeAlias = Callable[[Batch], Batch]


def new_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


class DenoiserLoss:
    """Squared error of the predicted noise, on the device that the batch is on.

    A repaint begins at a noise level r0 = sigma / alpha with the degraded latent, and DDIM carries
    its error along: at the level r, the share r / r0 of it is left if the model is without fault.
    Those are the mixtures trained on; most of them are replaced by what one or two steps of the
    model itself make of the degraded latent, so that it learns to go on from there. The noise
    wanted leads to the sharp latent. What the error adds to it is bounded by GAIN / r0, after a
    step by GAIN / r; the loss is weighted so that no level outweighs the others.

    Guidance exaggerates, and the more steps it does so, the farther from any face. So some of those
    steps are guided, and half of the rows that were go on without their captions: with and without,
    the model learns to end such a repaint at the face that was wanted.

    Squared errors alone ask for the mean of all faces that it might be, which is blurred. ``seen``
    looks at the picture that is predicted, as a perceptual loss does (Johnson et al. 2016).

    Args:
        below: trains on lower timesteps alone, as a refiner, which may also begin there.
        restored: share of each batch that begins at the degraded face.
        rolled: share of those that the model takes a step with.
        seen: how different two stacks of latents ``(B, C, h, w)`` look around faces
            ``(B, 1, h, w)``: ``(B,)``, drawing what it draws; None: nobody looks.
        silence: a batch without its captions; None: no step is guided.
        bf16: whether the model runs in bfloat16, which some processors multiply twice as fast.
    """

    def __init__(
        self,
        model: nn.Module,
        below: int = 1000,
        restored: float = RESTORED,
        rolled: float = ROLLED,
        seen: Seen | None = None,
        silence: Silence | None = None,
        bf16: bool = False,
    ) -> None:
        alphas = new_scheduler().alphas_cumprod
        self.model, self.alpha, self.sigma = model, alphas.sqrt(), (1 - alphas).sqrt()
        self.below, self.restored, self.rolled, self.seen = below, restored, rolled, seen
        self.silence, self.bf16 = silence, bf16
        self.erased = ERASED if below == 1000 else 0.0  # a refiner is never the first

    def __call__(self, batch: Batch, generator: torch.Generator) -> Tensor:
        rest = round(self.restored * len(batch.sharp))
        erased = torch.rand(len(batch.sharp), generator=generator) < self.erased
        begin, steps = self._times(erased, rest, generator)
        noise = torch.randn(batch.sharp.shape, generator=generator).to(batch.sharp)
        error = (batch.soft - batch.sharp) * self._degraded(len(noise), generator).to(noise)
        inside, counted = self._regions(batch, rest, generator)
        error = torch.where((inside > 0) & per_row(erased, noise), -batch.sharp, error)
        error[rest:] = 0
        alpha, sigma = self._levels(steps, noise)
        bound = per_row((self.sigma / self.alpha)[begin], noise)
        left = torch.where(inside > 0, sigma / alpha / bound, (1 - counted).expand_as(inside))
        noised = alpha * (batch.sharp + left * error) + sigma * noise
        if rolled := round(self.rolled * rest):
            begun = batch.sharp + torch.maximum(inside, 1 - counted) * error
            way = torch.rand(len(begin), generator=generator).mul(2).clamp_max(1)
            times = begin, (steps + way * (begin - steps)).long(), steps
            scales = self._scales(rolled, generator)
            moved = self._roll(
                begun[:rolled], noise[:rolled], times, batch.rows(slice(rolled)), scales
            )
            noised[:rolled] = torch.where(inside[:rolled] > 0, moved, noised[:rolled])
            bound[:rolled] = (sigma / alpha)[:rolled]
            batch = self._silenced(batch, scales, generator)
        target = (noised - alpha * batch.sharp) / sigma
        found = self._predict(noised, steps, batch)
        squared = (found - target).square()
        weight = torch.where(inside * error != 0, bound**2 / (GAIN**2 + bound**2), 1.0)
        loss: Tensor = (weight * squared * counted).sum() / (counted.sum() * squared.shape[1])
        if self.seen is not None:
            made = batch.sharp + counted * ((noised - sigma * found) / alpha - batch.sharp)
            trust = (alpha / (alpha + sigma / GAIN)).flatten()[:rest]
            seen = self.seen(made[:rest], batch.sharp[:rest], batch.face[:rest], generator)
            loss = loss + SEEN * (trust * seen).mean()
        return loss

    def _levels(self, steps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """How much picture and noise there is at timesteps, for as many rows as ``like`` has."""
        count = len(like)
        return per_row(self.alpha[steps[:count]], like), per_row(self.sigma[steps[:count]], like)

    def _times(
        self, erased: Tensor, rest: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Timesteps at which repaints begin and at which they are met, the rest anywhere."""
        count = len(erased)
        begin = torch.randint(200, 600, (count,), generator=generator)
        begin[::6] = torch.randint(600, 1000, begin[::6].shape, generator=generator)
        if self.below < 1000:
            begin[1::3] = torch.randint(20, self.below, begin[1::3].shape, generator=generator)
        begin[erased] = torch.randint(900, 1000, begin[erased].shape, generator=generator)
        share = torch.rand(count, generator=generator)
        steps = (share * begin.clamp_max(self.below)).long()
        steps[rest:] = (share[rest:] * self.below).long()
        return begin, steps

    @torch.no_grad()
    def _roll(
        self,
        begun: Tensor,
        noise: Tensor,
        times: Sequence[Tensor],
        batch: Batch,
        scales: Tensor,
    ) -> Tensor:
        """Where DDIM leads from the latents begun with, in steps from each time to the next."""
        alpha, sigma = self._levels(times[0], noise)
        noised = alpha * begun + sigma * noise
        for start, end in pairwise(time[: len(noise)] for time in times):
            moving = (start != end).nonzero()[:, 0]
            if len(moving):
                before = noised[moving]
                found = self._guided(before, start[moving], batch.rows(moving), scales[moving])
                alpha, sigma = self._levels(start[moving], before)
                sharp = (before - sigma * found) / alpha
                alpha, sigma = self._levels(end[moving], before)
                noised[moving] = alpha * sharp + sigma * found
        return noised

    def _guided(self, noised: Tensor, steps: Tensor, batch: Batch, scales: Tensor) -> Tensor:
        """The noise found with guidance (Ho and Salimans 2022) of scales ``(B,)``."""
        found = self._predict(noised, steps, batch)
        rows = (scales != 1).nonzero()[:, 0]
        if self.silence is not None and len(rows):
            plain = self._predict(noised[rows], steps[rows], self.silence(batch.rows(rows)))
            found[rows] = plain + per_row(scales[rows], plain) * (found[rows] - plain)
        return found

    def _scales(self, count: int, generator: torch.Generator) -> Tensor:
        """Guidance scales ``(B,)``; 1 is none."""
        if self.silence is None:
            return torch.ones(count)
        least, most = GUIDANCE
        scales = least + (most - least) * torch.rand(count, generator=generator)
        return torch.where(torch.rand(count, generator=generator) < GUIDED, scales, 1.0)

    def _silenced(self, batch: Batch, scales: Tensor, generator: torch.Generator) -> Batch:
        """Half of the first rows, those that were guided, without their captions."""
        if self.silence is None:
            return batch
        silent = torch.zeros(len(batch.tokens), dtype=torch.bool)
        silent[: len(scales)] = (scales != 1) & (torch.rand(len(scales), generator=generator) < 0.5)
        tokens = self.silence(batch).tokens
        where = silent[:, None].to(tokens.device)
        return replace(batch, tokens=torch.where(where, tokens, batch.tokens))

    def _predict(self, noised: Tensor, steps: Tensor, batch: Batch) -> Tensor:
        with torch.autocast(noised.device.type, torch.bfloat16, enabled=self.bf16):
            return self.predict(noised, steps.to(noised.device), batch).float()

    def predict(self, noised: Tensor, steps: Tensor, batch: Batch) -> Tensor:
        """The noise that the model finds in ``noised`` when it is told what ``batch`` tells."""
        noise: Tensor = self.model(noised, steps, batch.tokens)
        return noise

    @staticmethod
    def _degraded(count: int, generator: torch.Generator) -> Tensor:
        """How much of each picture's degradation there is, ``(B, 1, 1, 1)``: of a quarter a part.

        Pictures are half degraded along the border of a blurred mask, and some are sharp already.
        """
        shares = torch.ones(count, 1, 1, 1)
        part = shares[count // 2 :: 2]  # the first rows may be variants, between which nothing is
        part.copy_(torch.rand(part.shape, generator=generator))
        return shares

    @staticmethod
    def _regions(batch: Batch, rest: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Where the error fades, and where the loss counts.

        A quarter of the degraded pictures become sharp as a whole. Around another quarter of the
        faces the picture is sharp already; around half it stays as degraded as it was, and the loss
        does not count there: the engine puts the picture back.
        """
        kind = torch.randint(4, (len(batch.face), 1, 1, 1), generator=generator).clamp_max(2)
        kind = kind.to(batch.face.device)
        inside = torch.where(kind == 0, torch.ones_like(batch.face), batch.face)
        counted = torch.where(kind == 2, batch.face, torch.ones_like(batch.face))
        counted[rest:] = 1
        return inside, counted
