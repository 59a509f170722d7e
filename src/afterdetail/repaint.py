"""From masks to repainted pixels: regions -> jobs -> patches -> composite, a wave at a time."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from afterdetail import masks, regions
from afterdetail.composite import composite
from afterdetail.engine.job import Job
from afterdetail.engine.service import EngineService, Ticket
from afterdetail.errors import (
    Aborted,
    AfterdetailError,
    DeadlineExceeded,
    EngineStopped,
    InpaintFailed,
    OutOfMemory,
)
from afterdetail.lifetime import Lifetime
from afterdetail.models.choose import Choice
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.options import MAX_SEED, DetailOptions
from afterdetail.results import DetailedObject, Outcome
from afterdetail.safety.policy import SafetyPolicy
from afterdetail.types import RGB, Detection, Mask, Region


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What one job repaints: one object, or all of them under a joined mask.

    ``objects`` are indices into the detections; ``mask`` is dilated and blurred, never empty.
    """

    objects: tuple[int, ...]
    mask: Mask
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Fate:
    """How a target's job ended: inpainted, refused by the safety checker, or with an error."""

    target: Target
    error: AfterdetailError | None = None
    refused: bool = False

    @property
    def inpainted(self) -> bool:
        return self.error is None and not self.refused


@dataclass(slots=True)
class Stopwatch:
    """Adds up seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            passed = time.perf_counter() - began
            self.seconds[stage] = self.seconds.get(stage, 0.0) + passed


def make_targets(drawn: Sequence[Mask], options: DetailOptions) -> list[Target]:
    """The jobs of a picture, the most confident object first.

    Args:
        drawn: one mask per object as drawn, in the order of the detections.
    """
    seeds = seeds_of(options)
    parts: list[tuple[tuple[int, ...], Mask, int]] = [
        ((index,), mask, next(seeds)) for index, mask in enumerate(drawn)
    ]
    if options.union_masks and parts:
        everything = tuple(index for index, mask in enumerate(drawn) if not mask.empty)
        parts = [(everything, masks.union(drawn), parts[0][2])]
    targets = [Target(objects, _softened(mask, options), seed) for objects, mask, seed in parts]
    return [target for target in targets if not target.mask.empty]


def _softened(mask: Mask, options: DetailOptions) -> Mask:
    return masks.blur(masks.dilate(mask, options.mask_dilation), options.mask_blur)


def seeds_of(options: DetailOptions) -> Iterator[int]:
    """The seed of each object in turn, without end; each in 1..2^32-1."""
    index = 0
    while True:
        match options.seed:
            case None:
                yield secrets.randbelow(MAX_SEED) + 1
            case int(first):
                yield (first - 1 + index) % MAX_SEED + 1
            case seeds:
                yield seeds[index % len(seeds)]
        index += 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """One picture's options with every name in them looked up and the style in the prompts."""

    options: DetailOptions
    choice: Choice
    prompt: str
    negative_prompt: str
    lifetime: Lifetime


@dataclass(frozen=True, slots=True, eq=False)
class Brush:
    """What all jobs of one picture have in common."""

    engine: EngineService
    model: DiffusionModel
    recipe: Recipe
    safety: SafetyPolicy | None = None

    def paint(self, canvas: RGB, targets: Sequence[Target], watch: Stopwatch) -> list[Fate]:
        """Repaint the targets of one wave into ``canvas``, all from its state at the start.

        Raises:
            DeadlineExceeded: the time is over; no job of the wave is left running.
            Aborted: the caller gave up, likewise.
        """
        self.recipe.lifetime.check()
        with watch("mask"):
            planned = [(target, self._plan(target, canvas)) for target in targets]
            jobs = [self._job(canvas, target, region) for target, region in planned]
        with watch("load"):
            self.engine.prepare(self.model, sorted({region.size for _, region in planned}))
        with watch("inpaint"):
            patches = self._wait([self.engine.add(job) for job in jobs])
        return [
            self._finish(canvas, target, region, patch, watch)
            for (target, region), patch in zip(planned, patches, strict=True)
        ]

    def _finish(
        self,
        canvas: RGB,
        target: Target,
        region: Region,
        patch: RGB | AfterdetailError,
        watch: Stopwatch,
    ) -> Fate:
        """Put a patch into the canvas, unless it failed or may not be shown."""
        if isinstance(patch, AfterdetailError):
            return Fate(target, patch)
        with watch("composite"):
            crop = regions.restore(patch, region)
        if self.safety:
            with watch("safety"):
                if self.safety.refuses(crop):
                    return Fate(target, refused=True)
        with watch("composite"):
            composite(canvas, crop, target.mask, region)
        return Fate(target)

    def _plan(self, target: Target, canvas: RGB) -> Region:
        height, width = canvas.shape[:2]
        padding = self.recipe.options.mask_padding
        return regions.plan(
            target.mask.box, (width, height), padding, self.recipe.choice.model.sizes
        )

    def _job(self, canvas: RGB, target: Target, region: Region) -> Job:
        options = self.recipe.options
        return Job(
            model=self.model,
            image=regions.extract(canvas, region),
            mask=regions.extract_mask(target.mask, region),
            prompt=self.recipe.prompt,
            negative_prompt=self.recipe.negative_prompt,
            sampler=options.sampler,
            steps=options.steps,
            strength=options.strength,
            guidance_scale=options.cfg_scale,
            seed=target.seed,
            deadline=self.recipe.lifetime.deadline,
        )

    def _wait(self, tickets: Sequence[Ticket]) -> list[RGB | AfterdetailError]:
        """Every job's patch or error. If the caller is interrupted, none is left running."""

        def abort() -> None:
            for ticket in tickets:
                ticket.abort()

        self.recipe.lifetime.on_end(abort)
        try:
            return [_outcome(ticket) for ticket in tickets]
        finally:
            abort()


def _outcome(ticket: Ticket) -> RGB | AfterdetailError:
    try:
        return ticket.result()
    except (DeadlineExceeded, Aborted, EngineStopped):
        raise  # the whole request's, not this object's
    except AfterdetailError as error:
        return error


def check_any_inpainted(fates: Sequence[Fate]) -> None:
    """A picture of which nothing was inpainted and something failed is an error, not a result.

    Raises:
        OutOfMemory: memory was the cause.
        InpaintFailed: anything else.
    """
    errors = [fate.error for fate in fates if fate.error]
    if not errors or any(fate.inpainted for fate in fates):
        return
    if any(isinstance(error, OutOfMemory) for error in errors):
        raise OutOfMemory("not enough memory to repaint any object; try a smaller model")
    raise InpaintFailed(f"none of {len(errors)} objects could be repainted: {errors[0].public}")


def tell(found: Sequence[Detection], fates: Sequence[Fate]) -> tuple[DetailedObject, ...]:
    """What happened to each object, in the order of the detections."""
    by_object = {index: fate for fate in fates for index in fate.target.objects}
    return tuple(_told(item, by_object.get(index)) for index, item in enumerate(found))


def _told(item: Detection, fate: Fate | None) -> DetailedObject:
    if fate is None:
        reason = "beyond the number of objects asked for, or its mask is empty"
        return DetailedObject(item, Outcome.SKIPPED, reason=reason)
    if fate.error is not None:
        return DetailedObject(item, Outcome.FAILED, fate.target.seed, fate.error.public)
    if fate.refused:
        reason = "the safety checker refused what was painted"
        return DetailedObject(item, Outcome.REFUSED, fate.target.seed, reason)
    return DetailedObject(item, Outcome.INPAINTED, fate.target.seed)
