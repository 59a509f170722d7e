"""What is refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from afterdetail.errors import InvalidInput
from afterdetail.safety.policy import THRESHOLD, SafetyPolicy, as_policy, make_policy
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


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [(0.0, 0.0, False), (0.9, 0.0, True), (0.0, 0.9, True), (0.9, 0.9, True)],
)
def test_of_two_policies_one_is_enough(first: float, second: float, refused: bool) -> None:
    also = SafetyPolicy(Fixed(second), 0.5)
    assert SafetyPolicy(Fixed(first), 0.5, also).refuses(CROP) is refused


def test_a_policy_of_ones_own_is_kept() -> None:
    own = SafetyPolicy(Fixed(0.0))
    assert as_policy(own, THRESHOLD) is own
    assert as_policy("off", THRESHOLD) is None
    with pytest.raises(InvalidInput, match="'on' or 'off', not 'maybe'"):
        as_policy("maybe", THRESHOLD)
