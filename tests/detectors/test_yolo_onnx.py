"""Exported networks. The test's own one sees how red, green and blue a picture is, everywhere."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from afterdetail.detectors.yolo import YoloDetector, open_network
from afterdetail.errors import ModelUnavailable, WeightsError
from afterdetail.models.catalogue import Outline
from afterdetail.types import RGB, Box

CELLS = 64 + 16 + 4
NAMES = "{0: 'red', 1: 'green', 2: 'blue'}"


# ONNX files are protobuf messages; these few lines write what a test needs of them.


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def node(op: str, inputs: Sequence[str], output: str, **attributes: int | list[int]) -> bytes:
    message = b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, op)
    for name, value in attributes.items():
        if isinstance(value, int):
            attribute = field(1, name) + field(3, value) + field(20, 2)
        else:
            attribute = field(1, name) + b"".join(field(8, i) for i in value) + field(20, 7)
        message += field(5, attribute)
    return field(1, message)


def constant(name: str, shape: Sequence[int], numbers: Sequence[float]) -> bytes:
    data = struct.pack(f"<{len(numbers)}f", *numbers)
    dims = b"".join(field(1, dim) for dim in shape)
    return field(5, dims + field(2, 1) + field(8, name) + field(9, data))


def value(name: str, shape: Sequence[int | str]) -> bytes:
    dims = (field(1 if isinstance(dim, int) else 2, dim) for dim in shape)
    tensor = field(1, 1) + field(2, b"".join(field(1, dim) for dim in dims))
    return field(1, name) + field(2, field(1, tensor))


def onnx_file(
    path: Path, *, names: str | None = NAMES, masks: bool = False, cells: int = CELLS
) -> Path:
    """Three classes, scored by the mean of red, green and blue; all boxes in the middle.

    Of the masks, the left half of the input is inside.
    """
    boxes = [32.0] * (2 * cells) + [20.0] * cells + [10.0] * cells
    graph = constant("boxes", (1, 4, cells), boxes)
    graph += constant("ones", (1, 3, cells), [1.0] * 3 * cells)
    graph += node("ReduceMean", ["images"], "rows", axes=[3], keepdims=0)
    graph += node("ReduceMean", ["rows"], "means", axes=[2], keepdims=1)
    graph += node("Mul", ["means", "ones"], "scores")
    parts = ["boxes", "scores"]
    if masks:
        graph += constant("coefficients", (1, 1, cells), [1.0] * cells)
        graph += constant("left", (1, 1, 16, 16), ([1.0] * 8 + [-1.0] * 8) * 16)
        graph += node("Identity", ["left"], "output1") + field(12, value("output1", (1, 1, 16, 16)))
        parts.append("coefficients")
    graph += node("Concat", parts, "output0", axis=1)
    graph += field(2, "test") + field(11, value("images", (1, 3, 64, 64)))
    outputs = field(12, value("output0", (1, 4 + 3 + masks, cells)))
    model = field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, outputs + graph)
    if names is not None:
        model += field(14, field(1, "names") + field(2, names))
    path.write_bytes(model)
    return path


def plain(red: int, green: int, blue: int) -> RGB:
    return np.full((32, 128, 3), (red, green, blue), np.uint8)


@pytest.mark.parametrize(
    ("rgb", "label"),
    [(plain(255, 0, 0), "red"), (plain(0, 255, 0), "green"), (plain(0, 0, 255), "blue")],
)
def test_the_network_sees_rgb_from_0_to_1(rgb: RGB, label: str, tmp_path: Path) -> None:
    found = YoloDetector("test", open_network(onnx_file(tmp_path / "a.onnx"))).detect(rgb)
    grey = 114 / 255
    assert [one.label for one in found] == [label]
    assert found[0].score == pytest.approx((1 * 16 + grey * 48) / 64, abs=1e-5)


def test_a_fixed_input_size_is_kept(tmp_path: Path) -> None:
    network = open_network(onnx_file(tmp_path / "a.onnx"))
    assert network.input_size == (64, 64)
    assert network.class_names == ("red", "green", "blue")
    (found,) = YoloDetector("test", network).detect(plain(255, 0, 0))
    assert found.box == Box(44, 6, 84, 26)


def test_masks_become_outlines(tmp_path: Path) -> None:
    network = open_network(onnx_file(tmp_path / "a.onnx", masks=True))
    (found,) = YoloDetector("test", network, outline=Outline.SEGMENTATION).detect(plain(255, 0, 0))
    (outline,) = found.polygons
    assert max(x for x, _ in outline) == pytest.approx(62, abs=2)
    assert min(x for x, _ in outline) == pytest.approx(44, abs=2)


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    network = open_network(onnx_file(tmp_path / "a.onnx", names=None))
    assert network.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("names", "cells", "message"),
    [
        ("{0: 'red'}", CELLS, "names 1 classes, but its network has 3"),
        (NAMES, 300, "is not a YOLOv8 detection or segmentation network"),
    ],
)
def test_other_networks_are_refused(names: str, cells: int, message: str, tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "other.onnx", names=names, cells=cells)
    with pytest.raises(WeightsError, match=rf"other\.onnx {message}"):
        open_network(path)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(WeightsError, match=r"a\.onnx is truncated or no ONNX network"):
        open_network(path)


def test_without_onnxruntime_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = onnx_file(tmp_path / "a.onnx")
    with pytest.raises(ModelUnavailable, match=r"pip install 'afterdetail\[onnx\]'") as error:
        open_network(path)
    assert str(tmp_path) not in error.value.public
