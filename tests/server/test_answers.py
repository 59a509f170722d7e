"""What a result looks like on the wire when not everything went well."""

from __future__ import annotations

import json

import numpy as np
import pytest

from afterdetail.results import DetailedObject, DetailResult, Outcome
from afterdetail.schema.request import ImageEncoding
from afterdetail.server.answers import to_response
from afterdetail.types import Box, Detection, Picture

FACE = Detection("face", 0.9, Box(0, 0, 8, 8))
PICTURE = Picture(np.zeros((16, 16, 3), np.uint8))


@pytest.mark.parametrize(
    ("outcomes", "refused", "failed", "counts", "has_image"),
    [
        ([], 0, None, (0, 0, 0), True),
        ([Outcome.INPAINTED, Outcome.SKIPPED], 0, None, (1, 2, 0), True),
        ([Outcome.INPAINTED, Outcome.FAILED, Outcome.FAILED], 0, "2", (1, 3, 0), True),
        ([Outcome.INPAINTED, Outcome.REFUSED], 1, None, (1, 2, 1), True),
        ([Outcome.REFUSED, Outcome.REFUSED], 2, None, (0, 2, 2), False),
        ([Outcome.REFUSED, Outcome.REFUSED], 1, None, (0, 2, 1), False),  # one job for both
    ],
)
def test_failed_and_refused_objects(
    outcomes: list[Outcome],
    refused: int,
    failed: str | None,
    counts: tuple[int, int, int],
    has_image: bool,
) -> None:
    objects = tuple(DetailedObject(FACE, outcome) for outcome in outcomes)
    response = to_response(DetailResult(PICTURE, objects, {}, refused), ImageEncoding.PNG)
    body = json.loads(bytes(response.body))
    inpainted, detected, removed = counts
    assert body.pop("image_b64") is not None if has_image else body.pop("image_b64") is None
    assert body == {
        "num_objects_inpainted": inpainted,
        "num_objects_detected": detected,
        "num_removed_for_safety": removed,
    }
    assert response.headers.get("X-Objects-Failed") == failed
