"""YOLOv8 against ultralytics: the goldens' recipe is scripts/make_yolo_golden.py."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import save_file

from afterdetail.detectors.yolo import YoloDetector, instance_mask, open_network
from afterdetail.detectors.yolo_boxes import Letterbox, non_maximum_suppression, select
from afterdetail.detectors.yolo_torch import TorchNetwork, to_batch
from afterdetail.errors import WeightsError
from afterdetail.models.catalogue import Outline
from afterdetail.types import RGB, Box, Detection, Size

DATA = Path(__file__).parents[1] / "data" / "yolo"
GOLDEN = json.loads((DATA / "golden.json").read_text())
random_state = runpy.run_path(str(DATA / "random_weights.py"))["random_state"]
CASES = tuple(GOLDEN["cases"])
CONFIDENCE = 0.2

Photo = Callable[[str], RGB]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TorchNetwork]:
    """``network("n1")``: the golden case's network, read from a safetensors file."""
    folder = tmp_path_factory.mktemp("yolo")

    @cache
    def open_case(name: str) -> TorchNetwork:
        case = GOLDEN["cases"][name]
        path = folder / f"{name}.safetensors"
        state = random_state(case["scale"], case["classes"], masks=case["masks"])
        save_file(
            state, path, {"names": json.dumps([f"class {i}" for i in range(case["classes"])])}
        )
        opened = open_network(path)
        assert isinstance(opened, TorchNetwork)
        return opened

    return open_case


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TorchNetwork:
    """A sixteenth of the true width, two classes, with masks: quick."""
    path = tmp_path_factory.mktemp("yolo") / "tiny.safetensors"
    save_file(random_state("tiny", 2, masks=True), path, {"names": '["face", "hand"]'})
    opened = open_network(path)
    assert isinstance(opened, TorchNetwork)
    return opened


def picture(photo: Photo, name: str) -> RGB:
    file, part = GOLDEN["pictures"][name]
    rgb = photo(file)
    x0, y0, x1, y1 = part or (0, 0, rgb.shape[1], rgb.shape[0])
    return np.ascontiguousarray(rgb[y0:y1, x0:x1])


def detector(network: TorchNetwork, outline: Outline = Outline.BOX) -> YoloDetector:
    return YoloDetector("test", network, outline=outline)


def agrees(ours: Detection, box: list[float], score: float, number: int) -> bool:
    return (
        ours.label == f"class {number}"
        and abs(ours.score - score) < 1e-3
        and ours.box.iou(Box(*box)) >= 0.99
    )


@pytest.mark.parametrize("case", CASES)
def test_raw_heads_are_those_of_ultralytics(
    case: str, network: Callable[[str], TorchNetwork], photo: Photo
) -> None:
    raw = GOLDEN["cases"][case]["raw"]
    rgb = picture(photo, "whole")
    batch = to_batch(Letterbox.fit((rgb.shape[1], rgb.shape[0])).apply(rgb))
    assert list(batch.shape) == raw["shape"]
    with torch.inference_mode():
        heads = network(case).network(batch)
    for name in ("boxes", "scores", "coefficients"):
        ours = getattr(heads, name)
        assert (ours is not None) == (name in raw)
        if ours is not None:
            np.testing.assert_allclose(ours[:, raw["cells"]].T, raw[name], atol=1e-3)
    if heads.prototypes is not None:
        ours = heads.prototypes[:, ::40, ::40].flatten()
        np.testing.assert_allclose(ours, raw["prototypes"], atol=1e-3)


@pytest.mark.parametrize("confidence", [0.001, 0.2, 0.5, 0.9])
def test_cells_left_out_change_nothing(
    confidence: float, network: Callable[[str], TorchNetwork], photo: Photo
) -> None:
    rgb = picture(photo, "whole")
    letterboxed = Letterbox.fit((rgb.shape[1], rgb.shape[0])).apply(rgb)
    every, some = (network("n3-seg")(letterboxed, at) for at in (0.0, confidence))
    rows = np.flatnonzero(every.scores.max(1) > confidence)
    assert 0 < len(rows) < len(every.scores)
    for name in ("boxes", "scores", "coefficients"):
        expected, ours = getattr(every, name)[rows], getattr(some, name)
        np.testing.assert_allclose(ours[some.scores.max(1) > confidence], expected, atol=1e-3)


