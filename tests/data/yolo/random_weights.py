"""Pseudo-random YOLOv8 weights: the same numbers in the recipe of the goldens and in the tests.

They stand for trained weights, which are too large to commit. The scale of each tensor keeps
activations near one through the whole network, and the head's biases let a few dozen cells fire.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[np.float16]]
Shape = tuple[int, ...]

SCALES = {"n": (1, 0.25, 1024), "s": (1, 0.5, 1024), "m": (2, 0.75, 768), "tiny": (1, 0.0625, 512)}
"""Bottlenecks to three of the published ones, width, most channels: of ``yolov8.yaml``."""
BINS, PROTOTYPES = 16, 32


@dataclass(frozen=True)
class Spread:
    """How far weights of one scale spread, chosen by trial."""

    layers: float
    boxes: float
    scores: float
    score_bias: float


SPREADS = {
    "n": Spread(1.85, 1.0, 0.6, -4.5),
    "s": Spread(1.85, 1.0, 0.6, -5.0),
    "m": Spread(1.75, 1.5, 0.6, -6.0),
    "tiny": Spread(1.91, 2.0, 1.5, -5.0),
}


def random_state(scale: str, classes: int, *, masks: bool, seed: int = 1) -> Arrays:
    """The state dict of a YOLOv8 network in float16, batch norms apart."""
    return {
        name: _random(name, shape, seed, SPREADS[scale]).astype(np.float16)
        for name, shape in shapes(scale, classes, masks=masks)
    }


def shapes(scale: str, classes: int, *, masks: bool) -> Iterator[tuple[str, Shape]]:
    """Name and shape of every floating-point tensor of the state dict, in no special order."""
    depth, width, most = SCALES[scale]
    a, b, c, d, e = (int(min(n, most) * width) for n in (64, 128, 256, 512, 1024))
    for layer, (inputs, outputs) in enumerate([(3, a), (a, b)]):
        yield from _conv(f"model.{layer}", inputs, outputs, 3)
    for layer, inputs, outputs in [(3, b, c), (5, c, d), (7, d, e), (16, c, c), (19, d, d)]:
        yield from _conv(f"model.{layer}", inputs, outputs, 3)
    for layer, inputs, outputs, repeats in [
        (2, b, b, depth),
        (4, c, c, 2 * depth),
        (6, d, d, 2 * depth),
        (8, e, e, depth),
        (12, d + e, d, depth),
        (15, c + d, c, depth),
        (18, c + d, d, depth),
        (21, d + e, e, depth),
    ]:
        yield from _c2f(f"model.{layer}", inputs, outputs, repeats)
    yield from _conv("model.9.cv1", e, e // 2, 1)
    yield from _conv("model.9.cv2", 2 * e, e, 1)
    yield from _head("model.22", (c, d, e), classes, masks)


def _head(name: str, levels: Shape, classes: int, masks: bool) -> Iterator[tuple[str, Shape]]:
    first = levels[0]
    box, score = max(16, first // 4, 4 * BINS), max(first, min(classes, 100))
    branches = {"cv2": (box, 4 * BINS), "cv3": (score, classes)}
    if masks:
        branches["cv4"] = (max(first // 4, PROTOTYPES), PROTOTYPES)
        hidden = first
        yield from _conv(f"{name}.proto.cv1", first, hidden, 3)
        yield f"{name}.proto.upsample.weight", (hidden, hidden, 2, 2)
        yield f"{name}.proto.upsample.bias", (hidden,)
        yield from _conv(f"{name}.proto.cv2", hidden, hidden, 3)
        yield from _conv(f"{name}.proto.cv3", hidden, PROTOTYPES, 1)
    for branch, (hidden, outputs) in branches.items():
        for level, inputs in enumerate(levels):
            yield from _conv(f"{name}.{branch}.{level}.0", inputs, hidden, 3)
            yield from _conv(f"{name}.{branch}.{level}.1", hidden, hidden, 3)
            yield f"{name}.{branch}.{level}.2.weight", (outputs, hidden, 1, 1)
            yield f"{name}.{branch}.{level}.2.bias", (outputs,)


def _c2f(name: str, inputs: int, outputs: int, repeats: int) -> Iterator[tuple[str, Shape]]:
    half = outputs // 2
    yield from _conv(f"{name}.cv1", inputs, outputs, 1)
    yield from _conv(f"{name}.cv2", (2 + repeats) * half, outputs, 1)
    for block in range(repeats):
        yield from _conv(f"{name}.m.{block}.cv1", half, half, 3)
        yield from _conv(f"{name}.m.{block}.cv2", half, half, 3)


def _conv(name: str, inputs: int, outputs: int, size: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.conv.weight", (outputs, inputs, size, size)
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.bn.{part}", (outputs,)


def _random(name: str, shape: Shape, seed: int, spread: Spread) -> npt.NDArray[np.float64]:
    """Each tensor from a generator of its own; ``RandomState`` keeps its numbers for good."""
    random = np.random.RandomState(zlib.crc32(f"{seed}/{name}".encode()))
    normal: npt.NDArray[np.float64] = random.standard_normal(shape)
    if name.endswith((".running_var", ".bn.weight")):
        return 1 + 0.1 * np.tanh(normal)
    if len(shape) == 1:
        is_score = ".cv3." in name and name.endswith(".2.bias")
        return 0.1 * normal + (spread.score_bias if is_score else 0)
    axes = tuple(range(1, len(shape)))
    filters: npt.NDArray[np.float64] = (normal - normal.mean(axes, keepdims=True)) / np.sqrt(
        np.prod(shape[1:])
    )
    last = {"cv2": spread.boxes, "cv3": spread.scores}
    branch = name.split(".")[2] if name.endswith(".2.weight") else ""
    return last.get(branch, spread.layers) * filters
