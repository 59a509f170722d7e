"""The library's door: options in, every name in them looked up, and :mod:`afterdetail.flow`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch

from afterdetail import masks
from afterdetail.config import BackendName
from afterdetail.detectors.base import Detector
from afterdetail.detectors.combine import combine
from afterdetail.detectors.registry import find_detector, load_detector
from afterdetail.errors import InvalidInput
from afterdetail.flow import Flow, Turn
from afterdetail.images import from_any
from afterdetail.lifetime import Lifetime
from afterdetail.models.catalogue import Catalogue, load_catalogue
from afterdetail.models.loader import ModelPool
from afterdetail.models.pipe import PipePool, catalogue_of, model_of
from afterdetail.models.stats import PoolStats
from afterdetail.options import DetailOptions, parse_options
from afterdetail.recipes import make_recipe
from afterdetail.repaint import Stopwatch
from afterdetail.results import DetailResult, DryRun, Listener
from afterdetail.safety.policy import THRESHOLD, SafetyPolicy, as_policy
from afterdetail.stages import Stage, as_stage, parse_stages
from afterdetail.studio import Studio, make_studio
from afterdetail.types import Detection, Picture, Size

ImageLike = PIL.Image.Image | npt.NDArray[np.uint8] | str | Path
"""What the library takes for a picture: PIL, uint8 ``(H, W[, 3 or 4])``, or a file's path."""

FINDING = frozenset(
    {
        *("detector", "confidence", "tile", "max_num_detections", "k_largest", "order"),
        *("min_area_ratio", "max_area_ratio", "union_masks", "objects"),
    }
)
"""Options that say which objects: none of them for a mask of the caller's own."""


