"""Bad pictures and hard ones, through HTTP; the numbers are those of the table of faults."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import time
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from afterdetail.config import Settings
from afterdetail.server.app import create_app
from afterdetail.types import RGB

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import Open, Source

    from afterdetail.pipeline import Detailer

Body = dict[str, object]
JSON = {"Content-Type": "application/json"}


def saved(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png(width: int, height: int, *extra: bytes) -> bytes:
    """A black PNG of 1 bit a pixel, written without holding its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()
    body = b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


GRAY = Image.new("RGB", (512, 512), "gray")
FRAMES = [GRAY, Image.new("RGB", (512, 512), "white")]
PICTURES: dict[str, tuple[bytes, str]] = {
    "1 empty": (b"", "image_empty"),
    "2 GIF": (saved(GRAY, "GIF"), "image_unsupported"),
    "2 BMP": (saved(GRAY, "BMP"), "image_unsupported"),
    "2 TIFF": (saved(GRAY, "TIFF"), "image_unsupported"),
    "2 EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image_unsupported"),
    "2 PSD": (b"8BPS\0\1" + bytes(20), "image_unsupported"),
    "2 FITS": (b"SIMPLE  =                    T" + b" " * 2850, "image_unsupported"),
    "2 SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image_unsupported"),
    "2 AVIF": (b"\0\0\0 ftypavif" + bytes(64), "image_unsupported"),
    "2 text": (b"hello", "image_unsupported"),
    "3 truncated JPEG": (saved(GRAY, "JPEG")[:-1000], "image_corrupt"),
    "3 truncated PNG": (saved(GRAY)[:-30], "image_corrupt"),
    "3 PNG with a bad CRC": (saved(GRAY).replace(b"IDAT", b"IDAU", 1), "image_corrupt"),
    "4 pixel bomb": (png(12_000, 12_000), "image_too_large"),
    "4 metadata bomb": (
        png(512, 512, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000), 9))),
        "image_too_large",
    ),
    "8 1x1": (png(1, 1), "image_dimensions"),
    "8 1x20000": (png(1, 20_000), "image_dimensions"),
    "8 unlisted": (png(500, 500), "image_dimensions"),
    "8 listed, but turned": (png(704, 512), "image_dimensions"),
    "9 animated PNG": (
        saved(FRAMES[0], save_all=True, append_images=FRAMES[1:]),
        "image_animated",
    ),
    "9 animated WebP": (
        saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]),
        "image_animated",
    ),
}


def sent(body: Body, data: bytes, **fields: object) -> Body:
    return body | {"init_image": base64.b64encode(data).decode()} | fields


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_are_refused(client: TestClient, body: Body, name: str) -> None:
    data, code = PICTURES[name]
    began = time.monotonic()
    response = client.post("/adetailer", json=sent(body, data))
    assert time.monotonic() - began < 2
    assert response.status_code == 422
    (problem,) = response.json()["detail"]
    assert (problem["loc"], problem["type"]) == (["body", "init_image"], code)


def test_an_unlisted_size_is_told_the_list(client: TestClient, body: Body) -> None:
    response = client.post("/adetailer", json=sent(body, png(500, 500)))
    message = response.json()["detail"][0]["msg"]
    assert "500x500" in message
    assert "384x704, 448x576, 512x512" in message


def test_resolutions_any_takes_any_size(open_client: Open, body: Body) -> None:
    response = open_client(Settings(resolutions="any")).post(
        "/adetailer", json=sent(body, png(500, 333))
    )
    assert response.status_code == 200
    assert answered(response).size == (500, 333)


class TestBodyLimit:
    """Row 5."""

    @pytest.fixture(scope="class")
    @staticmethod
    def small(open_client: Open) -> TestClient:
        return open_client(Settings(max_body_bytes=1000))

    def test_by_length(self, small: TestClient) -> None:
        response = small.post("/adetailer", content=b" " * 1001, headers=JSON)
        assert response.status_code == 413
        assert response.json()["code"] == "body_too_large"
        assert "1,000 bytes" in response.json()["detail"]

    def test_in_chunks(self, small: TestClient) -> None:
        def chunks() -> Iterator[bytes]:
            yield from [b" " * 100] * 11

        response = small.post("/adetailer", content=chunks(), headers=JSON)
        assert response.status_code == 413

    def test_up_to_it(self, small: TestClient) -> None:
        response = small.post("/adetailer", content=b" " * 1000, headers=JSON)
        assert response.status_code == 422

    @pytest.mark.parametrize(
        ("length", "received"), [(b"1000000000", 0), (b"9" * 100, 0), (b"-1", 0), (None, 11)]
    )
    def test_no_further_than_needed(
        self, detailer: Detailer, length: bytes | None, received: int
    ) -> None:
        """The body never ends; what the application takes of it is counted."""
        headers = [(b"content-type", b"application/json")]
        headers += [(b"content-length", length)] if length else []
        scope = {"type": "http", "method": "POST", "path": "/adetailer", "headers": headers}
        taken, statuses = [], []

        async def receive() -> dict[str, Any]:
            taken.append(1)
            return {"type": "http.request", "body": b" " * 100, "more_body": True}

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        app = create_app(detailer, Settings(max_body_bytes=1000))
        asyncio.run(app(scope | {"query_string": b"", "raw_path": b"/adetailer"}, receive, send))
        assert statuses[0] == 413
        assert len(taken) == received


