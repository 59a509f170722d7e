"""From masks to repainted pixels: regions -> orders -> patches -> composite, a wave at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from afterdetail import regions
from afterdetail.composite import composite, match_color
from afterdetail.errors import (
    AfterdetailError,
    InpaintFailed,
    OutOfMemory,
)
from afterdetail.recipes import Recipe
from afterdetail.results import DetailedObject, Listener, Outcome, Settled, Step
from afterdetail.safety.policy import SafetyPolicy
from afterdetail.studio import Commission, Order, Sitting
from afterdetail.targets import Plan, Target
from afterdetail.types import RGB, Detection, Region, SizeConditioning

LOOK = 0.1
"""Seconds between two looks at the engine for a listener; a step is rarely shorter."""


@dataclass(frozen=True, slots=True, eq=False)
class Fate:
    """How a target's order ended: inpainted, refused by the safety checker, or with an error."""

    target: Target
    error: AfterdetailError | None = None
    refused: bool = False

    @property
    def outcome(self) -> Outcome:
        if self.error is not None:
            return Outcome.FAILED
        return Outcome.REFUSED if self.refused else Outcome.INPAINTED

    @property
    def reason(self) -> str | None:
        if self.error is not None:
            return self.error.public
        return "the safety checker refused what was painted" if self.refused else None


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


@dataclass(frozen=True, slots=True, eq=False)
class Brush:
    """What all orders of one stage have in common.

    ``sitting`` was opened for every choice that a wish makes; ``stage`` is the number that progress
    is told with.
    """

    sitting: Sitting
    recipe: Recipe
    safety: SafetyPolicy | None = None
    stage: int = 0
    listener: Listener | None = None

    def paint(self, canvas: RGB, targets: Sequence[Target], watch: Stopwatch) -> list[Fate]:
        """Repaint the targets of one wave into ``canvas``, all from its state at the start.

        Raises:
            AfterdetailError: the whole request cannot be answered: its time is over, the caller
                gave up, an embedding does not fit. No job of the wave is left running.
        """
        self.recipe.lifetime.check()
        with watch("mask"):
            planned = [(target, self._plan(target, canvas)) for target in targets]
            orders = [self._order(canvas, target, region) for target, region in planned]
        with watch("load"):
            commissions = self.sitting.begin(orders)
        with watch("inpaint"):
            patches = self._wait(targets, commissions)
        fates = [
            self._finish(canvas, target, region, patch, watch)
            for (target, region), patch in zip(planned, patches, strict=True)
        ]
        if self.listener:
            for fate in fates:
                told = Settled(self.stage, fate.target.objects, fate.outcome, fate.reason)
                self.listener(told)
        return fates

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
            if self.recipe.stage.color_match:
                crop = match_color(crop, canvas, target.mask, region)
            composite(canvas, crop, target.mask, region)
        return Fate(target)

    def _plan(self, target: Target, canvas: RGB) -> Region:
        height, width = canvas.shape[:2]
        padding = self.recipe.stage.mask_padding
        return regions.plan(target.mask.box, (width, height), padding, self.recipe.sizes)

    def _order(self, canvas: RGB, target: Target, region: Region) -> Order:
        stage, wish = self.recipe.stage, target.wish
        told = stage.size_conditioning
        return Order(
            choice=wish.choice,
            image=regions.extract(canvas, region),
            mask=regions.extract_mask(target.mask, region),
            prompt=wish.prompt,
            negative_prompt=wish.negative_prompt,
            sampler=stage.sampler,
            steps=stage.steps,
            strength=wish.strength,
            guidance_scale=stage.cfg_scale,
            seed=target.seed,
            clip_skip=stage.clip_skip,
            size_conditioning=SizeConditioning.parse(told) if told else None,
            soft=stage.soft_inpainting,
        )

    def _wait(
        self, targets: Sequence[Target], commissions: Sequence[Commission]
    ) -> list[RGB | AfterdetailError]:
        """Every order's patch or error. If the caller is interrupted, none is left running."""

        def abort() -> None:
            for commission in commissions:
                commission.abort()

        self.recipe.lifetime.on_end(abort)
        try:
            if self.listener:
                self._follow(targets, commissions, self.listener)
            return [_outcome(commission) for commission in commissions]
        finally:
            abort()

    def _follow(
        self, targets: Sequence[Target], commissions: Sequence[Commission], listener: Listener
    ) -> None:
        """Tell the listener of every step that is seen, until all jobs are over."""
        seen = [0] * len(commissions)
        while True:
            waiting = [commission for commission in commissions if not commission.wait(0)]
            for index, (target, commission) in enumerate(zip(targets, commissions, strict=True)):
                progress = commission.progress
                if progress.step > seen[index]:
                    seen[index] = progress.step
                    listener(Step(self.stage, target.objects, progress.step, progress.steps))
            if not waiting:
                return
            waiting[0].wait(LOOK)


def _outcome(commission: Commission) -> RGB | AfterdetailError:
    """The patch, or an error that is this object's alone; any other is the whole request's."""
    try:
        return commission.result()
    except (InpaintFailed, OutOfMemory) as error:
        return error


def check_any_inpainted(fates: Sequence[Fate]) -> None:
    """A picture of which nothing was inpainted and something failed is an error, not a result.

    Raises:
        OutOfMemory: memory was the cause.
        InpaintFailed: anything else.
    """
    errors = [fate.error for fate in fates if fate.error]
    if not errors or any(fate.outcome is Outcome.INPAINTED for fate in fates):
        return
    if any(isinstance(error, OutOfMemory) for error in errors):
        raise OutOfMemory("not enough memory to repaint any object; try a smaller model")
    raise InpaintFailed(f"none of {len(errors)} objects could be repainted: {errors[0].public}")


def tell(
    found: Sequence[Detection], plan: Plan, fates: Sequence[Fate], stage: int = 0
) -> tuple[DetailedObject, ...]:
    """What happened to each object, in the order of the detections.

    Args:
        fates: those of the plan's targets; none in a dry run.
    """
    told: dict[int, tuple[Outcome, int | None, str | None]] = {
        index: (Outcome.PLANNED, target.seed, None)
        for target in plan.targets
        for index in target.objects
    }
    told |= {
        index: (fate.outcome, fate.target.seed, fate.reason)
        for fate in fates
        for index in fate.target.objects
    }
    told |= {index: (Outcome.SKIPPED, None, reason) for index, reason in plan.left_out.items()}
    return tuple(
        DetailedObject(item, *told[index], id=index, stage=stage)
        for index, item in enumerate(found)
    )
