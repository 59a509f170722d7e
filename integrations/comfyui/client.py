"""Talks to ``/v1`` of an afterdetail server, with what Python has."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

SERVER = "http://127.0.0.1:8000"
"""Unless AFTERDETAIL_URL says otherwise."""
TIMEOUT = 600
"""Seconds without a word from the server; while it works it speaks every few seconds."""

REFUSED = (
    "{url} ended the connection before it had the whole picture: "
    "the token in AFTERDETAIL_TOKEN is missing or wrong, or the picture is over its limit"
)
"""A server that refuses by the headers alone does not read on, and its words may be lost."""

Listener = Callable[[str, Mapping[str, Any]], None]
"""Is told the name and the data of each event: ``found``, ``step``, ``settled``."""


class ServerError(RuntimeError):
    """What the server answered instead of a picture."""


def detect(server: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """``POST /v1/detect``. Raises ServerError."""
    with _post(server, "/v1/detect", body, "application/json") as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def detail(server: str, body: Mapping[str, Any], listener: Listener) -> dict[str, Any]:
    """``POST /v1/detail``. Whatever the listener raises ends the work on the server, too.

    Raises:
        ServerError: the server refused, failed, or is not there.
    """
    with _post(server, "/v1/detail", body, "text/event-stream") as response:
        for name, data in _events(response):
            if name == "result":
                return data
            if name == "error":
                raise ServerError(_told(data))
            listener(name, data)
    raise ServerError("the server ended without an answer; its log may say why")


def _post(server: str, path: str, body: Mapping[str, Any], accept: str) -> Any:
    url = (server or os.environ.get("AFTERDETAIL_URL") or SERVER).rstrip("/") + path
    if not url.startswith(("http://", "https://")):
        raise ServerError(f"the server is an http address such as {SERVER}, not {server!r}")
    headers = {"Content-Type": "application/json", "Accept": accept}
    token = os.environ.get("AFTERDETAIL_TOKEN")  # not in workflows: people share those
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            raise ServerError(_told(_json(error.read()), error.code)) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, BrokenPipeError | ConnectionResetError):
            raise ServerError(REFUSED.format(url=url)) from None
        raise ServerError(
            f"no afterdetail server at {url} ({error.reason}); start one: afterdetail serve"
        ) from None


def _events(response: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events as this server writes them: a name, then one line of JSON."""
    name = ""
    for line in response:
        if line.startswith(b"event: "):
            name = line[7:].decode().strip()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


def _json(text: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _told(answer: Mapping[str, Any], status: int | None = None) -> str:
    """The server's own words."""
    detail = answer.get("detail")
    if isinstance(detail, list):
        return "; ".join(f"{'.'.join(map(str, p['loc'][1:]))}: {p['msg']}" for p in detail)
    return str(detail or f"the server answered {status or answer.get('status')}")