def answered(response: Any) -> Image.Image:
    assert response.status_code == 200, response.text[:500]
    return Image.open(io.BytesIO(base64.b64decode(response.json()["image_b64"])))


@pytest.fixture(scope="module")
def coffee(photos: Path) -> Image.Image:
    """A photograph without faces, 448x576."""
    with Image.open(photos / "skimage_coffee.png") as image:
        return image.convert("RGB").crop((76, 0, 524, 400)).resize((448, 576))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_row_10_every_orientation_comes_back_upright(
    client: TestClient, body: Body, coffee: Image.Image, orientation: int
) -> None:
    """Stored as the camera would have held it, so that turning it gives the photograph."""
    stored_by: dict[int, list[Image.Transpose]] = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = coffee
    for turn in stored_by.get(orientation, []):
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    response = client.post("/adetailer", json=sent(body, saved(stored, exif=exif)))
    assert np.array_equal(np.asarray(answered(response)), np.asarray(coffee))


class TestModes:
    """Row 11: 8 bit, colours right; alpha kept in PNG."""

    def test_alpha_is_kept_in_png(
        self, client: TestClient, body: Body, coffee: Image.Image
    ) -> None:
        image = coffee.copy()
        image.putalpha(Image.linear_gradient("L").resize(coffee.size))
        got = answered(client.post("/adetailer", json=sent(body, saved(image))))
        assert got.mode == "RGBA"
        assert np.array_equal(np.asarray(got), np.asarray(image))

    @pytest.mark.parametrize("mode", ["P", "L", "LA", "1"])
    def test_modes_of_png(
        self, client: TestClient, body: Body, coffee: Image.Image, mode: str
    ) -> None:
        image = coffee.convert(mode)
        got = answered(client.post("/adetailer", json=sent(body, saved(image))))
        expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(np.asarray(got.convert("RGB")), expected)

    def test_cmyk_keeps_its_colours(
        self, client: TestClient, body: Body, coffee: Image.Image
    ) -> None:
        data = saved(coffee.convert("CMYK"), "JPEG", quality=95)
        got = answered(client.post("/adetailer", json=sent(body, data)))
        difference = np.asarray(got).astype(int) - np.asarray(coffee)
        assert np.abs(difference).mean() < 3

    def test_16_bit_is_scaled(self, client: TestClient, body: Body) -> None:
        ramp: npt.NDArray[np.uint16] = np.tile(
            np.linspace(0, 65535, 512).astype(np.uint16), (512, 1)
        )
        got = answered(client.post("/adetailer", json=sent(body, saved(Image.fromarray(ramp)))))
        assert np.abs(np.asarray(got)[..., 0].astype(int) - ramp / 257).max() <= 1


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "url_invalid"),
        ("file:///etc/hostname", "url_invalid"),
        ("http://user@example.org/", "url_invalid"),
        ("http:\\\\example.org/", "url_invalid"),
        ("http://127.0.0.1/", "url_blocked"),
        ("http://2130706433/", "url_blocked"),
        ("http://0177.1/", "url_blocked"),
        ("http://[::ffff:a9fe:a9fe]/", "url_blocked"),
        ("http://[64:ff9b::7f00:1]/", "url_blocked"),
        ("http://0.0.0.0/", "url_blocked"),
        ("http://localhost/", "url_blocked"),
    ],
)
def test_rows_12_and_13_urls_that_are_refused(
    client: TestClient, body: Body, url: str, code: str
) -> None:
    response = client.post("/adetailer", json=body | {"init_image": None, "init_image_url": url})
    assert response.status_code == 422
    (problem,) = response.json()["detail"]
    assert (problem["loc"], problem["type"]) == (["body", "init_image_url"], code)


