"""What the endpoint answers: one body for success, two for errors."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class AdetailerResponse(BaseModel):
    """The modified picture and what was done to it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    image_b64: str | None
    """The modified image, or null if every repainted object was removed for safety."""
    num_objects_inpainted: int
    """The number of objects that were successfully inpainted."""
    num_objects_detected: int
    """The number of objects that were detected, before max_num_detections."""
    num_removed_for_safety: int
    """The number of inpainting jobs whose result the safety checker refused."""


class FieldProblem(BaseModel):
    """One thing that is wrong with a request."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    loc: list[str | int]
    """Where: `body`, then the field."""
    msg: str
    type: str
    """The stable name of the fault."""


class HTTPValidationError(BaseModel):
    """The body of 422 answers."""

    model_config = ConfigDict(frozen=True)

    detail: list[FieldProblem]


class Problem(BaseModel):
    """The body of every other error."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    detail: str
    code: str
    """The stable name of the fault."""
    request_id: str
    """As in the header `X-Request-ID`: quote it to whoever runs the server."""
