"""The request body of ``POST /adetailer``.

Every option is validated by :class:`~afterdetail.options.DetailOptions`, so that the library, the
command line and HTTP agree; this adds the picture and how to send it back.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, StrictStr, model_validator
from pydantic_core import PydanticCustomError

from afterdetail.options import DetailOptions


class Detector(StrEnum):
    """The detection models of the hosted endpoint."""

    FACE_YOLOV8N = "face_yolov8n"
    HAND_YOLOV8N = "hand_yolov8n"
    FACE_FULL_MEDIAPIPE = "face_full_mediapipe"
    FACE_SHORT_MEDIAPIPE = "face_short_mediapipe"
    FACE_MESH_MEDIAPIPE = "face_mesh_mediapipe"
    EYES_MESH_MEDIAPIPE = "eyes_mesh_mediapipe"


class ImageEncoding(StrEnum):
    """How a picture is sent back: JPEG at quality 95 without subsampling, or PNG."""

    JPEG = "jpeg"
    PNG = "png"


class ImageSource(BaseModel):
    """The picture of a request, by value or by address, and the encoding of the answer."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    init_image: StrictStr | None = None
    """base64-encoded image to modify: PNG, JPEG or WebP. Resolution must be supported by
    inpainting_base_model."""
    init_image_url: StrictStr | None = None
    """If given, download init_image from this URL. Give either this or init_image."""
    image_encoding: ImageEncoding = ImageEncoding.JPEG
    """Define which encoding process should be applied before returning the modified image."""


# The order of the bases is the order of the fields on the API page: the last base comes first.
class AnyDetectorRequest(DetailOptions, ImageSource):
    """A picture and how to detail it, with any detector of the server's catalogue."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    detector: StrictStr

    @model_validator(mode="after")
    def _has_one_image(self) -> Self:
        if self.init_image is not None and self.init_image_url is not None:
            raise PydanticCustomError(
                "image_ambiguous", "both init_image and init_image_url are given; send one of them"
            )
        if self.init_image is None and self.init_image_url is None:
            raise PydanticCustomError(
                "image_missing", "send the picture as init_image (base64) or as init_image_url"
            )
        return self

    @property
    def image_field(self) -> str:
        """The field that has the picture."""
        return "init_image_url" if self.init_image is None else "init_image"

    def options(self) -> DetailOptions:
        """The request without its picture."""
        fields = set(DetailOptions.model_fields)
        return DetailOptions.model_validate(self.model_dump(mode="json", include=fields))


class AdetailerRequest(AnyDetectorRequest):
    """A picture and how to detail it. Unknown fields are ignored."""

    detector: Detector
    """Detection model to use. Configures whether e.g. faces or hands are targeted for
    after-detailing."""
