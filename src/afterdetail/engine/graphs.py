"""UNets replayed as CUDA graphs: one launch a step instead of some thousand.

A graph is recorded for one number of rows, so forwards are filled up to a few fixed numbers, the
buckets. Where nothing can be recorded (no CUDA device) the same forward runs from the same fixed
buffers without a graph: slower, but it takes the same way.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch

from afterdetail.engine.backend import EagerBackend
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.text import added_arguments
from afterdetail.types import Size

BUCKETS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""A forward is at most half filler, and from 4 rows on at most a third."""

MOST_GRAPHS = 24
"""Graphs kept of a model, the least recently used out first. They share one memory pool."""

WARM_UP_RUNS = 3
"""Before recording: kernels are chosen and workspaces made in the first ones."""

Shape = tuple[int, ...]
Key = tuple[int, Shape, Shape, Shape | None]
"""Rows, and the shapes of one row's latents, embeddings and (of SDXL) added conditioning."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A forward from fixed input buffers to a fixed output, in the model's precision.

    ``inputs`` are latents, timesteps, embeddings and, of SDXL, the added conditioning.
    """

    inputs: tuple[torch.Tensor, ...]
    output: torch.Tensor
    replay: Callable[[], object]

    def run(self, rows: int, *inputs: torch.Tensor) -> torch.Tensor:
        """The output of the first ``rows`` rows, float32, in memory of its own."""
        for buffer, values in zip(self.inputs, inputs, strict=True):
            buffer[:rows].copy_(values, non_blocking=True)
        self.replay()
        return self.output[:rows].to(torch.float32, copy=True)


class GraphBackend:
    """Fills rows up to a bucket and replays its graph; records it at first use.

    Args:
        compiled: compile the networks with ``torch.compile`` first: a minute or more for each
            bucket, then fewer and faster kernels.
    """

    name = "graphs"
    rows_apart = False

    def __init__(self, *, compiled: bool = False) -> None:
        self._compiled = compiled
        self._eager = EagerBackend()
        self._recordings: WeakKeyDictionary[DiffusionModel, OrderedDict[Key, Recording]] = (
            WeakKeyDictionary()
        )

    def rows_on_cpu(self, model: DiffusionModel) -> int:
        """As eagerly: there is nothing to record there."""
        return self._eager.rows_on_cpu(model)

    def prepare(self, model: DiffusionModel, sizes: Iterable[Size]) -> None:
        """Nothing: a graph must be recorded by the thread that replays it."""

    def predict(
        self,
        model: DiffusionModel,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        embeddings: torch.Tensor,
        added: torch.Tensor | None = None,
    ) -> torch.Tensor:
        rows = len(latents)
        if rows > BUCKETS[-1] or model.adapted:  # graphs of every set of LoRAs would not fit
            return self._eager.predict(model, latents, timesteps, embeddings, added)
        given = (latents, timesteps, embeddings, *([] if added is None else [added]))
        shapes = tuple(latents.shape[1:]), tuple(embeddings.shape[1:])
        key = (bucket(rows), *shapes, None if added is None else tuple(added.shape[1:]))
        return self._recording(model, key).run(rows, *given)

    def _recording(self, model: DiffusionModel, key: Key) -> Recording:
        if model not in self._recordings:
            self._recordings[model] = OrderedDict()
        kept = self._recordings[model]
        if key not in kept:
            kept[key] = record(model, key, compiled=self._compiled)
        kept.move_to_end(key)
        while len(kept) > MOST_GRAPHS:
            kept.popitem(last=False)
        return kept[key]


def bucket(rows: int) -> int:
    """The smallest bucket that holds so many rows."""
    return BUCKETS[bisect_left(BUCKETS, rows)]


def record(model: DiffusionModel, key: Key, *, compiled: bool) -> Recording:
    """Run the forward until it is warm, then record it (on CUDA)."""
    inputs = _buffers(model, key)
    added = inputs[3] if len(inputs) > 3 else None
    unet = torch.compile(model.unet, dynamic=False) if compiled else model.unet
    dtype, refiner = model.dtype, model.is_refiner  # the graph must not keep the model alive

    def forward() -> torch.Tensor:
        prediction: torch.Tensor = unet(
            inputs[0],
            inputs[1],
            encoder_hidden_states=inputs[2],
            added_cond_kwargs=added_arguments(added, dtype, refiner=refiner),
            return_dict=False,
        )[0]
        return prediction

    if model.device.type != "cuda":
        output = forward()
        return Recording(inputs, output, lambda: output.copy_(forward()))
    return _record_cuda(inputs, forward)


def _buffers(model: DiffusionModel, key: Key) -> tuple[torch.Tensor, ...]:
    """Zeros; the added conditioning in float32, as its numbers are pixels."""
    rows, latents, embeddings, added = key
    device, dtype = model.device, model.dtype
    buffers = [
        torch.zeros(rows, *latents, device=device, dtype=dtype).to(
            memory_format=torch.channels_last
        ),
        torch.zeros(rows, device=device),
        torch.zeros(rows, *embeddings, device=device, dtype=dtype),
    ]
    if added is not None:
        buffers.append(torch.zeros(rows, *added, device=device))
    return tuple(buffers)


def _record_cuda(
    inputs: tuple[torch.Tensor, ...], forward: Callable[[], torch.Tensor]
) -> Recording:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_RUNS):
            forward()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # By default other threads, which load models, would fail while this one records.
    with torch.cuda.graph(graph, pool=_pool(), capture_error_mode="thread_local"):
        output = forward()
    return Recording(inputs, output, graph.replay)


@cache  # of one entry
def _pool() -> Any:
    """One memory pool for all graphs: they are replayed one after the other, never at once."""
    return torch.cuda.graph_pool_handle()
