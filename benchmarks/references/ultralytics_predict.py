"""Runs in the reference's environment: ultralytics' predict on the CPU, timed on request.

Called with a golden case (see scripts/make_yolo_golden.py, which makes its checkpoint) and a
picture; for each line on stdin (a number of calls) it prints the best of so many, in
seconds of processor time.
"""

import runpy
import sys
import tempfile
import time
from pathlib import Path

import cv2
from ultralytics import YOLO

recipe = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "make_yolo_golden.py"))
with tempfile.TemporaryDirectory() as folder:
    model = YOLO(recipe["checkpoint"](sys.argv[1], Path(folder)))
picture = cv2.imread(sys.argv[2])


def seconds():
    start = time.process_time()
    model.predict(picture, imgsz=640, conf=0.3, iou=0.7, device="cpu", verbose=False)
    return time.process_time() - start


for _ in range(3):
    seconds()
for line in sys.stdin:
    print(min(seconds() for _ in range(int(line))), file=sys.__stdout__, flush=True)
