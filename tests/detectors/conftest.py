"""The photographs with reference detections that the MediaPipe detectors are held to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from afterdetail.types import RGB

COMMITTED = json.loads(
    (Path(__file__).parents[1] / "data" / "golden_mediapipe.json").read_text(encoding="utf-8")
)["images"]
SHARED = Path(__file__).parents[3] / "shared" / "golden"
"""More of them, beside the repository, which may not be committed."""
NOT_COMMITTED = (
    "frames_vtest_2.png",
    "libre_guggenheim-bilbao.jpg",
    "ocv_basketball1.png",
    "ocv_fruits.jpg",
    "ocv_messi5.jpg",
    "vface_sample1.jpg",
    "vface_sample6.jpg",
)


@pytest.fixture(scope="session", params=[*COMMITTED, *NOT_COMMITTED])
def golden(request: pytest.FixtureRequest, photo: Callable[[str], RGB]) -> tuple[RGB, Any]:
    """A photograph and what MediaPipe 0.10.21 finds in it; ``_format`` in the file explains."""
    name = request.param
    if name in COMMITTED:
        return photo(name), COMMITTED[name]
    if not (SHARED / name).exists():
        pytest.skip("this photograph may not be committed and is not beside the repository")
    expected = json.loads((SHARED / "golden_mediapipe.json").read_text(encoding="utf-8"))["images"]
    with Image.open(SHARED / name) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB")), expected[name]
