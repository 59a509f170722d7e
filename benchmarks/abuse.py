"""What no honest client does: clients that leave, damaged files, requests made up by a machine."""

from __future__ import annotations

import io
import random
import re
import shutil
import socket
import subprocess
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from PIL import Image, ImageCms

from benchmarks.serving import PHOTO, Server, photograph, request, table

DISCONNECTS = 1000
FILES = 10_000
EXAMPLES = 100
CLIENTS = 4
PNG = b"\x89PNG\r\n\x1a\n"
EXTREMES = (bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1")


@cache
def seeds() -> tuple[bytes, ...]:
    """Files of every kind that is taken: 96x64, without a face."""
    image = Image.open(PHOTO).convert("RGB").crop((0, 300, 96, 364))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    extras = {
        "exif": exif,
        "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    }
    grey = image.convert("L")
    return (
        _saved(image, "PNG"),
        _saved(image.convert("P"), "PNG", **extras),
        _saved(image.convert("RGBA"), "PNG"),
        _saved(grey.point(lambda value: value * 257, "I").convert("I;16"), "PNG"),
        _saved(image.convert("1"), "PNG"),
        _saved(image, "JPEG"),
        _saved(image, "JPEG", progressive=True, **extras),
        _saved(image.convert("CMYK"), "JPEG"),
        _saved(image, "WEBP"),
        _saved(image.convert("RGBA"), "WEBP", lossless=True, **extras),
    )


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def damaged(number: int) -> bytes:
    """A file with some of its bytes changed, left out or put in; the same for the same number."""
    draw = random.Random(number)
    data = bytearray(draw.choice(seeds()))
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        reach = len(data) if draw.random() < 0.5 else min(len(data), 120)  # headers more often
        place, some = draw.randrange(reach), draw.choice((1, 2, 4, 100))
        match draw.randrange(5):
            case 0:
                data[place] = draw.randrange(256)
            case 1:
                data[place] ^= 1 << draw.randrange(8)
            case 2:
                data[place + 1 : place + 1 + some] = b""
            case 3:
                data[place:place] = draw.randbytes(some)
            case _:
                data[place : place + 4] = draw.choice(EXTREMES)
    return _with_checksums(bytes(data)) if draw.random() < 0.7 else bytes(data)


def _with_checksums(data: bytes) -> bytes:
    """A PNG's checksums made right again, so that the damage gets as far as its decoder."""
    if not data.startswith(PNG):
        return data
    out, place = bytearray(PNG), len(PNG)
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunk = data[place + 4 : place + 8 + length]
        out += data[place : place + 4] + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        place += 12 + length
    return bytes(out)


def damaged_files(server: Server) -> str:
    def ask(number: int) -> int:
        return server.ask("POST", "/adetailer", request(damaged(number)))[0]

    with ThreadPoolExecutor(CLIENTS) as pool:
        statuses = Counter(pool.map(ask, range(FILES)))
    alive = server.ask("GET", "/health/live")[0] == 200
    rows = {f"answers to {FILES:,}": dict(statuses), "alive after them": "yes" if alive else "NO"}
    return table(rows)


def disconnects(server: Server) -> str:
    """Clients that leave at random moments, and what is left of them.

    One of three had asked for the asynchronous form and left before its request was whole.
    """
    body = request(photograph(512), steps=50)
    names = ("afterdetail_queue_requests", "afterdetail_engine_jobs", "afterdetail_queue_bytes")
    files = server.process.num_fds()

    def leave(number: int) -> None:
        draw = random.Random(number)
        later = number % 3 == 0
        head = "POST /adetailer HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        head += "X-OctoAI-Async: 1\r\n" * later + f"Content-Length: {len(body)}\r\n\r\n"
        message = head.encode() + body
        sent = draw.randrange(len(message)) if later or draw.random() < 0.5 else len(message)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(message[:sent])
            time.sleep(draw.uniform(0, 0.2))

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(leave, range(DISCONNECTS)))
    end = time.monotonic() + 60
    while any(server.metric(name) for name in names) and time.monotonic() < end:
        time.sleep(0.1)
    left = {name.removeprefix("afterdetail_"): int(server.metric(name)) for name in names}
    return table(
        {f"left after {DISCONNECTS:,}": left}
        | {
            "open files before and after": f"{files}, {server.process.num_fds()}",
            "files of jobs": len([*server.state_dir.glob("*.request")]),
        }
    )


def made_up_requests(server: Server) -> str:
    """By schemathesis, if it is there, from the page that describes the API.

    That a picture is sent in one of two fields is more than the page can say, so that "valid data
    is accepted" is not among the checks; all others are: no server error, no status, header or body
    that the page does not know.
    """
    found = shutil.which("schemathesis")
    if found is None:
        return "Not taken: `schemathesis` is not on the path."
    page = f"http://127.0.0.1:{server.port}/openapi.json"
    options = ["--exclude-checks", "positive_data_acceptance", "--continue-on-failure"]
    done = subprocess.run(
        [found, "run", page, *options, "--max-examples", str(EXAMPLES), "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=server.state_dir,  # it leaves a folder of its own
    )
    cases = re.search(r"[\d,]+ generated.*", done.stdout)
    told = cases[0].strip() if cases else "no summary"
    return f"{'Passed' if done.returncode == 0 else 'FAILED'}: test cases: {told}"
