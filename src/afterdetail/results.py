"""What comes out: the picture, and what happened to every object found in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import PIL.Image

from afterdetail.images import to_pil
from afterdetail.types import Detection, Mask, Picture


class Outcome(StrEnum):
    """What happened to one object."""

    PLANNED = "planned"
    """In a dry run: it would be repainted."""
    INPAINTED = "inpainted"
    SKIPPED = "skipped"
    REFUSED = "refused"
    """By the safety checker: its region is as it was."""
    FAILED = "failed"
    """Its region is as it was; ``reason`` says why."""


@dataclass(frozen=True, slots=True)
class DetailedObject:
    """One object and its fate. ``seed`` is what its job ran with; None where none ran.

    ``id`` is its place among all that the detector found in stage number ``stage``, the most
    confident first; both count from 0.
    """

    detection: Detection
    outcome: Outcome
    seed: int | None = None
    reason: str | None = None
    id: int = 0
    stage: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """Progress: stage ``stage`` of ``stages`` has looked; ``planned`` objects will be repainted."""

    stage: int
    stages: int
    objects: int
    planned: int


@dataclass(frozen=True, slots=True)
class Step:
    """Progress: step ``step`` of ``steps`` is done for objects ``ids``, which share one job."""

    stage: int
    ids: tuple[int, ...]
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Progress: the job of objects ``ids`` is over, and this is what became of them."""

    stage: int
    ids: tuple[int, ...]
    outcome: Outcome
    reason: str | None = None


Progress: TypeAlias = Found | Step | Settled
Listener: TypeAlias = Callable[[Progress], None]
"""Is called in the thread that details, between two looks at the engine: it should be quick."""


@dataclass(frozen=True, slots=True, eq=False)
class DryRun:
    """What would be repainted: every object found, and each job's mask, dilated and blurred."""

    picture: Picture
    objects: tuple[DetailedObject, ...]
    masks: tuple[Mask, ...]


@dataclass(frozen=True, slots=True, eq=False)
class DetailResult:
    """The detailed picture and every object found, stage by stage, the most confident first.

    ``jobs_refused`` counts inpaint jobs, not objects: with ``union_masks`` one job has them all.
    ``timings`` are seconds by stage.
    """

    picture: Picture
    objects: tuple[DetailedObject, ...]
    timings: Mapping[str, float]
    jobs_refused: int = 0

    @property
    def image(self) -> PIL.Image.Image:
        """The picture as PIL knows it, with its alpha and colour profile."""
        return to_pil(self.picture)

    @property
    def num_objects_detected(self) -> int:
        return len(self.objects)

    @property
    def num_objects_inpainted(self) -> int:
        return self._count(Outcome.INPAINTED)

    @property
    def num_removed_for_safety(self) -> int:
        return self.jobs_refused

    @property
    def num_objects_failed(self) -> int:
        return self._count(Outcome.FAILED)

    @property
    def withheld(self) -> bool:
        """Whether jobs ran and every one of them was refused: the endpoint then sends no image."""
        ran = {Outcome.INPAINTED, Outcome.FAILED}
        return self.jobs_refused > 0 and not any(item.outcome in ran for item in self.objects)

    def _count(self, outcome: Outcome) -> int:
        return sum(item.outcome is outcome for item in self.objects)
