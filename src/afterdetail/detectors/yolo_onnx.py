"""YOLOv8 networks exported to ONNX, on onnxruntime (the extra ``afterdetail[onnx]``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from afterdetail.detectors.yolo_boxes import Predictions, corners
from afterdetail.detectors.yolo_network import STRIDES
from afterdetail.detectors.yolo_weights import checked_names, parse_names
from afterdetail.errors import ModelUnavailable, WeightsError
from afterdetail.types import RGB, Size

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxNetwork:
    """An exported network; thread-safe.

    Raises:
        ModelUnavailable: onnxruntime is not installed.
        WeightsError: the file is damaged, or has not the inputs and outputs of YOLOv8.
    """

    def __init__(self, path: Path) -> None:
        self._session = _open(path)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or inputs[0].type not in TYPES or not outputs:
            raise _not_yolo(path)
        self._input: str = inputs[0].name
        self._type = TYPES[inputs[0].type]
        self.segments = len(outputs) > 1
        self.input_size: Size | None = None
        if isinstance(shape[2], int) and isinstance(shape[3], int):
            self.input_size = (shape[3], shape[2])
        metadata = self._session.get_modelmeta().custom_metadata_map
        channels = self._channels(path)
        names = parse_names(metadata.get("names"))
        self.class_names = checked_names(path, names, channels)

    def __call__(self, picture: RGB, confidence: float) -> Predictions:
        """See :class:`~afterdetail.detectors.yolo.Network`."""
        batch = picture.transpose(2, 0, 1)[None].astype(np.float32) / 255
        first, *rest = self._session.run(None, {self._input: batch.astype(self._type)})
        rows = first[0].T.astype(np.float32)
        classes = len(self.class_names)
        rows = rows[rows[:, 4 : 4 + classes].max(1) > confidence]
        return Predictions(
            boxes=corners(rows[:, :4]),
            scores=rows[:, 4 : 4 + classes],
            coefficients=rows[:, 4 + classes :] if self.segments else None,
            prototypes=rest[0][0].astype(np.float32) if self.segments else None,
        )

    def _channels(self, path: Path) -> int:
        """The number of classes, from a run on a grey picture: shapes may be symbols."""
        width, height = self.input_size or (32, 32)
        grey = np.full((1, 3, height, width), 0.5, self._type)
        try:
            outputs = self._session.run(None, {self._input: grey})
        except Exception as error:  # onnxruntime's errors have no common base
            raise _not_yolo(path) from error
        cells = sum((height // stride) * (width // stride) for stride in STRIDES)
        prototypes = outputs[1].shape[1] if self.segments else 0
        classes = outputs[0].shape[1] - 4 - prototypes if outputs[0].ndim == 3 else 0
        if classes < 1 or outputs[0].shape[2] != cells:
            raise _not_yolo(path)
        return int(classes)


def _open(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ModelUnavailable(
            f"{path} needs onnxruntime; get it with: pip install 'afterdetail[onnx]'",
            public="this detector is not on this server",
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        raise WeightsError(f"{path} is truncated or no ONNX network") from error


def _not_yolo(path: Path) -> WeightsError:
    return WeightsError(f"{path} is not a YOLOv8 detection or segmentation network")
