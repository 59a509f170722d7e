"""The richer endpoint around the real detailer."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from afterdetail.config import Settings, parse_tokens
from afterdetail.server.app import create_app
from afterdetail.types import RGB

if TYPE_CHECKING:
    from tests.server.conftest import Open, Source

    from afterdetail.pipeline import Detailer

QUICK: dict[str, Any] = {"steps": 2, "strength": 0.5, "seed": 7}


def pixels(data: bytes) -> RGB:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def jobs_left(client: TestClient) -> int:
    service = client.app.state.service  # type: ignore[attr-defined]
    return int(service.loaded().engine.stats.jobs + service.admission.requests)


def wait_until_idle(client: TestClient, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while jobs_left(client):
        assert time.monotonic() < end, "work goes on, or a permit was kept"
        time.sleep(0.02)


def test_nothing_found_is_an_answer(client: TestClient) -> None:
    blank = io.BytesIO()
    Image.new("RGB", (100, 60)).save(blank, "PNG")
    for path in ("/v1/detect", "/v1/detail"):
        answer = client.post(path, json={"init_image": encoded(blank.getvalue())})
        assert answer.status_code == 200
        assert answer.json()["objects"] == []


def test_a_dry_run_tells_what_a_run_does(client: TestClient, astronaut: bytes) -> None:
    asked = {
        "init_image": encoded(astronaut),
        **QUICK,
        "stages": [{}, {"detector": "eyes_mesh_mediapipe", "objects": {"0": {"skip": True}}}],
    }
    dry = client.post("/v1/detect", json=asked).json()
    assert (dry["width"], dry["height"], dry["preview_b64"]) == (512, 512, None)
    done = client.post("/v1/detail", json=asked).json()
    assert [item.pop("outcome") for item in dry["objects"]] == ["planned", "skipped"]
    assert [item.pop("outcome") for item in done["objects"]] == ["inpainted", "skipped"]
    assert dry["objects"] == done["objects"]
    face, eyes = done["objects"]
    assert (face["seed"], face["reason"]) == (7, None)
    assert (eyes["seed"], eyes["reason"], len(eyes["polygons"])) == (
        None,
        "skipped as asked for",
        2,
    )
    assert done["num_objects_inpainted"] == 1
    assert done["timings"].keys() >= {"detect", "inpaint", "composite"}


def test_every_form_of_the_request_gives_the_same_pixels(
    client: TestClient, astronaut: bytes
) -> None:
    text = {name: str(value) for name, value in QUICK.items()}
    png = {"Accept": "image/png"}
    as_json = client.post("/v1/detail", json={"init_image": encoded(astronaut), **QUICK})
    as_form = client.post("/v1/detail", data=text, files={"image": astronaut}, headers=png)
    as_body = client.post(
        "/v1/detail",
        params=text,
        content=astronaut,
        headers={"Content-Type": "image/png", **png},
    )
    contract = client.post(
        "/adetailer",
        json={
            "init_image": encoded(astronaut),
            **QUICK,
            "detector": "face_full_mediapipe",
            "image_encoding": "png",
        },
    )
    expected = pixels(base64.b64decode(contract.json()["image_b64"]))
    for got in (base64.b64decode(as_json.json()["image_b64"]), as_form.content, as_body.content):
        np.testing.assert_array_equal(pixels(got), expected)
    assert as_body.headers["X-Objects-Inpainted"] == "1"
    assert as_body.headers["X-Objects-Detected"] == "1"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("image/webp", "application/json"),
        ("image/*", "image/png"),
        ("image/jpeg;q=0.9, application/json;q=0.8", "image/jpeg"),
        ("image/jpeg;q=0.1, application/json;q=0.8", "application/json"),
        ("image/png;q=x", "application/json"),
    ],
)
def test_the_answer_is_what_the_client_prefers(
    client: TestClient, astronaut: bytes, accept: str | None, kind: str
) -> None:
    headers = {"Content-Type": "image/png"} | ({"Accept": accept} if accept else {})
    answer = client.post("/v1/detect", content=astronaut, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == kind
    if kind.startswith("image/"):
        assert pixels(answer.content).shape == (512, 512, 3)


def test_the_preview_shows_what_would_be_repainted(client: TestClient, astronaut: bytes) -> None:
    asked = {"init_image": encoded(astronaut), "preview": True}
    dry = client.post("/v1/detect", json=asked).json()
    changed = (pixels(base64.b64decode(dry["preview_b64"])) != pixels(astronaut)).any(axis=2)
    x0, y0, x1, y1 = (int(side) for side in dry["objects"][0]["box"])
    assert changed[y0:y1, x0:x1].mean() > 0.9
    assert not changed[y1 + 20 :].any()


def test_a_picture_by_its_address(open_client: Open, source: Source) -> None:
    client = open_client(Settings(allow_private_urls=True, url_ports=(80, source.port)))
    found = client.post("/v1/detect", json={"init_image_url": source.url("/picture")}).json()
    assert [item["label"] for item in found["objects"]] == ["face"]


def events(text: str) -> list[tuple[str, Any]]:
    """Name and data of each server-sent event."""
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data in blocks
    ]


def test_progress_is_told_as_it_happens(client: TestClient, astronaut: bytes) -> None:
    asked = {"init_image": encoded(astronaut), **QUICK, "steps": 12}
    stream = client.post("/v1/detail", json=asked, headers={"Accept": "text/event-stream"})
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    told = events(stream.text)
    assert told[0] == ("found", {"stage": 0, "stages": 1, "objects": 1, "planned": 1})
    steps = [data for name, data in told if name == "step"]
    assert steps
    assert {(step["stage"], *step["ids"], step["steps"]) for step in steps} == {(0, 0, 6)}
    assert told[-2][0] == "settled"
    assert told[-2][1]["outcome"] == "inpainted"
    plain = client.post("/v1/detail", json=asked).json()
    name, result = told[-1]
    assert name == "result"
    assert {**result, "timings": 0} == {**plain, "timings": 0}


def test_an_error_on_the_way_is_the_last_event(client: TestClient, astronaut: bytes) -> None:
    asked = {"init_image": encoded(astronaut), "detector": "nobody"}
    stream = client.post("/v1/detail", json=asked, headers={"Accept": "text/event-stream"})
    ((name, told),) = events(stream.text)
    assert (name, told["status"], told["detail"][0]["loc"]) == ("error", 422, ["body", "detector"])


def test_the_deadline_ends_a_stream(open_client: Open, astronaut: bytes) -> None:
    client = open_client(Settings(request_timeout=0.5))
    asked = {"init_image": encoded(astronaut), "steps": 200, "strength": 1.0, "cfg_scale": 9}
    stream = client.post("/v1/detail", json=asked, headers={"Accept": "text/event-stream"})
    name, told = events(stream.text)[-1]
    assert (name, told["status"], told["code"]) == ("error", 504, "deadline_exceeded")
    wait_until_idle(client)


def test_a_client_who_leaves_a_stream_ends_its_work(client: TestClient, astronaut: bytes) -> None:
    """Spoken to as a server does: after the first step, the client is gone."""
    asked = {"init_image": encoded(astronaut), "steps": 200, "strength": 1.0}
    body = json.dumps(asked).encode()
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": "POST", "path": "/v1/detail", "raw_path": b"/v1/detail", "query_string": b"",
        "root_path": "", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        "headers": [
            (b"content-type", b"application/json"), (b"accept", b"text/event-stream"),
            (b"content-length", str(len(body)).encode()),
        ],
    }  # fmt: skip

    async def visit() -> None:
        began = asyncio.Event()
        sent: Iterator[dict[str, Any]] = iter([{"type": "http.request", "body": body}])

        async def receive() -> dict[str, Any]:
            first = next(sent, None)
            if first is None:
                await began.wait()
            return first or {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if b"event: step" in message.get("body", b""):
                began.set()

        await asyncio.wait_for(client.app(scope, receive, send), 30)

    client.portal.call(visit)  # type: ignore[union-attr]
    wait_until_idle(client)


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/detail"])
class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "loc"),
        [
            ({"steps": 0}, ["body", "steps"]),
            ({"detector": "face_yolov9"}, ["body", "detector"]),
            ({"detector": "/etc/passwd.pt"}, ["body", "detector"]),
            ({"inpaint_size": "64x64"}, ["body", "inpaint_size"]),
            ({"prompt": "<lora:none>"}, ["body", "loras"]),
            ({"init_image": "AAAA"}, ["body", "init_image"]),
            ({"init_image": "?"}, ["body", "init_image"]),
        ],
    )
    def test_what_is_wrong_is_named(
        self,
        client: TestClient,
        astronaut: bytes,
        path: str,
        fields: dict[str, Any],
        loc: list[str],
    ) -> None:
        answer = client.post(path, json={"init_image": encoded(astronaut), **fields})
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == loc
        assert "passwd" not in answer.text or "/etc/passwd.pt" in fields["detector"]
        wait_until_idle(client)

    def test_other_bodies(self, client: TestClient, path: str) -> None:
        for kind in ("text/plain", "image/gif", "application/x-www-form-urlencoded"):
            answer = client.post(path, content=b"x", headers={"Content-Type": kind})
            assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")

    def test_a_body_over_the_limit(self, open_client: Open, path: str) -> None:
        client = open_client(Settings(max_body_bytes=1000))
        answer = client.post(path, content=b"x" * 1001, headers={"Content-Type": "image/png"})
        assert answer.status_code == 413

    def test_without_a_token(self, open_client: Open, path: str, astronaut: bytes) -> None:
        client = open_client(Settings(tokens=parse_tokens("anna:12345678")))
        headers = {"Content-Type": "image/png"}
        assert client.post(path, content=astronaut, headers=headers).status_code == 401

    def test_while_loading(self, path: str) -> None:
        loading: Future[Detailer] = Future()
        with TestClient(create_app(loading, Settings())) as early:
            answer = early.post(path, json={})
            assert (answer.status_code, answer.json()["code"]) == (503, "loading")


def test_a_stream_counts_as_work_under_way(client: TestClient, astronaut: bytes) -> None:
    asked = {"init_image": encoded(astronaut), **QUICK}
    client.post("/v1/detail", json=asked, headers={"Accept": "text/event-stream"})
    wait_until_idle(client)
    assert client.app.state.service.door.count == 0  # type: ignore[attr-defined]
