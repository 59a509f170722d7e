"""A hub on the loopback, a machine that has no other network, and how its cache looks."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = 'kind = "detector"\nfile = "face.pt"'
FOLDER = 'kind = "base"\nbase = "sd15"'
"""What an entry of a catalogue says of one file and of a folder, see ``Machine.catalogue``."""
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "image_encoder": [None, None],
    "text_encoder": [None, None],  # as SDXL's refiner has it
}
DIFFUSERS = {
    "model_index.json": json.dumps(INDEX).encode(),
    "everything.safetensors": b"too much",
    "unet/config.json": b'{"a": 1}',
    "unet/diffusion_pytorch_model.bin": b"a pickle",
    "unet/diffusion_pytorch_model.safetensors": b"float32",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"float16",
    "tokenizer/vocab.json": b"{}",
    "safety_checker/model.safetensors": b"not ours",
}


@dataclass
class Hub:
    """A hub of one repository, ``someone/things``."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    announced: dict[str, str] = field(default_factory=dict)
    """The sha256 it claims a file has."""
    cut: dict[str, int] = field(default_factory=dict)
    """How many bytes of a file it sends before it hangs up, once."""
    stalled: set[str] = field(default_factory=set)
    """The files after whose bytes nothing more happens until ``go_on``."""
    go_on: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)
    """``METHOD path`` and, where one was asked for, the range."""

    def fetched(self) -> list[str]:
        """The files that were downloaded, in order."""
        gets = [line for line in self.requests if line.startswith("GET") and "/resolve/" in line]
        return [line.split(f"/resolve/{COMMIT}/")[-1].split("/resolve/main/")[-1] for line in gets]


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        asked = self.headers.get("Range", "")
        self.hub.requests.append(f"{self.command} {self.path} {asked}".strip())
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/models/someone/things/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                for name, data in self.hub.files.items()
            ]
            self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"}, body)
        elif path.startswith("/api/models/someone/things"):
            siblings = [{"rfilename": name} for name in self.hub.files]
            info = {"id": "someone/things", "sha": COMMIT, "siblings": siblings}
            self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, body)
        elif path.startswith("/someone/things/resolve/"):
            self._file(path.split("/", 5)[5], asked, body)
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)

    def _file(self, name: str, asked: str, body: bool) -> None:
        if name not in self.hub.files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, body)
            return
        data = self.hub.files[name]
        digest = self.hub.announced.get(name) or hashlib.sha256(data).hexdigest()
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if start else 200, data[start:], headers, body, cut=name)

    def _send(
        self, status: int, data: bytes, headers: dict[str, str], body: bool, cut: str = ""
    ) -> None:
        self.send_response(status)
        for key, text in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, text)
        self.end_headers()
        if body:
            self.wfile.write(data[: self.hub.cut.pop(cut, len(data))])
            if cut in self.hub.stalled:
                self.hub.go_on.wait(200)
        self.close_connection = True


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on the loopback, empty."""
    hub = Hub()
    handler = type("HubHandler", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class Answer:
    """What a call in the other process gave: the text is a path, or the error's."""

    kind: str
    text: str
    public: str = ""


CALL = """
import json, os, resource, sys, time
from afterdetail.errors import AfterdetailError
from afterdetail.models import store
from afterdetail.models.catalogue import load_catalogue

catalogue, name, function = sys.argv[1:]
if "IMPATIENT" in os.environ:  # the hub client waits 23 seconds in all before it gives up
    time.sleep = lambda seconds: None
if "LARGEST_FILE" in os.environ:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LARGEST_FILE"]),) * 2)
try:
    path = getattr(store, function)(load_catalogue(catalogue).find(None, name))
    print(json.dumps(["path", str(path)]))
except AfterdetailError as error:
    print(json.dumps([type(error).__name__, str(error), error.public]))
"""


@dataclass(frozen=True)
class Machine:
    """A machine with a cache of its own, and the hub as its only network."""

    folder: Path
    hub: Hub

    def call(
        self, function: str, entry: str, *, stderr: int = subprocess.PIPE, **environment: str
    ) -> Answer:
        """What a function of the store says to the entry."""
        command = ["-c", CALL, self.catalogue(entry), "thing", function]
        process = self.start(command, stderr=stderr, **environment)
        said, complaint = process.communicate(timeout=200)
        assert process.returncode == 0, complaint
        return Answer(*json.loads(said.splitlines()[-1]))

    def start(
        self, command: list[str], *, stderr: int = subprocess.PIPE, **environment: str
    ) -> subprocess.Popen[str]:
        """A python process."""
        ours = {
            "HF_HOME": str(self.folder / "hf"),
            "HF_ENDPOINT": self.hub.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            **environment,
        }
        return subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **ours},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def catalogue(self, entry: str) -> str:
        """A file whose first entry is ``thing``, of the hub."""
        file = self.folder / "models.toml"
        file.write_text(f'[[model]]\nname = "thing"\nhub = "someone/things"\n{entry}\n')
        return str(file)

    def cached(self) -> list[Path]:
        """The files the cache holds, whole ones only."""
        blobs = (self.folder / "hf").rglob("blobs/*")
        return [path for path in blobs if path.suffix != ".incomplete"]


@contextmanager
def terminal() -> Iterator[tuple[int, bytearray]]:
    """What a process may write to, and all that it wrote: bars are for people, who have one."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    seen = bytearray()

    def read() -> None:
        with suppress(OSError):  # so it ends
            while piece := os.read(ours, 10_000):
                seen.extend(piece)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    yield theirs, seen
    os.close(theirs)
    reader.join(30)
    os.close(ours)


def in_cache(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Files as the hub client keeps them; the folder that it gives."""
    cache = folder / "models--someone--things"
    snapshot = cache / "snapshots" / COMMIT
    for name, data in files.items():
        file = snapshot / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(COMMIT)
    return snapshot
