"""The YOLOv8 network in plain torch: detection and segmentation, any scale, any class count.

The layers and their names are those of the published ``yolov8.yaml`` and ``yolov8-seg.yaml``, so
that ``model.9.cv1.conv.weight`` is what it is in every other implementation. Depth, width, classes
and head are read off the weights. Each convolution has its batch norm folded in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afterdetail.errors import WeightsError

BATCH_NORM_EPS = 1e-3
"""What YOLOv8 is trained with; it is not in the weights."""
STRIDES = (8, 16, 32)
"""Pixels of the picture to a cell, of the three levels of the head."""
HALO = 2
"""Cells that a branch of the head looks beyond its own: two 3x3 convolutions."""


@dataclass(frozen=True, slots=True)
class RawHeads:
    """What the head's convolutions give for N cells, before any activation; level by level."""

    boxes: Tensor
    """(4 * bins, N): distribution of the distances left, top, right, bottom."""
    scores: Tensor
    """(classes, N): logits."""
    coefficients: Tensor | None
    """(prototypes, N), of segmentation networks."""
    centres: Tensor
    """(2, N): x and y of each cell's centre, in cells."""
    strides: Tensor
    """(N,): pixels to a cell."""
    prototypes: Tensor | None
    """(prototypes, H / 4, W / 4), of segmentation networks where there are cells."""


class Weights:
    """Named tensors that layers take their own from; what is left at the end was not YOLOv8."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def take(self, name: str) -> Tensor:
        self.shape(name)
        return self._tensors.pop(name)

    def shape(self, name: str) -> torch.Size:
        if name not in self._tensors:
            raise WeightsError(f"no {name}")
        return self._tensors[name].shape

    def count(self, prefix: str) -> int:
        """How many numbered layers there are under a name."""
        inside = (name for name in self._tensors if name.startswith(f"{prefix}."))
        return len({name.removeprefix(f"{prefix}.").split(".")[0] for name in inside})

    def names(self) -> list[str]:
        return list(self._tensors)


def fold_batch_norms(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float32 weights with each ``X.bn`` folded into the convolution ``X.conv`` before it."""
    folded = {
        name: tensor.to(torch.float32)
        for name, tensor in tensors.items()
        if ".bn." not in name and ".dfl." not in name
    }
    for name in tensors:
        if not name.endswith(".bn.weight"):
            continue
        layer = name.removesuffix(".bn.weight")
        bn = {
            part: tensors[f"{layer}.bn.{part}"].to(torch.float32)
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        gain = bn["weight"] / torch.sqrt(bn["running_var"] + BATCH_NORM_EPS)
        folded[f"{layer}.conv.weight"] = folded[f"{layer}.conv.weight"] * gain[:, None, None, None]
        folded[f"{layer}.conv.bias"] = bn["bias"] - bn["running_mean"] * gain
    return folded


class Pointwise(nn.Module):
    """A 1x1 convolution as a matrix product: with channels last there is nothing to copy.

    PyTorch's own would gather and scatter the channels when it runs on one thread.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.flatten(1))
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)


def _conv2d(weights: Weights, name: str, stride: int = 1) -> nn.Module:
    weight, bias = weights.take(f"{name}.weight"), weights.take(f"{name}.bias")
    outputs, inputs, size, _ = weight.shape
    if size == 1:
        return Pointwise(weight, bias)
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, device="meta")
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    return conv


class Conv(nn.Module):
    """Convolution (with its batch norm) and SiLU."""

    def __init__(self, weights: Weights, name: str, stride: int = 1) -> None:
        super().__init__()
        self.conv = _conv2d(weights, f"{name}.conv", stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv(x), inplace=True)


class Bottleneck(nn.Module):
    def __init__(self, weights: Weights, name: str, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(weights, f"{name}.cv1")
        self.cv2 = Conv(weights, f"{name}.cv2")
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv2(self.cv1(x))
        return y.add_(x) if self.shortcut else y


class C2f(nn.Module):
    """Cross-stage block: one half passes by, the other through bottlenecks, all are joined."""

    def __init__(self, weights: Weights, name: str, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(weights, f"{name}.cv1")
        self.m = nn.ModuleList(
            Bottleneck(weights, f"{name}.m.{i}", shortcut)
            for i in range(weights.count(f"{name}.m"))
        )
        self.cv2 = Conv(weights, f"{name}.cv2")

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            parts.append(block(parts[-1]))
        y: Tensor = self.cv2(torch.cat(parts, 1))
        return y


class SPPF(nn.Module):
    """Three max pools of 5 in a row: as pools of 5, 9 and 13."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.cv1 = Conv(weights, f"{name}.cv1")
        self.cv2 = Conv(weights, f"{name}.cv2")

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, stride=1, padding=2))
        y: Tensor = self.cv2(torch.cat(parts, 1))
        return y


def _branches(weights: Weights, name: str) -> nn.ModuleList:
    """One branch of the head: two convolutions and a linear one, for each level."""
    return nn.ModuleList(
        nn.Sequential(
            Conv(weights, f"{name}.{level}.0"),
            Conv(weights, f"{name}.{level}.1"),
            _conv2d(weights, f"{name}.{level}.2"),
        )
        for level in range(len(STRIDES))
    )


