"""A server with the embedded model in a process of its own, and a client for it. Loopback only."""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from PIL import Image

PHOTO = Path(__file__).parents[1] / "tests" / "data" / "photos" / "skimage_astronaut.png"
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Server:
    port: int
    process: psutil.Process
    state_dir: Path

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = JSON,
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        _, page = self.ask("GET", "/metrics")
        lines = (line.rpartition(" ") for line in page.decode().splitlines())
        return next(float(value) for key, _, value in lines if key == name)

    @property
    def processor_seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    @property
    def megabytes(self) -> float:
        return float(self.process.memory_info().rss / 1e6)


@contextmanager
def serving(
    settings: Mapping[str, str], threads: int | None = None, models: str = "tiny"
) -> Iterator[Server]:
    """A server that is ready, with the classifier off.

    Args:
        settings: by name, without their prefix.
        threads: of torch and OpenCV; None leaves them as they are.
        models: the catalogue.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "afterdetail", "serve", "--models", models, "--device", "cpu"]
    with TemporaryDirectory() as state_dir:
        given = {"SAFETY": "off", "STATE_DIR": state_dir} | dict(settings)
        variables = {f"AFTERDETAIL_{name}": value for name, value in given.items()}
        variables |= {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        process = subprocess.Popen(
            [*command, "--port", str(port)], env=os.environ | variables, stderr=subprocess.DEVNULL
        )
        try:
            server = Server(port, psutil.Process(process.pid), Path(state_dir))
            wait_until_ready(server)
            yield server
        finally:
            process.terminate()
            process.wait(60)


def wait_until_ready(server: Server) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        try:
            if server.ask("GET", "/health/ready")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError("the server did not get ready")


def photograph(side: int) -> bytes:
    """A JPEG of ``side`` x ``side``: the astronaut, once in each tile of 512."""
    tile = np.asarray(Image.open(PHOTO).convert("RGB"))
    out = io.BytesIO()
    Image.fromarray(np.tile(tile, (side // 512, side // 512, 1))).save(out, "JPEG", quality=95)
    return out.getvalue()


def request(data: bytes, **fields: object) -> bytes:
    """A body with this picture, by default for one step at one face."""
    body = {"init_image": base64.b64encode(data).decode(), "detector": "face_full_mediapipe"}
    options: dict[str, object] = {"steps": 1, "seed": 1, "max_num_detections": 1}
    return json.dumps(body | options | fields).encode()


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def table(rows: Mapping[str, object]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---:|", *lines])
