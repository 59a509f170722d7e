"""The page on a server of its own, on loopback, and a browser that looks at it.

What a machine lacks is said, and those tests are skipped: Gradio (the extra ``[ui]``), Playwright
(from PyPI) and a ``chromium`` on the path.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from PIL import Image

from afterdetail.config import Settings
from afterdetail.server.app import create_app
from afterdetail.ui.mount import mount

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer

PHOTOS = Path(__file__).parents[1] / "data" / "photos"

Serve = Callable[[Settings], str]


@pytest.fixture(scope="session")
def detailer() -> Iterator[Detailer]:
    from afterdetail.pipeline import Detailer

    with Detailer("tiny", backend="eager") as real:
        real.load()
        yield real


@pytest.fixture(scope="session")
def serve(detailer: Detailer) -> Iterator[Serve]:
    """Serve with settings of the test's own; gives the address."""
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'afterdetail[ui]'")
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(Running(detailer, settings))


class Running:
    """A server in a thread, at a port of its own."""

    def __init__(self, detailer: Detailer, settings: Settings) -> None:
        app = create_app(detailer, settings, page=partial(mount, catalogue=detailer.catalogue))
        self.service = app.state.service
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        deadline = time.monotonic() + 60
        while not self.server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        self.service.door.closing = True
        self.server.should_exit = True
        self.thread.join(30)


@pytest.fixture(scope="session")
def address(serve: Serve) -> str:
    return serve(Settings())


@pytest.fixture(scope="session")
def two_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs side by side, each with a face."""
    with (
        Image.open(PHOTOS / "skimage_astronaut.png") as left,
        Image.open(PHOTOS / "mpl_grace_hopper.jpg") as right,
    ):
        size = (right.width * left.height // right.height, left.height)
        both = Image.new("RGB", (left.width + size[0], left.height))
        both.paste(left, (0, 0))
        both.paste(right.resize(size), (left.width, 0))
    file = tmp_path_factory.mktemp("pictures") / "two.png"
    both.save(file)
    return file


@pytest.fixture(scope="module")  # Playwright's event loop runs as long: others want their own
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright from PyPI")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()
