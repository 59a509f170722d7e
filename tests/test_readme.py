"""The README's commands are run as they stand there."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("AFTERDETAIL_")},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "HF_HUB_OFFLINE": "1",
}

ELSEWHERE = {
    "make demo": "its script is run below",
    "make test": "is running now",
    "afterdetail serve --models sd15": "needs weights from the hub",
    "afterdetail models pull sd15": "needs the hub",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line[2:] for block in blocks("console") for line in block.splitlines()]
RUN = [line for line in COMMANDS if line not in ELSEWHERE]
SERVE = "afterdetail serve --models tiny"


def test_nothing_is_excused_that_the_readme_does_not_say() -> None:
    assert set(ELSEWHERE) <= set(COMMANDS)
    assert SERVE in RUN


def run(command: str) -> subprocess.CompletedProcess[str]:
    (ROOT / "build").mkdir(exist_ok=True)
    return subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """The README's server, at its own port."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("something else listens on port 8000")
    process = subprocess.Popen(SERVE.split(), cwd=ROOT, env=ENVIRONMENT)
    try:
        wait_until_ready()
        yield
    finally:
        process.terminate()
        assert process.wait(30) == 0


def wait_until_ready(seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    probe = "curl --silent --fail http://127.0.0.1:8000/health/ready"
    while run(probe).returncode != 0:
        assert time.monotonic() < deadline, "the server was never ready"
        time.sleep(0.3)


@pytest.mark.parametrize("command", [line for line in RUN if "curl" not in line and line != SERVE])
def test_command(command: str) -> None:
    done = run(command)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.usefixtures("server")
def test_the_endpoint_in_curl() -> None:
    (command,) = (line for line in RUN if "curl" in line)
    done = run(command)
    assert done.returncode == 0, done.stderr
    answer = json.loads((ROOT / "build" / "answer.json").read_text(encoding="utf-8"))
    assert answer["num_objects_inpainted"] == answer["num_objects_detected"] == 1
    picture = Image.open(io.BytesIO(base64.b64decode(answer["image_b64"])))
    assert (picture.format, picture.size) == ("PNG", (512, 512))


def test_python(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (ROOT / "build").mkdir(exist_ok=True)
    monkeypatch.chdir(ROOT)
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("6 [Box(")


def test_the_catalogue_is_one(tmp_path: Path) -> None:
    from afterdetail.models.catalogue import load_catalogue
    from afterdetail.options import Base

    (text,) = blocks("toml")
    file = tmp_path / "my-models.toml"
    file.write_text(text, encoding="utf-8")
    assert load_catalogue(file).bases()[Base.SD15].name == "my-model"


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_demo() -> None:
    done = run("python examples/demo.py")
    assert done.returncode == 0, done.stderr
    assert "repainted" in done.stdout
    for name in ("after.png", "before-after.png"):
        with Image.open(ROOT / "build" / "demo" / name) as picture:
            assert min(picture.size) > 500
