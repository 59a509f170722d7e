"""The wire of ``POST /v1/detect`` and ``POST /v1/detail``: stages in, every object's fate out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError
from pydantic_core import from_json

from afterdetail.errors import UnknownName
from afterdetail.options import MAX_EXTENT, NUMBER
from afterdetail.results import DetailedObject, DetailResult, DryRun
from afterdetail.schema.request import ImageEncoding, ImageSource
from afterdetail.schema.response import FieldProblem
from afterdetail.schema.translate import RequestInvalid, decode_base64, json_object, problems_of
from afterdetail.stages import MAX_STAGES, ObjectOptions, Stage, inherited

SMALLEST_TILE = 512
"""Pixels: a picture of 50 megapixels has a few hundred of them."""


class ServedStage(Stage):
    """One turn of finding and repainting. Detectors are those of the server's catalogue."""

    detector: Annotated[StrictStr, Field(max_length=200)] = "face_full_mediapipe"
    """Name of the detection model. Several, divided by commas, look together; what two of them find
    counts once."""
    tile: Annotated[int, Field(ge=SMALLEST_TILE, le=MAX_EXTENT), NUMBER] | None = None
    """Look at the picture in overlapping tiles of this many pixels, too."""


class CallRequest(ServedStage, ImageSource):
    """A picture and what to do with it. Options are for every stage that does not have its own."""

    init_image: StrictStr | None = None
    """base64-encoded image to modify: PNG, JPEG or WebP, of any size."""
    image_encoding: ImageEncoding = ImageEncoding.PNG
    """How a picture is sent back."""
    stages: Annotated[list[ServedStage], Field(min_length=1, max_length=MAX_STAGES)] | None = None
    """Turns of finding and repainting, each in what the one before has made of the picture. Null:
    one, with the options beside it. Where a stage has a prompt of its own, the one beside stages is
    its main prompt."""

    def all_stages(self) -> tuple[Stage, ...]:
        """Every stage with the options that it inherits.

        Raises:
            ValidationError: options that exclude each other come together.
        """
        shared = self.model_dump(exclude_unset=True, include=set(ServedStage.model_fields))
        own = [stage.model_dump(exclude_unset=True) for stage in self.stages or ()] or [{}]
        return tuple(Stage.model_validate(inherited(stage, shared)) for stage in own)


class DetailRequest(CallRequest):
    """``POST /v1/detail``."""


class DetectRequest(CallRequest):
    """``POST /v1/detect``: the same options, to see what they would do."""

    preview: StrictBool = False
    """Send the picture back with boxes, ids and masks drawn into it."""


class ObjectReport(BaseModel):
    """One object, and what happened to it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    stage: int
    """The number of the stage that found it, from 0."""
    id: int
    """Its place among all that the stage's detector found, the most confident first, from 0."""
    label: str
    score: float
    box: tuple[float, float, float, float]
    """Pixels: left, top, right, bottom."""
    polygons: list[list[tuple[float, float]]]
    """Its outline, in parts; empty where the box itself is repainted."""
    outcome: str
    """`planned` (dry run), `inpainted`, `skipped`, `refused` (by the safety checker), `failed`."""
    reason: str | None
    """Why it was skipped, refused or has failed."""
    seed: int | None
    """What its job runs with."""


class DetectResponse(BaseModel):
    """What would be repainted."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    width: int
    height: int
    objects: list[ObjectReport]
    preview_b64: str | None = None


class DetailResponse(BaseModel):
    """The picture, and what was done to it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    image_b64: str | None
    """Null if every repainted object was removed for safety."""
    objects: list[ObjectReport]
    num_objects_inpainted: int
    num_objects_detected: int
    num_removed_for_safety: int
    timings: dict[str, float]
    """Seconds by kind of work."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A request as it came: its stages, and its picture or where to fetch it."""

    request: CallRequest
    picture: bytes | None
    stages: tuple[Stage, ...]

    @property
    def address(self) -> str | None:
        """Where to fetch the picture, if it did not come along."""
        return self.request.init_image_url

    @property
    def image_field(self) -> str:
        return "init_image" if self.address is None else "init_image_url"

    @property
    def preview(self) -> bool:
        return isinstance(self.request, DetectRequest) and self.request.preview


