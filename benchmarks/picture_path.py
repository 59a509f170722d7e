"""Everything but the model, for a 1024x1024 picture with 4 faces.

The "model" hands back what it was given. Figures are medians, and beside them the fastest run and
the processor time of all threads: other work on the machine disturbs single runs.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from afterdetail import composite, images, masks, regions, waves
from afterdetail.detectors.mediapipe import MEDIAPIPE
from afterdetail.images import Encoding
from afterdetail.types import RGB, Picture
from benchmarks.heading import heading

PHOTOS = Path(__file__).parents[1] / "tests" / "data" / "photos"
SIZES = ((512, 512), (448, 576), (576, 448), (384, 704), (704, 384))
BUDGET_MS = 120
ROUNDS = 41


class Stopwatch:
    """Seconds by stage of one run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def run(data: bytes, encoding: Encoding) -> dict[str, float]:
    """One picture the whole way, with a model that changes nothing."""
    stage = Stopwatch()
    with stage("decode"):
        picture = images.decode(data)
    with stage("detect"):
        faces = MEDIAPIPE["face_full_mediapipe"].detect(picture.rgb)
    assert len(faces) == 4, faces
    with stage("masks"):
        drawn = [masks.draw(face, picture.size) for face in faces]
        soft = [masks.blur(masks.dilate(mask, 4), 4) for mask in drawn]
        waves.waves(soft)
    with stage("extract"):
        planned = [regions.plan(mask.box, picture.size, 32, SIZES) for mask in soft]
        patches = [regions.extract(picture.rgb, region) for region in planned]
        for mask, region in zip(soft, planned, strict=True):
            regions.extract_mask(mask, region)
    with stage("restore"):
        restored = [regions.restore(*pair) for pair in zip(patches, planned, strict=True)]
    with stage("composite"):
        canvas = picture.rgb.copy()
        for patch, mask, region in zip(restored, soft, planned, strict=True):
            composite.composite(canvas, patch, mask, region)
    with stage("encode"):
        images.encode(Picture(canvas, picture.alpha, picture.icc_profile), encoding)
    return stage.seconds


def four_faces() -> RGB:
    """Four of the tests' photographs, 512x512 each, two by two."""
    astronaut, hopper, obama = (
        Image.open(PHOTOS / name).convert("RGB")
        for name in ("skimage_astronaut.png", "mpl_grace_hopper.jpg", "fr_obama.jpg")
    )
    tiles = [
        np.asarray(astronaut),
        np.asarray(hopper.crop((0, 0, 512, 512))),
        np.asarray(obama.resize((512, 512), box=(0, 0, 910, 910))),
        np.asarray(hopper.crop((0, 0, 512, 512)))[:, ::-1],
    ]
    return np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])


def stages(rgb: RGB) -> str:
    """The table of stages, median milliseconds, for both encodings."""
    columns = [stage_times(rgb, "png"), stage_times(rgb, "jpeg")]
    rows = [
        f"| {stage} | " + " | ".join(f"{column[stage]:.1f}" for column in columns) + " |"
        for stage in columns[0]
    ]
    return "\n".join(["| ms | PNG | JPEG |", "|---|---:|---:|", *rows])


def stage_times(rgb: RGB, encoding: Encoding) -> dict[str, float]:
    data = images.encode(Picture(rgb), encoding)
    run(data, encoding)  # loads the detector
    start = time.process_time()
    rounds = [run(data, encoding) for _ in range(ROUNDS)]
    processor = (time.process_time() - start) / ROUNDS
    whole = [sum(taken.values()) for taken in rounds]
    seconds = {stage: statistics.median(taken[stage] for taken in rounds) for stage in rounds[0]}
    seconds |= {
        "**all**": statistics.median(whole),
        "all, fastest run": min(whole),
        "all, processor time": processor,
    }
    return {stage: 1e3 * value for stage, value in seconds.items()}


def codecs(rgb: RGB) -> str:
    """Why we write PNG ourselves, and have Pillow do the rest."""
    png, jpeg = images.encode(Picture(rgb), "png"), images.encode(Picture(rgb), "jpeg")
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    exact = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    contestants: tuple[tuple[str, Callable[[], bytes | RGB]], ...] = (
        *(
            (f"write PNG, Pillow level {level}", pillow_writer(rgb, "PNG", compress_level=level))
            for level in (1, 6, 9)
        ),
        ("write PNG, OpenCV's defaults", lambda: cv2.imencode(".png", bgr)[1].tobytes()),
        ("write PNG, ours", lambda: images.encode(Picture(rgb), "png")),
        ("write JPEG, Pillow", pillow_writer(rgb, "JPEG", quality=95, subsampling=0)),
        ("write JPEG, OpenCV", lambda: cv2.imencode(".jpg", bgr, exact)[1].tobytes()),
        ("read PNG, Pillow", lambda: np.asarray(Image.open(io.BytesIO(png)))),
        ("read PNG, OpenCV", opencv_reader(png)),
        ("read PNG, ours", lambda: images.decode(png).rgb),
        ("read JPEG, Pillow", lambda: np.asarray(Image.open(io.BytesIO(jpeg)))),
        ("read JPEG, OpenCV", opencv_reader(jpeg)),
        ("read JPEG, ours", lambda: images.decode(jpeg).rgb),
    )
    rows = [f"| {name} | {milliseconds(call):.1f} | {size(call())} |" for name, call in contestants]
    return "\n".join(["| | ms | kB |", "|---|---:|---:|", *rows])


def pillow_writer(rgb: RGB, form: str, **options: int) -> Callable[[], bytes]:
    def write() -> bytes:
        out = io.BytesIO()
        Image.fromarray(rgb).save(out, form, **options)
        return out.getvalue()

    return write


def opencv_reader(data: bytes) -> Callable[[], RGB]:
    packed = np.frombuffer(data, np.uint8)
    return lambda: np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR_RGB), np.uint8)


def milliseconds(call: Callable[[], object], rounds: int = 15) -> float:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken)


def size(result: bytes | RGB) -> str:
    return f"{len(result) / 1e3:.0f}" if isinstance(result, bytes) else ""


def report() -> str:
    rgb = four_faces()
    packages = ("pillow", "opencv-python-headless", "numpy")
    return f"""{heading("The picture's way, without the model", packages)}
A photograph of 1024x1024 pixels with 4 faces, `face_full_mediapipe`, dilation, blur and padding
as by default, regions of SD1.5's sizes. Medians of {ROUNDS} runs; the budget is {BUDGET_MS} ms.

{stages(rgb)}

What can read and write files, same picture, medians of 15:

{codecs(rgb)}
"""
