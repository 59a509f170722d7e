"""Detectors by name, each loaded once per process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from afterdetail.detectors.base import Detector
from afterdetail.detectors.combine import combine, no_hurry
from afterdetail.errors import ModelUnavailable, WeightsError
from afterdetail.models.catalogue import Catalogue, Kind, ModelSpec, Outline, Source
from afterdetail.models.store import locate, remedy, verify

WEIGHTS_SUFFIXES = (".pt", ".onnx", ".safetensors")
MAX_RESIDENT = 8
"""Detectors kept in memory, the least recently used out first."""


class _Resident:
    """The detectors in memory. A lock is held while one loads: nobody loads it twice."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._detectors: OrderedDict[ModelSpec, Detector] = OrderedDict()

    def get(self, spec: ModelSpec, load: Callable[[ModelSpec], Detector]) -> Detector:
        with self._lock:
            if spec not in self._detectors:
                self._detectors[spec] = load(spec)
            self._detectors.move_to_end(spec)
            while len(self._detectors) > MAX_RESIDENT:
                self._detectors.popitem(last=False)
            return self._detectors[spec]


_resident = _Resident()


def find_detector(
    names: str,
    catalogue: Catalogue,
    tile: int | None = None,
    check: Callable[[], None] = no_hurry,
) -> Detector:
    """The detector that the library and the command line mean by ``names``.

    Args:
        names: catalogue names or weights files (.pt, .onnx, .safetensors), divided by commas.
        tile: pixels; look at a large picture in tiles of this side, too.
        check: called before each tile; what it raises ends the search.

    Raises:
        UnknownName, ModelUnavailable, WeightsError: as :func:`load_detector` and
            :func:`load_detector_file`.
    """
    parts = [name.strip() for name in names.split(",")]
    return combine(
        [
            load_detector_file(Path(part))
            if part.endswith(WEIGHTS_SUFFIXES)
            else load_detector(part, catalogue)
            for part in parts
        ],
        tile,
        check,
    )


def load_detector(name: str, catalogue: Catalogue) -> Detector:
    """The detector of a catalogue entry, loaded at first use.

    Raises:
        UnknownName: no detector has this name (``field`` is ``detector``).
        ModelUnavailable: its weights are not on this machine; the message says how to get them.
        WeightsError: its weights are damaged or not what the catalogue says.
    """
    return _resident.get(catalogue.find(Kind.DETECTOR, name, field="detector"), _load)


def load_detector_file(path: Path) -> Detector:
    """The detector of a weights file of the user's; for the library and the command line only.

    All its classes under their own names, outlined by masks where the weights have them.

    Raises:
        ModelUnavailable: there is no such file.
        WeightsError: the file is damaged or no YOLOv8 network.
    """
    source = Source(path=str(path.expanduser().resolve()))
    return _resident.get(ModelSpec(path.stem, Kind.DETECTOR, source), _load_file)


def _load(spec: ModelSpec) -> Detector:
    if spec.source.package is not None:
        return _mediapipe(spec)
    from afterdetail.detectors.yolo import YoloDetector, open_network

    path = locate(spec)
    verify(spec, path)
    try:
        return YoloDetector(
            spec.name,
            open_network(path),
            label=spec.label,
            classes=spec.classes,
            outline=spec.outline,
        )
    except WeightsError as error:
        raise WeightsError(f"{error}; {remedy(spec)}") from error


def _load_file(spec: ModelSpec) -> Detector:
    from afterdetail.detectors.yolo import YoloDetector, open_network

    network = open_network(locate(spec))
    outline = Outline.SEGMENTATION if network.segments else Outline.BOX
    return YoloDetector(spec.name, network, outline=outline)


def _mediapipe(spec: ModelSpec) -> Detector:
    from afterdetail.detectors.mediapipe import MEDIAPIPE

    if spec.name not in MEDIAPIPE:
        raise ModelUnavailable(f"{spec.name} has no detector in this version", field="detector")
    return MEDIAPIPE[spec.name]