def parse_call(kind: type[CallRequest], body: bytes) -> Call:
    """A JSON body, base64 included.

    Raises:
        RequestInvalid: it is no JSON object, or fields are unknown, missing or wrong.
        InvalidInput: ``init_image`` is not base64.
    """
    return _call(kind, json_object(body), None)


def parse_form(kind: type[CallRequest], fields: dict[str, str], picture: bytes | None) -> Call:
    """Fields of a form or a query. Those that are not text are JSON: ``steps=20``.

    Args:
        picture: the file that came along; else the fields say where it is.

    Raises:
        RequestInvalid, InvalidInput: as :func:`parse_call`.
    """
    given = dict(fields)
    values: dict[str, Any] = json_object(given.pop("options", "{}").encode(), "options")
    values |= {name: _value(kind, name, text) for name, text in given.items()}
    return _call(kind, values, picture)


def _value(kind: type[CallRequest], name: str, text: str) -> Any:
    if name not in _structured(kind):
        return text
    try:
        return from_json(text)
    except ValueError:
        return text  # whose validation says what is wrong


@cache  # of two entries
def _structured(kind: type[CallRequest]) -> frozenset[str]:
    """The fields that have no text as their value."""
    texts = {"string", "null"}
    return frozenset(
        name
        for name, schema in kind.model_json_schema()["properties"].items()
        if not {item.get("type", "string") for item in schema.get("anyOf", [schema])} <= texts
    )


def _call(kind: type[CallRequest], values: dict[str, Any], picture: bytes | None) -> Call:
    try:
        request = kind.model_validate(values)
        stages = request.all_stages()
    except ValidationError as error:
        problems = [_with_closest(problem, kind) for problem in problems_of(error)]
        raise RequestInvalid(problems) from None
    given = [picture, request.init_image, request.init_image_url]
    if sum(item is not None for item in given) != 1:
        text = "send one picture: as init_image (base64 or a file) or as init_image_url"
        raise RequestInvalid([FieldProblem(loc=["body"], msg=text, type="image_missing")])
    if request.init_image is not None:
        picture = decode_base64(request.init_image)
        request = request.model_copy(update={"init_image": None})
    return Call(request, picture, stages)


def _with_closest(problem: FieldProblem, kind: type[CallRequest]) -> FieldProblem:
    """Of a name that there is not, the ones that there are."""
    if problem.type != "extra_forbidden":
        return problem
    place = problem.loc[1:-1]
    known = ObjectOptions if "objects" in place else ServedStage if "stages" in place else kind
    name = str(problem.loc[-1])
    error = UnknownName("option", name, known.model_fields, field=name)
    return problem.model_copy(update={"msg": str(error)})


def report(item: DetailedObject) -> ObjectReport:
    """One object on the wire."""
    found = item.detection
    return ObjectReport(
        stage=item.stage,
        id=item.id,
        label=found.label,
        score=round(found.score, 4),
        box=_rounded((found.box.x0, found.box.y0, found.box.x1, found.box.y1)),
        polygons=[[_rounded(point) for point in part] for part in found.polygons],
        outcome=item.outcome.value,
        reason=item.reason,
        seed=item.seed,
    )


def _rounded(values: tuple[float, ...]) -> Any:
    return tuple(round(value, 2) for value in values)


def detect_response(dry: DryRun, preview_b64: str | None) -> DetectResponse:
    width, height = dry.picture.size
    return DetectResponse(
        width=width,
        height=height,
        objects=[report(item) for item in dry.objects],
        preview_b64=preview_b64,
    )


def detail_response(result: DetailResult, image_b64: str | None) -> DetailResponse:
    return DetailResponse(
        image_b64=image_b64,
        objects=[report(item) for item in result.objects],
        num_objects_inpainted=result.num_objects_inpainted,
        num_objects_detected=result.num_objects_detected,
        num_removed_for_safety=result.num_removed_for_safety,
        timings={stage: round(seconds, 4) for stage, seconds in result.timings.items()},
    )
