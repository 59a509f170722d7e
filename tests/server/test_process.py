"""``afterdetail serve`` as a process of its own, spoken to over loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

LIMITS = {"AFTERDETAIL_UPLOAD_TIMEOUT": "1", "AFTERDETAIL_MAX_BODY_BYTES": "2000000"}
COMMAND = [sys.executable, "-m", "afterdetail", "serve", "--models", "tiny"]
POST = b"POST /adetailer HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"


def environment(**more: str) -> dict[str, str]:
    """This process's, without settings of the machine's owner.

    To start sooner there is no classifier, and nothing is compiled; the fault hook needs that too.
    """
    quick = {"OMP_NUM_THREADS": "1", "AFTERDETAIL_SAFETY": "off", "AFTERDETAIL_BACKEND": "eager"}
    kept = {name: text for name, text in os.environ.items() if "AFTERDETAIL" not in name}
    return kept | quick | more


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_for(url: str, status: int, seconds: float = 120) -> None:
    """Ask until the answer has this status."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).status_code == status:
                return
        time.sleep(0.05)
    raise TimeoutError(f"{url} did not answer {status}")


def wait_for_line(url: str, line: str, seconds: float = 30) -> None:
    """Ask until the page has this line."""
    end = time.monotonic() + seconds
    while line not in httpx.get(url).text.splitlines():
        assert time.monotonic() < end, f"{url} has no line {line!r}"
        time.sleep(0.02)


@contextlib.contextmanager
def running(port: int, log: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*COMMAND, "--port", str(port)],
            env=environment(**settings), stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Server:
    port: int
    log: Path

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that is ready."""
    here = Server(free_port(), tmp_path_factory.mktemp("serve") / "log")
    with running(here.port, here.log, **LIMITS):
        wait_for(here.url("/health/ready"), 200)
        yield here


def test_a_life(tmp_path: Path, body: dict[str, object]) -> None:
    """Starts, says what it runs, is loading, is ready, answers; told to end, it refuses what is
    new, finishes what is under way, and ends well (row 33).
    """
    number, log = free_port(), tmp_path / "log"
    here = f"http://127.0.0.1:{number}"
    with running(number, log) as process:
        wait_for(f"{here}/health/live", 200)
        early = httpx.get(f"{here}/health/ready")
        assert early.status_code in {200, 503}
        wait_for(f"{here}/health/ready", 200)
        answer = httpx.post(f"{here}/adetailer", json=body, timeout=30)
        assert answer.status_code == 200
        assert answer.json()["num_objects_inpainted"] == 1
        with ThreadPoolExecutor(1) as pool:
            slow = body | {"steps": 60, "strength": 1}
            working = pool.submit(httpx.post, f"{here}/adetailer", json=slow, timeout=60)
            wait_for_line(f"{here}/metrics", "afterdetail_engine_jobs 1.0")
            process.send_signal(signal.SIGTERM)
            wait_for(f"{here}/health/ready", 503, seconds=5)
            assert httpx.post(f"{here}/adetailer", json=body).json()["code"] == "loading"
            assert not working.done()
            assert working.result().status_code == 200
        assert process.wait(20) == 0
    text = log.read_text()
    assert "sd15 by 'tiny'" in text
    assert "Traceback" not in text


def test_row_28_a_server_whose_device_is_lost_says_so_and_ends(
    tmp_path: Path, body: dict[str, object]
) -> None:
    """Whoever supervises it starts another."""
    number, log = free_port(), tmp_path / "log"
    here = f"http://127.0.0.1:{number}"
    command = [sys.executable, str(Path(__file__).with_name("faults.py")), str(number)]
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [*command, "device-lost"], env=environment(), stdout=out, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            wait_for(f"{here}/health/ready", 200)
            answer = httpx.post(f"{here}/adetailer", json=body, timeout=30)
            assert (answer.status_code, answer.json()["code"]) == (503, "device_lost")
            assert process.wait(20) > 0
        finally:
            process.kill()


def test_a_client_of_the_hosted_endpoint(server: Server, body: dict[str, object]) -> None:
    """What such scripts send, here with the token that a server without tokens does not look at."""
    request = {
        "init_image": body["init_image"],
        "detector": "face_full_mediapipe",
        "inpainting_base_model": "sd15",
        "prompt": "a photo of a woman",
        "negative_prompt": "blurry",
        "steps": 4,
        "strength": 0.4,
        "cfg_scale": 7.5,
    }
    answer = httpx.post(
        server.url("/adetailer"),
        content=json.dumps(request),
        headers={"Content-Type": "application/json", "Authorization": "Bearer any"},
        timeout=30,
    )
    assert answer.status_code == 200
    assert answer.json()["image_b64"]


def speak(port: int, *parts: bytes, then_wait: float = 10) -> bytes:
    """Send raw bytes and read until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=then_wait) as connection:
        for part in parts:
            connection.sendall(part)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                received += data
        return received


def test_row_5_a_declared_length_is_answered_before_the_body(server: Server) -> None:
    answer = speak(server.port, POST + b"Content-Length: 2000001\r\nExpect: 100-continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in answer


def test_row_5_an_endless_body_is_cut_off(server: Server) -> None:
    """The server closes the connection; a client that only writes is stopped by that."""
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        written = 0
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while written < 200_000_000:
                connection.sendall(piece)
                written += len(piece)
    assert 2_000_000 < written < 50_000_000


def test_row_5_a_client_of_httpx_reads_the_answer(server: Server) -> None:
    answer = httpx.post(
        server.url("/adetailer"),
        content=b" " * 2_500_000,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 413
    assert answer.headers["Connection"] == "close"


def test_row_6_a_slow_upload_ends_and_disturbs_nobody(server: Server) -> None:
    slowest: list[float] = []

    def ask() -> None:
        for _ in range(20):
            began = time.monotonic()
            assert httpx.get(server.url("/health/live")).status_code == 200
            slowest.append(time.monotonic() - began)

    other = threading.Thread(target=ask)
    began = time.monotonic()
    other.start()
    answer = speak(server.port, POST + b'Content-Length: 1000\r\n\r\n{"init_image":')
    passed = time.monotonic() - began
    other.join()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"upload_too_slow"' in answer
    assert 0.9 < passed < 4
    assert len(slowest) == 20
    assert max(slowest) < 1


def test_a_client_that_hangs_up_is_no_fault(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(POST + b"Content-Length: 1000\r\n\r\n{")
        time.sleep(0.2)  # so that the request is being read
    time.sleep(0.2)
    wait_for(server.url("/health/live"), 200)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "settings", "text"),
    [
        (["--host", "0.0.0.0"], {}, "AFTERDETAIL_TOKENS"),
        (["--models", "nosuch"], {}, "nosuch"),
        (["--models", "sd15"], {"HF_HUB_CACHE": "/nonexistent"}, "afterdetail models pull sd15"),
        ([], {"AFTERDETAIL_MAX_PIXELS": "none"}, "AFTERDETAIL_MAX_PIXELS"),
        ([], {"AFTERDETAIL_TOKENS": "nonsense"}, "AFTERDETAIL_TOKENS"),
    ],
)
def test_what_cannot_be_served_ends_with_one_line(
    arguments: list[str], settings: dict[str, str], text: str
) -> None:
    done = subprocess.run(
        [*COMMAND, "--port", str(free_port()), *arguments],
        env=environment(**settings), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode > 0
    assert text in done.stderr
    assert "Traceback" not in done.stderr
