"""The photographs every room's tests share."""

from __future__ import annotations

import atexit
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageOps

from afterdetail.types import RGB

if TYPE_CHECKING:
    from fastapi import FastAPI

    from afterdetail.studio import LocalStudio, Order

# Tests of OpenVINO ask for it by name; a server process of a test need not compile for seconds.
os.environ.setdefault("AFTERDETAIL_BACKEND", "eager")
# No test reaches for the hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Servers neither read nor write the files of the person who tests; before modules copy this.
STATE = tempfile.TemporaryDirectory(prefix="afterdetail-tests-")
atexit.register(STATE.cleanup)
os.environ["XDG_STATE_HOME"] = STATE.name

PHOTOS = Path(__file__).parent / "data" / "photos"


def pytest_configure() -> None:
    """Undo what a shell does to its background jobs: to ignore Ctrl-C, in all they start, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of the photographs."""
    return PHOTOS


@pytest.fixture(scope="session")
def photo() -> Callable[[str], RGB]:
    """``photo("skimage_astronaut.png")``: that photograph, upright, uint8 ``(H, W, 3)``."""

    def load(name: str) -> RGB:
        with Image.open(PHOTOS / name) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))

    return load


@pytest.fixture(scope="session")
def order() -> Order:
    """Of the embedded model, guided, two of its four steps to be run."""
    from afterdetail.models.catalogue import load_catalogue
    from afterdetail.models.choose import Choice
    from afterdetail.options import Base, Sampler
    from afterdetail.studio import Order

    return Order(
        choice=Choice(load_catalogue("tiny").bases()[Base.SD15]),
        image=np.full((64, 64, 3), 90, np.uint8),
        mask=np.full((64, 64), 255, np.uint8),
        prompt="a face",
        negative_prompt="",
        sampler=Sampler.DDIM,
        steps=4,
        strength=0.5,
        guidance_scale=7.5,
        seed=3,
    )


@pytest.fixture(scope="module")
def studio() -> Iterator[LocalStudio]:
    """Of this process, with nothing loaded yet."""
    from afterdetail.studio import make_studio

    made = make_studio("cpu")
    yield made
    made.close()


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application behind a port of its own on loopback, spoken to by real clients."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < end, "the server does not start"
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    yield f"http://{host}:{port}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="session")
def on_loopback() -> Callable[[FastAPI], AbstractContextManager[str]]:
    """``with on_loopback(app) as url:`` serves an application."""
    return served
