"""Makes tests/data/yolo/golden.json: what ultralytics finds with the tests' random weights.

Run it in a throw-away environment that has ultralytics 8.4 (AGPL-3.0; never a dependency):

    python -m venv elsewhere
    elsewhere/bin/pip install torch==2.13.0 torchvision==0.28.0 'ultralytics==8.4.*'
    elsewhere/bin/python scripts/make_yolo_golden.py [--keep FOLDER]

``--keep`` leaves the checkpoints that ultralytics wrote there. Where torchvision's operators do not
load beside a CPU build of torch, put a package in its place whose ``ops.nms`` is ultralytics' own
``TorchNMS.nms``.
"""

from __future__ import annotations

import argparse
import json
import runpy
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import ultralytics
from ultralytics import YOLO

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data" / "yolo"
PHOTOS = ROOT / "tests" / "data" / "photos"
WEIGHTS = runpy.run_path(str(DATA / "random_weights.py"))
# name: scale, classes, masks, confidence
CASES = {
    "n1": ("n", 1, False, 0.2),
    "s3": ("s", 3, False, 0.2),
    "m80": ("m", 80, False, 0.2),
    "n3-seg": ("n", 3, True, 0.2),
}
# file, and the part of it: x0, y0, x1, y1
PICTURES = {
    "whole": ("skimage_astronaut.png", None),
    "wide": ("derived_mosaic6.png", (0, 0, 999, 320)),
    "tall": ("derived_mosaic6.png", (100, 0, 401, 1024)),
    "large": ("derived_mosaic6.png", None),
    "small": ("skimage_coffee.png", (200, 100, 271, 150)),
    "thin": ("skimage_coffee.png", (0, 200, 600, 217)),
}
SAMPLED_CELLS = 16
SHOWN = 60
"""Detections written down, of each picture; all are counted."""


def picture(name: str) -> Any:
    """A test picture, BGR."""
    file, part = PICTURES[name]
    image = cv2.imread(str(PHOTOS / file))
    x0, y0, x1, y1 = part or (0, 0, image.shape[1], image.shape[0])
    return np.ascontiguousarray(image[y0:y1, x0:x1])


def checkpoint(case: str, folder: Path) -> Path:
    """Our numbers in ultralytics' model, saved by ultralytics."""
    scale, classes, masks, _ = CASES[case]
    head = "-seg" if masks else ""
    names = {i: f"class {i}" for i in range(classes)}
    model = YOLO(f"yolov8{scale}{head}.yaml")
    if classes != 80:
        task, args = model.model.task, model.model.args
        config = {**model.model.yaml, "nc": classes, "scale": scale}
        model.model = type(model.model)(config, verbose=False)
        model.model.task, model.model.args = task, args
    model.model.names = names
    state = WEIGHTS["random_state"](scale, classes, masks=masks)
    own = model.model.state_dict()
    floats = {k for k, v in own.items() if v.is_floating_point() and ".dfl." not in k}
    assert floats == set(state), sorted(floats ^ set(state))[:5]
    model.model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=False)
    path = folder / f"{case}.pt"
    model.save(path)
    return path


def raw_heads(model: Any, image: Any) -> dict[str, Any]:
    """The head's outputs before any activation, at a few cells, for the letterboxed picture."""
    model.predictor.setup_source(image)
    batch = model.predictor.preprocess([image])
    with torch.inference_mode():
        raw = model.predictor.model.model(batch)[1]
    cells = np.linspace(0, raw["boxes"].shape[2] - 1, SAMPLED_CELLS).astype(int).tolist()
    found = {"shape": list(batch.shape), "cells": cells}
    for ours, theirs in {
        "boxes": "boxes",
        "scores": "scores",
        "coefficients": "mask_coefficient",
    }.items():
        if theirs in raw:
            found[ours] = rounded(raw[theirs][0][:, cells].T, 4)
    if "proto" in raw:
        found["prototypes"] = rounded(raw["proto"][0][:, ::40, ::40].flatten(), 4)
    return found


def outlines(result: Any) -> dict[str, Any]:
    """A few short outlines of masks in one piece, by the number of the detection."""
    pieces = [
        len(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0])
        for mask in result.masks.data.byte().numpy()
    ]
    short = [i for i, xy in enumerate(result.masks.xy[:SHOWN]) if pieces[i] == 1 and len(xy) < 60]
    return {str(i): rounded(result.masks.xy[i], 2) for i in short[:3]}


def rounded(values: Any, digits: int) -> Any:
    return np.round(np.asarray(values, np.float64), digits).tolist()


def golden(case: str, folder: Path) -> dict[str, Any]:
    confidence = CASES[case][3]
    model = YOLO(checkpoint(case, folder))
    pictures: dict[str, Any] = {}
    for name in PICTURES:
        image = picture(name)
        result = model.predict(
            image, imgsz=640, conf=confidence, iou=0.7, max_det=300, verbose=False
        )[0]
        pictures[name] = {
            "count": len(result.boxes),
            "boxes": rounded(result.boxes.xyxy[:SHOWN], 2),
            "scores": rounded(result.boxes.conf[:SHOWN], 5),
            "classes": [int(c) for c in result.boxes.cls[:SHOWN]],
        }
        if result.masks is not None:
            pictures[name]["mask_areas"] = [int(mask.sum()) for mask in result.masks.data[:SHOWN]]
            pictures[name]["outlines"] = outlines(result)
    raw = raw_heads(model, picture("whole"))
    scale, classes, masks, _ = CASES[case]
    return {
        "scale": scale,
        "classes": classes,
        "masks": masks,
        "confidence": confidence,
        "raw": raw,
        "pictures": pictures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path)
    keep: Path | None = parser.parse_args().keep
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        cases = {case: golden(case, folder) for case in CASES}
    document = {"ultralytics": ultralytics.__version__, "pictures": PICTURES, "cases": cases}
    (DATA / "golden.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
