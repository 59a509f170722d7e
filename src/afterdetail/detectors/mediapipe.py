"""The detectors that stand for MediaPipe's, by the names requests use."""

from __future__ import annotations

from afterdetail.detectors.base import Detector
from afterdetail.detectors.blazeface import FULL_RANGE, SHORT_RANGE, BlazeFace
from afterdetail.detectors.facemesh import EYES, WHOLE_FACE, FaceMesh
from afterdetail.detectors.hands import Hands

DETECTORS: tuple[Detector, ...] = (
    BlazeFace("face_full_mediapipe", FULL_RANGE),
    BlazeFace("face_short_mediapipe", SHORT_RANGE),
    FaceMesh("face_mesh_mediapipe", "face", WHOLE_FACE),
    FaceMesh("eyes_mesh_mediapipe", "eyes", EYES),
    Hands("hand_mediapipe"),
)
MEDIAPIPE = {detector.name: detector for detector in DETECTORS}
"""Ready to use: their networks load when first needed, once per process."""
