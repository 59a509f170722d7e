"""The command says what is there, and that it works."""

from __future__ import annotations

import json

import pytest

from afterdetail.cli.doctor import Check, Findings
from afterdetail.cli.main import main


def test_a_healthy_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"tiny", "face_full_mediapipe"} <= set(found["models_here"])
    assert found["memory_free"] <= found["memory_total"]
    assert [check["problem"] for check in found["checks"]] == [None] * 4


def test_text_has_a_line_for_each_thing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-test", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[:5]] == [
        "afterdetail",
        "libraries",
        "extras",
        "device",
        "memory",
    ]


def test_a_device_that_is_not_there_is_told() -> None:
    assert main(["doctor", "--device", "abacus"]) == 2


@pytest.mark.parametrize(("problem", "well"), [(None, True), ("it broke", False)])
def test_one_failed_check_makes_it_unwell(problem: str | None, well: bool) -> None:
    checks = (Check("one", 0.1), Check("two", 0.1, problem))
    findings = Findings("0", "3", "x", {}, {}, "cpu", 1, 2, (), (), checks)
    assert findings.well is well
