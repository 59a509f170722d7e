"""Rows 26 to 30: what no client can cause, through HTTP and the fault hook."""

from __future__ import annotations

import base64
import importlib.util
import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from afterdetail.config import Settings
from afterdetail.server.app import create_app

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer

Body = dict[str, object]


def hook_module() -> ModuleType:
    """``faults.py`` beside this file, which pytest does not put on the path."""
    spec = importlib.util.spec_from_file_location("faults", Path(__file__).with_name("faults.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module
    spec.loader.exec_module(module)
    return module


faults = hook_module()


@pytest.fixture
def fresh() -> Iterator[Detailer]:
    """A detailer of the test's own, to be broken."""
    from afterdetail.pipeline import Detailer

    with Detailer("tiny") as mine:
        yield mine


@pytest.fixture
def two_faces(body: Body, astronaut: bytes) -> Body:
    tile = np.asarray(Image.open(io.BytesIO(astronaut)).convert("RGB"))
    out = io.BytesIO()
    Image.fromarray(np.tile(tile, (2, 2, 1))).save(out, "PNG")
    picture = base64.b64encode(out.getvalue()).decode()
    return body | {"init_image": picture, "max_num_detections": 2, "steps": 1}


Open = Callable[..., TestClient]


@pytest.fixture
def with_hook(fresh: Detailer, monkeypatch: pytest.MonkeyPatch) -> Open:
    """A client of a server whose models have the hook."""

    def opened(hook: Any, **settings: Any) -> TestClient:
        hook.put_in(monkeypatch.setattr)
        return TestClient(create_app(fresh, Settings(**settings)))

    return opened


def test_row_26_one_object_fails_and_the_other_is_done(with_hook: Open, two_faces: Body) -> None:
    """Both together fail, then each alone: the first succeeds."""
    hook = faults.Hook({1: faults.fails, 3: faults.fails})
    with with_hook(hook) as client:
        answer = client.post("/adetailer", json=two_faces)
    assert answer.status_code == 200
    assert answer.headers["X-Objects-Failed"] == "1"
    assert (answer.json()["num_objects_inpainted"], answer.json()["num_objects_detected"]) == (1, 4)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("fails", 500, "inpaint_failed"),
        ("out_of_memory", 503, "out_of_memory"),
        ("not_a_number", 500, "inpaint_failed"),
    ],
    ids=["row 26", "row 27", "row 29"],
)
def test_if_all_fail_the_request_does_and_the_next_succeeds(
    with_hook: Open, two_faces: Body, fault: str, status: int, code: str
) -> None:
    hook = faults.Hook(always=getattr(faults, fault))
    with with_hook(hook) as client:
        answer = client.post("/adetailer", json=two_faces)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert "secret" not in answer.text
        assert "kernel" not in answer.text
        assert client.get("/health/live").status_code == 200
        hook.always = None
        assert client.post("/adetailer", json=two_faces).status_code == 200


def test_row_27_out_of_memory_halves_the_batch(with_hook: Open, two_faces: Body) -> None:
    hook = faults.Hook({1: faults.out_of_memory})
    with with_hook(hook) as client:
        answer = client.post("/adetailer", json=two_faces)
    assert answer.status_code == 200
    assert answer.json()["num_objects_inpainted"] == 2
    assert "X-Objects-Failed" not in answer.headers


def test_row_30_a_hung_engine_is_not_live(with_hook: Open, body: Body) -> None:
    release = threading.Event()
    hook = faults.Hook({1: faults.hangs(release)})
    settings = {"hung_after": 0.5}
    with with_hook(hook, **settings) as client:
        asking = threading.Thread(target=lambda: client.post("/adetailer", json=body))
        asking.start()
        began = time.monotonic()
        while client.get("/health/live").status_code == 200:
            assert time.monotonic() - began < 10
            time.sleep(0.02)
        answer = client.get("/health/live")
        assert (answer.status_code, answer.json()["code"]) == (503, "engine_stopped")
        release.set()
        asking.join()
        while client.get("/health/live").status_code != 200:
            assert time.monotonic() - began < 20
            time.sleep(0.02)


def test_row_30_a_dead_engine_is_not_live_and_nobody_waits_for_it(
    with_hook: Open, body: Body
) -> None:
    with with_hook(faults.Hook(always=faults.dies)) as client:
        for _ in range(2):
            answer = client.post("/adetailer", json=body)
            assert (answer.status_code, answer.json()["code"]) == (503, "engine_stopped")
        assert client.get("/health/live").status_code == 503


def test_row_28_a_lost_device_is_told(with_hook: Open, body: Body) -> None:
    """That the process then ends is tested with the process."""
    with with_hook(faults.Hook(always=faults.device_lost)) as client:
        answer = client.post("/adetailer", json=body)
    assert (answer.status_code, answer.json()["code"]) == (503, "device_lost")
    assert "CUDA" not in answer.text
