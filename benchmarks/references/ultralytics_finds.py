"""Runs in the reference's environment: what ultralytics' predict finds in pictures.

    python ultralytics_finds.py WEIGHTS CONFIDENCE OUT.json PICTURE...

``WEIGHTS`` is a file, or a golden case of scripts/make_yolo_golden.py, whose checkpoint is then
written beside OUT.json.
"""

import json
import runpy
import sys
from pathlib import Path

import cv2
from ultralytics import YOLO

ROOT = Path(__file__).parents[2]
weights, out = Path(sys.argv[1]), Path(sys.argv[3])
if not weights.suffix:
    recipe = runpy.run_path(str(ROOT / "scripts" / "make_yolo_golden.py"))
    weights = recipe["checkpoint"](sys.argv[1], out.parent)
model = YOLO(weights, task="detect")
found = {}
for path in sys.argv[4:]:
    picture = cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    boxes = model.predict(
        picture,
        imgsz=640,
        conf=float(sys.argv[2]),
        iou=0.7,
        max_det=300,
        device="cpu",
        verbose=False,
    )[0].boxes
    found[path] = [
        {"label": model.names[int(kind)], "score": score, "box": box}
        for kind, score, box in zip(
            boxes.cls, boxes.conf.tolist(), boxes.xyxy.tolist(), strict=True
        )
    ]
out.write_text(json.dumps(found))
