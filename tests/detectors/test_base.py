"""What lower and higher confidence mean, and that the doors to the detectors are light."""

from __future__ import annotations

import subprocess
import sys

import pytest

from afterdetail.detectors.base import score_threshold


@pytest.mark.parametrize(
    ("floor", "confidence", "threshold"),
    [
        (0.5, 0.3, 0.5),
        (0.6, 0.3, 0.6),
        (0.5, 0.0, 0.0),
        (0.6, 0.15, 0.3),
        (0.6, 0.5, 0.6),
        (0.5, 0.7, 0.7),
        (0.6, 1.0, 1.0),
    ],
)
def test_confidence_lowers_the_floor_in_proportion_and_raises_it_as_itself(
    floor: float, confidence: float, threshold: float
) -> None:
    assert score_threshold(floor, confidence) == pytest.approx(threshold)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("afterdetail.detectors.base", ["ai_edge_litert", "cv2"]),
        ("afterdetail.detectors.mediapipe", ["ai_edge_litert"]),
    ],
)
def test_importing_loads_no_runtime(module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
