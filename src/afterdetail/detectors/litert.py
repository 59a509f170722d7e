"""TensorFlow Lite networks on LiteRT, from the weights this package ships."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from afterdetail.errors import WeightsError

Tensor: TypeAlias = npt.NDArray[np.float32]

WEIGHTS = Path(__file__).with_name("weights")
CHECKSUMS = "SHA256SUMS"
CORES = os.cpu_count() or 1
INTERPRETERS = max(2, min(8, CORES))
"""How many forwards of one network may run at once, in all requests together."""
THREADS = max(1, min(4, CORES // 2))
"""How many of them may serve one picture."""


class Network:
    """One network behind a pool of at most ``INTERPRETERS``, made when first needed.

    An interpreter holds its own activations and must not be shared while it runs. It gives up the
    interpreter lock of Python meanwhile, so that forwards on several threads do run side by side.
    """

    def __init__(self, weights: bytes) -> None:
        self._weights = weights
        self._idle: SimpleQueue[_Interpreter] = SimpleQueue()
        self._slots = BoundedSemaphore(INTERPRETERS)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="litert")

    def __call__(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Run one input, float32 ``(H, W, 3)``; returns every output without its batch axis."""
        with self._slots:
            interpreter = self._take()
            try:
                return interpreter.run(tensor)
            finally:
                self._idle.put(interpreter)

    def map(self, inputs: Sequence[Callable[[], Tensor]]) -> list[tuple[Tensor, ...]]:
        """Make and run several inputs, side by side where cores allow; outputs in their order.

        Not as one batch: LiteRT can, to the same bits, but a face of a batch of four costs a fifth
        more than one alone, whose activations stay in the cache.
        """
        if THREADS == 1 or len(inputs) < 2:
            return [self(make()) for make in inputs]
        return list(self._threads.map(lambda make: self(make()), inputs))

    def _take(self) -> _Interpreter:
        try:
            return self._idle.get_nowait()
        except Empty:
            return _Interpreter(self._weights)


class _Interpreter:
    """One LiteRT interpreter, single-threaded."""

    def __init__(self, weights: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._run = Interpreter(model_content=weights, num_threads=1)
        self._run.allocate_tensors()
        self._input: int = self._run.get_input_details()[0]["index"]
        self._outputs: list[int] = [item["index"] for item in self._run.get_output_details()]

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        self._run.set_tensor(self._input, tensor[None])
        self._run.invoke()
        return tuple(self._run.get_tensor(index)[0] for index in self._outputs)


@cache
def load_network(file: str) -> Network:
    """The network of a shipped weights file, loaded once per process.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    return Network(read_weights(WEIGHTS, file))


def read_weights(folder: Path, file: str) -> bytes:
    """The bytes of a weights file, held to the checksum that ``SHA256SUMS`` beside it gives.

    Raises:
        WeightsError: the file or its checksum is missing, or they differ.
    """
    remedy = "reinstall afterdetail"
    try:
        weights = (folder / file).read_bytes()
        lines = (folder / CHECKSUMS).read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise WeightsError(f"cannot read {error.filename}: {error.strerror}; {remedy}") from None
    checksums = {name: digest for digest, name in (line.split() for line in lines)}
    if checksums.get(file) != hashlib.sha256(weights).hexdigest():
        raise WeightsError(f"{folder / file} is damaged: its checksum is wrong; {remedy}")
    return weights