class Detailer:
    """Finds objects in pictures and repaints them.

    Thread-safe: pictures handed in from several threads are denoised together. Models are loaded
    when first needed and kept; ``close`` (or ``with``) ends the engine's thread.

    Args:
        models: names of built-in bases (``"sd15"``, ``"sd15,sdxl"``, ``"tiny"``: a very small one
            for trying things out), the path of a catalogue file, or a catalogue.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``; None takes the fastest there is.
        deterministic: make results the same to the last bit whatever else is running, at the
            cost of the speed of batching.
        max_objects: most objects repainted in one picture; the others are skipped.
        safety: ``"on"``: what an offline classifier takes for not safe for work is not put into the
            picture. Off by default: these are your own pictures; the server has it on. Or a policy
            of your own.
        safety_threshold: the score, 0..1, from which the classifier's word counts.
        backend: what runs the UNet: ``"eager"``, ``"graphs"`` (CUDA), ``"openvino"`` (CPU, needs
            the extra ``openvino``; compiles for some seconds, then takes two thirds of the time:
            for processes that live), ``"auto"`` (the fastest there is). None is ``"auto"`` without
            OpenVINO.
        memory: ``"low"``: text encoders, autoencoder, refiner and idle models wait in host memory,
            the autoencoder works in tiles, and the backend is ``"eager"``. Slower, for small cards.
        pool: where models come from; None for one that reads them from the catalogue's places.
        studio: what paints, in place of models and an engine of this process; it settles what
            ``device``, ``deterministic``, ``backend``, ``memory``, ``pool`` and
            ``downloads`` would.
        downloads: get a model of the hub when it is first needed and not on this machine; if not,
            :meth:`load` alone does, for the bases served.

    Raises:
        InvalidInput: no such device, backend or model, or a catalogue file that is wrong.
        ModelUnavailable: safety is on, and the classifier is not installed.
    """

    def __init__(
        self,
        models: str | Path | Catalogue = "sd15",
        device: str | None = None,
        *,
        deterministic: bool = False,
        max_objects: int = 64,
        safety: Literal["on", "off"] | SafetyPolicy = "off",
        safety_threshold: float = THRESHOLD,
        backend: BackendName | None = None,
        memory: Literal["high", "low"] = "high",
        pool: ModelPool | None = None,
        studio: Studio | None = None,
        downloads: bool = True,
    ) -> None:
        self.catalogue = models if isinstance(models, Catalogue) else load_catalogue(models)
        self.max_objects = max_objects
        self._safety = as_policy(safety, safety_threshold)
        self._studio = studio or make_studio(
            device,
            deterministic=deterministic,
            backend=backend,
            memory=memory,
            pool=pool,
            downloads=downloads,
        )

    @classmethod
    def from_pipe(
        cls,
        pipe: object,
        sizes: Sequence[Size] = (),
        *,
        deterministic: bool = False,
        max_objects: int = 64,
        safety: Literal["on", "off"] | SafetyPolicy = "off",
    ) -> Self:
        """A detailer that paints with the networks of a diffusers pipeline of yours.

        They are used where they are, without a copy: the pipe must not be moved or changed while
        the detailer lives, nor paint at the same time.

        Args:
            pipe: a ``StableDiffusionPipeline`` or ``StableDiffusionXLPipeline``, or one of their
                kin, wholly on one device and in one precision.
            sizes: width and height of what it repaints; by default those of the model's kind.

        Raises:
            InvalidInput: ``pipe_unfit``, with what to change.
        """
        model = model_of(pipe)
        return cls(
            catalogue_of(model, sizes),
            pool=PipePool(model),
            deterministic=deterministic,
            max_objects=max_objects,
            safety=safety,
        )

    def load(self) -> None:
        """Get every base served ready to run, so that the first picture need not wait."""
        self._studio.load(self.catalogue)

    def close(self) -> None:
        """Let the jobs in flight finish and end the engine's thread."""
        self._studio.close()

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self._studio.device

    @property
    def engine(self) -> Studio:
        """What paints: its state and its numbers, for whoever watches over it."""
        return self._studio

    @property
    def model_stats(self) -> PoolStats:
        """What the models in memory take, and what loading them has cost."""
        return self._studio.model_stats

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def detail(
        self,
        image: ImageLike,
        *,
        stages: Sequence[Mapping[str, object]] | None = None,
        listener: Listener | None = None,
        lifetime: Lifetime | None = None,
        **options: object,
    ) -> DetailResult:
        """Find and repaint the objects of a picture.

        Args:
            stages: several turns, each with options of its own: faces first, then eyes, then hands.
            listener: is told of each step of each object.
            lifetime: how long this may take, and the caller's way to give up on it.
            options: fields of :class:`~afterdetail.stages.Stage`, for every stage that does not
                have its own.

        Raises:
            InvalidInput: a wrong option or picture, or a model that is not there.
            InpaintFailed, OutOfMemory: every object failed.
        """
        parsed = parse_stages(stages, options)
        watch = Stopwatch()
        with watch("decode"):
            picture = from_any(image)
        turns = self._turns(picture, parsed, lifetime or Lifetime(), find_detector)
        return self._flow.detail(picture, turns, watch, listener)

    def dry_run(
        self,
        image: ImageLike,
        *,
        stages: Sequence[Mapping[str, object]] | None = None,
        **options: object,
    ) -> DryRun:
        """What :meth:`detail` would repaint, without repainting anything: seeds, ids and masks.

        Every stage looks at the picture as it is. The arguments are those of :meth:`detail`.
        """
        picture = from_any(image)
        parsed = parse_stages(stages, options)
        return self._flow.dry_run(picture, self._turns(picture, parsed, Lifetime(), find_detector))

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
        (stage,) = parse_stages(None, options)
        recipe = make_recipe(stage, picture.size, self.catalogue, Lifetime())
        if drawn.empty or drawn.size != picture.size:
            given = "an empty mask" if drawn.empty else "a mask of {}x{}".format(*drawn.size)
            message = f"{given}: it must have the picture's size, {picture.size}, and a bright part"
            raise InvalidInput("mask_invalid", message, field="mask")
        return self._flow.inpaint(picture, drawn, recipe, watch)

    def run(
        self,
        picture: Picture,
        options: DetailOptions | Sequence[Stage],
        lifetime: Lifetime | None = None,
        listener: Listener | None = None,
    ) -> DetailResult:
        """Detail a decoded picture; detectors by catalogue name only. The server's door.

        Args:
            options: those of the endpoint, or stages.
            lifetime: how long this may take, and the caller's way to give up on it.
            listener: is told of each step of each object.

        Raises:
            DeadlineExceeded, Aborted: it is over; the picture's jobs stop at the next step.
        """
        stages = [as_stage(options)] if isinstance(options, DetailOptions) else options
        turns = self._turns(picture, stages, lifetime or Lifetime(), served_detector)
        return self._flow.detail(picture, turns, Stopwatch(), listener)

    def look(self, picture: Picture, stages: Sequence[Stage], lifetime: Lifetime) -> DryRun:
        """The server's door to :meth:`dry_run`."""
        return self._flow.dry_run(picture, self._turns(picture, stages, lifetime, served_detector))

    def _turns(
        self,
        picture: Picture,
        stages: Sequence[Stage],
        lifetime: Lifetime,
        find: Callable[[str, Catalogue, int | None, Callable[[], None]], Detector],
    ) -> list[Turn]:
        """Stages with every name in them looked up: what is wrong is refused before any work."""
        return [
            Turn(
                number,
                make_recipe(stage, picture.size, self.catalogue, lifetime),
                find(stage.detector, self.catalogue, stage.tile, lifetime.check),
            )
            for number, stage in enumerate(stages)
        ]

    @property
    def _flow(self) -> Flow:
        return Flow(self._studio, self._safety, self.max_objects)


def served_detector(
    names: str, catalogue: Catalogue, tile: int | None, check: Callable[[], None]
) -> Detector:
    """The detector of catalogue names divided by commas; never of a file."""
    parts = dict.fromkeys(name.strip() for name in names.split(","))
    return combine([load_detector(part, catalogue) for part in parts], tile, check)