@pytest.mark.parametrize("name", GOLDEN["pictures"])
@pytest.mark.parametrize("case", CASES)
def test_detections_are_those_of_ultralytics(
    case: str, name: str, network: Callable[[str], TorchNetwork], photo: Photo
) -> None:
    golden = GOLDEN["cases"][case]["pictures"][name]
    # ultralytics drops a segmented object whose mask is empty
    outline = Outline.SEGMENTATION if GOLDEN["cases"][case]["masks"] else Outline.BOX
    found = detector(network(case), outline).detect(picture(photo, name), CONFIDENCE)
    assert len(found) == golden["count"]
    rows = zip(golden["boxes"], golden["scores"], golden["classes"], strict=True)
    missed = [row for row in rows if not any(agrees(ours, *row) for ours in found)]
    assert missed == []


@pytest.mark.parametrize("name", ["whole", "wide", "small"])
def test_outlines_are_those_of_ultralytics(
    name: str, network: Callable[[str], TorchNetwork], photo: Photo
) -> None:
    golden = GOLDEN["cases"]["n3-seg"]["pictures"][name]
    found = detector(network("n3-seg"), Outline.SEGMENTATION).detect(
        picture(photo, name), CONFIDENCE
    )
    assert len(found) == golden["count"]
    assert golden["outlines"]
    for number, outline in golden["outlines"].items():
        row = (golden[key][int(number)] for key in ("boxes", "scores", "classes"))
        box, score, label = row
        ours = next(one for one in found if agrees(one, box, score, label))
        assert len(ours.polygons) == 1
        np.testing.assert_allclose(ours.polygons[0], outline, atol=1)


def test_mask_areas_are_those_of_ultralytics(
    network: Callable[[str], TorchNetwork], photo: Photo
) -> None:
    golden = GOLDEN["cases"]["n3-seg"]["pictures"]["whole"]
    rgb = picture(photo, "whole")
    letterbox = Letterbox.fit((rgb.shape[1], rgb.shape[0]))
    found = network("n3-seg")(letterbox.apply(rgb), CONFIDENCE)
    kept = select(found.boxes, found.scores, CONFIDENCE)
    assert found.prototypes is not None
    assert found.coefficients is not None
    areas = [
        int(instance_mask(found.prototypes, found.coefficients[row], box, letterbox.input).sum())
        for row, box in zip(kept.rows, found.boxes[kept.rows], strict=True)
    ]
    np.testing.assert_allclose(areas[: len(golden["mask_areas"])], golden["mask_areas"], rtol=1e-3)


@pytest.mark.parametrize(
    ("size", "scaled", "whole", "corner"),
    [
        ((640, 640), (640, 640), (640, 640), (0, 0)),
        ((512, 512), (640, 640), (640, 640), (0, 0)),
        ((600, 400), (640, 427), (640, 448), (0, 10)),
        ((400, 600), (427, 640), (448, 640), (10, 0)),
        ((999, 320), (640, 205), (640, 224), (0, 9)),
        ((16, 16), (640, 640), (640, 640), (0, 0)),
        ((8192, 16), (640, 1), (640, 32), (0, 15)),
        ((16, 8192), (1, 640), (32, 640), (15, 0)),
    ],
)
def test_letterbox_is_the_least_rectangle_of_multiples_of_32(
    size: Size, scaled: Size, whole: Size, corner: tuple[int, int]
) -> None:
    letterbox = Letterbox.fit(size)
    assert (letterbox.scaled, letterbox.input) == (scaled, whole)
    assert (letterbox.left, letterbox.top) == corner
    assert letterbox.apply(np.zeros((size[1], size[0], 3), np.uint8)).shape == (*whole[::-1], 3)


def test_a_fixed_input_is_filled_with_grey() -> None:
    letterbox = Letterbox.fit((600, 400), fixed=(320, 320))
    canvas = letterbox.apply(np.zeros((400, 600, 3), np.uint8))
    assert canvas.shape == (320, 320, 3)
    assert canvas[52].min() == 114
    assert canvas[53:266].max() == 0
    assert canvas[266].min() == 114


def test_points_go_back_with_a_gain_for_each_axis() -> None:
    letterbox = Letterbox.fit((999, 320))
    points = np.array([[0, 9], [640, 214], [320, -50]], np.float32)
    assert letterbox.to_picture(points).round(3).tolist() == [[0, 0], [999, 320], [499.5, 0]]


@pytest.mark.parametrize(
    ("boxes", "kept"),
    [
        ([], []),
        ([[0, 0, 10, 10]], [0]),
        ([[0, 0, 10, 10], [0, 0, 10, 10]], [0]),
        ([[0, 0, 10, 10], [0, 0, 10, 7.1]], [0]),
        ([[0, 0, 10, 10], [0, 0, 10, 6.9]], [0, 1]),
        ([[0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10]], [0, 2]),
        ([[0, 0, 10, 10], [20, 0, 30, 10]], [0, 1]),
    ],
)
def test_suppression_drops_overlaps_above_seven_tenths(
    boxes: list[list[float]], kept: list[int]
) -> None:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    assert non_maximum_suppression(array).tolist() == kept


