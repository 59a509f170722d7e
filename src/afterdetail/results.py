"""What comes out: the picture, and what happened to every object found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import PIL.Image

from afterdetail.images import to_pil
from afterdetail.types import Detection, Picture


class Outcome(StrEnum):
    """What happened to one object."""

    INPAINTED = "inpainted"
    SKIPPED = "skipped"
    REFUSED = "refused"
    """By the safety checker: its region is as it was."""
    FAILED = "failed"
    """Its region is as it was; ``reason`` says why."""


@dataclass(frozen=True, slots=True)
class DetailedObject:
    """One object and its fate. ``seed`` is what its job ran with; None where none ran."""

    detection: Detection
    outcome: Outcome
    seed: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DetailResult:
    """The detailed picture and every object found, the most confident first.

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
