"""The whole way: picture -> detections -> masks -> regions -> jobs -> patches -> composite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch

from afterdetail import masks
from afterdetail.detectors.base import Detector
from afterdetail.detectors.registry import find_detector, load_detector
from afterdetail.detectors.select import top_k
from afterdetail.engine.engine import Engine
from afterdetail.engine.service import EngineService
from afterdetail.errors import InvalidInput
from afterdetail.images import from_any
from afterdetail.lifetime import Lifetime
from afterdetail.models.catalogue import load_catalogue
from afterdetail.models.choose import choose
from afterdetail.models.loader import ModelPool, pick_device
from afterdetail.options import DetailOptions, parse_options
from afterdetail.prompts import styles
from afterdetail.repaint import (
    Brush,
    Fate,
    Recipe,
    Stopwatch,
    check_any_inpainted,
    make_targets,
    tell,
)
from afterdetail.results import DetailResult
from afterdetail.safety.policy import THRESHOLD, make_policy
from afterdetail.types import Box, Detection, Mask, Picture
from afterdetail.waves import waves

ImageLike = PIL.Image.Image | npt.NDArray[np.uint8] | str | Path
"""What the library takes for a picture: PIL, uint8 ``(H, W[, 3 or 4])``, or a file's path."""

DETERMINISTIC_ROWS = 2
"""Rows of every forward when results must be exact: those of one guided job."""
FINDING = frozenset({"detector", "confidence", "max_num_detections", "union_masks", "tile"})


