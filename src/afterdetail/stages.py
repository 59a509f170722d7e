"""Several turns of finding and repainting in one call, and what is different for single objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, model_validator
from pydantic_core import PydanticCustomError

from afterdetail.errors import InvalidInput
from afterdetail.options import (
    DetailOptions,
    LibraryOptions,
    Prompt,
    Seed,
    Strength,
    Weight,
    validated,
)

MAX_STAGES = 16
"""Of one call."""

MAX_OBJECT_OPTIONS = 64
"""Of one stage."""


class ObjectOptions(BaseModel):
    """What is different for one object. What is null is as for the others."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    skip: StrictBool = False
    """Leave it as it is."""
    prompt: Prompt | None = None
    """What to paint."""
    negative_prompt: Prompt | None = None
    """What not to paint."""
    seed: Seed | None = None
    """Its own seed; the seeds of the others stay as they are."""
    strength: Strength | None = None
    """How much to repaint."""
    loras: dict[StrictStr, Weight | None] | None = None
    """Its own LoRAs, instead of those of the others."""


class Stage(LibraryOptions):
    """One turn of finding and repainting: faces, say; eyes may be the next. A call has some."""

    objects: dict[Annotated[int, Field(ge=0)], ObjectOptions] = Field(
        default_factory=dict, max_length=MAX_OBJECT_OPTIONS
    )
    """Options of single objects, by the ids that a dry run tells: an object's place among all that
    the detector found, the most confident first, from 0. A stage that has some finds its objects in
    the picture as it came; others, in what the stages before have made of it."""

    @model_validator(mode="after")
    def _one_job_has_one_prompt(self) -> Self:
        if not (self.union_masks or self.invert_masks):
            return self
        for number, options in self.objects.items():
            if options.model_dump(exclude={"skip"}, exclude_none=True):
                raise PydanticCustomError(
                    "objects_joined",
                    "objects: {number} can only be skipped: joined masks are one job",
                    {"number": number},
                )
        return self


def parse_stages(
    stages: Sequence[Mapping[str, object]] | None, shared: Mapping[str, object]
) -> tuple[Stage, ...]:
    """Validate the stages of a call, at least one.

    Args:
        stages: the options of each; None for one stage of the shared options alone.
        shared: options of every stage that does not have its own. Where a stage has a prompt of its
            own, the shared one is its main prompt.

    Raises:
        InvalidInput: as :func:`parse_options`; ``stages_invalid`` for none, too many, or what are
            no options.
    """
    given = [{}] if stages is None else list(stages)
    if not 1 <= len(given) <= MAX_STAGES:
        message = f"stages: {len(given)} are given; a call has 1 to {MAX_STAGES}"
        raise InvalidInput("stages_invalid", message, field="stages")
    if not all(isinstance(stage, Mapping) for stage in given):
        message = "stages: a list is needed, with the options of each stage by name"
        raise InvalidInput("stages_invalid", message, field="stages")
    return tuple(validated(Stage, inherited(stage, shared)) for stage in given)


def inherited(stage: Mapping[str, object], shared: Mapping[str, object]) -> dict[str, object]:
    """A stage's options behind those that all stages share."""
    main = {
        f"main_{name}": shared[name]
        for name in ("prompt", "negative_prompt")
        if name in stage and name in shared
    }
    return {**main, **shared, **stage}


def as_stage(options: DetailOptions) -> Stage:
    """The endpoint's options as a stage; its prompts are plain text with weights."""
    if isinstance(options, Stage):
        return options
    marks = isinstance(options, LibraryOptions) and options.prompt_marks
    return Stage.model_validate({**dict(options), "prompt_marks": marks})