class TestSources:
    """Rows 14 and 15, and pictures that are refused only once they are here."""

    @pytest.mark.parametrize(
        ("path", "status", "code"),
        [
            ("/redirect?http://10.0.0.1/", 422, "url_blocked"),
            ("/redirect?http://localhost/", 422, "url_blocked"),
            ("/hang", 504, "url_timeout"),
            ("/drip", 504, "url_timeout"),
            ("/500", 502, "url_failed"),
            ("/404", 502, "url_failed"),
            ("/cut", 502, "url_failed"),
            ("/endless", 422, "url_too_large"),
            ("/declared", 422, "url_too_large"),
            ("/empty", 422, "image_empty"),
            ("/text", 422, "image_unsupported"),
        ],
    )
    def test_what_they_do(
        self, detailer: Detailer, body: Body, source: Source, path: str, status: int, code: str
    ) -> None:
        settings = Settings(
            url_ports=(source.port, 80),
            allow_private_urls=True,
            url_deny_hosts=("localhost", "10.0.0.1"),
            url_timeout=0.5 if status == 504 else 10,  # a busy machine may be slow, too
            max_url_bytes=2_000_000,
        )
        request = body | {"init_image": None, "init_image_url": source.url(path)}
        with TestClient(create_app(detailer, settings)) as client:
            response = client.post("/adetailer", json=request)
        assert response.status_code == status
        if status == 422:
            (problem,) = response.json()["detail"]
            assert (problem["loc"], problem["type"]) == (["body", "init_image_url"], code)
        else:
            assert response.json()["code"] == code
        assert "127.0.0.1" not in response.text


@pytest.mark.parametrize(
    "fields",
    [
        {"checkpoint": "../../../etc/passwd"},
        {"checkpoint": "/etc/passwd"},
        {"checkpoint": "tiny"},
        {"loras": {"..\\..\\windows": 1}},
        {"loras": {"": 1}},
        {"style_preset": "../styles"},
    ],
)
def test_row_17_names_are_never_paths(client: TestClient, body: Body, fields: Body) -> None:
    response = client.post("/adetailer", json=body | fields)
    assert response.status_code == 422
    (problem,) = response.json()["detail"]
    assert problem["loc"] == ["body", *fields]
    assert problem["type"] == "unknown_name"


def test_row_20_a_picture_without_faces_comes_back_as_it_was(
    client: TestClient, body: Body, coffee: Image.Image
) -> None:
    response = client.post("/adetailer", json=sent(body, saved(coffee)))
    assert np.array_equal(np.asarray(answered(response)), np.asarray(coffee))
    answer = response.json()
    del answer["image_b64"]
    assert set(answer.values()) == {0}
    assert "X-Objects-Failed" not in response.headers


def test_row_21_the_objects_of_a_picture_are_bounded(body: Body) -> None:
    """At confidence 0 the detector has a face in every corner; the two best are repainted."""
    from afterdetail.pipeline import Detailer

    settings = Settings()
    with (
        Detailer("tiny", max_objects=2) as detailer,
        TestClient(create_app(detailer, settings)) as client,
    ):
        answer = client.post("/adetailer", json=body | {"confidence": 0}).json()
    assert answer["num_objects_detected"] > 20
    assert answer["num_objects_inpainted"] == 2


@pytest.mark.parametrize(("left", "top"), [(0, 0), (170, 60), (190, 68)])
def test_row_22_outside_the_masks_no_bit_changes(
    client: TestClient, detailer: Detailer, body: Body, astronaut: bytes, left: int, top: int
) -> None:
    """A face inside the picture, in its corner, and cut off by its edge."""
    photo = np.asarray(Image.open(io.BytesIO(astronaut)).convert("RGB"))
    picture = np.full_like(photo, 128)
    picture[: 512 - top, : 512 - left] = photo[top:, left:]
    found = detailer.detect(picture)
    response = client.post("/adetailer", json=sent(body, saved(Image.fromarray(picture))))
    got: RGB = np.asarray(answered(response))
    changed = (got != picture).any(axis=2)
    assert response.json()["num_objects_inpainted"] == len(found) == 1
    box = found[0].box
    reach = 2 + 3 * 4  # half the dilation, and three sigmas of the blur
    y0, x0 = max(0, int(box.y0) - reach), max(0, int(box.x0) - reach)
    inside = np.zeros_like(changed)
    inside[y0 : int(box.y1) + reach + 1, x0 : int(box.x1) + reach + 1] = True
    assert changed.any()
    assert not changed[~inside].any()


def test_row_22_a_face_of_four_pixels(detailer: Detailer, astronaut: bytes) -> None:
    """No detector sees one; here it is drawn."""
    photo = np.asarray(Image.open(io.BytesIO(astronaut)).convert("RGB"))
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[100:102, 300:302] = 255
    result = detailer.inpaint(photo, mask, steps=2, seed=1)
    assert result.num_objects_inpainted == 1
    changed = (result.picture.rgb != photo).any(axis=2)
    rows, columns = np.nonzero(changed)
    reach = 2 + 3 * 4
    assert changed.sum() > 0
    assert (100 - reach, 300 - reach) <= (rows.min(), columns.min())
    assert max(rows.max() - 101, columns.max() - 301) <= reach


def test_row_24_past_its_time_a_request_ends(detailer: Detailer, body: Body) -> None:
    settings = Settings(request_timeout=0.3)
    slow = body | {"steps": 200, "sampler": "DDPM"}
    with TestClient(create_app(detailer, settings)) as client:
        began = time.monotonic()
        response = client.post("/adetailer", json=slow)
        passed = time.monotonic() - began
    assert response.status_code == 504
    assert response.json()["code"] == "deadline_exceeded"
    assert passed < 3
