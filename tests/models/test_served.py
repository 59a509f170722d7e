"""A catalogue of the user's own, from its file to pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterdetail import Detailer
from afterdetail.errors import InvalidInput, WeightsError
from afterdetail.types import RGB

SIDE = 64
ENTRY = '[[model]]\nname = "{}"\nkind = "{}"\nbase = "{}"\nsizes = ["64x64"]\npath = "{}"\n'


@pytest.fixture(scope="module")
def catalogue(sd15: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalogue")
    (folder / "broken.safetensors").write_bytes(sd15.file.read_bytes()[:5000])
    entries = [
        '[[model]]\nname = "tiny"\nkind = "base"\nbase = "sd15"\npackage = "models/tiny"\n'
        'sizes = ["64x64"]\n',
        ENTRY.format("mine", "checkpoint", "sd15", sd15.file),
        ENTRY.format("broken", "checkpoint", "sd15", "broken.safetensors"),
    ]
    file = folder / "models.toml"
    file.write_text("\n".join(entries))
    return file


@pytest.fixture(scope="module")
def detailer(catalogue: Path) -> Iterator[Detailer]:
    with Detailer(catalogue, device="cpu") as detailer:
        yield detailer


@pytest.fixture(scope="module")
def face(photo: Any) -> RGB:
    picture: RGB = photo("skimage_astronaut.png")[60:124, 190:254]
    return picture


def repaint(detailer: Detailer, face: RGB, **options: Any) -> RGB:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    fixed = {"mask_blur": 0, "steps": 2, "seed": 3, "cfg_scale": 2, "prompt": "a cat"}
    return detailer.inpaint(face, mask, **{**fixed, **options}).picture.rgb


def test_a_checkpoint_repaints_otherwise_than_the_base(detailer: Detailer, face: RGB) -> None:
    base, mine = repaint(detailer, face), repaint(detailer, face, checkpoint="mine")
    assert (base[20:40, 20:40] != mine[20:40, 20:40]).any()
    assert np.array_equal(base[:8], mine[:8])
    assert np.array_equal(repaint(detailer, face), base)


def test_a_broken_checkpoint_leaves_the_others_served(detailer: Detailer, face: RGB) -> None:
    before = repaint(detailer, face)
    with pytest.raises(WeightsError, match="download it again"):
        repaint(detailer, face, checkpoint="broken")
    assert np.array_equal(repaint(detailer, face), before)


def test_a_path_is_no_name(detailer: Detailer, catalogue: Path, face: RGB) -> None:
    with pytest.raises(InvalidInput, match="unknown checkpoint"):
        repaint(detailer, face, checkpoint=str(catalogue.with_name("broken.safetensors")))
