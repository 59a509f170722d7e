"""The photographs every room's tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from afterdetail.types import RGB

# Tests of OpenVINO ask for it by name; a server process of a test need not compile for seconds.
os.environ.setdefault("AFTERDETAIL_BACKEND", "eager")

PHOTOS = Path(__file__).parent / "data" / "photos"


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of the photographs."""
    return PHOTOS


@pytest.fixture(scope="session")
def photo() -> Callable[[str], RGB]:
    """``photo("skimage_astronaut.png")``: that photograph, upright, uint8 ``(H, W, 3)``."""

    def load(name: str) -> RGB:
        with Image.open(PHOTOS / name) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))

    return load
