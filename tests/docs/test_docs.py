"""The documentation's commands and programs are run as they stand there.

Here rather than in the README's tests are those that need no process of their own: in one process
torch is imported once.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvicorn

from afterdetail.cli.main import main
from afterdetail.config import Settings
from afterdetail.server.app import create_app

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ADDRESS = "http://127.0.0.1:8000"
PAGES = (
    "index.md",
    "page.md",
    "command-line.md",
    "endpoint.md",
    "v1.md",
    "a1111.md",
    "migrating.md",
    "embedded-model.md",
)

ELSEWHERE = {
    "make demo": "its script is run by the README's tests",
    "afterdetail doctor": "has tests of its own",
    "pip install '.[ui]'": "needs the index of packages",
    "afterdetail models pull sd15": "needs the hub",
    "afterdetail detail portrait.png -o detailed.png --models sd15 --strength 0.4": "needs sd15",
    "afterdetail serve --models sd15 --ui": "needs sd15",
}


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


COMMANDS = [
    line[2:]
    for page in PAGES
    for block in blocks(page, "console")
    for line in block.splitlines()
    if line.startswith("$ ")
]
OURS = [line for line in COMMANDS if line.startswith("afterdetail ") and line not in ELSEWHERE]
CURLS = [line for line in COMMANDS if "curl" in line]
PROGRAMS = [(page, code) for page in PAGES for code in blocks(page, "python")]


def test_every_command_is_run_or_excused() -> None:
    assert set(ELSEWHERE) <= set(COMMANDS)
    assert set(COMMANDS) == {*OURS, *CURLS, *ELSEWHERE}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    (ROOT / "build").mkdir(exist_ok=True)
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server at a port of its own."""
    from afterdetail.pipeline import Detailer

    with Detailer("tiny", backend="eager") as detailer:
        server = uvicorn.Server(config_of(detailer))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        thread.join(30)


def config_of(detailer: Detailer) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(detailer, Settings()), host="127.0.0.1", port=0, log_level="warning"
    )


# One after the other: `again` needs what an earlier one has written.
def test_the_commands() -> None:
    for name in ("many", "one.png"):
        place = ROOT / "build" / name
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    for line in OURS:
        assert main(shlex.split(line)[1:]) == 0, line


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", CURLS)
def test_a_request_in_curl(line: str, address: str) -> None:
    assert ADDRESS in line
    done = subprocess.run(
        ["bash", "-c", line.replace(ADDRESS, address)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("page", "code"), PROGRAMS, ids=[page for page, _ in PROGRAMS])
def test_a_program(page: str, code: str, address: str) -> None:
    exec(compile(code.replace(ADDRESS, address), page, "exec"), {})


def test_generated_parts_are_those_of_the_code() -> None:
    made = subprocess.run(
        [sys.executable, "-c", "import make_reference as m; print(m.rendered(m.PAGE.read_text()))"],
        cwd=ROOT / "scripts",
        capture_output=True,
        text=True,
        check=True,
    )
    page = (DOCS / "endpoint.md").read_text(encoding="utf-8")
    assert made.stdout.strip() == page.strip(), "run python scripts/make_reference.py"


def test_every_parameter_is_explained() -> None:
    from afterdetail.options import LibraryOptions

    page = (DOCS / "parameters.md").read_text(encoding="utf-8")
    told_elsewhere = {"prompt_marks", "main_prompt", "main_negative_prompt"}
    fields = LibraryOptions.model_fields.keys() - told_elsewhere
    assert {name for name in fields if f"`{name}`" not in page} == set()


def test_links_lead_somewhere() -> None:
    pages = [*DOCS.glob("*.md"), *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md"))]
    for page in pages:
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        missing = [
            link for link in links if "://" not in link and not (page.parent / link).exists()
        ]
        assert missing == [], page.name


def test_the_site_is_built_and_asks_nobody_else(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the site needs the extra [docs]")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = re.compile(
        r"<(?:script|img|iframe)[^>]+src=.?https?:|<link[^>]+stylesheet[^>]+https?:"
    )
    assert [page for page in site.rglob("*.html") if loaded.search(page.read_text())] == []
