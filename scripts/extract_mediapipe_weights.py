"""Take the networks that afterdetail ships out of the wheel of mediapipe 0.10.21.

    python scripts/extract_mediapipe_weights.py [WHEEL]

Without a wheel's path pip downloads it (any platform's will do, the networks are the same). Writes
``src/afterdetail/detectors/weights/*.tflite`` and their ``SHA256SUMS``.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "0.10.21"
FILES = (
    "face_detection/face_detection_full_range_sparse.tflite",
    "face_detection/face_detection_short_range.tflite",
    "face_landmark/face_landmark.tflite",
    "palm_detection/palm_detection_full.tflite",
)
TARGET = Path(__file__).parents[1] / "src" / "afterdetail" / "detectors" / "weights"


def download(folder: Path) -> Path:
    """Fetch the wheel with pip, whatever Python and platform run this."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
    ]
    choice = ["--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp"]
    platform = ["--platform", "manylinux_2_28_x86_64"]
    subprocess.run([*command, *choice, *platform, f"mediapipe=={VERSION}"], check=True)
    return next(folder.glob("*.whl"))


def extract(wheel: Path, target: Path) -> None:
    """Write the networks and a line ``digest  name`` for each."""
    target.mkdir(parents=True, exist_ok=True)
    lines = []
    with zipfile.ZipFile(wheel) as archive:
        for file in FILES:
            weights = archive.read(f"mediapipe/modules/{file}")
            name = Path(file).name
            (target / name).write_bytes(weights)
            lines.append(f"{hashlib.sha256(weights).hexdigest()}  {name}\n")
    (target / "SHA256SUMS").write_text("".join(lines), encoding="ascii")


def main() -> None:
    if len(sys.argv) > 1:
        extract(Path(sys.argv[1]), TARGET)
        return
    with tempfile.TemporaryDirectory() as folder:
        extract(download(Path(folder)), TARGET)


if __name__ == "__main__":
    main()
