"""Shipped weights, and interpreters shared by threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from afterdetail.detectors import litert
from afterdetail.detectors.litert import CHECKSUMS, WEIGHTS, load_network, read_weights
from afterdetail.errors import WeightsError

MESH = "face_landmark.tflite"
NETWORKS = sorted(path.name for path in WEIGHTS.glob("*.tflite"))


def test_four_networks_are_shipped() -> None:
    assert len(NETWORKS) == 4


@pytest.mark.parametrize("file", NETWORKS)
def test_shipped_weights_are_those_of_the_checksums(file: str) -> None:
    assert read_weights(WEIGHTS, file) == (WEIGHTS / file).read_bytes()


def test_a_network_is_loaded_once() -> None:
    assert load_network(MESH) is load_network(MESH)


@pytest.mark.parametrize(
    ("weights", "checksums", "message"),
    [
        (None, "", "cannot read .*face.tflite"),
        (b"network", None, "cannot read .*SHA256SUMS"),
        (b"network", "", "damaged"),
        (b"netw", "0a1b2c3d  face.tflite", "damaged"),
    ],
    ids=["no weights", "no checksums", "not in the checksums", "truncated"],
)
def test_bad_weights_are_one_error_that_names_the_file_and_the_remedy(
    tmp_path: Path, weights: bytes | None, checksums: str | None, message: str
) -> None:
    if weights is not None:
        (tmp_path / "face.tflite").write_bytes(weights)
    if checksums is not None:
        (tmp_path / CHECKSUMS).write_text(checksums, encoding="utf-8")
    with pytest.raises(WeightsError, match=f"{message}.*; reinstall afterdetail") as caught:
        read_weights(tmp_path, "face.tflite")
    assert str(tmp_path) not in caught.value.public


def test_many_threads_share_few_interpreters_and_get_their_own_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    class Counted(litert._Interpreter):
        def __init__(self, weights: bytes) -> None:
            made.append(self)
            super().__init__(weights)

    monkeypatch.setattr(litert, "_Interpreter", Counted)
    network = litert.Network(read_weights(WEIGHTS, MESH))
    random = np.random.default_rng(0)
    inputs = [random.random((192, 192, 3), dtype=np.float32) for _ in range(24)]
    alone = [network(tensor) for tensor in inputs]
    with ThreadPoolExecutor(12) as threads:
        together = list(threads.map(network, inputs))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    assert 1 <= len(made) <= litert.INTERPRETERS


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_map_keeps_the_order(monkeypatch: pytest.MonkeyPatch, count: int, threads: int) -> None:
    monkeypatch.setattr(litert, "THREADS", threads)
    network = litert.Network(read_weights(WEIGHTS, MESH))
    inputs = [np.full((192, 192, 3), shade / 5, dtype=np.float32) for shade in range(count)]
    mapped = network.map([lambda tensor=tensor: tensor for tensor in inputs])  # type: ignore[misc]
    assert len(mapped) == count
    for tensor, outputs in zip(inputs, mapped, strict=True):
        np.testing.assert_array_equal(outputs[0], network(tensor)[0])
