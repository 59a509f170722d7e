"""From drawn masks to what each job repaints: moved, grown, joined, blurred; wishes and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from afterdetail import masks
from afterdetail.errors import InvalidInput
from afterdetail.options import MAX_SEED, DetailOptions, random_seed
from afterdetail.recipes import Recipe, Wish
from afterdetail.stages import Stage
from afterdetail.types import Detection, Mask


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What a detector found in a picture, best first. An object's id is its index in it.

    ``drawn`` has the masks of the chosen ones as drawn, by id, in the order of work; ``left_out``
    says of every other why it was not chosen.
    """

    found: tuple[Detection, ...]
    drawn: Mapping[int, Mask]
    left_out: Mapping[int, str]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What one job repaints: one object, or all of them under a joined mask.

    ``objects`` are ids; ``mask`` is dilated and blurred, never empty.
    """

    objects: tuple[int, ...]
    mask: Mask
    seed: int
    wish: Wish


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The jobs of a stage in the order of work; and of every other object, why it has none."""

    targets: tuple[Target, ...]
    left_out: Mapping[int, str]


def make_plan(sight: Sight, recipe: Recipe) -> Plan:
    """The jobs of a stage.

    Raises:
        InvalidInput: ``object_unknown``: options of an object that there is not.
    """
    _check_ids(recipe.stage.objects, len(sight.found))
    targets: list[Target] = []
    spared: list[Mask] = []
    left_out = dict(sight.left_out)
    for turn, ((number, mask), seed) in enumerate(
        zip(sight.drawn.items(), seeds_of(recipe.stage), strict=False)
    ):
        wish = recipe.wish(number, turn)
        shaped = _shaped(mask, recipe.stage)
        if wish.skip:
            left_out[number] = "skipped as asked for"
            spared.append(shaped)
        elif shaped.empty:
            left_out[number] = "nothing of its mask lies in the picture"
        else:
            targets.append(Target((number,), shaped, wish.seed or seed, wish))
    if targets and (recipe.stage.union_masks or recipe.stage.invert_masks):
        targets = [_joined(targets, spared, recipe, first_seed=next(seeds_of(recipe.stage)))]
    blurred = [replace(one, mask=masks.blur(one.mask, recipe.stage.mask_blur)) for one in targets]
    faded = (number for target in blurred if target.mask.empty for number in target.objects)
    left_out |= dict.fromkeys(faded, "nothing of its mask is left after the blur")
    return Plan(tuple(target for target in blurred if not target.mask.empty), left_out)


def _check_ids(given: Iterable[int], found: int) -> None:
    for number in given:
        if number >= found:
            there = f"0 to {found - 1}" if found else "none"
            text = f"objects: there is no object {number}; found: {there}"
            raise InvalidInput("object_unknown", text, field="objects")


def _shaped(mask: Mask, stage: Stage) -> Mask:
    moved = masks.move(mask, stage.mask_offset_x, stage.mask_offset_y)
    if stage.mask_dilation < 0:
        return masks.erode(moved, -stage.mask_dilation)
    return masks.dilate(moved, stage.mask_dilation)


def _joined(
    targets: Sequence[Target], spared: Sequence[Mask], recipe: Recipe, first_seed: int
) -> Target:
    """One job for all; it is told what the first object is.

    Args:
        spared: masks of what is to be left as it is: everything else does not include them.
    """
    drawn = [target.mask for target in targets]
    mask = masks.union(drawn)
    if recipe.stage.invert_masks:
        mask = masks.invert(masks.union([*drawn, *spared]))
    everything = tuple(number for target in targets for number in target.objects)
    return Target(everything, mask, first_seed, targets[0].wish)


def seeds_of(options: DetailOptions) -> Iterator[int]:
    """The seed of each object in turn, without end; each in 1..2^32-1."""
    index = 0
    while True:
        match options.seed:
            case None:
                yield random_seed()
            case int(first):
                yield (first - 1 + index) % MAX_SEED + 1
            case seeds:
                yield seeds[index % len(seeds)]
        index += 1
