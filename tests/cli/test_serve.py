"""``afterdetail serve``: it says what it serves, answers, and ends when told to."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from afterdetail.cli.main import main

Run = Callable[..., subprocess.CompletedProcess[str]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def served(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server with the embedded model, and its address."""
    port = free_port()
    command = [sys.executable, "-m", "afterdetail", "serve", "--models", "tiny"]
    with subprocess.Popen(
        [*command, "--port", str(port)], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process, f"http://127.0.0.1:{port}"
        process.kill()


def wait_until_ready(address: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/health/ready", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise TimeoutError("the server did not get ready")


def test_it_says_its_models_gets_ready_and_ends_on_ctrl_c(
    served: tuple[subprocess.Popen[str], str],
) -> None:
    process, address = served
    assert process.stderr is not None
    assert "'tiny'" in process.stderr.readline()
    wait_until_ready(address)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0  # an orderly end, as for SIGTERM
    assert "Traceback" not in process.stderr.read()


def test_the_world_is_not_served_without_tokens(run: Run) -> None:
    refused = run("serve", "--models", "tiny", "--host", "0.0.0.0")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "AFTERDETAIL_TOKENS" in line


def test_a_page_without_its_extra_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["serve", "--models", "tiny", "--ui"]) == 2
    assert "pip install 'afterdetail[ui]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--ray", "local", "--ui"], "a cluster has no page"),
        (["--ray", "local", "--host", "0.0.0.0"], "AFTERDETAIL_TOKENS"),
        (["--ray", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
    ],
)
def test_a_cluster_that_cannot_be_is_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--models", "tiny", *arguments]) != 0
    assert told in capsys.readouterr().err
