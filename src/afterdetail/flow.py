"""The whole way of one picture: detections -> masks -> regions -> orders -> patches -> canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from afterdetail import masks
from afterdetail.detectors.base import Detector
from afterdetail.detectors.select import by_score, select
from afterdetail.recipes import Recipe
from afterdetail.repaint import Brush, Fate, Stopwatch, check_any_inpainted, tell
from afterdetail.results import DetailedObject, DetailResult, DryRun, Found, Listener
from afterdetail.safety.policy import SafetyPolicy
from afterdetail.studio import Studio
from afterdetail.targets import Plan, Sight, make_plan
from afterdetail.types import RGB, Box, Detection, Mask, Picture
from afterdetail.waves import waves


@dataclass(frozen=True, slots=True)
class Turn:
    """One stage of a call, ready to begin: number, recipe, and what finds its objects."""

    number: int
    recipe: Recipe
    detector: Detector


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """What all pictures share. ``max_objects`` is of one stage of one picture."""

    studio: Studio
    safety: SafetyPolicy | None
    max_objects: int

    def detail(
        self,
        picture: Picture,
        turns: Sequence[Turn],
        watch: Stopwatch,
        listener: Listener | None = None,
    ) -> DetailResult:
        """Run the stages one after the other, each in what the one before has made."""
        canvas = picture.rgb.copy()
        objects: list[DetailedObject] = []
        fates: list[Fate] = []
        for turn in turns:
            # Options of single objects are for those of a dry run, and it saw the picture as it is.
            sight = self.look(picture.rgb if turn.recipe.stage.objects else canvas, turn, watch)
            with watch("mask"):
                plan = make_plan(sight, turn.recipe)
            if listener:
                listener(Found(turn.number, len(turns), len(sight.found), len(plan.targets)))
            done = self.repaint(canvas, plan, turn.recipe, watch, turn.number, listener)
            objects += tell(sight.found, plan, done, turn.number)
            fates += done
        check_any_inpainted(fates)
        return _result_of(picture, canvas, objects, fates, watch)

    def dry_run(self, picture: Picture, turns: Sequence[Turn]) -> DryRun:
        """What :meth:`detail` would repaint; every stage looks at the picture as it is."""
        objects: list[DetailedObject] = []
        drawn: list[Mask] = []
        for turn in turns:
            sight = self.look(picture.rgb, turn, Stopwatch())
            plan = make_plan(sight, turn.recipe)
            told = tell(sight.found, plan, (), turn.number)
            objects += [one if _is_certain(one, turn) else replace(one, seed=None) for one in told]
            drawn += [target.mask for target in plan.targets]
        return DryRun(picture, tuple(objects), tuple(drawn))

    def inpaint(
        self, picture: Picture, mask: Mask, recipe: Recipe, watch: Stopwatch
    ) -> DetailResult:
        """Repaint under a mask that nobody had to look for, not empty, as one object."""
        shape = Detection("mask", 1.0, Box(*map(float, mask.box)))
        plan = make_plan(Sight((shape,), {0: mask}, {}), recipe)
        canvas = picture.rgb.copy()
        fates = self.repaint(canvas, plan, recipe, watch)
        check_any_inpainted(fates)
        return _result_of(picture, canvas, tell([shape], plan, fates), fates, watch)

    def look(self, rgb: RGB, turn: Turn, watch: Stopwatch) -> Sight:
        """Find the objects of a stage and draw those that it is for."""
        stage, size = turn.recipe.stage, (rgb.shape[1], rgb.shape[0])
        turn.recipe.lifetime.check()
        with watch("detect"):
            found = tuple(by_score(turn.detector.detect(rgb, stage.confidence)))
        with watch("mask"):
            chosen = select(found, size, stage, self.max_objects)
            drawn = {number: masks.draw(found[number], size) for number in chosen.kept}
        return Sight(found, drawn, chosen.left_out)

    def repaint(
        self,
        canvas: RGB,
        plan: Plan,
        recipe: Recipe,
        watch: Stopwatch,
        stage: int = 0,
        listener: Listener | None = None,
    ) -> list[Fate]:
        """Repaint a plan's targets into the canvas, wave after wave."""
        with watch("load"):
            choices = {target.wish.choice for target in plan.targets}
            sitting = self.studio.open(choices, recipe.lifetime)
        brush = Brush(sitting, recipe, self.safety, stage, listener)
        fates: list[Fate] = []
        for wave in waves([target.mask for target in plan.targets]):
            fates += brush.paint(canvas, [plan.targets[index] for index in wave], watch)
        return fates


def _is_certain(item: DetailedObject, turn: Turn) -> bool:
    """Whether the next call would use the same seed."""
    own = turn.recipe.stage.objects.get(item.id)
    return turn.recipe.stage.seed is not None or (own is not None and own.seed is not None)


def _result_of(
    picture: Picture,
    canvas: RGB,
    objects: Sequence[DetailedObject],
    fates: Sequence[Fate],
    watch: Stopwatch,
) -> DetailResult:
    """The canvas with what travels beside the picture's colours, and what was done."""
    detailed = Picture(canvas, picture.alpha, picture.icc_profile)
    refused = sum(fate.refused for fate in fates)
    return DetailResult(detailed, tuple(objects), watch.seconds, refused)
