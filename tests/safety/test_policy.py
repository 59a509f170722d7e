"""What is refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from afterdetail.safety.policy import THRESHOLD, SafetyPolicy, make_policy
from afterdetail.types import RGB

CROP: RGB = np.zeros((8, 8, 3), np.uint8)


@dataclass(frozen=True)
class Fixed:
    """Scores everything alike."""

    value: float

    def score(self, rgb: RGB) -> float:
        assert rgb.shape[2] == 3
        return self.value


@pytest.mark.parametrize(
    ("score", "refused"), [(0.0, False), (0.79, False), (THRESHOLD, True), (1.0, True)]
)
def test_a_score_at_the_threshold_is_refused(score: float, refused: bool) -> None:
    assert SafetyPolicy(Fixed(score)).refuses(CROP) is refused


def test_off_is_no_policy() -> None:
    assert make_policy("off") is None
