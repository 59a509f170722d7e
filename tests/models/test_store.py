"""Where models lie and how they get there; the hub is a server on the loopback."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
from safetensors.torch import save as safetensors

from afterdetail.errors import ModelUnavailable, WeightsError
from afterdetail.models.catalogue import Kind, ModelSpec, Source, built_in
from afterdetail.models.store import locate, needed_files, pull, verify

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
DETECTOR = ModelSpec("mine", Kind.DETECTOR, Source(path="/nowhere/mine.pt"))


# What is on this machine.


@pytest.mark.parametrize("name", ["tiny", "face_full_mediapipe", "hand_mediapipe"])
def test_what_the_package_ships_is_there(name: str) -> None:
    assert locate(built_in().find(None, name)).exists()


def test_a_file_of_the_users_is_where_he_says(tmp_path: Path) -> None:
    (tmp_path / "own.pt").touch()
    spec = ModelSpec("own", Kind.DETECTOR, Source(path=str(tmp_path / "own.pt")))
    assert locate(spec) == tmp_path / "own.pt"
    assert pull(spec) == tmp_path / "own.pt"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            Source(path="/nowhere/mine.pt"),
            "no /nowhere/mine.pt; put it there or mend the catalogue",
        ),
        (Source(package="weights/gone.tflite"), "gone.tflite; reinstall afterdetail"),
    ],
)
def test_a_missing_file_says_what_to_do(source: Source, message: str) -> None:
    with pytest.raises(ModelUnavailable, match=message) as error:
        locate(ModelSpec("mine", Kind.DETECTOR, source))
    assert error.value.public == "mine is not on this server"


def test_checksums_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    path.write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    source = Source(path=str(path))
    verify(ModelSpec("own", Kind.DETECTOR, source), path)
    verify(ModelSpec("own", Kind.DETECTOR, source, sha256=right), path)
    with pytest.raises(WeightsError, match=r"own\.pt is not the own of the catalogue: sha256"):
        verify(ModelSpec("own", Kind.DETECTOR, source, sha256="0" * 64), path)
    with pytest.raises(WeightsError, match="replace it or mend the catalogue"):
        pull(ModelSpec("own", Kind.DETECTOR, source, sha256="0" * 64))


REPOSITORY = [
    "README.md",
    "model_index.json",
    "v1-5-pruned.safetensors",
    "v1-5-pruned.ckpt",
    "scheduler/scheduler_config.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "vae/deep/model.safetensors",
    "vae_1_0/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors",
    "text_encoder/model.safetensors.index.json",
    "text_encoder/openvino_model.bin",
    "text_encoder/flax_model.msgpack",
    "safety_checker/model.safetensors",
]


def test_only_what_repainting_loads_is_needed() -> None:
    components = ["scheduler", "tokenizer", "unet", "vae", "text_encoder"]
    assert needed_files([], []) == ["model_index.json"]
    assert needed_files(REPOSITORY, components) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.json",
    ]


# Pulling, in a process of its own: the hub client reads its environment when it is imported.


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


@pytest.fixture
def hub() -> Iterator[Hub]:
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


@pytest.fixture
def machine(tmp_path: Path, hub: Hub) -> Machine:
    return Machine(tmp_path, hub)


FILE = 'kind = "detector"\nfile = "face.pt"'
FOLDER = 'kind = "base"\nbase = "sd15"'
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


def test_a_file_is_pulled_once_and_found_without_network(machine: Machine, hub: Hub) -> None:
    hub.files["face.pt"] = WEIGHTS
    missing = machine.call("locate", FILE)
    assert missing.kind == "ModelUnavailable"
    assert "no face.pt of someone/things in " in missing.text
    assert missing.text.endswith("get it with: afterdetail models pull thing")
    assert missing.public == "thing is not on this server"
    assert hub.requests == []

    pulled = machine.call("pull", f'{FILE}\nsha256 = "{SHA256}"')
    assert pulled.kind == "path"
    assert Path(pulled.text).read_bytes() == WEIGHTS
    assert machine.call("pull", FILE) == pulled
    assert hub.fetched() == ["face.pt"]

    hub.requests.clear()
    assert machine.call("locate", FILE) == pulled
    assert hub.requests == []


def test_of_a_diffusers_repository_only_the_needed_files_are_pulled(
    machine: Machine, hub: Hub
) -> None:
    hub.files |= DIFFUSERS
    pulled = machine.call("pull", FOLDER)
    assert pulled.kind == "path"
    assert sorted(hub.fetched()) == [
        "model_index.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
    ]
    assert machine.call("locate", FOLDER) == pulled


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (r"unet/.*\.safetensors", "no .safetensors weights of unet"),
        (r"unet/.*", "no files of unet"),
        (r"tokenizer/.*", "no files of tokenizer"),
    ],
)
def test_a_repository_without_what_is_needed_is_refused_before_anything_large(
    machine: Machine, hub: Hub, gone: str, said: str
) -> None:
    """Many older repositories hold pickles alone."""
    hub.files |= {name: data for name, data in DIFFUSERS.items() if not re.fullmatch(gone, name)}
    refused = machine.call("pull", FOLDER)
    assert refused.kind == "ModelUnavailable"
    assert refused.text.startswith("cannot pull thing (someone/things): the repository has ")
    assert said in refused.text
    assert "models pull" not in refused.text
    assert refused.public == "thing is not on this server"
    assert hub.fetched() == ["model_index.json"]


USE = """
import json, sys
from afterdetail.errors import ModelUnavailable
from afterdetail.models.catalogue import load_catalogue
from afterdetail.models.choose import Choice, LoraUse
from afterdetail.models.store import locate
from afterdetail.studio import make_studio