def test_at_most_300_are_kept() -> None:
    left = np.arange(1000, dtype=np.float32)[:, None] * 20
    boxes = np.concatenate((left, left * 0, left + 10, left * 0 + 10), 1)
    assert non_maximum_suppression(boxes).tolist() == list(range(300))


SAME_PLACE: npt.NDArray[np.float32] = np.array([[0, 0, 10, 10]] * 3, np.float32)


@pytest.mark.parametrize(
    ("scores", "confidence", "classes", "kept"),
    [
        ([[0.1, 0.2], [0.2, 0.1], [0.0, 0.0]], 0.5, None, []),
        ([[0.9, 0.2], [0.1, 0.8], [0.7, 0.0]], 0.5, None, [(0, 0), (1, 1)]),
        ([[0.9, 0.2], [0.1, 0.8], [0.7, 0.0]], 0.5, {1}, [(1, 1)]),
        ([[0.5, 0.2], [0.1, 0.8], [0.6, 0.0]], 0.5, {0}, [(2, 0)]),
    ],
)
def test_classes_are_apart_and_the_threshold_is_exclusive(
    scores: list[list[float]],
    confidence: float,
    classes: set[int] | None,
    kept: list[tuple[int, int]],
) -> None:
    wanted = None if classes is None else frozenset(classes)
    found = select(SAME_PLACE, np.array(scores, np.float32), confidence, wanted)
    assert list(zip(found.rows.tolist(), found.classes.tolist(), strict=True)) == kept


@pytest.mark.parametrize("size", [(16, 16), (17, 300), (8192, 16), (16, 8192), (8192, 8192)])
@pytest.mark.parametrize("outline", Outline)
def test_any_size_gives_objects_inside_the_picture(
    size: Size, outline: Outline, tiny: TorchNetwork
) -> None:
    width, height = size
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    found = detector(tiny, outline).detect(rgb, 0.01)
    assert found
    whole = Box(0, 0, width, height)
    for one in found:
        assert one.box == one.box.clipped(size)
        assert one.box.area > 0
        assert all(whole.x0 <= x <= width and 0 <= y <= height for p in one.polygons for x, y in p)


@pytest.mark.parametrize("confidence", [0.0, 0.05, 0.3, 1.0])
def test_confidence_is_the_score_threshold(
    confidence: float, tiny: TorchNetwork, photo: Photo
) -> None:
    found = detector(tiny).detect(photo("skimage_astronaut.png"), confidence)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert all(score > confidence for score in scores)
    assert bool(scores) == (confidence < 1)


@pytest.mark.parametrize("classes", [("hand",), (1,)])
def test_only_the_classes_asked_for_are_kept(
    classes: tuple[str | int, ...], tiny: TorchNetwork, photo: Photo
) -> None:
    rgb = photo("skimage_astronaut.png")
    assert {one.label for one in detector(tiny).detect(rgb, 0.02)} == {"face", "hand"}
    found = YoloDetector("test", tiny, classes=classes).detect(rgb, 0.02)
    assert {one.label for one in found} == {"hand"}


def test_a_label_replaces_the_names_of_the_classes(tiny: TorchNetwork, photo: Photo) -> None:
    found = YoloDetector("test", tiny, label="thing").detect(photo("skimage_astronaut.png"), 0.02)
    assert {one.label for one in found} == {"thing"}


@pytest.mark.parametrize("wanted", ["foot", 2, -1])
def test_a_class_the_weights_lack_is_an_error(wanted: str | int, tiny: TorchNetwork) -> None:
    with pytest.raises(WeightsError, match=rf"mine have no class {wanted!r}.*face, hand"):
        YoloDetector("mine", tiny, classes=(wanted,))


def test_masks_of_a_network_without_any_are_an_error(
    network: Callable[[str], TorchNetwork],
) -> None:
    with pytest.raises(WeightsError, match="mine have no masks; set outline = 'box'"):
        YoloDetector("mine", network("n1"), outline=Outline.SEGMENTATION)


def test_threads_share_a_detector(tiny: TorchNetwork, photo: Photo) -> None:
    from concurrent.futures import ThreadPoolExecutor

    rgb: Any = photo("skimage_astronaut.png")
    shared = detector(tiny)
    alone = shared.detect(rgb, 0.05)
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda _: shared.detect(rgb, 0.05), range(8)))
    assert all(found == alone for found in together)
