"""Pulling, in a process of its own: the hub client reads its environment when it is imported."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.models.hub import Hub, Machine

HUB = runpy.run_path(str(Path(__file__).with_name("hub.py")))
FILE, FOLDER, INDEX, DIFFUSERS = (HUB[name] for name in ("FILE", "FOLDER", "INDEX", "DIFFUSERS"))
CALL, in_cache, terminal = HUB["CALL"], HUB["in_cache"], HUB["terminal"]
WEIGHTS = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


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


def test_a_download_has_a_progress_bar(machine: Machine, hub: Hub) -> None:
    hub.files["face.pt"] = WEIGHTS
    with terminal() as (theirs, seen):
        assert machine.call("pull", FILE, stderr=theirs).kind == "path"
    assert b"100%" in seen
    assert b"face.pt" in seen


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
