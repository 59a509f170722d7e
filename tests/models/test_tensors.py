"""Reading safetensors files into memory of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from afterdetail.errors import WeightsError
from afterdetail.models.tensors import DTYPES, read_tensors

TENSORS = {
    "empty": torch.zeros(0),
    "scalar": torch.tensor(2.5),
    "odd": torch.arange(3, dtype=torch.uint8),  # what follows it is not aligned
    "half": torch.randn(4, 5).half(),
    "brain": torch.randn(2, 3).bfloat16(),
    "whole": torch.arange(6).reshape(2, 3),
    "flag": torch.tensor([True, False]),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file(TENSORS, path, {"some": "metadata"})
    return path


def test_a_file_without_tensors_gives_none(tmp_path: Path) -> None:
    save_file({}, tmp_path / "a.safetensors")
    assert read_tensors(tmp_path / "a.safetensors") == {}


def test_every_tensor_comes_back_bit_for_bit(file: Path) -> None:
    found = read_tensors(file)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_type_is_known(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.tensor([0, 1]).to(dtype)
    save_file({"a": tensor}, tmp_path / "a.safetensors")
    found = read_tensors(tmp_path / "a.safetensors")["a"]
    assert found.dtype == dtype
    assert torch.equal(found.float(), tensor.float())


def test_only_fractions_are_converted(file: Path) -> None:
    found = read_tensors(file, torch.float32)
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        name: torch.float32 if tensor.is_floating_point() else tensor.dtype
        for name, tensor in TENSORS.items()
    }


def test_only_what_is_wanted_is_read(file: Path) -> None:
    assert read_tensors(file, wanted=lambda name: name == "half").keys() == {"half"}


def test_the_file_may_be_replaced_afterwards(file: Path) -> None:
    found = read_tensors(file)
    file.write_bytes(bytes(file.stat().st_size))
    assert torch.equal(found["half"], TENSORS["half"])


def test_no_tensor_keeps_anothers_memory(file: Path) -> None:
    found = read_tensors(file)
    assert all(t.untyped_storage().nbytes() == t.numel() * t.itemsize for t in found.values())


def lying(shape: list[int], offsets: list[int]) -> bytes:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    header = json.dumps({"a": entry}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text that is no safetensors file at all",
        (1 << 60).to_bytes(8, "little"),
        lying([4], [0, 17]),
        lying([4, 1 << 60], [0, 1 << 64]),
        lying([-2, -2], [0, 16]),
        lying([5], [0, 20]),
        lying([4], [16, 0]),
    ],
)
def test_what_is_no_whole_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="download it again"):
        read_tensors(tmp_path / "a.safetensors")


def test_a_cut_file_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="ends too early"):
        read_tensors(file)
