"""Detectors of a catalogue of one's own, over HTTP."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save_file

from afterdetail.config import Settings
from afterdetail.pipeline import Detailer
from afterdetail.server.app import create_app

YOLO = Path(__file__).parents[1] / "data" / "yolo"
random_state = runpy.run_path(str(YOLO / "random_weights.py"))["random_state"]

OWN = """
[[model]]
name = "small"
kind = "base"
base = "sd15"
package = "models/tiny"
sizes = ["128x128"]

[[model]]
name = "face_yolov8n"
kind = "detector"
path = "mine.safetensors"
label = "face"

[[model]]
name = "mine"
kind = "detector"
path = "mine.safetensors"
classes = ["hand"]

[[model]]
name = "lost"
kind = "detector"
path = "lost.safetensors"
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Detailer]:
    folder = tmp_path_factory.mktemp("own")
    save_file(random_state("tiny", 2, masks=True), folder / "mine.safetensors",
              {"names": '["face", "hand"]'})  # fmt: skip
    (folder / "models.toml").write_text(OWN, encoding="utf-8")
    with Detailer(folder / "models.toml") as detailer:
        detailer.load()
        yield detailer


def problem(client: TestClient, body: dict[str, object]) -> tuple[list[str], str]:
    response = client.post("/adetailer", json=body)
    assert response.status_code == 422
    (found,) = response.json()["detail"]
    return found["loc"], found["type"]


def test_a_yolo_detector_of_the_six_answers(own: Detailer, body: dict[str, object]) -> None:
    with TestClient(create_app(own, Settings())) as client:
        asked = body | {"detector": "face_yolov8n", "max_num_detections": 1}
        answer = client.post("/adetailer", json=asked)
    assert answer.status_code == 200
    assert answer.json()["num_objects_detected"] > 0
    assert answer.json()["num_objects_inpainted"] <= 1


@pytest.mark.parametrize("name", ["mine", "lost", "hand_mediapipe", "nobody"])
def test_only_the_six_unless_the_settings_say_so(
    own: Detailer, body: dict[str, object], name: str
) -> None:
    with TestClient(create_app(own, Settings())) as client:
        assert problem(client, body | {"detector": name}) == (["body", "detector"], "enum")


def test_every_detector_of_the_catalogue_where_the_settings_say_so(
    own: Detailer, body: dict[str, object]
) -> None:
    with TestClient(create_app(own, Settings(detectors="any"))) as client:
        for name in ("mine", "octoai:mine", "hand_mediapipe", "mine,hand_mediapipe"):
            asked = body | {"detector": name, "max_num_detections": 1}
            assert client.post("/adetailer", json=asked).status_code == 200, name


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nobody", "unknown_name"),
        ("", "unknown_name"),
        ("mine.safetensors", "unknown_name"),
        ("./mine", "unknown_name"),
        ("mine,nobody", "unknown_name"),
        ("lost", "model_unavailable"),
        (7, "string_type"),
    ],
)
def test_a_wrong_detector_is_named(
    own: Detailer, body: dict[str, object], name: object, code: str
) -> None:
    with TestClient(create_app(own, Settings(detectors="any"))) as client:
        assert problem(client, body | {"detector": name}) == (["body", "detector"], code)
