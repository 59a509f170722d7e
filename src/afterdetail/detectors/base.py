"""What every detector is."""

from __future__ import annotations

from typing import Protocol

from afterdetail.types import RGB, Detection

DEFAULT_CONFIDENCE = 0.3
"""The endpoint's default: here each detector finds exactly what its reference finds."""


class Detector(Protocol):
    """Finds one kind of object in a picture. Thread-safe: requests share it."""

    @property
    def name(self) -> str:
        """The name requests know it by."""

    def detect(self, rgb: RGB, confidence: float = DEFAULT_CONFIDENCE) -> list[Detection]:
        """Find the objects in ``rgb``, best first; boxes lie inside the picture.

        ``confidence`` is 0..1: lower finds more.
        """


def score_threshold(floor: float, confidence: float) -> float:
    """The score from which a MediaPipe detector keeps a box.

    The reference ignores the confidence asked for and cuts at its graph's own ``floor``; so does
    this at the default. Below the default the floor sinks in proportion, above it the confidence
    itself counts as soon as it is the higher of the two.
    """
    if confidence < DEFAULT_CONFIDENCE:
        return floor * confidence / DEFAULT_CONFIDENCE
    return max(floor, confidence)