catalogue = load_catalogue(sys.argv[1])
names = "thing", "tan", "word", "fine", "better"
thing, tan, word, fine, better = (catalogue.find(None, name) for name in names)

def is_here(spec):
    try:
        return bool(locate(spec))
    except ModelUnavailable:
        return False

def here():
    return [spec.name for spec in (thing, tan, word, fine, better) if is_here(spec)]

def refused(choice):
    try:
        serving.pool.load(choice)
    except ModelUnavailable as error:
        return str(error)

studio, serving = make_studio("cpu"), make_studio("cpu", downloads=False)
stages = [here()]
studio.load(catalogue)
stages.append(here())
choices = [
    Choice(thing, loras=frozenset({LoraUse(tan, 1.0)})),
    Choice(thing, embeddings=(word,)),
    Choice(catalogue.find(None, "large"), refiner=fine),
]
answers = [refused(choice) for choice in choices]
stages.append(here())
for choice in choices:
    studio.pool.load(choice)
    stages.append(here())
for each in studio, serving:
    each.close()
print(json.dumps({"stages": stages, "refused": answers}))
"""
OTHERS = """
sizes = ["128x128"]

[[model]]
name = "large"
kind = "checkpoint"
base = "sdxl"
package = "models/tiny-xl"

[[model]]
name = "fine"
kind = "refiner"
base = "sdxl"
hub = "someone/things"
file = "fine.safetensors"
vae = "better"

[[model]]
name = "better"
kind = "vae"
base = "sdxl"
hub = "someone/things"
file = "better.safetensors"

[[model]]
name = "tan"
kind = "lora"
base = "sd15"
hub = "someone/things"
file = "tan.safetensors"