class Prototypes(nn.Module):
    """The masks that a segmentation network mixes, at a quarter of the picture's size."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.cv1 = Conv(weights, f"{name}.cv1")
        self.cv2 = Conv(weights, f"{name}.cv2")
        self.cv3 = Conv(weights, f"{name}.cv3")
        kernel = weights.take(f"{name}.upsample.weight")
        self.upsample = nn.ConvTranspose2d(kernel.shape[0], kernel.shape[1], 2, 2, device="meta")
        self.upsample.weight = nn.Parameter(kernel)
        self.upsample.bias = nn.Parameter(weights.take(f"{name}.upsample.bias"))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv3(self.cv2(self.upsample(self.cv1(x))))
        return y


class Head(nn.Module):
    """Scores every cell, and the rest only where a score may count."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.cv2 = _branches(weights, f"{name}.cv2")
        self.classes = int(weights.shape(f"{name}.cv3.0.2.weight")[0])
        self.cv3 = _branches(weights, f"{name}.cv3")
        self.segments = weights.count(f"{name}.proto") > 0
        if self.segments:
            self.cv4 = _branches(weights, f"{name}.cv4")
            self.proto = Prototypes(weights, f"{name}.proto")

    def forward(self, levels: list[Tensor], logit: float) -> RawHeads:
        parts = [self._level(number, level, logit) for number, level in enumerate(levels)]
        boxes, scores, coefficients, centres, strides = (
            torch.cat(part, -1) for part in zip(*parts, strict=True)
        )
        masks = self.segments and strides.numel() > 0
        return RawHeads(
            boxes,
            scores,
            coefficients if self.segments else None,
            centres,
            strides,
            prototypes=self.proto(levels[0])[0] if masks else None,
        )

    def _level(self, number: int, level: Tensor, logit: float) -> tuple[Tensor, ...]:
        """Boxes, scores, coefficients, centres and strides of one level's cells above a logit."""
        scores = self.cv3[number](level)[0]
        rows, columns = (scores.amax(0) > logit).nonzero(as_tuple=True)
        return (
            _at(self.cv2[number], level, rows, columns),
            scores[:, rows, columns],
            _at(self.cv4[number], level, rows, columns) if self.segments else level.new_empty(0),
            torch.stack((columns, rows)) + 0.5,
            torch.full_like(rows, STRIDES[number]),
        )


def _at(branch: nn.Module, level: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """A branch's outputs (channels, N) at N cells, run on no more than the window around them."""
    if not rows.numel():
        return level.new_empty(branch.get_parameter("2.weight").shape[0], 0)
    top, left = max(int(rows.min()) - HALO, 0), max(int(columns.min()) - HALO, 0)
    bottom, right = int(rows.max()) + HALO + 1, int(columns.max()) + HALO + 1
    window: Tensor = branch(level[:, :, top:bottom, left:right])
    return window[0][:, rows - top, columns - left]


class YoloNetwork(nn.Module):
    """The whole network.

    Args:
        tensors: float32 weights by their published names, batch norms folded.

    Raises:
        WeightsError: the weights are not those of a YOLOv8 network.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        weights = Weights(tensors)
        down = {0, 1, 3, 5, 7, 16, 19}
        backbone, neck = {2, 4, 6, 8}, {12, 15, 18, 21}
        layers: dict[str, nn.Module] = {str(i): Conv(weights, f"model.{i}", 2) for i in down}
        layers |= {str(i): C2f(weights, f"model.{i}", shortcut=True) for i in backbone}
        layers |= {str(i): C2f(weights, f"model.{i}", shortcut=False) for i in neck}
        layers["9"] = SPPF(weights, "model.9")
        layers["22"] = Head(weights, "model.22")
        if weights.names():
            raise WeightsError(f"unexpected {weights.names()[0]}")
        self.model = nn.ModuleDict(layers)

    @property
    def classes(self) -> int:
        return self._head.classes

    @property
    def segments(self) -> bool:
        return self._head.segments

    @property
    def _head(self) -> Head:
        head = self.model["22"]
        assert isinstance(head, Head)
        return head

    def _run(self, x: Tensor, *layers: int) -> Tensor:
        for i in layers:
            x = self.model[str(i)](x)
        return x

    def forward(self, x: Tensor, logit: float = -math.inf) -> RawHeads:
        """The cells of a picture that score above a logit in any class.

        ``x`` is one RGB picture (1, 3, H, W), 0..1, sides multiples of 32.
        """
        p3 = self._run(x, 0, 1, 2, 3, 4)
        p4 = self._run(p3, 5, 6)
        p5 = self._run(p4, 7, 8, 9)
        n4 = self._run(_upsampled_onto(p5, p4), 12)
        out3 = self._run(_upsampled_onto(n4, p3), 15)
        out4 = self._run(torch.cat((self._run(out3, 16), n4), 1), 18)
        out5 = self._run(torch.cat((self._run(out4, 19), p5), 1), 21)
        heads: RawHeads = self._head([out3, out4, out5], logit)
        return heads


def _upsampled_onto(coarse: Tensor, fine: Tensor) -> Tensor:
    return torch.cat((F.interpolate(coarse, scale_factor=2.0, mode="nearest"), fine), 1)


def decode_boxes(heads: RawHeads) -> Tensor:
    """Boxes (4, N) in pixels of the network's input: centre x, centre y, width, height.

    The distances from a cell's centre to the four sides, in cells, are the expectations of the
    distributions (Distribution Focal Loss, arXiv:2006.04388).
    """
    bins = heads.boxes.shape[0] // 4
    numbers = torch.arange(bins, dtype=heads.boxes.dtype)
    distances = (heads.boxes.view(4, bins, -1).softmax(1) * numbers[:, None]).sum(1)
    near, far = heads.centres - distances[:2], heads.centres + distances[2:]
    return torch.cat(((near + far) / 2, far - near)) * heads.strides
