"""Runs in the reference's environment: mediapipe 0.10.21's solutions, timed on request.

Called with a subject and a picture; for each line on stdin (a number of calls) it prints the
best of so many calls, seconds. Graphs are built once, which flatters the reference: the tools
that use it build them for every picture.
"""

import sys
import time

import mediapipe as mp
import numpy as np
from PIL import Image, ImageOps

SUBJECTS = {
    "face_short": lambda: mp.solutions.face_detection.FaceDetection(model_selection=0),
    "face_full": lambda: mp.solutions.face_detection.FaceDetection(model_selection=1),
    "face_mesh": lambda: mp.solutions.face_mesh.FaceMesh(
        static_image_mode=True, max_num_faces=20, min_detection_confidence=0.3
    ),
}

solution = SUBJECTS[sys.argv[1]]()
picture = np.asarray(ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB"))
for _ in range(5):
    solution.process(picture)
for line in sys.stdin:
    taken = []
    for _ in range(int(line)):
        start = time.perf_counter()
        solution.process(picture)
        taken.append(time.perf_counter() - start)
    print(min(taken), flush=True)
