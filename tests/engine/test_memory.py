from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Module

from afterdetail.engine import memory
from afterdetail.models.diffusion import DiffusionModel

GB = 10**9


@pytest.mark.parametrize(
    ("peaks", "free", "expected"),
    [
        pytest.param({}, 80 * GB, 2, id="not even one row fits: try a guided job all the same"),
        pytest.param({1: GB}, 80 * GB, 1, id="two rows did not fit"),
        pytest.param({1: GB, 2: 2 * GB, 4: 4 * GB}, 20 * GB, 16, id="a straight line"),
        pytest.param({1: 5 * GB, 2: 6 * GB, 4: 8 * GB}, 20 * GB, 12, id="with a fixed part"),
        pytest.param({1: 1, 2: 1, 4: 1}, 80 * GB, memory.MOST_ROWS, id="never above the most"),
    ],
)
def test_the_limit_is_on_the_line_of_the_measured_peaks(
    peaks: dict[int, int], free: int, expected: int
) -> None:
    assert memory.extrapolate(peaks, free) == expected


def test_measuring_stops_where_memory_ends() -> None:
    def peak(rows: int) -> int:
        if rows > 2:
            raise torch.OutOfMemoryError
        return rows * GB

    assert memory.measure(peak) == {1: GB, 2: 2 * GB}


@pytest.mark.parametrize(
    ("free", "size", "expected"),
    [(20 * GB, (128, 128), 6), (0, (128, 128), 2), (GB, (2048, 1536), 2)],
)
def test_a_cpu_is_bounded_by_what_is_free_and_by_what_helps(
    tiny: DiffusionModel,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    size: tuple[int, int],
    expected: int,
) -> None:
    monkeypatch.setattr(memory, "_available", lambda: free)
    assert memory.row_limit(tiny, size, on_cpu=6) == expected


def test_sixteen_bit_takes_half_the_room(
    tiny: DiffusionModel, tiny_in: Callable[[torch.dtype], DiffusionModel]
) -> None:
    half = replace(tiny_in(torch.bfloat16))
    size = (512, 512)
    assert memory._estimate(tiny, size) == 2 * memory._estimate(half, size)


def test_a_dry_run_is_a_whole_forward(tiny: DiffusionModel) -> None:
    seen: list[list[tuple[int, ...]]] = []

    def note(_: Module, given: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        seen.append([tuple(tensor.shape) for tensor in (*given, named["encoder_hidden_states"])])

    hook = tiny.unet.register_forward_pre_hook(note, with_kwargs=True)
    try:
        memory.dry_run(tiny, (64, 32), 2)
    finally:
        hook.remove()
    side, width = tiny.latent_factor, int(tiny.unet.config.cross_attention_dim)
    assert seen == [[(2, 4, 32 // side, 64 // side), (2,), (2, memory.TOKENS, width)]]