class Detailer:
    """Finds objects in pictures and repaints them.

    Thread-safe: pictures handed in from several threads are denoised together. Models are loaded
    when first needed and kept; ``close`` (or ``with``) ends the engine's thread.

    Args:
        models: names of built-in bases (``"sd15"``, ``"sd15,sdxl"``, ``"tiny"``: a very small one
            for trying things out) or the path of a catalogue file.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``; None takes the fastest there is.
        deterministic: make results the same to the last bit whatever else is running, at the
            cost of the speed of batching.
        max_objects: most objects repainted in one picture; the others are skipped.
        safety: ``"on"``: what an offline classifier takes for not safe for work is not put into the
            picture. Off by default: these are your own pictures; the server has it on.
        safety_threshold: the score, 0..1, from which the classifier's word counts.

    Raises:
        InvalidInput: no such device or model, or a catalogue file that is wrong.
        ModelUnavailable: safety is on, and the classifier is not installed.
    """

    def __init__(
        self,
        models: str | Path = "sd15",
        device: str | None = None,
        *,
        deterministic: bool = False,
        max_objects: int = 64,
        safety: Literal["on", "off"] = "off",
        safety_threshold: float = THRESHOLD,
    ) -> None:
        if safety not in ("on", "off"):
            raise InvalidInput("safety_unknown", f"safety is 'on' or 'off', not {safety!r}")
        self.catalogue = load_catalogue(models)
        self.max_objects = max_objects
        self._safety = make_policy(safety, safety_threshold)
        self._pool = ModelPool(pick_device(device))
        self._engine = EngineService(
            Engine(pinned_rows=DETERMINISTIC_ROWS if deterministic else None)
        )

    def load(self) -> None:
        """Get every base served ready to run, so that the first picture need not wait."""
        for spec in self.catalogue.bases().values():
            self._engine.prepare(self._pool.get(spec), spec.sizes)

    def close(self) -> None:
        """Let the jobs in flight finish and end the engine's thread."""
        self._engine.close()

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self._pool.device

    @property
    def engine(self) -> EngineService:
        """What runs the jobs: its state and its numbers, for whoever watches over it."""
        return self._engine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def detail(
        self, image: ImageLike, *, lifetime: Lifetime | None = None, **options: object
    ) -> DetailResult:
        """Find and repaint the objects of a picture.

        Args:
            lifetime: how long this may take, and the caller's way to give up on it.
            options: fields of :class:`~afterdetail.LibraryOptions`.

        Raises:
            InvalidInput: a wrong option or picture, or a model that is not there.
            InpaintFailed, OutOfMemory: every object failed.
        """
        parsed = parse_options(options)
        watch = Stopwatch()
        with watch("decode"):
            picture = from_any(image)
        recipe = self._recipe(picture, parsed, lifetime)
        detector = find_detector(parsed.detector, self.catalogue, parsed.tile)
        return self._detail(picture, recipe, detector, watch)

    def detect(
        self,
        image: ImageLike,
        *,
        detector: str = "face_full_mediapipe",
        confidence: float = 0.3,
        tile: int | None = None,
    ) -> list[Detection]:
        """Find objects, the most confident first, without repainting anything.

        The arguments mean what they mean in :class:`~afterdetail.LibraryOptions`.
        """
        options = parse_options({"detector": detector, "confidence": confidence, "tile": tile})
        looking = find_detector(options.detector, self.catalogue, options.tile)
        return looking.detect(from_any(image).rgb, options.confidence)

    def inpaint(self, image: ImageLike, mask: ImageLike, **options: object) -> DetailResult:
        """Repaint what the caller's own mask covers (bright = repaint) as one object.

        Args:
            mask: the size of the picture; its dilation and blur are those of the options.
            options: fields of :class:`~afterdetail.LibraryOptions`, without those about finding.

        Raises:
            InvalidInput: a wrong option, or a mask that is empty or of another size.
        """
        misplaced = sorted(FINDING & options.keys())
        if misplaced:
            message = f"{misplaced[0]}: inpaint finds nothing; its mask says what to repaint"
            raise InvalidInput("extra_forbidden", message, field=misplaced[0])
        watch = Stopwatch()
        with watch("decode"):
            picture = from_any(image)
            drawn = masks.from_array(from_any(mask).rgb.max(axis=2))
        recipe = self._recipe(picture, parse_options(options))
        if drawn.empty or drawn.size != picture.size:
            given = "an empty mask" if drawn.empty else "a mask of {}x{}".format(*drawn.size)
            message = f"{given}: it must have the picture's size, {picture.size}, and a bright part"
            raise InvalidInput("mask_invalid", message, field="mask")
        shape = Detection("mask", 1.0, Box(*map(float, drawn.box)))
        return self._repaint(picture, recipe, [shape], [drawn], watch)

    def run(
        self, picture: Picture, options: DetailOptions, lifetime: Lifetime | None = None
    ) -> DetailResult:
        """Detail a decoded picture; detectors by catalogue name only. The server's door.

        Args:
            lifetime: how long this may take, and the caller's way to give up on it.

        Raises:
            DeadlineExceeded, Aborted: it is over; the picture's jobs stop at the next step.
        """
        recipe = self._recipe(picture, options, lifetime)
        detector = load_detector(options.detector, self.catalogue)
        return self._detail(picture, recipe, detector, Stopwatch())

    def _recipe(
        self, picture: Picture, options: DetailOptions, lifetime: Lifetime | None = None
    ) -> Recipe:
        """Options with every name in them looked up: what is wrong is refused before any work."""
        choice = choose(options, picture.size, self.catalogue)
        prompt, negative = styles.apply(
            options.style_preset, options.prompt or "", options.negative_prompt or ""
        )
        return Recipe(options, choice, prompt, negative, lifetime or Lifetime())

    def _detail(
        self, picture: Picture, recipe: Recipe, detector: Detector, watch: Stopwatch
    ) -> DetailResult:
        options = recipe.options
        recipe.lifetime.check()
        with watch("detect"):
            found = detector.detect(picture.rgb, options.confidence)
        with watch("mask"):
            kept = top_k(top_k(found, options.max_num_detections), self.max_objects)
            drawn = [masks.draw(item, picture.size) for item in kept]
        return self._repaint(picture, recipe, found, drawn, watch)

    def _repaint(
        self,
        picture: Picture,
        recipe: Recipe,
        found: Sequence[Detection],
        drawn: Sequence[Mask],
        watch: Stopwatch,
    ) -> DetailResult:
        """From drawn masks, those of the first objects found, to the result."""
        with watch("mask"):
            targets = make_targets(drawn, recipe.options)
        canvas = picture.rgb.copy()
        fates: list[Fate] = []
        if targets:
            with watch("load"):
                model = self._pool.get(recipe.choice.model, recipe.choice.loras)
            brush = Brush(self._engine, model, recipe, self._safety)
            for wave in waves([target.mask for target in targets]):
                fates += brush.paint(canvas, [targets[index] for index in wave], watch)
            check_any_inpainted(fates)
        detailed = Picture(canvas, picture.alpha, picture.icc_profile)
        refused = sum(fate.refused for fate in fates)
        return DetailResult(detailed, tell(found, fates), watch.seconds, refused)
