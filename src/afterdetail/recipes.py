"""What each object of a stage is to be painted with: options with every name in them looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from afterdetail.errors import InvalidInput
from afterdetail.lifetime import Lifetime
from afterdetail.models.catalogue import Catalogue
from afterdetail.models.choose import Choice, choose
from afterdetail.prompts import marks, styles
from afterdetail.prompts.marks import Part
from afterdetail.stages import ObjectOptions, Stage
from afterdetail.types import Size, parse_size


@dataclass(frozen=True, slots=True)
class Wish:
    """What one job is told. ``seed`` is the object's own, where it has one."""

    prompt: str
    negative_prompt: str
    strength: float
    choice: Choice
    seed: int | None = None
    skip: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """A stage for one picture.

    ``sizes`` is what its model may repaint at. ``wishes`` has those of every turn, and of every
    turn that an object with options of its own might have, behind its id.
    """

    stage: Stage
    choice: Choice
    sizes: tuple[Size, ...]
    wishes: Mapping[tuple[int | None, int], Wish]
    turns: int
    lifetime: Lifetime

    def wish(self, number: int, turn: int) -> Wish:
        """For object ``number`` behind ``turn`` others. The last turn is for all the rest."""
        own = number if number in self.stage.objects else None
        return self.wishes[own, min(turn, self.turns - 1)]


def make_recipe(stage: Stage, size: Size, catalogue: Catalogue, lifetime: Lifetime) -> Recipe:
    """Look up every name of a stage: what is wrong is refused before any work.

    Args:
        size: the picture's.

    Raises:
        InvalidInput: a model, LoRA, style or size that is not there or does not fit.
    """
    choice = choose(stage, size, catalogue)
    prompts = _parts(stage, stage.prompt, stage.main_prompt)
    negatives = _parts(stage, stage.negative_prompt, stage.main_negative_prompt)
    turns = max(len(prompts), len(negatives))
    wishes = {}
    for number in (None, *stage.objects):
        own = ObjectOptions() if number is None else stage.objects[number]
        for turn in range(turns):
            prompt, negative = (_at(turn, them) for them in (prompts, negatives))
            wishes[number, turn] = _wish(stage, own, prompt, negative, size, catalogue)
    return Recipe(stage, choice, _sizes(stage, choice), wishes, turns, lifetime)


def _parts(stage: Stage, prompt: str | None, main: str | None) -> tuple[Part, ...]:
    if not stage.prompt_marks:
        return (Part(prompt or ""),)
    return marks.parts(prompt or "", main or "")


def _at(turn: int, parts: tuple[Part, ...]) -> Part:
    return parts[min(turn, len(parts) - 1)]


def _wish(
    stage: Stage, own: ObjectOptions, prompt: Part, negative: Part, size: Size, catalogue: Catalogue
) -> Wish:
    """Of an object that has options of its own, or none, and these parts of the prompts."""
    if own.prompt is not None:
        prompt = _at(0, _parts(stage, own.prompt, stage.main_prompt))
    if own.negative_prompt is not None:
        negative = _at(0, _parts(stage, own.negative_prompt, stage.main_negative_prompt))
    loras = {**((stage.loras if own.loras is None else own.loras) or {}), **prompt.loras}
    texts = styles.apply(stage.style_preset, prompt.text, negative.text)
    named = {"loras": loras, "prompt": texts[0], "negative_prompt": texts[1]}
    return Wish(
        prompt=texts[0],
        negative_prompt=texts[1],
        strength=own.strength or stage.strength,
        choice=choose(stage.model_copy(update=named), size, catalogue),
        seed=own.seed,
        skip=own.skip or prompt.skip,
    )


def _sizes(stage: Stage, choice: Choice) -> tuple[Size, ...]:
    sizes = choice.model.sizes
    if stage.inpaint_size is None:
        return sizes
    wanted = parse_size(stage.inpaint_size)
    if wanted not in sizes:
        listed = ", ".join(f"{width}x{height}" for width, height in sizes)
        raise InvalidInput(
            "size_unsupported",
            f"inpaint_size {stage.inpaint_size} is none of {choice.model.name}'s: {listed}",
            field="inpaint_size",
        )
    return (wanted,)
