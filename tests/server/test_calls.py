"""How admission counts a call of several stages."""

from __future__ import annotations

from typing import Any

import pytest

from afterdetail.engine.stats import EngineStats
from afterdetail.server.admission import Admission, Limits
from afterdetail.server.calls import Effort
from afterdetail.stages import parse_stages


def work_of(stages: list[dict[str, Any]], objects: int = 3) -> float:
    """Row-steps of a permit, where pictures have so many objects."""
    limits = Limits(work=1e9, seconds=1e9, size=1_000)
    admission = Admission(limits, EngineStats, lambda: 0.0)
    admission.learn(objects)
    permit = admission.admit("anna", 1)
    admission.know(permit, Effort.of(parse_stages(stages, {"steps": 10, "strength": 0.5})))
    return permit.work


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([{}], 3 * 2 * 5),
        ([{"cfg_scale": 1, "steps": 20}], 3 * 1 * 10),
        ([{}, {"steps": 20}], 3 * 2 * (5 + 10)),
        ([{"max_num_detections": 1}], 2 * 5),
        ([{"k_largest": 2}, {"k_largest": 1}], 2 * 2 * 10),
        ([{"k_largest": 1}, {}], 3 * 2 * 10),
        ([{"union_masks": True}], 2 * 5),
        ([{"invert_masks": True}, {"union_masks": True}], 2 * 10),
        ([{"union_masks": True}, {}], 3 * 2 * 10),
    ],
)
def test_work_of_stages(stages: list[dict[str, Any]], expected: int) -> None:
    assert work_of(stages) == expected
