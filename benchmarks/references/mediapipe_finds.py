"""Runs in the reference's environment: what mediapipe 0.10.21 finds in pictures.

    python mediapipe_finds.py OUT.json PICTURE...

Pixels, as the tests' golden_mediapipe.json has them: faces of both ranges, meshes, palms.
"""

import json
import sys
from pathlib import Path

import mediapipe as mp
import numpy as np
from mediapipe.python.solution_base import SolutionBase
from PIL import Image, ImageOps

CONFIDENCE = 0.3


def detections(found, width, height):
    boxes = [(one, one.location_data.relative_bounding_box) for one in found or []]
    return [
        {
            "score": one.score[0],
            "box": [
                box.xmin * width,
                box.ymin * height,
                (box.xmin + box.width) * width,
                (box.ymin + box.height) * height,
            ],
        }
        for one, box in boxes
    ]


def faces(rgb, model):
    solution = mp.solutions.face_detection.FaceDetection(
        model_selection=model, min_detection_confidence=CONFIDENCE
    )
    with solution:
        return solution.process(rgb).detections


def meshes(rgb):
    solution = mp.solutions.face_mesh.FaceMesh(
        static_image_mode=True, max_num_faces=20, min_detection_confidence=CONFIDENCE
    )
    with solution:
        found = solution.process(rgb).multi_face_landmarks
    return [[[p.x * rgb.shape[1], p.y * rgb.shape[0]] for p in one.landmark] for one in found or []]


def palms(rgb):
    solution = SolutionBase(
        binary_graph_path="mediapipe/modules/hand_landmark/hand_landmark_tracking_cpu.binarypb",
        side_inputs={"model_complexity": 1, "num_hands": 20, "use_prev_landmarks": False},
        outputs=["palm_detections"],
    )
    with solution:
        return solution.process({"image": rgb}).palm_detections


def everything(path):
    rgb = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    height, width = rgb.shape[:2]
    return {
        "face_short": detections(faces(rgb, 0), width, height),
        "face_full": detections(faces(rgb, 1), width, height),
        "palms": detections(palms(rgb), width, height),
        "meshes": meshes(rgb),
    }


found = {path: everything(path) for path in sys.argv[2:]}
Path(sys.argv[1]).write_text(json.dumps(found))
