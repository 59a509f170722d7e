"""Detectors by name."""

from __future__ import annotations

import hashlib
import runpy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from afterdetail.detectors import registry
from afterdetail.detectors.base import Detector
from afterdetail.detectors.registry import MAX_RESIDENT, load_detector, load_detector_file
from afterdetail.errors import ModelUnavailable, UnknownName, WeightsError
from afterdetail.models.catalogue import (
    Catalogue,
    Kind,
    ModelSpec,
    Outline,
    Source,
    load_catalogue,
)
from afterdetail.types import RGB

DATA = Path(__file__).parents[1] / "data" / "yolo"
random_state = runpy.run_path(str(DATA / "random_weights.py"))["random_state"]


@pytest.fixture(autouse=True)
def nothing_resident(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A fresh cache of detectors, and an empty one of the hub."""
    monkeypatch.setattr(registry, "_resident", registry._Resident())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_file(random_state("tiny", 2, masks=True), path, {"names": '["face", "hand"]'})
    return path


def own(path: Path, **entry: object) -> Catalogue:
    """A catalogue with one detector, ``mine``."""
    source = Source(path=str(path))
    return Catalogue((ModelSpec("mine", Kind.DETECTOR, source, **entry),))  # type: ignore[arg-type]


MEDIAPIPE = [
    "face_full_mediapipe",
    "face_short_mediapipe",
    "face_mesh_mediapipe",
    "eyes_mesh_mediapipe",
]


@pytest.mark.parametrize("name", MEDIAPIPE)
def test_the_shipped_detectors_are_there(name: str) -> None:
    catalogue = load_catalogue("tiny")
    assert load_detector(name, catalogue).name == name
    assert load_detector(f"octoai:{name}", catalogue) is load_detector(name, catalogue)


@pytest.mark.parametrize(
    "name", ["", "face", "tiny", "../mine", "/etc/passwd", "weights/face_landmark.tflite"]
)
def test_unknown_names_blame_the_detector_field(name: str, weights: Path) -> None:
    with pytest.raises(UnknownName) as error:
        load_detector(name, own(weights))
    assert error.value.field == "detector"


def test_a_path_is_no_name(weights: Path) -> None:
    with pytest.raises(UnknownName):
        load_detector(str(weights), own(weights))


@pytest.mark.parametrize("name", ["face_yolov8n", "hand_yolov8n", "person_yolov8n-seg"])
def test_without_weights_the_error_says_how_to_get_them(name: str) -> None:
    with pytest.raises(ModelUnavailable, match=f"afterdetail models pull {name}$") as error:
        load_detector(name, load_catalogue("tiny"))
    assert error.value.public == f"{name} is not on this server"


def test_a_detector_of_the_users_by_name(weights: Path, photo: Callable[[str], RGB]) -> None:
    catalogue = own(weights, label="thing", classes=("face",), outline=Outline.SEGMENTATION)
    detector = load_detector("mine", catalogue)
    found = detector.detect(photo("skimage_astronaut.png"), 0.02)
    assert detector.name == "mine"
    assert {one.label for one in found} == {"thing"}
    assert any(one.polygons for one in found)


def test_a_weights_file_by_its_path(weights: Path, photo: Callable[[str], RGB]) -> None:
    detector = load_detector_file(weights)
    found = detector.detect(photo("skimage_astronaut.png"), 0.02)
    assert {one.label for one in found} == {"face", "hand"}
    assert any(one.polygons for one in found)


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"no .*gone\.pt; put it there"):
        load_detector_file(tmp_path / "gone.pt")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"sha256": "0" * 64}, "is not the mine of the catalogue: sha256"),
        ({"classes": ("foot",)}, "the weights of mine have no class 'foot'; their 2: face, hand"),
    ],
)
def test_weights_that_are_not_what_the_catalogue_says(
    entry: dict[str, object], message: str, weights: Path
) -> None:
    with pytest.raises(WeightsError, match=message) as error:
        load_detector("mine", own(weights, **entry))
    assert str(error.value).endswith("replace it or mend the catalogue")
    assert str(weights) not in error.value.public


def test_damaged_weights_are_named_with_the_remedy(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"tiny\.safetensors is truncated .*; replace it or"):
        load_detector("mine", own(weights))


def test_the_right_checksum_is_accepted(weights: Path) -> None:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert load_detector("mine", own(weights, sha256=digest)).name == "mine"


def test_many_threads_load_a_detector_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[ModelSpec] = []
    load = registry._load
    together = threading.Barrier(8)

    def counting(spec: ModelSpec) -> Detector:
        loaded.append(spec)
        return load(spec)

    def ask(_: int) -> Detector:
        together.wait()
        return load_detector("mine", own(weights))

    monkeypatch.setattr(registry, "_load", counting)
    with ThreadPoolExecutor(8) as threads:
        detectors = set(map(id, threads.map(ask, range(8))))
    assert len(detectors) == len(loaded) == 1


def test_what_cannot_be_loaded_is_tried_again(weights: Path) -> None:
    whole = weights.read_bytes()
    weights.write_bytes(b"")
    with pytest.raises(WeightsError):
        load_detector("mine", own(weights))
    weights.write_bytes(whole)
    assert load_detector("mine", own(weights)).name == "mine"


def test_the_detectors_in_memory_are_bounded(weights: Path) -> None:
    first = load_detector("mine", own(weights))
    for number in range(MAX_RESIDENT - 1):
        load_detector("mine", own(weights, label=f"label {number}"))
    assert load_detector("mine", own(weights)) is first
    for number in range(MAX_RESIDENT):
        load_detector("mine", own(weights, label=f"other {number}"))
    assert load_detector("mine", own(weights)) is not first
