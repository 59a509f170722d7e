"""Reads ``.safetensors`` files into memory of one's own.

The safetensors library maps the file: each page of it is then fetched by a fault, and copied again
to be owned. Here every tensor is read at once to where it stays. The layout: eight bytes that tell
the length of a JSON header, the header (of each tensor its type, shape and place), the data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afterdetail.errors import WeightsError

MAX_HEADER = 100_000_000
"""Bytes: the format's own limit."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor in the header; ``begin`` and ``end`` are bytes of the file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read_tensors(
    file: Path,
    dtype: torch.dtype | None = None,
    wanted: Callable[[str], bool] = lambda _: True,
) -> dict[str, torch.Tensor]:
    """The tensors of a file by name, on the CPU; no memory is shared with the file.

    Args:
        dtype: what floating-point tensors are converted to, one after the other: beside the result
            there is never more than one tensor in memory. None leaves them as they are.
        wanted: which to read, by name.

    Raises:
        WeightsError: the file is damaged or not whole.
    """
    try:
        with file.open("rb", buffering=0) as stream:
            return {
                entry.name: _converted(_read(stream, entry), dtype)
                for entry in _entries(stream)
                if wanted(entry.name)
            }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{file} is damaged or not whole ({' '.join(str(error).split())[:200]}); "
            "download it again"
        ) from error


def _entries(stream: FileIO) -> list[Entry]:
    """The tensors in the order of the data."""
    length = int.from_bytes(stream.read(8), "little")
    if length > MAX_HEADER:
        raise ValueError("it has no header")
    header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    found = [_entry(name, told, 8 + length) for name, told in header.items()]
    return sorted(found, key=lambda entry: entry.begin)


def _entry(name: str, told: Mapping[str, Any], start: int) -> Entry:
    dtype, shape = DTYPES[told["dtype"]], tuple(told["shape"])
    begin, end = told["data_offsets"]
    if min(shape, default=0) < 0 or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError("a tensor's size does not fit its shape")
    return Entry(name, dtype, shape, start + begin, start + end)


def _read(stream: FileIO, entry: Entry) -> torch.Tensor:
    if entry.begin == entry.end:
        return torch.empty(entry.shape, dtype=entry.dtype)
    # numpy asks the system for large pages, torch does not: a tenth of the page faults.
    memory = np.empty(entry.end - entry.begin, np.uint8)
    stream.seek(entry.begin)
    _fill(stream, memory.data)
    return torch.from_numpy(memory).view(entry.dtype).reshape(entry.shape)


def _fill(stream: FileIO, memory: memoryview) -> None:
    while memory:
        count = stream.readinto(memory)
        if not count:
            raise ValueError("it ends too early")
        memory = memory[count:]


def _converted(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)