[[model]]
name = "word"
kind = "embedding"
base = "sd15"
hub = "someone/things"
file = "word.safetensors"
"""


def test_first_use_downloads_where_it_may(
    machine: Machine, hub: Hub, save: Callable[[str], Any]
) -> None:
    """A start its bases, a request all that it names; a server that is up nothing."""
    tiny, tan = (locate(built_in().find(None, name)) for name in ("tiny", "tiny-tan"))
    refiner = save("refiner")
    files = (path for path in tiny.rglob("*") if path.is_file())
    hub.files |= {path.relative_to(tiny).as_posix(): path.read_bytes() for path in files}
    singles = {
        "tan.safetensors": tan.read_bytes(),
        "word.safetensors": safetensors({"emb_params": torch.ones(1, 64)}),
        "fine.safetensors": refiner.file.read_bytes(),
        "better.safetensors": safetensors(refiner.model.vae.state_dict()),
    }
    hub.files |= singles
    with terminal() as (theirs, seen):
        command = ["-c", USE, machine.catalogue(FOLDER + OTHERS)]
        process = machine.start(command, stderr=theirs)
        said, _ = process.communicate(timeout=250)
    assert process.returncode == 0, seen.decode()
    told = json.loads(said.splitlines()[-1])
    assert told["stages"] == [
        [],
        ["thing"],
        ["thing"],
        ["thing", "tan"],
        ["thing", "tan", "word"],
        ["thing", "tan", "word", "fine", "better"],
    ]
    for refusal, name in zip(told["refused"], ["tan", "word", "fine"], strict=True):
        assert refusal.endswith(f"get it with: afterdetail models pull {name}")
    for file in singles:
        assert file.encode() in seen, "each has its bar"


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


def test_a_download_has_a_progress_bar(machine: Machine, hub: Hub) -> None:
    hub.files["face.pt"] = WEIGHTS
    with terminal() as (theirs, seen):
        assert machine.call("pull", FILE, stderr=theirs).kind == "path"
    assert b"100%" in seen
    assert b"face.pt" in seen


@pytest.mark.parametrize(
    ("gone", "there"),
    [
        ([], True),
        (["safety_checker/model.safetensors", "everything.safetensors"], True),
        (["unet/diffusion_pytorch_model.fp16.safetensors"], True),
        (["model_index.json"], False),
        (["tokenizer/vocab.json"], False),
        (
            [
                "unet/diffusion_pytorch_model.fp16.safetensors",
                "unet/diffusion_pytorch_model.safetensors",
            ],
            False,
        ),
    ],
)
def test_a_folder_is_there_when_each_component_is(
    gone: list[str], there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    files = {name: data for name, data in DIFFUSERS.items() if name not in gone}
    snapshot = in_cache(tmp_path, files)
    spec = ModelSpec("thing", Kind.BASE, Source(hub="someone/things"))
    if there:
        assert locate(spec) == snapshot
    else:
        with pytest.raises(ModelUnavailable, match="afterdetail models pull thing"):
            locate(spec)


def test_a_wrong_checksum_is_refused_and_nothing_stays(machine: Machine, hub: Hub) -> None:
    hub.files["face.pt"] = WEIGHTS
    entry = f'{FILE}\nsha256 = "{"0" * 64}"'
    refused = machine.call("pull", entry)
    assert refused.kind == "WeightsError"
    assert refused.text.startswith("someone/things sent a wrong face.pt")
    assert refused.public == "a model's weights cannot be loaded"
    assert machine.cached() == []
    assert machine.call("locate", FILE).kind == "ModelUnavailable"


def test_the_hubs_own_checksum_counts_where_the_catalogue_has_none(
    machine: Machine, hub: Hub
) -> None:
    hub.files["face.pt"] = WEIGHTS
    hub.announced["face.pt"] = "1" * 64
    assert machine.call("pull", FILE).kind == "WeightsError"
    assert machine.cached() == []


def test_a_damaged_file_in_the_cache_is_replaced(machine: Machine, hub: Hub) -> None:
    hub.files["face.pt"] = WEIGHTS
    path = Path(machine.call("pull", FILE).text)
    path.write_bytes(WEIGHTS[:100])
    assert machine.call("pull", FILE).text == str(path)
    assert path.read_bytes() == WEIGHTS


def test_a_download_cut_short_is_resumed(machine: Machine, hub: Hub) -> None:
    data = WEIGHTS * 25  # the hub client writes in pieces of 10 MB
    hub.files["face.pt"] = data
    hub.cut["face.pt"] = len(data) * 9 // 10
    pulled = machine.call("pull", FILE)
    if pulled.kind != "path":  # older clients do not try again by themselves
        assert "run again: afterdetail models pull thing" in pulled.text
        assert machine.cached() == []
        pulled = machine.call("pull", FILE)
    assert Path(pulled.text).read_bytes() == data
    assert any("bytes=" in line for line in hub.requests)


def test_after_its_process_has_ended_a_download_goes_on_with_the_next_file(
    machine: Machine, hub: Hub
) -> None:
    """Newer clients begin the file anew that was under way, older ones go on in the midst of it."""
    unet = "unet/diffusion_pytorch_model.fp16.safetensors"
    hub.files |= {**DIFFUSERS, unet: WEIGHTS * 25}
    hub.cut[unet] = len(hub.files[unet]) * 9 // 10
    hub.stalled.add(unet)
    command = ["-c", CALL, machine.catalogue(FOLDER), "thing", "pull"]
    process = machine.start(command, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while unet not in hub.fetched():
        assert time.monotonic() < end, "nothing is asked for"
        time.sleep(0.05)
    process.kill()
    process.communicate()
    hub.stalled.clear()
    hub.go_on.set()
    assert machine.call("locate", FOLDER).kind == "ModelUnavailable"
    hub.requests.clear()
    pulled = Path(machine.call("pull", FOLDER).text)
    assert (pulled / unet).read_bytes() == hub.files[unet]
    assert hub.fetched() == [unet]


@pytest.mark.parametrize(
    ("function", "entry", "cached"),
    [
        ("pull", FILE, {}),
        ("pull", FOLDER, {}),
        ("pull", FOLDER, {"model_index.json": json.dumps(INDEX).encode()}),
        ("obtain", FOLDER, {}),
    ],
    ids=["file", "folder", "rest-of-a-folder", "first-use"],
)
def test_without_network_the_error_names_the_command(
    machine: Machine, function: str, entry: str, cached: dict[str, bytes]
) -> None:
    in_cache(machine.folder / "hf" / "hub", cached)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        refused = machine.call(function, entry, HF_ENDPOINT=url, IMPATIENT="1")
    assert (refused.kind, refused.public) == ("ModelUnavailable", "thing is not on this server")
    assert re.fullmatch(
        r"cannot pull thing \((face.pt of )?someone/things\): the hub cannot be reached "
        r"\(Connect\w+\); run again: afterdetail models pull thing, "
        "what is whole is kept",
        refused.text,
    )


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


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("thing", 0, ""),
        ("octoai:thing", 0, ""),
        ("other", 2, "unknown model 'other'; "),
        ("gone", 2, "the hub has no such file; mend the catalogue"),
    ],
)
def test_pull_as_it_is_typed(machine: Machine, hub: Hub, name: str, code: int, said: str) -> None:
    hub.files["face.pt"] = WEIGHTS
    gone = '[[model]]\nname = "gone"\nkind = "detector"\nhub = "someone/things"\nfile = "gone.pt"'
    command = ["-m", "afterdetail", "models", "pull", name]
    process = machine.start([*command, "--models", machine.catalogue(f"{FILE}\n{gone}")])
    out, complaint = process.communicate(timeout=200)
    assert process.returncode == code, complaint
    if code == 0:
        assert Path(out.removesuffix("\n")).read_bytes() == WEIGHTS
    else:
        assert (out, len(complaint.strip().splitlines())) == ("", 1)
        assert said in complaint


@pytest.mark.parametrize("entry", [FILE, FOLDER])
def test_offline_the_error_says_so(entry: str, machine: Machine, hub: Hub) -> None:
    refused = machine.call("pull", entry, HF_HUB_OFFLINE="1")
    assert refused.kind == "ModelUnavailable"
    assert "HF_HUB_OFFLINE is set; unset it and run again" in refused.text
    assert refused.public == "thing is not on this server"
    assert hub.requests == []


def test_offline_what_is_there_is_used(machine: Machine, hub: Hub) -> None:
    hub.files["face.pt"] = WEIGHTS
    pulled = machine.call("pull", FILE)
    hub.requests.clear()
    assert machine.call("pull", FILE, HF_HUB_OFFLINE="1") == pulled
    assert hub.requests == []


@pytest.mark.parametrize("entry", [FILE, FOLDER, FILE.replace("face", "other")])
def test_a_repository_without_the_file_is_named(entry: str, machine: Machine, hub: Hub) -> None:
    hub.files["README.md"] = b""
    refused = machine.call("pull", entry)
    assert refused.kind == "ModelUnavailable"
    assert refused.text.endswith("the hub has no such file; mend the catalogue")


def test_a_full_disk_is_told_and_nothing_half_written_is_used(machine: Machine, hub: Hub) -> None:
    """The system refuses to write more than a few kilobytes into one file."""
    hub.files["face.pt"] = bytes(1_000_000)
    full = machine.call("pull", FILE, LARGEST_FILE="20000")
    assert (full.kind, full.public) == ("WeightsError", "a model's weights cannot be loaded")
    assert (
        "cannot pull thing (face.pt of someone/things): the disk is full; free some of" in full.text
    )
    assert machine.cached() == []
    assert machine.call("locate", FILE).kind == "ModelUnavailable"
    assert Path(machine.call("pull", FILE).text).read_bytes() == bytes(1_000_000)


def test_of_a_model_with_another_autoencoder_its_own_is_not_pulled(
    machine: Machine, hub: Hub
) -> None:
    index = {**INDEX, "vae": ["diffusers", "AutoencoderKL"]}
    hub.files |= {
        **DIFFUSERS,
        "model_index.json": json.dumps(index).encode(),
        "vae/config.json": b"{}",
        "vae/diffusion_pytorch_model.safetensors": b"overflows",
        "better.safetensors": b"does not",
    }
    better = (
        f'{FOLDER}\nvae = "better"\n'
        '[[model]]\nname = "better"\nkind = "vae"\nbase = "sd15"\n'
        'hub = "someone/things"\nfile = "better.safetensors"'
    )
    pulled = machine.call("pull", better)
    assert pulled.kind == "path"
    assert "better.safetensors" in hub.fetched()
    assert not any(name.startswith("vae/") for name in hub.fetched())
    assert machine.call("locate", better) == pulled
    assert machine.call("locate", FOLDER).kind == "ModelUnavailable"
